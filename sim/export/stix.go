package export

import (
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/omega-mesh/omega/sim/world"
)

// Namespaces of the name-based identifiers (UUID version 5): that of STIX 2.1 for cyber-observable objects (section 2.9),
// and one of our own for the rest.
const (
	observables = "00abedb4-aa42-466c-9c01-fed23315a9b7"
	ours        = "6d1f1a52-8c0b-5c53-9a0e-0b9a8b0f7f10"
)

// stamp is when every object is said to have been created: a scenario has no date, and the same scenario gives the same
// bundle.
const stamp = "2020-01-01T00:00:00.000Z"

// uuid is the UUID version 5 of a name (RFC 9562). SHA-1 stands in its definition; nothing here rests on its strength.
func uuid(namespace, name string) string {
	space, err := hex.DecodeString(strings.ReplaceAll(namespace, "-", ""))
	if err != nil {
		return "" // the namespaces above are well-formed
	}
	sum := sha1.Sum(append(space, name...))
	sum[6] = sum[6]&0x0f | 0x50
	sum[8] = sum[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

type object map[string]any

// bundle gathers objects, each once.
type bundle struct {
	objects []object
	seen    map[string]bool
}

func (b *bundle) put(o object) string {
	id := o["id"].(string)
	if !b.seen[id] {
		b.seen[id] = true
		o["spec_version"] = "2.1"
		b.objects = append(b.objects, o)
	}
	return id
}

// domain puts a domain object, named by what within the scenario.
func (b *bundle) domain(kind, what string, o object) string {
	o["type"], o["id"] = kind, kind+"--"+uuid(ours, kind+"\x00"+what)
	o["created"], o["modified"] = stamp, stamp
	return b.put(o)
}

// observable puts a cyber-observable object, whose identifier follows from what it is.
func (b *bundle) observable(kind string, o object) (string, error) {
	key, err := json.Marshal(map[string]any(o)) // sorted keys; no character in it needs more of RFC 8785
	if err != nil {
		return "", err
	}
	o["type"], o["id"] = kind, kind+"--"+uuid(observables, string(key))
	return b.put(o), nil
}

func (b *bundle) relate(from, verb, to string) {
	b.domain("relationship", from+"\x00"+verb+"\x00"+to, object{"relationship_type": verb, "source_ref": from, "target_ref": to})
}

// STIX is a scenario as a STIX 2.1 bundle (OASIS, 10 June 2021): zones and hosts as infrastructure, what listens as
// software, holes as vulnerabilities, and the relationships between them. Identifiers follow from the content.
func STIX(s *world.Scenario) ([]byte, error) {
	b := &bundle{seen: map[string]bool{}}
	g := world.NewGraph(s)
	zones := make([]string, len(g.Zones))
	for z, name := range g.Zones {
		zones[z] = b.domain("infrastructure", s.Name+"\x00zone\x00"+name, object{"name": name, "description": "zone of the network " + s.Name})
	}
	for h := range s.Hosts {
		host := &s.Hosts[h]
		o := object{"name": host.Name, "infrastructure_types": []string{"unknown"}}
		if len(host.Decoys) > 0 {
			o["description"] = fmt.Sprintf("with decoys on %s", ports(host.Decoys))
		}
		id := b.domain("infrastructure", s.Name+"\x00host\x00"+host.Name, o)
		b.relate(zones[g.ZoneOf[h]], "consists-of", id)
		if a, err := netip.ParseAddr(host.Address); err == nil {
			kind := "ipv4-addr"
			if a.Is6() {
				kind = "ipv6-addr"
			}
			address, err := b.observable(kind, object{"value": a.String()})
			if err != nil {
				return nil, err
			}
			b.relate(id, "consists-of", address)
		}
		software := func(name string) error {
			if name == "" {
				return nil
			}
			sco, err := b.observable("software", object{"name": name})
			if err == nil {
				b.relate(id, "consists-of", sco)
			}
			return err
		}
		hole := func(name string) {
			o := object{"name": name}
			if strings.HasPrefix(name, "CVE-") {
				o["external_references"] = []object{{"source_name": "cve", "external_id": name}}
			}
			b.relate(id, "has", b.domain("vulnerability", name, o))
		}
		for _, v := range host.Services {
			if err := software(v.Name); err != nil {
				return nil, err
			}
			if v.Vulnerability != "" {
				hole(v.Vulnerability)
			}
		}
		for _, v := range host.Vulnerabilities {
			if err := software(v.Package); err != nil {
				return nil, err
			}
			hole(v.ID)
		}
	}
	for to, routes := range g.Routes {
		for _, r := range routes {
			if r.From != to {
				b.relate(zones[r.From], "communicates-with", zones[to])
			}
		}
	}
	var ids strings.Builder
	for _, o := range b.objects {
		ids.WriteString(o["id"].(string))
	}
	return json.MarshalIndent(object{"type": "bundle", "id": "bundle--" + uuid(ours, ids.String()), "objects": b.objects}, "", " ")
}
