package bpf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// killTime bounds how long a tree is hunted for.
const killTime = 5 * time.Second

// doomValue is struct doom of kernel/execution.c.
type doomValue struct {
	Expires uint64
	Start   uint64 // in clock ticks, the unit of /proc
}

// kill ends a process, or its tree. In the tree's case each member is doomed in the kernel first: a fork of a doomed
// process is doomed and its parent killed in the same call, so that no fork outruns the hunt. A pid that no longer
// belongs to the process meant (its start differs) is left alone, and so is one outside the cgroup this node acts in.
// killed counts the processes.
func (k *Kernel) kill(ctx context.Context, t event.Target) (means []string, killed int, err error) {
	if t.PID <= 1 {
		return nil, 0, fmt.Errorf("pid %d is not to be killed", t.PID)
	}
	fd, err := unix.PidfdOpen(int(t.PID), 0)
	if err != nil {
		return nil, 0, fmt.Errorf("process %d: %w", t.PID, err)
	}
	defer unix.Close(fd)
	// What is read of the pid from here on is of the process the descriptor holds, as long as that one can be signalled.
	start, err := ProcessStart(t.PID)
	if err != nil {
		return nil, 0, fmt.Errorf("process %d: %w", t.PID, err)
	}
	if t.Start != 0 && !sameStart(start, t.Start) {
		return nil, 0, fmt.Errorf("process %d is another one now: it started at %d, not %d", t.PID, start, t.Start)
	}
	if within, err := k.within(t.PID); err != nil {
		return nil, 0, fmt.Errorf("process %d: %w", t.PID, err)
	} else if !within {
		return nil, 0, fmt.Errorf("process %d is outside the cgroup this node acts in", t.PID)
	}
	if !t.Tree {
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
			return nil, 0, fmt.Errorf("kill process %d: %w", t.PID, err)
		}
		return []string{"pidfd-sigkill"}, 1, nil
	}
	if k.execution == nil {
		return nil, 0, errors.New("a tree cannot be ended without a race here: the kernel half for executions is not loaded")
	}
	watch, err := link.AttachTracing(link.TracingOptions{Program: k.execution.Programs["doom_child"]})
	if err != nil {
		return nil, 0, fmt.Errorf("watch forks while the tree is ended: %w", err)
	}
	defer watch.Close()
	if err := k.hunting(1); err != nil {
		return nil, 0, err
	}
	defer k.hunting(^uint32(0))
	killed, err = k.killTree(ctx, t.PID, start)
	return []string{"doomed-at-fork", "pidfd-sigkill"}, killed, err
}

// hunting adds to the trees being ended now.
func (k *Kernel) hunting(change uint32) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hunts += change
	return k.countRules()
}

// within says whether a process lies in the cgroup this node acts in.
func (k *Kernel) within(pid uint32) (bool, error) {
	if k.opt.Cgroup == "" {
		return true, nil
	}
	root, err := cgroupRoot()
	if err != nil {
		return false, err
	}
	scope, err := filepath.Rel(root, k.opt.Cgroup)
	if err != nil {
		return false, err
	}
	lines, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/cgroup")
	if err != nil {
		return false, err
	}
	for line := range bytes.Lines(lines) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(string(line), "\n"), "0::/"); ok {
			return path == scope || strings.HasPrefix(path, scope+"/"), nil
		}
	}
	return false, nil
}

// killTree ends root, known by its start, and all its descendants: it freezes every member, looks again until a look
// finds nobody new, and only then kills, because a dead parent's children can no longer be told. What a member forks
// meanwhile the kernel dooms, and stops its parent. Members are held by pid and start: a pid that was given to another
// process meanwhile is nobody's.
func (k *Kernel) killTree(ctx context.Context, root uint32, start uint64) (killed int, err error) {
	ctx, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	doomed := k.execution.Maps["doomed"]
	members := map[uint32]uint64{root: start / uint64(clockTick)}
	defer func() {
		for pid := range members {
			_ = doomed.Delete(pid) // it expires by itself
		}
	}()
	for {
		err := k.freezeTree(ctx, members, BootTime()+uint64(killTime))
		// Whatever came of it, nobody is left frozen.
		alive := signalMembers(members, unix.SIGKILL)
		killed = len(members)
		if err != nil {
			return killed, err
		}
		if alive == 0 {
			return killed, nil
		}
		select {
		case <-ctx.Done():
			return killed, fmt.Errorf("%d processes of the tree were still there after %s", alive, killTime)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// freezeTree dooms and stops members and their descendants until a look finds no new one.
func (k *Kernel) freezeTree(ctx context.Context, members map[uint32]uint64, end uint64) error {
	doomed := k.execution.Maps["doomed"]
	for grew := true; grew; {
		for pid, tick := range members {
			if err := doomed.Put(pid, doomValue{Expires: end, Start: tick}); err != nil {
				return fmt.Errorf("doom process %d: %w", pid, err)
			}
		}
		signalMembers(members, unix.SIGSTOP)
		here, err := liveProcesses()
		if err != nil {
			return err
		}
		grew = addDescendants(members, here)
		var pid uint32
		var d doomValue
		entries := doomed.Iterate()
		for entries.Next(&pid, &d) {
			if tick, known := members[pid]; d.Expires > BootTime() && (!known || tick != d.Start) {
				members[pid], grew = d.Start, true
			}
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("the tree grew for longer than %s", killTime)
		}
	}
	return nil
}

// signalMembers signals each member that lives and returns how many did.
func signalMembers(members map[uint32]uint64, signal unix.Signal) (alive int) {
	for pid, tick := range members {
		fd, err := unix.PidfdOpen(int(pid), 0)
		if err != nil {
			continue
		}
		// The descriptor holds one process; only if that one is still the member is it signalled.
		s, err := readStat("/proc/" + strconv.FormatUint(uint64(pid), 10))
		if err == nil && s.start/uint64(clockTick) == tick && s.state != 'Z' && s.state != 'X' {
			alive++
			_ = unix.PidfdSendSignal(fd, signal, nil, 0) // gone already is as good
		}
		unix.Close(fd)
	}
	return alive
}

// addDescendants adds children of members, and theirs, and says whether there were any. A child is never older than its
// parent: one that is belongs to an earlier owner of the parent's pid.
func addDescendants(members map[uint32]uint64, here map[uint32]procStat) (added bool) {
	for grew := true; grew; {
		grew = false
		for pid, p := range here {
			tick := p.start / uint64(clockTick)
			parent, ok := members[p.parent]
			if !ok || pid <= 1 || tick < parent || here[p.parent].start/uint64(clockTick) != parent {
				continue
			}
			if old, known := members[pid]; known && old == tick {
				continue
			}
			members[pid], grew, added = tick, true, true
		}
	}
	return added
}
