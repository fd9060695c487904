package bpf

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// killTime bounds how long a tree is hunted for.
const killTime = 5 * time.Second

// kill ends a process, or its tree. In the tree's case each member is doomed in the kernel first: a fork of a doomed
// process is doomed and its parent killed in the same call, so that no fork outruns the hunt. A pid that no longer
// belongs to the process meant (its start differs) is left alone.
func (k *Kernel) kill(ctx context.Context, t event.Target) ([]string, error) {
	if t.PID <= 1 {
		return nil, fmt.Errorf("pid %d is not to be killed", t.PID)
	}
	fd, err := unix.PidfdOpen(int(t.PID), 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", t.PID, err)
	}
	defer unix.Close(fd)
	if t.Start != 0 {
		start, err := processStart(t.PID)
		if err != nil {
			return nil, fmt.Errorf("process %d: %w", t.PID, err)
		}
		// /proc counts in hundredths of a second.
		if d := int64(start) - int64(t.Start); d > int64(20*time.Millisecond) || d < -int64(20*time.Millisecond) {
			return nil, fmt.Errorf("process %d is another one now: it started at %d, not %d", t.PID, start, t.Start)
		}
	}
	if !t.Tree {
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
			return nil, fmt.Errorf("kill process %d: %w", t.PID, err)
		}
		return []string{"pidfd-sigkill"}, nil
	}
	if k.execution == nil {
		return nil, errors.New("a tree cannot be ended without a race here: the kernel half for executions is not loaded")
	}
	return []string{"doomed-at-fork", "pidfd-sigkill"}, k.killTree(ctx, t.PID)
}

func (k *Kernel) killTree(ctx context.Context, root uint32) error {
	ctx, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	doomed := k.execution.Maps["doomed"]
	members := map[uint32]bool{root: true}
	end := BootTime() + uint64(killTime)
	defer func() {
		for pid := range members {
			_ = doomed.Delete(pid) // it expires by itself
		}
	}()
	for {
		// Doom all that are known, look again, and go on until a look finds nobody new: from then on the kernel dooms
		// whatever is forked. Only then is anybody killed, because a dead parent's children can no longer be told.
		var parents map[uint32]uint32
		for grew := true; grew; {
			for pid := range members {
				if err := doomed.Put(pid, end); err != nil {
					return fmt.Errorf("doom process %d: %w", pid, err)
				}
			}
			var err error
			if parents, err = processParents(); err != nil {
				return err
			}
			grew = addDescendants(members, parents)
			var pid uint32
			var at uint64
			entries := doomed.Iterate()
			for entries.Next(&pid, &at) {
				if at > BootTime() && !members[pid] {
					members[pid], grew = true, true
				}
			}
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("the tree grew for longer than %s", killTime)
			}
		}
		alive := 0
		for pid := range members {
			if _, there := parents[pid]; !there {
				continue
			}
			alive++
			fd, err := unix.PidfdOpen(int(pid), 0)
			if err != nil {
				continue
			}
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // gone already is as good
			unix.Close(fd)
		}
		if alive == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes of the tree were still there after %s", alive, killTime)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// addDescendants adds children of members, and theirs, and says whether there were any.
func addDescendants(members map[uint32]bool, parents map[uint32]uint32) (added bool) {
	for grew := true; grew; {
		grew = false
		for pid, parent := range parents {
			if members[parent] && !members[pid] && pid > 1 {
				members[pid], grew, added = true, true, true
			}
		}
	}
	return added
}
