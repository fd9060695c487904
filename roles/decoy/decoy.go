package decoy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
)

// Bounds of a decoy.
const (
	// MaxServices is the most services of one decoy.
	MaxServices = 16
	// maxConns is the most connections talked to at once, maxPerSource those of one address: more are closed unread, but
	// each first touch is a finding all the same.
	maxConns     = 128
	maxPerSource = 4
	// touchAgain is how long after a touch the same source's next one makes no new finding, and maxSources how many
	// sources are remembered for it.
	touchAgain = uint64(30 * time.Second)
	maxSources = 4096
	// publishQueue is the most findings of sessions that wait to be signed.
	publishQueue = 256
	// maxTelling is the most touches that are being signed at once; more are counted and lost: the quota of the response
	// policy is far below.
	maxTelling = 64
	// publishLimit ends a publication that hangs, so that a visitor is not kept waiting for ever.
	publishLimit = 5 * time.Second
	// retryListen is how long a service waits before it tries a busy port again.
	retryListen = 2 * time.Second
)

// Options of a decoy.
type Options struct {
	// Services are what is served: "tcp/2323" or "telnet@2323".
	Services []string
	// Bind is the address listened on; empty is every one.
	Bind string
	Log  *slog.Logger
}

// Service is one decoy service as it stands.
type Service struct {
	Name    string // "tcp/2323", as findings name it
	Port    uint16
	State   string // "stopped", "listening", or why it does not listen
	Touches uint64
	Dropped uint64 // connections closed unread, and findings lost, because a bound was reached
}

// Decoy is the role.
type Decoy struct {
	opt      Options
	log      *slog.Logger
	services []*service
}

type service struct {
	name    string
	port    uint16
	state   atomic.Value // string
	touches atomic.Uint64
	dropped atomic.Uint64
}

// New checks the services and makes the role. Port 0 takes a free one, for tests.
func New(opt Options) (*Decoy, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Bind != "" {
		if _, err := netip.ParseAddr(opt.Bind); err != nil {
			return nil, fmt.Errorf("decoy: bind address %.60q: %w", opt.Bind, err)
		}
	}
	if len(opt.Services) > MaxServices {
		return nil, fmt.Errorf("decoy: %d services, at most %d", len(opt.Services), MaxServices)
	}
	d := &Decoy{opt: opt, log: opt.Log}
	for _, s := range opt.Services {
		protocol, port, ok := strings.Cut(s, "/")
		if !ok {
			protocol, port, ok = strings.Cut(s, "@")
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if !ok || err != nil || protocol != "tcp" && protocol != "telnet" {
			return nil, fmt.Errorf("decoy: service %.60q is neither tcp/PORT nor telnet@PORT", s)
		}
		if slices.ContainsFunc(d.services, func(o *service) bool { return n != 0 && o.port == uint16(n) }) {
			return nil, fmt.Errorf("decoy: port %d is named twice", n)
		}
		sv := &service{name: "tcp/" + strconv.FormatUint(n, 10), port: uint16(n)}
		sv.state.Store("stopped")
		d.services = append(d.services, sv)
	}
	return d, nil
}

// Name implements roles.Role.
func (d *Decoy) Name() string { return roles.NameDecoy }

// Services lists the services in the order they were named.
func (d *Decoy) Services() []Service {
	out := make([]Service, len(d.services))
	for i, s := range d.services {
		state, _ := s.state.Load().(string)
		out[i] = Service{Name: s.name, Port: s.port, State: state, Touches: s.touches.Load(), Dropped: s.dropped.Load()}
	}
	return out
}

// Run implements roles.Role: it serves until ctx ends. A port that is taken is tried again; the others go on.
func (d *Decoy) Run(ctx context.Context, p roles.Peer) error {
	ctx, stop := context.WithCancel(ctx)
	v := &visits{decoy: d, peer: p, slots: make(chan struct{}, maxConns), telling: make(chan struct{}, maxTelling), later: make(chan event.Finding, publishQueue), sources: map[netip.Addr]*source{}}
	defer v.wg.Wait()
	defer stop()
	v.wg.Go(func() { v.publishLater(ctx) })
	for _, s := range d.services {
		v.wg.Go(func() { d.serve(ctx, s, v) })
	}
	<-ctx.Done()
	return ctx.Err()
}

// serve accepts one service's connections until ctx ends.
func (d *Decoy) serve(ctx context.Context, s *service, v *visits) {
	defer s.state.Store("stopped")
	var lc net.ListenConfig
	for ctx.Err() == nil {
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(d.opt.Bind, strconv.Itoa(int(s.port))))
		if err != nil {
			if ctx.Err() == nil {
				s.state.Store(redact.Printable(err.Error(), 200))
				d.log.Warn("decoy does not listen", "service", s.name, "err", err)
				pause(ctx, retryListen)
			}
			continue
		}
		if a, ok := l.Addr().(*net.TCPAddr); ok && s.port == 0 {
			s.state.Store("listening on " + strconv.Itoa(a.Port))
		} else {
			s.state.Store("listening")
		}
		unhook := context.AfterFunc(ctx, func() { l.Close() })
		for {
			c, err := l.Accept()
			if err != nil {
				if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
					break
				}
				d.log.Warn("decoy cannot accept", "service", s.name, "err", err)
				pause(ctx, 50*time.Millisecond) // out of descriptors, most likely
				continue
			}
			v.accept(ctx, s, c)
		}
		unhook()
		l.Close()
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
