package node

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// window keeps the newest items of a stream for those who ask, and lets them follow it. A follower holds only its
// place: one that is too slow loses the oldest items, which are counted, and costs nobody memory or time.
type window[T any] struct {
	mu      sync.Mutex
	buf     []T    // ring
	next    uint64 // number of the next item; items next-held … next-1 are in the ring
	held    uint64
	waiting int
	wake    chan struct{}
	dropped uint64
}

func newWindow[T any](size int) *window[T] {
	return &window[T]{buf: make([]T, size), wake: make(chan struct{})}
}

// add appends v, and pushes the oldest out when full. It never blocks.
func (w *window[T]) add(v T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf[w.next%uint64(len(w.buf))] = v
	w.next++
	w.held = min(w.held+1, uint64(len(w.buf)))
	if w.waiting > 0 {
		close(w.wake)
		w.wake, w.waiting = make(chan struct{}), 0
	}
}

// errBehind ends a strict follower that items were pushed out from under.
var errBehind = errors.New("fell behind")

// each yields every item held, oldest first, and with follow every later one until ctx ends or yield fails.
func (w *window[T]) each(ctx context.Context, follow bool, yield func(T) error) error {
	return w.walk(ctx, follow, false, yield)
}

// strict follows like each, but fails with errBehind rather than leave one item out.
func (w *window[T]) strict(ctx context.Context, yield func(T) error) error {
	return w.walk(ctx, true, true, yield)
}

func (w *window[T]) walk(ctx context.Context, follow, strict bool, yield func(T) error) error {
	var batch [64]T
	w.mu.Lock()
	at, end := w.next-w.held, w.next
	w.mu.Unlock()
	for {
		w.mu.Lock()
		if oldest := w.next - w.held; at < oldest {
			w.dropped += oldest - at
			at = oldest
			if strict {
				w.mu.Unlock()
				return errBehind
			}
		}
		limit := w.next
		if !follow {
			limit = min(limit, end)
		}
		n := 0
		for at < limit && n < len(batch) {
			batch[n] = w.buf[at%uint64(len(w.buf))]
			at++
			n++
		}
		var wake chan struct{}
		if n == 0 && follow {
			w.waiting++
			wake = w.wake
		}
		w.mu.Unlock()
		for _, v := range batch[:n] {
			if err := yield(v); err != nil {
				return err
			}
		}
		switch {
		case wake != nil:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-wake:
			}
		case n == 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// snapshot copies what is held, oldest first.
func (w *window[T]) snapshot() []T {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]T, 0, w.held)
	for i := w.next - w.held; i < w.next; i++ {
		out = append(out, w.buf[i%uint64(len(w.buf))])
	}
	return out
}

// sort puts what is held into another order; nobody may be following yet.
func (w *window[T]) sort(order func(a, b T) int) {
	items := w.snapshot()
	slices.SortStableFunc(items, order)
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, v := range items {
		w.buf[(w.next-w.held+uint64(i))%uint64(len(w.buf))] = v
	}
}

// stat is how many are held, how many may be, and how many followers lost.
func (w *window[T]) stat() (held, size int, dropped uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int(w.held), len(w.buf), w.dropped
}
