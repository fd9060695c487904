package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/node/privileged"
	"github.com/omega-mesh/omega/trust/identity"
)

// lastLook is how long a node that was told to end, or has lost its other half, goes on: its sensor reads every 50 ms at
// most, and who did it is to be told before it is gone.
const lastLook = 150 * time.Millisecond

// farewell is how long an orphaned half has after that for its last words.
const farewell = 700 * time.Millisecond

// UpOptions are what a node needs from the process it runs in.
type UpOptions struct {
	// Version is shown in status.
	Version string
	// Log is where the node writes; nil is standard error.
	Log io.Writer
	// Ready, if set, is called once, when the API answers and the first sync is over.
	Ready func()
	// Signals, if set, brings SIGINT and SIGTERM: the first drains, the second stops. Nil leaves it to ctx.
	Signals <-chan os.Signal
}

// drainTime is how long a node may take to end in good order: seal its feed, tell its peers, close its store.
const drainTime = 8 * time.Second

// ErrStopped is returned by Up when the second signal cut the draining short.
var ErrStopped = errors.New("stopped before everything was drained")

// Up is the whole life of `omega up`: it returns when ctx ends, when the second signal comes, or when the node
// cannot go on. As root, and unless cfg.Split is off, it runs the node as two processes.
func Up(ctx context.Context, cfg *config.Config, opt UpOptions) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	trimHeap()
	if opt.Log == nil {
		opt.Log = os.Stderr
	}
	layout := Layout{cfg.Dir}
	if _, err := os.Stat(layout.Genesis()); err != nil {
		return fmt.Errorf("%s: %w: found one with `omega init --swarm NAME`, or join one with `omega join`", cfg.Dir, ErrNotInitialised)
	}
	held, err := takeLock(layout.Lock())
	if err != nil {
		return err
	}
	defer held.Close()
	for _, dir := range []string{layout.Ledger(), layout.Swarm(), layout.Journal(), layout.Indicators()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("state folder: %w", err)
		}
	}
	passphrase, err := readPassphrase(cfg.PassphraseFile)
	if err != nil {
		return err
	}
	defer clear(passphrase)
	log := newLog(opt.Log, cfg)
	split := os.Geteuid() == 0 && cfg.Split
	store, closeStore, err := openKeyStore(ctx, cfg, split)
	if err != nil {
		return err
	}
	defer closeStore()
	seed := drawSeed(ctx, cfg)
	defer clear(seed.Bytes)
	listener, err := listen(layout.Socket())
	if err != nil {
		return err
	}
	defer os.Remove(layout.Socket())
	defer listener.Close()

	host, kernel, err := newHost(ctx, cfg, cfg.Asked("mode"), log)
	if err != nil {
		return err
	}
	defer kernel.close()
	emergency, err := listen(layout.Emergency())
	if err != nil {
		return err
	}
	// What keeps the privileged side alive, whether or not the other half is its own process.
	side, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { kernel.run(side) })
	wg.Go(func() { host.Watch(side) })
	wg.Go(func() { host.KeepScanner(side) })
	wg.Go(func() { host.KeepHeld(side) })
	wg.Go(func() { servePanic(side, emergency, host, log) })

	if split {
		confined := privileged.Confine()
		host.Note(confined)
		if !confined.OK {
			log.Warn("this half keeps rights it does not need", "err", confined.Detail)
		}
		kept, _ := store.(*identity.Kept)
		p := &parent{cfg: cfg, opt: opt, log: log, listener: listener, host: host, kernel: kernel, passphrase: passphrase, kept: kept, seed: seed, lock: held}
		return p.run(ctx)
	}
	kernel.protect(os.Getpid())
	sensor, err := kernel.sensor()
	if err != nil {
		return err
	}
	if c, ok := sensor.(io.Closer); ok {
		defer c.Close()
	}
	lines, err := kernel.logSensor()
	if err != nil {
		return err
	}
	defer lines.Close()
	return single(ctx, opt, log, Parts{
		Config: cfg, Version: opt.Version, Passphrase: passphrase, Store: store, Seed: seed, Service: host, Sensor: sensor, Logs: lines, Listener: listener, Log: log, Own: ownPaths(cfg),
	})
}

// single is a node that is one process: without root, or where it was told to be.
func single(ctx context.Context, opt UpOptions, log *slog.Logger, parts Parts) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts.Ready = func() {
		notify(log, "READY=1")
		if opt.Ready != nil {
			opt.Ready()
		}
	}
	n, err := New(parts)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	for signals := 0; ; {
		select {
		case err := <-done:
			notify(log, "STOPPING=1")
			return err
		case sig := <-opt.Signals:
			if signals++; signals > 1 {
				return ErrStopped
			}
			log.Info("draining; a second signal stops at once", "signal", sig)
			time.AfterFunc(lastLook, cancel)
		}
	}
}

// notify tells systemd; that it is not there is no fault of the node's.
func notify(log *slog.Logger, state string) {
	if err := privileged.Notify(state); err != nil {
		log.Warn("systemd was not told", "state", state, "err", err)
	}
}

// lock takes the state folder for this process; the kernel gives it back when the process ends, however it ends.
func lock(path string) (unlock func(), err error) {
	f, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// takeLock is lock for those who share it with a child: it is given back when both have ended.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state folder: %w", err)
	}
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			break
		}
		if errors.Is(err, syscall.EWOULDBLOCK) {
			if waited := time.Since(began); waited < killTime || waited < dyingTime && dying(f) {
				continue
			}
			err = fmt.Errorf("%s: %w", filepath.Dir(path), ErrLocked)
		} else {
			err = fmt.Errorf("lock the state folder: %w", err)
		}
		f.Close()
		return nil, err
	}
	if _, err := f.WriteAt(fmt.Appendf(nil, "%-20d\n", os.Getpid()), 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the state folder: %w", err)
	}
	return f, nil
}

// dyingTime bounds the wait for a node that was killed: the kernel takes seconds to let go of all that it had attached, and
// whoever starts it again does not wait for that.
const (
	killTime  = 200 * time.Millisecond // until a process that is killed shows it
	dyingTime = 20 * time.Second
)

// dying says whether the node whose process wrote itself into the lock's file is on its way out.
func dying(f *os.File) bool {
	b := make([]byte, 20)
	n, _ := f.ReadAt(b, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return false
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist) // gone since
	}
	// Behind the name, which may hold anything: the state, five numbers, and the task's flags (proc_pid_stat(5)).
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 7 {
		return false
	}
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	const exiting = 4 // PF_EXITING, include/linux/sched.h
	return err == nil && (flags&exiting != 0 || fields[0] == "Z" || fields[0] == "X")
}

// listen makes the API's socket, for its owner alone. The lock is held, so what lies there is left over.
func listen(path string) (*net.UnixListener, error) {
	if len(path) > 107 { // sun_path, unix(7)
		return nil, fmt.Errorf("the API's socket %s: the path is longer than the 107 bytes a socket may have; choose a shorter --dir", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the API's socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("the API's socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("the API's socket: %w", err)
	}
	return l, nil
}

func readPassphrase(path string) ([]byte, error) { return readLine("passphrase_file", path) }

// readLine reads the secret of a setting from its file: one line of 1 to 1024 bytes; nil where no file is named.
func readLine(setting, path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 1025))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	for len(raw) > 0 && (raw[len(raw)-1] == '\n' || raw[len(raw)-1] == '\r') {
		raw = raw[:len(raw)-1]
	}
	if len(raw) == 0 || len(raw) > 1024 {
		return nil, fmt.Errorf("%s: %s holds %d bytes, want 1 to 1024", setting, path, len(raw))
	}
	return raw, nil
}
