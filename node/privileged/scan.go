package privileged

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/bpf/executable"
	"github.com/omega-mesh/omega/modules/yara"
	"github.com/omega-mesh/omega/node/privileged/confine"
	"github.com/omega-mesh/omega/node/privileged/quarantine"
	"github.com/omega-mesh/omega/node/privileged/scanner"
	"github.com/omega-mesh/omega/swarm/event"
)

// ScanRequest says what to match with this host's YARA rules: what a process executes, or a file that was quarantined. The other
// half names processes and responses; of files it hears nothing but what a rule found.
type ScanRequest struct {
	// Response is the id of a quarantine; empty for a process.
	Response string `cbor:"1,keyasint,omitempty"`
	// PID is a process; Parent is asked for its view of the file system where it has ended.
	PID    uint32 `cbor:"2,keyasint,omitempty"`
	Parent uint32 `cbor:"3,keyasint,omitempty"`
	// MountNS is the process's mount namespace, 0 where not known.
	MountNS uint32 `cbor:"4,keyasint,omitempty"`
	// Exe is what it executes, Script what an interpreter was given, both as the process sees them.
	Exe    []byte `cbor:"5,keyasint,omitempty"`
	Script []byte `cbor:"6,keyasint,omitempty"`
	// Written says that Exe is to be looked at; else Script alone.
	Written bool `cbor:"7,keyasint,omitempty"`
}

// ScanReport is what came of it.
type ScanReport struct {
	Found []Scanned `cbor:"1,keyasint,omitempty"` // files that a rule found, 2 at most
	Gone  bool      `cbor:"2,keyasint,omitempty"` // a file was no more to be had
	Why   string    `cbor:"3,keyasint,omitempty"` // something was not scanned to its end
}

// Scanned is a file that a rule found.
type Scanned struct {
	Path    []byte       `cbor:"1,keyasint"`
	Size    int64        `cbor:"2,keyasint"`
	Cut     bool         `cbor:"3,keyasint,omitempty"` // only its beginning was looked at, and the hashes are of that
	SHA256  string       `cbor:"4,keyasint"`
	BLAKE3  string       `cbor:"5,keyasint"`
	Matches []yara.Match `cbor:"6,keyasint"`
}

const (
	// scriptAge is how young a script's last change must be.
	scriptAge = time.Minute
	// maxLookedAt is how many files are remembered as looked at, so that what runs again is not scanned again.
	maxLookedAt = 4096
)

// errGone says that a process ended before what it ran could be opened.
var errGone = errors.New("it is gone")

// lookedAt are files that were scanned and that no rule found, as they were then. What was found is scanned each time it runs.
type lookedAt struct {
	mu    sync.Mutex
	files map[executable.Stamp]bool
	order []executable.Stamp
}

func (l *lookedAt) has(v executable.Stamp) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.files[v]
}

func (l *lookedAt) add(v executable.Stamp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.files == nil {
		l.files = map[executable.Stamp]bool{}
	}
	if l.files[v] {
		return
	}
	if len(l.order) >= maxLookedAt {
		delete(l.files, l.order[0])
		l.order = l.order[1:]
	}
	l.files[v], l.order = true, append(l.order, v)
}

// SpawnScanner starts the process of a scanner.Scanner for the node in dir: another user than the node's other half, no
// capability, and nothing of the file system but what it is linked with. Where the kernel has no Landlock, the process's own
// filter of system calls keeps it from files alone.
func SpawnScanner(dir string) func(line, output *os.File) (scanner.Process, error) {
	return func(line, output *os.File) (scanner.Process, error) {
		var uid uint32
		if os.Geteuid() == 0 {
			uid = scannerUID(dir)
		}
		c, err := Spawn(ChildOptions{
			Name: scanner.Name, UID: uid, Files: []*os.File{line}, Output: output, Dies: syscall.SIGKILL,
			Env: []string{"HOME=/", "PATH=/usr/bin:/bin", "GOTRACEBACK=none"},
			Confine: func() error {
				if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
					return fmt.Errorf("no_new_privs: %w", err)
				}
				_, err := confine.ThisThread("/proc/self/exe", "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null")
				if errors.Is(err, confine.ErrUnsupported) {
					return nil
				}
				return err
			},
		})
		if err != nil {
			return nil, err
		}
		// Where memory is short it goes first: it is started again, and what protects the host is not. It is no more than a wish.
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", c.PID()), []byte("500"), 0)
		return c, nil
	}
}

// scannerUID is UID for the scanner: neither half of the node can reach it, nor it them.
func scannerUID(dir string) uint32 {
	uid := UID(filepath.Join(dir, "scanner"))
	if uid == UID(dir) {
		uid = uidMin + (uid-uidMin+1)%(uidMax-uidMin+1)
	}
	return uid
}

// KeepScanner has the rules compiled, and ends the scanner's process when ctx ends.
func (h *Host) KeepScanner(ctx context.Context) {
	if h.opt.Scanner == nil {
		return
	}
	defer h.opt.Scanner.Close()
	if err := h.opt.Scanner.Start(ctx); err != nil && !errors.Is(err, scanner.ErrNone) {
		h.opt.Log.Warn("YARA rules are not compiled: the next file to scan tries again", "err", err)
	}
	<-ctx.Done()
}

// Scan implements Service.
func (h *Host) Scan(ctx context.Context, r ScanRequest) (ScanReport, error) {
	var out ScanReport
	if h.opt.Scanner == nil || h.opt.Scanner.Off() {
		return out, scanner.ErrNone
	}
	if r.Response != "" {
		if h.sealed == nil {
			return out, quarantine.ErrUnknown
		}
		in, rec, err := h.sealed.Reader(r.Response)
		if err != nil {
			return out, err
		}
		defer in.Close()
		h.scan(ctx, in, rec.Path, &out)
		return out, nil
	}
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	take := func(f *os.File, err error) {
		switch {
		case errors.Is(err, errGone):
			out.Gone = true
		case err != nil:
			out.Why = cut(err.Error())
		case f != nil:
			files = append(files, f)
		}
	}
	if r.Written {
		take(openExecuted(&r))
	}
	if len(r.Script) > 0 {
		take(openScript(&r))
	}
	for i, f := range files {
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		path := string(r.Exe)
		if i > 0 || !r.Written {
			path = string(r.Script)
		}
		v, err := regular(f)
		if err != nil {
			out.Why = cut(path + ": " + err.Error())
			continue
		}
		if h.looked.has(v) {
			continue
		}
		if clean := h.scan(ctx, f, path, &out); clean {
			h.looked.add(v)
		}
	}
	return out, nil
}

// scan has one file matched, and says whether it was looked at to the end and no rule found it.
func (h *Host) scan(ctx context.Context, in io.Reader, path string, out *ScanReport) (clean bool) {
	res, err := h.opt.Scanner.Scan(ctx, in, path)
	if err != nil {
		out.Why = cut(path + ": " + err.Error())
	}
	if res == nil {
		return false
	}
	if len(res.Matches) > 0 {
		out.Found = append(out.Found, Scanned{Path: []byte(path[:min(len(path), MaxText)]), Size: res.Size, Cut: res.Cut, SHA256: res.SHA256, BLAKE3: res.BLAKE3, Matches: res.Matches})
	}
	return err == nil && len(res.Matches) == 0
}

// openExecuted opens what a process executes. The process's own link leads to it whatever became of its name; where the process
// is gone, or executes something else by now, its name is all there is.
func openExecuted(r *ScanRequest) (*os.File, error) {
	link := "/proc/" + strconv.FormatUint(uint64(r.PID), 10) + "/exe"
	if at, err := os.Readlink(link); err == nil && bare(at) == bare(string(r.Exe)) {
		if f, err := os.OpenFile(link, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
			return f, nil
		}
	}
	return openAs(r, string(r.Exe))
}

// bare is a path without what the kernel puts around one: a file that has no name is "/memfd:x (deleted)" by its link, and
// "memfd:x" to a sensor.
func bare(path string) string {
	return strings.TrimPrefix(strings.TrimSuffix(path, " (deleted)"), "/")
}

// openScript opens what an interpreter was given, if that was written a moment ago; else it gives nothing.
func openScript(r *ScanRequest) (*os.File, error) {
	path := string(r.Script)
	if !filepath.IsAbs(path) {
		cwd, err := os.Readlink("/proc/" + strconv.FormatUint(uint64(r.PID), 10) + "/cwd")
		if err != nil {
			return nil, errGone
		}
		path = filepath.Join(cwd, path)
	}
	f, err := openAs(r, path)
	if err != nil {
		return nil, err
	}
	v, err := regular(f)
	if err == nil {
		if age := time.Since(time.Unix(v.Changed.Unix())); age >= 0 && age < scriptAge {
			return f, nil
		}
	}
	f.Close()
	return nil, err
}

// openAs opens a path as the process sees it: below the root it has, or its parent of the same mount namespace; where neither
// is left, as we see it, if that is the same.
func openAs(r *ScanRequest, path string) (*os.File, error) {
	if !filepath.IsAbs(path) || strings.IndexByte(path, 0) >= 0 {
		return nil, errGone
	}
	for _, pid := range []uint32{r.PID, r.Parent} {
		dir := "/proc/" + strconv.FormatUint(uint64(pid), 10)
		if pid == 0 || pid == r.Parent && namespace(dir) != r.MountNS {
			continue
		}
		if f, err := openBelow(dir+"/root", path); err == nil {
			return f, nil
		}
	}
	if r.MountNS == 0 || namespace("/proc/self") == r.MountNS {
		if f, err := openBelow("/", path); err == nil {
			return f, nil
		}
	}
	return nil, errGone
}

// openBelow opens path with root as the root of every link in it.
func openBelow(root, path string) (*os.File, error) {
	at, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	// A FIFO must not hold us up.
	fd, err := unix.Openat2(at, path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// namespace is the number of a process's mount namespace, 0 where that is not to be had.
func namespace(dir string) uint32 {
	var st unix.Stat_t
	if unix.Stat(dir+"/ns/mnt", &st) != nil {
		return 0
	}
	return uint32(st.Ino)
}

// regular says which file f is, if it is one that has bytes of its own.
func regular(f *os.File) (executable.Stamp, error) {
	at, err := executable.StampOf(f)
	if err == nil && quarantine.Pseudo(int(f.Fd())) {
		err = fmt.Errorf("%w: it lies in a file system of the kernel's", executable.ErrNotRegular)
	}
	return at, err
}

// ScanStatus implements Service.
func (h *Host) ScanStatus(context.Context) (scanner.Status, error) {
	if h.opt.Scanner == nil {
		return scanner.Status{Built: yara.Built, Why: "no rules are configured"}, nil
	}
	return h.opt.Scanner.Status(), nil
}

// checkScan bounds a request that came over the line.
func checkScan(r *ScanRequest) error {
	if r.Response != "" && !event.ValidResponseID(r.Response) {
		return fmt.Errorf("%w: response id %.40q", ErrFrame, r.Response)
	}
	if r.Response == "" && r.PID == 0 || r.PID > 1<<22 || r.Parent > 1<<22 || len(r.Exe) > MaxText || len(r.Script) > MaxText {
		return fmt.Errorf("%w: pid %d, names of %d and %d bytes", ErrFrame, r.PID, len(r.Exe), len(r.Script))
	}
	return nil
}
