package bpf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// Rounds of what is measured without the kernel half and with all of it, in turns.
const (
	hostRounds  = 6
	buildRounds = 10
	callBatches = 25
	buildSteps  = 20
	callBatch   = 10_000 // system calls
)

// unwatchedCall is what a system call that nobody watches costs more while everything of the kernel half is attached, over how far
// the same without it differs by itself: the middle of batches with and without, in turns, by what lies between the quarters of those without.
func unwatchedCall() (ratio float64, err error) {
	err = onLoopback(func(int, unix.Sockaddr) error {
		var without, with []float64
		measure := func(batches []float64) []float64 {
			for range callBatches {
				began := clock(unix.CLOCK_THREAD_CPUTIME_ID)
				for range callBatch {
					unix.Getppid()
				}
				batches = append(batches, float64(clock(unix.CLOCK_THREAD_CPUTIME_ID)-began)/callBatch)
			}
			return batches
		}
		for range hostRounds {
			without = measure(without)
			if err := watched(func() error { with = measure(with); return nil }); err != nil {
				return err
			}
		}
		slices.Sort(without)
		slices.Sort(with)
		half, quarter := len(without)/2, len(without)/4
		ratio = (with[half] - without[half]) / (without[3*quarter] - without[quarter])
		return nil
	})
	return ratio, err
}

// watched runs f while everything of the kernel half that this kernel takes watches the host and is read, as in a node.
func watched(f func() error) (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	k, err := Load(ctx, Options{Interfaces: []string{"lo"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	ring, err := k.Ring()
	if err != nil {
		return err
	}
	s, err := OpenRing(ring)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, func(*event.Event) {}) }()
	err = f()
	cancel()
	return errors.Join(err, <-done, s.Close())
}

// buildSource is what buildTime compiles: the headers are most of the work, as in many a build.
const buildSource = `#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
int main(int argc, char **argv) { for (int i = 0; i < argc; i++) printf("%zu %s\n", strlen(argv[i]), argv[i]); return socket(AF_INET, SOCK_STREAM, 0) < 0; }
`

// buildTime is by how much longer a build takes, in percent of its wall time, while everything of the kernel half is attached and
// read: two compilers at a time, each of several processes. The quietest twentieth of such steps is compared, with and without in turns.
func buildTime() (percent float64, err error) {
	if _, err := exec.LookPath("cc"); err != nil {
		return 0, fmt.Errorf("it is measured with a C compiler: %w", err)
	}
	dir, err := os.MkdirTemp("", "omega-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "part.c"), []byte(buildSource), 0o600); err != nil {
		return 0, err
	}
	build := func(steps []float64) ([]float64, error) {
		for range buildSteps {
			cmd := exec.Command("/bin/sh", "-ec", `cc -O1 -c -o a.o part.c & cc -O1 -c -o b.o part.c; wait $!`)
			cmd.Dir = dir
			began := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("build: %w: %.200s", err, out)
			}
			steps = append(steps, time.Since(began).Seconds())
		}
		return steps, nil
	}
	if _, err := build(nil); err != nil { // what is read from the disk is read now
		return 0, err
	}
	var without, with []float64
	err = onLoopback(func(int, unix.Sockaddr) (err error) {
		for range buildRounds {
			if without, err = build(without); err != nil {
				return err
			}
			if err := watched(func() (err error) { with, err = build(with); return err }); err != nil {
				return err
			}
		}
		percent = 100 * (quietest(with)/quietest(without) - 1)
		return nil
	})
	return percent, err
}

// tries is how often what is denied is tried.
const tries = 1000

// deniedStarts is how many of 1,000 starts of a program are stopped before its first instruction, half of them denied by its path and
// half by its inode. One that takes effect is an error.
func deniedStarts() (stopped float64, err error) {
	dir, err := os.MkdirTemp("", "omega-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	marker := filepath.Join(dir, "it ran")
	err = onLoopback(func(int, unix.Sockaddr) error {
		return sensing([]string{"sensor/process", "actuator/deny-exec"}, func(k *Kernel, _ func() time.Duration) error {
			for n, by := range []string{"path", "inode"} {
				program := filepath.Join(dir, by)
				if err := copyProgram(program, "/bin/sh"); err != nil {
					return err
				}
				target := event.Target{Path: program}
				if by == "inode" {
					var st unix.Stat_t
					if err := unix.Stat(program, &st); err != nil {
						return err
					}
					target = event.Target{Inode: st.Ino, Device: uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev))}
				}
				if _, err := k.Apply(context.Background(), denial(n, target)); err != nil {
					return err
				}
				for range tries / 2 {
					err := exec.Command(program, "-c", `: > "$0"`, marker).Run()
					var exit *exec.ExitError
					if errors.Is(err, unix.EPERM) || errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == unix.SIGKILL {
						stopped++
					}
				}
			}
			if _, err := os.Lstat(marker); !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("a denied program took effect: %w", err)
			}
			return nil
		})
	})
	return stopped, err
}

func copyProgram(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// denial is a response for what measures denials.
func denial(n int, target event.Target) event.Response {
	return event.Response{ID: fmt.Sprintf("%032x", n+1), Action: event.ActionDeny, Target: target, TTL: time.Minute, Authority: event.AuthorityOperator}
}

// deniedConnections is how many of 1,000 connections to a denied address, and to a denied port of another, are refused with EPERM.
// One packet of them on the way to either is an error.
func deniedConnections() (refused float64, err error) {
	err = onLoopback(func(int, unix.Sockaddr) error { // its namespace: what goes by loopback is never denied
		out := netlink.NewVeth(netlink.LinkAttrs{Name: "out"})
		out.PeerName = "in"
		if err := netlink.LinkAdd(out); err != nil {
			return fmt.Errorf("make an interface: %w", err)
		}
		address, err := netlink.ParseAddr("192.0.2.1/24")
		if err == nil {
			// Without ARP the first packet that goes out is a connection's.
			err = errors.Join(netlink.AddrAdd(out, address), netlink.LinkSetARPOff(out), netlink.LinkSetUp(out))
		}
		if err != nil {
			return fmt.Errorf("set up an interface: %w", err)
		}
		const port = 4444
		connect := func(to byte, port int) error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, to}, Port: port})
		}
		if err := connect(8, port); !errors.Is(err, unix.EINPROGRESS) {
			return fmt.Errorf("a connection before anything is denied: %w", err)
		}
		return sensing([]string{"actuator/deny-address", "actuator/deny-name"}, func(k *Kernel, _ func() time.Duration) error {
			for n, target := range []event.Target{{Address: netip.MustParsePrefix("192.0.2.9/32")}, {Port: port, Protocol: unix.IPPROTO_TCP}} {
				if _, err := k.Apply(context.Background(), denial(n, target)); err != nil {
					return err
				}
			}
			before, err := packetsOut(out)
			if err != nil {
				return err
			}
			for n := range tries {
				err := connect(9, 9)
				if n%2 > 0 {
					err = connect(8, port)
				}
				if errors.Is(err, unix.EPERM) {
					refused++
				}
			}
			after, err := packetsOut(out)
			if err == nil && after != before {
				err = fmt.Errorf("%d packets went out", after-before)
			}
			return err
		})
	})
	return refused, err
}

// packetsOut is how many packets an interface has sent.
func packetsOut(i netlink.Link) (uint64, error) {
	now, err := netlink.LinkByIndex(i.Attrs().Index)
	if err != nil {
		return 0, fmt.Errorf("look at an interface: %w", err)
	}
	return now.Attrs().Statistics.TxPackets, nil
}

// pinThread keeps the calling goroutine's thread, and what it starts, on one processor until unpin is called.
func pinThread() (unpin func(), err error) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, fmt.Errorf("ask for this thread's processors: %w", err)
	}
	runtime.LockOSThread()
	var one unix.CPUSet
	for n := range len(all) * 64 {
		if all.IsSet(n) {
			one.Set(n)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("stay on one processor: %w", err)
	}
	return func() {
		if unix.SchedSetaffinity(0, &all) == nil {
			runtime.UnlockOSThread() // else the thread is not given back, and ends with its goroutine
		}
	}, nil
}
