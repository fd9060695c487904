package world

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestReadNmap(t *testing.T) {
	f, err := os.Open(filepath.Join("testdata", "nmap.xml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := ReadNmap(f)
	if err != nil {
		t.Fatal(err)
	}
	want := []Host{
		{Name: "gate.example", Zone: "192.0.2.0/24", Address: "192.0.2.1", Services: []Service{{Name: "ssh", Port: 22}, {Name: "http", Port: 80}}},
		{Name: "2001:db8::7", Zone: "2001:db8::/64", Address: "2001:db8::7"}, // its name was taken
	}
	if !reflect.DeepEqual(s.Hosts, want) {
		t.Errorf("got %+v", s.Hosts)
	}
	var b bytes.Buffer
	if err := s.Write(&b); err != nil {
		t.Fatal(err)
	}
	again, err := Read(&b)
	if err != nil || !reflect.DeepEqual(again, s) {
		t.Errorf("written and read again: %+v, %v", again, err)
	}
}

func TestReadNmapRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"entity bomb":  `<!DOCTYPE nmaprun [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><nmaprun><host><address addr="&b;"/></host></nmaprun>`,
		"no host":      `<nmaprun></nmaprun>`,
		"another file": `<html></html>`,
		"truncated":    `<nmaprun><host><address addr="192.0.2.1"`,
		"empty":        ``,
		"a bad port":   `<nmaprun><host><address addr="192.0.2.1"/><ports><port protocol="tcp" portid="70000"/></ports></host></nmaprun>`,
	} {
		if s, err := ReadNmap(strings.NewReader(text)); err == nil {
			t.Errorf("%s is accepted: %+v", name, s)
		}
	}
}

func FuzzReadNmap(f *testing.F) {
	good, err := os.ReadFile(filepath.Join("testdata", "nmap.xml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ReadNmap(bytes.NewReader(data))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := s.Write(&b); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(&b); err != nil {
			t.Fatalf("what was imported cannot be read: %v", err)
		}
	})
}
