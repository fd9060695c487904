// Package analyst correlates the findings of all peers into incidents, and proposes to a person what the response
// policy wants asked.
//
// An incident is what was found of one subject (an address, or a program on a host) within a time; its story is the
// findings' own order. Incidents live in memory, bounded, and are rebuilt from the feeds after a restart.
//
// It acts on nothing: what it proposes waits on the board, and the sentinels do what a person approves.
package analyst

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
	"github.com/omega-mesh/omega/trust/policy"
)

// Bounds of an analyst.
const (
	// MaxIncidents is the most incidents kept; the one longest quiet goes first. MaxFindings is the most findings named by
	// one; more are counted.
	MaxIncidents = 2048
	MaxFindings  = 64
	// Quiet is how long nothing was found of a subject before what comes next is another incident.
	Quiet = time.Hour
	// history is how far back findings are read at start, findingsBuffer how far behind the feeds it may fall.
	history        = 25 * time.Hour
	findingsBuffer = 4096
	// maxText bounds each text kept of a finding, maxPeers the peers of one incident that are named.
	maxText  = 256
	maxPeers = 64
)

// Options of an analyst.
type Options struct {
	// Board is where proposals wait for a person; required.
	Board *roles.Board
	Log   *slog.Logger
}

// Incident is correlated findings with one story.
type Incident struct {
	ID         string // of its first finding and subject: hex, 32 digits
	Subject    string // "203.0.113.9", or "HOST:/path"
	First      int64  // Unix nanoseconds, by the authors' clocks
	Last       int64
	Severity   event.Severity // the highest
	Confidence uint8          // of several independent finders together
	Attack     []string       // sorted
	Peers      []string       // DIDs of the finders, sorted
	Findings   []string       // ids, oldest first, at most MaxFindings
	Count      uint64         // of all findings
	Title      string         // of the weightiest finding
	weight     uint16
	doubt      map[string]float64 // 1 - confidence, by finder: its surest finding
}

// Analyst is the role.
type Analyst struct {
	opt Options
	log *slog.Logger

	mu        sync.Mutex
	bySubject map[string]*Incident
	dropped   uint64
}

// New makes the role.
func New(opt Options) *Analyst {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Board == nil {
		opt.Board = roles.NewBoard()
	}
	return &Analyst{opt: opt, log: opt.Log, bySubject: map[string]*Incident{}}
}

// Name implements roles.Role.
func (a *Analyst) Name() string { return roles.NameAnalyst }

// Run implements roles.Role: it correlates and proposes until ctx ends.
func (a *Analyst) Run(ctx context.Context, p roles.Peer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	a.mu.Lock()
	clear(a.bySubject) // the replay brings them again
	a.mu.Unlock()
	fold := policy.NewFold(policy.Default(), policy.FoldOptions{Self: p.DID(), HasRole: p.HasRole})
	text := policy.DefaultText()
	changes := p.Changes(ctx)
	use := func() {
		want := policy.DefaultText()
		if in, ok := p.Authority().Policy(); ok {
			want = in.Text
		}
		if want == text {
			return
		}
		text = want
		if e, err := policy.Parse(want); err != nil {
			a.log.Error("response policy not understood: the one before stays in force", "err", err)
		} else {
			fold.SetEngine(e)
		}
	}
	use()
	findings := p.Findings(ctx, p.Now().Add(-history), findingsBuffer)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-changes:
			if !ok {
				changes = nil
			}
			use()
		case h, ok := <-findings:
			if !ok {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return fmt.Errorf("analyst: %w", roles.ErrBehind)
			}
			a.correlate(&h.Finding)
			if proposal, ok := fold.Add(&h.Finding); ok && proposal.Verdict == policy.Ask {
				a.propose(p, proposal)
			}
		}
	}
}

// propose puts up what a person has not decided yet and is not over.
func (a *Analyst) propose(p roles.Peer, proposal policy.Proposal) {
	r := proposal.Response
	if p.Now().Sub(time.Unix(0, r.Issued)) >= r.TTL {
		return
	}
	for _, v := range p.Authority().Verdicts() {
		if v.Response == r.ID {
			return
		}
	}
	if a.opt.Board.Propose(roles.Pending{Proposal: r, Evidence: proposal.Evidence, Suggested: r.Action, Since: p.Boot()}) {
		a.opt.Board.Set(roles.Standing{Response: r, State: roles.StatePending, Acted: p.Boot()})
		a.log.Info("a person is asked", "response", r.ID, "target", r.Target.Address, "reason", r.Reason)
	}
}

// subjectOf is what findings are correlated by: the address where there is one, else the program and its host.
func subjectOf(f *event.Finding) string {
	switch s := f.Subject; {
	case s.Address.IsValid():
		return s.Address.Unmap().String()
	case s.File != "":
		return redact.Printable(f.Host+":"+s.File, maxText)
	case s.Process != nil:
		return redact.Printable(f.Host+":"+s.Process.Exe, maxText)
	default:
		return redact.Printable(f.Host+":"+f.RuleID, maxText)
	}
}

func (a *Analyst) correlate(f *event.Finding) {
	subject := subjectOf(f)
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.bySubject[subject]
	if i == nil || f.Time-i.Last > int64(Quiet) {
		if i == nil && len(a.bySubject) >= MaxIncidents {
			a.forget()
		}
		sum := sha256.Sum256([]byte("omega/incident/1\x00" + subject + "\x00" + f.ID))
		i = &Incident{ID: hex.EncodeToString(sum[:16]), Subject: subject, First: f.Time, Last: f.Time, doubt: map[string]float64{}}
		a.bySubject[subject] = i
	}
	i.add(f)
}

// forget drops the incident longest quiet.
func (a *Analyst) forget() {
	var oldest *Incident
	for _, i := range a.bySubject {
		if oldest == nil || i.Last < oldest.Last {
			oldest = i
		}
	}
	delete(a.bySubject, oldest.Subject)
	a.dropped++
}

func (i *Incident) add(f *event.Finding) {
	i.Count++
	i.First, i.Last = min(i.First, f.Time), max(i.Last, f.Time)
	i.Severity = max(i.Severity, f.Severity)
	if len(i.Findings) < MaxFindings {
		i.Findings = append(i.Findings, f.ID)
	}
	for _, t := range f.Attack {
		if len(t) <= 16 && len(i.Attack) < 32 && !slices.Contains(i.Attack, t) {
			i.Attack = append(i.Attack, t)
		}
	}
	slices.Sort(i.Attack)
	if weight := uint16(f.Severity)<<8 | uint16(f.Confidence); weight > i.weight || i.Title == "" {
		i.weight, i.Title = weight, redact.Printable(f.Title, maxText)
	}
	if f.Anonymous != nil {
		return // its author may be one of those who found the same under their own name
	}
	doubt, known := i.doubt[f.Peer]
	if !known {
		if len(i.doubt) >= maxPeers {
			return
		}
		doubt = 1
		i.Peers = append(i.Peers, f.Peer)
		slices.Sort(i.Peers)
	}
	i.doubt[f.Peer] = min(doubt, 1-float64(min(f.Confidence, 100))/100)
	// That all of them err is the product of each one's doubt, if they saw independently. One peer's many findings are one
	// peer's word.
	all := 1.0
	for _, p := range i.Peers { // in order, so that every analyst computes the same
		all *= i.doubt[p]
	}
	i.Confidence = uint8(100*(1-all) + 0.5)
}

// Incidents are those kept, the latest first.
func (a *Analyst) Incidents() []Incident {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Incident, 0, len(a.bySubject))
	for _, i := range a.bySubject {
		c := *i
		c.Attack, c.Peers, c.Findings, c.doubt = slices.Clone(i.Attack), slices.Clone(i.Peers), slices.Clone(i.Findings), nil
		out = append(out, c)
	}
	slices.SortFunc(out, func(x, y Incident) int {
		return cmp.Or(cmp.Compare(y.Last, x.Last), cmp.Compare(x.ID, y.ID))
	})
	return out
}

// Dropped counts the incidents lost to the bound.
func (a *Analyst) Dropped() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dropped
}
