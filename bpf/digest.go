package bpf

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/bpf/executable"
)

// maxPerHash bounds the files that one response denies by their hash.
const maxPerHash = 1024

// fsIocGetVersion is FS_IOC_GETVERSION, the number of FS_IOC_GETFLAGS but for its letter.
const fsIocGetVersion = unix.FS_IOC_GETFLAGS + ('v'-'f')<<8

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
	var hasher executable.Hasher
	var record ringbuf.Record
	for r.ReadInto(&record) == nil {
		var u unhashedValue
		if _, err := binary.Decode(record.RawSample, binary.NativeEndian, &u); err != nil {
			continue
		}
		if err := k.judge(ctx, &u, &hasher); err != nil {
			k.unread.Add(1)
		}
	}
}

// judge hashes one executed file and, where its hash is denied, ends the process and denies the inode from then on.
func (k *Kernel) judge(ctx context.Context, u *unhashedValue, hasher *executable.Hasher) error {
	f, err := (&executable.Image{PID: u.PID, Path: cString(u.Path[:]), Inode: u.Inode, Device: uint64(u.Device)}).Open()
	if err != nil {
		return err
	}
	defer f.Close()
	sums, err := hasher.Sum(ctx, f, false)
	if err != nil {
		return err
	}
	want := hex.EncodeToString(sums.SHA256[:])
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
