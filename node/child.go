package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/bpf/logs"
	"github.com/omega-mesh/omega/bpf/selftest"
	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/node/privileged"
	"github.com/omega-mesh/omega/node/privileged/scanner"
	"github.com/omega-mesh/omega/trust/identity"
)

// childName is argv[0] of the unprivileged half: nothing a user types, and what ps shows.
const childName = "omega: node"

// IsChild says whether this process is the unprivileged half that Up executed, its self-test, or its scanner. main, and TestMain of a test that
// calls Up as root, must ask it before anything else, and if so exit with Child's result.
func IsChild() bool {
	return len(os.Args) > 0 && os.Args[0] == childName || selftest.Is() || scanner.Is()
}

// Child is the life of the unprivileged half, of a self-test, or of a scanner; its result is the exit code.
func Child() int {
	if selftest.Is() {
		return selftest.Perform(os.Stdout)
	}
	if scanner.Is() {
		return scanner.Main()
	}
	unix.Umask(0o077)
	if err := privileged.Unreadable(); err != nil {
		fmt.Fprintln(redacting(os.Stderr), "omega: unprivileged half:", err)
	}
	trimHeap()
	// The terminal's signals are the privileged half's to hear; it asks over the line.
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	err := child()
	if err == nil {
		return 0
	}
	fmt.Fprintln(redacting(os.Stderr), "omega: unprivileged half:", err)
	var start *startError
	switch {
	case errors.Is(err, ErrLeft):
		return exitLeft
	case errors.As(err, &start):
		return exitNoStart
	}
	return 1
}

// errOrphaned is why a half ends whose other half is gone: that is no end in good order, and the swarm is not told of one.
var errOrphaned = errors.New("the privileged half is gone")

// trimHeap trades a little CPU for memory: a node at rest allocates little, and shares the host with what it protects.
func trimHeap() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// Exit codes by which the unprivileged half says that it need not be started again.
const (
	exitLeft    = 10 // the node left the swarm
	exitNoStart = 11 // it could not be assembled: the next try would fail alike
)

// startError marks what keeps a node from being assembled.
type startError struct{ err error }

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

func child() error {
	unix.CloseOnExec(fdLock) // it stays open for as long as this process lives, and is no one's after it
	// Sent when the privileged half dies, the very moment it does.
	orphaned := make(chan os.Signal, 1)
	signal.Notify(orphaned, syscall.SIGTERM)
	conn, err := privileged.FromFile(os.NewFile(fdLine, "line"))
	if err != nil {
		return err
	}
	defer conn.Close()
	start, err := conn.ReceiveStart()
	if err != nil {
		return err
	}
	defer clear(start.Passphrase)
	defer clear(start.Wrap)
	defer clear(start.Seed)
	var store identity.Store
	if start.Wrap != nil {
		store = &identity.Kept{From: identity.KindTPM, Sealed: start.Sealed, Wrap: start.Wrap}
	}
	cfg := config.Default(start.Dir)
	if err := json.Unmarshal(start.Config, cfg); err != nil {
		return fmt.Errorf("configuration handed over: %w", err)
	}
	cfg.Dir = start.Dir
	if err := cfg.Validate(); err != nil {
		return err
	}
	// The folder is reached by its descriptor: what leads there may be closed to this user.
	if err := unix.Fchdir(fdDir); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	unix.Close(fdDir)
	f := os.NewFile(fdListener, "api")
	listener, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("the API's socket: %w", err)
	}
	defer listener.Close()
	log := newLog(os.Stderr, cfg)

	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	client := privileged.NewClient(conn)
	sensor, err := inheritSensor(cfg, &start, client.Process)
	if err != nil {
		return err
	}
	lines, err := logs.Open(os.NewFile(fdLogs, "logs"))
	if err != nil {
		return err
	}
	defer lines.Close()
	gone := make(chan struct{})
	line, closeLine := context.WithCancel(context.Background())
	go func() {
		defer close(gone)
		err := client.Run(line)
		// The other half is gone: blocks and guard rails with it. There is nothing to drain for.
		time.AfterFunc(lastLook, func() { cancel(fmt.Errorf("%w: %w", errOrphaned, err)) })
	}()
	defer func() { closeLine(); <-gone }()
	go func() {
		select {
		case <-orphaned:
			time.AfterFunc(lastLook, func() { cancel(errOrphaned) })
			time.AfterFunc(lastLook+farewell, func() { os.Exit(1) }) // nothing waits for this half any more
		case <-ctx.Done():
		}
	}()
	go func() {
		select {
		case <-client.Draining():
			time.AfterFunc(lastLook, func() { cancel(nil) })
		case <-ctx.Done():
		}
	}()
	// From here on this half has all that it inherits, and parses what others wrote.
	confined, err := confine(log)
	if err != nil {
		return err
	}
	n, err := New(Parts{
		Config: cfg, Base: ".", Version: start.Version, Passphrase: start.Passphrase, Store: store, Seed: Seed{start.Seed, start.SeedFrom, start.SeedFault}, Service: client, Sensor: sensor, Logs: lines, Listener: listener,
		Log: log, Split: true, Own: start.Own, Confined: confined, Restarted: start.Restarted,
		Ready: func() {
			if err := client.Ready(); err != nil {
				log.Warn("the privileged half was not told that the node is ready", "err", err)
			}
		},
	})
	if err != nil {
		return &startError{err}
	}
	err = n.Run(ctx)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// confine leaves this half what it needs, for life. Where the kernel refuses, it goes on, and says so.
func confine(log *slog.Logger) ([]privileged.Check, error) {
	dir, err := unix.Open(".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) // this user need not be able to list it
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	defer unix.Close(dir)
	checks := privileged.ConfineUnprivileged(dir)
	for _, c := range checks {
		if !c.OK {
			log.Warn("this half keeps more than it needs", "what", c.Name, "err", c.Detail)
		}
	}
	return checks, nil
}
