package wasm

import (
	"fmt"
	"runtime"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// linear is a guest's memory: as many addresses as it may ever have, taken at once, of which only what it touches is memory. So
// growing it copies nothing, and is as cheap as the fuel it takes; in Go's heap the way from 256 KiB to 4 MiB, page by page,
// took 50 to 120 ms of the events' way. Nor is it the collector's.
type linear struct{ all []byte }

var _ experimental.LinearMemory = (*linear)(nil)

// allocate takes the addresses of most bytes. It panics where the kernel gives none: wazero's contract of an allocator has no error,
// and instantiate makes one of it.
func allocate(most uint64) *linear {
	b, err := unix.Mmap(-1, 0, int(most), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		panic(noMemory{fmt.Errorf("%d bytes of addresses for a guest: %w", most, err)})
	}
	l := &linear{b}
	runtime.AddCleanup(l, func(b []byte) { _ = unix.Munmap(b) }, b)
	return l
}

// noMemory is what allocate panics with.
type noMemory struct{ error }

// Reallocate implements experimental.LinearMemory.
func (l *linear) Reallocate(size uint64) []byte {
	if size > uint64(len(l.all)) {
		return nil
	}
	return l.all[:size]
}

// Free implements experimental.LinearMemory: the memory goes back at once, the addresses when nobody holds them any more: what
// still read there would read zeros, and not end the process.
func (l *linear) Free() { _ = unix.Madvise(l.all, unix.MADV_DONTNEED) }
