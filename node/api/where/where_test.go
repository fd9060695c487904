package where

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
)

var sample = &event.Event{
	Class: event.ClassProcess, Activity: event.ActivityExec,
	Process: event.Process{Key: event.ProcessKey{PID: 42}, UID: 1000, Flags: event.FlagScript, Caps: 1 << 21, Exe: "/tmp/x y", Args: "x\x00-c\x00\"id\""},
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
		`class == "process"`:                    true,
		"class_uid == 1007":                     true,
		"process.pid == 42":                     true,
		"actor.process.user.uid = 1000":         true,
		`dst_endpoint.ip in (::1, 10.0.0.0/8)`:  true,
		`CommandLine contains "-c \"id"`:        true,
		`Image endswith "x y"`:                  true,
		`Image endswith x`:                      false,
		`exe startswith /tmp`:                   true,
		`args = "-c"`:                           true,
		`args = "x -c \"id\""`:                  true,
		`args = "x"`:                            true,
		`args contains "c  "`:                   false,
		`args startswith "x -"`:                 true,
		`args endswith "c \"id\""`:              true,
		`args ~ ""`:                             true,
		"pid in (41,42)":                        true,
		`pid in (0x2a)`:                         true,
		`comm in (a, "b,c")`:                    false,
		`activity in (exec, fork) and pid=42`:   true,
		"flag = memfd":                          false,
		"flag in (memfd, script)":               true,
		"caps contains cap_sys_admin":           true,
		"caps != cap_chown":                     true,
		"initiated = true":                      true,
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
		`exe = "a`, "pid in 4", "pid in ()", "pid in (4", "pid in (4,)", "pid in (4 5)", "pid in (4) 5", "flag = x", "caps < cap_bpf", "process = 1", "args < a", "and", "not", "pid=1 and", strings.Repeat("(", 100) + "pid=1" + strings.Repeat(")", 100), strings.Repeat("a", MaxLength+1)} {
		if _, err := Compile(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func FuzzCompile(f *testing.F) {
	f.Add(`class = process and (exe ~ "/tmp/" or not uid = 0)`)
	f.Add(`remote = 10.0.0.0/8 or "`)
	f.Add(`pid in (1, 2,"3") and flag = script and args endswith "x y"`)
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := Compile(text); err == nil {
			e(sample)
		}
	})
}

func TestEvaluatingAllocatesNothing(t *testing.T) {
	e, err := Compile(`class = process and exe ~ "/tmp/" and args ~ "-c" and flag = script and remote in (::1, 10.0.0.0/8) and not uid = 0`)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { e(sample) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
