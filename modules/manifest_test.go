package modules

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
)

func sample() *Manifest {
	payload := bytes.Repeat([]byte{7}, MaxBlock+1)
	first, second := sha256.Sum256(payload[:MaxBlock]), sha256.Sum256(payload[MaxBlock:])
	return &Manifest{
		Name: "ssh-guess", Version: "1.0.0-rc.1+g0", Kind: KindWASM, ABI: 1, Title: "Guessed a password",
		Wants:        []Want{{Class: event.ClassAuthentication, Activities: 1 << event.ActivityLogonFailure}, {Class: event.ClassProcess}},
		Capabilities: []Capability{CapabilityLog, CapabilityState}, Attack: []string{"T1110.001"},
		Tests: []Test{{Name: "guess", Events: make([]byte, 32), Rules: []string{"x"}}},
		Size:  uint32(len(payload)), Blocks: [][]byte{first[:], second[:]},
	}
}

func TestManifestSurvivesItsEncoding(t *testing.T) {
	b, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	m, err := DecodeManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	if !m.Equal(sample()) {
		t.Fatalf("%+v", m)
	}
	if _, err := DecodeManifest(append(b, 0)); !errors.Is(err, ErrRefused) {
		t.Fatalf("a byte more was taken: %v", err)
	}
}

func TestManifestRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Manifest){
		"no name":               func(m *Manifest) { m.Name = "" },
		"a name with a slash":   func(m *Manifest) { m.Name = "../x" },
		"a long name":           func(m *Manifest) { m.Name = string(bytes.Repeat([]byte{'a'}, MaxName+1)) },
		"two numbers":           func(m *Manifest) { m.Version = "1.0" },
		"a leading zero":        func(m *Manifest) { m.Version = "1.01.0" },
		"an empty pre-release":  func(m *Manifest) { m.Version = "1.0.0-" },
		"an unknown kind":       func(m *Manifest) { m.Kind = "exe" },
		"a later ABI":           func(m *Manifest) { m.ABI = 2 },
		"a control character":   func(m *Manifest) { m.Title = "a\x1b[31m" },
		"a class of nobody":     func(m *Manifest) { m.Wants[0].Class = 9 },
		"an activity of nobody": func(m *Manifest) { m.Wants[0].Activities = 1 << 63 },
		"too many wants":        func(m *Manifest) { m.Wants = make([]Want, MaxWants+1) },
		"a file, please":        func(m *Manifest) { m.Capabilities = []Capability{"file"} },
		"a capability twice":    func(m *Manifest) { m.Capabilities = []Capability{CapabilityLog, CapabilityLog} },
		"unsorted":              func(m *Manifest) { m.Capabilities = []Capability{CapabilityState, CapabilityLog} },
		"no technique":          func(m *Manifest) { m.Attack = []string{"T11"} },
		"endless fuel":          func(m *Manifest) { m.Limits.Fuel = MaxFuel + 1 },
		"a gigabyte":            func(m *Manifest) { m.Limits.Memory = 1 << 30 },
		"no payload":            func(m *Manifest) { m.Size, m.Blocks = 0, nil },
		"a block too few":       func(m *Manifest) { m.Blocks = m.Blocks[:1] },
		"a block too many":      func(m *Manifest) { m.Blocks = append(m.Blocks, m.Blocks[0]) },
		"a short hash":          func(m *Manifest) { m.Blocks[0] = m.Blocks[0][:31] },
		"a billion bytes":       func(m *Manifest) { m.Size = 1 << 30 },
		"half a source hash":    func(m *Manifest) { m.Provenance.Source = make([]byte, 16) },
	} {
		m := sample()
		spoil(m)
		if _, err := m.Encode(); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := sample().Validate(); err != nil {
		t.Fatalf("the sample itself: %v", err)
	}
}

func TestFilterPassesOnlyWhatIsWanted(t *testing.T) {
	f := sample().Filter()
	for _, c := range []struct {
		class    event.Class
		activity event.Activity
		want     bool
	}{
		{event.ClassAuthentication, event.ActivityLogonFailure, true},
		{event.ClassAuthentication, event.ActivityLogonSuccess, false},
		{event.ClassProcess, event.ActivityExec, true},
		{event.ClassNetwork, event.ActivityConnect, false},
	} {
		if got := f.Pass(&event.Event{Class: c.class, Activity: c.activity}); got != c.want {
			t.Errorf("%s %s: %v", c.class, c.activity, got)
		}
	}
	all := (&Manifest{}).Filter()
	if !all.Pass(&event.Event{Class: event.ClassDNS}) {
		t.Error("a module that names nothing is given everything")
	}
	e := &event.Event{Class: event.ClassProcess}
	if n := testing.AllocsPerRun(100, func() { f.Pass(e) }); n != 0 {
		t.Errorf("%v allocations an event", n)
	}
}

func FuzzDecodeManifest(f *testing.F) {
	b, err := sample().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0xa0})
	f.Add([]byte{0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeManifest(b)
		if err != nil {
			return
		}
		again, err := m.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("not what it was: %v", err)
		}
	})
}
