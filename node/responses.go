package node

import (
	"sync"
	"time"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/node/privileged"
	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
)

// maxResponses bounds what is remembered here; the oldest go first.
const maxResponses = 4096

// responses is what the roles' board does not hold: what this host's own socket asked for, what an earlier life left in
// the kernel, and what operators said while no role here acts on it.
type responses struct {
	mu    sync.Mutex
	byID  map[string]*roles.Standing
	order []string // oldest first
}

func newResponses() *responses { return &responses{byID: map[string]*roles.Standing{}} }

func (rs *responses) add(s roles.Standing) {
	if rs.byID[s.Response.ID] == nil {
		for len(rs.order) >= maxResponses {
			delete(rs.byID, rs.order[0])
			rs.order = rs.order[1:]
		}
		rs.order = append(rs.order, s.Response.ID)
	}
	rs.byID[s.Response.ID] = &s
}

// did notes what became of a response that this host's socket asked for.
func (rs *responses) did(r event.Response, rc event.Receipt) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.add(roles.Standing{Response: r, State: stateOf(rc.Outcome), Guard: rc.Guard, Detail: rc.Detail, Acted: rc.Acted, Expires: bpf.BootTime() + uint64(r.TTL)})
}

// release notes that id is no more; it says whether id was known.
func (rs *responses) release(id string) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	s := rs.byID[id]
	if s == nil {
		return false
	}
	s.State = roles.StateReleased
	return true
}

// releaseAll follows a panic.
func (rs *responses) releaseAll() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, s := range rs.byID {
		if s.State == roles.StateActive {
			s.State = roles.StateReleased
		}
	}
}

// adopt notes what the kernel still enforces from an earlier life.
func (rs *responses) adopt(active []privileged.Enforced) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	now := bpf.BootTime()
	for _, e := range active {
		if rs.byID[e.ID] == nil && e.Action == event.ActionQuarantine && e.Expires <= now {
			rs.add(roles.Standing{
				Response: event.Response{ID: e.ID, Action: e.Action, Target: e.Target, Reason: "still sealed after a restart"},
				State:    roles.StateExpired, Detail: "the file stays sealed until it is released", Acted: now, Expires: e.Expires,
			})
			continue
		}
		if rs.byID[e.ID] == nil && e.Expires > now {
			rs.add(roles.Standing{
				Response: event.Response{ID: e.ID, Action: e.Action, Target: e.Target, Reason: "still enforced after a restart", TTL: time.Duration(e.Expires - now)},
				State:    roles.StateActive, Detail: string(event.OutcomeAdopted), Acted: now, Expires: e.Expires,
			})
		}
	}
}

// follow takes over the operators' responses and releases, as far as nothing here knows better.
func (rs *responses) follow(s *authority.State, now time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	boot := bpf.BootTime()
	stands := make(map[string]bool, len(rs.byID))
	for _, r := range s.Responses() {
		stands[r.ID] = true
		switch {
		case r.Action == event.ActionRelease:
			if old := rs.byID[r.Releases]; old != nil {
				old.State = roles.StateReleased
			}
		case rs.byID[r.ID] == nil:
			left := r.TTL - max(now.Sub(time.Unix(0, r.Issued)), 0)
			rs.add(roles.Standing{Response: r, State: roles.StateObserved, Detail: "no role on this host acts on it", Expires: boot + uint64(max(left, 0))})
		}
	}
	for id, old := range rs.byID {
		if old.Response.Authority == event.AuthorityDelegated && !stands[id] {
			old.State, old.Detail = roles.StateReleased, "the credential it was ordered by does not stand any more"
		}
	}
}

// merge gives the board's word first, and adds what only this register knows. What is over says so.
func (rs *responses) merge(board []roles.Standing) []roles.Standing {
	out := append([]roles.Standing(nil), board...)
	known := make(map[string]bool, len(board))
	for _, s := range board {
		known[s.Response.ID] = true
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	now := bpf.BootTime()
	for i := len(rs.order) - 1; i >= 0; i-- {
		s := *rs.byID[rs.order[i]]
		if known[s.Response.ID] {
			continue
		}
		if s.Expires <= now && s.State != roles.StateReleased {
			s.State = roles.StateExpired
		}
		out = append(out, s)
	}
	return out
}

func stateOf(o event.Outcome) roles.State {
	switch o {
	case event.OutcomeDone, event.OutcomeAdopted:
		return roles.StateActive
	}
	return roles.State(o)
}
