package policy

import (
	"testing"
	"time"
)

const strict = `
@id("nothing-by-itself") forbid (principal, action, resource);
@id("no-contain") forbid (principal, action == Action::"respond-contain", resource) unless { principal is Operator };
@id("short") forbid (principal is Delegate, action in [Action::"respond-deny"], resource) when { context.ttl > 600 };
@id("no-events") forbid (principal is Local, action == Action::"Events", resource);
permit (principal, action == Action::"everywhere", resource);
`

func TestAccess(t *testing.T) {
	op := Call{Caller: Operator, ID: "did:op", Action: "respond-deny", Host: "did:n1", Swarm: true, Active: true}
	lent := Call{Caller: Delegate, ID: "did:n2", Action: "respond-deny", Host: "did:n1", Swarm: true, Active: true, Capable: true, TTL: time.Minute}
	socket := Call{Caller: Socket, ID: "0", Action: "Events", Host: "did:n1"}
	with := func(c Call, change func(*Call)) Call { change(&c); return c }
	for name, x := range map[string]struct {
		call   Call
		plain  bool
		strict bool
	}{
		"an operator":                      {op, true, true},
		"one that was removed":             {with(op, func(c *Call) { c.Active = false }), false, false},
		"a delegate":                       {lent, true, true},
		"a delegate, for long":             {with(lent, func(c *Call) { c.TTL = time.Hour }), true, false},
		"a delegate contains":              {with(lent, func(c *Call) { c.Action = "respond-contain" }), true, false},
		"an operator contains":             {with(op, func(c *Call) { c.Action = "respond-contain" }), true, true},
		"a delegate beyond its credential": {with(lent, func(c *Call) { c.Capable = false }), false, false},
		"a suspended delegate":             {with(lent, func(c *Call) { c.Active = false }), false, false},
		"the socket, here":                 {socket, true, false},
		"the socket's status":              {with(socket, func(c *Call) { c.Action = "Status" }), true, true},
		"the socket, on another host":      {with(socket, func(c *Call) { c.Swarm = true }), false, false},
		"a caller of no known kind":        {with(op, func(c *Call) { c.Caller = "Root" }), false, false},
	} {
		for text, want := range map[string]bool{"": x.plain, strict: x.strict} {
			if text != "" {
				if _, err := Parse(text); err != nil {
					t.Fatal(err)
				}
			}
			a, err := NewAccess(text)
			if err != nil {
				t.Fatal(err)
			}
			if d := a.Decide(x.call); d.Allowed != want {
				t.Errorf("%s, with %d bytes of policy: %s", name, len(text), d)
			}
		}
	}
}

func TestAccessSaysWhy(t *testing.T) {
	a, err := NewAccess(strict)
	if err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]Call{
		"allowed by own-host":            {Caller: Socket, Action: "Status"},
		"forbidden by no-events":         {Caller: Socket, Action: "Events"},
		"denied: no statement allows it": {Caller: Socket, Action: "Status", Swarm: true},
	} {
		if got := a.Decide(c).String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func BenchmarkAccess(b *testing.B) {
	a, err := NewAccess("")
	if err != nil {
		b.Fatal(err)
	}
	c := Call{Caller: Operator, ID: "did:op", Action: "respond-deny", Host: "did:n1", Swarm: true, Active: true}
	b.ReportAllocs()
	for b.Loop() {
		if !a.Decide(c).Allowed {
			b.Fatal("denied")
		}
	}
}
