package drill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/testnet"
)

// These tests run the real binary in real network namespaces.

// built is the binary under test, made by the first test that needs it and removed by TestMain.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func omegaBinary(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("short: a swarm of real nodes takes some seconds")
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "omega-drill-test-"); built.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", filepath.Join(built.dir, "omega"), "github.com/omega-mesh/omega/cmd/omega")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = errors.New(string(out))
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "omega")
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces and eBPF need root")
	}
}

func TestDrillImmunisesEveryHost(t *testing.T) {
	needRoot(t)
	var story bytes.Buffer
	r, err := Run(t.Context(), Options{Nodes: 5, Binary: omegaBinary(t), Out: &story, Progress: func(s string) { t.Log(s) }})
	t.Logf("%s\n%+v", story.String(), r)
	if err != nil {
		t.Fatal(err)
	}
	if r.BlockedOn != 5 || r.FalseBlocks != 0 || len(r.Steps) != 3 {
		t.Errorf("blocked on %d, %d blocked falsely, %d steps", r.BlockedOn, r.FalseBlocks, len(r.Steps))
	}
	for _, s := range r.Steps {
		if !s.Detected || s.Rule == "" || s.DetectMS <= 0 {
			t.Errorf("step %+v", s)
		}
	}
	if r.ImmunityMS.Min <= 0 || r.ImmunityMS.Max < r.ImmunityMS.Min {
		t.Errorf("immunity %+v", r.ImmunityMS)
	}
	for _, want := range []string{"Immunity time", "Proof", "10.77.0.250"} {
		if !strings.Contains(story.String(), want) {
			t.Errorf("the story does not tell %q", want)
		}
	}
}

// swarm is a testnet and the commands of a person at its hosts.
type swarm struct {
	*testing.T
	net *testnet.Net
}

func (s swarm) host(name string) *testnet.Host {
	s.Helper()
	state, err := testnet.Find(s.net.State().ID) // as written down: it knows hosts that were added
	if err != nil {
		s.Fatal(err)
	}
	h, err := state.Host(name)
	if err != nil {
		s.Fatal(err)
	}
	return h
}

func (s swarm) run(on, stdin string, argv ...string) (string, error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	if err := s.net.Start(s.host(on), cmd); err != nil {
		s.Fatal(err)
	}
	err := cmd.Wait()
	return out.String() + errOut.String(), err
}

// omega runs a command line of the binary on a host.
func (s swarm) omega(on string, args ...string) string {
	s.Helper()
	out, err := s.run(on, "", append([]string{s.net.State().Binary}, args...)...)
	if err != nil {
		s.Fatalf("on %s: omega %s: %v: %s", on, strings.Join(args, " "), err, out)
	}
	return out
}

// reaches makes a real TCP connect from one host to another.
func (s swarm) reaches(from, to string, port uint16) bool {
	s.Helper()
	return s.connects(from, s.host(from).Addr, s.host(to).Addr, port)
}

// reaches6 is the same over IPv6.
func (s swarm) reaches6(from, to string, port uint16) bool {
	s.Helper()
	return s.connects(from, s.host(from).Addr6, s.host(to).Addr6, port)
}

// answers6 says whether a host answers another at all over IPv6: where nobody listens, its refusal is an answer too.
func (s swarm) answers6(from, to string) bool {
	s.Helper()
	const port = 9 // discard: nobody's
	got := s.attempt(from, s.host(from).Addr6, s.host(to).Addr6, port)
	return got.OK || strings.Contains(got.Error, "refused")
}

func (s swarm) connects(on string, from, to netip.Addr, port uint16) bool {
	s.Helper()
	return s.attempt(on, from, to, port).OK
}

func (s swarm) attempt(on string, from, to netip.Addr, port uint16) Attempt {
	s.Helper()
	out := s.omega(on, "drill", "helper", "dial", from.String(), "700ms", netip.AddrPortFrom(to, port).String())
	var got []Attempt
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got) != 1 {
		s.Fatalf("dial: %v: %s", err, out)
	}
	return got[0]
}

// eventually polls what the nodes say, not the clock: it fails only after a limit far above what is asked for.
func (s swarm) eventually(what string, good func() bool) time.Duration {
	s.Helper()
	began := time.Now()
	for !good() {
		if time.Since(began) > 10*time.Second {
			s.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(began)
}

// refusing are the members on which a response with this action on this target is active.
func (s swarm) refusing(action, target string) (hosts []string, id string) {
	s.Helper()
	for _, h := range s.net.Members() {
		list, err := h.Client().ListResponses(s.Context(), &apiv1.ListResponsesRequest{Active: true})
		if err != nil {
			continue
		}
		for _, r := range list.GetResponses() {
			address, _, _ := strings.Cut(r.GetTarget().GetAddress(), "/")
			if r.GetState() == "active" && r.GetAction() == action && (address == target || r.GetTarget().GetPeer() == target) {
				hosts, id = append(hosts, h.Name), r.GetId()
			}
		}
	}
	return hosts, id
}

func TestSwarmUnderAttack(t *testing.T) {
	needRoot(t)
	n, err := testnet.Up(t.Context(), testnet.Options{Nodes: 4, Binary: omegaBinary(t), Progress: func(s string) { t.Log(s) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	// Each part builds on the one before: a failed one leaves nothing to go on with.
	ok := t.Run("an outsider's touch is refused everywhere, and a release admits it again", func(t *testing.T) { outsiderAndRelease(swarm{t, n}) }) &&
		t.Run("an outsider's touch over IPv6 is refused everywhere", func(t *testing.T) { outsiderOverIPv6(swarm{t, n}) }) &&
		t.Run("a domain and a port are refused, released, and end by themselves", func(t *testing.T) { deniedByNameAndPort(swarm{t, n}) }) &&
		t.Run("writing is denied, who tries is named, and what root changes is put back", func(t *testing.T) { deniedWrites(swarm{t, n}) }) &&
		t.Run("a member's touch waits for a person, whose approval contains it", func(t *testing.T) { memberAndApproval(swarm{t, n}) }) &&
		t.Run("a host joins while the inviter is down", func(t *testing.T) { joinWithoutInviter(swarm{t, n}) })
	if !ok {
		for _, h := range n.Hosts() {
			if raw, err := os.ReadFile(h.Log); err == nil {
				t.Logf("%s:\n%s", h.Name, raw[max(0, len(raw)-4000):])
			}
		}
	}
}

func outsiderAndRelease(s swarm) {
	x1, n4 := s.host("x1"), s.host("n4")
	if !s.reaches("x1", "n4", n4.Decoy) {
		s.Fatal("x1 does not reach the decoy on n4")
	}
	var id string
	s.eventually("all four refuse x1", func() bool {
		var hosts []string
		hosts, id = s.refusing("deny", x1.Addr.String())
		return len(hosts) == 4
	})
	for _, h := range s.net.Members() {
		if s.reaches("x1", h.Name, h.Port) {
			s.Errorf("x1 still reaches %s", h.Name)
		}
	}
	if !s.reaches("n1", "n2", s.host("n2").Port) {
		s.Error("n1 no longer reaches n2")
	}
	s.omega("n1", "respond", "release", id)
	s.eventually("none refuses x1", func() bool {
		hosts, _ := s.refusing("deny", x1.Addr.String())
		return len(hosts) == 0
	})
	for _, h := range s.net.Members() {
		if !s.reaches("x1", h.Name, h.Port) {
			s.Errorf("after the release x1 does not reach %s", h.Name)
		}
	}
}

// An attacker's other address is another source: nothing says that they are one host. It is refused once it attacks.
func outsiderOverIPv6(s swarm) {
	x1, n4 := s.host("x1"), s.host("n4")
	if !x1.Addr6.IsValid() {
		s.Skip("this kernel has IPv6 off")
	}
	if !s.reaches6("x1", "n4", n4.Decoy) {
		s.Fatal("x1 does not reach the decoy on n4 over IPv6")
	}
	var id string
	s.eventually("all four refuse x1's IPv6 address", func() bool {
		var hosts []string
		hosts, id = s.refusing("deny", x1.Addr6.String())
		return len(hosts) == 4
	})
	for _, h := range s.net.Members() {
		if s.answers6("x1", h.Name) {
			s.Errorf("x1 still reaches %s over IPv6", h.Name)
		}
		if !s.reaches("x1", h.Name, h.Port) {
			s.Errorf("x1's IPv4 address did nothing since its release, and does not reach %s", h.Name)
		}
	}
	s.omega("n1", "respond", "release", id)
	s.eventually("none refuses x1's IPv6 address", func() bool {
		hosts, _ := s.refusing("deny", x1.Addr6.String())
		return len(hosts) == 0
	})
	if !s.answers6("x1", "n1") {
		s.Error("after the release x1 does not reach n1 over IPv6")
	}
}

func memberAndApproval(s swarm) {
	n4 := s.host("n4")
	var did string
	{
		status, err := n4.Client().Status(s.Context(), &apiv1.StatusRequest{})
		if err != nil {
			s.Fatal(err)
		}
		did = status.GetDid()
	}
	if !s.reaches("n4", "n2", s.host("n2").Decoy) {
		s.Fatal("n4 does not reach the decoy on n2")
	}
	var pending *apiv1.Pending
	s.eventually("n1 has the block of n4 pending", func() bool {
		list, err := s.host("n1").Client().ListPending(s.Context(), &apiv1.ListPendingRequest{})
		for _, p := range list.GetPending() {
			if err == nil && strings.HasPrefix(p.GetProposal().GetTarget().GetAddress(), n4.Addr.String()) {
				pending = p
			}
		}
		return pending != nil
	})
	if !strings.HasPrefix(pending.GetSuggested(), "contain") || pending.GetGuard() == "" || len(pending.GetEvidence()) == 0 {
		s.Errorf("pending: suggested %q, guard %q, %d findings", pending.GetSuggested(), pending.GetGuard(), len(pending.GetEvidence()))
	}
	if hosts, _ := s.refusing("deny", n4.Addr.String()); len(hosts) > 0 || !s.reaches("n4", "n1", s.host("n1").Port) {
		s.Errorf("the guard rail did not hold: %v refuse n4", hosts)
	}
	if out := s.omega("n1", "pending", "--json"); !strings.Contains(out, pending.GetProposal().GetId()) {
		s.Errorf("omega pending does not show it: %s", out)
	}
	s.omega("n1", "approve", pending.GetProposal().GetId())
	var id string
	s.eventually("all contain n4", func() bool {
		var hosts []string
		hosts, id = s.refusing("contain", did)
		return len(hosts) == 4
	})
	if s.reaches("n4", "n2", s.host("n2").Decoy) || s.reaches("n2", "n4", n4.Decoy) {
		s.Error("n4 is contained, and yet a connection that is not the swarm's passes")
	}
	if !s.reaches("n4", "n2", s.host("n2").Port) {
		s.Error("n4 is contained, and does not reach the swarm's port on n2")
	}
	// It stays a member: both ends say so, and it hears of what the others do.
	const later = "203.0.113.77"
	s.omega("n1", "respond", "deny", "ip", later)
	s.eventually("n4 hears of a response", func() bool {
		hosts, _ := s.refusing("deny", later)
		return slices.Contains(hosts, "n4")
	})
	s.eventually("every other member is connected to n4", func() bool {
		for _, h := range s.net.Members() {
			list, err := h.Client().ListPeers(s.Context(), &apiv1.ListPeersRequest{})
			if err != nil || h.Name != "n4" && !slices.ContainsFunc(list.GetPeers(), func(p *apiv1.Peer) bool { return p.GetDid() == did && p.GetConnected() }) {
				return false
			}
		}
		return true
	})
	s.omega("n1", "respond", "release", id)
	s.eventually("n4 is free again", func() bool {
		hosts, _ := s.refusing("contain", did)
		return len(hosts) == 0
	})
}

func joinWithoutInviter(s swarm) {
	token := ""
	for _, word := range strings.Fields(s.omega("n1", "invite")) {
		if strings.HasPrefix(word, "omega1") {
			token = word
		}
	}
	before := findings(s, s.host("n2"))
	if len(before) == 0 {
		s.Fatal("no findings to find again")
	}
	if err := testnet.Kill(s.net.State(), s.host("n1")); err != nil {
		s.Fatal(err)
	}
	added, err := testnet.Add(s.net.State(), "n6")
	if err != nil {
		s.Fatal(err)
	}
	began := time.Now()
	if out, err := s.run("n6", token, s.net.State().Binary, "join", "-", "--name", "n6"); err != nil {
		s.Fatalf("join: %v: %s", err, out)
	}
	up := exec.CommandContext(s.Context(), s.net.State().Binary, "up")
	if err := s.net.Start(added, up); err != nil {
		s.Fatal(err)
	}
	defer up.Wait()
	defer up.Process.Signal(os.Interrupt)
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	if err := testnet.Reached(ctx, added); err != nil {
		s.Fatal(err)
	}
	s.eventually("n6 has every finding", func() bool {
		have := findings(s, added)
		return !slices.ContainsFunc(before, func(id string) bool { return !slices.Contains(have, id) })
	})
	s.Logf("n6 was a synced member with %d findings after %v", len(before), time.Since(began))
}

// findings are the ids of all findings a node knows.
func findings(s swarm, h *testnet.Host) (ids []string) {
	s.Helper()
	stream, err := h.Client().Findings(s.Context(), &apiv1.FindingsRequest{})
	if err != nil {
		return nil
	}
	defer stream.Close()
	for stream.Receive() {
		ids = append(ids, stream.Msg().GetId())
	}
	return ids
}

func TestDrillWithoutRootSaysWhatItCannotEnforce(t *testing.T) {
	r, err := Run(t.Context(), Options{Nodes: 2, Mode: testnet.ModeProcess, Binary: omegaBinary(t), Progress: func(s string) { t.Log(s) }})
	if err != nil {
		t.Fatalf("%v: %+v", err, r)
	}
	if len(r.Unforced) == 0 || r.BlockedOn != 0 {
		t.Errorf("process mode claims %+v", r)
	}
	if i := slices.IndexFunc(r.Steps, func(s Step) bool { return s.Technique == techniqueTouch }); i < 0 || !r.Steps[i].Detected {
		t.Errorf("the decoy's touch was not seen: %+v", r.Steps)
	}
}
