package privileged

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/guard"
)

// fake is a kernel that remembers.
type fake struct {
	standing map[string]event.Response
	ports    []bpf.Listener
	peers    []netip.AddrPort
	refuse   error
}

func (f *fake) Apply(_ context.Context, r event.Response) (event.Receipt, error) {
	if f.refuse != nil {
		return event.Receipt{Response: r.ID, Outcome: event.OutcomeFailed, Detail: f.refuse.Error()}, f.refuse
	}
	f.standing[r.ID] = r
	return event.Receipt{Response: r.ID, Outcome: event.OutcomeDone, Acted: bpf.BootTime(), Means: []string{"xdp"}}, nil
}

func (f *fake) Release(_ context.Context, id string) (event.Receipt, error) {
	if _, ok := f.standing[id]; !ok {
		return event.Receipt{Response: id, Outcome: event.OutcomeFailed}, bpf.ErrUnknownResponse
	}
	delete(f.standing, id)
	return event.Receipt{Response: id, Outcome: event.OutcomeReleased}, nil
}

func (f *fake) ReleaseAll() (int, error) {
	n := len(f.standing)
	clear(f.standing)
	return n, nil
}

func (f *fake) Active() (out []bpf.Enforced) {
	for id, r := range f.standing {
		out = append(out, bpf.Enforced{ID: id, Action: r.Action, Target: r.Target, Expires: bpf.BootTime() + uint64(r.TTL)})
	}
	return out
}
func (f *fake) Coverage() []bpf.Check             { return []bpf.Check{{Name: "actuator/deny-address", OK: true}} }
func (f *fake) Drops() (map[string]uint64, error) { return map[string]uint64{"exec": 0}, nil }
func (f *fake) SetSwarm(ports []bpf.Listener, peers []netip.AddrPort) error {
	f.ports, f.peers = ports, peers
	return nil
}

func (f *fake) SetSpared([]netip.Prefix) error { return nil }

const self = "did:omega:self"

func host(t *testing.T, mode string, k Kernel, change ...func(*HostOptions)) *Host {
	t.Helper()
	opt := HostOptions{Mode: mode, Self: self, Dir: t.TempDir(), Kernel: k, Rails: guard.New(), Log: quiet}
	for _, c := range change {
		c(&opt)
	}
	h, err := NewHost(opt)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func deny(addr string) event.Response {
	p := netip.MustParseAddr(addr)
	return event.Response{ID: partID("test", p), Action: event.ActionDeny, Target: event.Target{Address: netip.PrefixFrom(p, p.BitLen())},
		Authority: event.AuthorityPolicy, TTL: time.Hour, Issued: time.Now().UnixNano()}
}

func outcome(t *testing.T, h *Host, r event.Response) event.Receipt {
	t.Helper()
	rc, err := h.Apply(t.Context(), r, 0)
	if err != nil {
		t.Fatal(err)
	}
	return rc
}

func TestModesDecideWhetherTheKernelIsTouched(t *testing.T) {
	k := &fake{standing: map[string]event.Response{}}
	if rc := outcome(t, host(t, ModeObserve, k), deny("203.0.113.9")); rc.Outcome != event.OutcomeObserved || len(k.standing) != 0 {
		t.Errorf("observe: %+v, kernel holds %d", rc, len(k.standing))
	}
	if rc := outcome(t, host(t, ModeEnforce, nil), deny("203.0.113.9")); rc.Outcome != event.OutcomeFailed || rc.Detail != ErrUnavailable.Error() {
		t.Errorf("without a kernel: %+v", rc)
	}
	h := host(t, ModeEnforce, k)
	if rc := outcome(t, h, deny("203.0.113.9")); rc.Outcome != event.OutcomeDone || len(k.standing) != 1 {
		t.Errorf("enforce: %+v, kernel holds %d", rc, len(k.standing))
	}
	k.refuse = errors.New("map full")
	if rc := outcome(t, h, deny("203.0.113.10")); rc.Outcome != event.OutcomeFailed || rc.Detail != "map full" {
		t.Errorf("a kernel that fails: %+v", rc)
	}
	if _, err := h.Apply(t.Context(), event.Response{ID: id, Action: event.ActionDeny}, 0); err == nil {
		t.Error("a response without an end was taken")
	}
}

func TestRailsHoldOnThisSide(t *testing.T) {
	k := &fake{standing: map[string]event.Response{}}
	h := host(t, ModeEnforce, k, func(o *HostOptions) { o.Allow = []string{"198.51.100.0/24"} })
	if err := h.Protect(t.Context(), []bpf.Listener{{Protocol: 6, Port: 7946}}, []Proved{{DID: "did:omega:n4", Addr: netip.MustParseAddr("::ffff:203.0.113.4"), Port: 7946, Since: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := h.Operators(t.Context(), []string{"192.0.2.7"}); err != nil {
		t.Fatal(err)
	}
	for addr, rail := range map[string]string{"127.0.0.1": guard.RailLoopback, "198.51.100.8": guard.RailAllow, "192.0.2.7": guard.RailAllow, "203.0.113.4": guard.RailPeer} {
		if rc := outcome(t, h, deny(addr)); rc.Outcome != event.OutcomeRefused || rc.Guard != rail {
			t.Errorf("%s: %+v, want rail %s", addr, rc, rail)
		}
	}
	if len(k.standing) != 0 {
		t.Errorf("the kernel holds %v", k.standing)
	}
	if len(k.ports) != 1 || len(k.peers) != 1 || k.peers[0].Addr().String() != "203.0.113.4" && k.peers[0].Addr().Unmap().String() != "203.0.113.4" {
		t.Errorf("what passes a containment: %v, %v", k.ports, k.peers)
	}
}

func TestContainingAnotherHostRefusesItsAddresses(t *testing.T) {
	k := &fake{standing: map[string]event.Response{}}
	h := host(t, ModeEnforce, k)
	contain := event.Response{ID: id, Action: event.ActionContain, Target: event.Target{Peer: "did:omega:n4"}, Authority: event.AuthorityOperator, TTL: time.Hour}
	if rc := outcome(t, h, contain); rc.Outcome != event.OutcomeFailed {
		t.Errorf("a peer never seen: %+v", rc)
	}
	a, b := netip.MustParseAddr("10.77.0.4"), netip.MustParseAddr("fd00::4")
	if err := h.Protect(t.Context(), nil, []Proved{{DID: "did:omega:n4", Addr: a}, {DID: "did:omega:n4", Addr: b}, {DID: "did:omega:n4", Addr: a, Port: 9}}); err != nil {
		t.Fatal(err)
	}
	if err := h.Protect(t.Context(), nil, nil); err != nil { // its connections end; where it was is not forgotten
		t.Fatal(err)
	}
	// Nor is how to reach the swarm: were this host contained, it would hear of its release there alone.
	if want := netip.AddrPortFrom(a, 9); len(k.peers) != 3 || !slices.Contains(k.peers, want) {
		t.Errorf("while no peer is connected, %v may pass a containment; want %v among three", k.peers, want)
	}
	if rc := outcome(t, h, contain); rc.Outcome != event.OutcomeDone || len(k.standing) != 2 {
		t.Fatalf("%+v, kernel holds %v", rc, k.standing)
	}
	for _, r := range k.standing {
		if r.Action != event.ActionContain || !r.Target.Address.IsSingleIP() || r.Target.Peer != "" {
			t.Errorf("the kernel holds %+v", r)
		}
	}
	if rc, err := h.Release(t.Context(), id); err != nil || rc.Outcome != event.OutcomeReleased || rc.Response != id || len(k.standing) != 0 {
		t.Errorf("release: %+v, %v, kernel holds %v", rc, err, k.standing)
	}
	contain.Target.Peer = self
	if rc := outcome(t, h, contain); rc.Outcome != event.OutcomeDone || k.standing[id].Action != event.ActionContain {
		t.Errorf("itself: %+v, kernel holds %v", rc, k.standing)
	}
}

// Where a member is is said by the half that parses: no word of it has the kernel refuse what the rails protect.
func TestContainingAnotherHostKeepsToTheRails(t *testing.T) {
	k := &fake{standing: map[string]event.Response{}}
	h := host(t, ModeEnforce, k, func(o *HostOptions) { o.Allow = []string{"10.77.0.1"} })
	const liar, honest = "did:omega:liar", "did:omega:honest"
	told := func(did string, addrs ...string) (out []Proved) {
		for _, a := range addrs {
			out = append(out, Proved{DID: did, Addr: netip.MustParseAddr(a), Since: 1})
		}
		return out
	}
	if err := h.Protect(t.Context(), nil, slices.Concat(told(liar, "10.77.0.1", "10.77.0.5", "127.0.0.1"), told(honest, "10.77.0.5"))); err != nil {
		t.Fatal(err)
	}
	contain := event.Response{ID: id, Action: event.ActionContain, Target: event.Target{Peer: liar}, Authority: event.AuthorityOperator, TTL: time.Hour}
	if rc := outcome(t, h, contain); rc.Outcome != event.OutcomeRefused || rc.Guard == "" || len(k.standing) != 0 {
		t.Errorf("an allowed address, another member's and loopback: %+v, kernel holds %v", rc, k.standing)
	}
	if err := h.Protect(t.Context(), nil, slices.Concat(told(liar, "10.77.0.1", "10.77.0.6"), told(honest, "10.77.0.5"))); err != nil {
		t.Fatal(err)
	}
	if rc := outcome(t, h, contain); rc.Outcome != event.OutcomeDone || rc.Detail == "" || len(k.standing) != 1 {
		t.Errorf("its own address beside an allowed one: %+v, kernel holds %v", rc, k.standing)
	}
	// Nor does an address ride along with a peer's name.
	contain.Target.Address = netip.MustParsePrefix("10.77.0.1/32")
	for _, peer := range []string{liar, self} {
		if contain.Target.Peer = peer; outcome(t, h, contain).Outcome != event.OutcomeRefused {
			t.Errorf("a containment of %s with an address was taken", peer)
		}
	}
}

func TestPanicReleasesStaysAndIsTakenBackByWord(t *testing.T) {
	k := &fake{standing: map[string]event.Response{}}
	h := host(t, ModeEnforce, k)
	outcome(t, h, deny("203.0.113.9"))
	if n, err := h.Panic(t.Context()); n != 1 || err != nil || len(k.standing) != 0 {
		t.Fatalf("released %d, %v, kernel holds %v", n, err, k.standing)
	}
	if rc := outcome(t, h, deny("203.0.113.10")); rc.Outcome != event.OutcomeObserved || len(k.standing) != 0 {
		t.Errorf("after panic: %+v", rc)
	}
	dir := h.opt.Dir
	again := host(t, ModeEnforce, k, func(o *HostOptions) { o.Dir = dir })
	if m, _ := again.Mode(t.Context()); m != ModePanic {
		t.Errorf("after a restart: %s", m)
	}
	resumed := host(t, ModeEnforce, k, func(o *HostOptions) { o.Dir, o.Resume = dir, true })
	if m, _ := resumed.Mode(t.Context()); m != ModeEnforce {
		t.Errorf("after a start that names its mode: %s", m)
	}
}

func TestAllowListIsKept(t *testing.T) {
	h := host(t, ModeObserve, nil, func(o *HostOptions) { o.Allow = []string{"10.0.0.0/8"} })
	ctx := t.Context()
	if err := h.Allow(ctx, "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	if err := h.Allow(ctx, "not an address"); err == nil {
		t.Error("rubbish was taken")
	}
	if err := h.Disallow(ctx, "10.0.0.0/8"); err == nil {
		t.Error("a line of the configuration was taken away")
	}
	dir := h.opt.Dir
	again := host(t, ModeObserve, nil, func(o *HostOptions) { o.Dir = dir })
	if l, _ := again.Allowed(ctx); !slices.Equal(l, []string{"192.0.2.1"}) {
		t.Errorf("after a restart: %v", l)
	}
	if err := again.Disallow(ctx, "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(filepath.Join(dir, fileAllow)); err != nil || len(raw) != 0 {
		t.Errorf("%q, %v", raw, err)
	}
}

func TestLooksUpAProcess(t *testing.T) {
	p, err := host(t, ModeObserve, nil).Process(t.Context(), uint32(os.Getpid()))
	exe, _ := os.Executable()
	if err != nil || p.Exe != exe || p.Key.Start == 0 || p.UID != uint32(os.Getuid()) || len(p.Argv()) == 0 || p.Inode == 0 {
		t.Errorf("%+v, %v", p, err)
	}
}
