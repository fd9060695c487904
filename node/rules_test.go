package node

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
)

// A rule from a file finds its event in a recording that a live node is given; a bad rule beside it is said by the doctor.
func TestRulesOfAFile(t *testing.T) {
	r := newRig(t, "ruled")
	rules := filepath.Join(filepath.Dir(r.dir), "rules")
	if err := os.Mkdir(rules, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(rules, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("miner.yml", "title: A miner starts\nid: 7b1f2c6e-6f0c-4f0c-9d0e-0f4b8a5d3c11\nlogsource: {category: process_creation, product: linux}\ndetection: {s: {Image|endswith: /xmrig}, condition: s}\nlevel: high\ntags: [attack.t1496]\n")
	write("broken.yml", "title: No detection\nlogsource: {category: process_creation, product: linux}\n")
	e := event.Event{Time: 1764000000e9, Class: event.ClassProcess, Activity: event.ActivityExec}
	e.Process.Key = event.ProcessKey{PID: 4711, Start: 1}
	e.Process.Exe, e.Process.Args = "/opt/xmrig", "/opt/xmrig\x00-o\x00pool.example:3333"
	line, err := ocsf.Encode(&e, "ruled", "did:omega:x")
	if err != nil {
		t.Fatal(err)
	}
	recording := filepath.Join(filepath.Dir(r.dir), "events.jsonl")
	if err := os.WriteFile(recording, append(bytes.TrimSpace(line), '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	r.cfg.Rules, r.cfg.Sensor = []string{rules}, "replay:"+recording
	if _, err := Init(r.dir, InitOptions{Name: "ruled", Swarm: "ruled", Roles: []string{"sentinel"}}); err != nil {
		t.Fatal(err)
	}
	r.up()
	eventually(t, "the rule's finding", func() bool {
		return slices.Contains(r.findings(), "ruled 7b1f2c6e-6f0c-4f0c-9d0e-0f4b8a5d3c11")
	})
	doctor, err := r.client.Doctor(t.Context(), &apiv1.DoctorRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range doctor.GetChecks() {
		if c.GetName() == "rules" {
			if c.GetOk() || !strings.Contains(c.GetDetail(), "1 of 2 loaded") || !strings.Contains(c.GetLost(), "broken.yml") {
				t.Errorf("%v", c)
			}
			return
		}
	}
	t.Error("the doctor says nothing of rules")
}
