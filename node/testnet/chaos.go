package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Kill ends a host's node with SIGKILL, as a power cut would end it.
func Kill(s *State, h *Host) error {
	p := Process{PID: h.PID, Start: h.Start}
	if !p.Alive() {
		return fmt.Errorf("no node runs on %s", h.Name)
	}
	if err := unix.Kill(-p.PID, unix.SIGKILL); err != nil {
		return fmt.Errorf("kill the node of %s: %w", h.Name, err)
	}
	return noteProcess(s, h.Name, Process{})
}

// Partition cuts a host off: its port of the bridge goes down.
func Partition(s *State, h *Host) error {
	return onPort(s, h, func(nl *netlink.Handle, port netlink.Link) error { return nl.LinkSetDown(port) })
}

// Heal ends what Partition, Degrade and Kill did to a host: the port comes up, packets pass unhindered, and a node
// that does not run is started again.
func Heal(s *State, h *Host) error {
	err := onPort(s, h, func(nl *netlink.Handle, port netlink.Link) error {
		if err := nl.QdiscDel(netem(port, 0, 0)); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("remove the delay of %s: %w", h.Name, err)
		}
		return nl.LinkSetUp(port)
	})
	if err != nil && !errors.Is(err, errNoPort) || !h.Member || (Process{PID: h.PID, Start: h.Start}).Alive() {
		return err
	}
	if _, err := s.startNode(h); err != nil {
		return err
	}
	return noteProcess(s, h.Name, Process{PID: h.PID, Start: h.Start})
}

// Degrade delays packets to a host, and loses a share of them (0 to 100 percent).
func Degrade(s *State, h *Host, delay time.Duration, lossPercent float64) error {
	if delay < 0 || delay > time.Minute || !(lossPercent >= 0 && lossPercent <= 100) {
		return fmt.Errorf("%w: delay is 0 to 1m, loss 0 to 100 percent", ErrInvalid)
	}
	return onPort(s, h, func(nl *netlink.Handle, port netlink.Link) error {
		err := nl.QdiscReplace(netem(port, delay, lossPercent))
		if errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("this kernel cannot delay or lose packets: it has no netem (CONFIG_NET_SCH_NETEM): %w", err)
		}
		return err
	})
}

func netem(port netlink.Link, delay time.Duration, lossPercent float64) *netlink.Netem {
	attrs := netlink.QdiscAttrs{LinkIndex: port.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	return netlink.NewNetem(attrs, netlink.NetemQdiscAttrs{Latency: uint32(delay.Microseconds()), Loss: float32(lossPercent)})
}

var errNoPort = fmt.Errorf("%w: in process mode hosts have no links to cut", ErrNotRoot)

// onPort runs f on the host's end of the bridge.
func onPort(s *State, h *Host, f func(*netlink.Handle, netlink.Link) error) error {
	if s.Mode != ModeNetns {
		return errNoPort
	}
	br, err := os.Open(netnsPath(s.ID, "br"))
	if err != nil {
		return err
	}
	defer br.Close()
	nl, err := netlink.NewHandleAt(netns.NsHandle(br.Fd()))
	if err != nil {
		return err
	}
	defer nl.Close()
	port, err := nl.LinkByName(h.Name)
	if err != nil {
		return fmt.Errorf("find the port of %s: %w", h.Name, err)
	}
	return f(nl, port)
}

func noteProcess(s *State, name string, p Process) error {
	return locked(Registry(), s.ID, func(now *State) error {
		h, err := now.Host(name)
		if err == nil {
			h.PID, h.Start = p.PID, p.Start
		}
		return err
	})
}

// Reached says whether the node of h, started again or healed, answers and is synced; it returns when it is or ctx ends.
func Reached(ctx context.Context, h *Host) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if s, err := h.status(ctx); err == nil && s.GetSynced() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the node of %s is not synced: %w", h.Name, context.Cause(ctx))
		}
	}
}
