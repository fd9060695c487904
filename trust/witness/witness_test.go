package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/tlog"
)

// peer is a member with its store and its witness.
type peer struct {
	*Witness
	id     *identity.Identity
	fold   *authority.Fold
	ledger *ledger.Ledger
	dir    string
	home   string // of the identity
}

// swarm is some members of one operator, in one process, on a clock moved by hand.
type swarm struct {
	t       *testing.T
	genesis *authority.Genesis
	peers   []*peer
	now     time.Time
	admit   [][]byte
}

func newIdentity(t *testing.T, name string) (id *identity.Identity, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), name)
	id, err := identity.Create(dir, identity.Options{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = id.Close() })
	return id, dir
}

func newSwarm(t *testing.T, members int) *swarm {
	t.Helper()
	s := &swarm{t: t, now: time.Now()}
	op, _ := newIdentity(t, "op")
	var err error
	if s.genesis, err = authority.NewGenesis("witness", []*identity.Inception{op.Inception()}, 1, authority.GenesisOptions{Now: s.now}); err != nil {
		t.Fatal(err)
	}
	var prev ledger.Hash
	for i := range members {
		p := &peer{dir: t.TempDir()}
		p.id, p.home = newIdentity(t, fmt.Sprint("m", i))
		body, err := (&authority.MemberBody{Inception: p.id.Inception().Encode()}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := ledger.SignEntry(op, s.genesis.SwarmID(), uint64(i), prev, ledger.KindMember, body, s.now)
		if err != nil {
			t.Fatal(err)
		}
		e, err := ledger.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		prev = e.Hash()
		s.admit = append(s.admit, raw)
		s.peers = append(s.peers, p)
	}
	for _, p := range s.peers {
		s.open(p)
		for _, raw := range s.admit {
			if _, err := p.ledger.Ingest(context.Background(), raw); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

// open starts p anew from its folder.
func (s *swarm) open(p *peer) {
	s.t.Helper()
	if p.ledger != nil {
		_ = p.ledger.Close()
	}
	p.Witness, p.fold = nil, authority.NewFold(s.genesis)
	var err error
	p.ledger, err = ledger.Open(p.dir, s.genesis.SwarmID(), p.id, p.fold, ledger.Options{
		Now: func() time.Time { return s.now }, Backed: func(b *ledger.Base) error { return p.Backed(b) },
		OnEntry: func(e *ledger.Entry) {
			_ = p.fold.Apply(e)
			p.Observe(e, true)
		},
		OnEquivocation: func(x *ledger.Proof) { _ = p.fold.ApplyProof(x) },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = p.ledger.Close() })
	p.Witness, err = New(Options{Self: p.id, Ledger: p.ledger, Swarm: s.genesis.SwarmID(), State: p.fold.State, Now: func() time.Time { return s.now }})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := p.ledger.Replay(func(e *ledger.Entry) error { _ = p.fold.Apply(e); p.Observe(e, false); return nil }); err != nil {
		s.t.Fatal(err)
	}
}

// mix gives everybody what everybody has, and has all work done that waits.
func (s *swarm) mix() {
	s.t.Helper()
	for range 3 {
		for _, chain := range []ledger.Chain{ledger.Authority, ledger.Activity} {
			for _, to := range s.peers {
				for _, from := range s.peers {
					s.pull(to, from, chain)
				}
			}
			for _, p := range s.peers {
				for len(p.queue) > 0 {
					if err := p.take(context.Background(), <-p.queue); err != nil {
						s.t.Fatal(err)
					}
				}
			}
		}
	}
}

func (s *swarm) pull(to, from *peer, chain ledger.Chain) {
	s.t.Helper()
	for _, h := range from.ledger.Heads() {
		for n := to.ledger.Count(h.Author, chain); h.Chain == chain && n <= h.Seq; n = to.ledger.Count(h.Author, chain) {
			raws, err := from.ledger.Range(h.Author, chain, n, 1000, 1<<20)
			if err != nil {
				s.t.Fatal(err)
			}
			if _, err := to.ledger.IngestBatch(context.Background(), raws); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func (s *swarm) say(p *peer, text string) {
	s.t.Helper()
	if _, err := p.ledger.Append(context.Background(), ledger.Activity, ledger.KindFinding, []byte(text), false); err != nil {
		s.t.Fatal(err)
	}
}

// days has p say something and checkpoint it each day, and everybody hear it.
func (s *swarm) days(p *peer, n int) {
	s.t.Helper()
	for day := range n {
		s.say(p, fmt.Sprint("day ", day))
		s.now = s.now.Add(24 * time.Hour)
		if _, err := p.ledger.Checkpoint(context.Background()); err != nil {
			s.t.Fatal(err)
		}
		s.mix()
	}
}

// cosigned counts who cosigned what of a feed, as p holds it.
func (s *swarm) cosigned(p *peer, f ledger.Feed) (by []identity.DID) {
	s.t.Helper()
	if err := p.ledger.Replay(func(e *ledger.Entry) error {
		if e.Kind != ledger.KindCosign {
			return nil
		}
		c, err := DecodeCosigned(e)
		if err != nil {
			return err
		}
		if c.Feed == f {
			if _, err := p.Key(c.Checkpoint(s.genesis.SwarmID()), c.By); err != nil {
				return err
			}
			by = append(by, e.Author)
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	return by
}

// TestChosenCosign: a checkpoint is cosigned by just those that its feed's name chooses, and a swarm at rest is silent.
func TestChosenCosign(t *testing.T) {
	s := newSwarm(t, 6)
	author := s.peers[0]
	f := ledger.Feed{Author: author.id.DID(), Chain: ledger.Activity}
	if author.Due() {
		t.Fatal("a checkpoint is due of nothing")
	}
	s.say(author, "one")
	if !author.Due() {
		t.Fatal("something is new, and no checkpoint due")
	}
	if _, err := author.ledger.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.mix()
	want := slices.Sorted(slices.Values(Chosen(author.fold.State().Members(), f)))
	got := slices.Sorted(slices.Values(s.cosigned(author, f)))
	if !slices.Equal(got, want) || len(want) != 2*trust.WitnessFaults+1 {
		t.Fatalf("cosigned by %v, chosen %v", got, want)
	}
	for i, p := range s.peers {
		if i > 0 && p.Due() {
			t.Errorf("peer %d wants to checkpoint what it cosigned: that would never end", i)
		}
	}
	s.say(author, "two")
	if author.Due() {
		t.Fatal("due again at once")
	}
	s.now = s.now.Add(trust.CheckpointEvery)
	if !author.Due() {
		t.Fatal("not due in time")
	}
}

// TestTrimmedBehindWitnesses runs some days, trims one peer, and has a late one begin at its base.
func TestTrimmedBehindWitnesses(t *testing.T) {
	s := newSwarm(t, 5)
	author := s.peers[0]
	f := ledger.Feed{Author: author.id.DID(), Chain: ledger.Activity}
	s.days(author, 4)
	trimmed := s.peers[1]
	if freed, err := trimmed.ledger.Trim(48*time.Hour, 1<<40); err != nil || freed == 0 {
		t.Fatal(freed, err)
	}
	b := trimmed.ledger.Base(f)
	if b == nil {
		t.Fatal("the author's feed was not trimmed")
	}
	raw, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	late := &peer{id: s.peers[4].id, dir: t.TempDir()}
	_ = s.peers[4].ledger.Close()
	s.open(late)
	for _, e := range s.admit {
		if _, err := late.ledger.Ingest(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := late.ledger.IngestBase(context.Background(), raw); !errors.Is(err, ErrFewer) {
		t.Fatalf("a base of witnesses whose keys are not known: %v", err)
	}
	s.pull(late, trimmed, ledger.Authority)
	if _, err := late.ledger.IngestBase(context.Background(), raw); err != nil {
		t.Fatal(err)
	}
	raws, err := trimmed.ledger.Range(f.Author, f.Chain, b.First, 1000, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late.ledger.IngestBatch(context.Background(), raws); err != nil {
		t.Fatal(err)
	}
	if late.ledger.Tree(f).Root() != author.ledger.Tree(f).Root() {
		t.Fatal("the late one's tree is another")
	}
	// One witness fewer than needed, and one of another history.
	few := *b
	few.Cosigned = b.Cosigned[:trust.WitnessFaults]
	if err := author.Backed(&few); !errors.Is(err, ErrFewer) {
		t.Errorf("%d cosignatures: %v", len(few.Cosigned), err)
	}
	for i := range b.Cosigned {
		b.Cosigned[i].Sig = bytes.Clone(b.Cosigned[i].Sig)
		b.Cosigned[i].Sig[0] ^= 1
	}
	if err := author.Backed(b); !errors.Is(err, ErrFewer) {
		t.Errorf("spoilt cosignatures: %v", err)
	}
}

// TestRotatedWitnessSaysItAgain: a base counts by its witnesses' newest keys alone, since whoever stole an older one can
// sign any base with it. So a rotated witness cosigns again what stands, and those who hold it take that in.
func TestRotatedWitnessSaysItAgain(t *testing.T) {
	s := newSwarm(t, 4)
	ctx := t.Context()
	author := s.peers[0]
	f := ledger.Feed{Author: author.id.DID(), Chain: ledger.Activity}
	s.days(author, 5)
	holder := s.peers[1]
	if freed, err := holder.ledger.Trim(72*time.Hour, 1<<40); err != nil || freed == 0 {
		t.Fatal(freed, err)
	}
	old := holder.ledger.Base(f)
	if old == nil {
		t.Fatal("the author's feed was not trimmed")
	}
	marked := func(now *ledger.Base) (n int) { // by what the holder knows
		for _, c := range now.Cosigned {
			if holder.Newest(now.Signed(), c) == nil {
				n++
			}
		}
		return n
	}
	all := marked(old)
	if all != len(old.Cosigned) || holder.Backed(old) != nil {
		t.Fatalf("%d of %d cosignatures count", all, len(old.Cosigned))
	}
	for _, p := range s.peers[1:] {
		if !slices.ContainsFunc(old.Cosigned, func(c tlog.Cosignature) bool { return c.Witness == string(p.id.DID()) }) {
			continue
		}
		step, err := identity.Succeed(p.home, identity.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.ledger.Rotate(step.Key, step.Next, nil); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(step.Done(), step.Close()); err != nil {
			t.Fatal(err)
		}
		if err := p.Rekey(ctx); err != nil {
			t.Fatal(err)
		}
	}
	s.mix()
	if err := author.Backed(old); !errors.Is(err, ErrFewer) {
		t.Errorf("a base counts by keys that were rotated: %v", err)
	}
	if err := author.WasBacked(old); err != nil {
		t.Errorf("as history it counts: %v", err)
	}
	renewed := holder.ledger.Base(f)
	if n := marked(renewed); n != all || renewed.First != old.First {
		t.Errorf("%d of %d cosignatures were renewed", n, all)
	}
	if err := author.Backed(renewed); err != nil {
		t.Error(err)
	}
	// A new key may come after what was cosigned with it.
	for _, c := range old.Cosigned {
		if err := holder.ledger.Renew(f, old.First, c); err != nil {
			t.Fatal(err)
		}
	}
	if n := marked(holder.ledger.Base(f)); n != 0 {
		t.Fatalf("%d cosignatures count", n)
	}
	if err := holder.ledger.Replay(func(e *ledger.Entry) error {
		if e.Kind == ledger.KindWitness && holder.rotated(e.Author) {
			return holder.take(ctx, e)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := holder.Backed(holder.ledger.Base(f)); err != nil {
		t.Errorf("after the keys: %v", err)
	}
	// The renewed base is the one on disk, and so are the marks that wait behind it.
	s.open(holder)
	if err := holder.Backed(holder.ledger.Base(f)); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if freed, err := holder.ledger.Trim(48*time.Hour, 1<<40); err != nil || freed == 0 {
		t.Fatal(freed, err)
	}
	if next := holder.ledger.Base(f); next.First == old.First || holder.Backed(next) != nil {
		t.Errorf("a mark was not renewed: %v", holder.Backed(next))
	}
}

// TestWitnessKeepsItsWord: after a restart a witness that holds another history than the one it cosigned says so.
func TestWitnessKeepsItsWord(t *testing.T) {
	s := newSwarm(t, 2)
	author, w := s.peers[0], s.peers[1]
	s.say(author, "one")
	if _, err := author.ledger.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.mix()
	f := ledger.Feed{Author: author.id.DID(), Chain: ledger.Activity}
	s.open(w)
	if w.last[f].size == 0 {
		t.Fatal("forgot what it cosigned")
	}
	s.say(author, "two")
	e, err := author.ledger.Checkpoint(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s.pull(w, author, ledger.Activity)
	<-w.queue
	w.last[f] = word{size: w.last[f].size, root: tlog.Hash{1}} // what it cosigned was another history
	if err := w.Cosign(context.Background(), e); !errors.Is(err, ErrInconsistent) || len(w.Problems()) != 1 {
		t.Fatalf("cosigned what does not extend its word: %v, %v", err, w.Problems())
	}
}

func FuzzBodies(f *testing.F) {
	author := [32]byte{1}
	c := &Cosigned{Feed: ledger.Feed{Author: identity.DIDFromBytes(author), Chain: ledger.Activity}, Size: 7, By: tlog.Cosignature{Time: 9, Sig: make([]byte, tlog.SignatureSize)}}
	raw, err := c.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(true, raw)
	key, err := encodeKey(tlog.NewKey([tlog.SeedSize]byte{1}).Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(false, key)
	f.Fuzz(func(t *testing.T, cosign bool, raw []byte) {
		if !cosign {
			_, _ = DecodeKey(&ledger.Entry{Kind: ledger.KindWitness, Body: raw})
			return
		}
		c, err := DecodeCosigned(&ledger.Entry{Kind: ledger.KindCosign, Body: raw})
		if err != nil {
			return
		}
		if again, err := c.encode(); err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%x encodes as %x, %v", raw, again, err)
		}
	})
}

// TestRotationBringsAnotherKey: the cosigning key follows from the identity's, so that a thief of the old one has it. From
// the rotation on another is certified and used; what was cosigned before stays good.
func TestRotationBringsAnotherKey(t *testing.T) {
	s := newSwarm(t, 3)
	p, other := s.peers[0], s.peers[1]
	ctx := t.Context()
	witnessed := func() []identity.DID {
		t.Helper()
		s.now = s.now.Add(time.Hour)
		s.say(other, "news")
		if _, err := other.ledger.Checkpoint(ctx); err != nil {
			t.Fatal(err)
		}
		s.mix()
		return s.cosigned(other, ledger.Feed{Author: other.id.DID(), Chain: ledger.Activity})
	}
	if err := p.Rekey(ctx); err != nil || len(p.keys) != 0 {
		t.Fatalf("a witness that has certified no key has nothing to renew: %v", err)
	}
	before := witnessed()
	if len(before) != 2 || len(other.keys[p.id.DID()]) != 1 {
		t.Fatalf("%v cosigned", before)
	}
	stolen := p.key
	step, err := identity.Succeed(p.home, identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = step.Close() }()
	if _, err := p.ledger.Rotate(step.Key, step.Next, nil); err != nil {
		t.Fatal(err)
	}
	if err := step.Done(); err != nil {
		t.Fatal(err)
	}
	if err := p.Rekey(ctx); err != nil {
		t.Fatal(err)
	}
	s.mix()
	keys := other.keys[p.id.DID()]
	if len(keys) != 2 || !keys[0].Is(stolen) || !keys[1].Is(p.key) || keys[1].Is(stolen) {
		t.Fatalf("%d keys certified", len(keys))
	}
	if after := witnessed(); len(after) != 4 {
		t.Fatalf("%v cosigned", after)
	}
	var last *Cosigned
	if err := other.ledger.Replay(func(e *ledger.Entry) error {
		if e.Kind == ledger.KindCosign && e.Author == p.id.DID() {
			last, err = DecodeCosigned(e)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := keys[1].Verify(last.Checkpoint(s.genesis.SwarmID()), last.By); err != nil {
		t.Errorf("it still cosigns with the key that was stolen: %v", err)
	}
}
