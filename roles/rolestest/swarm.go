// Package rolestest is a swarm in memory for the tests of roles: its peers hear one another's findings at once, hold
// real guard rails, and have a kernel that only keeps a list. Time moves by hand.
package rolestest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/guard"
	"github.com/omega-mesh/omega/trust/identity"
)

// Swarm is the peers and what they have in common.
type Swarm struct {
	mu        sync.Mutex
	boot      uint64
	wall      time.Time
	peers     map[string]*Peer
	roles     map[string][]string
	findings  []event.Finding
	receipts  []event.Receipt
	responses []event.Response
	verdicts  []authority.Verdict
	policy    string
	more      chan struct{} // closed and replaced when anything changes
}

// New makes a swarm without peers, an hour after boot.
func New() *Swarm {
	return &Swarm{boot: uint64(time.Hour), wall: time.Unix(1_800_000_000, 0), peers: map[string]*Peer{}, roles: map[string][]string{}, more: make(chan struct{})}
}

// Peer is one host.
type Peer struct {
	swarm  *Swarm
	name   string
	rails  *guard.Rails
	mode   roles.Mode
	subs   map[int]func(*event.Event)
	subID  int
	kernel map[string]event.Response
	follow int
	sights func() []roles.Sight
}

var _ roles.Peer = (*Peer)(nil)

// Add makes a peer at an address that every other peer's connection proves.
func (s *Swarm) Add(name, address string, hold ...string) *Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &Peer{swarm: s, name: name, rails: guard.New(), mode: roles.ModeEnforce, subs: map[int]func(*event.Event){}, kernel: map[string]event.Response{}}
	if address != "" {
		p.rails.SetOwn([]netip.Addr{netip.MustParseAddr(address)})
	}
	s.peers[name] = p
	s.roles[p.DID()] = hold
	s.changed()
	return p
}

// Prove has every peer know where the others are: address by name.
func (s *Swarm) Prove(at map[string]string) {
	var proved []guard.Proved
	for name, a := range at {
		proved = append(proved, guard.Proved{DID: "did:omega:" + name, Address: netip.MustParseAddr(a), Since: 1})
	}
	for _, p := range s.peers {
		var others []guard.Proved
		for _, o := range proved {
			if o.DID != p.DID() {
				others = append(others, o)
			}
		}
		p.rails.SetProved(others)
	}
}

func (s *Swarm) changed() { close(s.more); s.more = make(chan struct{}) }

// Advance moves both clocks.
func (s *Swarm) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.boot += uint64(d)
	s.wall = s.wall.Add(d)
}

// Grant sets what a peer holds.
func (s *Swarm) Grant(name string, hold ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles["did:omega:"+name] = hold
	s.changed()
}

// Order has the operator say r, and gives it with its id.
func (s *Swarm) Order(r event.Response) event.Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.ID, r.By, r.Authority = id("order", len(s.responses)), "did:omega:operator", event.AuthorityOperator
	if r.Issued == 0 {
		r.Issued = s.wall.UnixNano()
	}
	s.responses = append(slices.Clone(s.responses), r)
	s.changed()
	return r
}

// Decide has the operator approve or reject.
func (s *Swarm) Decide(response string, approve bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verdicts = append(slices.Clone(s.verdicts), authority.Verdict{ID: id("verdict", len(s.verdicts)), By: identity.DID("did:omega:operator"), Response: response, Approved: approve, Time: s.wall})
	s.changed()
}

// SetPolicy sets the policy text.
func (s *Swarm) SetPolicy(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policy = text
	s.changed()
}

// Receipts are all signed so far.
func (s *Swarm) Receipts() []event.Receipt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.receipts)
}

// Found are all published so far.
func (s *Swarm) Found() []event.Finding {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.findings)
}

// Until waits until ok, which is asked after each change; it ends with ctx.
func (s *Swarm) Until(ctx context.Context, ok func() bool) error {
	for {
		s.mu.Lock()
		more := s.more
		s.mu.Unlock()
		if ok() {
			return nil
		}
		select {
		case <-more:
		case <-time.After(20 * time.Millisecond): // what is kept outside the swarm, such as a board
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func id(kind string, n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", kind, n))
	return hex.EncodeToString(sum[:16])
}

// DID implements roles.Peer.
func (p *Peer) DID() string { return "did:omega:" + p.name }

// Name implements roles.Peer.
func (p *Peer) Name() string { return p.name }

// Mode implements roles.Peer.
func (p *Peer) Mode() roles.Mode {
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	return p.mode
}

// See has the peer see the members as f says.
func (p *Peer) See(f func() []roles.Sight) {
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	p.sights = f
}

// Sights implements roles.Peer.
func (p *Peer) Sights() []roles.Sight {
	p.swarm.mu.Lock()
	f := p.sights
	p.swarm.mu.Unlock()
	if f == nil {
		return nil
	}
	return f()
}

// Reach implements roles.Peer: whoever is not connected cannot be reached.
func (p *Peer) Reach(_ context.Context, did string) bool {
	return slices.ContainsFunc(p.Sights(), func(x roles.Sight) bool { return x.DID == did && x.Connected })
}

// SetMode changes the mode.
func (p *Peer) SetMode(m roles.Mode) {
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	p.mode = m
}

// Boot implements roles.Peer.
func (p *Peer) Boot() uint64 {
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	return p.swarm.boot
}

// Now implements roles.Peer.
func (p *Peer) Now() time.Time {
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	return p.swarm.wall
}

// Subscribe implements roles.Peer.
func (p *Peer) Subscribe(fn func(*event.Event)) (cancel func()) {
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	p.subID++
	n := p.subID
	p.subs[n] = fn
	p.swarm.changed()
	return func() {
		p.swarm.mu.Lock()
		defer p.swarm.mu.Unlock()
		delete(p.subs, n)
	}
}

// Watched says whether anybody subscribed.
func (p *Peer) Watched() bool {
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	return len(p.subs) > 0
}

// Followed is how many read this peer's channel of findings.
func (p *Peer) Followed() int {
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	return p.follow
}

// Happen brings an event to who subscribed.
func (p *Peer) Happen(e *event.Event) {
	p.swarm.mu.Lock()
	var subs []func(*event.Event)
	for _, fn := range p.subs {
		subs = append(subs, fn)
	}
	p.swarm.mu.Unlock()
	for _, fn := range subs {
		fn(e)
	}
}

// Publish implements roles.Peer.
func (p *Peer) Publish(ctx context.Context, f event.Finding) (event.Finding, error) {
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	f.ID, f.Peer, f.Host = id("finding", len(p.swarm.findings)), p.DID(), p.name
	if f.Time == 0 {
		f.Time = p.swarm.wall.UnixNano()
	}
	p.swarm.findings = append(p.swarm.findings, f)
	p.swarm.changed()
	return f, ctx.Err()
}

// Findings implements roles.Peer.
func (p *Peer) Findings(ctx context.Context, since time.Time, buffer int) <-chan roles.Heard {
	ch := make(chan roles.Heard, buffer)
	p.swarm.mu.Lock()
	history := len(p.swarm.findings)
	p.follow++
	p.swarm.mu.Unlock()
	go func() {
		defer func() {
			close(ch)
			p.swarm.mu.Lock()
			p.follow--
			p.swarm.mu.Unlock()
		}()
		for i := 0; ; i++ {
			p.swarm.mu.Lock()
			for i >= len(p.swarm.findings) {
				more := p.swarm.more
				p.swarm.mu.Unlock()
				select {
				case <-more:
				case <-ctx.Done():
					return
				}
				p.swarm.mu.Lock()
			}
			f, at := p.swarm.findings[i], p.swarm.boot
			p.swarm.mu.Unlock()
			if f.Time < since.UnixNano() {
				continue
			}
			select {
			case ch <- roles.Heard{Finding: f, At: at, Live: i >= history}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch
}

// Respond implements roles.Peer.
func (p *Peer) Respond(ctx context.Context, r event.Response) (event.Receipt, error) {
	rc := event.Receipt{Response: r.ID, Acted: p.Boot()}
	if rail, why := p.rails.Check(r, rc.Acted); rail != "" {
		rc.Outcome, rc.Guard, rc.Detail = event.OutcomeRefused, rail, why
		return rc, nil
	}
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	if p.mode != roles.ModeEnforce {
		rc.Outcome = event.OutcomeObserved
		return rc, nil
	}
	p.kernel[r.ID] = r
	rc.Outcome, rc.Means = event.OutcomeDone, []string{"list"}
	return rc, ctx.Err()
}

// Release implements roles.Peer.
func (p *Peer) Release(ctx context.Context, id string) (event.Receipt, error) {
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	delete(p.kernel, id)
	return event.Receipt{Response: id, Outcome: event.OutcomeReleased, Acted: p.swarm.boot}, ctx.Err()
}

// Enforced is what the kernel's list holds.
func (p *Peer) Enforced() map[string]event.Response {
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	out := map[string]event.Response{}
	for k, v := range p.kernel {
		out[k] = v
	}
	return out
}

// Denies says whether the kernel refuses an address.
func (p *Peer) Denies(address string) bool {
	for _, r := range p.Enforced() {
		if r.Action == event.ActionDeny && r.Target.Address.Contains(netip.MustParseAddr(address)) {
			return true
		}
	}
	return false
}

// Report implements roles.Peer.
func (p *Peer) Report(ctx context.Context, rc event.Receipt) (event.Receipt, error) {
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	rc.ID, rc.Peer, rc.Host = id("receipt", len(p.swarm.receipts)), p.DID(), p.name
	p.swarm.receipts = append(p.swarm.receipts, rc)
	p.swarm.changed()
	return rc, ctx.Err()
}

// HasRole implements roles.Peer.
func (p *Peer) HasRole(did, role string) bool {
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	return slices.Contains(p.swarm.roles[did], role)
}

// MemberName implements roles.Peer.
func (p *Peer) MemberName(did string) string {
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	for _, o := range p.swarm.peers {
		if o.DID() == did {
			return o.name
		}
	}
	return ""
}

// Proved implements roles.Peer.
func (p *Peer) Proved() []guard.Proved {
	p.swarm.mu.Lock()
	var dids []string
	for _, o := range p.swarm.peers {
		dids = append(dids, o.DID())
	}
	p.swarm.mu.Unlock()
	var out []guard.Proved
	for _, did := range dids {
		for _, a := range p.rails.AddressesOf(did) {
			out = append(out, guard.Proved{DID: did, Address: a, Since: 1})
		}
	}
	return out
}

type said struct {
	responses []event.Response
	verdicts  []authority.Verdict
	policy    string
}

func (s said) Responses() []event.Response   { return s.responses }
func (s said) Verdicts() []authority.Verdict { return s.verdicts }
func (s said) Policy() (authority.Policy, bool) {
	return authority.Policy{Text: s.policy}, s.policy != ""
}

// Authority implements roles.Peer.
func (p *Peer) Authority() roles.Authority {
	p.swarm.mu.Lock()
	defer p.swarm.mu.Unlock()
	return said{p.swarm.responses, p.swarm.verdicts, p.swarm.policy}
}

// Changes implements roles.Peer.
func (p *Peer) Changes(ctx context.Context) <-chan struct{} {
	ch := make(chan struct{}, 1)
	next := func() <-chan struct{} {
		p.swarm.mu.Lock()
		defer p.swarm.mu.Unlock()
		return p.swarm.more
	}
	more := next() // before Changes returns: what happens from then on is told
	go func() {
		defer close(ch)
		for {
			select {
			case <-more:
			case <-ctx.Done():
				return
			}
			more = next() // before it is told: a change between the two must not be lost
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}()
	return ch
}
