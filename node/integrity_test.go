package node

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/roles/sentinel/integrity"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
	"github.com/omega-mesh/omega/trust/authority"
)

// integrity is how r's watched files stand.
func (r *rig) integrity() *apiv1.IntegrityResponse {
	r.t.Helper()
	out, err := r.client.Integrity(r.t.Context(), &apiv1.IntegrityRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// changes are the events of r's watched files, by path.
func (r *rig) changes() map[string]*event.Event {
	r.t.Helper()
	s, err := r.client.Events(r.t.Context(), &apiv1.EventsRequest{Where: `class == "file_integrity" and activity == "integrity"`})
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Close()
	out := map[string]*event.Event{}
	for s.Receive() {
		e, err := ocsf.Decode([]byte(s.Msg().OcsfJson))
		if err != nil {
			r.t.Fatal(err)
		}
		out[e.File.Path] = e
	}
	if s.Err() != nil {
		r.t.Fatal(s.Err())
	}
	return out
}

// TestWatchedFiles: a host tells who changed a watched file while it ran and that one was changed while it did not; and where
// a file and the baseline that knows it were both changed meanwhile, the host is fooled and its peer is not.
func TestWatchedFiles(t *testing.T) {
	peer, host := newRig(t, "n1"), newRig(t, "n2")
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		write(name, name)
	}
	host.cfg.IntegrityPaths = []string{dir}
	if os.Geteuid() == 0 {
		host.cfg.Sensor, host.cfg.Split = "auto", true
		t.Cleanup(func() {
			host.stop()
			if _, err := Cleanup(host.dir); err != nil {
				t.Error(err)
			}
		})
	}
	peer.found("lab")
	peer.up()
	peer.operate(&authority.GrantBody{Subject: subject(t, peer), Roles: []string{"sentinel"}})
	host.join(peer.invite(1, []string{"sentinel"}))
	host.up()
	settled := func(differ uint64) func() bool {
		return func() bool {
			s := host.integrity()
			return s.Phase == integrity.PhaseWatching && !s.Unsigned && s.Differ == differ
		}
	}
	eventually(t, "the baseline is taken and signed", settled(0))
	said := func() *apiv1.BaselineWord {
		words := peer.integrity().Words
		if i := slices.IndexFunc(words, func(w *apiv1.BaselineWord) bool { return w.Host == "n2" }); i >= 0 {
			return words[i]
		}
		return &apiv1.BaselineWord{}
	}
	eventually(t, "the peer knows it", func() bool { w := said(); return w.Why == event.BaselineTaken && w.Entries == 4 })
	if peer.integrity().Phase != "off" {
		t.Error("the peer watches files that it was not told to")
	}

	differ := uint64(0)
	if host.integrity().Live {
		differ = 1
		if out, err := exec.Command("/bin/sh", "-c", "echo evil >> "+dir+"/a").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var e *event.Event
		eventually(t, "who changed it is told", func() bool { e = host.changes()[dir+"/a"]; return e != nil })
		shell, err := filepath.EvalSymlinks("/bin/sh")
		if err != nil {
			t.Fatal(err)
		}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if p := &e.Process; p.Exe != shell || p.ParentExe != self || p.Parent.PID != uint32(os.Getpid()) || p.Key.Start == 0 {
			t.Errorf("by %+v", p)
		}
		if e.File.Other != "content" || !strings.HasPrefix(e.File.Was, "blake3 ") || len(e.File.Hash) != 64 || strings.Contains(e.File.Was, e.File.Hash) || e.Access.Operation != "write" {
			t.Errorf("%+v %+v", e.File, e.Access)
		}
		eventually(t, "the swarm hears of it", func() bool { return slices.Contains(peer.findings(), "n2 omega.integrity.changed") })
		eventually(t, "what differs is signed", settled(1))
	}
	eventually(t, "the peer knows the last word", func() bool { return said().File == host.integrity().File })
	host.stop()

	write("b", "changed while nobody looked")
	write("c", "evil")
	file := Layout{host.dir}.Baseline()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	state, _, err := integrity.Read(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	now, err := integrity.Take(t.Context(), integrity.Options{Paths: []string{dir + "/c"}, Share: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range state.Accepted.Entries {
		if e := &state.Accepted.Entries[i]; e.Path == dir+"/c" {
			*e = now.Entries[0]
		}
	}
	var forged bytes.Buffer
	if _, err := state.Write(&forged); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, forged.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	host.up()
	var late *event.Event
	eventually(t, "what was changed meanwhile is told", func() bool { late = host.changes()[dir+"/b"]; return late != nil })
	if late.Process.Key.PID != 0 || !strings.HasPrefix(late.Access.Operation, "between 20") {
		t.Errorf("%+v", late)
	}
	eventually(t, "the peer says that the baseline was changed", func() bool { return slices.Contains(peer.findings(), "n1 omega.integrity.baseline") })
	eventually(t, "the host signs on", settled(differ+1))
	if host.changes()[dir+"/c"] != nil {
		t.Error("the host was not fooled: this test shows nothing")
	}
	// What a person takes for right is no difference any more, and the swarm sees who said so.
	if out, err := host.client.IntegrityAccept(t.Context(), &apiv1.IntegrityAcceptRequest{Paths: [][]byte{[]byte(dir)}}); err != nil || out.Accepted != differ+1 {
		t.Errorf("%v, %v", out, err)
	}
	eventually(t, "the peer knows who accepted", func() bool { w := said(); return w.Why == event.BaselineAccepted && w.By != "" && w.Differ == 0 })
}
