package cage2

import (
	"bytes"
	"testing"

	"github.com/omega-mesh/omega/sim/rng"
)

// A contest in which red and green are scripts is the world's own step.
func TestContestOfScriptsIsStep(t *testing.T) {
	for red := range reds {
		a := NewWorld(Later, red, true, rng.New(uint64(red)))
		b := a
		draw := rng.New(9)
		for range MaxSteps + 2 {
			blue := Action(draw.Below(uint32(Actions)))
			if ra, rb := a.Step(blue), b.Contest(blue, Scripted, Scripted); ra != rb || a != b {
				t.Fatalf("%s: %+v, want %+v", red, rb, ra)
			}
		}
	}
}

// Every number is one move, and what the mask allows is what does not fail for want of knowledge.
func TestRedActions(t *testing.T) {
	seen := map[Move]bool{}
	for a := range RedActions {
		seen[RedAction(a).Move()] = true
	}
	if len(seen) != RedActions || RedAction(RedActions).Move() != (Move{}) {
		t.Fatalf("%d moves of %d numbers", len(seen), RedActions)
	}
	source := rng.New(3)
	for episode := range 50 {
		w := NewWorld(Leaderboard, Meander, false, rng.Derive(1, uint64(episode)))
		for range 60 {
			mask := w.RedMask()
			for a := range RedActions {
				branch := w
				if r := branch.Contest(Sleep, uint8(a), 0); r.RedOK && mask>>a&1 == 0 {
					t.Fatalf("masked %s works", RedAction(a).Move())
				}
			}
			w.Step(Action(source.Below(uint32(Actions))))
		}
	}
}

// The packed forms say what the state says.
func TestViewsOfAgents(t *testing.T) {
	source := rng.New(4)
	w := NewWorld(Leaderboard, Meander, true, rng.New(5))
	bit := func(b []byte, i int) bool { return b[i/8]>>(i%8)&1 == 1 }
	for range MaxSteps - 1 {
		r := w.Step(Action(source.Below(uint32(Actions))))
		var mask [BlueMaskBytes]byte
		w.BlueMask(mask[:])
		for a := range Actions {
			v, h := Action(a).Split()
			want := true
			if v >= DecoyApache && v <= DecoyVsftpd {
				branch := w
				want = branch.Step(Action(a)).BlueOK
			}
			if bit(mask[:], a) != want {
				t.Fatalf("mask of %s on %s", Action(a), h)
			}
		}
		var o [(RedObservationBits + 7) / 8]byte
		w.RedObservation(o[:])
		if bit(o[:], 0) != r.RedOK || bit(o[:], 4) != w.otLearned {
			t.Fatal("head of red's view")
		}
		for h := range Hosts {
			at := 5 + 16*int(h)
			if bit(o[:], at) != (w.knownAddr>>h&1 == 1) || bit(o[:], at+1) != (w.knownHost>>h&1 == 1) || bit(o[:], at+3) != (w.Privilege(h) == 2) ||
				bit(o[:], at+2) != (w.Sessions(h, ByLogin)+w.Sessions(h, Hidden)+w.Sessions(h, Detected) > 0) {
				t.Fatalf("red's view of %s", h)
			}
			for p := range portNumbers {
				if bit(o[:], at+4+p) != (w.memory[h]>>p&1 == 1) {
					t.Fatalf("red's memory of %s", h)
				}
			}
		}
	}
}

// FuzzContest plays any numbers for all three agents and holds the invariants after every step.
func FuzzContest(f *testing.F) {
	f.Add([]byte{0, 3, 0, 0, 19, 13, 2, 20, 5, 140, 33, 255}, uint64(1), false)
	f.Add(bytes.Repeat([]byte{255, 255, 13, 7, 43, 200}, 40), uint64(2), true)
	f.Fuzz(func(t *testing.T, numbers []byte, seed uint64, later bool) {
		v := Leaderboard
		if later {
			v = Later
		}
		w := NewWorld(v, SleepRed, true, rng.New(seed))
		for i := 0; i+3 <= len(numbers) && w.Steps < MaxSteps; i += 3 {
			blue, red := Action(numbers[i]), min(numbers[i+1], Scripted-1)
			before := w.State
			r := w.Contest(blue, red, numbers[i+2])
			checkInvariants(t, &before, &w.State, blue, RedAction(red).Move(), r)
			if reward := RedReward(blue, r.Reward); reward < 0 {
				t.Fatalf("red is charged %d", reward)
			}
		}
	})
}
