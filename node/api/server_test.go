package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/api/v1/apiv1connect"
	"github.com/omega-mesh/omega/swarm/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake answers what a test puts into it; a method no test sets panics, which the server must survive.
type fake struct {
	Backend
	status  func() (*apiv1.StatusResponse, error)
	finding func(ctx context.Context, since int64, follow bool, yield func(*event.Finding) error) error
	events  func(yield func(*event.Event) error) error
	submit  func([]byte) (string, error)
	// forbidden is a method that the policy forbids.
	forbidden string
}

func (f *fake) Status(context.Context) (*apiv1.StatusResponse, error) { return f.status() }
func (f *fake) EachFinding(ctx context.Context, since int64, follow bool, yield func(*event.Finding) error) error {
	return f.finding(ctx, since, follow, yield)
}
func (f *fake) EachEvent(_ context.Context, q EventQuery, yield func(*event.Event) error) error {
	return f.events(func(e *event.Event) error {
		if !q.Match(e) {
			return nil
		}
		return yield(e)
	})
}
func (f *fake) Authorize(_ context.Context, method string, uid uint32) error {
	if f.forbidden == method || int(uid) != os.Getuid() {
		return ErrForbidden
	}
	return nil
}
func (f *fake) Submit(_ context.Context, raw []byte) (string, error) { return f.submit(raw) }

// serve runs a server on a socket and returns a client of it, and a function that ends it.
func serve(t *testing.T, b Backend) (apiv1connect.NodeClient, *http.Client, func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- New(b, func(e *event.Event) ([]byte, error) { return []byte(`{"exe":"` + e.Process.Exe + `"}`), nil }).Serve(ctx, l)
	}()
	h := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
	end := func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the server ended with %v", err)
		}
		h.CloseIdleConnections()
		done <- context.Canceled
	}
	t.Cleanup(end)
	return apiv1connect.NewNodeClient(h, "http://omega"), h, end
}

func TestErrorsHaveTheirCode(t *testing.T) {
	f := &fake{}
	c, _, _ := serve(t, f)
	for err, want := range map[error]connect.Code{
		fmt.Errorf("x: %w", ErrNotFound): connect.CodeNotFound, ErrForbidden: connect.CodePermissionDenied, ErrInvalid: connect.CodeInvalidArgument,
		ErrBusy: connect.CodeUnavailable, ErrCannot: connect.CodeUnimplemented, ErrState: connect.CodeFailedPrecondition, errors.New("disk"): connect.CodeInternal,
	} {
		f.status = func() (*apiv1.StatusResponse, error) { return nil, err }
		if _, got := c.Status(t.Context(), &apiv1.StatusRequest{}); connect.CodeOf(got) != want {
			t.Errorf("%v became %v", err, got)
		}
	}
}

func TestAPanicIsOneCallsError(t *testing.T) {
	f := &fake{status: func() (*apiv1.StatusResponse, error) { return &apiv1.StatusResponse{Name: "n1"}, nil }}
	c, _, _ := serve(t, f)
	if _, err := c.ListPeers(t.Context(), &apiv1.ListPeersRequest{}); connect.CodeOf(err) != connect.CodeInternal {
		t.Errorf("%v", err)
	}
	if s, err := c.Status(t.Context(), &apiv1.StatusRequest{}); err != nil || s.Name != "n1" {
		t.Errorf("afterwards: %v, %v", s, err)
	}
}

func TestRequestsAreBounded(t *testing.T) {
	f := &fake{submit: func([]byte) (string, error) { return "id", nil }, events: func(func(*event.Event) error) error { return nil },
		finding: func(context.Context, int64, bool, func(*event.Finding) error) error { return nil }}
	c, h, _ := serve(t, f)
	ctx := t.Context()
	if _, err := c.Submit(ctx, &apiv1.SubmitRequest{Entry: make([]byte, MaxEntry+1)}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a large entry: %v", err)
	}
	if _, err := c.Submit(ctx, &apiv1.SubmitRequest{Entry: make([]byte, MaxRequest+1)}); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("a large request: %v", err)
	}
	for _, where := range []string{"colour = red", strings.Repeat("a", 5000)} {
		s, err := c.Events(ctx, &apiv1.EventsRequest{Where: where})
		if err == nil {
			for s.Receive() {
			}
			err = s.Err()
			s.Close()
		}
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("where %.20q: %v", where, err)
		}
	}
	for since, ok := range map[string]bool{"": true, "10m": true, "2026-01-02T15:04:05Z": true, "-1s": false, "yesterday": false, strings.Repeat("1", 100): false} {
		s, err := c.Findings(ctx, &apiv1.FindingsRequest{Since: since})
		if err == nil {
			for s.Receive() {
			}
			err = s.Err()
			s.Close()
		}
		if (err == nil) != ok {
			t.Errorf("since %.20q: %v", since, err)
		}
	}
	// JSON by hand, as curl would.
	f.status = func() (*apiv1.StatusResponse, error) { return &apiv1.StatusResponse{Name: "n1"}, nil }
	res, err := h.Post("http://omega/omega.v1.Node/Status", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.StatusCode != 200 || !strings.Contains(string(body), `"name":"n1"`) {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestStreamsEndWithTheServer(t *testing.T) {
	started := make(chan struct{})
	f := &fake{finding: func(ctx context.Context, _ int64, follow bool, yield func(*event.Finding) error) error {
		if err := yield(&event.Finding{ID: "a", Host: "n1"}); err != nil || !follow {
			return err
		}
		close(started)
		<-ctx.Done()
		return ctx.Err()
	}}
	c, _, end := serve(t, f)
	s, err := c.Findings(t.Context(), &apiv1.FindingsRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.Receive() || s.Msg().Host != "n1" {
		t.Fatalf("%v, %v", s.Msg(), s.Err())
	}
	<-started
	ended := make(chan struct{})
	go func() { end(); close(ended) }()
	for s.Receive() {
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the server waits for a stream that never ends by itself")
	}
}

func TestEventsAreFiltered(t *testing.T) {
	f := &fake{events: func(yield func(*event.Event) error) error {
		for _, exe := range []string{"/bin/a", "/tmp/b", "/tmp/c"} {
			if err := yield(&event.Event{Class: event.ClassProcess, Process: event.Process{Exe: exe}}); err != nil {
				return err
			}
		}
		return nil
	}}
	c, _, _ := serve(t, f)
	s, err := c.Events(t.Context(), &apiv1.EventsRequest{Where: `exe ~ "/tmp/"`})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var got []string
	for s.Receive() {
		got = append(got, s.Msg().OcsfJson)
	}
	if s.Err() != nil || strings.Join(got, "") != `{"exe":"/tmp/b"}{"exe":"/tmp/c"}` {
		t.Errorf("%v, %v", got, s.Err())
	}
}

func FuzzParseResponse(f *testing.F) {
	f.Add("deny", "203.0.113.9/24", "", 1000.0)
	f.Add("contain", "", "did:omega:x", 1e20)
	f.Fuzz(func(t *testing.T, action, address, peer string, ttl float64) {
		r, err := ParseResponse(&apiv1.Response{Action: action, Target: &apiv1.Target{Address: address, Peer: peer}, TtlMs: ttl})
		if err != nil {
			return
		}
		if r.Action != event.ActionRelease && (r.TTL <= 0 || r.TTL > maxTTL) {
			t.Fatalf("a life of %s was taken", r.TTL)
		}
		if r.Target.Address.IsValid() && r.Target.Address != r.Target.Address.Masked() {
			t.Fatalf("%s is not in its plain form", r.Target.Address)
		}
	})
}
