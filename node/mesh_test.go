package node

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
)

// mesh founds a swarm on n1 and lets the others join on one invite.
func mesh(t *testing.T, roles []string, names ...string) []*rig {
	t.Helper()
	rigs := []*rig{newRig(t, names[0])}
	rigs[0].found("lab")
	rigs[0].up()
	if len(names) == 1 {
		return rigs
	}
	token := rigs[0].invite(len(names)-1, roles)
	for _, name := range names[1:] {
		r := newRig(t, name)
		r.join(token)
		r.up()
		rigs = append(rigs, r)
	}
	eventually(t, "everyone is connected to everyone", func() bool {
		for _, r := range rigs {
			if s := r.status(); int(s.Peers) != len(rigs)-1 || !s.Synced {
				return false
			}
		}
		return true
	})
	return rigs
}

// findings lists the rule ids that r's API shows.
func (r *rig) findings() []string {
	r.t.Helper()
	s, err := r.client.Findings(r.t.Context(), &apiv1.FindingsRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Close()
	var out []string
	for s.Receive() {
		out = append(out, s.Msg().Host+" "+s.Msg().RuleId)
	}
	if s.Err() != nil {
		r.t.Fatal(s.Err())
	}
	return out
}

// touch makes a finding on r's host: it connects to r's decoy.
func (r *rig) touch() {
	r.t.Helper()
	eventually(r.t, r.name+" serves its decoy", func() bool {
		d, err := r.client.ListDecoys(r.t.Context(), &apiv1.ListDecoysRequest{})
		if err != nil {
			r.t.Fatal(err)
		}
		return len(d.Decoys) == 1 && d.Decoys[0].State == "listening"
	})
	_, port, _ := strings.Cut(r.cfg.Decoys[0], "/")
	dial(r.t, "127.0.0.1:"+port)
}

func subject(t *testing.T, r *rig) []byte {
	t.Helper()
	in, err := identity.ReadInception(Layout{r.dir}.Identity())
	if err != nil {
		t.Fatal(err)
	}
	did, err := in.DID().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return did[:]
}

func (r *rig) running() []string {
	r.t.Helper()
	l, err := r.client.ListRoles(r.t.Context(), &apiv1.ListRolesRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, g := range l.Grants {
		if g.Running {
			out = append(out, g.Role)
		}
	}
	slices.Sort(out)
	return out
}

// TestThreeNodes is the life of a small swarm: found, invite, join, find, grant, restart, leave.
func TestThreeNodes(t *testing.T) {
	rigs := mesh(t, []string{"analyst", "sentinel"}, "n1", "n2", "n3")
	n1, n2, n3 := rigs[0], rigs[1], rigs[2]
	if got := n2.status().Roles; !slices.Equal(got, []string{"analyst", "sentinel"}) {
		t.Errorf("n2 holds %v", got)
	}

	// A grant starts the role on a live node.
	n1.operate(&authority.GrantBody{Subject: subject(t, n2), Roles: []string{"decoy"}})
	eventually(t, "n2 runs decoy", func() bool { return slices.Contains(n2.running(), "decoy") })

	// What one finds, all know.
	n2.touch()
	for _, r := range rigs {
		eventually(t, r.name+" knows of the touch", func() bool {
			return slices.ContainsFunc(r.findings(), func(s string) bool { return strings.HasPrefix(s, "n2 omega.decoy") })
		})
	}

	// A revoked grant stops it.
	n1.operate(&authority.RevokeRoleBody{Subject: subject(t, n2), Roles: []string{"decoy"}})
	eventually(t, "n2 no longer runs decoy", func() bool { return !slices.Contains(n2.running(), "decoy") })

	// A node that was away comes back with what it knew and what it missed.
	n3.stop()
	n1.operate(&authority.GrantBody{Subject: subject(t, n1), Roles: []string{"decoy"}})
	n1.touch()
	n3.up()
	eventually(t, "n3 is back in the mesh, with all findings", func() bool {
		f := n3.findings()
		return n3.status().Peers == 2 && slices.ContainsFunc(f, func(s string) bool { return strings.HasPrefix(s, "n1 ") }) &&
			slices.ContainsFunc(f, func(s string) bool { return strings.HasPrefix(s, "n2 ") })
	})

	// Whoever is revoked is cut off by everyone.
	n1.operate(&authority.SuspendBody{Subject: subject(t, n3), NotAfter: time.Now().Add(time.Hour).Unix(), Why: "test"})
	eventually(t, "n3 is cut off", func() bool { return n1.status().Peers == 1 && n2.status().Peers == 1 })

	// Leaving ends the node; its folder can be wiped.
	if _, err := n2.client.Leave(t.Context(), &apiv1.LeaveRequest{}); err != nil {
		t.Fatal(err)
	}
	n2.stop()
	if err := Wipe(n2.dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(n2.dir); err == nil {
		t.Errorf("left behind: %v", left)
	}
}

// TestInviterIsDown: a token names two members, and the one that issued it is away.
func TestInviterIsDown(t *testing.T) {
	rigs := mesh(t, []string{"sentinel"}, "n1", "n2")
	token := rigs[0].invite(1, []string{"sentinel"}, rigs[1])
	eventually(t, "n2 knows the invite", func() bool {
		l, err := rigs[1].client.ListInvites(t.Context(), &apiv1.ListInvitesRequest{})
		return err == nil && len(l.Invites) == 2
	})
	rigs[0].stop()
	late := newRig(t, "late")
	j := late.join(token)
	if j.SwarmName != "lab" || !slices.Equal(j.Roles, []string{"sentinel"}) || j.By != rigs[1].status().Did {
		t.Errorf("%+v", j)
	}
	if again := late.join(token); again.DID != j.DID {
		t.Errorf("a retry became %s", again.DID)
	}
	late.up()
	eventually(t, "late and n2 are connected", func() bool { return late.status().Peers == 1 && late.status().Synced })

	// Another key on the spent token is refused, and everyone hears of it.
	thief := newRig(t, "thief")
	if _, err := Join(t.Context(), thief.dir, token, JoinOptions{Name: "thief", Timeout: 5 * time.Second}); err == nil {
		t.Error("a spent token admitted another key")
	}
	eventually(t, "late hears the alarm", func() bool { return slices.Contains(late.findings(), "n2 omega.invite.reuse") })
	for _, r := range []*rig{rigs[0], rigs[1], late, thief} {
		if strings.Contains(r.log.String(), token[:40]) {
			t.Errorf("the token is in the log of %s", r.name)
		}
	}
}

// TestRestoredFolderHeals: a state folder put back from an older copy must not make its peer an equivocator.
func TestRestoredFolderHeals(t *testing.T) {
	rigs := mesh(t, []string{"decoy", "sentinel"}, "n1", "n2")
	n1, n2 := rigs[0], rigs[1]
	n2.touch()
	eventually(t, "n1 knows the first touch", func() bool { return len(n1.findings()) >= 1 })
	n2.stop()
	old := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(old, os.DirFS(n2.dir)); err != nil {
		t.Fatal(err)
	}
	n2.up()
	eventually(t, "n2 is back", func() bool { return n2.status().Peers == 1 })

	n2.client.RespondLocal(t.Context(), &apiv1.RespondLocalRequest{Response: &apiv1.Response{
		Action: string(event.ActionDeny), Target: &apiv1.Target{Address: "203.0.113.9"}, Reason: "test", TtlMs: 60_000}})
	n2.touch()

	eventually(t, "n1 has n2's receipt", func() bool { return len(n1.receipts()) > 0 })
	head := n1.head(n2)
	n2.stop()
	if err := os.RemoveAll(n2.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(n2.dir, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(n2.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	n2.up()
	eventually(t, "n2 has its own later entries back", func() bool { return n2.head(n2) >= head })
	if _, err := n2.client.RespondLocal(t.Context(), &apiv1.RespondLocalRequest{Response: &apiv1.Response{
		Action: string(event.ActionDeny), Target: &apiv1.Target{Address: "203.0.113.10"}, Reason: "test", TtlMs: 60_000}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "n1 has what n2 signed after it healed", func() bool { return n1.head(n2) > head })
	for _, r := range rigs {
		if p := problem(r.status(), "fork"); p != "" {
			t.Errorf("%s: %s", r.name, p)
		}
	}
}

// receipts lists what r's API shows.
func (r *rig) receipts() []*apiv1.Receipt {
	r.t.Helper()
	s, err := r.client.Receipts(r.t.Context(), &apiv1.ReceiptsRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Close()
	var out []*apiv1.Receipt
	for s.Receive() {
		out = append(out, s.Msg())
	}
	return out
}

// head is how many activity entries of another r knows.
func (r *rig) head(of *rig) int {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	s, err := r.client.Entries(ctx, &apiv1.EntriesRequest{Peer: of.name})
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Close()
	n := 0
	for s.Receive() {
		if s.Msg().Chain == "activity" {
			n++
		}
	}
	return n
}

// TestDamagedStore: what a bad disk did to one feed is said, and given back by a peer.
func TestDamagedStore(t *testing.T) {
	rigs := mesh(t, []string{"decoy", "sentinel"}, "n1", "n2")
	n1, n2 := rigs[0], rigs[1]
	n2.touch()
	eventually(t, "n1 has n2's feed", func() bool { return n1.head(n2) >= 2 })
	had := n1.head(n2)
	n1.stop()
	files, err := filepath.Glob(filepath.Join(n1.dir, "ledger", "*"))
	if err != nil {
		t.Fatal(err)
	}
	did := n2.status().Did
	spoilt := 0
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil || len(raw) < 200 || !strings.Contains(f, strings.TrimPrefix(did, "did:omega:")[:8]) {
			continue
		}
		raw[len(raw)/2] ^= 0xff
		if err := os.WriteFile(f, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		spoilt++
	}
	if spoilt == 0 {
		t.Fatalf("no file of n2's feeds among %v", files)
	}
	n1.up()
	eventually(t, "n1 has n2's feed again", func() bool { return n1.head(n2) >= had })
	if !strings.Contains(n1.log.String(), "damaged") {
		t.Error("nothing was said of the damage")
	}
}

// TestRespondLocal: what the socket asks for is done here alone, shown, and ended.
func TestRespondLocal(t *testing.T) {
	r := mesh(t, nil, "n1")[0]
	ctx := t.Context()
	out, err := r.client.RespondLocal(ctx, &apiv1.RespondLocalRequest{Response: &apiv1.Response{
		Action: "deny", Target: &apiv1.Target{Address: "203.0.113.9"}, Reason: "test", TtlMs: 60_000, Authority: "operator", Scope: []string{"all"}}})
	if err != nil {
		t.Fatal(err)
	}
	if out.Receipt.Outcome != "observed" || out.Response.Authority != "local" || !slices.Equal(out.Response.Scope, []string{r.status().Did}) {
		t.Errorf("%v", out)
	}
	l, err := r.client.ListResponses(ctx, &apiv1.ListResponsesRequest{})
	if err != nil || len(l.Responses) != 1 || l.Responses[0].State != "observed" || l.Responses[0].RemainingMs <= 0 {
		t.Errorf("%v, %v", l, err)
	}
	loop, err := r.client.RespondLocal(ctx, &apiv1.RespondLocalRequest{Response: &apiv1.Response{
		Action: "deny", Target: &apiv1.Target{Address: "127.0.0.1"}, Reason: "test", TtlMs: 60_000}})
	if err != nil || loop.Receipt.Outcome != "refused" || loop.Receipt.Guard != "loopback" {
		t.Errorf("%v, %v", loop, err)
	}
	for _, bad := range []*apiv1.Response{
		nil, {Action: "deny"}, {Action: "explode", Target: &apiv1.Target{Address: "1.2.3.4"}, TtlMs: 1},
		{Action: "deny", Target: &apiv1.Target{Address: "host"}, TtlMs: 1}, {Action: "deny", Target: &apiv1.Target{Address: "1.2.3.4"}},
		{Action: "deny", Target: &apiv1.Target{Address: "1.2.3.4"}, TtlMs: 1e15}, {Action: "release", Target: &apiv1.Target{}, Releases: "nothing"},
	} {
		if _, err := r.client.RespondLocal(ctx, &apiv1.RespondLocalRequest{Response: bad}); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
	released, err := r.client.RespondLocal(ctx, &apiv1.RespondLocalRequest{Response: &apiv1.Response{Action: "release", Target: &apiv1.Target{}, Releases: out.Response.Id}})
	if err != nil || released.Receipt.Outcome != "released" {
		t.Errorf("%v, %v", released, err)
	}
	if l, _ := r.client.ListResponses(ctx, &apiv1.ListResponsesRequest{Active: true}); len(l.Responses) != 0 {
		t.Errorf("still active: %v", l)
	}
	if _, err := r.client.Submit(ctx, &apiv1.SubmitRequest{Entry: []byte("rubbish")}); err == nil {
		t.Error("rubbish was submitted")
	}
	if n, err := Panic(ctx, r.dir); err != nil {
		t.Errorf("panic: %d, %v", n, err)
	}
	if s := r.status(); s.Mode != "panic" || problem(s, "panic") == "" {
		eventually(t, "the mode is panic", func() bool { return r.status().Mode == "panic" })
	}
}
