package where

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
)

var sample = &event.Event{
	Class: event.ClassProcess, Activity: event.ActivityExec,
	Process: event.Process{Key: event.ProcessKey{PID: 42}, UID: 1000, Exe: "/tmp/x y", Args: "x\x00-c\x00\"id\""},
	Network: event.Network{Remote: netip.MustParseAddrPort("[::ffff:10.1.2.3]:443")},
}

func TestCompile(t *testing.T) {
	for text, want := range map[string]bool{
		"":                                      true,
		"class = process":                       true,
		"class=process and activity=exec":       true,
		"pid > 41 and pid<=42":                  true,
		"pid != 42":                             false,
		`exe ~ "/tmp/x y"`:                      true,
		`exe = "/tmp/x y" and not uid = 0`:      true,
		`args ~ "\"id\""`:                       true,
		"exe !~ tmp":                            false,
		"remote = 10.1.0.0/16":                  true,
		"remote = 10.1.2.3 and remote_port=443": true,
		"remote != 10.1.2.3":                    false,
		"class=dns or (pid=1 or pid=42)":        true,
		"! (pid=42)":                            false,
		"class=dns and pid=42 or uid=1000":      true,
		`user = ""`:                             true,
	} {
		e, err := Compile(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := e(sample); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, text := range []string{"pid", "pid =", "pid = x", "colour = red", "exe < a", "remote = x", "(pid=1", "pid=1 pid=2",
		`exe = "a`, "and", "not", "pid=1 and", strings.Repeat("(", 100) + "pid=1" + strings.Repeat(")", 100), strings.Repeat("a", MaxLength+1)} {
		if _, err := Compile(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func FuzzCompile(f *testing.F) {
	f.Add(`class = process and (exe ~ "/tmp/" or not uid = 0)`)
	f.Add(`remote = 10.0.0.0/8 or "`)
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := Compile(text); err == nil {
			e(sample)
		}
	})
}

func TestEvaluatingAllocatesNothing(t *testing.T) {
	e, err := Compile(`class = process and exe ~ "/tmp/" and remote = 10.0.0.0/8 and not uid = 0`)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { e(sample) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
