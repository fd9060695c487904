package sentinel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/roles/rolestest"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/guard"
	"github.com/omega-mesh/omega/trust/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const outsider = "203.0.113.9"

// town is five sentinels, of which n2 and n4 are decoys, at 10.0.0.1 to 10.0.0.5.
type town struct {
	*rolestest.Swarm
	t      *testing.T
	ctx    context.Context
	peers  map[string]*rolestest.Peer
	boards map[string]*roles.Board
}

func newTown(t *testing.T) *town {
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(stop)
	w := &town{Swarm: rolestest.New(), t: t, ctx: ctx, peers: map[string]*rolestest.Peer{}, boards: map[string]*roles.Board{}}
	at := map[string]string{}
	for i := 1; i <= 5; i++ {
		name, address := fmt.Sprintf("n%d", i), fmt.Sprintf("10.0.0.%d", i)
		hold := []string{roles.NameSentinel}
		if i == 2 || i == 4 {
			hold = append(hold, roles.NameDecoy)
		}
		w.peers[name], w.boards[name], at[name] = w.Add(name, address, hold...), roles.NewBoard(), address
	}
	w.Prove(at)
	return w
}

// start runs the sentinels named, or all; stop ends them.
func (w *town) start(names ...string) (stop func()) {
	w.t.Helper()
	if len(names) == 0 {
		names = []string{"n1", "n2", "n3", "n4", "n5"}
	}
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan error, len(names))
	for _, n := range names {
		s := New(Options{Board: w.boards[n]})
		go func() { done <- s.Run(ctx, w.peers[n]) }()
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range names {
			if err := <-done; !errors.Is(err, context.Canceled) {
				w.t.Errorf("a sentinel ended: %v", err)
			}
		}
	}
	w.t.Cleanup(stop)
	w.until("the sentinels to watch", func() bool {
		for _, n := range names {
			if !w.peers[n].Watched() || w.peers[n].Followed() < 2 { // the responder, and who watches for silence
				return false
			}
		}
		return true
	})
	return stop
}

func (w *town) until(what string, ok func() bool) {
	w.t.Helper()
	if err := w.Until(w.ctx, ok); err != nil {
		w.t.Fatalf("waited for %s: %v\nreceipts: %+v", what, err, w.Receipts())
	}
}

func (w *town) everywhere(address string) bool {
	for _, p := range w.peers {
		if !p.Denies(address) {
			return false
		}
	}
	return true
}

func (w *town) touch(by, source string) event.Finding {
	return w.publish(by, event.Finding{RuleID: "omega.decoy.touch", Severity: event.SeverityHigh, Confidence: 100, Handshake: true, Decoy: "tcp/2323", Subject: event.Subject{Address: netip.MustParseAddr(source)}})
}

func (w *town) scan(by, source string) event.Finding {
	return w.publish(by, event.Finding{RuleID: "omega.net.scan", Severity: event.SeverityMedium, Confidence: 60, Subject: event.Subject{Address: netip.MustParseAddr(source)}})
}

func (w *town) publish(by string, f event.Finding) event.Finding {
	w.t.Helper()
	f, err := w.peers[by].Publish(w.ctx, f)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// fence has every sentinel fold all that was published so far: it waits until each has acted on something later.
func (w *town) fence(address string) {
	w.t.Helper()
	w.touch("n2", address)
	w.until("a later finding", func() bool { return w.everywhere(address) })
}

func TestDecoyTouchDeniesEverywhere(t *testing.T) {
	w := newTown(t)
	w.start()
	f := w.touch("n2", outsider)
	w.until("every kernel to refuse", func() bool { return w.everywhere(outsider) })
	want := policy.ResponseID(event.ActionDeny, event.Target{Address: netip.MustParsePrefix(outsider + "/32")}, []string{f.ID})
	w.until("five receipts", func() bool { return len(w.Receipts()) == 5 })
	for _, rc := range w.Receipts() {
		if rc.Response != want || rc.Outcome != event.OutcomeDone || rc.Heard == 0 || rc.Acted < rc.Heard {
			t.Errorf("receipt %+v, want response %s", rc, want)
		}
	}
	if s, ok := w.boards["n3"].Response(want); !ok || s.State != roles.StateActive {
		t.Errorf("board: %+v %v", s, ok)
	}
}

func TestOneScanActsNowhereTwoEverywhere(t *testing.T) {
	w := newTown(t)
	w.start()
	w.scan("n3", outsider)
	w.fence("203.0.113.10")
	for n, p := range w.peers {
		if p.Denies(outsider) {
			t.Errorf("%s acted on one peer's scan", n)
		}
	}
	w.scan("n5", outsider)
	w.until("two witnesses", func() bool { return w.everywhere(outsider) })
}

func TestSureActsAtHomeOnly(t *testing.T) {
	w := newTown(t)
	w.start()
	w.publish("n1", event.Finding{RuleID: "omega.shell.socket", Severity: event.SeverityHigh, Confidence: 95, Subject: event.Subject{Address: netip.MustParseAddr(outsider)}})
	w.fence("203.0.113.10")
	for n, p := range w.peers {
		if p.Denies(outsider) != (n == "n1") {
			t.Errorf("%s denies: %v", n, p.Denies(outsider))
		}
	}
}

// TestMemberWaitsForApproval: a member that touches a decoy is held back by the rail, and contained once approved.
func TestMemberWaitsForApproval(t *testing.T) {
	w := newTown(t)
	w.start()
	w.touch("n2", "10.0.0.4")
	w.until("every board to show it", func() bool {
		for _, b := range w.boards {
			if len(b.Pending()) != 1 {
				return false
			}
		}
		return true
	})
	p := w.boards["n1"].Pending()[0]
	if p.Guard != guard.RailPeer || p.Suggested != event.ActionContain || p.Member != "did:omega:n4" || len(p.Evidence) != 1 || p.Evidence[0].Decoy != "tcp/2323" {
		t.Fatalf("pending: %+v", p)
	}
	if own := w.boards["n4"].Pending()[0]; own.Guard != guard.RailOwn || own.Member != "did:omega:n4" {
		t.Fatalf("pending on n4: %+v", own)
	}
	for n, peer := range w.peers {
		if len(peer.Enforced()) != 0 {
			t.Errorf("%s acted: %v", n, peer.Enforced())
		}
	}
	w.Decide(p.Proposal.ID, true)
	w.until("every host to contain n4", func() bool {
		for _, peer := range w.peers {
			r, ok := peer.Enforced()[p.Proposal.ID]
			if !ok || r.Action != event.ActionContain || r.Target.Peer != "did:omega:n4" {
				return false
			}
		}
		return true
	})
	for n, b := range w.boards {
		if len(b.Pending()) != 0 {
			t.Errorf("%s still waits", n)
		}
	}
	w.Order(event.Response{Action: event.ActionRelease, Releases: p.Proposal.ID, Reason: "cleaned"})
	w.until("the release", func() bool {
		for _, peer := range w.peers {
			if len(peer.Enforced()) != 0 {
				return false
			}
		}
		return true
	})
}

func TestRejected(t *testing.T) {
	w := newTown(t)
	w.start("n1")
	w.touch("n2", "10.0.0.4")
	w.until("the board", func() bool { return len(w.boards["n1"].Pending()) == 1 })
	id := w.boards["n1"].Pending()[0].Proposal.ID
	w.Decide(id, false)
	w.until("the rejection", func() bool {
		s, _ := w.boards["n1"].Response(id)
		return s.State == roles.StateRejected && len(w.boards["n1"].Pending()) == 0
	})
	if len(w.peers["n1"].Enforced()) != 0 {
		t.Error("acted on what was rejected")
	}
}

func TestReleaseAndLateFindings(t *testing.T) {
	w := newTown(t)
	stop := w.start()
	w.touch("n2", outsider)
	w.touch("n4", outsider) // a second response on the same address
	w.until("the blocks", func() bool { return len(w.peers["n1"].Enforced()) == 2 && w.everywhere(outsider) })
	w.Advance(time.Second)
	var one string
	for id := range w.peers["n1"].Enforced() {
		one = id
	}
	w.Order(event.Response{Action: event.ActionRelease, Releases: one})
	w.until("the address to be let in everywhere", func() bool {
		for _, p := range w.peers {
			if p.Denies(outsider) {
				return false
			}
		}
		return true
	})
	// A new life folds the same history, and must not block again.
	stop()
	for n := range w.boards {
		w.boards[n] = roles.NewBoard()
	}
	w.start()
	w.Advance(2 * time.Duration(settle))
	w.fence("203.0.113.10")
	w.until("history to be done with", func() bool { s := w.boards["n3"].Responses(); return len(s) >= 2 })
	for n, p := range w.peers {
		if p.Denies(outsider) {
			t.Errorf("%s blocks again what was released", n)
		}
	}
	// What is found after the release counts.
	w.Advance(time.Minute)
	w.touch("n4", outsider)
	w.until("a new block", func() bool { return w.everywhere(outsider) })
}

// TestLateJoinerBlocksForTheRest: history is acted on for what is left of its life, and members are spared although
// their connections were proved after it.
func TestLateJoinerBlocksForTheRest(t *testing.T) {
	w := newTown(t)
	w.touch("n2", outsider)
	w.touch("n2", "10.0.0.4")
	w.Advance(50 * time.Minute)
	w.touch("n4", "203.0.113.77")
	w.Advance(5 * time.Minute)
	w.start("n1")
	w.until("nothing yet", func() bool { return len(w.peers["n1"].Enforced()) == 0 })
	w.Advance(2 * time.Duration(settle))
	n1 := w.peers["n1"]
	w.until("the rest", func() bool { return n1.Denies(outsider) && n1.Denies("203.0.113.77") })
	for _, r := range n1.Enforced() {
		if strings.HasPrefix(r.Target.Address.String(), outsider) && (r.TTL > 5*time.Minute || r.TTL < 4*time.Minute) {
			t.Errorf("blocked for %s, not for what is left", r.TTL)
		}
	}
	if n1.Denies("10.0.0.4") {
		t.Error("a member was blocked by history")
	}
	w.Advance(6 * time.Minute)
	w.until("the expiry", func() bool {
		for _, s := range w.boards["n1"].Responses() {
			if s.Response.Target.Address.String() == outsider+"/32" {
				return s.State == roles.StateExpired
			}
		}
		return false
	})
	w.until("its receipt", func() bool {
		for _, rc := range w.Receipts() {
			if rc.Outcome == event.OutcomeExpired {
				return true
			}
		}
		return false
	})
}

func TestObserveSaysWhatItWouldDo(t *testing.T) {
	w := newTown(t)
	w.peers["n1"].SetMode(roles.ModeObserve)
	w.start("n1")
	w.touch("n2", outsider)
	w.until("a receipt", func() bool { return len(w.Receipts()) == 1 })
	if rc := w.Receipts()[0]; rc.Outcome != event.OutcomeObserved || len(w.peers["n1"].Enforced()) != 0 {
		t.Fatalf("%+v, %v", rc, w.peers["n1"].Enforced())
	}
}

func TestOperatorOrders(t *testing.T) {
	w := newTown(t)
	// Said before this life: a block stands for its rest, a kill is not repeated.
	w.Order(event.Response{Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix("198.51.100.0/24")}, TTL: time.Hour})
	old := w.Order(event.Response{Action: event.ActionKill, Target: event.Target{PID: 2, Peer: "did:omega:n1"}, TTL: time.Hour})
	w.start("n1", "n2")
	w.until("the block", func() bool { return w.peers["n1"].Denies("198.51.100.7") && w.peers["n2"].Denies("198.51.100.7") })
	scoped := w.Order(event.Response{Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix("198.18.0.1/32")}, Scope: []string{"did:omega:n2"}, TTL: time.Hour})
	rail := w.Order(event.Response{Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix("10.0.0.4/32")}, TTL: time.Hour})
	kill := w.Order(event.Response{Action: event.ActionKill, Target: event.Target{PID: 1, Peer: "did:omega:n1"}, TTL: time.Hour})
	w.until("the receipts", func() bool { return len(w.Receipts()) >= 6 })
	for _, rc := range w.Receipts() {
		switch rc.Response {
		case scoped.ID:
			if rc.Host != "n2" || rc.Outcome != event.OutcomeDone {
				t.Errorf("out of scope: %+v", rc)
			}
		case rail.ID:
			if rc.Outcome != event.OutcomeRefused || rc.Guard != guard.RailPeer {
				t.Errorf("an operator crossed a rail: %+v", rc)
			}
		case kill.ID:
			if rc.Host != "n1" || rc.Guard != guard.RailInit {
				t.Errorf("kill: %+v", rc)
			}
		case old.ID:
			t.Errorf("an old kill was repeated: %+v", rc)
		}
	}
	w.Advance(time.Second)
	w.Order(event.Response{Action: event.ActionRelease, Releases: scoped.ID})
	w.until("the release", func() bool { return !w.peers["n2"].Denies("198.18.0.1") })
}

func TestPolicyChangesLive(t *testing.T) {
	w := newTown(t)
	w.start("n1")
	w.SetPolicy(`@id("ask-scans") permit (principal, action == Action::"ask", resource) when { context.rule == "omega.net.scan" };`)
	w.until("the policy", func() bool { return true })
	f := w.scan("n3", outsider)
	id := policy.ResponseID(event.ActionDeny, event.Target{Address: netip.MustParsePrefix(outsider + "/32")}, []string{f.ID})
	w.Decide(id, true)
	w.until("what was asked and approved", func() bool { return w.peers["n1"].Denies(outsider) })
	w.touch("n2", "203.0.113.10")
	w.scan("n3", "203.0.113.11")
	if w.peers["n1"].Denies("203.0.113.10") {
		t.Error("the old policy still acts")
	}
}

func TestPanicReleasesTheBooks(t *testing.T) {
	w := newTown(t)
	w.start("n1")
	w.touch("n2", outsider)
	w.until("the block", func() bool { return w.peers["n1"].Denies(outsider) })
	w.peers["n1"].SetMode(roles.ModePanic)
	w.until("the books", func() bool { return w.boards["n1"].Responses()[0].State == roles.StateReleased })
}

func TestClocks(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	at := func(peer string, ago time.Duration, live bool) *roles.Heard {
		return &roles.Heard{Finding: event.Finding{Peer: peer, Time: now.Add(-ago).UnixNano()}, Live: live}
	}
	c := newClocks()
	for _, s := range []struct {
		name string
		h    *roles.Heard
		want time.Duration
	}{
		{"history counts its age", at("right", 30*time.Minute, false), 30 * time.Minute},
		{"news", at("right", time.Second, true), time.Second},
		{"from the future", at("right", -time.Minute, true), 0},
		{"after a partition", at("right", 2*time.Hour, true), 2 * time.Hour},
		{"a clock a day behind does not disarm", at("slow", 24*time.Hour, true), 0},
		{"nor does it lengthen", at("slow", 24*time.Hour+10*time.Minute, true), 10 * time.Minute},
	} {
		if got := c.age(s.h, now); got != s.want {
			t.Errorf("%s: %s, want %s", s.name, got, s.want)
		}
	}
}
