package block

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omega-mesh/omega/swarm/wire"
)

// shelf is a peer's blocks.
type shelf struct {
	mu sync.Mutex
	m  map[[32]byte][]byte
}

func newShelf(blocks ...[]byte) *shelf {
	s := &shelf{m: map[[32]byte][]byte{}}
	for _, b := range blocks {
		s.m[sha256.Sum256(b)] = b
	}
	return s
}

func (s *shelf) Block(sum [32]byte) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.m[sum]
	return b, ok
}

func (s *shelf) put(_ Name, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[sha256.Sum256(data)] = data
	return nil
}

// pipe is a stream in memory.
type pipe struct{ net.Conn }

func (p pipe) Reset() error { return p.Close() }

// net of peers, each what answers a stream.
type peersOf map[string]func(net.Conn)

func (p peersOf) fetcher(forged func(string)) *Fetcher {
	return &Fetcher{
		Peers: func() (out []string) {
			for name := range p {
				out = append(out, name)
			}
			return out
		},
		Open: func(_ context.Context, peer string) (Stream, error) {
			near, far := net.Pipe()
			go func() { defer far.Close(); p[peer](far) }()
			return pipe{near}, nil
		},
		Forged: func(peer string, _ error) {
			if forged != nil {
				forged(peer)
			}
		},
	}
}

func serving(src Source) func(net.Conn) {
	s := NewServer(src)
	return func(c net.Conn) { _ = s.Serve(c, "asker", func() {}) }
}

func some(n int) (blocks [][]byte, names []Name) {
	for i := range n {
		b := bytes.Repeat([]byte(fmt.Sprintf("%06d|", i)), 1+i*37%4000)
		blocks = append(blocks, b)
		names = append(names, Name{Sum: sha256.Sum256(b), Root: i == 0})
	}
	return blocks, names
}

// TestBlocksComeFromWhoeverHasThem: none has all, one lies, one says nothing, one is gone; all blocks come, each once.
func TestBlocksComeFromWhoeverHasThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blocks, names := some(100)
		liar := func(c net.Conn) {
			b, err := wire.Read(c, MaxWants*cidSize)
			if err != nil {
				return
			}
			for range len(b) / cidSize {
				_ = wire.Write(c, append([]byte{answerHere}, "rubbish"...))
			}
		}
		mute := func(c net.Conn) {
			_, _ = wire.Read(c, MaxWants*cidSize)
			_, _ = c.Read(make([]byte, 1)) // until it is given up
		}
		p := peersOf{"first": serving(newShelf(blocks[:60]...)), "second": serving(newShelf(blocks[40:]...)), "liar": liar, "mute": mute, "gone": func(net.Conn) {}}
		got := newShelf()
		var mu sync.Mutex
		came, blamed := map[Name]int{}, map[string]int{}
		err := p.fetcher(func(who string) {
			mu.Lock()
			defer mu.Unlock()
			blamed[who]++
		}).Fetch(t.Context(), append(names, names...), func(n Name, data []byte) error {
			mu.Lock()
			came[n]++
			mu.Unlock()
			return got.put(n, data)
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range names {
			if b, _ := got.Block(n.Sum); !bytes.Equal(b, blocks[i]) || came[n] != 1 {
				t.Errorf("block %d came %d times", i, came[n])
			}
		}
		for who := range blamed {
			if who != "liar" {
				t.Errorf("%s is blamed", who)
			}
		}
	})
}

// TestFetchGoesOn: what nobody has ends it, what came is kept, and a later fetch asks for the rest alone.
func TestFetchGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blocks, names := some(10)
		have := newShelf(blocks[:7]...)
		p := peersOf{"only": serving(have)}
		got := newShelf()
		if err := p.fetcher(nil).Fetch(t.Context(), names, got.put); !errors.Is(err, ErrNowhere) || len(got.m) != 7 {
			t.Fatalf("%d blocks: %v", len(got.m), err)
		}
		for _, b := range blocks[7:] {
			have.m[sha256.Sum256(b)] = b
		}
		if err := p.fetcher(nil).Fetch(t.Context(), names[7:], got.put); err != nil || len(got.m) != 10 {
			t.Fatalf("%d blocks: %v", len(got.m), err)
		}
		if err := (peersOf{}).fetcher(nil).Fetch(t.Context(), names, got.put); !errors.Is(err, ErrNowhere) {
			t.Errorf("nobody is there: %v", err)
		}
		full := errors.New("full")
		if err := p.fetcher(nil).Fetch(t.Context(), names, func(Name, []byte) error { return full }); !errors.Is(err, full) {
			t.Errorf("nowhere to put it: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.fetcher(nil).Fetch(ctx, names, got.put); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

// exchange is one request and its answers' first bytes.
func exchange(t *testing.T, s *Server, peer string, request []byte, n int) (kinds []byte, size int, err error) {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- s.Serve(far, peer, func() {}); far.Close() }()
	if err := wire.Write(near, request); err != nil {
		t.Fatal(err)
	}
	for range n {
		b, err := wire.Read(near, 1+MaxBlock)
		if err != nil {
			break
		}
		kinds, size = append(kinds, b[0]), size+len(b)-1
	}
	near.Close()
	return kinds, size, <-done
}

// TestAPeerGetsItsShare: a peer in debt is told to come later, and others are served meanwhile.
func TestAPeerGetsItsShare(t *testing.T) {
	big := bytes.Repeat([]byte{7}, MaxBlock)
	s := NewServer(newShelf(big))
	now := time.Unix(1_000_000, 0)
	s.now = func() time.Time { return now }
	request := encodeRequest([]Name{{Sum: sha256.Sum256(big)}})
	took := 0
	for range 1000 {
		kinds, size, err := exchange(t, s, "greedy", request, 1)
		if err != nil {
			t.Fatal(err)
		}
		if kinds[0] == answerBusy {
			break
		}
		took += size
	}
	if took != bytesBurst {
		t.Errorf("%d bytes at once", took)
	}
	if kinds, _, _ := exchange(t, s, "other", request, 1); kinds[0] != answerHere {
		t.Error("another waits for it")
	}
	now = now.Add(time.Second)
	took = 0
	for range 1000 {
		kinds, size, _ := exchange(t, s, "greedy", request, 1)
		if kinds[0] == answerBusy {
			break
		}
		took += size
	}
	if took != bytesRate {
		t.Errorf("%d bytes in the second after", took)
	}
	for range maxServedEach {
		if !s.enter("holder") {
			t.Fatal("no place")
		}
	}
	if kinds, _, _ := exchange(t, s, "holder", request, 1); kinds[0] != answerBusy {
		t.Error("one peer has more than its places")
	}
	for i := range maxServed - maxServedEach {
		if !s.enter(fmt.Sprint(i)) {
			t.Fatal("no place")
		}
	}
	if kinds, _, _ := exchange(t, s, "late", request, 1); kinds[0] != answerBusy {
		t.Error("more are served than there are places")
	}
	for i := range 2 * maxAccounts {
		s.enter(fmt.Sprint("x", i))
	}
	if len(s.accounts) > maxAccounts {
		t.Errorf("%d accounts", len(s.accounts))
	}
}

func TestRequestsAreRefused(t *testing.T) {
	_, names := some(MaxWants + 1)
	good := encodeRequest(names[:2])
	for what, bad := range map[string][]byte{
		"nothing": {}, "half a name": good[:50], "a name twice": append(bytes.Clone(good[:36]), good[:36]...),
		"another hash": append([]byte{1, 0x55, 0x13}, good[3:36]...), "another codec": append([]byte{1, 0x70}, good[2:36]...), "version 0": append([]byte{0}, good[1:36]...),
	} {
		if _, _, err := exchange(t, NewServer(newShelf()), "x", bad, 1); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := decodeRequest(encodeRequest(names)); !errors.Is(err, ErrRequest) {
		t.Errorf("too many names: %v", err)
	}
	if kinds, _, err := exchange(t, NewServer(newShelf()), "x", good, 2); err != nil || !bytes.Equal(kinds, []byte{answerNone, answerNone}) {
		t.Errorf("%v, %v", kinds, err)
	}
}

func FuzzDecodeRequest(f *testing.F) {
	_, names := some(3)
	f.Add(encodeRequest(names))
	f.Add([]byte{1, 0x55, 0x12, 0x20})
	f.Fuzz(func(t *testing.T, b []byte) {
		names, err := decodeRequest(b)
		if err == nil && !bytes.Equal(encodeRequest(names), b) {
			t.Fatal("not what it was")
		}
	})
}
