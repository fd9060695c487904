package procfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/swarm/event"
)

// Bounds of a sensor.
const (
	maxProcesses = 65536
	// resync is how often /proc is read through where the proc connector tells of processes: for what it lost.
	resync = 10 * time.Second
	// maxTold is how many written programs are told of a second; the others are remembered all the same.
	maxTold = 100
)

// Options of a sensor; the zero value looks at /proc alone, and asks nobody.
type Options struct {
	// Interval is how often /proc and the sockets are looked at; at least 50 ms.
	Interval time.Duration
	// Connector tells of processes; nil where there is none, and then Refused says why. The sensor closes it.
	Connector *Connector
	Refused   error
	// Lookup reads one process with more rights than this one has; nil where there is nobody to ask. It may block.
	Lookup func(ctx context.Context, pid uint32) (event.Process, error)
}

// Sensor implements bpf.Sensor. Its events are of Sensor "procfs"; a process that was gone before it could be looked at
// has no path.
type Sensor struct {
	opt       Options
	connector atomic.Pointer[Connector] // nil where, or once, there is none
	refused   atomic.Pointer[string]    // why
	watch     *watcher                  // nil where inotify is refused
	unwatched error

	known   map[uint32]process
	through time.Time // when /proc was last read through; zero before the first time
	flows   map[flowKey]bool
	primed  bool
	buf     []byte
	told    uint64 // written programs in the second that began at since
	since   uint64

	lost struct {
		unreadable, tableFull, gone, overflow, malformed, untold atomic.Uint64
	}
}

// process is one that lives, and when (CLOCK_MONOTONIC) it was looked at.
type process struct {
	event.Process
	at uint64
}

// New makes a sensor that watches from now on; Close ends it.
func New(opt Options) *Sensor {
	opt.Interval = max(opt.Interval, 50*time.Millisecond)
	s := &Sensor{opt: opt, known: map[uint32]process{}, flows: map[flowKey]bool{}, buf: make([]byte, maxDatagram)}
	s.connector.Store(opt.Connector)
	why := "not asked for"
	if opt.Refused != nil {
		why = opt.Refused.Error()
	}
	s.refused.Store(&why)
	s.watch, s.unwatched = newWatcher(standardFolders())
	return s
}

// Close gives back what New took. Run must have ended.
func (s *Sensor) Close() error {
	if s.watch != nil {
		s.watch.close()
	}
	if c := s.connector.Swap(nil); c != nil {
		return c.File.Close()
	}
	return nil
}

// Name implements bpf.Sensor.
func (s *Sensor) Name() string { return "procfs" }

// Drops implements bpf.Sensor: what could not be read; processes and connections beyond what is remembered; processes gone
// before they could be looked at; how often the kernel's queues were full; written programs not told of.
func (s *Sensor) Drops() map[string]uint64 {
	d := map[string]uint64{
		"unreadable": s.lost.unreadable.Load(), "table_full": s.lost.tableFull.Load(), "gone": s.lost.gone.Load(),
		"connector_overflow": s.lost.overflow.Load(), "malformed": s.lost.malformed.Load(), "written_untold": s.lost.untold.Load(),
	}
	if s.watch != nil {
		d["inotify_overflow"], d["unwatched"] = s.watch.overflows.Load(), s.watch.unwatched.Load()
	}
	return d
}

// Coverage says which way this sensor took, and what is lost by it: no line is whole, as the kernel's own sensor would be.
func (s *Sensor) Coverage() []bpf.Check {
	processes := bpf.Check{Name: "sensor/process"}
	if s.connector.Load() != nil {
		processes.Detail = fmt.Sprintf("proc connector, /proc read through every %s", resync)
		processes.Lost = "what a process ran that was gone before it could be looked at"
		if n := s.lost.gone.Load(); n > 0 {
			processes.Lost += fmt.Sprintf(" (%d until now)", n)
		}
		if n := s.lost.overflow.Load(); n > 0 {
			processes.Lost += fmt.Sprintf("; its queue was full %d times", n)
		}
	} else {
		processes.Detail = fmt.Sprintf("/proc every %s; no proc connector: %s", s.opt.Interval, *s.refused.Load())
		processes.Lost = "processes that live shorter than that; who forked whom in between"
	}
	if os.Geteuid() != 0 && s.opt.Lookup == nil {
		processes.Lost += "; paths and descriptors of other users' processes"
	}
	files := bpf.Check{Name: "sensor/written", Lost: "files written elsewhere are known only by their change time"}
	if s.watch == nil {
		files.Detail, files.Lost = s.unwatched.Error(), "files just written are known only by their change time"
	} else {
		files.Detail = fmt.Sprintf("inotify on %d folders: those everyone may write, and those of programs", s.watch.watching.Load())
		if n := s.watch.unwatched.Load(); n > 0 {
			files.Lost += fmt.Sprintf("; %d folders are beyond what is watched", n)
		}
		if n := s.watch.overflows.Load(); n > 0 {
			files.Lost += fmt.Sprintf("; its queue was full %d times", n)
		}
	}
	const refused = "eBPF is refused to this process, or was not asked for"
	return []bpf.Check{
		processes, files,
		{Name: "sensor/network", Detail: fmt.Sprintf("sock_diag every %s", s.opt.Interval), Lost: "connections shorter than that, refused ones, byte counts, whose they are"},
		{Name: "actuator/deny-address", Detail: refused, Lost: "no address can be refused and no host contained"},
		{Name: "actuator/deny-exec", Detail: refused, Lost: "no execution can be denied"},
	}
}

// Run implements bpf.Sensor. All that waits does so in the kernel's own bounded queues.
func (s *Sensor) Run(ctx context.Context, out func(*event.Event)) error {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("procfs sensor: %w", err)
	}
	defer unix.Close(wake)
	rung := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(rung)
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // what can fail here is a counter at its end: awake too
	})
	defer func() {
		if !stop() {
			<-rung
		}
	}()

	var looked time.Time
	for ctx.Err() == nil {
		c := s.connector.Load()
		if c != nil {
			s.hear(ctx, c, out)
		}
		s.files(out)
		now := time.Now()
		if since := now.Sub(s.through); c == nil && since >= s.opt.Interval || since >= resync {
			s.look(ctx, out)
		}
		if now.Sub(looked) >= s.opt.Interval {
			s.connections(now.UnixNano(), bpf.BootTime(), out)
			looked, s.primed = now, true
		}
		fds := []unix.PollFd{{Fd: int32(wake), Events: unix.POLLIN}}
		if c != nil {
			fds = append(fds, unix.PollFd{Fd: int32(c.File.Fd()), Events: unix.POLLIN})
		}
		if s.watch != nil {
			fds = append(fds, unix.PollFd{Fd: int32(s.watch.fd), Events: unix.POLLIN})
		}
		left := max(0, time.Until(looked.Add(s.opt.Interval)))
		if _, err := unix.Poll(fds, int(left/time.Millisecond)+1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("procfs sensor: %w", err)
		}
	}
	return nil
}

// hear takes what the proc connector has to tell, some at a time. A loss has /proc read through at once.
func (s *Sensor) hear(ctx context.Context, c *Connector, out func(*event.Event)) {
	for range 256 {
		m, err := receive(int(c.File.Fd()), s.buf)
		switch {
		case err == nil:
			if !s.through.IsZero() { // what came before the first look is part of it
				s.tell(ctx, m, out)
			}
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			return
		case errors.Is(err, unix.ENOBUFS):
			s.lost.overflow.Add(1)
			if !s.through.IsZero() {
				s.through = time.Now().Add(-resync)
			}
		case errors.Is(err, errMessage):
			s.lost.malformed.Add(1)
		default:
			why := "it ended: " + err.Error()
			s.refused.Store(&why)
			s.connector.Store(nil)
			c.File.Close()
			return
		}
	}
}

// tell makes an event of a message.
func (s *Sensor) tell(ctx context.Context, m message, out func(*event.Event)) {
	if m.thread != m.pid {
		return
	}
	old, known := s.known[m.pid]
	e := event.Event{Class: event.ClassProcess, Time: time.Now().UnixNano(), Boot: bpf.BootTime(), Sensor: "procfs"}
	switch m.what {
	case whatFork:
		if known && old.at > m.at {
			return // looked at since: told of then
		}
		parent := s.known[m.parent]
		child := process{parent.Process, m.at}
		child.Parent, child.ParentExe = parent.Key, parent.Exe
		child.Parent.PID, child.Key = m.parent, event.ProcessKey{PID: m.pid}
		child.Flags |= event.FlagFromProcfs
		if start, err := bpf.ProcessStart(m.pid); err == nil {
			child.Key.Start = start
		}
		if !s.keep(child) {
			return
		}
		e.Activity, e.Process = event.ActivityFork, child.Process
	case whatExec:
		p, err := s.read(ctx, m.pid)
		if err == nil && known && old.at > m.at && p.Key == old.Key && p.Inode == old.Inode && p.Exe == old.Exe && p.Args == old.Args {
			return // looked at since: told of then
		}
		if err != nil {
			// It came and went. What it ran is not known; that it did, and whose child it was, is.
			s.lost.gone.Add(1)
			p = event.Process{Key: event.ProcessKey{PID: m.pid, Start: old.Key.Start}, Parent: old.Parent, ParentExe: old.ParentExe,
				UID: old.UID, GID: old.GID, EUID: old.EUID, EGID: old.EGID, Flags: event.FlagFromProcfs}
		}
		s.keep(process{p, monotonic()})
		e.Activity, e.Process = event.ActivityExec, p
	case whatExit:
		if !known {
			return
		}
		delete(s.known, m.pid)
		e.Activity, e.Process = event.ActivityExit, old.Process
		e.Process.ExitCode = int32(m.code)
	default:
		return
	}
	out(&e)
}

// keep remembers a process, and says whether there was room.
func (s *Sensor) keep(p process) bool {
	if _, known := s.known[p.Key.PID]; !known && len(s.known) >= maxProcesses {
		s.lost.tableFull.Add(1)
		return false
	}
	s.known[p.Key.PID] = p
	return true
}

// read looks at one process, asking for help where this user sees too little.
func (s *Sensor) read(ctx context.Context, pid uint32) (event.Process, error) {
	p, err := bpf.ReadProcess(pid)
	if err != nil {
		return p, err
	}
	s.complete(ctx, &p)
	return p, nil
}

// complete adds to p what is known from elsewhere. Kernel threads have no arguments, and nothing to add.
func (s *Sensor) complete(ctx context.Context, p *event.Process) {
	if p.Exe == "" && p.Args != "" && s.opt.Lookup != nil {
		if more, err := s.opt.Lookup(ctx, p.Key.PID); err == nil && more.Key == p.Key {
			*p = more
		}
	}
	p.ParentExe = s.known[p.Parent.PID].Exe
	if s.watch == nil {
		return
	}
	if p.Exe == "" {
		// Its path is closed to this user. What it was called by may lie, but not of a file that was just put there.
		if called, _, _ := strings.Cut(p.Args, "\x00"); s.watch.justWritten(called) {
			p.Exe = called
		}
	}
	if p.Exe != "" && s.watch.justWritten(p.Exe) {
		p.Flags |= event.FlagJustWritten
	}
}

// files takes what inotify has to tell, and tells of programs among it.
func (s *Sensor) files(out func(*event.Event)) {
	if s.watch == nil {
		return
	}
	err := s.watch.read(func(f writtenFile) {
		if f.stat.Mode&0o111 == 0 {
			return
		}
		boot := bpf.BootTime()
		if boot-s.since > uint64(time.Second) {
			s.since, s.told = boot, 0
		}
		if s.told++; s.told > maxTold {
			s.lost.untold.Add(1)
			return
		}
		out(&event.Event{Class: event.ClassFile, Activity: event.ActivityFileWrite, Time: time.Now().UnixNano(), Boot: boot, Sensor: "procfs",
			File: event.File{Path: f.path, Inode: f.stat.Ino, Device: uint64(unix.Major(f.stat.Dev))<<20 | uint64(unix.Minor(f.stat.Dev)), Mode: f.stat.Mode}})
	})
	if err != nil {
		s.lost.malformed.Add(1)
	}
}

// look reads /proc through: what lives, and what no longer does.
func (s *Sensor) look(ctx context.Context, out func(*event.Event)) {
	at, now, boot := monotonic(), time.Now().UnixNano(), bpf.BootTime()
	first := s.through.IsZero()
	s.through = time.Now()
	here := make(map[uint32]bool, len(s.known))
	bpf.EachProcess(func(p *event.Process) {
		here[p.Key.PID] = true
		old, known := s.known[p.Key.PID]
		if known && old.Key == p.Key && (p.Exe == "" && old.Args == p.Args || old.Exe == p.Exe && old.Inode == p.Inode) {
			return
		}
		s.complete(ctx, p)
		if known && old.Key == p.Key && old.Exe == p.Exe && old.Inode == p.Inode {
			return
		}
		if !s.keep(process{*p, monotonic()}) || first {
			return
		}
		out(&event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Time: now, Boot: boot, Sensor: "procfs", Process: *p})
	})
	for pid, p := range s.known {
		if here[pid] || p.at > at {
			continue
		}
		delete(s.known, pid)
		out(&event.Event{Class: event.ClassProcess, Activity: event.ActivityExit, Time: now, Boot: boot, Sensor: "procfs", Process: p.Process})
	}
}

// monotonic is the clock of the proc connector's messages, in nanoseconds.
func monotonic() uint64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return uint64(t.Nano())
}
