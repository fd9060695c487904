package authority

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// fact is where something was said.
type fact struct {
	by   identity.DID
	seq  uint64
	time int64 // Unix nanoseconds, as claimed
	id   string
	key  uint32 // number of the author's key that signed it
}

func factOf(e *ledger.Entry) fact {
	return fact{by: e.Author, seq: e.Seq, time: e.Time, id: e.ID(), key: e.Rotation}
}

// before is the one order of facts: by claimed time, then id.
func (a fact) before(b fact) bool { return a.time < b.time || a.time == b.time && a.id < b.id }

type memberFact struct {
	fact
	inception *identity.Inception
	invite    string // id; empty where it joins on none
}

// admitFact is an admission whose signatures were verified when it came in.
type admitFact struct {
	fact
	keyHash   [32]byte
	inception *identity.Inception
}

type withdrawFact struct {
	fact
	body *WithdrawBody
}

// inviteFact is an invite, and what the fold last made of it.
type inviteFact struct {
	fact
	body     *InviteBody
	seen     []ledger.Head
	withdraw []*WithdrawBody // those that count

	joiners   []identity.DID // in the order that counts
	joined    map[identity.DID]bool
	last      fact // the last admission considered, with its effective time
	overspent bool
}

func (i *inviteFact) reset() {
	i.joiners, i.joined, i.last, i.overspent = nil, make(map[identity.DID]bool), fact{}, false
}

// lets reports whether a member's admission of joiner, claimed at t, may count: in time, where no operator must approve,
// and not undone by a withdrawal.
func (i *inviteFact) lets(joiner identity.DID, t int64) bool {
	return !i.body.Approve && t/1e9 <= i.body.NotAfter && i.stands(joiner)
}

// stands reports whether no withdrawal undoes what joiner was admitted by.
func (i *inviteFact) stands(joiner identity.DID) bool {
	did, err := joiner.Bytes()
	return err == nil && !slices.ContainsFunc(i.withdraw, func(w *WithdrawBody) bool {
		_, stands := slices.BinarySearchFunc(w.Stand, did[:], func(a, b []byte) int { return strings.Compare(string(a), string(b)) })
		return !stands
	})
}

type responseFact struct {
	fact
	response event.Response
}

type verdictFact struct {
	fact
	response string
	approved bool
}

type policyFact struct {
	fact
	text string
}

// exemption is a line of the allow list.
type exemption struct {
	address netip.Prefix
	path    string
}

// membership is a peer's place in the swarm as the rebuild found it.
type membership struct {
	fact      // of the admission; time is effective: never before the admitter's own
	inception *identity.Inception
	invite    *inviteFact // nil where an operator admitted it directly
}
