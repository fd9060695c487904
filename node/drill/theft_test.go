package drill

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/testnet"
)

// theft is a testnet in which a state folder was copied, and what was done there: its transcript stands in
// trust/README.md.
type theft struct {
	t      *testing.T
	net    *testnet.Net
	binary string
	began  time.Time
}

// runs runs one command of the binary on a folder, as its owner or a thief would.
func (x *theft) runs(dir string, args ...string) (string, int) {
	x.t.Helper()
	cmd := exec.CommandContext(x.t.Context(), x.binary, append([]string{"--dir", dir}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	code := 0
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		code = ended.ExitCode()
	} else if err != nil {
		x.t.Fatal(err)
	}
	x.t.Logf("%6.2f s  $ omega --dir %s %s\n%sexit %d", time.Since(x.began).Seconds(), filepath.Base(dir), strings.Join(args, " "), out.String(), code)
	return out.String(), code
}

// until asks every few milliseconds; the deadline only ends a run that will never get there.
func (x *theft) until(what string, good func() bool) {
	x.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !good(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			x.t.Fatalf("never: %s", what)
		}
	}
	x.t.Logf("%6.2f s  %s", time.Since(x.began).Seconds(), what)
}

func (x *theft) problems(h *testnet.Host) []string {
	s, err := h.Client().Status(x.t.Context(), &apiv1.StatusRequest{})
	if err != nil {
		return nil
	}
	var codes []string
	for _, p := range s.Problems {
		codes = append(codes, p.Code)
	}
	return codes
}

func (x *theft) peers(h *testnet.Host) int {
	s, err := h.Client().Status(x.t.Context(), &apiv1.StatusRequest{})
	if err != nil {
		return -1
	}
	return int(s.Peers)
}

// entries are what one author said, as h has it.
func (x *theft) entries(h *testnet.Host, kind string) []*apiv1.Entry {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), 5*time.Second)
	defer cancel()
	s, err := h.Client().Entries(ctx, &apiv1.EntriesRequest{Kind: kind})
	if err != nil {
		x.t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	var out []*apiv1.Entry
	for s.Receive() {
		out = append(out, s.Msg())
	}
	if err := s.Err(); err != nil && !errors.Is(err, io.EOF) {
		x.t.Fatal(err)
	}
	return out
}

func TestTheftOfAStateFolder(t *testing.T) {
	needRoot(t)
	binary := omegaBinary(t)
	net, err := testnet.Up(t.Context(), testnet.Options{Nodes: 3, Binary: binary})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range net.Hosts() {
				text, _ := os.ReadFile(h.Log)
				t.Logf("%s:\n%s", h.Name, text)
			}
		}
		_ = net.Close()
	})
	x := &theft{t: t, net: net, binary: binary, began: time.Now()}
	host := func(name string) *testnet.Host {
		h, err := net.Host(name)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	n1, n2, n3, x1 := host("n1"), host("n2"), host("n3"), host("x1")

	// A response of some time ago, to be replayed later.
	if _, code := x.runs(n1.Dir, "respond", "deny", "ip", "203.0.113.9", "--ttl", "1s", "--scope", "all"); code != 0 {
		t.Fatal("no response to replay")
	}

	// The whole state folder is copied and started on another host of the bridge.
	stolen := *x1
	stolen.Dir = filepath.Join(filepath.Dir(n2.Dir), "stolen")
	if out, err := exec.Command("cp", "-a", n2.Dir, stolen.Dir).CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	settings, err := os.ReadFile(filepath.Join(x1.Dir, "omega.yaml"))
	if err == nil {
		err = os.WriteFile(filepath.Join(stolen.Dir, "omega.yaml"), settings, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	clone := exec.Command(binary, "--dir", stolen.Dir, "up")
	clone.Args[0] = "omega"
	clone.Stdout, clone.Stderr = os.Stderr, os.Stderr
	if err := net.Start(x1, clone); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = clone.Process.Kill(); _ = clone.Wait() })
	x.until("n1 or n3 says that one identity runs twice", func() bool {
		return slices.Contains(x.problems(n1), "duplicate_identity") || slices.Contains(x.problems(n3), "duplicate_identity")
	})

	// The thief has the current key and all that lay beside it; not the next one.
	if out, code := x.runs(stolen.Dir, "key", "rotate"); code != 4 || !strings.Contains(out, "next key") {
		t.Errorf("the thief rotated: exit %d", code)
	}
	// Yesterday's response, word for word, by way of a member.
	old := x.entries(n1, "response")
	if len(old) == 0 {
		t.Fatal("no response in the feeds")
	}
	x.until("the response has run out", func() bool {
		r, err := n3.Client().ListResponses(t.Context(), &apiv1.ListResponsesRequest{Active: true})
		return err == nil && len(r.Responses) == 0
	})
	if _, err := n3.Client().Submit(t.Context(), &apiv1.SubmitRequest{Entry: old[0].Raw}); err != nil {
		t.Logf("replayed: %v", err)
	}
	if again := x.entries(n1, "response"); len(again) != len(old) {
		t.Errorf("%d responses after the replay, %d before", len(again), len(old))
	}
	if out, _ := x.runs(n3.Dir, "responses", "--active"); strings.Contains(out, "203.0.113.9") {
		t.Error("a replayed response acts again")
	}

	// Both copies say something. That is two stories of one author: every peer convicts it by itself, and with no proof of
	// the next key both wait.
	for _, dir := range []string{n2.Dir, stolen.Dir} {
		x.runs(dir, "respond", "deny", "ip", "192.0.2.44", "--ttl", "1s", "--scope", "self")
	}
	x.until("neither copy has a peer", func() bool { return x.peers(n2) == 0 && x.peers(&stolen) == 0 })

	// The owner proves the next key.
	if _, code := x.runs(n2.Dir, "key", "rotate"); code != 0 {
		t.Fatal("the owner could not rotate")
	}
	x.until("n2 is back among its peers, under the same DID", func() bool { return x.peers(n2) == 2 })
	x.until("the copy has no peer", func() bool { return x.peers(&stolen) == 0 })
	if out, code := x.runs(n2.Dir, "key", "status"); code != 0 || !strings.Contains(out, "number 1") {
		t.Error("the key's status does not show the rotation")
	}
	if out, code := x.runs(n1.Dir, "did", "show", "n2"); code != 0 || !strings.Contains(out, `"rotation":1`) && !strings.Contains(out, `"rotation": 1`) {
		t.Error("n1's document of n2 does not show the rotation")
	}
	// The proof in n1's ledger and the branch that was set aside are no faults of it.
	if _, code := x.runs(n1.Dir, "ledger", "verify"); code != 0 {
		t.Error("what n1 holds does not verify")
	}
}
