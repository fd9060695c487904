package bpf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// Benchmarks are this package's performance figures for `omega bench`. All but the first need root.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{
		{Name: "bpf/decode", Unit: "us/event", Limit: 0.6, Measure: func() (float64, error) { return event.PerOperation(benchmarkDecode) / 1000, nil }},
		{Name: "bpf/reader", Unit: "us-cpu/event", Limit: 0.6, Measure: func() (float64, error) { _, cpu, err := sustain(3 * time.Second); return cpu, err }},
		{Name: "bpf/sustained", Unit: "events/s", Limit: 150_000, HigherIsBetter: true, Measure: func() (float64, error) { rate, _, err := sustain(10 * time.Second); return rate, err }},
		{Name: "bpf/idle", Unit: "% of a core", Limit: 1, Measure: idle},
		{Name: "bpf/process-life", Unit: "us-cpu", Limit: 8, Measure: processLife},
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

// onHost loads the kernel half over the whole host and reads it in a goroutine locked to a thread of its own, whose CPU
// time is the reader's.
func onHost(f func(k *Kernel, s *RingSensor, cpu func() time.Duration) error) error {
	if os.Geteuid() != 0 {
		return errors.New("it loads BPF programs, which needs root")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	k, err := Load(ctx, Options{Interfaces: []string{"lo"}})
	if err != nil {
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
	thread, done := make(chan int, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		thread <- unix.Gettid()
		done <- s.Run(ctx, func(*event.Event) {})
	}()
	tid := <-thread
	cpu := func() time.Duration {
		var t unix.Timespec
		// The clock of another thread of this process: (~tid << 3) | CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED, as the kernel's posix-timers.h has it.
		if err := unix.ClockGettime(int32(^tid)<<3|6, &t); err != nil {
			return 0
		}
		return time.Duration(t.Nano())
	}
	err = f(k, s, cpu)
	cancel()
	return errors.Join(err, <-done, s.Close())
}

// sustain makes records as fast as two threads can for d, and says how many a second came through and what each cost the
// reader. A record that was lost is an error.
func sustain(d time.Duration) (rate, microseconds float64, err error) {
	err = onHost(func(k *Kernel, s *RingSensor, cpu func() time.Duration) error {
		before, err := lost(k)
		if err != nil {
			return err
		}
		seen, used, began := s.Seen(), cpu(), time.Now()
		// A connection to a closed port on loopback: two records each, nobody is bothered.
		to := unix.SockaddrInet4{Port: 1, Addr: netip.MustParseAddr("127.0.0.1").As4()}
		load := func() error {
			for time.Since(began) < d {
				for range 100 {
					fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
					if err != nil {
						return fmt.Errorf("make load: %w", err)
					}
					_ = unix.Connect(fd, &to) // refused, as meant
					unix.Close(fd)
				}
			}
			return nil
		}
		other := make(chan error, 1)
		go func() { other <- load() }()
		if err := errors.Join(load(), <-other); err != nil {
			return err
		}
		took := time.Since(began)
		time.Sleep(2 * pollIdle) // the last ones are still in the ring
		n := s.Seen() - seen
		after, err := lost(k)
		if err != nil {
			return err
		}
		if after != before {
			return fmt.Errorf("%d records were lost of %d", after-before, n)
		}
		rate, microseconds = float64(n)/took.Seconds(), float64((cpu()-used).Nanoseconds())/1000/float64(n)
		return nil
	})
	return rate, microseconds, err
}

func lost(k *Kernel) (n uint64, err error) {
	drops, err := k.Drops()
	for _, d := range drops {
		n += d
	}
	return n, err
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

// processLife is what our programs add to one process's fork, exec and exit, by the kernel's own run-time statistics.
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
		t0, n0, err := total()
		if err != nil {
			return err
		}
		for range 300 {
			if err := exec.Command("/bin/true").Run(); err != nil {
				return fmt.Errorf("make load: %w", err)
			}
		}
		t1, n1, err := total()
		if err != nil {
			return err
		}
		if n1 == n0 {
			return errors.New("no exec was seen")
		}
		microseconds = float64((t1 - t0).Nanoseconds()) / 1000 / float64(n1-n0)
		return nil
	})
	return microseconds, err
}
