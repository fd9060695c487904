package policy

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
)

// Rail names, in receipts, the policy as what refused an order.
const Rail = "access-policy"

// CallerKind is what sort of principal asks.
type CallerKind string

// Kinds of callers.
const (
	Socket   CallerKind = "Local"    // this host's own socket
	Operator CallerKind = "Operator" // by its signature
	Delegate CallerKind = "Delegate" // a member, by its credential
	Module   CallerKind = "Module"   // a module, by the name in its manifest
)

// Call is one question to Access: a method of the API, or an order that this host is to carry out.
type Call struct {
	Caller  CallerKind
	ID      string // DID, or the uid of a socket's other end
	Action  string // "Status", "respond-deny"
	Host    string // DID of the host that answers or acts
	Swarm   bool   // it reaches beyond the caller's own host
	TTL     time.Duration
	Roles   []string // the caller's, now
	Active  bool     // an operator, or a member that is not suspended
	Capable bool     // its credential allows the action
}

// AccessDecision is whether a call is allowed, and by which statements, or by which it is forbidden. Neither: no statement
// allows it, and what nobody allows is denied.
type AccessDecision struct {
	Allowed bool
	Reasons []string // ids of the statements that decided, sorted
}

// String says it in words.
func (d AccessDecision) String() string {
	switch {
	case d.Allowed:
		return "allowed by " + strings.Join(d.Reasons, ", ")
	case len(d.Reasons) > 0:
		return "forbidden by " + strings.Join(d.Reasons, ", ")
	}
	return "denied: no statement allows it"
}

//go:embed access.cedar
var accessText string

// AccessText is what holds in every swarm.
func AccessText() string { return accessText }

// Access decides every call of the API and every order of others: default deny. It is immutable, and safe for
// concurrent use.
type Access struct {
	set   *cedar.PolicySet
	names map[cedar.PolicyID]string
}

// NewAccess takes the statements of a swarm's policy that name an action of their own, beside those that hold
// everywhere. Statements about findings, and those about every action, are not for it: a policy that acts on nothing
// must still let its operators in. text has been accepted by Parse; empty is the built-in policy.
func NewAccess(text string) (*Access, error) {
	a := &Access{set: cedar.NewPolicySet(), names: map[cedar.PolicyID]string{}}
	for i, part := range []string{accessText, text} {
		if part == "" {
			continue
		}
		list, err := cedar.NewPolicyListFromBytes("policy", []byte(part))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
		}
		for k, p := range list {
			if i == 1 && !namesCall(p) {
				continue
			}
			id := cedar.PolicyID(fmt.Sprintf("%d-%04d", i, k))
			a.names[id] = fmt.Sprintf("line-%d", p.Position().Line)
			if name, ok := p.Annotations()["id"]; ok {
				a.names[id] = string(name)
			}
			a.set.Add(id, p)
		}
	}
	return a, nil
}

// namesCall reports whether a statement's scope names actions, and none of those that findings are asked about.
func namesCall(p *cedar.Policy) bool {
	raw, err := p.MarshalJSON()
	if err != nil {
		return false
	}
	var scope struct {
		Action struct {
			Op       string            `json:"op"`
			Entity   cedar.EntityUID   `json:"entity"`
			Entities []cedar.EntityUID `json:"entities"`
		} `json:"action"`
	}
	if json.Unmarshal(raw, &scope) != nil || scope.Action.Op == "All" {
		return false
	}
	for _, e := range append(scope.Action.Entities, scope.Action.Entity) {
		for _, v := range verdictNames {
			if string(e.ID) == v {
				return false
			}
		}
	}
	return true
}

// Decide is pure. A statement that errs on a call does not count.
func (a *Access) Decide(c Call) AccessDecision {
	reach := "host"
	if c.Swarm {
		reach = "swarm"
	}
	roles := make([]cedar.Value, len(c.Roles))
	for i, r := range c.Roles {
		roles[i] = cedar.String(r)
	}
	decision, diag := cedar.Authorize(a.set, nil, cedar.Request{
		Principal: cedar.NewEntityUID(cedar.EntityType(c.Caller), cedar.String(c.ID)),
		Action:    cedar.NewEntityUID("Action", cedar.String(c.Action)),
		Resource:  cedar.NewEntityUID("Host", cedar.String(c.Host)),
		Context: cedar.NewRecord(cedar.RecordMap{
			"reach": cedar.String(reach), "ttl": cedar.Long(c.TTL / time.Second), "roles": cedar.NewSet(roles...),
			"active": cedar.Boolean(c.Active), "capable": cedar.Boolean(c.Capable),
		}),
	})
	d := AccessDecision{Allowed: decision == cedar.Allow}
	for _, r := range diag.Reasons {
		d.Reasons = append(d.Reasons, a.names[r.PolicyID])
	}
	sort.Strings(d.Reasons)
	return d
}
