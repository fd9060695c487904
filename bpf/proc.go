package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// clockTick is what /proc counts process starts in: USER_HZ is 100 on every Linux architecture Go runs on.
const clockTick = 10 * time.Millisecond

// EachProcess reads every process /proc shows, as ReadProcess does.
func EachProcess(f func(*event.Process)) {
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
		if p, err := ReadProcess(uint32(pid)); err == nil {
			f(&p)
		}
	}
}

// ReadProcess reads one process from /proc (proc(5)). What it does not let this user read is left empty: of another user's
// process these are path, working folder and descriptors. It may be gone at any moment, which is an error only where not
// even its stat line was left.
func ReadProcess(pid uint32) (event.Process, error) {
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
		writable := st.Mode&unix.S_IWOTH != 0 || unix.Stat(dir+"/root"+filepath.Dir(p.Exe), &st) == nil && st.Mode&unix.S_IWOTH != 0
		if writable && p.Flags&event.FlagMemfd == 0 {
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

// ProcessStart is when a process started: CLOCK_BOOTTIME in nanoseconds, to a hundredth of a second.
func ProcessStart(pid uint32) (uint64, error) {
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
