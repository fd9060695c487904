package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// offered is what the reader's budget speaks of, a second, and some.
const offered = 160_000

// Sustained is how a load of records was borne.
type Sustained struct {
	Rate    float64 // records that were read, a second
	Reader  float64 // processor time of the reader's thread for each, microseconds
	Process float64 // of this whole process but for the load, microseconds
}

// Sustain has a program put exec records of 256 bytes into the ring, so many a second for d, and hands what is read to out,
// which is called as a sensor calls it. A record that was lost is an error. It is for measurement alone, and needs root.
func Sustain(d time.Duration, offered int, out func(*event.Event)) (sustained Sustained, err error) {
	err = onHostTo(out, func(k *Kernel, s *RingSensor, cpu func() time.Duration) error {
		load, err := k.openLoad()
		if err != nil {
			return err
		}
		defer load.Close()
		before, err := lost(k)
		if err != nil {
			return err
		}
		runtime.LockOSThread() // what this thread uses is the load's
		defer runtime.UnlockOSThread()
		time.Sleep(200 * time.Millisecond) // the reader's first look fills the process tree
		others := func() time.Duration {
			return clock(unix.CLOCK_PROCESS_CPUTIME_ID) - clock(unix.CLOCK_THREAD_CPUTIME_ID)
		}
		seen, used, all, began := s.Seen(), cpu(), others(), time.Now()
		sent, total := 0, int(d.Seconds())*offered
		for sent < total {
			due := min(int(time.Since(began).Seconds()*float64(offered)), total) - sent
			// A stall of the load itself is made good at no more than four times the rate.
			due = min(due, 4*offered/1000)
			if err := load.emit(due, 100_000+sent%4096, false); err != nil {
				return err
			}
			sent += due
			time.Sleep(time.Millisecond)
		}
		took := time.Since(began)
		if err := s.await(k, seen+uint64(sent), before); err != nil {
			return err
		}
		n := float64(s.Seen() - seen)
		perEvent := func(t time.Duration) float64 { return float64(t.Nanoseconds()) / 1000 / n }
		sustained = Sustained{Rate: n / took.Seconds(), Reader: perEvent(cpu() - used), Process: perEvent(others() - all)}
		return nil
	})
	return sustained, err
}

func clock(id int32) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(id, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// recordLoad puts records into a kernel half's ring.
type recordLoad struct{ *ebpf.Collection }

func (k *Kernel) openLoad() (recordLoad, error) {
	spec, err := loadBench()
	if err != nil {
		return recordLoad{}, fmt.Errorf("read the load's object: %w", err)
	}
	spec.Maps["ring"].MaxEntries = uint32(k.opt.RingBytes)
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: k.shared})
	if err != nil {
		return recordLoad{}, fmt.Errorf("load the load: %w", err)
	}
	return recordLoad{c}, nil
}

// emit writes the exec of n processes with pids from first on, and their exits with ends.
func (l recordLoad) emit(n, first int, ends bool) error {
	order := struct{ Count, First, Ends uint32 }{Count: uint32(n), First: uint32(first)}
	if ends {
		order.Ends = 1
	}
	if _, err := l.Programs["emit"].Run(&ebpf.RunOptions{Context: order}); err != nil {
		return fmt.Errorf("make load: %w", err)
	}
	return nil
}

// await waits for the last of so many records, which are still in the ring; before is what had been lost earlier.
func (s *RingSensor) await(k *Kernel, seen, before uint64) error {
	for end := time.Now().Add(time.Second); s.Seen() < seen && time.Now().Before(end); {
		time.Sleep(pollFast)
	}
	after, err := lost(k)
	if err == nil && (after != before || s.Seen() < seen) {
		err = fmt.Errorf("of %d records %d were read and %d found the ring full", seen, s.Seen(), after-before)
	}
	return err
}

func lost(k *Kernel) (n uint64, err error) {
	drops, err := k.Drops()
	for _, d := range drops {
		n += d
	}
	return n, err
}

// crowdMemory is what is resident of this whole process, in MiB, while its process tree knows 50,000 live processes, and how much
// that grows while a million others come and go. With other figures measured before, in one run, it includes what they left.
func crowdMemory() (crowd, growth float64, err error) {
	const live, passing, batch = 50_000, 1_000_000, 150
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // as a node has it
	err = onHost(func(k *Kernel, s *RingSensor, _ func() time.Duration) error {
		load, err := k.openLoad()
		if err != nil {
			return err
		}
		defer load.Close()
		before, err := lost(k)
		if err != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
		debug.FreeOSMemory() // what loading took
		seen := s.Seen()
		for n := 0; n < live; n += batch {
			if err := load.emit(min(batch, live-n), 100_000+n, false); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
		if err := s.await(k, seen+live, before); err != nil {
			return err
		}
		known := s.Tree().Len()
		if known < live {
			return fmt.Errorf("the tree knows %d processes of %d", known, live)
		}
		if crowd, err = resident(); err != nil {
			return err
		}
		seen = s.Seen()
		for n := 0; n < passing; n += batch {
			if err := load.emit(min(batch, passing-n), 1_000_000+n, true); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
		if err := s.await(k, seen+2*passing, before); err != nil {
			return err
		}
		if now := s.Tree().Len(); now > known+1000 { // this machine's own may be among them
			return fmt.Errorf("the tree grew from %d processes to %d", known, now)
		}
		after, err := resident()
		growth = after - crowd
		return err
	})
	return crowd, growth, err
}

// resident is how much of this process's memory is, in MiB.
func resident() (float64, error) {
	b, err := readBounded("/proc/self/statm", 256)
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0, errors.New("/proc/self/statm has fewer fields than expected")
	}
	pages, err := strconv.ParseUint(string(fields[1]), 10, 64)
	return float64(pages) * float64(os.Getpagesize()) / (1 << 20), err
}
