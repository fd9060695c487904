package entropy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Source is one generator of random bytes.
type Source struct {
	// Name is how it is named when it fails: "kernel", "tpm", "token", "jitter".
	Name string
	// MinEntropy is the least entropy of one byte that it claims, in bits: over 0, at most 8. The cut-offs follow from it.
	MinEntropy float64
	// Block is how many bytes of it go into each output.
	Block int
	// Read fills p; it returns soon after ctx ends. It is called from one goroutine at a time.
	Read func(ctx context.Context, p []byte) error
}

const (
	blockBytes  = 64   // of a generator whose bytes have full entropy
	jitterBytes = 1024 // at a third of a bit each, more than 256 bits
)

func (s *Source) valid() error {
	if s.Name == "" || s.Read == nil || !(s.MinEntropy > 0 && s.MinEntropy <= 8) || s.Block < 1 || s.Block > 1<<16 {
		return fmt.Errorf("entropy: source %q: it needs a way to be read, 0 to 8 bits a byte, and a block of 1 to 65536 bytes", s.Name)
	}
	return nil
}

// kernel is getrandom(2), which waits until the kernel's generator was seeded.
func kernel() Source {
	return Source{Name: "kernel", MinEntropy: 8, Block: blockBytes, Read: func(_ context.Context, p []byte) error {
		for len(p) > 0 {
			n, err := unix.Getrandom(p, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return fmt.Errorf("getrandom: %w", err)
			}
			p = p[n:]
		}
		return nil
	}}
}

// Device is a generator of full entropy behind a device: a TPM's, a token's.
func Device(name string, read func(ctx context.Context, p []byte) error) Source {
	return Source{Name: name, MinEntropy: 8, Block: blockBytes, Read: read}
}

// Jitter is the processor's: the lowest byte of the time, in ns, that a walk through memory takes. What varies is caches,
// interrupts, frequency and the clock's own grain. It claims a third of a bit a sample, as the kernel's own jitter
// generator does (crypto/jitterentropy.c, osr 3): a clock too coarse to show any is found out by the tests.
func Jitter() Source {
	// Larger than a first-level cache, so that where a walk lands decides how long it takes.
	memory := make([]uint32, 1<<15)
	var at uint32
	return Source{Name: "jitter", MinEntropy: 1.0 / 3, Block: jitterBytes, Read: func(ctx context.Context, p []byte) error {
		begin := time.Now()
		before := time.Duration(0)
		for i := range p {
			for range 32 {
				at = at*1664525 + 1013904223 + memory[at>>17]
				memory[at>>17] ^= at
			}
			now := time.Since(begin)
			p[i] = byte(now - before)
			before = now
			at += uint32(now)
		}
		return ctx.Err()
	}}
}
