package ocsf

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/omega-mesh/omega/swarm/event"
	"pgregory.net/rapid"
)

func samples() map[string]*event.Event {
	p := event.Process{
		Key: event.ProcessKey{PID: 42, Start: 1000}, Parent: event.ProcessKey{PID: 7, Start: 900}, UID: 1000, GID: 1000, EUID: 0, EGID: 0,
		Exe: "/tmp/x\x1b[31m\\y", Comm: "x", Args: "x\x00-c\x00a \u202eb\xff", CWD: "/tmp", Inode: 5, Device: 6, CgroupID: 7, MountNS: 8, PIDNS: 9, NetNS: 10,
		Session: 11, LoginUID: 12, Caps: 0xffff, Flags: event.FlagWorldWritable | event.FlagStdinSocket, ParentExe: "/usr/bin/bash",
	}
	t := int64(1_800_000_000_123_456_789)
	n := event.Network{Protocol: 6, Local: netip.MustParseAddrPort("10.0.0.1:5000"), Remote: netip.MustParseAddrPort("[2001:db8::9]:443"), BytesIn: 1, BytesOut: 2, Duration: time.Second}
	in := n
	in.Inbound = true
	return map[string]*event.Event{
		"exec":    {Class: event.ClassProcess, Activity: event.ActivityExec, Time: t, Boot: 99, Sensor: "kernel", Process: p},
		"exit":    {Class: event.ClassProcess, Activity: event.ActivityExit, Time: t, Sensor: "kernel", Process: event.Process{Key: event.ProcessKey{PID: 42}, ExitCode: 137}},
		"connect": {Class: event.ClassNetwork, Activity: event.ActivityConnect, Time: t, Process: p, Network: n},
		"probe":   {Class: event.ClassNetwork, Activity: event.ActivityProbe, Time: t, Network: in},
		"refuse":  {Class: event.ClassNetwork, Activity: event.ActivityRefuse, Time: t, Process: p, Network: n},
		"write":   {Class: event.ClassFile, Activity: event.ActivityFileWrite, Time: t, Process: p, File: event.File{Path: "/etc/passwd", Inode: 3, Device: 4, Mode: 0o644}},
		"logon":   {Class: event.ClassAuthentication, Activity: event.ActivityLogonFailure, Time: t, Logon: event.Logon{User: "root\n", Service: "sshd", Remote: netip.MustParseAddr("203.0.113.9")}},
	}
}

func sampleFinding() *event.Finding {
	return &event.Finding{
		ID: strings.Repeat("ab", 16), Peer: "did:omega:n2", Host: "n2", Time: 1_800_000_000_123_456_789, Boot: 77, RuleID: "omega.decoy.touch", Rule: "decoy touched",
		Title: "203.0.113.9 connected to the decoy \x07tcp/2323", Attack: []string{"T1021", "T1046"}, Severity: event.SeverityHigh, Confidence: 100,
		Subject: event.Subject{Address: netip.MustParseAddr("203.0.113.9"), Port: 2323, User: "root", File: "/x",
			Process: &event.ProcessRef{Key: event.ProcessKey{PID: 4, Start: 5}, Exe: "/bin/x", Args: "x -c", UID: 3, ParentExe: "/bin/y"}},
		Evidence:  []event.Evidence{{Name: "typed", Value: "a\\b"}},
		Handshake: true, Decoy: "tcp/2323",
	}
}

// golden compares with testdata/NAME.json; UPDATE_GOLDEN=1 writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, got, "", "  "); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	path := filepath.Join("testdata", name+".json")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, pretty.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pretty.Bytes(), want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, pretty.Bytes(), want)
	}
}

func TestGolden(t *testing.T) {
	for name, e := range samples() {
		line, err := Encode(e, "n1", "did:omega:n1")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, line)
		back, err := Decode(line)
		if err != nil || !reflect.DeepEqual(back, e) {
			t.Errorf("%s came back as\n%+v\nnot\n%+v (%v)", name, back, e, err)
		}
	}
	f := sampleFinding()
	line, err := EncodeFinding(f)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "finding", line)
	if back, err := DecodeFinding(line); err != nil || !reflect.DeepEqual(back, f) {
		t.Errorf("the finding came back as\n%+v (%v)", back, err)
	}
}

// TestRequired: what the schema requires of every class is there.
func TestRequired(t *testing.T) {
	for name, e := range samples() {
		line, _ := Encode(e, "n1", "did:omega:n1")
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatal(err)
		}
		for _, k := range []string{"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"} {
			if _, ok := m[k]; !ok {
				t.Errorf("%s has no %s", name, k)
			}
		}
		if m["type_uid"].(float64) != m["class_uid"].(float64)*100+m["activity_id"].(float64) {
			t.Errorf("%s: type %v", name, m["type_uid"])
		}
	}
}

func TestForeign(t *testing.T) {
	e, err := Decode([]byte(`{"class_uid":1007,"activity_id":1,"time":1700000000000,"process":{"pid":7,"cmd_line":"sh -c id","file":{"path":"/bin/sh"}},"other":[1,2]}`))
	if err != nil || e.Activity != event.ActivityExec || e.Process.Args != "sh\x00-c\x00id" || e.Time != 1_700_000_000_000_000_000 {
		t.Fatalf("%+v %v", e, err)
	}
	for _, bad := range []string{"", "{", "[]", `{"class_uid":2004}`, `{"class_uid":1007,"activity_id":42}`, strings.Repeat("[", 100), `{"x":"` + strings.Repeat("a", MaxLine) + `"}`} {
		if _, err := Decode([]byte(bad)); !errors.Is(err, ErrLine) {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}

func TestEscape(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := string(rapid.SliceOf(rapid.Byte()).Draw(rt, "bytes")) + rapid.String().Draw(rt, "text")
		x := Escape(s)
		if !utf8.ValidString(x) || strings.ContainsFunc(x, hide) {
			rt.Fatalf("%q escaped as %q", s, x)
		}
		if got := Unescape(x); got != s {
			rt.Fatalf("%q came back as %q", s, got)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, e := range samples() {
		line, _ := Encode(e, "n1", "did:omega:n1")
		f.Add(line)
	}
	line, _ := EncodeFinding(sampleFinding())
	f.Add(line)
	f.Fuzz(func(t *testing.T, line []byte) {
		if e, err := Decode(line); err == nil {
			again, err := Encode(e, "n1", "")
			if err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
			back, err := Decode(again)
			if err != nil {
				if len(again) > MaxLine {
					return
				}
				t.Fatalf("what was written cannot be read: %v\n%s", err, again)
			}
			if back.Class != e.Class || back.Activity != e.Activity || back.Process.Key.PID != e.Process.Key.PID {
				t.Fatalf("%+v came back as %+v", e, back)
			}
		}
		if x, err := DecodeFinding(line); err == nil {
			if _, err := EncodeFinding(x); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	e := samples()["exec"]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encode(e, "n1", "did:omega:n1"); err != nil {
			b.Fatal(err)
		}
	}
}
