package entropy

import (
	"context"
	"crypto/hkdf"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

var (
	// ErrKernel: the kernel's own source failed; nothing may be made of what is left.
	ErrKernel = errors.New("the kernel's generator failed: no key may be made on this host")
	// ErrClosed: the reader was closed.
	ErrClosed = errors.New("entropy: closed")
	// errSilent drops a source that does not answer.
	errSilent = fmt.Errorf("it did not answer within %s", patience)
)

const (
	// patience is how long a read waits for a source: a TPM takes a second for its start-up tests, and a bus that hangs
	// must not hold up a key.
	patience  = 10 * time.Second
	maxOutput = 255 * sha512.Size // of one HKDF expansion
	stateSize = sha512.Size
)

// Status is what became of a source.
type Status struct {
	Name   string
	Failed error // nil while it is in use
	Bytes  uint64
}

// Reader gives the mixed bytes. It is safe for concurrent use; reads are served one after the other.
type Reader struct {
	cancel  context.CancelFunc
	ctx     context.Context
	done    sync.WaitGroup
	workers []*worker

	reading sync.Mutex // the state, the kernel's tests
	state   []byte
	kernel  *tested

	mu     sync.Mutex // what Status shows
	status []Status   // the kernel's first, then by worker
}

// tested is a source under its tests; it belongs to one goroutine.
type tested struct {
	Source
	health *health
}

// start runs the start-up tests.
func (t *tested) start(ctx context.Context) error {
	b, err := t.take(ctx, startSamples)
	clear(b)
	return err
}

func (t *tested) take(ctx context.Context, n int) ([]byte, error) {
	b := make([]byte, n)
	if err := t.Read(ctx, b); err != nil {
		return nil, err
	}
	return b, t.health.check(b)
}

// worker asks one source, in a goroutine of its own.
type worker struct {
	*tested
	ask    chan chan<- []byte // each answered once: with a block, or nil when the source has failed
	gone   chan struct{}      // closed when nobody answers any more
	cancel context.CancelFunc
	index  int // in status
}

// Open tests the kernel's source and starts the others; seed, if any, is mixed in once. It ends with ctx or Close.
func Open(ctx context.Context, seed []byte, sources ...Source) (*Reader, error) {
	return open(ctx, seed, kernel(), sources)
}

func open(ctx context.Context, seed []byte, first Source, sources []Source) (*Reader, error) {
	for _, s := range append([]Source{first}, sources...) {
		if err := s.valid(); err != nil {
			return nil, err
		}
	}
	state := sha512.Sum512(seed)
	r := &Reader{state: state[:], kernel: &tested{first, newHealth(first.MinEntropy)}, status: []Status{{Name: first.Name}}}
	if err := r.kernel.start(ctx); err != nil {
		return nil, fmt.Errorf("entropy: %w: %s: %w", ErrKernel, first.Name, err)
	}
	r.ctx, r.cancel = context.WithCancel(ctx)
	for i, s := range sources {
		own, cancel := context.WithCancel(r.ctx)
		w := &worker{tested: &tested{s, newHealth(s.MinEntropy)}, ask: make(chan chan<- []byte), gone: make(chan struct{}), cancel: cancel, index: i + 1}
		r.workers = append(r.workers, w)
		r.status = append(r.status, Status{Name: s.Name})
		r.done.Go(func() { r.serve(own, w) })
	}
	return r, nil
}

// Close ends the workers and waits for them: no longer than a source's Read takes to see that its context ended.
func (r *Reader) Close() error {
	r.cancel()
	r.done.Wait()
	r.reading.Lock()
	defer r.reading.Unlock()
	clear(r.state)
	return nil
}

// Status says what became of each source, the kernel's first.
func (r *Reader) Status() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Status(nil), r.status...)
}

// drop gives a source up for good; the first reason stands.
func (r *Reader) drop(index int, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status[index].Failed == nil {
		r.status[index].Failed = why
	}
}

func (r *Reader) failed(index int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status[index].Failed
}

func (r *Reader) gave(index, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status[index].Bytes += uint64(n)
}

// serve answers for one source until ctx ends or the source fails.
func (r *Reader) serve(ctx context.Context, w *worker) {
	defer close(w.gone)
	defer w.cancel()
	if err := w.start(ctx); err != nil {
		if ctx.Err() == nil {
			r.drop(w.index, fmt.Errorf("at the start: %w", err))
		}
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case answer := <-w.ask:
			b, err := w.take(ctx, w.Block)
			if err != nil {
				if ctx.Err() == nil {
					r.drop(w.index, err)
				}
				clear(b)
				answer <- nil
				return
			}
			answer <- b
		}
	}
}

// Read fills p. Its error is ErrKernel, for good, or ErrClosed.
func (r *Reader) Read(p []byte) (int, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	for n := 0; n < len(p); {
		m, err := r.fill(p[n:min(len(p), n+maxOutput)])
		if err != nil {
			clear(p)
			return 0, err
		}
		n += m
	}
	return len(p), nil
}

func (r *Reader) fill(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, ErrClosed
	}
	if err := r.failed(0); err != nil {
		return 0, err
	}
	fresh, err := r.kernel.take(r.ctx, r.kernel.Block)
	if err != nil {
		err = fmt.Errorf("entropy: %w: %w", ErrKernel, err)
		r.drop(0, err)
		return 0, err
	}
	r.gave(0, len(fresh))
	input := field(append([]byte(nil), r.state...), r.kernel.Name, fresh)
	clear(fresh)
	for _, w := range r.workers {
		if b := r.block(w); b != nil {
			r.gave(w.index, len(b))
			input = field(input, w.Name, b)
			clear(b)
		}
	}
	defer clear(input)
	key, err := hkdf.Extract(sha512.New, input, []byte("omega/entropy/1"))
	if err != nil {
		return 0, fmt.Errorf("entropy: %w", err)
	}
	defer clear(key)
	out, err := hkdf.Expand(sha512.New, key, "output", len(p))
	if err != nil {
		return 0, fmt.Errorf("entropy: %w", err)
	}
	defer clear(out)
	// The state is replaced, so that whoever reads the memory later does not learn what was given before.
	if r.state, err = hkdf.Expand(sha512.New, key, "state", stateSize); err != nil {
		return 0, fmt.Errorf("entropy: %w", err)
	}
	return copy(p, out), nil
}

// block asks a worker; nil where its source has failed, or does not answer in time.
func (r *Reader) block(w *worker) []byte {
	if r.failed(w.index) != nil {
		return nil
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	answer := make(chan []byte, 1) // so that an answer that comes too late keeps nobody
	select {
	case w.ask <- answer:
	case <-w.gone:
		return nil
	case <-late.C:
		return r.silent(w)
	}
	select {
	case b := <-answer:
		return b
	case <-late.C:
		return r.silent(w)
	}
}

// silent gives up a source that does not answer, and ends its read.
func (r *Reader) silent(w *worker) []byte {
	r.drop(w.index, errSilent)
	w.cancel()
	return nil
}

// field appends one source's part, so that no two inputs of other parts are the same bytes.
func field(b []byte, name string, block []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(block)))
	return append(b, block...)
}
