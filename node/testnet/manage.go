package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// downTimeout bounds how long Down waits for a testnet to end by itself.
const downTimeout = drainTimeout + removeTimeout

// Down ends a testnet that another process holds, and returns when it is gone.
func Down(ctx context.Context, s *State) error {
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	if s.Alive() {
		if err := syscall.Kill(s.Keeper.PID, syscall.SIGTERM); err != nil {
			return fmt.Errorf("ask process %d to end: %w", s.Keeper.PID, err)
		}
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	dir := filepath.Join(Registry(), s.ID)
	for {
		if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if !s.Alive() {
			return remove(s.ID, nil) // its reaper may be at it as well: both may repeat what the other did
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("testnet %s does not end: %w", s.ID, context.Cause(ctx))
		}
	}
}

// Add plugs one more host into a running testnet. It is no member until someone runs `omega join` and `omega up` on it.
func Add(s *State, name string) (*Host, error) {
	if !validName.MatchString(name) || name == "br" {
		return nil, fmt.Errorf("%w: host name %q: a letter, then at most 11 letters, digits or dashes", ErrInvalid, name)
	}
	var added *Host
	err := locked(Registry(), s.ID, func(now *State) error {
		if _, err := now.Host(name); err == nil {
			return fmt.Errorf("%w: there is a host %s already", ErrInvalid, name)
		}
		if len(now.Hosts) >= MaxHosts {
			return fmt.Errorf("%w: a testnet has at most %d hosts", ErrInvalid, MaxHosts)
		}
		last := firstAdded
		for _, h := range now.Hosts {
			if b := int(h.Addr.As4()[3]); b >= last && b < outsider {
				last = b + 1
			}
		}
		top := ""
		if now.Mode == ModeNetns {
			top = filepath.Dir(filepath.Dir(now.Hosts[0].Cgroup))
		}
		h := now.plan(name, false, nil, last, top)
		if err := os.Mkdir(h.Dir, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := h.writeConfig(now.Mode); err != nil {
			return err
		}
		if now.Mode == ModeNetns {
			br, err := os.Open(netnsPath(now.ID, "br"))
			if err != nil {
				return err
			}
			defer br.Close()
			if err := h.build(br); err != nil {
				return err
			}
		}
		added = h
		return nil
	})
	return added, err
}
