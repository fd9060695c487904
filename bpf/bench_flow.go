package bpf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// Each round of flowCost measures the same connections bare, with empty programs at the same hooks, and with the sensors.
const (
	flowRounds  = 40
	flowBatches = 25
	flowBatch   = 20 // connections
)

// flowCost is what one connection over loopback, connect, accept and close at both ends, costs more in CPU time, in
// microseconds: for the sensors of connections and names, with a record for each of them, and for programs that do nothing
// at the hooks of those sensors. What else the machine does makes connections dearer and none cheaper, by more than
// what is measured: so the three take turns of some 20 ms, and each is told by its quietest twentieth. The sensors are the
// whole host's, so what else happens there is told to nobody.
func flowCost() (sensors, empty float64, err error) {
	err = onLoopback(func(listener int, address unix.Sockaddr) error {
		return sensing([]string{"sensor/network", "sensor/names"}, func(k *Kernel, _ func() time.Duration) error {
			turns, err := k.flowTurns(listener, address)
			empty, sensors = turns[1]-turns[0], turns[2]-turns[0]
			return err
		})
	})
	return sensors, empty, err
}

// flowTurns is the CPU time of a connection bare, with empty programs, and with k's, whose programs are off when it returns.
func (k *Kernel) flowTurns(listener int, address unix.Sockaddr) (turns [3]float64, err error) {
	spec, err := loadEmpty()
	if err != nil {
		return turns, fmt.Errorf("read the empty programs' object: %w", err)
	}
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		return turns, fmt.Errorf("load the empty programs: %w", err)
	}
	defer c.Close()
	empty := &Kernel{cgroup: k.cgroup}
	defer func() { err = errors.Join(err, empty.detach()) }()
	if err := k.detach(); err != nil {
		return turns, err
	}
	var batches [3][]float64
	for range flowRounds {
		for i, turn := range [3]struct {
			k              *Kernel
			network, names *ebpf.Collection
		}{{}, {empty, c, c}, {k, k.network, k.names}} {
			if turn.k != nil {
				if _, err := turn.k.attachNetwork(turn.network); err != nil {
					return turns, err
				}
				if _, err := turn.k.attachCgroupHooks(turn.names, nameHooks[:], false); err != nil {
					return turns, err
				}
			}
			if len(empty.checks) > 0 {
				return turns, fmt.Errorf("%s: %s", empty.checks[0].Name, empty.checks[0].Detail)
			}
			if batches[i], err = connections(batches[i], listener, address); err != nil {
				return turns, err
			}
			if turn.k != nil {
				if err := turn.k.detach(); err != nil {
					return turns, err
				}
			}
		}
	}
	for i, b := range batches {
		turns[i] = quietest(b)
	}
	return turns, nil
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
func sensing(watching []string, f func(k *Kernel, cpu func() time.Duration) error) (err error) {
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
	err = f(k, cpu)
	for n := 0; err == nil && s.Seen() == 0 && n < 50; n++ {
		time.Sleep(pollSome) // the reader may still be at what it does first
	}
	if err == nil && s.Seen() == 0 && slices.ContainsFunc(watching, func(name string) bool { return strings.HasPrefix(name, "sensor/") }) {
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

// quietest is the cost in the cheapest twentieth of these batches.
func quietest(batches []float64) float64 {
	slices.Sort(batches)
	return batches[len(batches)/20]
}

// connections appends to batches the CPU time of one connection in each of flowBatches more, in microseconds.
func connections(batches []float64, listener int, address unix.Sockaddr) ([]float64, error) {
	for range flowBatches {
		var began, ended unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &began); err != nil {
			return nil, err
		}
		for range flowBatch {
			if err := connection(listener, address); err != nil {
				return nil, fmt.Errorf("make a connection: %w", err)
			}
		}
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ended); err != nil {
			return nil, err
		}
		batches = append(batches, float64(ended.Nano()-began.Nano())/1000/flowBatch)
	}
	return batches, nil
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
