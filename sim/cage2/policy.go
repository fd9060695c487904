package cage2

import (
	"math/bits"

	"github.com/omega-mesh/omega/sim/rng"
)

// Policy is a defender: it sees the 52 bits and nothing else. One value serves one episode at a time.
type Policy interface {
	// Begin forgets the last episode. Whatever the defender draws comes from source, so an episode is repeatable.
	Begin(source rng.Source)
	// Act chooses the next action from what the last step showed (at first the empty observation).
	Act(o Observation) Action
}

// Idle is the defender that sleeps.
type Idle struct{}

// Begin does nothing.
func (Idle) Begin(rng.Source) {}

// Act sleeps.
func (Idle) Act(Observation) Action { return Sleep }

// Uniform draws any of the 145 actions.
type Uniform struct{ source rng.Source }

// Begin takes the source of the draws.
func (u *Uniform) Begin(source rng.Source) { u.source = source }

// Act draws.
func (u *Uniform) Act(Observation) Action { return Action(u.source.Below(uint32(Actions))) }

// React restores the first host (but User0) that shows as taken by a user or worse, and does nothing else.
type React struct{}

// Begin does nothing: React keeps no memory.
func (React) Begin(rng.Source) {}

// Act restores.
func (React) Act(o Observation) Action {
	for h := range Hosts {
		if h != User0 && o.Compromise(h)&CompromiseUser != 0 {
			return Do(Restore, h)
		}
	}
	return Sleep
}

// Rules is the heuristic defender: restore a server that shows as taken, remove from user hosts what shows as a user
// session, and otherwise place decoys in the order of a fixed plan. It is a flat value and one decision costs some 20 ns:
// the planner uses it as the base policy of its rollouts.
type Rules struct {
	tried uint32 // bit i: step i of the plan was done since that server was last restored
}

type placing struct {
	decoy Decoy
	host  Host
}

// decoyPlan puts decoys where an attacker must pass first. Within a host the favourite exploits come first.
var decoyPlan = [...]placing{
	{Femitter, User2}, {Tomcat, User2}, {HarakaSMPT, Enterprise0}, {Femitter, Enterprise1}, {Femitter, Enterprise2},
	{Tomcat, Enterprise0}, {Apache, User2}, {SSHD, User3}, {Apache, Enterprise0}, {HarakaSMPT, OpServer0}, {Apache, OpServer0},
	{Tomcat, OpServer0}, {Vsftpd, OpServer0}, {Apache, User1}, {Tomcat, User1}, {Smss, User1}, {Svchost, User1}, {Vsftpd, Enterprise0},
}

var (
	restoreFirst = [...]Host{OpServer0, Enterprise2, Enterprise1, Enterprise0}
	decoyActions = func() (a [len(decoyPlan)]Action) {
		for i, p := range decoyPlan {
			a[i] = PlaceDecoy(p.decoy, p.host)
		}
		return a
	}()
	planOf = func() (m [Hosts]uint32) { // the steps of the plan on each host
		for i, p := range decoyPlan {
			m[p.host] |= 1 << i
		}
		return m
	}()
)

// Begin forgets.
func (r *Rules) Begin(rng.Source) { r.tried = 0 }

// Act applies the rules in their order.
func (r *Rules) Act(o Observation) Action {
	for _, h := range restoreFirst {
		if o.Compromise(h)&CompromiseUser != 0 {
			r.tried &^= planOf[h]
			return Do(Restore, h)
		}
	}
	for h := User1; h <= User4; h++ {
		if o.Compromise(h) == CompromiseUser {
			return Do(Remove, h)
		}
	}
	left := ^r.tried & (1<<len(decoyPlan) - 1)
	if left == 0 {
		return Sleep
	}
	next := left & -left
	r.tried |= next
	return decoyActions[bits.TrailingZeros32(next)]
}

// Follow takes an action that another policy chose as done, so that Rules goes on from there as if it had chosen it.
func (r *Rules) Follow(a Action) {
	switch v, h := a.Split(); {
	case v == Restore:
		r.tried &^= planOf[h]
	case v >= DecoyApache && v <= DecoyVsftpd:
		for m := planOf[h]; m != 0; m &= m - 1 {
			if i := bits.TrailingZeros32(m); decoyActions[i] == a {
				r.tried |= 1 << i
			}
		}
	}
}
