package roles

import (
	"context"
	"errors"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/guard"
)

// Names of the roles of this build, as grants and invites spell them.
const (
	NameSentinel = "sentinel"
	NameDecoy    = "decoy"
	NameAnalyst  = "analyst"
)

// ErrBehind is what a role's Run returns when its channel of findings was closed because it read too slowly: the
// supervisor starts it again, and the replay gives it what it missed.
var ErrBehind = errors.New("fell behind the feeds")

// Role is a duty a peer can hold.
type Role interface {
	// Name is the name it is granted by.
	Name() string
	// Run does the duty until ctx ends. It may be called again after it returned; it is never called twice at once.
	Run(ctx context.Context, p Peer) error
}

// Mode says how far a peer goes.
type Mode string

const (
	ModeObserve Mode = "observe" // says what it would have done
	ModeEnforce Mode = "enforce" // acts in the kernel
	ModePanic   Mode = "panic"   // released everything and watches on
	// ModeReadOnly is observe where nothing of the host may be changed.
	ModeReadOnly Mode = "read-only"
)

// Heard is a finding as it reached this peer.
type Heard struct {
	event.Finding // ID, Peer and Host are filled in
	// At is CLOCK_BOOTTIME, nanoseconds, when its entry was stored here. For a replayed one, when it was read.
	At uint64
	// Live is false for what was stored before this peer was in sync: history, not news.
	Live bool
}

// Authority is what the operators have said: one immutable snapshot. *authority.State is one.
type Authority interface {
	// Responses are the operators' responses and releases, oldest first.
	Responses() []event.Response
	// Verdicts are the operators' approvals and rejections, oldest first.
	Verdicts() []authority.Verdict
	// Policy is the response policy in force; ok is false where it is the built-in one.
	Policy() (p authority.Policy, ok bool)
}

// Sight is how this peer sees another member now.
type Sight struct {
	DID, Name string
	Sentinel  bool   // it holds the role now
	Connected bool   // by a live, proved connection
	Met       bool   // it proved itself to this peer, in this life: connected at some time, however short
	Entries   uint64 // of its activity feed, as known here
	Ended     uint64 // CLOCK_BOOTTIME when it said that its agent ends in good order; 0 where its last word is another
}

// Peer is all that a role may use of the peer it runs on. Everything is safe for concurrent use.
type Peer interface {
	// DID and Name are this peer's own.
	DID() string
	Name() string
	// Mode may change at any time.
	Mode() Mode
	// Boot is CLOCK_BOOTTIME now, nanoseconds; Now is the wall clock, set right by the peers' median where it is known.
	Boot() uint64
	Now() time.Time

	// Subscribe has fn called with every event of this host's sensors, from their goroutines, until cancel returns. The
	// event and its strings are valid only during the call, and fn must not block. Calls may be concurrent (one a sensor).
	Subscribe(fn func(*event.Event)) (cancel func())
	// Publish signs f into this peer's feed and spreads it. It returns f with ID, Peer and Host once it is durable. What
	// may trigger a response alone (Handshake, or severity critical) carries the full composite signature at once.
	Publish(ctx context.Context, f event.Finding) (event.Finding, error)
	// Findings gives those of all peers, own ones included, each author's in the order of its feed: first what is stored
	// from since on (Live false), then what comes. Nothing is left out: a reader that falls buffer findings behind has its
	// channel closed (see ErrBehind). It is closed too when ctx ends.
	Findings(ctx context.Context, since time.Time, buffer int) <-chan Heard

	// Respond makes this host's kernel enforce r for r.TTL from now, by way of the privileged half, which holds the guard
	// rails. The receipt says done, observed, refused (with Guard) or failed; err is set only where there is no receipt.
	// It writes no feed.
	Respond(ctx context.Context, r event.Response) (event.Receipt, error)
	// Release ends what this host's kernel enforces under id. It writes no feed.
	Release(ctx context.Context, id string) (event.Receipt, error)
	// Report signs a receipt into this peer's feed and returns it with ID, Peer and Host.
	Report(ctx context.Context, rc event.Receipt) (event.Receipt, error)

	// HasRole says whether a member holds a role now: not while suspended or revoked.
	HasRole(did, role string) bool
	// MemberName is a member's name; empty where did is none.
	MemberName(did string) string
	// Sights are the active members but this one. Reach tries to connect to one, until ctx ends, and says whether it could.
	Sights() []Sight
	Reach(ctx context.Context, did string) bool
	// Proved are the addresses of peers that live connections have proved.
	Proved() []guard.Proved
	// Authority is the snapshot of now. Changes gives a token after each change until ctx ends; tokens coalesce.
	Authority() Authority
	Changes(ctx context.Context) <-chan struct{}
}
