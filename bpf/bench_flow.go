package bpf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// Rounds of flowLife: each measures the same connections with the sensors and, at once after, without.
const (
	flowRounds  = 7
	flowBatches = 9
	flowBatch   = 300 // connections
)

// flowLife is what the sensors of connections and names add to the CPU time of one connection over loopback: connect,
// accept and close at both ends, with a record for each of them. It is told as the median of rounds,
// each the difference between the medians with and without. The sensors are the whole host's, so what else
// happens there is told to nobody.
func flowLife() (microseconds float64, err error) {
	err = onLoopback(func(listener int, address unix.Sockaddr) error {
		var added []float64
		for range flowRounds {
			var with float64
			if err := sensing([]string{"sensor/network", "sensor/names"}, func(func() time.Duration) (err error) {
				with, err = connections(listener, address)
				return err
			}); err != nil {
				return err
			}
			without, err := connections(listener, address)
			if err != nil {
				return err
			}
			added = append(added, with-without)
		}
		slices.Sort(added)
		microseconds = added[len(added)/2]
		return nil
	})
	return microseconds, err
}

// onLoopback runs f with a listener, on one thread in a network namespace of its own.
func onLoopback(f func(listener int, address unix.Sockaddr) error) error {
	if os.Geteuid() != 0 {
		return errors.New("it loads BPF programs, which needs root")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here, and its namespace with it
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("make a network namespace: %w", err)
			}
			lo, err := netlink.LinkByName("lo")
			if err == nil {
				err = netlink.LinkSetUp(lo)
			}
			if err != nil {
				return fmt.Errorf("set up loopback: %w", err)
			}
			listener, address, err := listenHere()
			if err != nil {
				return fmt.Errorf("listen: %w", err)
			}
			defer unix.Close(listener)
			return f(listener, address)
		}()
	}()
	return <-done
}

// sensing runs f while these domains and no others watch, and what they tell is read; cpu is the reader's processor time.
func sensing(watching []string, f func(cpu func() time.Duration) error) (err error) {
	var without []string
	for _, d := range domains {
		if !slices.Contains(watching, d.name) {
			without = append(without, d.name)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	k, err := Load(ctx, Options{Interfaces: []string{"lo"}, without: without})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	for _, c := range k.Coverage() {
		if !c.OK {
			return fmt.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
	ring, err := k.Ring()
	if err != nil {
		return err
	}
	s, err := OpenRing(ring)
	if err != nil {
		return err
	}
	cpu, done := s.runHere(ctx, func(*event.Event) {})
	err = f(cpu)
	if err == nil && s.Seen() == 0 {
		err = errors.New("nothing was seen")
	}
	cancel()
	return errors.Join(err, <-done, s.Close())
}

func listenHere() (fd int, at unix.Sockaddr, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, nil, err
	}
	err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte(net.IPv4(127, 0, 0, 1).To4())}), unix.Listen(fd, 16))
	if err == nil {
		at, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
	}
	return fd, at, err
}

// connections is the CPU time of one connection in microseconds, the median of batches.
func connections(listener int, address unix.Sockaddr) (float64, error) {
	var batches []float64
	for range flowBatches {
		var began, ended unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &began); err != nil {
			return 0, err
		}
		for range flowBatch {
			if err := connection(listener, address); err != nil {
				return 0, fmt.Errorf("make a connection: %w", err)
			}
		}
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ended); err != nil {
			return 0, err
		}
		batches = append(batches, float64(ended.Nano()-began.Nano())/1000/flowBatch)
	}
	slices.Sort(batches)
	return batches[len(batches)/2], nil
}

func connection(listener int, address unix.Sockaddr) error {
	out, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(out)
	if err := unix.Connect(out, address); err != nil {
		return err
	}
	in, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(in)
}
