package node

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/node/privileged"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
)

// maxResponses bounds what is remembered of responses; the oldest go first.
const maxResponses = 8192

// standing is one response as this host knows it.
type standing struct {
	r       event.Response
	until   uint64 // CLOCK_BOOTTIME at which it ends, nanoseconds
	outcome event.Outcome
	guard   string
	detail  string
	receipt event.Receipt
	verdict string // id of the operator's word on it, once there is one
	ended   string // "released" or "rejected"
}

// state is what the API says of it.
func (s *standing) state(now uint64) string {
	switch {
	case s.ended == "rejected":
		return string(event.OutcomeRefused)
	case s.ended != "":
		return s.ended
	case now >= s.until:
		return string(event.OutcomeExpired)
	}
	switch s.outcome {
	case event.OutcomeDone, event.OutcomeAdopted, "":
		return "active"
	case event.OutcomeFailed:
		return string(event.OutcomeRefused)
	}
	return string(s.outcome)
}

// responses is what is to be done and what became of it on this host.
type responses struct {
	longest time.Duration
	mu      sync.Mutex
	byID    map[string]*standing
	order   []string // oldest first
}

func newResponses(longest time.Duration) *responses {
	return &responses{longest: longest, byID: map[string]*standing{}}
}

// begin notes r, which reached this host now, and cuts its life by its age and the genesis's bound. done is set when
// this host has dealt with it already: what it did then is the answer. A life that is over is zero.
func (rs *responses) begin(r event.Response, now time.Time) (event.Response, *event.Receipt) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	boot := bpf.BootTime()
	if s := rs.byID[r.ID]; s != nil && s.receipt.Response != "" && boot < s.until {
		switch s.outcome {
		case event.OutcomeDone, event.OutcomeAdopted:
			rc := s.receipt
			return r, &rc
		}
	}
	r.TTL = min(r.TTL, rs.longest)
	if age := now.Sub(time.Unix(0, r.Issued)); r.Issued > 0 && age > 0 {
		r.TTL = max(r.TTL-age, 0)
	}
	rs.note(r, boot+uint64(r.TTL))
	return r, nil
}

func (rs *responses) note(r event.Response, until uint64) *standing {
	if s := rs.byID[r.ID]; s != nil {
		s.r, s.until = r, until
		return s
	}
	for len(rs.order) >= maxResponses {
		delete(rs.byID, rs.order[0])
		rs.order = rs.order[1:]
	}
	s := &standing{r: r, until: until}
	rs.byID[r.ID] = s
	rs.order = append(rs.order, r.ID)
	return s
}

// end notes what became of it.
func (rs *responses) end(rc event.Receipt) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if s := rs.byID[rc.Response]; s != nil {
		s.outcome, s.guard, s.detail, s.receipt = rc.Outcome, rc.Guard, rc.Detail, rc
	}
}

// release notes that id is no more; it says whether id was known.
func (rs *responses) release(id string) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	s := rs.byID[id]
	if s == nil {
		return false
	}
	s.ended = "released"
	return true
}

// releaseAll follows a panic.
func (rs *responses) releaseAll() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, s := range rs.byID {
		if s.ended == "" {
			s.ended = "released"
		}
	}
}

// adopt notes what the kernel still enforces from an earlier life.
func (rs *responses) adopt(active []privileged.Enforced) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, e := range active {
		if rs.byID[e.ID] != nil {
			continue
		}
		s := rs.note(event.Response{
			ID: e.ID, Action: e.Action, Target: e.Target, Reason: "still enforced after a restart", TTL: time.Duration(e.Expires - min(e.Expires, bpf.BootTime())),
		}, e.Expires)
		s.outcome = event.OutcomeAdopted
	}
}

// follow takes over what the operators said: their responses, releases, and words on what is pending.
func (rs *responses) follow(state *authority.State, now time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	boot := bpf.BootTime()
	for _, r := range state.Responses() {
		if r.Action == event.ActionRelease {
			if s := rs.byID[r.Releases]; s != nil {
				s.ended = "released"
			}
			continue
		}
		if rs.byID[r.ID] == nil {
			left := min(r.TTL, rs.longest) - max(now.Sub(time.Unix(0, r.Issued)), 0)
			rs.note(r, boot+uint64(max(left, 0)))
		}
	}
	for _, v := range state.Verdicts() {
		if s := rs.byID[v.Response]; s != nil && s.verdict != v.ID {
			s.verdict = v.ID
			if !v.Approved {
				s.ended = "rejected"
			}
		}
	}
}

// list copies what is known, newest first; active leaves out what is over.
func (rs *responses) list(active bool) []standing {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	now := bpf.BootTime()
	out := make([]standing, 0, len(rs.order))
	for _, id := range rs.order {
		s := rs.byID[id]
		if !active || s.state(now) == "active" {
			out = append(out, *s)
		}
	}
	slices.SortStableFunc(out, func(a, b standing) int {
		if a.r.Issued != b.r.Issued {
			if a.r.Issued > b.r.Issued {
				return -1
			}
			return 1
		}
		return strings.Compare(a.r.ID, b.r.ID)
	})
	return out
}

// pending is what a guard rail holds back until a person says yes or no.
func (rs *responses) pending() []standing {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	now := bpf.BootTime()
	var out []standing
	for _, id := range rs.order {
		s := rs.byID[id]
		held := s.outcome == event.OutcomePending || s.outcome == event.OutcomeRefused && s.guard != "" && s.r.Authority == event.AuthorityPolicy
		if held && s.ended == "" && s.verdict == "" && now < s.until {
			out = append(out, *s)
		}
	}
	return out
}
