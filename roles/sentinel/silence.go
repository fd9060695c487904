package sentinel

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
)

// Rules of agents that say nothing any more.
const (
	ruleSilent   = "omega.agent.silent"
	ruleIsolated = "omega.agent.isolated"
)

const (
	// SilentAfter is how long a sentinel may be gone without a word before its peers say so.
	SilentAfter = 30 * time.Second
	// Each next peer waits half as long again for the one before it to say it, at most maxYield times; what another said
	// is not said again for heardFor. A peer that still holds a dead connection hears it before it could notice.
	maxYield = 3
	heardFor = uint64(10 * time.Minute)
	// silenceSight is how long a last look for a silent peer may take.
	silenceSight = 2 * time.Second
	maxSilences  = 8192
)

// silence watches the other sentinels. An agent that ended in good order said so; one that was killed, or whose host was
// cut off, did not. A peer that lost sight of most of the swarm knows only that of itself, and says that instead.
type silence struct {
	after    uint64
	members  map[string]*watched
	isolated uint64 // since when; 0 while a majority is in sight
	told     bool   // of the isolation
}

// watched is a sentinel that this peer was connected to in this life.
type watched struct {
	since   uint64 // of the connection that stands, or stood last
	lost    uint64 // when it was gone; 0 while it is there
	entries uint64
	told    bool   // by this peer
	heard   uint64 // when another told of it; 0 where none did
}

func newSilence(after time.Duration) *silence {
	return &silence{after: uint64(after), members: map[string]*watched{}}
}

// claim is something to be said of a member; an empty DID is this peer itself.
type claim struct {
	did, name string
	since     uint64
	over      bool // what was said before holds no more
}

// look takes what this peer sees now, and gives what is to be said of it.
func (s *silence) look(self string, now uint64, sights []roles.Sight) (out []claim) {
	here := map[string]bool{}
	met, seen := 1, 1 // this peer is one
	present := []string{self}
	for i := range sights {
		x := &sights[i]
		if !x.Sentinel {
			continue
		}
		here[x.DID] = true
		w := s.members[x.DID]
		if w == nil {
			if !x.Connected && !x.Met || len(s.members) >= maxSilences {
				continue
			}
			if w = (&watched{since: now}); !x.Connected {
				w.since = 0 // it came and went between two looks: what it said at its end still counts
			}
			s.members[x.DID] = w
		}
		if x.Connected {
			present = append(present, x.DID)
			if w.lost != 0 {
				if w.told {
					out = append(out, claim{did: x.DID, name: x.Name, since: w.lost, over: true})
				}
				*w = watched{since: now}
			}
			w.entries = x.Entries
			met++
			seen++
			continue
		}
		if x.Ended != 0 && x.Ended >= w.since {
			w.lost, w.told, w.heard = now, false, 0 // it said that it would be gone
			continue
		}
		met++
		if w.lost == 0 || x.Entries > w.entries && !w.told { // others hear it
			w.lost, w.entries = now, x.Entries
		}
	}
	for did := range s.members {
		if !here[did] { // revoked, suspended, left, or no sentinel any more
			delete(s.members, did)
		}
	}
	if 2*seen < met {
		if s.isolated == 0 {
			s.isolated = now
		}
		if !s.told && now-s.isolated >= s.after {
			s.told = true
			out = append(out, claim{since: s.isolated})
		}
		return out
	}
	if s.isolated != 0 {
		if s.told {
			out = append(out, claim{since: s.isolated, over: true})
		}
		s.isolated, s.told = 0, false
		for _, w := range s.members { // whoever is still gone gets the time that the others had
			if w.lost != 0 && !w.told {
				w.lost = now
			}
		}
	}
	for i := range sights {
		x := &sights[i]
		w := s.members[x.DID]
		if w == nil || w.lost == 0 || w.told || w.heard != 0 && now-w.heard < heardFor || x.Ended != 0 && x.Ended >= w.since {
			continue
		}
		if now-w.lost >= s.after+s.after/2*uint64(min(Turn(self, x.DID, present), maxYield)) {
			w.told = true
			out = append(out, claim{did: x.DID, name: x.Name, since: w.lost})
		}
	}
	return out
}

// Turn is whose turn it is to tell of a member, from 0: all who see each other agree. -1 says that self is not present.
func Turn(self, silent string, present []string) int {
	order := slices.Clone(present)
	key := func(did string) []byte { sum := sha256.Sum256([]byte(silent + "\x00" + did)); return sum[:] }
	slices.SortFunc(order, func(a, b string) int { return cmp.Or(bytes.Compare(key(a), key(b)), cmp.Compare(a, b)) })
	return slices.Index(order, self)
}

// hear notes that another peer told of it.
func (s *silence) hear(did string, over bool, now uint64) {
	if w := s.members[did]; w != nil {
		if w.heard = now; over {
			w.heard = 0
		}
	}
}

// watchSilence runs until ctx ends.
func (s *Sentinel) watchSilence(ctx context.Context, p roles.Peer, out chan<- event.Finding) {
	after := s.opt.SilentAfter
	if after <= 0 {
		after = SilentAfter
	}
	q := newSilence(after)
	tick := time.NewTicker(min(max(after/5, time.Second), 5*time.Second))
	defer tick.Stop()
	news := p.Findings(ctx, p.Now(), 64)
	for {
		select {
		case <-ctx.Done():
			return
		case h, ok := <-news:
			if !ok {
				if ctx.Err() != nil {
					return
				}
				news = p.Findings(ctx, p.Now(), 64) // fell behind: what was missed costs a finding said twice
				continue
			}
			if h.RuleID == ruleSilent && h.Peer != p.DID() && p.HasRole(h.Peer, roles.NameSentinel) {
				q.hear(h.Subject.Member, h.Severity == event.SeverityInformational, p.Boot())
			}
			continue
		case <-tick.C:
		}
		for _, c := range q.look(p.DID(), p.Boot(), p.Sights()) {
			if c.did != "" && !c.over && s.stillThere(ctx, p, c.did) {
				if w := q.members[c.did]; w != nil {
					*w = watched{since: p.Boot()}
				}
				continue
			}
			f := silenceFinding(c, p)
			select {
			case out <- f:
				s.counts.findings.Add(1)
			default:
				s.counts.dropped.Add(1)
			}
		}
	}
}

// stillThere looks for a peer once more: in a large swarm not everyone keeps a connection to everyone.
func (s *Sentinel) stillThere(ctx context.Context, p roles.Peer, did string) bool {
	ctx, cancel := context.WithTimeout(ctx, silenceSight)
	defer cancel()
	return p.Reach(ctx, did)
}

func silenceFinding(c claim, p roles.Peer) event.Finding {
	f := event.Finding{Time: p.Now().UnixNano(), Boot: c.since, RuleID: ruleSilent, Rule: "silent agent", Attack: []string{"T1562.001"},
		Severity: event.SeverityHigh, Confidence: 70, Subject: event.Subject{Member: c.did}}
	gone := time.Duration(p.Boot() - min(p.Boot(), c.since)).Round(time.Second)
	f.Title = fmt.Sprintf("The agent of %s has said nothing for %s, and did not take its leave", redact.Printable(c.name, maxPath), gone)
	if c.did == "" {
		f.RuleID, f.Rule, f.Attack, f.Severity, f.Subject.Member = ruleIsolated, "isolated agent", nil, event.SeverityMedium, p.DID()
		f.Title = fmt.Sprintf("This host has lost sight of most of the swarm for %s", gone)
	}
	if c.over {
		f.Severity, f.Title = event.SeverityInformational, fmt.Sprintf("%s is back after %s", redact.Printable(c.name, maxPath), gone)
		if c.did == "" {
			f.Title = fmt.Sprintf("This host sees most of the swarm again after %s", gone)
		}
		evidence(&f, "state", "resolved")
	}
	return f
}
