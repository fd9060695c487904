package serve

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"connectrpc.com/connect"

	simv1 "github.com/omega-mesh/omega/sim/serve/v1"
	"github.com/omega-mesh/omega/sim/serve/v1/simv1connect"
)

// Server holds the sessions and answers on listeners. Its methods are those of the service; many may run at once.
type Server struct {
	idle time.Duration
	now  func() time.Time

	making   sync.Mutex // one session is made at a time, so that those refused in the end do not add up
	mu       sync.Mutex // guards what follows
	sessions map[string]*session
	bytes    int64 // of all their worlds, as estimated
}

// New makes a server that ends sessions which nobody used for idle (0: DefaultIdle).
func New(idle time.Duration) *Server {
	if idle <= 0 {
		idle = DefaultIdle
	}
	return &Server{idle: idle, now: time.Now, sessions: map[string]*session{}}
}

// Create makes a session.
func (s *Server) Create(_ context.Context, r *simv1.CreateRequest) (*simv1.CreateResponse, error) {
	x, err := s.create(r)
	if err != nil {
		return nil, code(err)
	}
	return x.describe(), nil
}

func (s *Server) create(r *simv1.CreateRequest) (*session, error) {
	s.making.Lock()
	defer s.making.Unlock()
	if r.Worlds < 1 || r.Worlds > MaxWorlds {
		return nil, fmt.Errorf("%w: %d worlds: from 1 to %d", ErrInvalid, r.Worlds, MaxWorlds)
	}
	x := &session{worlds: int(r.Worlds), masks: r.Masks, seed: r.Seed, reset: true,
		episode: make([]uint32, r.Worlds), played: make([]uint32, r.Worlds), over: make([]bool, r.Worlds)}
	switch r.Autoreset {
	case "", "next-step":
	case "disabled":
		x.reset = false
	default:
		return nil, fmt.Errorf("%w: autoreset %.40q: want next-step or disabled", ErrInvalid, r.Autoreset)
	}
	var err error
	switch r.Environment {
	case "cage2":
		x.b, err = newCageBatch(r)
		x.bytes = int64(r.Worlds) * cageWorldBytes
	case "network":
		x.b, x.bytes, err = newNetworkBatch(r)
	default:
		err = fmt.Errorf("%w: environment %.40q: want cage2 or network", ErrInvalid, r.Environment)
	}
	if err != nil {
		return nil, err
	}
	if n := frameBytes(x.b.agents()) * int64(x.worlds); n > MaxAnswer {
		return nil, fmt.Errorf("%w: %d worlds of this environment make an answer of %d MiB: at most %d", ErrExhausted, x.worlds, n>>20, MaxAnswer>>20)
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	x.id = hex.EncodeToString(id[:])
	if err := s.admit(x); err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.each(x.restart)
	return x, nil
}

// admit takes a session in, where its worlds find room.
func (s *Server) admit(x *session) error {
	s.sweep()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.sessions) >= MaxSessions:
		return fmt.Errorf("%w: %d sessions are open already; close one", ErrExhausted, MaxSessions)
	case s.bytes+x.bytes > MaxMemory:
		return fmt.Errorf("%w: %d MiB more of worlds beside %d: at most %d in all; take fewer, or close a session", ErrExhausted, x.bytes>>20, s.bytes>>20, MaxMemory>>20)
	}
	x.lastUsed = s.now()
	s.sessions[x.id] = x
	s.bytes += x.bytes
	return nil
}

// session finds one by its id.
func (s *Server) session(id string) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.sessions[id]
	if !ok {
		return nil, fmt.Errorf("%w: %.40q (closed, or unused for %s)", ErrNotFound, id, s.idle)
	}
	x.lastUsed = s.now()
	return x, nil
}

// sweep ends the sessions that nobody used for too long.
func (s *Server) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for _, x := range s.sessions {
		if now.Sub(x.lastUsed) >= s.idle {
			s.remove(x)
		}
	}
}

func (s *Server) remove(x *session) {
	delete(s.sessions, x.id)
	s.bytes -= x.bytes
}

// Reset begins new episodes in a session.
func (s *Server) Reset(_ context.Context, r *simv1.ResetRequest) (*simv1.StepResponse, error) {
	x, err := s.session(r.Session)
	if err != nil {
		return nil, code(err)
	}
	f, err := x.begin(r.Seed, r.Worlds)
	if err != nil {
		return nil, code(err)
	}
	return &f.StepResponse, nil
}

// Step plays one step in every world of a session.
func (s *Server) Step(_ context.Context, r *simv1.StepRequest) (*simv1.StepResponse, error) {
	x, err := s.session(r.Session)
	if err != nil {
		return nil, code(err)
	}
	f, err := x.step(r.Actions)
	if err != nil {
		return nil, code(err)
	}
	return &f.StepResponse, nil
}

// Close ends a session.
func (s *Server) Close(_ context.Context, r *simv1.CloseRequest) (*simv1.CloseResponse, error) {
	x, err := s.session(r.Session)
	if err != nil {
		return nil, code(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[x.id] == x { // not ended by another call meanwhile
		s.remove(x)
	}
	return &simv1.CloseResponse{}, nil
}

// code puts an error on the wire.
func code(err error) error {
	for _, c := range [...]struct {
		err  error
		code connect.Code
	}{
		{ErrInvalid, connect.CodeInvalidArgument}, {ErrNotFound, connect.CodeNotFound},
		{ErrExhausted, connect.CodeResourceExhausted}, {ErrOver, connect.CodeFailedPrecondition},
	} {
		if errors.Is(err, c.err) {
			return connect.NewError(c.code, err)
		}
	}
	return connect.NewError(connect.CodeInternal, err)
}

// Handler answers the service's calls. Where local is set, a request whose Host header names another machine is refused:
// a web page that had its name resolved to this one must not reach in.
func (s *Server) Handler(local bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(simv1connect.NewEnvironmentsHandler(s, connect.WithReadMaxBytes(MaxRequest), connect.WithRecover(
		func(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
			return connect.NewError(connect.CodeInternal, fmt.Errorf("%s failed: %v", spec.Procedure, p))
		})))
	if !local {
		return mux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !localName(r.Host) {
			http.Error(w, "this server answers to localhost only", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func localName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// Serve answers on l until ctx ends, then gives calls two seconds. It closes l. Sessions outlive a connection: a client
// that vanished leaves nothing behind but its session, which ends when it was idle for long enough.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	tcp, isTCP := l.Addr().(*net.TCPAddr)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC
	srv := &http.Server{
		Handler:           s.Handler(isTCP && tcp.IP.IsLoopback()),
		Protocols:         protocols,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      5 * time.Minute,
		IdleTimeout:       s.idle,
		MaxHeaderBytes:    16 << 10,
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var own sync.WaitGroup
	own.Go(func() {
		tick := time.NewTicker(max(time.Second, s.idle/4))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				grace, done := context.WithTimeout(context.Background(), 2*time.Second)
				defer done()
				if srv.Shutdown(grace) != nil {
					srv.Close()
				}
				return
			case <-tick.C:
				s.sweep()
			}
		}
	})
	err := srv.Serve(l)
	cancel()
	own.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("sim serve: %w", err)
}
