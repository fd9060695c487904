package node

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/policy"
	"github.com/omega-mesh/omega/trust/root"
)

// TestIssuerLendsToAnalysts: the root names n1 an issuer of one capability; n2, an analyst, is lent that by itself, orders a
// response with it that all hosts know of, and can order nothing else. What it ordered ends with the credential.
func TestIssuerLendsToAnalysts(t *testing.T) {
	rigs := mesh(t, []string{"analyst", "sentinel"}, "n1", "n2")
	n1, n2 := rigs[0], rigs[1]
	ctx := t.Context()
	deny := func(address string) (string, error) {
		r, err := n2.client.Order(ctx, &apiv1.OrderRequest{Response: &apiv1.Response{
			Action: "deny", TtlMs: 60_000, Reason: "seen from elsewhere", Target: &apiv1.Target{Address: address},
		}})
		if err != nil {
			return "", err
		}
		return r.Id, nil
	}
	if _, err := deny("192.0.2.7"); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Fatalf("an order without a credential: %v", err)
	}

	// The root names n1 an issuer; it has one operator, so its word is enough.
	op, err := identity.Open(Layout{n1.dir}.Operator(), identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g, err := loadGenesis(Layout{n1.dir})
	if err != nil {
		t.Fatal(err)
	}
	self, err := identity.ReadInception(Layout{n1.dir}.Identity())
	if err != nil {
		t.Fatal(err)
	}
	did, err := self.DID().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	entry, err := authority.NewFold(g).State().Propose(&root.Issuers{List: []root.Issuer{{DID: did[:], Capabilities: []string{"respond-deny"}}}}, time.Now().UnixNano())
	if err != nil {
		t.Fatal(err)
	}
	if entry, err = entry.SignedBy(op); err != nil {
		t.Fatal(err)
	}
	if err := op.Close(); err != nil {
		t.Fatal(err)
	}
	n1.operate(&authority.RootBody{Entry: entry})

	var lent *apiv1.Credential
	eventually(t, "n2 knows its credential", func() bool {
		l, err := n2.client.ListCredentials(ctx, &apiv1.ListCredentialsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range l.Credentials {
			if c.Name == "n2" && c.Why == "" {
				lent = c
			}
		}
		return lent != nil
	})
	if len(lent.Capabilities) != 1 || lent.Capabilities[0].Action != "respond-deny" {
		t.Errorf("lent: %v", lent.Capabilities)
	}
	id, err := deny("192.0.2.7")
	if err != nil {
		t.Fatal(err)
	}
	stands := func(r *rig) bool {
		l, err := r.client.ListResponses(ctx, &apiv1.ListResponsesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range l.Responses {
			if x.Id == id {
				return x.Authority == "delegated"
			}
		}
		return false
	}
	for _, r := range rigs {
		eventually(t, r.name+" knows what n2 ordered", func() bool { return stands(r) })
	}
	if _, err := n2.client.Order(ctx, &apiv1.OrderRequest{Response: &apiv1.Response{Action: "release", Releases: id, Target: &apiv1.Target{}}}); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("n2 released, which nobody lent it: %v", err)
	}
	if _, err := n1.client.Order(ctx, &apiv1.OrderRequest{Response: &apiv1.Response{Action: "deny", TtlMs: 60_000, Target: &apiv1.Target{Address: "192.0.2.8"}}}); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("the issuer lent to itself: %v", err)
	}

	// Its revocation ends what was ordered under it, on every host.
	serial, err := hex.DecodeString(lent.Serial)
	if err != nil {
		t.Fatal(err)
	}
	n1.operate(&authority.RevokeCredentialBody{Serial: serial, Why: "test"})
	for _, r := range rigs {
		eventually(t, r.name+" let go of what n2 ordered", func() bool {
			l, err := r.client.ListResponses(ctx, &apiv1.ListResponsesRequest{})
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range l.Responses {
				if x.Id == id {
					return x.State == "released"
				}
			}
			return true
		})
	}

	// A policy of the swarm may forbid what a credential allows, and a method of the API.
	n1.operate(&authority.PolicyBody{Text: `
@id("decoys") permit (principal, action == Action::"everywhere", resource) when { context.decoyRole };
@id("closed") forbid (principal, action == Action::"Events", resource);
@id("locked") forbid (principal, action in [Action::"Submit", Action::"Head", Action::"Status"], resource);`})
	eventually(t, "n2's socket gives no events any more", func() bool {
		s, err := n2.client.Events(ctx, &apiv1.EventsRequest{})
		if err == nil {
			for s.Receive() {
			}
			err = s.Err()
			s.Close()
		}
		return connect.CodeOf(err) == connect.CodePermissionDenied && strings.Contains(err.Error(), "closed")
	})
	// But it locks no operator out of putting another in force.
	n1.operate(&authority.PolicyBody{Text: policy.DefaultText()})
	eventually(t, "the default policy is in force again", func() bool {
		s, err := n2.client.Events(ctx, &apiv1.EventsRequest{})
		if err == nil {
			for s.Receive() {
			}
			err = s.Err()
			s.Close()
		}
		return err == nil
	})
}

// TestOrderModuleIsBounded: by a credential only what is said of modules is signed, and nothing of a host that holds none.
func TestOrderModuleIsBounded(t *testing.T) {
	r := newRig(t, "n1")
	r.found("lab")
	r.up()
	release, err := (&authority.ModuleReleaseBody{Module: make([]byte, 32), Name: "x", Version: "0.1.0"}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	deploy, err := (&authority.DeployBody{Module: make([]byte, 32), Name: "x", Version: "0.1.0"}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		kind uint32
		body []byte
		want connect.Code
	}{
		{"a grant", uint32(ledger.KindGrant), release, connect.CodeInvalidArgument},
		{"another kind's number beyond 16 bits", 1<<16 | uint32(ledger.KindModuleRelease), release, connect.CodeInvalidArgument},
		{"no body", uint32(ledger.KindModuleRelease), nil, connect.CodeInvalidArgument},
		{"junk", uint32(ledger.KindModuleDeploy), []byte("\xff\xff\xff"), connect.CodeInvalidArgument},
		{"a body of a megabyte", uint32(ledger.KindModuleRelease), make([]byte, 1<<20), connect.CodeResourceExhausted},
		{"a release without a credential", uint32(ledger.KindModuleRelease), release, connect.CodePermissionDenied},
		{"a deployment without a credential", uint32(ledger.KindModuleDeploy), deploy, connect.CodePermissionDenied},
	} {
		if _, err := r.client.OrderModule(t.Context(), &apiv1.OrderModuleRequest{Kind: c.kind, Body: c.body}); connect.CodeOf(err) != c.want {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}
