package inventory

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/sim/world"
)

func TestNmap(t *testing.T) {
	s, _, err := Import(Options{Files: []File{{Path: filepath.Join("testdata", "nmap.xml")}}, Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	want := []world.Host{
		{Name: "gate.example", Zone: "192.0.2.0/24", Address: "192.0.2.1", Services: []world.Service{{Name: "ssh", Port: 22}, {Name: "http", Port: 80}}},
		{Name: "2001:db8::7", Zone: "2001:db8::/64", Address: "2001:db8::7"}, // its name was taken
	}
	if !reflect.DeepEqual(s.Hosts, want) || s.Attackers != nil || s.Links != nil {
		t.Errorf("got %+v", s)
	}
}

func TestNmapRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"entity bomb":  `<!DOCTYPE nmaprun [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><nmaprun><host><address addr="&b;"/></host></nmaprun>`,
		"no host":      `<nmaprun></nmaprun>`,
		"another file": `<html></html>`,
		"truncated":    `<nmaprun><host><address addr="192.0.2.1"`,
		"empty":        ``,
		"a bad port":   `<nmaprun><host><address addr="192.0.2.1"/><ports><port protocol="tcp" portid="70000"/></ports></host></nmaprun>`,
		"too large":    `<nmaprun>` + strings.Repeat(" ", 1000),
	} {
		if hosts, err := readNmap(strings.NewReader(text), 500); err == nil {
			t.Errorf("%s is accepted: %+v", name, hosts)
		}
	}
}

// imported checks that what a reader gave makes a scenario that can be written and read, or an error.
func imported(t *testing.T, hosts []host) {
	t.Helper()
	im := &importer{byName: map[string]int{}, byAddr: map[string]int{}}
	if err := im.add(hosts); err != nil {
		return
	}
	if err := im.settle(); err != nil {
		return
	}
	s := im.scenario(false)
	if s.Validate() != nil {
		return // said by Import
	}
	var b bytes.Buffer
	if err := s.Write(&b); err != nil {
		t.Fatal(err)
	}
	if _, err := world.Read(&b); err != nil {
		t.Fatalf("what was imported cannot be read: %v", err)
	}
}

func FuzzNmap(f *testing.F) {
	good, err := os.ReadFile(filepath.Join("testdata", "nmap.xml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		if hosts, err := readNmap(bytes.NewReader(data), maxScan); err == nil {
			imported(t, hosts)
		}
	})
}
