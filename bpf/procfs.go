package bpf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// clockTick is what /proc counts process starts in: USER_HZ is 100 on every Linux architecture Go runs on.
const clockTick = 10 * time.Millisecond

// ProcfsSensor sees by reading /proc: for hosts that refuse eBPF. It sees what lives longer than its interval: processes
// that come and go, and TCP connections of its network namespace. What it loses is in Procfs.Coverage.
type ProcfsSensor struct {
	interval time.Duration
	known    map[uint32]event.Process
	flows    map[flowKey]bool
	primed   bool
	errors   atomic.Uint64
	over     atomic.Uint64
}

type flowKey struct {
	local, remote netip.AddrPort
}

const maxFlows = 65536

// NewProcfs makes a sensor that looks every interval, at least 50 ms.
func NewProcfs(interval time.Duration) *ProcfsSensor {
	return &ProcfsSensor{interval: max(interval, 50*time.Millisecond), known: map[uint32]event.Process{}, flows: map[flowKey]bool{}}
}

// Name implements Sensor.
func (s *ProcfsSensor) Name() string { return "procfs" }

// Drops implements Sensor.
func (s *ProcfsSensor) Drops() map[string]uint64 {
	return map[string]uint64{"unreadable": s.errors.Load(), "table_full": s.over.Load()}
}

// Coverage says what this way of seeing can and cannot do.
func (s *ProcfsSensor) Coverage() []Check {
	return []Check{
		{Name: "sensor/process", OK: true, Detail: fmt.Sprintf("procfs, every %s", s.interval), Lost: "processes that live shorter than that; who forked whom in between"},
		{Name: "sensor/network", OK: true, Detail: fmt.Sprintf("procfs, every %s", s.interval), Lost: "connections shorter than that, refused ones, byte counts"},
		{Name: "actuator/deny-address", Detail: "eBPF is refused to this process", Lost: "no address can be refused and no host contained"},
		{Name: "actuator/deny-exec", Detail: "eBPF is refused to this process", Lost: "no execution can be denied"},
	}
}

// Run implements Sensor.
func (s *ProcfsSensor) Run(ctx context.Context, out func(*event.Event)) error {
	tick := time.NewTicker(s.interval)
	defer tick.Stop()
	for {
		s.look(out)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *ProcfsSensor) look(out func(*event.Event)) {
	now, boot := time.Now().UnixNano(), BootTime()
	here := make(map[uint32]bool, len(s.known))
	eachProcess(func(p *event.Process) {
		here[p.Key.PID] = true
		old, known := s.known[p.Key.PID]
		if known && old.Key == p.Key && old.Inode == p.Inode && old.Exe == p.Exe {
			return
		}
		if !known && len(s.known) >= maxProcesses {
			s.over.Add(1)
			return
		}
		p.ParentExe = s.known[p.Parent.PID].Exe
		s.known[p.Key.PID] = *p
		if s.primed {
			out(&event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Time: now, Boot: boot, Sensor: "procfs", Process: *p})
		}
	})
	for pid, p := range s.known {
		if here[pid] {
			continue
		}
		delete(s.known, pid)
		out(&event.Event{Class: event.ClassProcess, Activity: event.ActivityExit, Time: now, Boot: boot, Sensor: "procfs", Process: p})
	}
	s.connections(now, boot, out)
	s.primed = true
}

// TCP states, as the kernel numbers them.
const (
	tcpEstablished = 1
	tcpListen      = 10
)

func (s *ProcfsSensor) connections(now int64, boot uint64, out func(*event.Event)) {
	listening := map[uint16]bool{}
	here := map[flowKey]bool{}
	var fresh []flowKey
	for _, family := range [...]uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := netlink.SocketDiagTCP(family) // sock_diag(7), which any user may ask
		if err != nil {
			s.errors.Add(1)
			continue
		}
		for _, l := range sockets {
			local, ok1 := netip.AddrFromSlice(l.ID.Source)
			remote, ok2 := netip.AddrFromSlice(l.ID.Destination)
			if !ok1 || !ok2 {
				s.errors.Add(1)
				continue
			}
			if l.State == tcpListen {
				listening[l.ID.SourcePort] = true
			}
			if l.State != tcpEstablished {
				continue
			}
			key := flowKey{netip.AddrPortFrom(local.Unmap(), l.ID.SourcePort), netip.AddrPortFrom(remote.Unmap(), l.ID.DestinationPort)}
			here[key] = true
			if s.flows[key] {
				continue
			}
			if len(s.flows) >= maxFlows {
				s.over.Add(1)
				continue
			}
			s.flows[key] = true
			fresh = append(fresh, key)
		}
	}
	report := func(key flowKey, activity event.Activity, inbound bool) {
		out(&event.Event{Class: event.ClassNetwork, Activity: activity, Time: now, Boot: boot, Sensor: "procfs",
			Network: event.Network{Protocol: unix.IPPROTO_TCP, Local: key.local, Remote: key.remote, Inbound: inbound}})
	}
	for _, key := range fresh {
		if !s.primed {
			continue
		}
		if listening[key.local.Port()] {
			report(key, event.ActivityAccept, true)
		} else {
			report(key, event.ActivityConnect, false)
		}
	}
	for key := range s.flows {
		if !here[key] {
			delete(s.flows, key)
			report(key, event.ActivityClose, listening[key.local.Port()])
		}
	}
}

// eachProcess reads every process /proc shows. What a process does not let this user read is left empty.
func eachProcess(f func(*event.Process)) {
	dir, err := os.Open("/proc")
	if err != nil {
		return
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return
	}
	for _, name := range names {
		pid, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			continue
		}
		if p, err := readProcess(uint32(pid)); err == nil {
			f(&p)
		}
	}
}

// readProcess reads one process; it may be gone at any moment.
func readProcess(pid uint32) (event.Process, error) {
	p := event.Process{Key: event.ProcessKey{PID: pid}, Flags: event.FlagFromProcfs}
	dir := "/proc/" + strconv.FormatUint(uint64(pid), 10)
	stat, err := readStat(dir)
	if err != nil {
		return p, err
	}
	p.Key.Start, p.Parent.PID, p.Comm = stat.start, stat.parent, stat.comm
	if args, err := readBounded(dir+"/cmdline", maxArgs+1); err == nil {
		if len(args) > maxArgs {
			args = args[:maxArgs]
			p.Flags |= event.FlagArgsTruncated
		}
		p.Args = strings.TrimRight(string(args), "\x00")
	}
	if exe, err := os.Readlink(dir + "/exe"); err == nil {
		p.Exe = strings.TrimSuffix(exe, " (deleted)")
		if strings.HasPrefix(exe, "/memfd:") {
			p.Flags |= event.FlagMemfd
		} else if p.Exe != exe {
			p.Flags |= event.FlagDeleted
		}
	}
	p.CWD, _ = os.Readlink(dir + "/cwd") // another user's is not shown
	var st unix.Stat_t
	if err := unix.Stat(dir+"/exe", &st); err == nil {
		p.Inode, p.Device = st.Ino, uint64(unix.Major(st.Dev))<<20|uint64(unix.Minor(st.Dev))
		if age := time.Since(time.Unix(st.Ctim.Unix())); age >= 0 && age < JustWritten {
			p.Flags |= event.FlagJustWritten
		}
		if st.Mode&unix.S_IWOTH != 0 {
			p.Flags |= event.FlagWorldWritable
		}
	}
	if err := unix.Stat(dir, &st); err == nil {
		p.UID, p.GID, p.EUID, p.EGID = st.Uid, st.Gid, st.Uid, st.Gid
	}
	for fd, flag := range [...]event.ProcessFlag{event.FlagStdinSocket, event.FlagStdoutSocket, event.FlagStderrSocket} {
		if to, err := os.Readlink(dir + "/fd/" + strconv.Itoa(fd)); err == nil && strings.HasPrefix(to, "socket:") {
			p.Flags |= flag
		}
	}
	return p, nil
}

// maxArgs is how much of a command line is kept, as event.Process has it. A process may have megabytes of it.
const maxArgs = 4096

// readBounded reads at most limit bytes of a file.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

type procStat struct {
	comm   string
	state  byte
	parent uint32
	start  uint64 // CLOCK_BOOTTIME, ns, to a hundredth of a second
}

// readStat reads a process's stat line (proc(5)); the name in it may hold any byte, so fields are counted from its last ')'.
func readStat(dir string) (procStat, error) {
	var s procStat
	b, err := readBounded(dir+"/stat", 4096)
	if err != nil {
		return s, err
	}
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return s, errors.New("a stat line without a name")
	}
	s.comm = string(b[open+1 : end])
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) < 20 {
		return s, errors.New("a stat line cut short")
	}
	parent, err1 := strconv.ParseUint(fields[1], 10, 32)
	ticks, err2 := strconv.ParseUint(fields[19], 10, 64)
	s.state, s.parent, s.start = fields[0][0], uint32(parent), ticks*uint64(clockTick)
	return s, errors.Join(err1, err2)
}

// processStart is when a process started, to a hundredth of a second.
func processStart(pid uint32) (uint64, error) {
	s, err := readStat("/proc/" + strconv.FormatUint(uint64(pid), 10))
	return s.start, err
}

// liveProcesses reads the stat line of each live process; zombies are dead.
func liveProcesses() (map[uint32]procStat, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	live := make(map[uint32]procStat, len(names))
	for _, name := range names {
		pid, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			continue
		}
		if s, err := readStat("/proc/" + name); err == nil && s.state != 'Z' && s.state != 'X' {
			live[uint32(pid)] = s
		}
	}
	return live, nil
}
