package procfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/bpf"
)

// Bounds of what is watched for written files.
const (
	maxWatches = 4096 // folders; an unprivileged user may have 8,192 or more (inotify(7))
	maxBefore  = 1024 // of them, folders that were there at the start: room must be left for those that come
	maxDepth   = 4    // below a folder that everyone may write
	maxListed  = 4096 // names of one folder, when it is first seen
	maxWritten = 4096 // files remembered as just written
)

// writableFolders are those everyone may write to, watched with what lies below them: where an attacker puts a tool.
// programFolders are where programs lie that everyone starts, watched by themselves: where one is put in place of another.
var (
	writableFolders = [...]string{"/tmp", "/var/tmp", "/dev/shm", "/run/lock"}
	programFolders  = [...]string{"/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"}
)

// What is asked of a folder: files that were closed after writing, moved or linked in, or given another mode; folders made.
const watchMask = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_ATTRIB | unix.IN_CREATE |
	unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW | unix.IN_EXCL_UNLINK

// folder is one that is watched; depth is how far below it others still are.
type folder struct {
	path  string
	depth int
}

// writtenFile is a file that was just written.
type writtenFile struct {
	path string
	stat unix.Stat_t
}

// watcher knows by inotify which files were just written. One goroutine uses it; the counters are read by others.
type watcher struct {
	fd      int
	most    int // folders watched at once
	roots   []folder
	folders map[int32]folder
	buf     []byte

	at    map[string]uint64 // path → CLOCK_BOOTTIME when it was last written
	order []string          // the same paths, in the order they came; a ring of maxWritten
	next  int

	watching  atomic.Int64
	unwatched atomic.Uint64 // folders beyond the bounds, or not to be watched
	overflows atomic.Uint64 // the kernel's queue was full
}

func newWatcher(roots []folder) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &watcher{fd: fd, most: maxWatches, roots: roots, folders: map[int32]folder{}, buf: make([]byte, 64<<10), at: map[string]uint64{}}
	w.watch(w.roots, maxBefore, func(writtenFile) {}) // what lies there is not news
	clear(w.at)
	w.order, w.next = nil, 0
	return w, nil
}

// standardFolders are the folders of this host, each once: /bin is mostly another name of /usr/bin.
func standardFolders() []folder {
	var out []folder
	seen := map[string]bool{}
	add := func(path string, depth int) {
		real, err := filepath.EvalSymlinks(path)
		if err != nil || seen[real] {
			return
		}
		seen[real] = true
		out = append(out, folder{real, depth})
	}
	for _, path := range writableFolders {
		add(path, maxDepth)
	}
	for _, path := range programFolders {
		add(path, 0)
	}
	return out
}

func (w *watcher) close() { unix.Close(w.fd) }

// watch adds folders and those below them, the upper ones first, as long as no more than most are watched; it tells of
// young files in them. A watch stands before its folder is read, so that nothing falls between.
func (w *watcher) watch(queue []folder, most int, tell func(writtenFile)) {
	for ; len(queue) > 0; queue = queue[1:] {
		f := queue[0]
		if len(w.folders) >= most {
			w.unwatched.Add(1)
			continue
		}
		wd, err := unix.InotifyAddWatch(w.fd, f.path, watchMask)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) { // gone again, else
				w.unwatched.Add(1)
			}
			continue
		}
		w.folders[int32(wd)] = f
		names, err := list(f.path)
		if err != nil || len(names) == maxListed {
			w.unwatched.Add(1)
		}
		for _, name := range names {
			path := filepath.Join(f.path, name)
			var st unix.Stat_t
			if unix.Lstat(path, &st) != nil {
				continue
			}
			switch {
			case st.Mode&unix.S_IFMT == unix.S_IFDIR && f.depth > 0 && len(queue) < maxWatches:
				queue = append(queue, folder{path, f.depth - 1})
			case young(&st):
				w.note(path, &st, tell)
			}
		}
	}
	w.watching.Store(int64(len(w.folders)))
}

// list gives at most maxListed names of a folder.
func list(path string) ([]string, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxListed)
	if errors.Is(err, io.EOF) {
		err = nil // it is empty
	}
	return names, err
}

// leave drops the watch of a folder that was moved away, and of those below it: their paths are no longer true.
func (w *watcher) leave(path string) {
	for wd, f := range w.folders {
		if f.path == path || strings.HasPrefix(f.path, path+"/") {
			_, _ = unix.InotifyRmWatch(w.fd, uint32(wd)) // it may be gone already
			delete(w.folders, wd)
		}
	}
	w.watching.Store(int64(len(w.folders)))
}

// read takes what waits and tells of each file that was written. It does not block.
func (w *watcher) read(tell func(writtenFile)) error {
	for range 64 { // the processes must have their turn
		n, err := unix.Read(w.fd, w.buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("inotify: %w", err)
		}
		for rest := w.buf[:n]; len(rest) > 0; {
			var c change
			if c, rest, err = parseChange(rest); err != nil {
				return fmt.Errorf("inotify: %w", err)
			}
			w.handle(c, tell)
		}
	}
	return nil
}

func (w *watcher) handle(c change, tell func(writtenFile)) {
	if c.mask&unix.IN_Q_OVERFLOW != 0 {
		w.overflows.Add(1)
		w.watch(w.roots, w.most, tell) // what was lost shows as young files
		return
	}
	f, ok := w.folders[c.watch]
	switch {
	case !ok:
		return // of a folder that was left
	case c.mask&unix.IN_IGNORED != 0:
		delete(w.folders, c.watch)
		w.watching.Store(int64(len(w.folders)))
		return
	case c.name == "":
		return // the folder's own
	}
	path := filepath.Join(f.path, c.name)
	if c.mask&unix.IN_ISDIR != 0 {
		switch {
		case c.mask&unix.IN_MOVED_FROM != 0:
			w.leave(path)
		case c.mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0 && f.depth > 0:
			w.watch([]folder{{path, f.depth - 1}}, w.most, tell)
		}
		return
	}
	var st unix.Stat_t
	if c.mask&unix.IN_MOVED_FROM != 0 || unix.Lstat(path, &st) != nil {
		return // gone again
	}
	// A file that is only made is written next, and told of when it is closed; but a link is whole at once.
	if c.mask&(unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_ATTRIB) != 0 || st.Nlink > 1 {
		w.note(path, &st, tell)
	}
}

// note remembers a regular file as just written.
func (w *watcher) note(path string, st *unix.Stat_t, tell func(writtenFile)) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	if _, known := w.at[path]; !known {
		if len(w.order) < maxWritten {
			w.order = append(w.order, path)
		} else {
			delete(w.at, w.order[w.next])
			w.order[w.next] = path
			w.next = (w.next + 1) % maxWritten
		}
	}
	w.at[path] = bpf.BootTime()
	tell(writtenFile{path, *st})
}

// justWritten says whether the file by this path was written less than bpf.JustWritten ago.
func (w *watcher) justWritten(path string) bool {
	at, ok := w.at[path]
	return ok && bpf.BootTime()-at < uint64(bpf.JustWritten)
}

// young says whether a file changed less than bpf.JustWritten ago by the clock of its file system.
func young(st *unix.Stat_t) bool {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME, &now) != nil {
		return false
	}
	age := now.Nano() - st.Ctim.Nano()
	return age >= 0 && age < int64(bpf.JustWritten)
}

// change is one inotify_event, inotify(7).
type change struct {
	watch int32
	mask  uint32
	name  string
}

const sizeChange = 16

// errChange says that what was read is no inotify_event.
var errChange = errors.New("malformed event")

// parseChange reads the first event of b and returns what follows it.
func parseChange(b []byte) (change, []byte, error) {
	order := binary.NativeEndian
	if len(b) < sizeChange {
		return change{}, nil, fmt.Errorf("%w: %d bytes", errChange, len(b))
	}
	size := order.Uint32(b[12:])
	if size > unix.NAME_MAX+1+sizeChange || int(size) > len(b)-sizeChange {
		return change{}, nil, fmt.Errorf("%w: a name of %d bytes", errChange, size)
	}
	name := b[sizeChange : sizeChange+size]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	if bytes.IndexByte(name, '/') >= 0 {
		return change{}, nil, fmt.Errorf("%w: a name with a slash", errChange)
	}
	return change{int32(order.Uint32(b)), order.Uint32(b[4:]), string(name)}, b[sizeChange+size:], nil
}
