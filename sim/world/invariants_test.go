package world

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/omega-mesh/omega/sim/rng"
)

// crowded is a generated network with two attackers, one of them quick, and sensors that find and err.
func crowded(t testing.TB, hosts int, seed uint64) *Scenario {
	t.Helper()
	s, err := Generate(hosts, seed)
	if err != nil {
		t.Fatal(err)
	}
	second := s.Attackers[0]
	second.Name, second.Pace, second.Start = "second", Duration(30*time.Second), 0
	s.Attackers = append(s.Attackers, second)
	for i := range s.Hosts {
		s.Hosts[i].Detect, s.Hosts[i].FalseRate = 0.2, 0.05
	}
	return s
}

// watch lets one thing happen at a time and holds it to what no sequence of actions may break.
type watch struct {
	w     *World
	steps []Step // of the thing that happens now
}

func newWatch(w *World) *watch {
	x := &watch{w: w}
	w.OnStep = func(s Step) { x.steps = append(x.steps, s) }
	return x
}

// advance plays the next thing due by stop.
func (x *watch) advance(stop int64) (bool, error) {
	before := x.w.Clone()
	x.steps = x.steps[:0]
	more := x.w.advance(stop)
	return more, x.check(before)
}

// refuse lets a defender refuse a source.
func (x *watch) refuse(source int) error {
	before := x.w.Clone()
	x.steps = x.steps[:0]
	x.w.Refuse(source)
	if !x.w.Refused(source) {
		return fmt.Errorf("source %d is not refused", source)
	}
	return x.check(before)
}

// cause says whether one of the steps that just happened is attacker a's, on host h, by one of the named actions.
func (x *watch) cause(a, h int, actions ...Action) bool {
	return slices.ContainsFunc(x.steps, func(s Step) bool {
		return s.OK && s.Actor == x.w.net.s.Attackers[a].Name && s.To == x.w.net.s.Hosts[h].Name &&
			slices.ContainsFunc(actions, func(k Action) bool { return k.String() == s.Action })
	})
}

func (x *watch) check(before *World) error {
	w := x.w
	hosts := len(w.rooted)
	if w.now < before.now || w.result.Loss < before.result.Loss {
		return fmt.Errorf("time or loss ran backwards")
	}
	rate := 0.0
	for h := range hosts {
		roots := 0
		for a := range w.net.s.Attackers {
			i := a*hosts + h
			was, is := before.privilege[i], w.privilege[i]
			switch {
			case is < was:
				return fmt.Errorf("attacker %d lost a session on host %d, and nobody cleans up", a, h)
			case is > was && was == 0 && !x.cause(a, h, Exploit, Logon):
				return fmt.Errorf("attacker %d has a session on host %d without a cause: %+v", a, h, x.steps)
			case is > was && was == 1 && !x.cause(a, h, Escalate, Logon, Exploit):
				return fmt.Errorf("attacker %d became root on host %d without a cause: %+v", a, h, x.steps)
			case is > 0 && !w.known[i]:
				return fmt.Errorf("attacker %d has a session on host %d, which it does not know", a, h)
			case is == 0 && w.looted[i]:
				return fmt.Errorf("attacker %d looted host %d without a session", a, h)
			case before.known[i] && !w.known[i] || before.scanned[i] && !w.scanned[i]:
				return fmt.Errorf("attacker %d forgot host %d", a, h)
			}
			if is > was { // it came from a machine that it held, and that was not refused
				via := int(w.via[i])
				if via < hosts && before.privilege[a*hosts+via] == 0 || via >= hosts && via != hosts+a {
					return fmt.Errorf("attacker %d came to host %d from source %d, which it does not hold", a, h, via)
				}
				if via != h && before.refused[via] > w.now {
					return fmt.Errorf("attacker %d came to host %d from source %d, which is refused", a, h, via)
				}
			}
			if is == 2 {
				roots++
			}
		}
		if int(w.rooted[h]) != roots {
			return fmt.Errorf("host %d: %d attackers are counted as root, %d are", h, w.rooted[h], roots)
		}
		if roots > 0 {
			rate += w.net.s.Hosts[h].Value
		}
	}
	if d := rate - w.rate; d > 1e-6 || d < -1e-6 {
		return fmt.Errorf("the loss an hour is %v, want %v", w.rate, rate)
	}
	for i, is := range w.secrets {
		a := i / len(w.net.opens)
		if is != before.secrets[i] && (!is || !slices.ContainsFunc(x.steps, func(s Step) bool {
			return s.OK && s.Action == Loot.String() && s.Actor == w.net.s.Attackers[a].Name
		})) {
			return fmt.Errorf("attacker %d's secret %d changed without loot", a, i%len(w.net.opens))
		}
	}
	return nil
}

// FuzzStep plays networks in which a defender does what stands in the input between the steps of everyone else: refuses
// sources, sensible or not, and branches off.
func FuzzStep(f *testing.F) {
	f.Add(uint64(1), uint8(6), []byte{0, 0, 0, 0, 3, 0, 0, 9, 255, 1, 2, 3})
	f.Add(uint64(3), uint8(9), bytes.Repeat([]byte{129, 0, 200, 0, 131, 0, 254, 0, 140, 0}, 30))
	f.Add(uint64(7), uint8(30), bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 40}, 20))
	f.Fuzz(func(t *testing.T, seed uint64, hosts uint8, ops []byte) {
		s := crowded(t, 4+int(hosts%40), seed%64)
		w, err := New(s, rng.New(seed))
		if err != nil {
			t.Fatal(err)
		}
		x := newWatch(w)
		for i := range min(len(ops), 400) {
			switch op := ops[i]; {
			case op == 255: // go on in a branch
				x = newWatch(x.w.Clone())
			case op >= 128: // an order for an attacker, open to it or not
				x.w.Order(int(op&1), (int(op)*7+i*13)%x.w.Orders())
			case op > 0:
				if err := x.refuse(int(op) % x.w.Sources()); err != nil {
					t.Fatal(err)
				}
			default:
				for range 8 {
					if _, err := x.advance(x.w.end); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
}

// A whole day of a generated network holds the same at every single step, and something does happen in it.
func TestInvariantsOfADay(t *testing.T) {
	taken := 0
	for seed := range uint64(4) {
		w, err := New(crowded(t, 25, seed), rng.New(seed))
		if err != nil {
			t.Fatal(err)
		}
		x := newWatch(w)
		for more := true; more; {
			if more, err = x.advance(w.end); err != nil {
				t.Fatalf("seed %d, at %s: %v", seed, w.Now(), err)
			}
		}
		taken += w.Run(w.Now()).Taken
	}
	if taken < 8 {
		t.Errorf("only %d hosts were taken in all: the invariants were hardly tried", taken)
	}
}

// Thousands of worlds live at once, each run a piece at a time on many goroutines and now and then put aside as a
// checkpoint: every one of them comes to what it comes to alone, and a branch in which a source is refused to something else.
func TestThousandsOfWorldsAtOnce(t *testing.T) {
	s := crowded(t, 12, 3)
	s.Duration = Duration(6 * time.Hour)
	first, err := New(s, rng.New(0))
	if err != nil {
		t.Fatal(err)
	}
	n := 2000
	if testing.Short() {
		n = 200
	}
	worlds, forked := make([]*World, n), make([]Result, n)
	for i := range worlds {
		worlds[i] = first.Again(Stream(5, i))
	}
	for hour := range 6 {
		var all sync.WaitGroup
		for g := range 4 {
			all.Go(func() {
				for i := g; i < n; i += 4 {
					worlds[i].Run(time.Duration(hour) * time.Hour)
					if hour == 2 {
						checkpoint := worlds[i].Clone()
						worlds[i].Refuse(worlds[i].Sources() - 1)
						forked[i] = worlds[i].Run(1 << 62)
						worlds[i] = checkpoint
					}
				}
			})
		}
		all.Wait()
	}
	differ := 0
	for i, w := range worlds {
		alone := first.Again(Stream(5, i))
		for hour := range 6 { // a sum of losses has one rounding for each piece
			alone.Run(time.Duration(hour) * time.Hour)
		}
		got, want := w.Run(1<<62), alone.Run(1<<62)
		if got != want {
			t.Fatalf("world %d: %+v, alone %+v", i, got, want)
		}
		if forked[i] != want {
			differ++
		}
	}
	if differ < n/2 {
		t.Errorf("only %d of %d branches differ from what they branched off", differ, n)
	}
	sum, err := Many(context.Background(), s, 50, 5)
	if err != nil || sum.Taken == 0 {
		t.Errorf("%+v, %v", sum, err)
	}
}

// Unobserved, a running world allocates nothing.
func TestRunAllocatesNothing(t *testing.T) {
	w, err := New(crowded(t, 40, 1), rng.New(1))
	if err != nil {
		t.Fatal(err)
	}
	w.Run(time.Hour) // the queue has found its size
	if n := testing.AllocsPerRun(20, func() { w.Run(w.Now() + 10*time.Minute) }); n != 0 {
		t.Errorf("%v allocations in ten minutes", n)
	}
}
