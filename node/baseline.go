package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/node/api"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/privileged"
	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/roles/sentinel"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

const (
	// maxWords bounds the members whose last word is remembered, maxClaims what waits to be said of them.
	maxWords  = 8192
	maxClaims = 64
	// Each next peer waits turnTime longer for the one before it to say it; the host itself is the last.
	turnTime = 3 * time.Second
	lastTurn = 4
	// signAgain is how long a word that could not be signed waits.
	signAgain = 10 * time.Second
)

// baselines are the last word of each member on its watched files.
type baselines struct {
	mu      sync.Mutex
	last    map[string]*event.Baseline // by DID; values are never changed
	judging bool
	claims  chan claim
}

// claim is a word that does not follow from the one before it.
type claim struct {
	before, word *event.Baseline
	heard        time.Time
}

func newBaselines() *baselines {
	return &baselines{last: map[string]*event.Baseline{}, claims: make(chan claim, maxClaims)}
}

// judge begins to hold each word against the one before it.
func (b *baselines) judge() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.judging = true
}

// take is called from within the ledger, in the order of each feed.
func (b *baselines) take(e *ledger.Entry) error {
	word, err := ledger.DecodeBaseline(e)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.last[word.Peer]
	if before == nil && len(b.last) >= maxWords {
		return nil
	}
	b.last[word.Peer] = &word
	if b.judging && before != nil && !word.Follows(before) {
		select {
		case b.claims <- claim{before, &word, time.Now()}:
		default: // a member that says one after the other was told of
		}
	}
	return nil
}

func (b *baselines) of(did string) *event.Baseline {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last[did]
}

// judgeBaselines says which members' baselines were changed behind their agents' backs, one peer for all.
func (n *Node) judgeBaselines(ctx context.Context) error {
	for {
		var c claim
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c = <-n.baselines.claims:
		}
		f, wrong := sentinel.BaselineFinding(c.before, c.word, n.nameOf(identity.DID(c.word.Peer)))
		if !wrong || !n.HasRole(n.DID(), roles.NameSentinel) {
			continue
		}
		turn := lastTurn
		if c.word.Peer != n.DID() {
			present := []string{n.DID()}
			for _, s := range n.Sights() {
				if s.Sentinel && s.Connected && s.DID != c.word.Peer {
					present = append(present, s.DID)
				}
			}
			turn = min(sentinel.Turn(n.DID(), c.word.Peer, present), lastTurn-1)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(c.heard.Add(time.Duration(turn) * turnTime))):
		}
		if n.saidAlready(ctx, &f) {
			continue
		}
		if _, err := n.Publish(ctx, f); err != nil && ctx.Err() == nil {
			n.log.Error("finding not published", "rule", f.RuleID, "err", err)
		}
	}
}

// saidAlready says whether another member found the same.
func (n *Node) saidAlready(ctx context.Context, f *event.Finding) bool {
	said := errors.New("said")
	found := func(x *event.Finding) string {
		for _, e := range x.Evidence {
			if e.Name == "found" {
				return e.Value
			}
		}
		return ""
	}
	return errors.Is(n.feed.findings.each(ctx, false, func(x *event.Finding) error {
		if x.RuleID == f.RuleID && x.Subject.Member == f.Subject.Member && x.Peer != f.Subject.Member && found(x) == found(f) && n.HasRole(x.Peer, roles.NameSentinel) {
			return said
		}
		return nil
	}), said)
}

// keepBaseline tells the privileged side what was signed last, signs what it asks for, and hands on the changes that its
// scans find, until ctx ends.
func (n *Node) keepBaseline(ctx context.Context) error {
	for !n.synced.Load() { // what this host said last is known then, from its peers if not from its own disk
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(refreshEvery):
		}
	}
	var signed [32]byte
	if last := n.baselines.of(n.DID()); last != nil {
		signed = last.File
	}
	word, err := n.service.BaselineBegin(ctx, signed)
	switch {
	case errors.Is(err, privileged.ErrNoBaseline):
		return nil
	case err != nil:
		return fmt.Errorf("baseline: %w", err)
	case word != nil:
		if err := n.sayBaseline(ctx, word); err != nil {
			return err
		}
	}
	var after uint64
	for {
		news, err := n.service.BaselineNews(ctx, after)
		if err != nil {
			return errors.Join(ctx.Err(), fmt.Errorf("baseline: %w", err))
		}
		if last := n.baselines.of(n.DID()); news.Sign == nil && last != nil && n.clock.now().Sub(last.When()) > affirmEvery {
			again := *last
			again.Why, again.Before, again.By = event.BaselineAffirmed, last.File, ""
			if err := n.sayBaseline(ctx, &again); err != nil {
				n.log.Warn("the baseline of watched files was not affirmed", "err", err)
			}
		}
		for i := range news.Changes {
			n.telemetry.take(n.toldLate(&news.Changes[i]))
			after = news.Changes[i].Seq
		}
		if news.Sign == nil {
			continue
		}
		if err := n.sayBaseline(ctx, news.Sign); err != nil {
			n.log.Warn("the baseline of watched files was not signed", "err", err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(signAgain):
			}
			continue
		}
		if err := n.service.BaselineCommit(ctx, news.Sign.File); err != nil {
			return fmt.Errorf("baseline: %w", err)
		}
	}
}

// sayBaseline signs a word into the feed, and tells of it on this host.
func (n *Node) sayBaseline(ctx context.Context, word *event.Baseline) error {
	w := *word
	w.Time = n.clock.now().UnixNano()
	body, err := ledger.EncodeBaseline(&w)
	if err != nil {
		return fmt.Errorf("baseline: %w", err)
	}
	if _, err := n.append(ctx, ledger.KindBaseline, body, false); err != nil {
		return fmt.Errorf("baseline: %w", err)
	}
	n.telemetry.take(&event.Event{Class: event.ClassFileIntegrity, Activity: event.ActivityBaseline, Time: w.Time, Boot: bpf.BootTime(), Sensor: "integrity",
		File: event.File{Hash: hex.EncodeToString(w.Root[:])}, Access: event.Access{Operation: w.Why, Number: w.Entries}, Logon: event.Logon{User: w.By}})
	return nil
}

// Integrity implements api.Backend.
func (b backend) Integrity(ctx context.Context) (*apiv1.IntegrityResponse, error) {
	out := &apiv1.IntegrityResponse{}
	for _, m := range b.fold.State().Members() {
		if w := b.baselines.of(string(m.DID)); w != nil {
			out.Words = append(out.Words, &apiv1.BaselineWord{Peer: w.Peer, Host: m.Name, Time: timestamppb.New(w.When()), Why: w.Why, By: w.By, Entries: w.Entries, Differ: w.Differ,
				Skipped: w.Skipped, Root: hex.EncodeToString(w.Root[:]), File: hex.EncodeToString(w.File[:])})
		}
	}
	s, err := b.service.BaselineStatus(ctx)
	if errors.Is(err, privileged.ErrNoBaseline) {
		_, _, out.Why = watchedPaths(b.cfg, os.Geteuid() == 0 || b.parts.Split)
		out.Phase = "off"
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	out.Phase, out.Live, out.Entries, out.Differ, out.Skipped = s.Phase, s.Live, uint64(s.Entries), uint64(s.Differ), s.Skipped
	out.Done, out.Bytes, out.Scans, out.Dropped, out.Unsigned, out.Fault = uint64(s.Done), uint64(s.Bytes), s.Scans, s.Dropped, s.Unsigned, s.Fault
	out.File, out.Paths, out.Exclude = hex.EncodeToString(s.File), b.watched.paths, b.watched.exclude
	if s.Looked != 0 {
		out.Looked = timestamppb.New(time.Unix(0, s.Looked))
	}
	for after := ""; len(out.Differences) < maxDifferences; {
		rows, err := b.service.BaselineDifferences(ctx, after)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			break
		}
		for i := range rows {
			c := &rows[i]
			d := &apiv1.Difference{Path: []byte(c.Path), What: c.What, Was: []byte(words(c.Was)), Is: []byte(words(c.Is))}
			out.Differences = append(out.Differences, d)
			after = c.Path
		}
	}
	return out, nil
}

// maxDifferences bounds what one answer lists.
const maxDifferences = 10_000

// IntegrityRescan implements api.Backend.
func (b backend) IntegrityRescan(ctx context.Context, full bool) error {
	return unwatched(b.service.BaselineRescan(ctx, full))
}

// IntegrityAccept implements api.Backend.
func (b backend) IntegrityAccept(ctx context.Context, paths []string, by string) (int, error) {
	k, err := b.service.BaselineAccept(ctx, paths, by)
	return k, unwatched(err)
}

func unwatched(err error) error {
	if errors.Is(err, privileged.ErrNoBaseline) {
		return fmt.Errorf("%w: %w: name some with --integrity-paths", api.ErrState, err)
	}
	return err
}
