package world

import (
	"bytes"
	"reflect"
	"testing"
	"time"
)

func written(t testing.TB, s *Scenario) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What is generated reads back as it was, depends on size and seed alone, and something happens in it.
func TestGenerate(t *testing.T) {
	sizes := []int{4, 5, 20, 130, 1500}
	if testing.Short() {
		sizes = sizes[:4]
	}
	for _, n := range sizes {
		s, err := Generate(n, 7)
		if err != nil {
			t.Fatalf("%d hosts: %v", n, err)
		}
		file := written(t, s)
		again, err := Read(bytes.NewReader(file))
		if err != nil || !reflect.DeepEqual(again, s) || len(s.Hosts) != n {
			t.Fatalf("%d hosts: %v, written and read again it differs", n, err)
		}
		same, _ := Generate(n, 7)
		other, _ := Generate(n, 8)
		if !bytes.Equal(written(t, same), file) || bytes.Equal(written(t, other), file) {
			t.Errorf("%d hosts: the seed does not decide", n)
		}
	}
	s, err := Generate(130, 7)
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	for i := range 20 {
		taken += start(t, s, uint64(i)).Run(1 << 62).Taken
	}
	if taken < 20 {
		t.Errorf("in 20 days %d hosts were taken: the way in is shut", taken)
	}
	for _, n := range []int{-1, 0, 3, MaxHosts + 1} {
		if _, err := Generate(n, 1); err == nil {
			t.Errorf("%d hosts are made", n)
		}
	}
}

// The largest network fits a file that can be read.
func TestGenerateLargest(t *testing.T) {
	if testing.Short() {
		t.Skip("short: the largest network takes seconds, and a minute under the race detector")
	}
	s, err := Generate(MaxHosts, 1)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(written(t, s)); n > MaxFile {
		t.Errorf("its file has %d bytes, %d can be read", n, MaxFile)
	}
}

// lab is an attacker on the inside who begins with one host as root.
func lab(t *testing.T, text string) *Scenario {
	t.Helper()
	s, err := Read(bytes.NewReader([]byte("name: lab\nduration: 48h\nattackers: [{name: a, zone: z, pace: 1m}]\n" + text)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// An account's secret opens every host that has the account, with the account's rights there.
func TestReusedAccount(t *testing.T) {
	s := lab(t, `
hosts:
  - {name: first, zone: z, services: [{name: http, port: 80, exploit: 1, gives: root}]}
  - {name: second, zone: z, accounts: [{name: backup, root: true}]}
  - {name: third, zone: z, accounts: [{name: backup}]}
  - {name: fourth, zone: z, accounts: [{name: other, root: true}]}
credentials: [{name: key, on: [first], account: backup}]
`)
	r := start(t, s, 1).Run(1 << 62)
	if r.Taken != 3 || r.Rooted != 2 {
		t.Errorf("%+v; want three taken, two as root", r)
	}
}

// A user leaves a secret behind where it logged on, and not before its working hours.
func TestUsersHabits(t *testing.T) {
	s := lab(t, `
hosts:
  - {name: server, zone: z, services: [{name: http, port: 80, exploit: 1, gives: root}]}
  - {name: vault, zone: z, accounts: [{name: ann, root: true}]}
  - {name: desk, zone: z}
users: [{host: desk, to: [server], each: 1h, account: ann, from: 9h, until: 17h}]
`)
	for seed := range uint64(20) {
		w := start(t, s, seed)
		logons := 0
		w.OnStep = func(x Step) {
			if x.Action != UserLogon.String() {
				return
			}
			logons++
			if clock := x.At % (24 * time.Hour); clock < 9*time.Hour || clock >= 17*time.Hour {
				t.Fatalf("seed %d: a logon at %s", seed, x.At)
			}
		}
		if r := w.Run(9 * time.Hour); r.Rooted != 1 || logons != 0 {
			t.Fatalf("seed %d: before work began %+v", seed, r)
		}
		if r := w.Run(1 << 62); r.Rooted != 2 || logons < 10 {
			t.Fatalf("seed %d: after two days %+v, %d logons", seed, r, logons)
		}
	}
}

// Of the holes behind a port the surest is used; one without a port makes a user root.
func TestVulnerabilities(t *testing.T) {
	const base = `
hosts:
  - name: h
    zone: z
    services: [{name: http, port: 80}]
    vulnerabilities: [{id: A, port: 80, exploit: 0.001}, {id: B, port: 80, exploit: 1}, {id: C, package: kernel, exploit: 1}]
`
	s := lab(t, base)
	if r := start(t, s, 1).Run(1 << 62); r.Taken != 1 || r.Rooted != 1 {
		t.Errorf("%+v", r)
	}
	s.Hosts[0].Vulnerabilities = s.Hosts[0].Vulnerabilities[1:2]
	if r := start(t, s, 1).Run(1 << 62); r.Taken != 1 || r.Rooted != 0 {
		t.Errorf("without the local hole: %+v", r)
	}
}
