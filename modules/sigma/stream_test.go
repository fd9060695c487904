package sigma

import (
	"bytes"
	"compress/gzip"
	"context"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
)

// count is a detector that finds every program that starts.
type count struct{}

func (count) Detect(_ context.Context, batch []*event.Event, emit func(event.Finding)) error {
	for _, e := range batch {
		if e.Activity == event.ActivityExec {
			emit(event.Finding{RuleID: "count"})
		}
	}
	return nil
}

func TestDetectLines(t *testing.T) {
	own, err := ocsf.Encode(&event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Time: 5e9, Process: event.Process{Key: event.ProcessKey{PID: 4, Start: 1}, Exe: "/usr/bin/curl", Args: "curl\x00x"}}, "host", "did")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join([]string{
		string(own), // 1
		`{"EventID":1,"Image":"/usr/bin/curl","CommandLine":"curl y","ProcessId":9}`, // 2
		`{"broken`,                     // 3
		"",                             // 4
		strings.Repeat("x", MaxLine+5), // 5
		`{"EventID":1,"Image":"/usr/bin/wget","CommandLine":"wget y"}`, // 6
		`type=EXECVE msg=audit(1.2:3): argc=2 a0="curl" a1="z"`,        // 7, without a line's end
	}, "\n")
	set := rules(t, "title: Curl\nid: curl\nlogsource: {product: linux, category: process_creation}\ndetection: {s: {Image|endswith: /curl}, condition: s}\n---\ntitle: A\nid: audit\nlogsource: {product: linux, service: auditd}\ndetection: {s: {type: EXECVE, a1: z}, condition: s}", Options{})
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string]string{"plain": text, "gzip": packed.String()} {
		var got []string
		s, err := DetectLines(context.Background(), NewDetector(set), []modules.Detector{count{}}, strings.NewReader(in), func(line int, f event.Finding) error {
			got = append(got, f.RuleID+string(rune('0'+line)))
			if f.RuleID == "curl" && f.Subject.Process == nil {
				t.Error("no process")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := "curl1 count1 curl2 count2 count6 audit7"; strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", name, got, want)
		}
		if s.Lines != 7 || s.Events != 4 || s.Malformed != 2 || s.Findings != 6 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
