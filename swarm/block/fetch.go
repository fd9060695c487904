package block

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/omega-mesh/omega/swarm/wire"
)

// How a fetch goes about.
const (
	// parallel is how many peers are asked at once.
	parallel = 4
	// batch is the most blocks that one of them is asked for at a time; of few blocks each is asked for its part.
	batch = 4
	// slowAfter is when one more peer is asked for what another was asked for, slowLook how often that is looked at.
	slowAfter = time.Second
	slowLook  = 100 * time.Millisecond
	// frameTimeout is the longest that one block may take: 256 KiB at 256 kbit/s.
	frameTimeout = 8 * time.Second
	// idleRounds is how many times in a row everybody connected may have nothing new before a fetch gives up, and
	// roundWait the first pause between two rounds; each is twice the one before.
	idleRounds = 5
	roundWait  = 25 * time.Millisecond
)

// Errors of a fetch.
var (
	// ErrNowhere: nobody connected gave what is missing. What came meanwhile was taken; a later fetch goes on from there.
	ErrNowhere = errors.New("block: no connected peer has it")
	// ErrForged: a peer gave a block that is not what its name says, or an answer that is none.
	ErrForged = errors.New("block: not what was asked for")
)

// Stream is one exchange with a peer.
type Stream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
	Reset() error
}

// Fetcher brings blocks from connected peers.
type Fetcher struct {
	// Peers are those connected now, in the order to be asked.
	Peers func() []string
	// Open opens a stream of the protocol to one of them.
	Open func(ctx context.Context, peer string) (Stream, error)
	// Forged is told who gave what is not what was asked for.
	Forged func(peer string, err error)
}

// want is one block that is looked for.
type want struct {
	name   Name
	done   bool
	asking int
	since  time.Time       // of the last asking
	asked  map[string]bool // in this round
}

// fetch is one call of Fetch.
type fetch struct {
	*Fetcher
	take func(Name, []byte) error
	stop context.CancelFunc

	mu     sync.Mutex
	wants  []*want
	left   int
	failed error // of take
}

// Fetch brings blocks, in any order and from several peers at once, and gives each to take, which may be called by
// several goroutines, as soon as it was held against its name. An error of take ends it.
func (f *Fetcher) Fetch(ctx context.Context, names []Name, take func(Name, []byte) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	x := &fetch{Fetcher: f, take: take, stop: stop}
	seen := map[Name]bool{}
	for _, n := range names {
		if !seen[n] {
			seen[n] = true
			x.wants = append(x.wants, &want{name: n})
		}
	}
	x.left = len(x.wants)
	wait := roundWait
	for idle := 0; x.left > 0 && x.failed == nil; {
		before := x.left
		x.round(ctx)
		switch {
		case x.left == 0 || x.failed != nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case x.left < before:
			idle, wait = 0, roundWait
			continue
		default:
			if idle++; idle >= idleRounds {
				return fmt.Errorf("%w: %d of %d blocks are missing", ErrNowhere, x.left, len(x.wants))
			}
			pause(ctx, wait)
			wait *= 2
		}
	}
	return x.failed
}

// round asks everybody connected once for what is left. When it returns, nothing of it goes on.
func (x *fetch) round(ctx context.Context) {
	for _, w := range x.wants {
		w.asked = map[string]bool{}
	}
	peers := x.Peers()
	next := make(chan string, len(peers))
	for _, p := range peers {
		next <- p
	}
	close(next)
	var wg sync.WaitGroup
	for range min(parallel, len(peers)) {
		wg.Go(func() {
			for peer := range next {
				for ctx.Err() == nil {
					list, later := x.pick(peer, time.Now())
					if len(list) == 0 && later {
						pause(ctx, slowLook)
						continue
					}
					if len(list) == 0 {
						break
					}
					err := x.ask(ctx, peer, list)
					x.give(list)
					if err != nil {
						if errors.Is(err, ErrForged) && x.Forged != nil {
							x.Forged(peer, err)
						}
						break
					}
				}
			}
		})
	}
	wg.Wait()
}

// pick takes some blocks that peer was not asked for: its part of those that nobody is asked for now, or what another is
// slow to give. later says that there is nothing now, and may be.
func (x *fetch) pick(peer string, now time.Time) (out []*want, later bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var free, slow []*want
	for _, w := range x.wants {
		switch {
		case w.done || w.asked[peer]:
		case w.asking == 0:
			free = append(free, w)
		case w.asking == 1 && now.Sub(w.since) >= slowAfter:
			slow = append(slow, w)
		default:
			later = true
		}
	}
	if out = free[:min(len(free), max(1, min(batch, len(free)/parallel)))]; len(out) == 0 {
		out = slow[:min(len(slow), batch)]
	}
	for _, w := range out {
		w.asking++
		w.asked[peer], w.since = true, now
	}
	return out, later
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (x *fetch) give(list []*want) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, w := range list {
		w.asking--
	}
}

// ask has one exchange with a peer.
func (x *fetch) ask(ctx context.Context, peer string, list []*want) error {
	s, err := x.Open(ctx, peer)
	if err != nil {
		return err
	}
	whole := false
	defer func() {
		if whole {
			_ = s.Close()
		} else {
			_ = s.Reset()
		}
	}()
	ended := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer ended()
	names := make([]Name, len(list))
	for i, w := range list {
		names[i] = w.name
	}
	if err := s.SetDeadline(time.Now().Add(frameTimeout)); err != nil {
		return fmt.Errorf("block: %w", err)
	}
	if err := wire.Write(s, encodeRequest(names)); err != nil {
		return err
	}
	for _, w := range list {
		if err := s.SetDeadline(time.Now().Add(frameTimeout)); err != nil {
			return fmt.Errorf("block: %w", err)
		}
		b, err := wire.Read(s, 1+MaxBlock)
		switch {
		case errors.Is(err, wire.ErrTooLong):
			return fmt.Errorf("%w: %w", ErrForged, err)
		case err != nil:
			return err
		case len(b) == 0 || b[0] > answerBusy || b[0] != answerHere && len(b) > 1:
			return fmt.Errorf("%w: an answer that is none", ErrForged)
		case b[0] != answerHere:
			continue
		}
		data := b[1:]
		if sha256.Sum256(data) != w.name.Sum {
			return fmt.Errorf("%w: a block of %d bytes under another's name", ErrForged, len(data))
		}
		if err := x.got(w, data); err != nil {
			return err
		}
	}
	whole = true
	return nil
}

// got hands a block on, the first time it comes.
func (x *fetch) got(w *want, data []byte) error {
	x.mu.Lock()
	done := w.done
	w.done = true
	x.mu.Unlock()
	if done {
		return nil
	}
	err := x.take(w.name, data)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.left--; err != nil && x.failed == nil {
		x.failed = err
	}
	if x.left == 0 || err != nil {
		x.stop() // nobody need be waited for
	}
	return err
}
