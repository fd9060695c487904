package privileged

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/bpf/executable"
	"github.com/omega-mesh/omega/bpf/selftest"
	"github.com/omega-mesh/omega/bpf/workload"
	"github.com/omega-mesh/omega/node/privileged/scanner"
	"github.com/omega-mesh/omega/swarm/event"
)

// Client is the Service as seen from the unprivileged side. Run must be running for its calls to be answered.
type Client struct {
	conn *Conn

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan Frame
	closed  bool
	drain   chan struct{}
}

// NewClient speaks over conn.
func NewClient(conn *Conn) *Client {
	return &Client{conn: conn, waiting: map[uint64]chan Frame{}, drain: make(chan struct{})}
}

// Draining is closed when the privileged side asks for a stop in good order.
func (c *Client) Draining() <-chan struct{} { return c.drain }

// Ready tells the privileged side that the node serves.
func (c *Client) Ready() error { return c.conn.Send(Frame{Kind: KindReady}, nil) }

// Run hands answers to those who wait, until the line closes or ctx ends. ErrClosed means that the privileged side is
// gone, and that this process has no business living on.
func (c *Client) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	defer c.fail()
	draining := false
	for {
		f, err := c.conn.Receive()
		if errors.Is(err, ErrFrame) {
			continue // a fault of the other half; whoever waits runs into its deadline
		}
		if err != nil {
			return errors.Join(ctx.Err(), err)
		}
		switch f.Kind {
		case KindDrain:
			if !draining {
				draining = true
				close(c.drain)
			}
		case KindReply:
			c.mu.Lock()
			ch := c.waiting[f.Number]
			delete(c.waiting, f.Number)
			c.mu.Unlock()
			if ch != nil {
				ch <- f
			}
		}
	}
}

func (c *Client) fail() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for n, ch := range c.waiting {
		close(ch)
		delete(c.waiting, n)
	}
}

// call sends one request and waits for its answer.
func (c *Client) call(ctx context.Context, kind Kind, body, into any) error {
	ch := make(chan Frame, 1)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	c.next++
	n := c.next
	c.waiting[n] = ch
	c.mu.Unlock()
	forget := func() {
		c.mu.Lock()
		delete(c.waiting, n)
		c.mu.Unlock()
	}
	if err := c.conn.Send(Frame{Kind: kind, Number: n}, body); err != nil {
		forget()
		return err
	}
	select {
	case <-ctx.Done():
		forget()
		return fmt.Errorf("privileged side: %w", ctx.Err())
	case f, ok := <-ch:
		switch {
		case !ok:
			return ErrClosed
		case f.Error == ErrUnavailable.Error():
			return ErrUnavailable
		case f.Error == ErrNoBaseline.Error():
			return ErrNoBaseline
		case f.Error == scanner.ErrNone.Error():
			return scanner.ErrNone
		case f.Error != "":
			return errors.New(f.Error)
		case into == nil:
			return nil
		}
		return c.conn.codec.body(f, into)
	}
}

// Apply implements Service.
func (c *Client) Apply(ctx context.Context, r event.Response, heard uint64) (rc event.Receipt, err error) {
	err = c.call(ctx, KindApply, applyBody{ID: r.ID, Response: r, Heard: heard}, &rc)
	return rc, err
}

// Release implements Service.
func (c *Client) Release(ctx context.Context, id string) (rc event.Receipt, err error) {
	err = c.call(ctx, KindRelease, textBody{id}, &rc)
	return rc, err
}

// Active implements Service.
func (c *Client) Active(ctx context.Context) ([]Enforced, error) {
	var l listBody[Enforced]
	err := c.call(ctx, KindActive, nil, &l)
	return l.Rows, err
}

// Panic implements Service.
func (c *Client) Panic(ctx context.Context) (int, error) {
	var n numberBody
	err := c.call(ctx, KindPanic, nil, &n)
	return int(n.Number), err
}

// Mode implements Service.
func (c *Client) Mode(ctx context.Context) (string, error) {
	var t textBody
	err := c.call(ctx, KindMode, nil, &t)
	return t.Text, err
}

// Coverage implements Service.
func (c *Client) Coverage(ctx context.Context) ([]Check, error) {
	var l listBody[Check]
	err := c.call(ctx, KindCoverage, nil, &l)
	return l.Rows, err
}

// Counters implements Service.
func (c *Client) Counters(ctx context.Context) (map[string]uint64, error) {
	var b countersBody
	err := c.call(ctx, KindCounters, nil, &b)
	return b.Counters, err
}

// SelfTest implements Service.
func (c *Client) SelfTest(ctx context.Context, secret string) ([]selftest.Attempt, error) {
	var l listBody[selftest.Attempt]
	err := c.call(ctx, KindSelfTest, textBody{secret}, &l)
	return l.Rows, err
}

// Protect implements Service.
func (c *Client) Protect(ctx context.Context, listeners []bpf.Listener, proved []Proved) error {
	body := protectBody{Listeners: listeners[:min(len(listeners), MaxListeners)], Proved: proved[:min(len(proved), MaxProtected)]}
	return c.call(ctx, KindProtect, body, nil)
}

// Process implements Service.
func (c *Client) Process(ctx context.Context, pid uint32) (p event.Process, err error) {
	err = c.call(ctx, KindProcess, numberBody{uint64(pid)}, &p)
	return p, err
}

// Container implements Service.
func (c *Client) Container(ctx context.Context, id string) (d workload.Description, err error) {
	err = c.call(ctx, KindContainer, textBody{id}, &d)
	return d, err
}

// Digest implements Service.
func (c *Client) Digest(ctx context.Context, image executable.Image, weak bool) (executable.Sums, error) {
	var b sumsBody
	err := c.call(ctx, KindDigest, imageBody{image.PID, image.Path, image.Inode, image.Device, weak}, &b)
	return executable.Sums{SHA256: b.SHA256, Weak: b.Weak, SHA1: b.SHA1, MD5: b.MD5}, err
}

// Allow implements Service.
func (c *Client) Allow(ctx context.Context, what string) error {
	return c.call(ctx, KindAllow, textBody{what}, nil)
}

// Disallow implements Service.
func (c *Client) Disallow(ctx context.Context, what string) error {
	return c.call(ctx, KindDisallow, textBody{what}, nil)
}

// Allowed implements Service.
func (c *Client) Allowed(ctx context.Context) ([]string, error) {
	var l listBody[string]
	err := c.call(ctx, KindAllowed, nil, &l)
	return l.Rows, err
}

// Scan implements Service.
func (c *Client) Scan(ctx context.Context, r ScanRequest) (out ScanReport, err error) {
	err = c.call(ctx, KindScan, r, &out)
	return out, err
}

// ScanStatus implements Service.
func (c *Client) ScanStatus(ctx context.Context) (out scanner.Status, err error) {
	err = c.call(ctx, KindScanStatus, nil, &out)
	return out, err
}

// Operators implements Service.
func (c *Client) Operators(ctx context.Context, lines []string) error {
	return c.call(ctx, KindOperators, listBody[string]{lines[:min(len(lines), MaxOperators)]}, nil)
}
