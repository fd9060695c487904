package inventory

import (
	"fmt"
	"io"
)

// MaxComponents bounds what is kept of all bills of materials together.
const MaxComponents = 300_000

// bill is what is kept of a software bill of materials.
type bill struct {
	subject    string // what it describes, where it says so
	components []component
	nameless   int             // components without a package URL that OSV could know
	excused    map[string]bool // vulnerabilities that it says do not affect what it describes (VEX)
	seen       map[component]bool
	room       int
}

func newBill(room int) *bill {
	return &bill{excused: map[string]bool{}, seen: map[component]bool{}, room: room}
}

func (b *bill) add(purl string) error {
	c, ok := parsePURL(purl)
	switch {
	case !ok || c.ecosystem == "" || c.version == "":
		b.nameless++
	case b.seen[c]:
	case len(b.components) == b.room:
		return fmt.Errorf("more than %d components in all", MaxComponents)
	default:
		b.seen[c] = true
		b.components = append(b.components, c)
	}
	return nil
}

// readCycloneDX reads a CycloneDX bill of materials in JSON (ECMA-424, versions 1.2 and up), streamed: memory grows with
// the number of components, not with the file.
func readCycloneDX(r io.Reader, room int) (*bill, error) {
	s, b := newStream(r), newBill(room)
	format := ""
	err := s.object(func(key string) error {
		switch key {
		case "bomFormat":
			return s.value(&format)
		case "components":
			return s.array(func() error { return b.cycloneComponent(s) })
		case "vulnerabilities":
			return s.array(func() error { return b.cycloneVulnerability(s) })
		case "metadata":
			return s.object(func(key string) error {
				if key != "component" {
					return s.skip()
				}
				return s.object(func(key string) error {
					if key == "name" {
						return s.value(&b.subject)
					}
					return s.skip()
				})
			})
		}
		return s.skip()
	})
	if err == nil {
		err = s.end()
	}
	if err == nil && format != "CycloneDX" {
		err = fmt.Errorf("its bomFormat is %q, not CycloneDX", clip(format))
	}
	if err != nil {
		return nil, fmt.Errorf("CycloneDX: %w", err)
	}
	return b, nil
}

func (b *bill) cycloneComponent(s *stream) error {
	purl := ""
	if err := s.object(func(key string) error {
		switch key {
		case "purl":
			return s.value(&purl)
		case "components": // those within it
			return s.array(func() error { return b.cycloneComponent(s) })
		}
		return s.skip()
	}); err != nil {
		return err
	}
	return b.add(purl)
}

func (b *bill) cycloneVulnerability(s *stream) error {
	id, state := "", ""
	if err := s.object(func(key string) error {
		switch key {
		case "id":
			return s.value(&id)
		case "analysis":
			return s.object(func(key string) error {
				if key == "state" {
					return s.value(&state)
				}
				return s.skip()
			})
		}
		return s.skip()
	}); err != nil {
		return err
	}
	if state == "not_affected" || state == "false_positive" || state == "resolved" || state == "resolved_with_pedigree" {
		if len(b.excused) == b.room {
			return fmt.Errorf("more than %d vulnerabilities in one bill", b.room)
		}
		b.excused[id] = true
	}
	return nil
}

// readSPDX reads an SPDX document in JSON, versions 2.2, 2.3 (ISO/IEC 5962) and 3.0, streamed as CycloneDX is.
func readSPDX(r io.Reader, room int) (*bill, error) {
	s, b := newStream(r), newBill(room)
	known := false
	err := s.object(func(key string) error {
		switch key {
		case "spdxVersion":
			known = true
			return s.skip()
		case "name":
			return s.value(&b.subject)
		case "packages":
			return s.array(func() error { return b.spdxPackage(s) })
		case "@graph": // 3.0
			known = true
			return s.array(func() error { return b.spdxElement(s) })
		}
		return s.skip()
	})
	if err == nil {
		err = s.end()
	}
	if err == nil && !known {
		err = fmt.Errorf("it has no spdxVersion and no @graph")
	}
	if err != nil {
		return nil, fmt.Errorf("SPDX: %w", err)
	}
	return b, nil
}

func (b *bill) spdxPackage(s *stream) error {
	purl := ""
	if err := s.object(func(key string) error {
		if key != "externalRefs" {
			return s.skip()
		}
		return s.array(func() error {
			kind, locator := "", ""
			err := s.object(func(key string) error {
				switch key {
				case "referenceType":
					return s.value(&kind)
				case "referenceLocator":
					return s.value(&locator)
				}
				return s.skip()
			})
			if kind == "purl" {
				purl = locator
			}
			return err
		})
	}); err != nil {
		return err
	}
	return b.add(purl)
}

func (b *bill) spdxElement(s *stream) error {
	kind, purl := "", ""
	if err := s.object(func(key string) error {
		switch key {
		case "type", "@type":
			if c, err := s.peek(); err != nil || c != '"' {
				return s.skip()
			}
			return s.value(&kind)
		case "software_packageUrl":
			return s.value(&purl)
		}
		return s.skip()
	}); err != nil {
		return err
	}
	if kind != "software_Package" {
		return nil
	}
	return b.add(purl)
}
