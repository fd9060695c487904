package bpf

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Bounds of hashing what is executed.
const (
	maxHashed  = 256 << 20 // bytes of one file; a larger one is counted and left alone
	maxDigests = 8192      // remembered; all are forgotten past it
	maxPerHash = 1024      // files that one response denies by their hash
)

// fsIocGetVersion is FS_IOC_GETVERSION, the number of FS_IOC_GETFLAGS but for its letter.
const fsIocGetVersion = unix.FS_IOC_GETFLAGS + ('v'-'f')<<8

// stamp tells whether a file is the one that was hashed, unchanged: a write moves the time of its inode's change.
type stamp struct {
	device, inode, size uint64
	changed             unix.Timespec
}

// unhashedValue is struct unhashed of kernel/execution.c.
type unhashedValue struct {
	Inode  uint64
	Start  uint64
	Device uint32
	PID    uint32
	Path   [pathKey]byte
}

// countHashes tells the program how many hashes are denied: with none it tells of nothing.
func (k *Kernel) countHashes() error {
	if k.execution == nil {
		return nil
	}
	n := uint64(0)
	for _, e := range k.enforced {
		if e.target.SHA256 != "" {
			n++
		}
	}
	return k.execution.Maps["hashes"].Put(uint32(0), n)
}

// unhashed counts executions that were not held against the denied hashes.
func (k *Kernel) unhashed() uint64 {
	if k.execution == nil {
		return 0
	}
	var lost uint64
	if err := k.execution.Maps["hashes"].Lookup(uint32(1), &lost); err != nil {
		lost = 0
	}
	return lost + k.unread.Load()
}

// hashExecutions hashes what is executed while a hash is denied, one file at a time, until ctx ends. The ring is the
// queue: what finds it full is counted.
func (k *Kernel) hashExecutions(ctx context.Context) {
	if k.execution == nil {
		return
	}
	r, err := ringbuf.NewReader(k.execution.Maps["unhashed"])
	if err != nil {
		k.mu.Lock()
		k.checks = append(k.checks, Check{Name: "actuator/deny-exec/hash", Detail: err.Error(), Lost: "no execution can be denied by its hash"})
		k.mu.Unlock()
		return
	}
	defer context.AfterFunc(ctx, func() { r.Close() })()
	defer r.Close()
	known := map[stamp][sha256.Size]byte{}
	buffer := make([]byte, 64<<10)
	var record ringbuf.Record
	for r.ReadInto(&record) == nil {
		var u unhashedValue
		if _, err := binary.Decode(record.RawSample, binary.NativeEndian, &u); err != nil {
			continue
		}
		if err := k.judge(&u, known, buffer); err != nil {
			k.unread.Add(1)
		}
	}
}

// judge hashes one executed file and, where its hash is denied, ends the process and denies the inode from then on.
func (k *Kernel) judge(u *unhashedValue, known map[stamp][sha256.Size]byte, buffer []byte) error {
	f, st, err := u.open()
	if err != nil {
		return err
	}
	defer f.Close()
	at := stamp{st.Dev, st.Ino, uint64(st.Size), st.Ctim}
	sum, ok := known[at]
	if !ok {
		if st.Size > maxHashed {
			return fmt.Errorf("%d bytes, more than %d", st.Size, maxHashed)
		}
		hash := sha256.New()
		if _, err := io.CopyBuffer(struct{ io.Writer }{hash}, struct{ io.Reader }{io.LimitReader(f, maxHashed)}, buffer); err != nil {
			return err
		}
		hash.Sum(sum[:0])
		// One changed a moment ago may change again within the clock's grain, and its stamp would not tell.
		if age := time.Since(time.Unix(st.Ctim.Unix())); age > time.Second {
			if len(known) >= maxDigests {
				clear(known)
			}
			known[at] = sum
		}
	}
	want := hex.EncodeToString(sum[:])
	k.mu.Lock()
	defer k.mu.Unlock()
	key := appendUint32(appendUint64(nil, u.Inode), u.Device)
	generation, err := unix.IoctlGetUint32(int(f.Fd()), fsIocGetVersion)
	if err != nil {
		generation = 0 // whatever file has the number
	}
	slot := slot{"deny_inode", string(appendUint32(key, generation))}
	denied := false
	var errs []error
	for _, e := range k.enforced {
		if e.target.SHA256 != want || e.expires <= BootTime() {
			continue
		}
		denied = true
		if !slices.Contains(e.slots, slot) && len(e.slots) < maxPerHash {
			e.slots = append(e.slots, slot)
			errs = append(errs, k.settle(slot))
		}
	}
	if !denied {
		return nil
	}
	errs = append(errs, k.countRules(), u.kill())
	return errors.Join(errs...)
}

// open opens what was executed: the process's own image or, where that is gone already, its path, if it leads to the same file.
func (u *unhashedValue) open() (*os.File, *unix.Stat_t, error) {
	var errs []error
	for _, path := range []string{fmt.Sprintf("/proc/%d/exe", u.PID), cString(u.Path[:])} {
		if !strings.HasPrefix(path, "/") {
			continue
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f := os.NewFile(uintptr(fd), path)
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		if err == nil && (st.Ino != u.Inode || unix.Major(st.Dev)<<20|unix.Minor(st.Dev) != u.Device || st.Mode&unix.S_IFMT != unix.S_IFREG) {
			err = fmt.Errorf("%s is another file now", path)
		}
		if err == nil {
			return f, &st, nil
		}
		errs = append(errs, err)
		f.Close()
	}
	return nil, nil, errors.Join(errs...)
}

// kill ends the process that was started, if it is still that one.
func (u *unhashedValue) kill() error {
	fd, err := unix.PidfdOpen(int(u.PID), 0)
	if err != nil {
		return nil // it ended by itself
	}
	defer unix.Close(fd)
	if start, err := ProcessStart(u.PID); err != nil || !sameStart(start, u.Start) {
		return nil
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}
