package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/node/privileged"
	"github.com/omega-mesh/omega/trust/identity"
)

// Descriptors the unprivileged half inherits; last what its sensor reads: the ring buffer, or the proc connector.
const (
	fdLine = 3 + iota
	fdListener
	fdDir
	fdLogs
	fdLock // held by both halves: whoever starts the node again waits for both
	fdSensor
)

// How the privileged half brings the other back: at once, then with growing patience. A child that lived for
// steadyTime starts the count anew.
const (
	restartMin = 100 * time.Millisecond
	restartMax = 30 * time.Second
	steadyTime = time.Minute
)

// parent is the privileged half of a node: it holds the kernel and the rails, starts the other half, and brings it
// back when it dies. It reads nothing that another host wrote.
type parent struct {
	cfg        *config.Config
	opt        UpOptions
	log        *slog.Logger
	listener   *net.UnixListener
	host       *privileged.Host
	kernel     *kernel
	passphrase []byte
	kept       *identity.Kept // the wrapping key, where a TPM keeps it
	seed       Seed
	lock       *os.File // of the state folder
	once       sync.Once
	served     atomic.Bool // the node was ready once: whatever fails now, it is tried again
}

func (p *parent) run(ctx context.Context) error {
	uid := privileged.UID(p.cfg.Dir)
	if err := handOver(Layout{p.cfg.Dir}, uid); err != nil {
		return err
	}
	output, closeOutput, err := outputFile(p.opt.Log)
	if err != nil {
		return err
	}
	defer closeOutput()

	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()

	debug.FreeOSMemory() // the loader's, mostly
	signals, draining := 0, false
	wait := restartMin
	for restarts := 0; ; restarts++ {
		started := time.Now()
		c, conn, err := p.start(uid, output, restarts)
		if err != nil {
			return err
		}
		wg.Go(func() {
			if err := privileged.Serve(work, conn, p.host, p.ready, p.log); err != nil && !errors.Is(err, privileged.ErrClosed) && work.Err() == nil {
				p.log.Warn("privileged line", "err", err)
			}
		})
		ended := ctx.Done()
		var deadline <-chan time.Time
		drain := func(why string) {
			draining, ended = true, nil
			deadline = time.After(drainTime + 2*time.Second)
			p.log.Info("draining", "why", why)
			notify(p.log, "STOPPING=1")
			if privileged.Drain(conn) != nil {
				_ = c.Signal(os.Kill)
			}
		}
		for alive := true; alive; {
			select {
			case <-c.Done():
				alive = false
			case <-ended:
				drain("the process was told to end")
			case sig := <-p.opt.Signals:
				if signals++; signals > 1 {
					c.Kill()
					conn.Close()
					return ErrStopped
				}
				drain(sig.String() + "; a second one stops at once")
			case <-deadline:
				p.log.Warn("the unprivileged half did not drain in time")
				c.Kill()
			}
		}
		conn.Close()
		switch code := c.ExitCode(); {
		case code == exitLeft:
			return ErrLeft
		case draining:
			return nil
		case code == exitNoStart && !p.served.Load():
			return errors.New("the unprivileged half could not start: its log says why")
		}
		if time.Since(started) > steadyTime {
			wait, restarts = restartMin, 0
		}
		p.log.Error("the unprivileged half died; blocks stand, and it is started again", "err", c.Err(), "in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		case <-p.opt.Signals:
			return nil
		}
		wait = min(wait*2, restartMax)
	}
}

// start executes the other half and tells it all it needs.
func (p *parent) start(uid uint32, output *os.File, restarts int) (*privileged.Child, *privileged.Conn, error) {
	cfg, err := json.Marshal(p.cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("hand over the configuration: %w", err)
	}
	conn, theirs, err := privileged.Pair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	l, err := p.listener.File()
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("hand over the API's socket: %w", err)
	}
	defer l.Close()
	dir, err := os.Open(p.cfg.Dir)
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("hand over the state folder: %w", err)
	}
	defer dir.Close()
	lines, err := p.kernel.logs.Reader()
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	defer lines.Close()
	files, ringBytes, noConnector := []*os.File{theirs, l, dir, lines, p.lock}, 0, ""
	if ring, ok, err := p.kernel.ring(); err != nil {
		conn.Close()
		return nil, nil, err
	} else if ok {
		defer ring.File.Close()
		files, ringBytes = append(files, ring.File), ring.Bytes
	} else if p.cfg.Replay() != "" {
		f, err := p.kernel.recording()
		if err != nil {
			conn.Close()
			return nil, nil, err
		}
		defer f.Close()
		files = append(files, f)
	} else if c, err := p.kernel.connector(); err != nil {
		noConnector = err.Error()
	} else {
		defer c.File.Close()
		files = append(files, c.File)
	}
	c, err := privileged.Spawn(privileged.ChildOptions{
		Name: childName, UID: uid, Files: files, Env: childEnv(), Output: output,
	})
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	p.kernel.protect(os.Getpid(), c.PID())
	start := privileged.Start{
		Config: cfg, Dir: p.cfg.Dir, Version: p.opt.Version, Passphrase: p.passphrase, RingBytes: ringBytes, Restarted: restarts, Connector: noConnector,
	}
	// A half that is started again has random bytes of its own; what the device gave is the same, and only adds.
	start.Seed, start.SeedFrom, start.SeedFault = p.seed.Bytes, p.seed.From, p.seed.Fault
	start.Own = ownPaths(p.cfg)
	if p.kept != nil {
		start.Wrap, start.Sealed = p.kept.Wrap, p.kept.Sealed
	}
	if err := conn.SendStart(start); err != nil {
		c.Kill()
		conn.Close()
		return nil, nil, err
	}
	return c, conn, nil
}

func (p *parent) ready() {
	p.served.Store(true)
	p.once.Do(func() {
		notify(p.log, "READY=1")
		if p.opt.Ready != nil {
			p.opt.Ready()
		}
	})
}

// childEnv passes on only what the Go runtime reads.
func childEnv() []string {
	env := []string{"HOME=/", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, name := range []string{"TZ", "GODEBUG", "GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GOTRACEBACK"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// outputFile gives the child a descriptor for its log: w's own where it is a file, else a pipe copied into it.
func outputFile(w io.Writer) (*os.File, func(), error) {
	if f, ok := w.(*os.File); ok {
		return f, func() {}, nil
	}
	r, pipe, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("log of the unprivileged half: %w", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(w, r) })
	return pipe, func() { pipe.Close(); wg.Wait(); r.Close() }, nil
}
