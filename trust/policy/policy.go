// Package policy says which findings may trigger which responses without asking a person.
//
// An Engine is a policy in Cedar, compiled: it decides one case by itself. A Fold adds what one finding cannot know:
// how many peers saw the same address within the window, and how much an author has asked for already. It is a fold over
// the findings of all feeds, so that every peer derives the same responses, with the same ids, without a word between
// them.
//
// Below every policy lies a floor that no text can lower: what acts on every host takes a decoy touch with a completed
// handshake by a holder of the role decoy, or two peers' findings; it denies one host address; and an author names at
// most MaxTargets new ones an hour. What a policy permits above the floor is asked of a person instead.
//
// It acts on nothing and knows no guard rails: those are trust/guard's, and are asked afterwards.
package policy

import (
	_ "embed"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"

	"github.com/omega-mesh/omega/swarm/event"
)

// Bounds of a policy.
const (
	// MaxText is the longest policy text, in bytes: what fits an authority entry.
	MaxText = 24 << 10
	// MaxPolicies is the most statements of one text: each is evaluated for every finding.
	MaxPolicies = 64
	// DefaultTTL is the lifetime of a response whose policy names none; MinTTL and MaxTTL bound what it may name.
	DefaultTTL = time.Hour
	MinTTL     = time.Second
	MaxTTL     = 24 * time.Hour
)

// ErrPolicy is wrapped by every refusal of a policy text.
var ErrPolicy = errors.New("response policy")

// Verdict is how far a finding may reach by itself.
type Verdict uint8

// Verdicts, from the least to the most.
const (
	None       Verdict = iota // nothing happens
	Ask                       // a person decides
	Local                     // this host alone
	Everywhere                // every host
)

var verdictNames = [...]string{"none", "ask", "local", "everywhere"}

// String is the name a policy's action has.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return "unknown"
}

// Case is a finding with what the swarm knows about it.
type Case struct {
	Finding *event.Finding
	// DecoyRole says that the finding's author holds the role decoy.
	DecoyRole bool
	// Witnesses are the different peers that independently found the same address within Window, the author included.
	Witnesses int
	// Own says that the finding's author is this host.
	Own bool
}

// witnessAction asks a policy whether an anonymous report counts as one of two witnesses.
const witnessAction = "witness"

// Believes reports whether the policy lets an anonymous finding count as a witness. Only a statement that asks for
// context.anonymous does: one that permits everything was not written with anonymous reports in mind.
func (e *Engine) Believes(f *event.Finding) bool {
	if f.Anonymous == nil {
		return false
	}
	permits := func(f *event.Finding) bool {
		r := Case{Finding: f}.request(None)
		r.Action = cedar.NewEntityUID("Action", witnessAction)
		decision, _ := cedar.Authorize(e.set, nil, r)
		return decision == cedar.Allow
	}
	named := *f
	named.Anonymous = nil
	return permits(f) && !permits(&named)
}

// Decision is what the policy says of a case.
type Decision struct {
	Verdict Verdict
	TTL     time.Duration
	Reasons []string // ids of the statements that decided, sorted; "floor" where the floor lowered the verdict
}

//go:embed default.cedar
var defaultText string

// DefaultText is the policy of a swarm that set none.
func DefaultText() string { return defaultText }

type statement struct {
	id  string
	ttl time.Duration
}

// Engine is a compiled policy. It is immutable, and safe for concurrent use.
type Engine struct {
	set        *cedar.PolicySet
	statements map[cedar.PolicyID]statement
}

// Default compiles the policy of a swarm that set none.
func Default() *Engine {
	e, err := Parse(defaultText)
	if err != nil {
		// The text is part of this package, and its tests parse it: should it be broken all the same, nothing acts.
		return &Engine{set: cedar.NewPolicySet()}
	}
	return e
}

// Parse compiles Cedar text of at most MaxText bytes and MaxPolicies statements. Each statement is tried on a sample, so
// that a misspelt attribute is an error here and not a rule that never matches. Errors wrap ErrPolicy and name the
// statement or the line.
func Parse(text string) (*Engine, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrPolicy, len(text), MaxText)
	}
	if err := checkDepth(text); err != nil {
		return nil, err
	}
	list, err := cedar.NewPolicyListFromBytes("policy", []byte(text))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: no statement; to act on nothing, write: forbid (principal, action, resource);", ErrPolicy)
	}
	if len(list) > MaxPolicies {
		return nil, fmt.Errorf("%w: %d statements, at most %d", ErrPolicy, len(list), MaxPolicies)
	}
	e := &Engine{set: cedar.NewPolicySet(), statements: make(map[cedar.PolicyID]statement, len(list))}
	for i, p := range list {
		line := p.Position().Line
		s := statement{id: fmt.Sprintf("line-%d", line), ttl: DefaultTTL}
		for name, value := range p.Annotations() {
			switch name {
			case "id":
				if s.id = string(value); s.id == "" || len(s.id) > 64 || strings.ContainsFunc(s.id, func(r rune) bool { return r <= ' ' || r > '~' }) {
					return nil, fmt.Errorf("%w: line %d: @id(%.80q) is not a name of at most 64 printable characters", ErrPolicy, line, s.id)
				}
			case "ttl":
				if s.ttl, err = time.ParseDuration(string(value)); err != nil || s.ttl < MinTTL || s.ttl > MaxTTL {
					return nil, fmt.Errorf("%w: line %d: @ttl(%.40q) is not a duration such as 1h, from %s to %s", ErrPolicy, line, string(value), MinTTL, MaxTTL)
				}
			default:
				return nil, fmt.Errorf("%w: line %d: @%.40s: only @id and @ttl have a meaning here", ErrPolicy, line, string(name))
			}
		}
		id := cedar.PolicyID(fmt.Sprintf("%04d", i))
		for _, o := range e.statements {
			if o.id == s.id {
				return nil, fmt.Errorf("%w: line %d: two statements are called %q", ErrPolicy, line, s.id)
			}
		}
		e.statements[id] = s
		e.set.Add(id, p)
	}
	for _, sample := range samples() {
		for v := Ask; v <= Everywhere; v++ {
			if _, diag := cedar.Authorize(e.set, nil, sample.request(v)); len(diag.Errors) > 0 {
				d := diag.Errors[0]
				return nil, fmt.Errorf("%w: line %d (%s): %s", ErrPolicy, d.Position.Line, e.statements[d.PolicyID].id, d.Message)
			}
		}
	}
	return e, nil
}

// checkDepth bounds the nesting before the parser, which descends, sees it.
func checkDepth(text string) error {
	const most = 64
	depth := 0
	for _, c := range []byte(text) {
		switch c {
		case '(', '[', '{', '!', '-':
			if depth++; depth > most && (c == '(' || c == '[' || c == '{') {
				return fmt.Errorf("%w: nested deeper than %d", ErrPolicy, most)
			}
			if c == '!' || c == '-' {
				depth--
			}
		case ')', ']', '}':
			depth--
		}
	}
	if strings.Contains(text, strings.Repeat("!", most)) || strings.Contains(text, strings.Repeat("-", most)) {
		return fmt.Errorf("%w: too many operators in a row", ErrPolicy)
	}
	return nil
}

// samples reach both sides of what short-circuits, so that most attributes are looked up.
func samples() []Case {
	full := &event.Finding{Peer: "did:omega:sample", RuleID: "omega.sample", Attack: []string{"T1046"}, Severity: event.SeverityCritical, Confidence: 100, Handshake: true, Decoy: "tcp/1"}
	nobody := &event.Finding{Anonymous: &event.Anonymity{Ring: 64, Standing: time.Hour, Role: "sentinel"}}
	return []Case{{Finding: full, DecoyRole: true, Witnesses: 9, Own: true}, {Finding: &event.Finding{}}, {Finding: nobody}}
}

func (c Case) request(v Verdict) cedar.Request {
	f := c.Finding
	attack := make([]cedar.Value, len(f.Attack))
	for i, t := range f.Attack {
		attack[i] = cedar.String(t)
	}
	resource := cedar.NewEntityUID("Address", cedar.String("none"))
	if f.Subject.Address.IsValid() {
		resource = cedar.NewEntityUID("Address", cedar.String(f.Subject.Address.Unmap().String()))
	}
	principal := cedar.NewEntityUID("Peer", cedar.String(f.Peer))
	var standing cedar.Long
	if f.Anonymous != nil {
		principal = cedar.NewEntityUID("Anonymous", cedar.String(f.Anonymous.Role))
		standing = cedar.Long(f.Anonymous.Standing / time.Hour)
	}
	return cedar.Request{
		Principal: principal,
		Action:    cedar.NewEntityUID("Action", cedar.String(v.String())),
		Resource:  resource,
		Context: cedar.NewRecord(cedar.RecordMap{
			"rule":       cedar.String(f.RuleID),
			"severity":   cedar.Long(f.Severity),
			"confidence": cedar.Long(f.Confidence),
			"attack":     cedar.NewSet(attack...),
			"handshake":  cedar.Boolean(f.Handshake),
			"decoy":      cedar.String(f.Decoy),
			"port":       cedar.Long(f.Subject.Port),
			"decoyRole":  cedar.Boolean(c.DecoyRole),
			"witnesses":  cedar.Long(c.Witnesses),
			"own":        cedar.Boolean(c.Own),
			"anonymous":  cedar.Boolean(f.Anonymous != nil),
			"standing":   standing,
		}),
	}
}

// Decide is pure: the same case gives the same decision on every peer. A statement that errs on a case does not count.
func (e *Engine) Decide(c Case) Decision {
	lowered := false
	for v := Everywhere; v > None; v-- {
		decision, diag := cedar.Authorize(e.set, nil, c.request(v))
		if decision != cedar.Allow {
			continue
		}
		if v == Everywhere && !c.aboveFloor() || v == Local && !c.Own {
			lowered = true
			continue
		}
		return e.decision(v, diag)
	}
	if lowered {
		// A policy wanted more than the floor lets it: a person may.
		return Decision{Verdict: Ask, TTL: DefaultTTL, Reasons: []string{"floor"}}
	}
	return Decision{}
}

func (c Case) aboveFloor() bool {
	f := c.Finding
	return f.Handshake && f.Decoy != "" && c.DecoyRole || c.Witnesses >= 2
}

func (e *Engine) decision(v Verdict, diag cedar.Diagnostic) Decision {
	d := Decision{Verdict: v}
	for _, r := range diag.Reasons {
		s := e.statements[r.PolicyID]
		d.Reasons = append(d.Reasons, s.id)
		d.TTL = max(d.TTL, s.ttl)
	}
	sort.Strings(d.Reasons)
	return d
}
