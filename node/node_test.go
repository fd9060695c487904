package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/api/v1/apiv1connect"
	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

func TestMain(m *testing.M) {
	if IsChild() {
		os.Exit(Child())
	}
	if raw := os.Getenv(crashEnv); raw != "" {
		os.Exit(upToBeKilled(raw))
	}
	// Libraries below us keep goroutines for the life of the process; each is named, so that one of ours is not hidden.
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/libp2p/go-libp2p/p2p/net/swarm.(*connWithMetrics)"),
		goleak.IgnoreAnyFunction("github.com/ipfs/go-log/v2/writer.(*MirrorWriter).logRoutine"),
		goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

// rig is a host of a test: a state folder, and the node that runs on it now and then.
type rig struct {
	t    *testing.T
	name string
	dir  string
	cfg  *config.Config
	log  *lockedBuffer

	client apiv1connect.NodeClient
	http   *http.Client
	cancel context.CancelFunc
	done   chan error
}

func newRig(t *testing.T, name string) *rig {
	t.Helper()
	base, err := os.MkdirTemp("", "omega-"+name+"-") // t.TempDir's path is longer than a socket's may be
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base, 0o711); err != nil { // the unprivileged half must get through
		t.Fatal(err)
	}
	dir := filepath.Join(base, "d") // the next key lies beside it
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, name: name, dir: dir, log: &lockedBuffer{}}
	r.cfg = config.Default(dir)
	r.cfg.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	r.cfg.MDNS, r.cfg.Split, r.cfg.Sensor, r.cfg.Decoys = false, false, "off", []string{"tcp/" + freePort(t)}
	r.cfg.LogLevel = "debug"
	r.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, "omega.sock"))
	}}}
	r.client = apiv1connect.NewNodeClient(r.http, "http://omega")
	t.Cleanup(func() {
		r.stop()
		os.RemoveAll(base)
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, r.log)
		}
	})
	return r
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

// up starts the node and returns once it is ready.
func (r *rig) up() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	r.cancel, r.done = cancel, make(chan error, 1)
	go func() {
		r.done <- Up(ctx, r.cfg, UpOptions{Version: "test", Log: r.log, Ready: func() { close(ready) }})
	}()
	select {
	case <-ready:
	case err := <-r.done:
		r.done <- err
		r.t.Fatalf("%s: %v\n%s", r.name, err, r.log)
	case <-time.After(20 * time.Second):
		r.t.Fatalf("%s: not ready\n%s", r.name, r.log)
	}
}

func (r *rig) stop() {
	if r.cancel == nil {
		return
	}
	r.cancel()
	if err := <-r.done; err != nil && !errors.Is(err, ErrLeft) {
		r.t.Errorf("%s ended: %v", r.name, err)
	}
	r.cancel = nil
	r.http.CloseIdleConnections()
}

func (r *rig) status() *apiv1.StatusResponse {
	r.t.Helper()
	s, err := r.client.Status(r.t.Context(), &apiv1.StatusRequest{})
	if err != nil {
		r.t.Fatalf("%s: status: %v", r.name, err)
	}
	return s
}

// found makes r the founder of a swarm.
func (r *rig) found(swarm string) {
	r.t.Helper()
	if _, err := Init(r.dir, InitOptions{Name: r.name, Swarm: swarm}); err != nil {
		r.t.Fatal(err)
	}
}

// operate has the operator of r's folder sign an entry, and hands it to r's node.
func (r *rig) operate(body authority.Body) string {
	r.t.Helper()
	id, _, err := r.submit(body)
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// submit is operate for a node that may be gone; entry is what was signed.
func (r *rig) submit(body authority.Body) (id string, entry []byte, err error) {
	op, err := identity.Open(Layout{r.dir}.Operator(), identity.Options{})
	if err != nil {
		return "", nil, err
	}
	defer op.Close()
	head, err := r.client.Head(r.t.Context(), &apiv1.HeadRequest{})
	if err != nil {
		return "", nil, err
	}
	g, err := authority.DecodeGenesis(head.Genesis)
	if err != nil {
		return "", nil, err
	}
	raw, err := body.Encode()
	if err != nil {
		return "", nil, err
	}
	entry, err = ledger.SignEntry(op, g.SwarmID(), head.NextSeq, ledger.Hash(head.Prev), body.Kind(), raw, time.Now())
	if err != nil {
		return "", nil, err
	}
	out, err := r.client.Submit(r.t.Context(), &apiv1.SubmitRequest{Entry: entry})
	if err != nil {
		return "", nil, err
	}
	return out.Id, entry, nil
}

// invite makes a token that names r and others.
func (r *rig) invite(uses int, roles []string, via ...*rig) string {
	r.t.Helper()
	op, err := identity.ReadInception(Layout{r.dir}.Operator())
	if err != nil {
		r.t.Fatal(err)
	}
	g, err := loadGenesis(Layout{r.dir})
	if err != nil {
		r.t.Fatal(err)
	}
	var addrs []string
	for _, v := range append([]*rig{r}, via...) {
		addrs = append(addrs, v.status().Addrs[0])
	}
	t, body, err := authority.NewInvite(g.SwarmID(), op.DID(), authority.InviteOptions{Suite: g.Suite, Roles: roles, Uses: uses, Addrs: addrs})
	if err != nil {
		r.t.Fatal(err)
	}
	r.operate(body)
	return t.Secret()
}

func (r *rig) join(token string) *Joined {
	r.t.Helper()
	j, err := Join(r.t.Context(), r.dir, token, JoinOptions{Name: r.name})
	if err != nil {
		r.t.Fatalf("%s: %v", r.name, err)
	}
	return j
}

// eventually waits until ok says true; what is what it waits for. The bound is for a hung node, not a measurement.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// lockedBuffer is a log that tests may read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func problem(s *apiv1.StatusResponse, code string) string {
	for _, p := range s.Problems {
		if p.Code == code {
			return p.Text
		}
	}
	return ""
}

// TestAlone: a founder comes up by itself, knows who it is, and says what it lacks.
func TestAlone(t *testing.T) {
	r := newRig(t, "n1")
	r.found("lab")
	if _, err := Init(r.dir, InitOptions{Swarm: "lab"}); !errors.Is(err, ErrInitialised) {
		t.Errorf("a second Init: %v", err)
	}
	r.up()
	s := r.status()
	if s.Name != "n1" || s.SwarmName != "lab" || s.Members != 1 || !s.Synced || s.Mode != "observe" || problem(s, "observe") == "" || problem(s, "no_sensor") == "" {
		t.Errorf("status: %v", s)
	}
	if problem(s, "no_peers") != "" || problem(s, "revoked") != "" {
		t.Errorf("problems that are none: %v", s.Problems)
	}
	if err := Up(t.Context(), r.cfg, UpOptions{Log: r.log}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second node on the folder: %v", err)
	}
	if info, err := os.Stat(Layout{r.dir}.Socket()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
	d, err := r.client.Doctor(t.Context(), &apiv1.DoctorRequest{})
	if err != nil || len(d.Checks) < 5 {
		t.Fatalf("doctor: %v, %v", d, err)
	}
	keyed := false
	for _, c := range d.Checks {
		keyed = keyed || c.Name == "key at rest" && !c.Ok && strings.Contains(c.Lost, "backup")
		if c.Ok && c.Lost != "" {
			t.Errorf("%s is well and lost %q", c.Name, c.Lost)
		}
	}
	if !keyed {
		t.Error("doctor does not say that backups can read the key")
	}
}

// dial completes a TCP handshake and hangs up.
func dial(t *testing.T, addr string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
