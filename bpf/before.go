package bpf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// One read of an iterator is of at most this many tasks or sockets, each of which gives back eight bytes. Before each the
// ring must be three quarters empty; a reader that takes none for this long is not waited for any more, and what then finds
// the ring full is counted.
const (
	beforeStep  = 64
	beforePause = 10 * time.Millisecond
	beforeWait  = 3000 // pauses
)

// TellBefore has the kernel tell of every process, and every TCP socket, that was there before these programs were: into
// the ring, marked event.FlagBeforeAgent, no faster than the reader takes them. Run does so at its start. Where the kernel
// has no such iterators it does nothing: a check says so, and the reader has filled its tree from /proc.
func (k *Kernel) TellBefore(ctx context.Context) error {
	k.mu.Lock()
	c := k.before
	k.mu.Unlock()
	if c == nil {
		return nil
	}
	for _, name := range []string{"processes", "sockets"} {
		if p := c.Programs[name]; p != nil {
			if err := k.iterate(ctx, p); err != nil {
				return fmt.Errorf("tell of the %s that were before: %w", name, err)
			}
		}
	}
	return nil
}

func (k *Kernel) iterate(ctx context.Context, p *ebpf.Program) error {
	l, err := link.AttachIter(link.IterOptions{Program: p})
	if err != nil {
		return err
	}
	defer l.Close()
	tasks, err := l.Open()
	if err != nil {
		return err
	}
	defer tasks.Close()
	pause := time.NewTicker(beforePause)
	defer pause.Stop()
	ring, err := k.watchRing()
	if err != nil {
		return err
	}
	defer ring.close()
	read := make([]byte, 8*beforeStep)
	for waited := 0; ; {
		for ; waited < beforeWait && ring.waiting() > uint64(k.opt.RingBytes)/4; waited++ {
			select {
			case <-ctx.Done():
				return nil
			case <-pause.C:
			}
		}
		n, err := tasks.Read(read)
		switch {
		case errors.Is(err, io.EOF), n == 0 && err == nil:
			return nil
		case errors.Is(err, unix.EAGAIN): // it was given much to look at, and nothing to tell
		case err != nil:
			return err
		}
	}
}

// ringPositions are the two positions of a ring, without its data.
type ringPositions struct{ consumer, producer []byte }

func (k *Kernel) watchRing() (*ringPositions, error) {
	page := os.Getpagesize()
	consumer, err := unix.Mmap(k.ring.FD(), 0, page, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the ring's read position: %w", err)
	}
	producer, err := unix.Mmap(k.ring.FD(), int64(page), page, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the ring's write position: %w", err), unix.Munmap(consumer))
	}
	return &ringPositions{consumer, producer}, nil
}

// waiting is how many bytes of the ring the reader has not taken.
func (p *ringPositions) waiting() uint64 {
	consumed := atomic.LoadUint64((*uint64)(unsafe.Pointer(&p.consumer[0])))
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&p.producer[0]))) - consumed
}

func (p *ringPositions) close() error {
	return errors.Join(unix.Munmap(p.consumer), unix.Munmap(p.producer))
}

// cgroupID is the kernel's name of a cgroup: its folder's inode.
func cgroupID(dir string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return st.Ino, nil
}
