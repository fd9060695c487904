package inventory

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/omega-mesh/omega/sim/world"
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
			Name    string `xml:"name,attr"`
			Product string `xml:"product,attr"`
		} `xml:"service"`
	} `xml:"ports>port"`
}

// readNmap reads the XML that `nmap -oX` writes: the hosts that were up and their open TCP ports. The file is streamed;
// entities of its own are an error (encoding/xml expands none).
func readNmap(r io.Reader, limit int64) ([]host, error) {
	limited := &io.LimitedReader{R: r, N: limit + 1}
	d := xml.NewDecoder(limited)
	var hosts []host
	began := false
	for {
		t, err := d.Token()
		if limited.N <= 0 {
			return nil, fmt.Errorf("nmap: larger than %d bytes", limit)
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
			return nil, fmt.Errorf("nmap: host %d: %w", len(hosts)+1, err)
		}
		h, ok := x.host()
		if !ok {
			continue
		}
		if hosts = append(hosts, h); len(hosts) > world.MaxHosts {
			return nil, fmt.Errorf("nmap: more than %d hosts", world.MaxHosts)
		}
	}
	if len(hosts) == 0 {
		return nil, errors.New("nmap: no host that was up")
	}
	return hosts, nil
}

// host is x as it is kept; false where it was down or has no address.
func (x *nmapHost) host() (host, bool) {
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
		return host{}, false
	}
	h := host{Host: world.Host{Address: address.String()}, products: map[uint16]string{}}
	for _, n := range x.Names {
		if name := strings.TrimSpace(n.Name); name != "" && len(name) <= maxName {
			h.Name = name
			break
		}
	}
	for _, p := range x.Ports {
		if _, again := h.products[p.Number]; p.Protocol != "tcp" || p.State.State != "open" || p.Number == 0 || again || len(h.Services) == world.MaxServices {
			continue
		}
		h.products[p.Number] = clip(p.Service.Product)
		h.Services = append(h.Services, world.Service{Name: clip(p.Service.Name), Port: p.Number})
	}
	return h, true
}
