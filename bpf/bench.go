package bpf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// Benchmarks are this package's performance figures for `omega bench`: those of the sentinel's budget that are not the
// journal's or a node's have names that begin with sensor. All but those of decoding need root.
func Benchmarks() []event.Benchmark {
	type cost struct{ sensors, empty float64 }
	flow := sync.OnceValues(func() (c cost, err error) { c.sensors, c.empty, err = flowCost(); return c, err })
	type memory struct{ crowd, growth float64 }
	crowd := sync.OnceValues(func() (m memory, err error) { m.crowd, m.growth, err = crowdMemory(); return m, err })
	return []event.Benchmark{
		{Name: "bpf/decode", Unit: "us/event", Limit: 0.6, Measure: func() (float64, error) { return event.PerOperation(benchmarkDecode) / 1000, nil }},
		{Name: "bpf/reader", Unit: "us-cpu/event", Limit: 0.6, Measure: func() (float64, error) {
			s, err := Sustain(3*time.Second, offered, func(*event.Event) {})
			return s.Reader, err
		}},
		{Name: "bpf/sustained", Unit: "events/s", Limit: 150_000, HigherIsBetter: true, Measure: func() (float64, error) {
			s, err := Sustain(10*time.Second, offered, func(*event.Event) {})
			return s.Rate, err
		}},
		{Name: "bpf/idle", Unit: "% of a core", Limit: 1, Measure: idle},
		{Name: "bpf/process-life", Unit: "us-cpu", Limit: 8, Measure: processLife},
		{Name: "sensor/unwatched-call", Unit: "of its noise", Limit: 1, Measure: unwatchedCall},
		{Name: "sensor/process-life", Unit: "us-cpu", Limit: 7, Measure: processLife},
		{Name: "sensor/process-life/bpftrace", Unit: "ratio", Limit: 1, Measure: lifeBesideBpftrace},
		{Name: "sensor/process-life/sysdig", Unit: "ratio", Limit: 1, Measure: lifeBesideSysdig},
		{Name: "sensor/process-life/auditd", Unit: "ratio", Limit: 1, Measure: lifeBesideAuditd},
		{Name: "sensor/build", Unit: "% of its time", Limit: 1.5, Measure: buildTime},
		{Name: "sensor/flow", Unit: "us-cpu", Limit: 2.5, Measure: func() (float64, error) { c, err := flow(); return c.sensors, err }},
		{Name: "sensor/flow/empty-hooks", Unit: "us-cpu", Limit: 2.5, Measure: func() (float64, error) { c, err := flow(); return c.empty, err }},
		{Name: "sensor/flow/over-empty-hooks", Unit: "ratio", Limit: 2, Measure: func() (float64, error) {
			c, err := flow()
			if err == nil && c.empty <= 0 {
				err = fmt.Errorf("empty programs cost %.2f us: this machine is too busy to tell", c.empty)
			}
			return c.sensors / c.empty, err
		}},
		{Name: "sensor/flow/auditd", Unit: "ratio", Limit: 1, Measure: flowBesideAuditd},
		{Name: "sensor/allocations", Unit: "allocs/event", Measure: func() (float64, error) { return float64(testing.Benchmark(benchmarkDecode).AllocsPerOp()), nil }},
		{Name: "sensor/sustained", Unit: "events/s", Limit: 300_000, HigherIsBetter: true, Measure: func() (float64, error) {
			s, err := Sustain(30*time.Second, 310_000, func(*event.Event) {})
			return s.Rate, err
		}},
		{Name: "sensor/memory/50000-processes", Unit: "MiB", Limit: 60, Measure: func() (float64, error) { m, err := crowd(); return m.crowd, err }},
		{Name: "sensor/memory/growth-over-1000000", Unit: "MiB", Limit: 1, Measure: func() (float64, error) { m, err := crowd(); return m.growth, err }},
		{Name: "sensor/deny-exec", Unit: "of 1000", Limit: tries, HigherIsBetter: true, Measure: deniedStarts},
		{Name: "sensor/deny-connect", Unit: "of 1000", Limit: tries, HigherIsBetter: true, Measure: deniedConnections},
	}
}

func benchmarkDecode(b *testing.B) {
	words := make([]uint64, 32) // 256 bytes, aligned as the ring's are
	record := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), 256)
	binary.NativeEndian.PutUint16(record, recordExec)
	binary.NativeEndian.PutUint16(record[2:], 256)
	binary.NativeEndian.PutUint16(record[forkSize:], 40)
	binary.NativeEndian.PutUint16(record[forkSize+2:], uint16(256-execSize-40))
	tree := NewProcessTree()
	b.ReportAllocs()
	var e event.Event
	for b.Loop() {
		if err := decode(record, 0, &e); err != nil {
			b.Fatal(err)
		}
		tree.Observe(&e)
	}
}

// onHost loads the kernel half over a cgroup and a network namespace of its own, so that neither the machine's other
// work nor its interfaces are touched, and reads it on a thread of its own, whose CPU time is the reader's.
func onHost(f func(k *Kernel, s *RingSensor, cpu func() time.Duration) error) error {
	return onHostTo(func(*event.Event) {}, f)
}

// onHostTo is onHost with somebody who takes the events.
func onHostTo(out func(*event.Event), f func(k *Kernel, s *RingSensor, cpu func() time.Duration) error) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("it loads BPF programs, which needs root")
	}
	root, err := cgroupRoot()
	if err != nil {
		return err
	}
	cgroup, err := os.MkdirTemp(root, "omega-bpf-bench-")
	if err != nil {
		return fmt.Errorf("make a cgroup: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(cgroup)) }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var k *Kernel
	loaded := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here, and its namespace with the kernel half
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			loaded <- fmt.Errorf("make a network namespace: %w", err)
			return
		}
		var err error
		k, err = Load(ctx, Options{Cgroup: cgroup, Interfaces: []string{"lo"}})
		loaded <- err
	}()
	if err := <-loaded; err != nil {
		return err
	}
	defer k.Close()
	ring, err := k.Ring()
	if err != nil {
		return err
	}
	s, err := OpenRing(ring)
	if err != nil {
		return err
	}
	cpu, done := s.runHere(ctx, out)
	err = f(k, s, cpu)
	cancel()
	return errors.Join(err, <-done, s.Close())
}

// runHere runs the reader on a thread of its own, and gives that thread's processor time.
func (s *RingSensor) runHere(ctx context.Context, out func(*event.Event)) (cpu func() time.Duration, done <-chan error) {
	thread, ended := make(chan int, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		thread <- unix.Gettid()
		ended <- s.Run(ctx, out)
	}()
	tid := <-thread
	return func() time.Duration {
		var t unix.Timespec
		// The clock of another thread of this process: (~tid << 3) | CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED, as the kernel's posix-timers.h has it.
		if err := unix.ClockGettime(int32(^tid)<<3|6, &t); err != nil {
			return 0
		}
		return time.Duration(t.Nano())
	}, ended
}

// idle is what the reader costs while nothing happens.
func idle() (percent float64, err error) {
	err = onHost(func(_ *Kernel, _ *RingSensor, cpu func() time.Duration) error {
		time.Sleep(500 * time.Millisecond) // the first look fills the process tree
		used, began := cpu(), time.Now()
		time.Sleep(3 * time.Second)
		percent = 100 * float64(cpu()-used) / float64(time.Since(began))
		return nil
	})
	return percent, err
}

// processLife is what our programs add to one process's fork, exec and exit, by the kernel's own run-time statistics. The
// processes live on one processor: of one that is moved between two of them more than half is the caches'. The quietest twentieth
// of rounds of 20 processes is told.
func processLife() (microseconds float64, err error) {
	err = onHost(func(k *Kernel, _ *RingSensor, _ func() time.Duration) error {
		stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
		if err != nil {
			return fmt.Errorf("the kernel's run-time statistics: %w", err)
		}
		defer stats.Close()
		total := func() (t time.Duration, execs uint64, err error) {
			for _, c := range []*ebpf.Collection{k.process, k.execution} {
				if c == nil {
					continue
				}
				for name, p := range c.Programs {
					s, err := p.Stats()
					if err != nil {
						return 0, 0, err
					}
					t += s.Runtime
					if name == "on_exec" {
						execs = s.RunCount
					}
				}
			}
			return t, execs, nil
		}
		dir, err := os.Open(k.opt.Cgroup)
		if err != nil {
			return err
		}
		defer dir.Close()
		unpin, err := pinThread()
		if err != nil {
			return err
		}
		defer unpin()
		// The statistics are wall time, so that a round in which a program was preempted says nothing of it; and what else runs
		// makes it dearer, never cheaper.
		var rounds []float64
		for range 60 {
			t0, n0, err := total()
			if err != nil {
				return err
			}
			cmd := exec.Command("/bin/sh", "-c", "i=0; while [ $i -lt 20 ]; do /bin/true; i=$((i+1)); done")
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("make load: %w", err)
			}
			t1, n1, err := total()
			if err != nil {
				return err
			}
			if n1-n0 < 20 {
				return errors.New("not every exec was seen")
			}
			rounds = append(rounds, float64((t1-t0).Nanoseconds())/1000/float64(n1-n0))
		}
		microseconds = quietest(rounds)
		return nil
	})
	return microseconds, err
}
