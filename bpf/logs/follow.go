package logs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/bpf"
)

// Journal stands for journald among the paths of a Follower.
const Journal = "journal"

// Auto is what a whole host follows when nobody said what: journald, where it runs; else the classic files.
func Auto() []string {
	if st, err := os.Stat("/run/systemd/journal"); err == nil && st.IsDir() {
		if _, err := journalctl(); err == nil {
			return []string{Journal}
		}
	}
	return []string{"/var/log/auth.log", "/var/log/secure", "/var/log/syslog", "/var/log/messages", "/var/log/cron"}
}

// Follower is the privileged side: it reads lines and hands them over. It understands none of them. A reader that is slow
// makes it wait, and lines wait in their files meanwhile.
type Follower struct {
	paths []string
	r, w  *os.File
	log   *slog.Logger
	lines atomic.Uint64
	lost  struct{ tooLong, truncated atomic.Uint64 }
	state atomic.Pointer[[]bpf.Check]
}

// Follow makes a follower of files, Journal among them where it is meant. Run does the work; Close ends it.
func Follow(paths []string, log *slog.Logger) (*Follower, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	f := &Follower{paths: paths, r: r, w: w, log: log}
	f.say(nil)
	return f, nil
}

// Reader is a descriptor of the pipe's other end for whoever makes a Sensor of it, who closes it. There is one pipe for
// the life of the follower: what one reader left, the next one gets.
func (f *Follower) Reader() (*os.File, error) {
	fd, err := unix.FcntlInt(f.r.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	return os.NewFile(uintptr(fd), "logs"), nil
}

// Close gives the pipe back. Run must have ended.
func (f *Follower) Close() error { return errors.Join(f.r.Close(), f.w.Close()) }

// Drops counts what was lost: lines too long to be handed over whole, and how often a file became shorter while it was read.
func (f *Follower) Drops() map[string]uint64 {
	return map[string]uint64{"logs/too_long": f.lost.tooLong.Load(), "logs/truncated": f.lost.truncated.Load()}
}

// Coverage is one line: what is followed, or why nothing is.
func (f *Follower) Coverage() []bpf.Check { return *f.state.Load() }

const lostLogs = "log-ons, sudo, jobs and services are not seen; guessed passwords are not found"

func (f *Follower) say(files []*file) {
	c := bpf.Check{Name: "sensor/logs", Lost: lostLogs, Detail: "none of " + fmt.Sprint(f.paths) + " is there"}
	if len(f.paths) == 0 {
		c.Detail = "no log is followed: none was asked for, or this user may read none"
	}
	var open []string
	for _, x := range files {
		if x.f != nil {
			open = append(open, x.path)
		}
	}
	if len(open) > 0 {
		c.OK, c.Lost, c.Detail = true, "", fmt.Sprintf("following %v", open)
	}
	f.state.Store(&[]bpf.Check{c})
}

// file is one that is followed, or waited for.
type file struct {
	path  string
	f     *os.File
	inode uint64
	at    int64
	watch int    // of inotify; -1 where there is none
	rest  []byte // a line without its end yet
	skip  bool   // the rest of a line that is too long
}

// Run follows until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	if slices.Contains(f.paths, Journal) {
		return f.followJournal(ctx)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		f.state.Store(&[]bpf.Check{{Name: "sensor/logs", Detail: "inotify: " + err.Error(), Lost: lostLogs}})
		return fmt.Errorf("logs: inotify: %w", err)
	}
	notes := os.NewFile(uintptr(fd), "inotify")
	defer notes.Close()
	stop := context.AfterFunc(ctx, func() {
		_ = notes.SetReadDeadline(time.Unix(1, 0))
		_ = f.w.SetWriteDeadline(time.Unix(1, 0))
	})
	defer stop()

	files := make([]*file, len(f.paths))
	for i, p := range f.paths {
		files[i] = &file{path: p, watch: -1}
		// The folder tells of files that come and go; its own writes are not asked for.
		if _, err := unix.InotifyAddWatch(fd, filepath.Dir(p), unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR|unix.IN_MASK_ADD); err != nil {
			f.log.Debug("log folder not watched", "folder", filepath.Dir(p), "err", err)
		}
	}
	defer func() {
		for _, x := range files {
			x.close(fd)
		}
	}()
	buf := make([]byte, 32<<10)
	for first := true; ctx.Err() == nil; first = false {
		changed := first
		for _, x := range files {
			opened, err := f.advance(ctx, fd, x, first, buf)
			if err != nil {
				return err
			}
			changed = changed || opened
		}
		if changed {
			f.say(files)
		}
		if err := await(notes, buf); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("logs: inotify: %w", err)
		}
	}
	return nil
}

// await blocks until something that is watched changed. What exactly is found by looking: a queue that overflowed, or a
// watch that ended, loses nothing that way.
func await(notes *os.File, buf []byte) error {
	n, err := notes.Read(buf)
	if err == nil && n < binary.Size(unix.InotifyEvent{}) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// advance reads what is new in x, goes over to another file of its name once there is one, and begins anew where it became
// shorter. Of a file that was there at the start only what comes is read.
func (f *Follower) advance(ctx context.Context, fd int, x *file, first bool, buf []byte) (changed bool, err error) {
	for range 4 { // rotated more often than that meanwhile: the next look goes on
		if x.f != nil {
			if err := f.drain(ctx, x, buf); err != nil {
				return changed, err
			}
		}
		var st unix.Stat_t
		if unix.Stat(x.path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			return changed, nil // away for now: what was open is kept, since its writer may be slow to leave it
		}
		if x.f != nil && st.Ino == x.inode {
			return changed, nil
		}
		x.close(fd)
		file, err := os.OpenFile(x.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			f.log.Warn("log not followed", "path", x.path, "err", err)
			return changed, nil
		}
		if err := unix.Fstat(int(file.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			file.Close()
			return changed, nil
		}
		x.f, x.inode, x.at, changed = file, st.Ino, 0, true
		if first {
			x.at = st.Size
		}
		if x.watch, err = unix.InotifyAddWatch(fd, x.path, unix.IN_MODIFY|unix.IN_ATTRIB|unix.IN_MOVE_SELF|unix.IN_DELETE_SELF); err != nil {
			x.watch = -1
			f.log.Warn("log not watched", "path", x.path, "err", err)
		}
	}
	return changed, nil
}

// drain hands over the whole lines from x.at on.
func (f *Follower) drain(ctx context.Context, x *file, buf []byte) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(x.f.Fd()), &st); err == nil && st.Size < x.at {
		f.lost.truncated.Add(1)
		x.at, x.rest, x.skip = 0, x.rest[:0], false
	}
	for ctx.Err() == nil {
		n, err := x.f.ReadAt(buf, x.at)
		x.at += int64(n)
		for b := buf[:n]; len(b) > 0; {
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				if len(x.rest)+len(b) > MaxLine {
					x.rest, x.skip = x.rest[:0], true
				} else if !x.skip {
					x.rest = append(x.rest, b...)
				}
				break
			}
			line := b[:i]
			if len(x.rest) > 0 {
				line = append(x.rest, line...)
			}
			if x.skip {
				f.lost.tooLong.Add(1)
			} else if err := f.hand(fromFile, line); err != nil {
				return err
			}
			x.rest, x.skip = x.rest[:0], false
			b = b[i+1:]
		}
		if n == 0 || err != nil && !errors.Is(err, io.EOF) {
			return nil // a file that cannot be read now is tried again at its next change
		}
	}
	return nil
}

// hand writes one line to the other side; it waits while the pipe is full.
func (f *Follower) hand(mark byte, line []byte) error {
	line = bytes.TrimRight(line, "\r")
	if len(line) == 0 {
		return nil
	}
	if len(line) > MaxLine {
		f.lost.tooLong.Add(1)
		return nil
	}
	packet := make([]byte, 0, len(line)+2)
	packet = append(append(append(packet, mark), line...), '\n')
	if _, err := f.w.Write(packet); err != nil {
		return fmt.Errorf("logs: hand a line over: %w", err)
	}
	f.lines.Add(1)
	return nil
}

func (x *file) close(fd int) {
	if x.watch >= 0 {
		_, _ = unix.InotifyRmWatch(fd, uint32(x.watch)) // gone by itself where the file is
		x.watch = -1
	}
	if x.f != nil {
		x.f.Close()
		x.f = nil
	}
	x.rest, x.skip = x.rest[:0], false
}
