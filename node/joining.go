package node

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// maxJoining bounds how many joiners may wait for approval, maxAsked how many of them one member may have passed on: what
// is over is refused until some are answered, and one member's inventions leave room for the rest.
const (
	maxJoining = 256
	maxAsked   = 64
)

// joiner waits for an operator's approval.
type joiner struct {
	id        string // of the first join-request entry
	inception *identity.Inception
	invite    string
	address   netip.Addr
	asked     identity.DID // the member that passed it on
	time      int64        // Unix nanoseconds, as that member says
}

// joining is who waits, as the members that were asked passed it on. It is safe for concurrent use.
type joining struct {
	mu    sync.Mutex
	byDID map[identity.DID]joiner
}

func newJoining() *joining { return &joining{byDID: map[identity.DID]joiner{}} }

// take notes the joiner of a join-request entry; one that is noted keeps its place.
func (j *joining) take(e *ledger.Entry) error {
	r, inception, err := authority.DecodeJoinRequest(e.Body)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	asked := 0
	for _, x := range j.byDID {
		if x.asked == e.Author {
			asked++
		}
	}
	if _, known := j.byDID[inception.DID()]; !known && len(j.byDID) < maxJoining && asked < maxAsked {
		j.byDID[inception.DID()] = joiner{
			id: e.ID(), inception: inception, invite: hex.EncodeToString(r.Invite), address: r.Address.Unmap(), asked: e.Author, time: e.Time,
		}
	}
	return nil
}

// joinStatus is what became of a joiner that waits.
type joinStatus int

const (
	joinUnknown joinStatus = iota
	joinWaits
	joinRejected
)

// status says how did's wish stands; who is a member already is not asked for here.
func (j *joining) status(s *authority.State, did identity.DID) joinStatus {
	j.mu.Lock()
	x, ok := j.byDID[did]
	j.mu.Unlock()
	switch {
	case !ok:
		return joinUnknown
	case rejected(s, x.id):
		return joinRejected
	}
	return joinWaits
}

// room reports whether another joiner of an invite may wait: as many as it has uses, four times over, since a person can
// tell them apart.
func (j *joining) room(s *authority.State, i *authority.Invite, now time.Time) bool {
	n := 0
	for _, x := range j.waiting(s, now) { // which forgets those that can never be answered
		if x.invite == i.ID {
			n++
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return n < 4*i.Uses && len(j.byDID) < maxJoining
}

// waiting are those that an operator may still approve, oldest first. Who can never be answered any more is forgotten.
func (j *joining) waiting(s *authority.State, now time.Time) []joiner {
	invites := map[string]*authority.Invite{}
	for _, i := range s.Invites() {
		invites[i.ID] = i
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []joiner
	for did, x := range j.byDID {
		_, member := s.Member(did)
		i := invites[x.invite]
		switch {
		case member, i != nil && !i.Open(now), i == nil && now.Sub(time.Unix(0, x.time)) > inviteWait:
			delete(j.byDID, did)
		case i != nil && !rejected(s, x.id):
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b joiner) int {
		if a.time != b.time {
			return int(min(max(a.time-b.time, -1), 1))
		}
		return slices.Compare([]byte(a.id), []byte(b.id))
	})
	return out
}

// inviteWait is how long a wish may name an invite that this peer has not heard of.
const inviteWait = time.Hour

func rejected(s *authority.State, id string) bool {
	return slices.ContainsFunc(s.Verdicts(), func(v authority.Verdict) bool { return v.Response == id && !v.Approved })
}
