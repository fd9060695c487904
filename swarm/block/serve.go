package block

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/omega-mesh/omega/swarm/wire"
)

// Bounds of what a peer gives others: blocks are the least urgent of what it does.
const (
	// maxServed is the most requests answered at once, maxServedEach those of one peer. Of a fetch that uses four peers,
	// one asks this peer; the second is its next batch.
	maxServed     = 8
	maxServedEach = 2
	// bytesRate and bytesBurst are what one peer gets: four modules of the largest size at once, then 8 MiB a second.
	bytesRate  = 8 << 20
	bytesBurst = 64 << 20
	// maxAccounts is the most peers remembered; who is at rest is forgotten first.
	maxAccounts = 4096
)

// Source is where blocks are kept. Block gives a copy, already held against its name, or false.
type Source interface {
	Block(sum [32]byte) ([]byte, bool)
}

// Server answers requests, within bounds for each peer and for all. It is safe for concurrent use.
type Server struct {
	src Source
	now func() time.Time

	mu       sync.Mutex
	serving  int
	accounts map[string]*account
	sent     uint64
	refused  uint64
}

// account is what one peer has had.
type account struct {
	streams int
	tokens  float64
	at      time.Time
}

// NewServer gives out what src has.
func NewServer(src Source) *Server {
	return &Server{src: src, now: time.Now, accounts: map[string]*account{}}
}

// Counts are the bytes given out, and the requests that were answered with "not now".
func (s *Server) Counts() (sent, refused uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent, s.refused
}

// Serve answers one request of a peer. extend is called before each frame, to move the stream's deadline. An error that
// is not of the stream itself says that the peer does not keep to the protocol.
func (s *Server) Serve(rw io.ReadWriter, peer string, extend func()) error {
	extend()
	b, err := wire.Read(rw, MaxWants*cidSize)
	if err != nil {
		return fmt.Errorf("block: request: %w", err)
	}
	wants, err := decodeRequest(b)
	if err != nil {
		return err
	}
	open := s.enter(peer)
	if open {
		defer s.leave(peer)
	}
	for _, w := range wants {
		kind, data := byte(answerBusy), []byte(nil)
		if open && s.may(peer) {
			kind = answerNone
			if b, ok := s.src.Block(w.Sum); ok && len(b) <= MaxBlock {
				kind, data = answerHere, b
				s.spend(peer, len(b))
			}
		}
		extend()
		head := append(binary.BigEndian.AppendUint32(nil, uint32(1+len(data))), kind) // the frame, without a copy of the block
		if _, err := rw.Write(head); err != nil {
			return fmt.Errorf("block: answer: %w", err)
		}
		if len(data) > 0 {
			if _, err := rw.Write(data); err != nil {
				return fmt.Errorf("block: answer: %w", err)
			}
		}
	}
	return nil
}

// enter takes a place for a request.
func (s *Server) enter(peer string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[peer]
	if a == nil {
		if len(s.accounts) >= maxAccounts {
			s.tidy()
		}
		if len(s.accounts) >= maxAccounts {
			s.refused++
			return false
		}
		a = &account{tokens: bytesBurst, at: s.now()}
		s.accounts[peer] = a
	}
	if s.serving >= maxServed || a.streams >= maxServedEach {
		s.refused++
		return false
	}
	s.serving++
	a.streams++
	return true
}

func (s *Server) leave(peer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving--
	s.accounts[peer].streams--
}

// tidy forgets who owes nothing. The caller holds mu.
func (s *Server) tidy() {
	for peer, a := range s.accounts {
		if a.refill(s.now()); a.streams == 0 && a.tokens >= bytesBurst {
			delete(s.accounts, peer)
		}
	}
}

func (a *account) refill(now time.Time) {
	if d := now.Sub(a.at); d > 0 {
		a.tokens = min(bytesBurst, a.tokens+d.Seconds()*bytesRate)
	}
	a.at = now
}

// may says whether a peer gets another block: while it is not in debt.
func (s *Server) may(peer string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[peer]
	a.refill(s.now())
	if a.tokens <= 0 {
		s.refused++
		return false
	}
	return true
}

func (s *Server) spend(peer string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts[peer].tokens -= float64(n)
	s.sent += uint64(n)
}
