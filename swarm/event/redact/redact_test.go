package redact

import (
	"strings"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
)

func TestEvent(t *testing.T) {
	for in, want := range map[string]string{
		"ls -l /etc/passwd":                             "ls -l /etc/passwd",
		"mysql -uroot -psecret123 db":                   "mysql -uroot -p*** db",
		"cp -p a b":                                     "cp -p a b",
		"mkdir -pv a":                                   "mkdir -pv a",
		"sshpass -p hunter2 ssh x":                      "sshpass -p *** ssh x",
		"curl -u joe:pw https://h/":                     "curl -u *** https://h/",
		"curl https://joe:pw@h/x":                       "curl https://***@h/x",
		"tool --password=x --verbose":                   "tool --password=*** --verbose",
		"tool --api-key x y":                            "tool --api-key *** y",
		"env DB_PASSWORD=x run":                         "env DB_PASSWORD=*** run",
		"omega join omega1abcdefghij":                   "omega join omega1***",
		"sh -c omega_join_omega1ABCDEF":                 "sh -c omega_join_omega1***",
		"aws AKIAABCDEFGHIJKLMNOP":                      "aws ***",
		"aws AKIAshort":                                 "aws AKIAshort",
		"curl -H Authorization: Bearer xyz":             "curl -H Authorization: *** ***",
		"echo -----BEGIN PRIVATE":                       "echo -----BEGIN PRIVATE",
		"git clone https://github.com/x/y":              "git clone https://github.com/x/y",
		"vault write auth/token x":                      "vault write auth/token x",
		"docker run -e AWS_SECRET_ACCESS_KEY=abc image": "docker run -e AWS_SECRET_ACCESS_KEY=*** image",
	} {
		e := &event.Event{Process: event.Process{Args: strings.ReplaceAll(in, " ", "\x00")}, Logon: event.Logon{Command: in}}
		Event(e)
		if got := strings.ReplaceAll(e.Process.Args, "\x00", " "); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
		if e.Logon.Command != want {
			t.Errorf("command %q: %q, want %q", in, e.Logon.Command, want)
		}
	}
	e := &event.Event{Process: event.Process{Args: "openssl\x00-----BEGIN PRIVATE KEY-----\nMIIE"}}
	if Event(e); strings.Contains(e.Process.Args, "MIIE") {
		t.Errorf("%q", e.Process.Args)
	}
}

// An event without a secret costs no allocation.
func TestNoAllocation(t *testing.T) {
	e := &event.Event{Process: event.Process{Args: "gcc\x00-O2\x00-Wall\x00-c\x00main.c\x00-o\x00/tmp/build/main.o"}}
	if n := testing.AllocsPerRun(100, func() { Event(e) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzEvent(f *testing.F) {
	f.Add("curl\x00-u\x00a:b\x00https://x:y@z/")
	f.Add("omega1\x00=:\x00Bearer")
	f.Fuzz(func(t *testing.T, args string) {
		e := &event.Event{Process: event.Process{Args: args}}
		Event(e)
		if strings.Count(e.Process.Args, "\x00") != strings.Count(args, "\x00") {
			t.Fatalf("%q has other words than %q", e.Process.Args, args)
		}
		again := e.Process.Args
		if Words(strings.Split(args, "\x00"), 200); e.Process.Args != again {
			t.Fatal("changed")
		}
	})
}

func BenchmarkEvent(b *testing.B) {
	e := &event.Event{Process: event.Process{Args: "gcc\x00-O2\x00-Wall\x00-c\x00main.c\x00-o\x00/tmp/build/main.o\x00-I/usr/include/x86_64-linux-gnu"}}
	b.ReportAllocs()
	for b.Loop() {
		Event(e)
	}
}
