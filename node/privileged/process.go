package privileged

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/prometheus/procfs"

	"github.com/omega-mesh/omega/swarm/event"
)

// clockTick is USER_HZ, 100 on every architecture Linux runs Go on.
const clockTick = 100

// Process implements Service. A process that ends meanwhile gives what was read until then, or an error.
func (h *Host) Process(_ context.Context, pid uint32) (event.Process, error) {
	var p event.Process
	fs, err := procfs.NewFS("/proc")
	if err != nil {
		return p, fmt.Errorf("look up process %d: %w", pid, err)
	}
	proc, err := fs.Proc(int(pid))
	if err != nil {
		return p, fmt.Errorf("look up process %d: %w", pid, err)
	}
	stat, err := proc.Stat()
	if err != nil {
		return p, fmt.Errorf("look up process %d: %w", pid, err)
	}
	p.Key = event.ProcessKey{PID: pid, Start: stat.Starttime * (1e9 / clockTick)}
	p.Parent.PID = uint32(stat.PPID)
	p.Comm, p.Session, p.Flags = stat.Comm, uint32(stat.Session), event.FlagFromProcfs
	if status, err := proc.NewStatus(); err == nil {
		p.UID, p.EUID = uint32(status.UIDs[0]), uint32(status.UIDs[1])
		p.GID, p.EGID = uint32(status.GIDs[0]), uint32(status.GIDs[1])
	}
	dir := "/proc/" + strconv.FormatUint(uint64(pid), 10)
	if exe, err := os.Readlink(dir + "/exe"); err == nil {
		p.Exe = strings.TrimSuffix(exe, " (deleted)")
		if p.Exe != exe {
			p.Flags |= event.FlagDeleted
		}
	}
	if info, err := os.Stat(dir + "/exe"); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			p.Inode, p.Device = st.Ino, st.Dev
		}
	}
	p.CWD, _ = os.Readlink(dir + "/cwd")
	if args, err := proc.CmdLine(); err == nil {
		p.Args = strings.Join(args, "\x00")
		if len(p.Args) > MaxArguments {
			p.Args, p.Flags = p.Args[:MaxArguments], p.Flags|event.FlagArgsTruncated
		}
	}
	if exe, err := os.Readlink("/proc/" + strconv.Itoa(stat.PPID) + "/exe"); err == nil {
		p.ParentExe = exe
	}
	for _, s := range []*string{&p.Exe, &p.CWD, &p.Args, &p.Comm, &p.ParentExe} {
		*s = cut(*s)
	}
	return p, nil
}
