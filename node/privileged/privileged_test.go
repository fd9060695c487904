package privileged

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/bpf/executable"
	"github.com/omega-mesh/omega/bpf/selftest"
	"github.com/omega-mesh/omega/bpf/workload"
	"github.com/omega-mesh/omega/swarm/event"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 0 && os.Args[0] == probeName {
		os.Exit(probe())
	}
	if len(os.Args) > 0 && os.Args[0] == chrootName {
		os.Exit(otherRoot())
	}
	goleak.VerifyTestMain(m)
}

// recorder is a Service that remembers what reached it.
type recorder struct {
	Host // watches no files

	mu        sync.Mutex
	applied   []event.Response
	listeners []bpf.Listener
	proved    []Proved
	allowed   []string
	released  []string
}

func (r *recorder) Apply(_ context.Context, x event.Response, _ uint64) (event.Receipt, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x.Reason == "boom" {
		return event.Receipt{}, errors.New("boom " + strings.Repeat("é", MaxText))
	}
	r.applied = append(r.applied, x)
	return event.Receipt{Response: x.ID, Outcome: event.OutcomeDone, Acted: 7, Means: []string{"xdp"}}, nil
}
func (r *recorder) Release(_ context.Context, id string) (event.Receipt, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.released = append(r.released, id)
	return event.Receipt{Response: id, Outcome: event.OutcomeReleased}, nil
}
func (r *recorder) Active(context.Context) ([]Enforced, error) {
	return []Enforced{{ID: "a", Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix("203.0.113.9/32")}}}, nil
}
func (r *recorder) Panic(context.Context) (int, error)   { return 3, nil }
func (r *recorder) Mode(context.Context) (string, error) { return "observe", nil }
func (r *recorder) Coverage(context.Context) ([]Check, error) {
	return []Check{{Name: "xdp", OK: true}}, nil
}
func (r *recorder) Counters(context.Context) (map[string]uint64, error) {
	return map[string]uint64{"drops": 1}, nil
}

// SelfTest waits until the other half goes on without it.
func (r *recorder) SelfTest(ctx context.Context, secret string) ([]selftest.Attempt, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (r *recorder) Protect(_ context.Context, l []bpf.Listener, p []Proved) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listeners, r.proved = l, p
	return nil
}
func (r *recorder) Process(_ context.Context, pid uint32) (event.Process, error) {
	return event.Process{}, ErrUnavailable
}
func (r *recorder) Digest(_ context.Context, image executable.Image, weak bool) (executable.Sums, error) {
	if image.Path == "/gone" {
		return executable.Sums{}, errors.New("no such file")
	}
	return executable.Sums{SHA256: [32]byte{byte(image.PID), byte(image.Inode), byte(image.Device)}, Weak: weak && image.Untrusted, SHA1: [20]byte{1}, MD5: [16]byte{2}}, nil
}

func (r *recorder) Container(_ context.Context, id string) (workload.Description, error) {
	return workload.Description{Image: "image of " + id, Pod: "a/b"}, nil
}
func (r *recorder) Allow(_ context.Context, w string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.allowed = append(r.allowed, w)
	return nil
}
func (r *recorder) Operators(context.Context, []string) error { return nil }
func (r *recorder) Disallow(context.Context, string) error    { return nil }
func (r *recorder) Allowed(context.Context) ([]string, error) { return r.allowed, nil }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// line joins a Client to a Service by a real socket pair.
func line(t testing.TB, s Service, ready func()) (*Client, *Conn) {
	t.Helper()
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	far, err := FromFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(far)
	var wg sync.WaitGroup
	wg.Go(func() { _ = Serve(context.Background(), ours, s, ready, quiet) })
	wg.Go(func() { _ = c.Run(context.Background()) })
	t.Cleanup(func() { ours.Close(); far.Close(); wg.Wait() })
	return c, ours
}

const id = "0123456789abcdef0123456789abcdef"

// TestNothingWaitsForASelfTest: a response is applied while one runs.
func TestNothingWaitsForASelfTest(t *testing.T) {
	r := &recorder{}
	c, _ := line(t, r, func() {})
	ctx, cancel := context.WithCancel(t.Context())
	tested := make(chan error, 1)
	go func() {
		_, err := c.SelfTest(ctx, id)
		tested <- err
	}()
	if rc, err := c.Apply(t.Context(), event.Response{ID: id, Action: event.ActionDeny, TTL: time.Hour, Target: event.Target{Address: netip.MustParsePrefix("203.0.113.9/32")}}, 0); err != nil || rc.Outcome != event.OutcomeDone {
		t.Errorf("%+v, %v", rc, err)
	}
	cancel()
	if err := <-tested; err == nil {
		t.Error("a self-test that never ended has a result")
	}
	for _, secret := range []string{"", "short", strings.Repeat("z", 32), strings.Repeat("a", 66)} {
		if _, err := c.SelfTest(t.Context(), secret); err == nil {
			t.Errorf("secret %q is taken", secret)
		}
	}
}

func TestCommandsCrossTheLine(t *testing.T) {
	r := &recorder{}
	ready := make(chan struct{})
	c, ours := line(t, r, func() { close(ready) })
	ctx := t.Context()
	if err := c.Ready(); err != nil {
		t.Fatal(err)
	}
	<-ready
	want := event.Response{ID: id, Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix("2001:db8::1/128")},
		TTL: time.Hour, Findings: []string{id}, Authority: event.AuthorityPolicy}
	rc, err := c.Apply(ctx, want, 0)
	if err != nil || rc.Outcome != event.OutcomeDone || rc.Acted != 7 || rc.Means[0] != "xdp" {
		t.Fatalf("%+v, %v", rc, err)
	}
	got := r.applied[0]
	if got.ID != want.ID || got.Target != want.Target || got.TTL != want.TTL || got.Findings[0] != id {
		t.Fatalf("the other side saw %+v", got)
	}
	if rows, err := c.Active(ctx); err != nil || len(rows) != 1 || rows[0].Target.Address.String() != "203.0.113.9/32" {
		t.Fatalf("%+v, %v", rows, err)
	}
	if n, err := c.Panic(ctx); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if m, err := c.Mode(ctx); m != "observe" || err != nil {
		t.Fatal(m, err)
	}
	if err := c.Protect(ctx, []bpf.Listener{{Protocol: 6, Port: 7946}}, []Proved{{DID: "did:omega:x", Addr: netip.MustParseAddr("10.0.0.1"), Port: 1, Since: 2}}); err != nil || r.proved[0].Addr.String() != "10.0.0.1" || r.listeners[0].Port != 7946 {
		t.Fatal(r.proved, r.listeners, err)
	}
	if err := c.Protect(ctx, []bpf.Listener{{Protocol: 1, Port: 7946}}, nil); err == nil {
		t.Fatal("ICMP is no protocol to listen on")
	}
	if err := c.Allow(ctx, "10.0.0.0/8"); err != nil {
		t.Fatal(err)
	}
	if l, err := c.Allowed(ctx); err != nil || l[0] != "10.0.0.0/8" {
		t.Fatal(l, err)
	}
	if d, err := c.Digest(ctx, executable.Image{PID: 7, Path: "/bin/x", Inode: 8, Device: 9}, true); err != nil || d.SHA256 != [32]byte{7, 8, 9} || !d.Weak || d.SHA1[0] != 1 || d.MD5[0] != 2 {
		t.Errorf("digest: %+v %v", d, err)
	}
	if _, err := c.Digest(ctx, executable.Image{PID: 7, Path: "/gone"}, false); err == nil {
		t.Error("the digest of a file that is gone")
	}
	if _, err := c.Digest(ctx, executable.Image{Path: "/bin/x"}, false); err == nil {
		t.Error("the digest for no process")
	}
	if d, err := c.Container(ctx, "c0ffee"); err != nil || d.Image != "image of c0ffee" || d.Pod != "a/b" {
		t.Errorf("%+v %v", d, err)
	}
	if _, err := c.Container(ctx, strings.Repeat("x", 200)); err == nil {
		t.Error("an id of 200 bytes was asked for")
	}
	if _, err := c.Process(ctx, 1); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("%v is not ErrUnavailable", err)
	}
	if err := Drain(ours); err != nil {
		t.Fatal(err)
	}
	<-c.Draining()
}

func TestWhatIsAskedIsBounded(t *testing.T) {
	r := &recorder{}
	c, _ := line(t, r, func() {})
	ctx := t.Context()
	good := event.Response{ID: id, Action: event.ActionDeny, TTL: time.Hour}
	for name, spoil := range map[string]func(*event.Response){
		"id":       func(r *event.Response) { r.ID = "../../etc" },
		"no end":   func(r *event.Response) { r.TTL = 0 },
		"reason":   func(r *event.Response) { r.Reason = strings.Repeat("x", MaxText+1) },
		"findings": func(r *event.Response) { r.Findings = make([]string, 65) },
	} {
		bad := good
		spoil(&bad)
		if _, err := c.Apply(ctx, bad, 0); err == nil {
			t.Errorf("%s: went through", name)
		}
	}
	if len(r.applied) != 0 {
		t.Fatalf("%d reached the actuator", len(r.applied))
	}
	if _, err := c.Release(ctx, strings.Repeat("Z", 32)); err == nil || len(r.released) != 0 {
		t.Error("a foreign id was released")
	}
	bad := good
	bad.Reason = "boom"
	if _, err := c.Apply(ctx, bad, 0); err == nil || len(err.Error()) > MaxText || !strings.HasPrefix(err.Error(), "boom") {
		t.Errorf("long error: %v", err)
	}
}

func TestLineSurvivesRubbishAndSaysWhenItIsGone(t *testing.T) {
	c, ours := line(t, &recorder{}, func() {})
	for _, raw := range [][]byte{{0}, []byte("hello"), bytes.Repeat([]byte{0x9f}, 1000), {0xa1, 1, 9}} {
		if _, err := c.conn.c.Write(raw); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Mode(t.Context()); err != nil {
		t.Fatalf("after rubbish: %v", err)
	}
	ours.Close()
	if _, err := c.Mode(t.Context()); !errors.Is(err, ErrClosed) {
		t.Fatalf("%v is not ErrClosed", err)
	}
}

func TestUIDStaysInRange(t *testing.T) {
	seen := map[uint32]bool{}
	for _, d := range []string{"/var/lib/omega", "/tmp/a", "/tmp/b", "/tmp/c/../b"} {
		u := UID(d)
		if u < uidMin || u > uidMax {
			t.Errorf("%s: %d", d, u)
		}
		seen[u] = true
	}
	if len(seen) != 3 {
		t.Errorf("%d users for three folders", len(seen))
	}
}

func FuzzFrame(f *testing.F) {
	cd, err := newCodec()
	if err != nil {
		f.Fatal(err)
	}
	raw, _ := cd.encode(Frame{Kind: KindApply, Number: 1}, applyBody{ID: id, Response: event.Response{Action: event.ActionDeny, TTL: time.Hour}})
	f.Add(raw)
	raw, _ = cd.encode(Frame{Kind: KindProtect, Number: 2}, protectBody{Proved: []Proved{{DID: "d", Addr: netip.MustParseAddr("::1")}}})
	f.Add(raw)
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		fr, err := cd.decode(raw)
		if err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Fatalf("untyped refusal: %v", err)
			}
			return
		}
		r := &recorder{}
		_, _ = answer(t.Context(), cd, r, fr)
		for _, x := range r.applied {
			if err := checkResponse(x.ID, &x); err != nil {
				t.Fatalf("reached the actuator: %v", err)
			}
		}
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	c, _ := line(b, &recorder{}, func() {})
	r := event.Response{ID: id, Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix("203.0.113.9/32")}, TTL: time.Hour}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Apply(context.Background(), r, 0); err != nil {
			b.Fatal(err)
		}
	}
}
