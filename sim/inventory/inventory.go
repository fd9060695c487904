// Package inventory makes a scenario of what others know about a network: nmap's scans, inventories in CSV, software bills
// of materials in CycloneDX and SPDX, and advisories in OSV's format. Every file is streamed and bounded, since scanners,
// build systems and feeds are other people's.
//
// What such files cannot tell (values, what reaches what, sensors, attackers) is either left out or assumed, and each
// such gap is a Warning with a name. The scenario itself is sim/world's.
package inventory

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/omega-mesh/omega/sim/world"
)

const maxName = 100 // bytes of a host's name, as the scenario has it

// Kind is what a file is.
type Kind string

// The kinds of file that Import reads.
const (
	Nmap      Kind = "nmap"
	CSV       Kind = "csv"
	CycloneDX Kind = "cyclonedx"
	SPDX      Kind = "spdx"
)

// Kinds are the kinds of file that Import reads.
func Kinds() []Kind { return []Kind{Nmap, CSV, CycloneDX, SPDX} }

// File is one file to import.
type File struct {
	Path string
	Kind Kind   // "": recognised
	Host string // of a bill of materials: whose software it is; "": the one host there is, or the one that it names
}

// Options say what to import.
type Options struct {
	Files []File
	OSV   []string // advisories: files, folders or .zip
	Bare  bool     // assume nothing: no values, links, attacker or response
}

// Warning is something that the files do not tell, or that was assumed.
type Warning struct {
	Code string `json:"code"` // a stable name, such as no-port
	Text string `json:"text"`
}

// host is a host as files tell it.
type host struct {
	world.Host
	products map[uint16]string // what listens, where the file says so
}

type importer struct {
	hosts    []host
	byName   map[string]int
	byAddr   map[string]int
	bills    []ownedBill
	room     int
	warnings []Warning
}

type ownedBill struct {
	*bill
	file File
	host int
}

// Import makes a scenario. It passes Validate, or the error says which file is at fault and where.
func Import(o Options) (*world.Scenario, []Warning, error) {
	im := &importer{byName: map[string]int{}, byAddr: map[string]int{}, room: MaxComponents}
	for _, f := range o.Files {
		if err := im.read(f); err != nil {
			return nil, im.warnings, fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	if err := im.settle(); err != nil {
		return nil, im.warnings, err
	}
	if err := im.advise(o.OSV); err != nil {
		return nil, im.warnings, err
	}
	s := im.scenario(o.Bare)
	if err := s.Validate(); err != nil {
		return nil, im.warnings, fmt.Errorf("what was imported is no scenario: %w", err)
	}
	return s, im.warnings, nil
}

func (im *importer) warn(code, format string, a ...any) {
	im.warnings = append(im.warnings, Warning{code, fmt.Sprintf(format, a...)})
}

func (im *importer) read(f File) error {
	if f.Kind == "" {
		var err error
		if f.Kind, err = recognise(f.Path); err != nil {
			return err
		}
	}
	in, err := os.Open(f.Path)
	if err != nil {
		return errors.Unwrap(err)
	}
	defer in.Close()
	switch f.Kind {
	case Nmap:
		hosts, err := readNmap(in, maxScan)
		if err != nil {
			return err
		}
		return im.add(hosts)
	case CSV:
		hosts, unread, err := readCSV(in)
		if err != nil {
			return err
		}
		if len(unread) > 0 {
			im.warn("columns-unread", "%s: columns that are not read: %s", f.Path, some(unread))
		}
		return im.add(hosts)
	case CycloneDX, SPDX:
		read := readCycloneDX
		if f.Kind == SPDX {
			read = readSPDX
		}
		b, err := read(in, im.room)
		if err != nil {
			return err
		}
		im.room -= len(b.components)
		im.bills = append(im.bills, ownedBill{b, f, -1})
		return nil
	}
	return fmt.Errorf("kind %q: want one of %v", clip(string(f.Kind)), Kinds())
}

// recognise says what a file is by how it begins, or for JSON by the keys of its document.
func recognise(path string) (Kind, error) {
	in, err := os.Open(path)
	if err != nil {
		return "", errors.Unwrap(err)
	}
	defer in.Close()
	return kindOf(in)
}

func kindOf(in io.Reader) (Kind, error) {
	r := bufio.NewReaderSize(in, 64<<10)
	head, err := r.Peek(4096)
	if err != nil && err != io.EOF && !errors.Is(err, bufio.ErrBufferFull) {
		return "", err
	}
	head = bytes.TrimSpace(bytes.TrimPrefix(head, []byte("\ufeff")))
	switch {
	case len(head) == 0:
		return "", errors.New("the file is empty")
	case head[0] == '<':
		return Nmap, nil
	case head[0] != '{' && head[0] != '[':
		return CSV, nil
	}
	if head[0] == '[' {
		return "", errors.New("a JSON array: neither CycloneDX nor SPDX (advisories are given with --osv)")
	}
	found := Kind("")
	done := errors.New("recognised")
	s := newStream(r)
	err = s.object(func(key string) error {
		switch key {
		case "bomFormat":
			found = CycloneDX
		case "spdxVersion", "SPDXID", "@graph":
			found = SPDX
		case "affected":
			return errors.New("it is an advisory in OSV's format: give it with --osv")
		default:
			return s.skip()
		}
		return done
	})
	if found != "" {
		return found, nil
	}
	if err != nil {
		return "", err
	}
	return "", errors.New("JSON, but neither CycloneDX (bomFormat) nor SPDX (spdxVersion, @graph); say what it is with --kind")
}

// add takes in hosts; one of the same address or name is the same host.
func (im *importer) add(hosts []host) error {
	for _, h := range hosts {
		if h.Address != "" {
			a, err := netip.ParseAddr(h.Address)
			if err != nil {
				return fmt.Errorf("host %q: address %q is none", clip(h.Name), clip(h.Address))
			}
			h.Address = a.Unmap().String()
		}
		at, known := im.byAddr[h.Address]
		if h.Address == "" || !known {
			known = false
			if at2, named := im.byName[h.Name]; h.Name != "" && named {
				if h.Address == "" || im.hosts[at2].Address == "" {
					at, known = at2, true
				} else { // another host under a name that is taken
					im.warn("name-taken", "%s is called %s, as %s is; it goes by its address", h.Address, clip(h.Name), im.hosts[at2].Address)
					h.Name = ""
				}
			}
		}
		if !known {
			at = len(im.hosts)
			im.hosts = append(im.hosts, host{products: map[uint16]string{}})
		}
		if err := im.hosts[at].merge(h); err != nil {
			return err
		}
		if h.Address != "" {
			im.byAddr[h.Address] = at
		}
		if h.Name != "" {
			im.byName[h.Name] = at
		}
	}
	return nil
}

// merge takes over what h does not say yet.
func (h *host) merge(from host) error {
	for _, p := range []struct{ to, from *string }{{&h.Name, &from.Name}, {&h.Address, &from.Address}, {&h.Zone, &from.Zone}} {
		if *p.to == "" {
			*p.to = *p.from
		}
	}
	for _, p := range []struct{ to, from *float64 }{{&h.Value, &from.Value}, {&h.Escalate, &from.Escalate}, {&h.Detect, &from.Detect}, {&h.FalseRate, &from.FalseRate}} {
		if *p.to == 0 {
			*p.to = *p.from
		}
	}
	for _, v := range from.Services {
		if product, again := h.products[v.Port]; again {
			if product == "" {
				h.products[v.Port] = from.products[v.Port]
			}
			continue
		}
		h.products[v.Port] = from.products[v.Port]
		h.Services = append(h.Services, v)
	}
	h.Decoys = append(h.Decoys, from.Decoys...)
	h.Accounts = append(h.Accounts, from.Accounts...)
	return nil
}

// settle gives every host a name and a zone, and every bill of materials its host.
func (im *importer) settle() error {
	if len(im.hosts) == 0 && len(im.bills) > 0 { // software alone: each bill is a host
		for i := range im.bills {
			name := im.bills[i].file.Host
			if name == "" {
				name = im.bills[i].subject
			}
			if name == "" || len(name) > maxName {
				return fmt.Errorf("%s: whose software is it? say so with --host", im.bills[i].file.Path)
			}
			if _, known := im.byName[name]; !known {
				im.byName[name] = len(im.hosts)
				im.hosts = append(im.hosts, host{Host: world.Host{Name: name, Zone: "inside"}, products: map[uint16]string{}})
			}
		}
		im.warn("no-network", "no scan and no inventory: what listens on these hosts is not known, so that nothing can be attacked over the network")
	}
	if len(im.hosts) == 0 {
		return errors.New("nothing to import: name at least one file")
	}
	zoneless := 0
	for i := range im.hosts {
		h := &im.hosts[i]
		if h.Name == "" {
			h.Name = h.Address
			im.byName[h.Name] = i
		}
		if h.Zone != "" {
			continue
		}
		h.Zone = "inside"
		if a, err := netip.ParseAddr(h.Address); err == nil {
			bits := 24
			if a.Is6() {
				bits = 64
			}
			h.Zone = netip.PrefixFrom(a, bits).Masked().String()
		}
		zoneless++
	}
	if zoneless > 0 {
		im.warn("assumed-zones", "%d hosts have no zone: each was put into that of its network (/24, IPv6 /64)", zoneless)
	}
	for i := range im.bills {
		b := &im.bills[i]
		at, known := im.byName[b.file.Host]
		if !known {
			at, known = im.byAddr[b.file.Host]
		}
		switch {
		case known:
		case b.file.Host != "":
			return fmt.Errorf("%s: no host %q%s", b.file.Path, clip(b.file.Host), world.Nearest(b.file.Host, im.byName))
		case len(im.hosts) == 1:
			at = 0
		default:
			if at, known = im.byName[b.subject]; !known {
				return fmt.Errorf("%s: whose software is it? It describes %q, which is none of the %d hosts; say so with --host", b.file.Path, clip(b.subject), len(im.hosts))
			}
		}
		b.host = at
	}
	return nil
}

// some is a list for a person: its first few, and how many more.
func some(list []string) string {
	const few = 5
	if len(list) <= few {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:few], ", "), len(list)-few)
}

// clip keeps what a file says short.
func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
