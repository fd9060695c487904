package node

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
)

// What a configured list names is found in a recording that a live node is given, counted as a sighting, and said by the
// doctor; what is handed over by the socket is looked for at once, and no more once it is removed.
func TestIndicatorsOfAHost(t *testing.T) {
	r := newRig(t, "looking")
	dir := filepath.Dir(r.dir)
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	e := event.Event{Time: 1764000000e9, Class: event.ClassDNS, Activity: event.ActivityDNSQuery}
	e.Process.Key, e.Process.Exe = event.ProcessKey{PID: 4711, Start: 1}, "/usr/bin/curl"
	e.DNS.Name, e.DNS.Type = "c2.evil.example", 1
	line, err := ocsf.Encode(&e, "looking", "did:omega:x")
	if err != nil {
		t.Fatal(err)
	}
	r.cfg.IndicatorSources = []string{write("list.txt", []byte("evil.example\n"))}
	r.cfg.Sensor = "replay:" + write("events.jsonl", append(bytes.TrimSpace(line), '\n'))
	if _, err := Init(r.dir, InitOptions{Name: "looking", Swarm: "looking", Roles: []string{"sentinel"}}); err != nil {
		t.Fatal(err)
	}
	r.up()
	eventually(t, "the list's finding", func() bool {
		for _, f := range r.findings() {
			if strings.Contains(f, "indicator.domain") {
				return true
			}
		}
		return false
	})
	ctx := t.Context()
	look := func(value string) *apiv1.LookupIndicatorResponse {
		t.Helper()
		out, err := r.client.LookupIndicator(ctx, &apiv1.LookupIndicatorRequest{Value: value})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if m := look("evil.example"); !m.Found || len(m.Sightings) != 1 || m.Sightings[0].Count != 1 {
		t.Errorf("%v", m)
	}

	add := func(parts ...*apiv1.AddIndicatorsRequest) (*apiv1.AddIndicatorsResponse, error) {
		t.Helper()
		s, err := r.client.AddIndicators(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if s.Send(p) != nil {
				break // the answer says why
			}
		}
		return s.CloseAndReceive()
	}
	source := &apiv1.AddIndicatorsRequest{Source: &apiv1.IndicatorSource{Name: "by hand", Kind: "kept", Confidence: 90}}
	out, err := add(source, &apiv1.AddIndicatorsRequest{Next: true, Part: []byte("203.0.113.9\n198.51.")}, &apiv1.AddIndicatorsRequest{Part: []byte("100.0/24\n")},
		&apiv1.AddIndicatorsRequest{Next: true, Part: []byte("/tmp/evil\n???\n")})
	if err != nil || out.Source.Report.Taken != 3 || len(out.Source.Report.Rejected) != 1 {
		t.Fatalf("%v %v", out, err)
	}
	if !look("203.0.113.9").Found || !look("198.51.100.3").Found || !look("/tmp/evil").Found {
		t.Error("what was handed over is not looked for")
	}
	if _, err := add(&apiv1.AddIndicatorsRequest{Part: []byte("203.0.113.9\n")}); err == nil {
		t.Error("a source without a name is taken")
	}
	all, err := r.client.ListIndicators(ctx, &apiv1.ListIndicatorsRequest{})
	if err != nil || all.Total != 4 || len(all.Sources) != 2 || all.Sightings != 1 || all.Kinds["prefix"] != 1 {
		t.Errorf("%v %v", all, err)
	}
	if _, err := r.client.RemoveIndicators(ctx, &apiv1.RemoveIndicatorsRequest{Id: out.Source.Id}); err != nil || look("203.0.113.9").Found {
		t.Errorf("what was removed is looked for: %v", err)
	}
	doctor, err := r.client.Doctor(ctx, &apiv1.DoctorRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range doctor.GetChecks() {
		if c.GetName() == "indicators" && c.GetOk() && strings.HasPrefix(c.GetDetail(), "1 of 1 sources") {
			return
		}
	}
	t.Errorf("the doctor says nothing of indicators: %v", doctor)
}

// A program whose SHA-256, SHA-1 or MD5 is listed is found when it is run, under whatever name, also the second time and once it
// was written over; the half that parses cannot read the file, the other hashes it.
func TestListedProgramIsFound(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the files of other users' processes are hashed")
	}
	r := newRig(t, "n1")
	r.cfg.Sensor, r.cfg.Split = "auto", true
	t.Cleanup(func() {
		r.stop()
		if _, err := Cleanup(r.dir); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	// Bytes after its end change a program's digest, and nothing else of it.
	write := func(name, tail string) ([]byte, string) {
		t.Helper()
		b, path := append(bytes.Clone(program), tail...), filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", b, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		return b, path
	}
	run := func(path string) {
		t.Helper()
		if out, err := exec.Command(path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	strong, one := write("one", "listed by SHA-256")
	weak, two := write("two", "listed by MD5")
	older, three := write("three", "listed by SHA-1")
	_, four := write("four", "not listed")
	list := filepath.Join(filepath.Dir(r.dir), "digests.txt")
	if err := os.WriteFile(list, fmt.Appendf(nil, "%x\n%x\n%x\n", sha256.Sum256(strong), md5.Sum(weak), sha1.Sum(older)), 0o644); err != nil {
		t.Fatal(err)
	}
	r.cfg.IndicatorSources = []string{list}
	if _, err := Init(r.dir, InitOptions{Name: "n1", Swarm: "lab", Roles: []string{"sentinel"}}); err != nil {
		t.Fatal(err)
	}
	r.up()
	subjects := func() map[string]int {
		t.Helper()
		s, err := r.client.Findings(t.Context(), &apiv1.FindingsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		out := map[string]int{}
		for s.Receive() {
			if s.Msg().RuleId == "indicator.hash" {
				out[s.Msg().Subject.File]++
			}
		}
		if s.Err() != nil {
			t.Fatal(s.Err())
		}
		return out
	}
	ask := func() uint64 {
		t.Helper()
		all, err := r.client.ListIndicators(t.Context(), &apiv1.ListIndicatorsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return all.Total
	}
	eventually(t, "the list is read", func() bool { return ask() == 3 })
	for _, path := range []string{one, two, three, four} {
		run(path)
	}
	eventually(t, "each listed one is found", func() bool { s := subjects(); return s[one] > 0 && s[two] > 0 && s[three] > 0 })
	if s := subjects(); s[four] != 0 {
		t.Errorf("%v", s)
	}
	if err := os.WriteFile(four, strong, 0o700); err != nil { // into the same inode
		t.Fatal(err)
	}
	run(four)
	eventually(t, "what was written over", func() bool { return subjects()[four] > 0 })
	doctor, err := r.client.Doctor(t.Context(), &apiv1.DoctorRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range doctor.GetChecks() {
		if c.GetName() == "indicators" && strings.Contains(c.GetDetail(), "executables hashed") {
			return
		}
	}
	t.Errorf("the doctor does not say how many were hashed: %v", doctor)
}
