package ledger

import (
	"errors"
	"fmt"

	"github.com/omega-mesh/omega/trust/identity"
)

var (
	// ErrDuplicate: the entry is stored already. Nothing is wrong with it or with who sent it.
	ErrDuplicate = errors.New("ledger: entry already stored")
	// ErrClosed: the ledger was closed.
	ErrClosed = errors.New("ledger: closed")
	// ErrReadOnly: the ledger has no identity of its own to append with.
	ErrReadOnly = errors.New("ledger: opened without an identity")
	// ErrNotStored: the ledger does not hold that part of the feed, not yet or no more.
	ErrNotStored = errors.New("ledger: not held here")
	// ErrStorage is wrapped where the disk failed: nothing more is acknowledged until the ledger is opened again.
	ErrStorage = errors.New("ledger: storage failed")
	// ErrDamaged is wrapped where this peer's own feed lost acknowledged entries: it must not sign until a peer has given
	// them back, because it would equivocate.
	ErrDamaged = errors.New("ledger: own feed is damaged")
	// ErrStale is returned by Submit for an entry whose number is taken: its author signed without knowing its own head.
	ErrStale = errors.New("ledger: another entry has this number; read the head again and sign anew")
	// ErrLocked: another process has the ledger open.
	ErrLocked = errors.New("ledger: in use by another process")
	// ErrRotated: this peer's identity goes on with another key, which this process does not have: it is a copy, or was
	// restored from before the rotation.
	ErrRotated = errors.New("ledger: this identity was rotated to a key that is not here")
	// ErrFork: nothing can be added to a feed whose author equivocated.
	ErrFork = errors.New("ledger: author equivocated")
)

// Causes of a RejectError.
const (
	CauseMalformed     = "malformed"      // not an entry
	CauseOversize      = "oversize"       // past a bound of trust/limits.go
	CauseSignature     = "signature"      // a signature does not verify
	CauseUnknownAuthor = "unknown_author" // no member of this swarm
	CauseFuture        = "future"         // dated past the clock skew
	CauseRate          = "rate"           // past the author's quota: try again later
	CauseSwarm         = "swarm"          // another swarm's
	CauseKind          = "kind"           // a kind where it does not belong, or without the signature it needs
	CauseRevoked       = "revoked"        // past the head at which its author was revoked
	CauseChain         = "chain"          // contradicts the entry before it: link, time or boot epoch
	CauseFork          = "fork"           // its author equivocated before
	CauseRotation      = "rotation"       // a rotation that does not follow
)

// RejectError says why an entry was refused. Only CauseUnknownAuthor, CauseFuture and CauseRate may pass with time.
type RejectError struct {
	Cause  string
	Author identity.DID // empty where the entry did not decode
	Detail string
}

// Error names cause and detail.
func (e *RejectError) Error() string {
	s := "ledger: entry refused: " + e.Cause
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

func reject(cause string, author identity.DID, format string, args ...any) *RejectError {
	return &RejectError{Cause: cause, Author: author, Detail: fmt.Sprintf(format, args...)}
}

// Feed names one chain of one author.
type Feed struct {
	Author identity.DID
	Chain  Chain
}

// GapError says that entries before this one are missing: pull them by Range from a peer.
type GapError struct {
	Feed Feed
	Have uint64 // entries stored here, which is the number wanted next
	Got  uint64 // the entry's number; Check also uses it for the epoch entry it lacks
}

// Error names the feed and both numbers.
func (e *GapError) Error() string {
	return fmt.Sprintf("ledger: %s chain of %s: got entry %d, want %d", e.Feed.Chain, e.Feed.Author.Short(), e.Got, e.Have)
}

// EquivocationError is returned once for each feed found to hold two entries of one number. Proof convinces anyone.
type EquivocationError struct {
	Proof *Proof
	A, B  []byte // the two entries, raw
}

// Error names the author.
func (e *EquivocationError) Error() string {
	return fmt.Sprintf("ledger: %s signed two different entries %d of its %s chain", e.Proof.Author.Short(), e.Proof.Seq, e.Proof.Chain)
}
