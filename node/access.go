package node

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/omega-mesh/omega/node/api"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/trust/policy"
)

// access is who may call what, compiled from the policy text in force.
type access struct {
	text   string
	engine *policy.Access
}

// accessNow is the policy in force, compiled anew where it changed. One that does not read leaves what was.
func (n *Node) accessNow() *policy.Access {
	text := ""
	if p, ok := n.fold.State().Policy(); ok {
		text = p.Text
	}
	old := n.access.Load()
	if old.engine != nil && old.text == text {
		return old.engine
	}
	engine, err := policy.NewAccess(text)
	if err != nil {
		n.log.Error("policy not understood: who may call what stays as it was", "err", err)
		if engine = old.engine; engine == nil {
			engine, _ = policy.NewAccess("")
		}
	}
	n.access.Store(&access{text, engine})
	return engine
}

// unasked reports whether a method is open to the socket's owner whatever the policy says: by these a host tells how it is,
// an operator puts another policy in force, and an owner ends what the node does. A policy must not lock them out.
func unasked(method string) bool {
	switch method {
	case "Status", "Doctor", "ShowPolicy", "Head", "Submit", "Panic", "Leave":
		return true
	}
	return false
}

// Authorize implements api.Backend.
func (b backend) Authorize(_ context.Context, method string, uid uint32) error {
	if unasked(method) {
		return nil
	}
	d := b.accessNow().Decide(policy.Call{Caller: policy.Socket, ID: strconv.FormatUint(uint64(uid), 10), Action: method, Host: b.DID(), Active: true})
	if !d.Allowed {
		return fmt.Errorf("%w: %s by this host's socket: %s", api.ErrForbidden, method, d)
	}
	return nil
}

// Policy implements api.Backend.
func (b backend) Policy(context.Context) (*apiv1.ShowPolicyResponse, error) {
	out := &apiv1.ShowPolicyResponse{Text: policy.DefaultText(), Access: policy.AccessText()}
	if p, ok := b.fold.State().Policy(); ok {
		out.Text, out.By, out.Entry, out.Time = p.Text, string(p.By), p.Entry, timestamppb.New(p.Time)
	}
	return out, nil
}

// Credentials implements api.Backend.
func (b backend) Credentials(context.Context) ([]*apiv1.Credential, error) {
	s, now := b.fold.State(), b.clock.now()
	var out []*apiv1.Credential
	for _, chain := range b.credentials.all() {
		c := chain[len(chain)-1]
		row := &apiv1.Credential{
			Serial: c.SerialText(), Issuer: string(c.Issuer), Subject: string(c.Subject), Name: b.nameOf(c.Subject), Roles: c.Roles, Depth: uint32(c.Depth),
			NotBefore: timestamppb.New(c.NotBefore), NotAfter: timestamppb.New(c.NotAfter), Raw: c.Encode(),
		}
		for _, k := range c.Capabilities {
			one := &apiv1.Capability{Action: k.Action, MaxTtlMs: float64(k.MaxTTL) / float64(time.Millisecond)}
			for _, p := range k.Peers {
				one.Peers = append(one.Peers, string(p))
			}
			row.Capabilities = append(row.Capabilities, one)
		}
		if _, err := s.VerifyCredential(chain, c.Subject, now); err != nil {
			row.Why = err.Error()
		}
		out = append(out, row)
	}
	return out, nil
}
