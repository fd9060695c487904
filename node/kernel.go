package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/bpf/logs"
	"github.com/omega-mesh/omega/bpf/procfs"
	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/node/privileged"
	"github.com/omega-mesh/omega/node/privileged/scanner"
	"github.com/omega-mesh/omega/roles/sentinel/integrity"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/guard"
	"github.com/omega-mesh/omega/trust/identity"
)

// procfsInterval is how often /proc is read where the kernel refuses eBPF.
const procfsInterval = 500 * time.Millisecond

// kernel is the kernel half of this node, or the lack of one.
type kernel struct {
	cfg  *config.Config
	half *bpf.Kernel // nil where there is none
	logs *logs.Follower
	log  *slog.Logger

	files   *integrity.Keeper // nil where no files are watched
	noFiles string            // why
}

// newHost loads the kernel half and puts the guard rails before it. A host that refuses eBPF is no error: what it lost
// is in the coverage.
func newHost(ctx context.Context, cfg *config.Config, resume bool, log *slog.Logger) (*privileged.Host, *kernel, error) {
	k := &kernel{cfg: cfg, log: log}
	checks, err := k.load(ctx)
	if err != nil {
		return nil, nil, err
	}
	if k.logs, err = logs.Follow(logPaths(cfg), log); err != nil {
		k.close()
		return nil, nil, err
	}
	if err := k.watchFiles(); err != nil {
		k.close()
		return nil, nil, err
	}
	inception, err := identity.ReadInception(Layout{cfg.Dir}.Identity())
	if err != nil {
		k.close()
		return nil, nil, err
	}
	opt := privileged.HostOptions{Self: string(inception.DID()), Rails: guard.New(), Mode: cfg.Mode, Resume: resume, Dir: cfg.Dir, Allow: cfg.Allow, Logs: k.logs, Checks: checks, Baseline: k.files, NoBaseline: k.noFiles, Log: log}
	if k.half != nil {
		opt.Kernel = k.half
	}
	if os.Geteuid() == 0 && cfg.Mode != config.ModeReadOnly { // a file is given back with its owner, which only root can
		opt.Keep, opt.Held = Layout{cfg.Dir}.Quarantine(), Layout{cfg.Dir}.Held()
	}
	if opt.Scanner, err = scanner.New(scanner.Options{Paths: cfg.YaraRules, Spawn: privileged.SpawnScanner(cfg.Dir), Log: log}); err != nil {
		k.close()
		return nil, nil, err
	}
	if s := opt.Scanner.Status(); s.Asked && s.Why != "" {
		log.Warn("YARA rules are not used", "why", s.Why)
	}
	h, err := privileged.NewHost(opt)
	if err != nil {
		k.close()
		return nil, nil, err
	}
	return h, k, nil
}

func (k *kernel) load(ctx context.Context) ([]privileged.Check, error) {
	const lost = "nothing can be refused, killed or contained here; findings still immunise the other hosts"
	switch {
	case k.cfg.Sensor == "procfs" || k.cfg.Sensor == "off" || k.cfg.Replay() != "":
		return []privileged.Check{{Name: "ebpf", Detail: "not asked for: sensor is " + k.cfg.Sensor, Lost: lost}}, nil
	case os.Geteuid() != 0:
		if k.cfg.Sensor == "kernel" {
			return nil, errors.New("sensor kernel needs root")
		}
		return []privileged.Check{{Name: "ebpf", Detail: "needs root", Lost: lost}}, nil
	}
	opt := bpf.Options{Cgroup: k.cfg.Cgroup, Interfaces: k.cfg.Interfaces}
	if opt.Watch = k.cfg.Mode == config.ModeReadOnly; !opt.Watch && k.cfg.Cgroup == "" && onBPFFS(PinDir(k.cfg.Dir)) {
		opt.PinDir = PinDir(k.cfg.Dir) // a whole host keeps its blocks over a restart; a testnet leaves nothing
	}
	half, err := bpf.Load(ctx, opt)
	if err != nil {
		if !errors.Is(err, bpf.ErrRefused) || k.cfg.Sensor == "kernel" {
			return nil, fmt.Errorf("load the kernel half: %w", err)
		}
		k.log.Warn("eBPF is refused here", "err", err)
		return []privileged.Check{{Name: "ebpf", Detail: err.Error(), Lost: lost}}, nil
	}
	if err := half.SetFilters(filters(k.cfg)); err != nil {
		half.Close()
		return nil, fmt.Errorf("filter_… in the configuration: %w", err)
	}
	k.half = half
	return nil, nil
}

// filters are what the configuration says is not to be told; it was validated.
func filters(cfg *config.Config) bpf.Filters {
	f := bpf.Filters{Cgroups: cfg.FilterCgroups, Paths: cfg.FilterPaths, CgroupRate: uint32(cfg.FilterRate)}
	for _, v := range cfg.FilterUIDs {
		if n, err := strconv.ParseUint(v, 10, 32); err == nil {
			f.UIDs = append(f.UIDs, uint32(n))
		}
	}
	return f
}

// onBPFFS says whether the folder that would hold dir is a BPF file system.
func onBPFFS(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(filepath.Dir(dir), &st) == nil && st.Type == unix.BPF_FS_MAGIC
}

// run keeps the kernel half in step with the host until ctx ends.
func (k *kernel) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := k.logs.Run(ctx); err != nil && ctx.Err() == nil {
			k.log.Error("logs are no longer followed", "err", err)
		}
	})
	if k.files != nil {
		wg.Go(func() {
			if err := k.files.Run(ctx); err != nil && ctx.Err() == nil {
				k.log.Error("the baseline of watched files is no longer kept", "err", err)
			}
		})
	}
	if k.half == nil {
		return
	}
	if err := k.half.Run(ctx); err != nil && ctx.Err() == nil {
		k.log.Error("the kernel half no longer follows the host", "err", err)
	}
}

// protect has the kernel tell what is done to the node's own processes, and not what they do.
func (k *kernel) protect(pids ...int) {
	if k.half == nil {
		return
	}
	own := make([]uint32, len(pids))
	for i, pid := range pids {
		own[i] = uint32(pid)
	}
	if err := k.half.SetProtected(own); err != nil {
		k.log.Warn("signals to this node are not told", "err", err)
	}
}

// ring is the descriptor to hand over; ok is false where there is no kernel half.
func (k *kernel) ring() (r bpf.RingFile, ok bool, err error) {
	if k.half == nil {
		return r, false, nil
	}
	r, err = k.half.Ring()
	return r, err == nil, err
}

// sensor is what a node that is one process sees through; nil where it sees nothing.
func (k *kernel) sensor() (bpf.Sensor, error) {
	r, ok, err := k.ring()
	switch {
	case err != nil:
		return nil, err
	case ok:
		return bpf.OpenRing(r)
	case k.cfg.Sensor == "off":
		return nil, nil
	case k.cfg.Replay() != "":
		f, err := k.recording()
		if err != nil {
			return nil, err
		}
		return bpf.NewRecording(f, k.cfg.ReplayInStep), nil
	}
	c, err := procfs.Subscribe()
	return procfs.New(procfs.Options{Interval: procfsInterval, Connector: c, Refused: err}), nil
}

// recording opens what is to be seen instead of this host.
func (k *kernel) recording() (*os.File, error) {
	f, err := os.Open(k.cfg.Replay())
	if err != nil {
		return nil, fmt.Errorf("the recording to replay: %w", err)
	}
	return f, nil
}

// logPaths are the logs that this node was told to follow. Those of a whole host say nothing of one cgroup.
func logPaths(cfg *config.Config) []string {
	switch {
	case slices.Equal(cfg.Logs, []string{"off"}), slices.Equal(cfg.Logs, []string{"auto"}) && (cfg.Cgroup != "" || os.Geteuid() != 0):
		return nil
	case slices.Equal(cfg.Logs, []string{"auto"}):
		return logs.Auto()
	}
	return cfg.Logs
}

// logSensor reads what the follower hands over.
func (k *kernel) logSensor() (*logs.Sensor, error) {
	r, err := k.logs.Reader()
	if err != nil {
		return nil, err
	}
	return logs.Open(r)
}

// connector is what the other half sees processes by where there is no ring; nil where it is not to be had, and why.
func (k *kernel) connector() (*procfs.Connector, error) {
	if k.cfg.Sensor == "off" {
		return nil, errors.New("sensor is off")
	}
	return procfs.Subscribe()
}

func (k *kernel) close() {
	if k.logs != nil {
		if err := k.logs.Close(); err != nil {
			k.log.Warn("the logs did not close cleanly", "err", err)
		}
	}
	if k.half == nil {
		return
	}
	if err := k.half.Close(); err != nil {
		k.log.Warn("the kernel half did not close cleanly", "err", err)
	}
}

// inheritSensor is what the unprivileged half sees through: what the other half handed over, and its help with processes
// that are not this user's.
func inheritSensor(cfg *config.Config, start *privileged.Start, lookup func(context.Context, uint32) (event.Process, error)) (bpf.Sensor, error) {
	switch {
	case start.RingBytes > 0:
		return bpf.OpenRing(bpf.RingFile{File: os.NewFile(fdSensor, "ring"), Bytes: start.RingBytes})
	case cfg.Sensor == "off":
		return nil, nil
	case cfg.Replay() != "":
		return bpf.NewRecording(os.NewFile(fdSensor, "recording"), cfg.ReplayInStep), nil
	}
	opt := procfs.Options{Interval: procfsInterval, Lookup: lookup}
	if start.Connector == "" {
		opt.Connector = &procfs.Connector{File: os.NewFile(fdSensor, "proc connector")}
	} else {
		opt.Refused = errors.New(start.Connector)
	}
	return procfs.New(opt), nil
}
