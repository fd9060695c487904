package world

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
)

// maxScan bounds an nmap file, in bytes.
const maxScan = 64 << 20

// nmapHost is what is read of an nmap <host>.
type nmapHost struct {
	Status struct {
		State string `xml:"state,attr"`
	} `xml:"status"`
	Addresses []struct {
		Addr string `xml:"addr,attr"`
		Type string `xml:"addrtype,attr"`
	} `xml:"address"`
	Names []struct {
		Name string `xml:"name,attr"`
	} `xml:"hostnames>hostname"`
	Ports []struct {
		Protocol string `xml:"protocol,attr"`
		Number   uint16 `xml:"portid,attr"`
		State    struct {
			State string `xml:"state,attr"`
		} `xml:"state"`
		Service struct {
			Name string `xml:"name,attr"`
		} `xml:"service"`
	} `xml:"ports>port"`
}

// ReadNmap makes a scenario of the XML that `nmap -oX` writes: the hosts that were up, their open TCP ports, and a zone a
// /24 (IPv6: /64) network. A scan does not tell holes, values, links between networks or sensors: those are left out, for
// a person to add. The file is streamed; entities of its own are an error (encoding/xml expands none).
func ReadNmap(r io.Reader) (*Scenario, error) {
	limited := &io.LimitedReader{R: r, N: maxScan + 1}
	d := xml.NewDecoder(limited)
	s := &Scenario{Name: "imported from nmap", Duration: Duration(24 * time.Hour)}
	taken := map[string]bool{}
	seen := map[netip.Addr]bool{}
	began := false
	for {
		t, err := d.Token()
		if limited.N <= 0 {
			return nil, fmt.Errorf("nmap: larger than %d bytes", maxScan)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("nmap: %w", err)
		}
		e, ok := t.(xml.StartElement)
		switch {
		case !ok:
			continue
		case !began && e.Name.Local != "nmaprun":
			return nil, fmt.Errorf("nmap: the file begins with <%s>, not <nmaprun>", clip(e.Name.Local))
		case !began:
			began = true
			continue
		case e.Name.Local != "host":
			continue
		}
		var x nmapHost
		if err := d.DecodeElement(&x, &e); err != nil {
			return nil, fmt.Errorf("nmap: host %d: %w", len(s.Hosts)+1, err)
		}
		h, ok := x.host(taken)
		if !ok || seen[netip.MustParseAddr(h.Address)] {
			continue
		}
		seen[netip.MustParseAddr(h.Address)] = true
		taken[h.Name] = true
		if s.Hosts = append(s.Hosts, h); len(s.Hosts) > MaxHosts {
			return nil, fmt.Errorf("nmap: more than %d hosts", MaxHosts)
		}
	}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("nmap: %w", err)
	}
	return s, nil
}

// host is x as the scenario has it; false where it was down or has no address.
func (x *nmapHost) host(taken map[string]bool) (Host, bool) {
	var address netip.Addr
	for _, a := range x.Addresses {
		if a.Type == "mac" {
			continue
		}
		if v, err := netip.ParseAddr(a.Addr); err == nil && v.Zone() == "" {
			address = v.Unmap()
			break
		}
	}
	if !address.IsValid() || x.Status.State == "down" {
		return Host{}, false
	}
	h := Host{Name: address.String(), Address: address.String()}
	for _, n := range x.Names {
		if name := strings.TrimSpace(n.Name); name != "" && len(name) <= maxName && !taken[name] {
			h.Name = name
			break
		}
	}
	bits := 24
	if address.Is6() {
		bits = 64
	}
	h.Zone = netip.PrefixFrom(address, bits).Masked().String()
	ports := map[uint16]bool{}
	for _, p := range x.Ports {
		if p.Protocol != "tcp" || p.State.State != "open" || p.Number == 0 || ports[p.Number] || len(h.Services) == MaxServices {
			continue
		}
		ports[p.Number] = true
		h.Services = append(h.Services, Service{Name: clip(p.Service.Name), Port: p.Number})
	}
	return h, true
}
