package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/api/v1/apiv1connect"
	"github.com/omega-mesh/omega/node/client"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a node that keeps one operator's authority chain and nothing else.
type fake struct {
	apiv1connect.UnimplementedNodeHandler
	genesis []byte

	mu      sync.Mutex
	entries []*ledger.Entry
	race    int // how many submissions are overtaken by another client
}

func (f *fake) Status(context.Context, *apiv1.StatusRequest) (*apiv1.StatusResponse, error) {
	return &apiv1.StatusResponse{Name: "n1"}, nil
}

func (f *fake) Head(context.Context, *apiv1.HeadRequest) (*apiv1.HeadResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &apiv1.HeadResponse{NextSeq: uint64(len(f.entries)), Genesis: f.genesis}
	if n := len(f.entries); n > 0 {
		h := f.entries[n-1].Hash()
		r.Prev = h[:]
	}
	return r, nil
}

func (f *fake) Submit(_ context.Context, r *apiv1.SubmitRequest) (*apiv1.SubmitResponse, error) {
	e, err := ledger.Decode(r.Entry)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.race > 0 {
		f.race--
		return nil, connect.NewError(connect.CodeAborted, errors.New("the number is taken"))
	}
	f.entries = append(f.entries, e)
	return &apiv1.SubmitResponse{Id: e.ID()}, nil
}

// serve answers on the socket of dir until the test ends.
func serve(t *testing.T, dir string, n apiv1connect.NodeHandler) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, client.Socket))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(apiv1connect.NewNodeHandler(n))
	s := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
}

func operator(t *testing.T, dir string) (genesis []byte) {
	t.Helper()
	op, err := identity.Create(filepath.Join(dir, "operator"), identity.Options{Name: "operator"})
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	g, err := authority.NewGenesis("home", []*identity.Inception{op.Inception()}, 1, authority.GenesisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return g.Encode()
}

func TestNobodyThere(t *testing.T) {
	c := client.New(t.TempDir())
	defer c.Close()
	if _, err := c.Status(t.Context(), &apiv1.StatusRequest{}); !client.Unreachable(err) {
		t.Errorf("no socket: %v", err)
	}
	if _, err := c.Findings(t.Context(), &apiv1.FindingsRequest{Follow: true}); !client.Unreachable(err) {
		t.Errorf("no socket, a stream: %v", err)
	}
}

// A socket that takes connections and answers none is what a caller sees while the node's unprivileged half is dead.
func TestNobodyAnswers(t *testing.T) {
	if testing.Short() {
		t.Skip("waits out the bound of a stream's probe")
	}
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, client.Socket))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := client.New(dir)
	defer c.Close()
	if _, err := c.Findings(t.Context(), &apiv1.FindingsRequest{Follow: true}); !client.Unreachable(err) || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("a silent node: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(ctx, &apiv1.StatusRequest{}); err == nil || client.Unreachable(err) {
		t.Errorf("the caller's own end is taken for the node's silence: %v", err)
	}
}

func TestOperatorSignsTheNextEntry(t *testing.T) {
	dir := t.TempDir()
	f := &fake{genesis: operator(t, dir), race: 2}
	serve(t, dir, f)
	c := client.New(dir)
	defer c.Close()
	op, err := c.OpenOperator(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	for range 3 {
		if _, err := op.Submit(t.Context(), &authority.RejectBody{Response: strings.Repeat("0a", 16)}); err != nil {
			t.Fatal(err)
		}
	}
	g, err := authority.DecodeGenesis(f.genesis)
	if err != nil {
		t.Fatal(err)
	}
	var prev ledger.Hash
	for i, e := range f.entries {
		if e.Seq != uint64(i) || e.Prev != prev || e.Author != op.DID() || e.Swarm != g.SwarmID() || e.Kind != ledger.KindReject || len(e.Full) == 0 {
			t.Errorf("entry %d does not continue the chain with a full signature: %+v", i, e)
		}
		prev = e.Hash()
	}
}

// Another client that keeps winning must not hold this one for ever.
func TestSubmitGivesUp(t *testing.T) {
	dir := t.TempDir()
	f := &fake{genesis: operator(t, dir), race: 1000}
	serve(t, dir, f)
	c := client.New(dir)
	defer c.Close()
	op, err := c.OpenOperator(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	if _, err := op.Submit(t.Context(), &authority.RejectBody{Response: strings.Repeat("0a", 16)}); connect.CodeOf(err) != connect.CodeAborted {
		t.Errorf("want the node's own word after some tries, got %v", err)
	}
}

func TestNoOperator(t *testing.T) {
	dir := t.TempDir()
	c := client.New(dir)
	defer c.Close()
	if _, err := c.OpenOperator(t.Context(), nil); !errors.Is(err, client.ErrNoOperator) {
		t.Errorf("%v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "operator"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := c.OpenOperator(t.Context(), nil); !errors.Is(err, client.ErrNoOperator) {
		t.Errorf("an empty folder: %v", err)
	}
}

// Two commands at once take turns: were both to sign the same number, the operator would equivocate.
func TestOneSignerAtATime(t *testing.T) {
	dir := t.TempDir()
	operator(t, dir)
	c := client.New(dir)
	defer c.Close()
	first, err := c.OpenOperator(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
	defer cancel()
	if _, err := c.OpenOperator(ctx, nil); !errors.Is(err, identity.ErrLocked) {
		t.Errorf("a second signer beside the first: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := c.OpenOperator(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}
