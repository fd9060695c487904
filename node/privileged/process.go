package privileged

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/prometheus/procfs"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/bpf/executable"
	"github.com/omega-mesh/omega/bpf/workload"
	"github.com/omega-mesh/omega/swarm/event"
)

// Container implements Service.
func (h *Host) Container(ctx context.Context, id string) (workload.Description, error) {
	return h.runtimes.Describe(ctx, id)
}

// Digest implements Service.
func (h *Host) Digest(ctx context.Context, image executable.Image, weak bool) (executable.Sums, error) {
	f, err := image.Open()
	if err != nil {
		return executable.Sums{}, fmt.Errorf("the file of process %d: %w", image.PID, err)
	}
	defer f.Close()
	return h.hasher.Sum(ctx, f, weak)
}

// Process implements Service. A process that ends meanwhile gives what was read until then, or an error.
func (h *Host) Process(_ context.Context, pid uint32) (event.Process, error) {
	p, err := bpf.ReadProcess(pid)
	if err != nil {
		return p, fmt.Errorf("look up process %d: %w", pid, err)
	}
	if proc, err := procfs.NewProc(int(pid)); err == nil {
		if stat, err := proc.Stat(); err == nil {
			p.Session = uint32(stat.Session)
		}
		if status, err := proc.NewStatus(); err == nil {
			p.UID, p.EUID = uint32(status.UIDs[0]), uint32(status.UIDs[1])
			p.GID, p.EGID = uint32(status.GIDs[0]), uint32(status.GIDs[1])
		}
	}
	if exe, err := os.Readlink("/proc/" + strconv.FormatUint(uint64(p.Parent.PID), 10) + "/exe"); err == nil {
		p.ParentExe = exe
	}
	for _, s := range []*string{&p.Exe, &p.CWD, &p.Args, &p.Comm, &p.ParentExe} {
		*s = cut(*s)
	}
	return p, nil
}
