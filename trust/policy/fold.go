package policy

import (
	"container/list"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Bounds of a fold.
const (
	// Window is how far apart, by their authors' clocks, two findings may lie and still speak of one thing.
	Window = 10 * time.Minute
	// MaxTargets is how many new addresses an author may name within QuotaHour: past it, its findings trigger nothing.
	MaxTargets = 16
	QuotaHour  = time.Hour
	// MaxAddresses is the most addresses remembered, the least recent forgotten first; MaxAuthors likewise.
	MaxAddresses = 4096
	MaxAuthors   = 32_768
	// maxPerAddress is the most findings remembered of one address; maxDerived the most ids of responses.
	maxPerAddress = 8
	maxDerived    = 65_536
	// maxBrief bounds each text of a finding that is remembered as a witness, in bytes.
	maxBrief = 128
)

// Proposal is a response that follows from findings, and how far it may go.
type Proposal struct {
	Response event.Response
	Verdict  Verdict // Ask, Local or Everywhere
	Reasons  []string
	Evidence []event.Finding
}

// FoldOptions say what a fold must know of the swarm.
type FoldOptions struct {
	// Self is this peer's DID: Local is for its findings only.
	Self string
	// HasRole says whether a member holds a role.
	HasRole func(did, role string) bool
}

// Fold derives responses from findings. Findings of one author must come in the order of its feed, as they do; the
// order between authors does not matter for which addresses are denied. Where three or more peers find one address at
// once, the order may add a response of another id on the same address, but the one that rests on the earliest two
// findings is derived everywhere. It is not safe for concurrent use.
type Fold struct {
	engine  *Engine
	opt     FoldOptions
	seen    *recent[netip.Addr, []event.Finding]
	authors *recent[string, *quota]
	derived *recent[string, struct{}]
	over    uint64
}

type quota struct {
	latest int64
	named  []naming
}

type naming struct {
	address netip.Addr
	time    int64
}

// NewFold makes an empty fold.
func NewFold(e *Engine, opt FoldOptions) *Fold {
	return &Fold{engine: e, opt: opt,
		seen:    newRecent[netip.Addr, []event.Finding](MaxAddresses),
		authors: newRecent[string, *quota](MaxAuthors),
		derived: newRecent[string, struct{}](maxDerived),
	}
}

// SetEngine changes the policy for what comes.
func (f *Fold) SetEngine(e *Engine) { f.engine = e }

// OverQuota counts the findings that triggered nothing because their author had named enough.
func (f *Fold) OverQuota() uint64 { return f.over }

// Add takes one finding, with ID, Peer and Host, and gives the response that follows from it, if one does. The same
// response is given once.
func (f *Fold) Add(finding *event.Finding) (p Proposal, ok bool) {
	if finding.Anonymous != nil {
		finding = f.nameless(finding)
	}
	address := finding.Subject.Address.Unmap()
	if !address.IsValid() || address.Zone() != "" || finding.ID == "" || finding.Peer == "" {
		return Proposal{}, false
	}
	if finding.Anonymous != nil && !f.engine.Believes(finding) {
		return f.ask(finding, address)
	}
	c := Case{
		Finding:   finding,
		DecoyRole: f.opt.HasRole != nil && f.opt.HasRole(finding.Peer, "decoy"),
		Own:       finding.Peer == f.opt.Self,
		Witnesses: 1,
	}
	// What could act on every host, alone or with one more witness, is what the quota is about.
	supposed := c
	supposed.Witnesses = 2
	if f.engine.Decide(supposed).Verdict == Everywhere {
		if !f.charge(finding, address) {
			f.over++
			return Proposal{}, false
		}
		c.Witnesses = f.witness(finding, address)
	}
	d := f.engine.Decide(c)
	if d.Verdict == None {
		return Proposal{}, false
	}
	evidence := []event.Finding{*finding}
	if d.Verdict == Everywhere && c.Witnesses >= 2 {
		alone := c
		alone.Witnesses = 1
		if f.engine.Decide(alone).Verdict != Everywhere {
			evidence = f.earliestPair(finding, address)
		}
	}
	r := f.derive(address, evidence, d)
	if _, known := f.derived.get(r.ID); known {
		return Proposal{}, false
	}
	f.derived.put(r.ID, struct{}{})
	return Proposal{Response: r, Verdict: d.Verdict, Reasons: d.Reasons, Evidence: evidence}, true
}

// Nobody stands for all anonymous reports together: their authors may be one and the same, so they are one witness at
// most, and have one share of the quota.
const Nobody = "anonymous"

// nameless puts Nobody in the place of the author, which was left empty.
func (f *Fold) nameless(finding *event.Finding) *event.Finding {
	named := *finding
	named.Peer, named.Handshake, named.Decoy = Nobody, false, ""
	return &named
}

// ask is for an anonymous report that is no witness: a person may be asked, and nothing is remembered of it.
func (f *Fold) ask(finding *event.Finding, address netip.Addr) (p Proposal, ok bool) {
	d := f.engine.Decide(Case{Finding: finding})
	if d.Verdict != Ask || !f.charge(finding, address) {
		return Proposal{}, false
	}
	r := f.derive(address, []event.Finding{*finding}, d)
	if _, known := f.derived.get(r.ID); known {
		return Proposal{}, false
	}
	f.derived.put(r.ID, struct{}{})
	return Proposal{Response: r, Verdict: Ask, Reasons: d.Reasons, Evidence: []event.Finding{*finding}}, true
}

// charge counts address against the author's quota. It works on the author's claimed times, which may not go back, so
// that gossip and sync agree whenever they bring the finding.
func (f *Fold) charge(finding *event.Finding, address netip.Addr) bool {
	q, ok := f.authors.get(finding.Peer)
	if !ok {
		q = &quota{}
		f.authors.put(finding.Peer, q)
	}
	q.latest = max(q.latest, finding.Time)
	now := q.latest
	q.named = slices.DeleteFunc(q.named, func(n naming) bool { return now-n.time >= int64(QuotaHour) })
	if slices.ContainsFunc(q.named, func(n naming) bool { return n.address == address }) {
		return true
	}
	if len(q.named) >= MaxTargets {
		return false
	}
	q.named = append(q.named, naming{address, now})
	return true
}

// witness remembers finding and counts the different peers that found address within Window of it.
func (f *Fold) witness(finding *event.Finding, address netip.Addr) int {
	all, _ := f.seen.get(address)
	if !slices.ContainsFunc(all, func(o event.Finding) bool { return o.ID == finding.ID }) {
		all = append(all, brief(finding))
		slices.SortFunc(all, earlier)
		if len(all) > maxPerAddress {
			all = forget(all)
		}
		f.seen.put(address, all)
	}
	peers := map[string]bool{finding.Peer: true}
	for _, o := range all {
		if within(&o, finding) {
			peers[o.Peer] = true
		}
	}
	return len(peers)
}

// brief is as much of a finding as a witness needs: an author must not fill the memory of others by long findings.
func brief(f *event.Finding) event.Finding {
	cut := func(s string) string { return strings.Clone(strings.ToValidUTF8(s[:min(len(s), maxBrief)], "")) }
	b := event.Finding{ID: f.ID, Peer: f.Peer, Host: cut(f.Host), Time: f.Time, Boot: f.Boot, RuleID: cut(f.RuleID), Rule: cut(f.Rule),
		Title: cut(f.Title), Severity: f.Severity, Confidence: f.Confidence, Handshake: f.Handshake, Decoy: cut(f.Decoy)}
	b.Subject.Address, b.Subject.Port = f.Subject.Address, f.Subject.Port
	for _, t := range f.Attack[:min(len(f.Attack), 8)] {
		b.Attack = append(b.Attack, cut(t))
	}
	return b
}

// forget drops one finding: the earliest of the author that has most, so that none crowds the others out.
func forget(all []event.Finding) []event.Finding {
	count := map[string]int{}
	most := 0
	for _, o := range all {
		count[o.Peer]++
		most = max(most, count[o.Peer])
	}
	i := slices.IndexFunc(all, func(o event.Finding) bool { return count[o.Peer] == most })
	return slices.Delete(all, i, i+1)
}

// earliestPair gives the earliest two findings of different authors within Window of finding: what every peer that has
// heard them all picks alike.
func (f *Fold) earliestPair(finding *event.Finding, address netip.Addr) []event.Finding {
	all, _ := f.seen.get(address)
	var near []event.Finding
	for _, o := range all {
		if within(&o, finding) {
			near = append(near, o)
		}
	}
	for i := range near {
		for j := i + 1; j < len(near); j++ {
			if near[i].Peer != near[j].Peer && within(&near[i], &near[j]) {
				return []event.Finding{near[i], near[j]}
			}
		}
	}
	return []event.Finding{*finding}
}

func within(a, b *event.Finding) bool {
	d := a.Time - b.Time
	return d <= int64(Window) && d >= -int64(Window)
}

func earlier(a, b event.Finding) int {
	switch {
	case a.Time < b.Time:
		return -1
	case a.Time > b.Time:
		return 1
	}
	return strings.Compare(a.ID, b.ID)
}

func (f *Fold) derive(address netip.Addr, evidence []event.Finding, d Decision) event.Response {
	last := evidence[len(evidence)-1]
	r := event.Response{
		Action:    event.ActionDeny,
		Target:    event.Target{Address: netip.PrefixFrom(address, address.BitLen())},
		Authority: event.AuthorityPolicy,
		By:        last.Peer,
		Issued:    last.Time,
		TTL:       d.TTL,
		Reason:    fmt.Sprintf("%s on %s", last.RuleID, last.Host),
	}
	if len(evidence) > 1 {
		r.Reason += fmt.Sprintf(", %s on %s", evidence[0].RuleID, evidence[0].Host)
	}
	r.Reason += " (" + strings.Join(d.Reasons, ", ") + ")"
	if d.Verdict == Local {
		r.Scope = []string{f.opt.Self}
	}
	for _, e := range evidence {
		r.Findings = append(r.Findings, e.ID)
	}
	slices.Sort(r.Findings)
	r.ID = ResponseID(r.Action, r.Target, r.Findings)
	return r
}

// ResponseID names a derived response: the first 16 bytes, in hex, of SHA-256 over "omega/response/1", the action, the
// target in text (a prefix; or a peer's DID) and the sorted ids behind it, each followed by a NUL.
func ResponseID(action event.Action, target event.Target, findings []string) string {
	h := sha256.New()
	text := target.Peer
	if target.Address.IsValid() {
		text = target.Address.String()
	}
	for _, s := range append([]string{"omega/response/1", string(action), text}, findings...) {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// recent is a map that forgets what was put longest ago.
type recent[K comparable, V any] struct {
	most  int
	order *list.List
	items map[K]*list.Element
}

type pair[K comparable, V any] struct {
	key   K
	value V
}

func newRecent[K comparable, V any](most int) *recent[K, V] {
	return &recent[K, V]{most: most, order: list.New(), items: map[K]*list.Element{}}
}

func (r *recent[K, V]) get(k K) (v V, ok bool) {
	e, ok := r.items[k]
	if !ok {
		return v, false
	}
	r.order.MoveToBack(e)
	return e.Value.(*pair[K, V]).value, true
}

func (r *recent[K, V]) put(k K, v V) {
	if e, ok := r.items[k]; ok {
		e.Value.(*pair[K, V]).value = v
		r.order.MoveToBack(e)
		return
	}
	r.items[k] = r.order.PushBack(&pair[K, V]{k, v})
	if r.order.Len() > r.most {
		oldest := r.order.Front()
		delete(r.items, oldest.Value.(*pair[K, V]).key)
		r.order.Remove(oldest)
	}
}
