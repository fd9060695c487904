package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// handOver gives the unprivileged half what it needs of the state folder and nothing else: identity, ledger and swarm
// become its own; the folder itself stays root's, so that it can put nothing in the place of operator or next.
func handOver(l Layout, uid uint32) error {
	if err := os.Chmod(l.Dir, 0o711); err != nil {
		return fmt.Errorf("hand over the state folder: %w", err)
	}
	for _, dir := range []string{l.Ledger(), l.Swarm(), l.Journal(), l.Modules(), l.Indicators()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("hand over the state folder: %w", err)
		}
	}
	for _, dir := range []string{l.Operator(), l.Next(), l.NextInside()} {
		if err := os.Chmod(dir, 0o700); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("keep the operator's and the next key: %w", err)
		}
	}
	if err := os.Chmod(l.Genesis(), 0o644); err != nil {
		return fmt.Errorf("hand over the state folder: %w", err)
	}
	for _, dir := range []string{l.Identity(), l.Ledger(), l.Swarm(), l.Journal(), l.Modules(), l.Indicators()} {
		if err := chownTree(dir, int(uid)); err != nil {
			return fmt.Errorf("hand over %s: %w", dir, err)
		}
	}
	return nil
}

// chownTree makes everything below dir uid's. What another life of that user left there may be hostile: no link is
// followed out of dir, and a file with a second name is not given away.
func chownTree(dir string, uid int) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := root.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		switch {
		case !ok || int(st.Uid) == uid && int(st.Gid) == uid:
			return nil
		case !info.IsDir() && st.Nlink > 1:
			return fmt.Errorf("%s has %d names: it would be given away under all of them", path, st.Nlink)
		}
		return root.Lchown(path, uid, uid)
	})
}
