package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// tracepoints attaches programs to single system calls. It reads their numbers from tracefs: from the host's, or, where
// nobody mounted one, from a mount of its own that no other process sees and that ends with it.
type tracepoints struct {
	dir   string // …/events/syscalls
	mount *os.File
}

// openTracepoints finds tracefs. The caller closes it.
func openTracepoints() (*tracepoints, error) {
	var st unix.Statfs_t
	for _, dir := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		if unix.Statfs(dir, &st) == nil && st.Type == unix.TRACEFS_MAGIC {
			return &tracepoints{dir: filepath.Join(dir, "events/syscalls")}, nil
		}
	}
	fs, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("tracefs is not mounted at /sys/kernel/tracing, and cannot be opened: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("open tracefs: %w", err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, fmt.Errorf("open tracefs: %w", err)
	}
	return &tracepoints{dir: "/proc/self/fd/" + strconv.Itoa(mount) + "/events/syscalls", mount: os.NewFile(uintptr(mount), "tracefs")}, nil
}

func (t *tracepoints) close() error {
	if t.mount == nil {
		return nil
	}
	return t.mount.Close()
}

// errNoTracepoint says that this kernel has no such system call, or does not trace any.
var errNoTracepoint = errors.New("this kernel has no such tracepoint")

// attach puts program at sys_enter_NAME or sys_exit_NAME. It asks for a link, which Linux 5.15 and later give.
func (t *tracepoints) attach(event string, program *ebpf.Program) (link.Link, error) {
	b, err := readBounded(filepath.Join(t.dir, event, "id"), 32)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", event, errNoTracepoint)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", event, err)
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%s: number of the tracepoint: %w", event, err)
	}
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Sample_type: unix.PERF_SAMPLE_RAW, Sample: 1, Wakeup: 1}
	fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("%s: open the tracepoint: %w", event, err)
	}
	defer unix.Close(fd) // the link holds the event
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: fd, Program: program, Attach: ebpf.AttachPerfEvent})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", event, err)
	}
	return l, nil
}
