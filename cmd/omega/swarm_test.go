package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// runAsOmega in the environment makes this test binary be the omega binary.
const runAsOmega = "RUN_TEST_AS_OMEGA"

// command is an omega process of its own.
func command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), runAsOmega+"=1")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// process runs an omega process to its end.
func process(t *testing.T, in string, args ...string) (out, errOut string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := command(ctx, args...)
	var o, e bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &o, &e
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// log gathers what a node says, and tells when it says that it is ready.
type log struct {
	mu    sync.Mutex
	text  bytes.Buffer
	ready chan struct{}
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := bytes.Contains(l.text.Bytes(), []byte("ready: "))
	l.text.Write(p)
	if !was && bytes.Contains(l.text.Bytes(), []byte("ready: ")) {
		close(l.ready)
	}
	return len(p), nil
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// up runs a node until the test ends, or until the returned function is called. Of a flag that is given twice the last counts.
func up(t *testing.T, dir string, port int, more ...string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	l := &log{ready: make(chan struct{})}
	args := []string{"up", "--dir", dir, "--listen", fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port), "--mdns=false", "--sensor", "procfs", "--decoys", fmt.Sprintf("tcp/%d", freePort(t))}
	cmd := command(ctx, append(args, more...)...)
	cmd.Stderr = l
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); <-ended }) }
	t.Cleanup(stop)
	select {
	case <-l.ready:
	case <-ended:
		t.Fatalf("the node ended before it was ready:\n%s", l)
	case <-time.After(30 * time.Second):
		t.Fatalf("the node is not ready:\n%s", l)
	}
	return stop
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func poll(t *testing.T, what string, f func() (bool, string)) {
	t.Helper()
	var last string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var ok bool
		if ok, last = f(); ok {
			return
		}
	}
	t.Fatalf("%s: still %s", what, last)
}

// What the README tells a newcomer to type, by real processes on loopback: found, invite, join, look, grant, act, leave.
func TestTwoHostsByTheReadme(t *testing.T) {
	if testing.Short() {
		t.Skip("runs nodes")
	}
	n1, n2 := filepath.Join(t.TempDir(), "n1"), filepath.Join(t.TempDir(), "n2")
	must := func(in string, args ...string) string {
		t.Helper()
		out, errOut, code := process(t, in, args...)
		if code != exitDone {
			t.Fatalf("omega %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errOut)
		}
		return out
	}
	must("", "init", "--swarm", "home", "--name", "n1", "--dir", n1)
	up(t, n1, freePort(t))
	if _, errOut, code := process(t, "", "up", "--dir", n1, "--sensor", "procfs"); code != exitFailed || strings.Count(errOut, "\n") != 1 {
		t.Errorf("a second node on one folder: exit %d, %q; want one line", code, errOut)
	}
	must("", "role", "grant", "n1", "sentinel", "--dir", n1)

	token := must("", "invite", "--dir", n1, "--quiet")
	if !strings.HasPrefix(token, "omega1") || strings.Count(token, "\n") != 1 {
		t.Fatalf("invite prints %q: want one line with the token", token)
	}
	var joined struct {
		Name  string   `json:"name"`
		Roles []string `json:"roles"`
	}
	if err := json.Unmarshal([]byte(must(token, "join", "-", "--name", "n2", "--dir", n2, "--json")), &joined); err != nil || joined.Name != "n2" || !slices.Equal(joined.Roles, []string{"analyst", "sentinel"}) {
		t.Errorf("join: %+v %v", joined, err)
	}
	must(token, "join", "-", "--name", "n2", "--dir", n2) // the same joiner again is harmless
	if _, errOut, code := process(t, token, "join", "-", "--name", "n3", "--dir", filepath.Join(t.TempDir(), "n3")); code == exitDone {
		t.Errorf("another host joined on a spent token: %q", errOut)
	}
	stop2 := up(t, n2, freePort(t))

	type status struct {
		Name   string   `json:"name"`
		Roles  []string `json:"roles"`
		Peers  int      `json:"peers"`
		Synced bool     `json:"synced"`
	}
	see := func(dir string) (s status, text string) {
		out, errOut, _ := process(t, "", "status", "--json", "--dir", dir)
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			return s, errOut
		}
		return s, out
	}
	for _, dir := range []string{n1, n2} {
		poll(t, "both are connected and synced", func() (bool, string) {
			s, text := see(dir)
			return s.Peers == 1 && s.Synced, text
		})
	}
	must("", "role", "grant", "n2", "decoy", "--dir", n1)
	poll(t, "a grant reaches its peer", func() (bool, string) {
		s, text := see(n2)
		return slices.Contains(s.Roles, "decoy"), text
	})

	// Root on one host is no operator: n2 acts on itself alone.
	if _, errOut, code := process(t, "", "respond", "deny", "ip", "192.0.2.7", "--dir", n2); code != exitNotPermitted || !strings.Contains(errOut, "operator") {
		t.Errorf("a response of everybody without the operator's key: exit %d, %q", code, errOut)
	}
	out := must("", "respond", "deny", "ip", "192.0.2.7", "--ttl", "1m", "--dir", n1, "--json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 3 {
		t.Errorf("want the response's id, then a receipt from each of two peers; got\n%s", out)
	}
	for _, l := range lines[1:] {
		if !strings.Contains(l, `"outcome":"observed"`) {
			t.Errorf("in observe mode a peer says what it would have done; got %s", l)
		}
	}
	if out := must("", "responses", "--dir", n2); !strings.Contains(out, "192.0.2.7") {
		t.Errorf("n2 does not show the response: %q", out)
	}

	// A module written on one host runs on the other.
	watch := filepath.Join(t.TempDir(), "watch")
	must("", "module", "init", "--lang", "lua", watch)
	if _, errOut, code := process(t, "", "module", "deploy", "watch", "--dir", n1); code != exitNotFound {
		t.Errorf("a module nobody released: exit %d, %q", code, errOut)
	}
	if _, errOut, code := process(t, "", "module", "publish", watch, "--dir", n2); code != exitNotPermitted {
		t.Errorf("published without the operator's key: exit %d, %q", code, errOut)
	}
	cid := strings.TrimSpace(must("", "module", "publish", watch, "--dir", n1, "--quiet"))
	out = must("", "module", "deploy", "watch", "--peers", "n2", "--dir", n1, "--json")
	if !strings.Contains(out, cid) || !strings.Contains(out, `"host":"n2"`) || !strings.Contains(out, `"state":"running"`) {
		t.Errorf("deploy: %s; on n2: %s", out, must("", "module", "list", "--dir", n2, "--json"))
	}
	if out := must("", "module", "show", cid, "--dir", n2); !strings.Contains(out, "peer n2") {
		t.Errorf("show: %s", out)
	}
	must("", "module", "undeploy", "watch", "--withdraw", "--dir", n1)
	poll(t, "n2 forgets what was withdrawn", func() (bool, string) {
		out, _, _ := process(t, "", "module", "list", "--dir", n2)
		return out == "", out
	})

	stop2()
	if _, _, code := process(t, "", "status", "--dir", n2); code != exitUnreachable {
		t.Errorf("status of a stopped node: exit %d, want %d", code, exitUnreachable)
	}
	must("", "leave", "--yes", "--dir", n2)
	if _, err := os.Stat(filepath.Join(n2, "identity")); !os.IsNotExist(err) {
		t.Errorf("leave keeps the keys: %v", err)
	}
}
