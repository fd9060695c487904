package testnet

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupRoot finds where cgroup v2 is mounted: /sys/fs/cgroup on most machines, /sys/fs/cgroup/unified on hybrid ones.
func cgroupRoot() (string, error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for sc := bufio.NewScanner(bytes.NewReader(raw)); sc.Scan(); {
		// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
		left, right, ok := strings.Cut(sc.Text(), " - ")
		fields := strings.Fields(left)
		if ok && strings.HasPrefix(right, "cgroup2 ") && len(fields) > 4 && unix.Access(fields[4], unix.W_OK) == nil {
			return fields[4], nil
		}
	}
	return "", errors.New("no writable cgroup v2 is mounted (mount -t cgroup2 none /sys/fs/cgroup/unified)")
}

// populated says whether a process lives in the cgroup or below it.
func populated(dir string) (bool, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return false, err
	}
	return bytes.Contains(raw, []byte("populated 1")), nil
}

// emptied waits until no process lives in the cgroup; the kernel reports each change of cgroup.events as POLLPRI.
func emptied(ctx context.Context, dir string) error {
	f, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if live, err := populated(dir); err != nil || !live {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("processes still live in %s: %w", dir, ctx.Err())
		}
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, 50); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// killCgroup ends every process in the cgroup and below it.
func killCgroup(dir string) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(dir); err != nil {
		return nil
	}
	// Before Linux 5.14 there is no cgroup.kill: send the signals until none is left to send to.
	for range 100 {
		raw, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		pids := strings.Fields(string(raw))
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, p := range pids {
			if pid, err := strconv.Atoi(p); err == nil && pid > 1 {
				unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
	return nil
}

// removeCgroups kills what lives in a testnet's cgroups and removes them.
func removeCgroups(ctx context.Context, id string) error {
	root, err := cgroupRoot()
	if err != nil {
		return nil // nothing can have been made
	}
	top := filepath.Join(root, prefix(id))
	entries, err := os.ReadDir(top)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err, killCgroup(top)}
	errs = append(errs, emptied(ctx, top))
	for _, e := range entries {
		if e.IsDir() {
			errs = append(errs, removeTree(filepath.Join(top, e.Name())))
		}
	}
	return errors.Join(append(errs, removeTree(top))...)
}

// removeTree removes a cgroup and those below it, deepest first. Only rmdir works on them.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	// An emptied cgroup may stay busy for a moment while its last process is torn down.
	for range 100 {
		if err = unix.Rmdir(dir); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove cgroup %s: %w", dir, err)
	}
	return nil
}
