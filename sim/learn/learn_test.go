package learn

import (
	"bytes"
	"context"
	"errors"
	"math"
	"runtime"
	"testing"

	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/rng"
)

// toy shows one of eight inputs; the choice of the same number is right. The last choice would pay more than all else,
// but the mask forbids it.
type toy struct {
	source rng.Source
	shown  int
	left   int
	pay    float32
	broken func() // called where a forbidden choice is played
}

const toyChoices = 9

func (g *toy) Begin(source rng.Source)        { g.source, g.left = source, 10; g.show() }
func (g *toy) show()                          { g.shown = int(g.source.Below(8)) }
func (g *toy) Features(dst []uint16) []uint16 { return append(dst, uint16(g.shown)) }
func (g *toy) Truth(dst []uint16) []uint16    { return append(dst, 0) }
func (g *toy) Mask() (m Mask)                 { m[0] = 1<<(toyChoices-1) - 1; return m }
func (g *toy) Step(c int) (float32, bool, bool) {
	reward := float32(0)
	switch c {
	case g.shown:
		reward = g.pay
	case toyChoices - 1:
		g.broken()
	}
	g.show()
	g.left--
	return reward, g.left == 0, g.left == 0
}

func toyLearner(t *testing.T, pay float32) *Learner {
	t.Helper()
	h := DefaultHyper()
	h.Worlds, h.Horizon, h.Batch, h.Rate = 32, 32, 256, 3e-3
	l, err := NewLearner(h, Sizes{Inputs: 8, Truth: 1, Choices: toyChoices, Active: 1}, 64, 64, 1)
	if err != nil {
		t.Fatal(err)
	}
	l.Play(func() Game { return &toy{pay: pay, broken: func() { t.Error("a forbidden choice was played") }} }, 1)
	return l
}

func TestLearnsAToyProblem(t *testing.T) {
	if testing.Short() {
		t.Skip("learning is too long under the race detector; the other tests share its goroutines")
	}
	l := toyLearner(t, 1)
	first, last := 0.0, 0.0
	for i := range 40 {
		r, err := l.Iterate(context.Background(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = r.Reward
		}
		last = r.Reward
	}
	if first > 0.3 || last < 0.9 {
		t.Errorf("mean reward %.2f at first, %.2f after 40 iterations; chance gives 0.125", first, last)
	}
}

// Rewards too large for a float32's square blow the gradient up: the learner must say so and keep what it had.
func TestExplodingNetworkIsCaught(t *testing.T) {
	l := toyLearner(t, 1)
	if _, err := l.Iterate(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	policy, critic := l.Policy.clone(), l.Critic.clone()
	l.Play(func() Game { return &toy{pay: 3e38} }, 2)
	_, err := l.Iterate(context.Background(), 0)
	if !errors.Is(err, ErrExploded) {
		t.Fatalf("error %v, want ErrExploded", err)
	}
	for i, x := range policy.flat {
		if l.Policy.flat[i] != x {
			t.Fatal("the policy is not the last good one")
		}
	}
	for i, x := range critic.flat {
		if l.Critic.flat[i] != x {
			t.Fatal("the critic is not the last good one")
		}
	}
	l.Play(func() Game { return &toy{pay: 1} }, 3)
	if _, err := l.Iterate(context.Background(), 0); err != nil {
		t.Errorf("after an explosion: %v", err)
	}
}

// A reward that is no number ends the episode and counts nothing.
func TestRewardThatIsNoNumber(t *testing.T) {
	l := toyLearner(t, float32(math.NaN()))
	r, err := l.Iterate(context.Background(), 0)
	if err != nil || r.Reward != 0 || !l.Policy.finite() || !l.Critic.finite() {
		t.Errorf("reward %v, %v", r.Reward, err)
	}
}

// Whatever is chosen among what the mask allows: decoys start, inputs stay in range and in order, and the defender's
// picture of its own deeds is the world's.
func TestMemoryAgreesWithTheWorld(t *testing.T) {
	f, err := Trained()
	if err != nil {
		t.Fatal(err)
	}
	attackers, err := f.Attackers()
	if err != nil {
		t.Fatal(err)
	}
	opponents := []Opponent{{Red: cage2.BLine}, {Red: cage2.Meander}, {Red: cage2.RandomRed}, {Learned: attackers[0], Index: 0}}
	source := rng.New(5)
	var inputs, truth []uint16
	for episode := range 60 {
		g := Defence{Versions: versions(), Opponents: []Opponent{opponents[episode%len(opponents)]}}
		g.Opponents[0].Weight = 1
		g.Begin(rng.New(uint64(episode)))
		for over := false; !over; {
			inputs, truth = g.Features(inputs[:0]), g.Truth(truth[:0])
			ascending(t, inputs, DefenderInputs)
			ascending(t, truth, DefenderSizes().Truth)
			mask := g.Mask()
			if !mask.has(0) {
				t.Fatal("Sleep is forbidden")
			}
			n := int(source.Below(uint32(mask.count())))
			c := 0
			for ; !mask.has(c) || n > 0; c++ {
				if mask.has(c) {
					n--
				}
			}
			_, h := choices[c].Split()
			for d := cage2.Apache; d <= cage2.Vsftpd && h < cage2.Hosts; d++ {
				if g.memory.own.Running(d, h) != g.world.world.Running(d, h) || g.memory.own.CanPlace(d, h) != g.world.world.CanPlace(d, h) {
					t.Fatalf("before %s the defender is wrong about its decoys", choices[c])
				}
			}
			_, over, _ = g.Step(c)
		}
	}
}

func ascending(t *testing.T, list []uint16, below int) {
	t.Helper()
	for i, x := range list {
		if int(x) >= below || i > 0 && list[i-1] >= x {
			t.Fatalf("input %d of %d after %v", x, below, list[:i])
		}
	}
}

func TestAttackersMayOnlyTryWhatTheyKnow(t *testing.T) {
	f, err := Trained()
	if err != nil {
		t.Fatal(err)
	}
	n, _ := f.Find(defenderName)
	source := rng.New(6)
	var inputs []uint16
	for episode := range 20 {
		g := Offence{Versions: versions(), Defenders: []Defender{{Network: n, Weight: 1}}}
		g.Begin(rng.New(uint64(episode)))
		for over := false; !over; {
			inputs = g.Features(inputs[:0])
			ascending(t, inputs, AttackerSizes().Inputs)
			ascending(t, g.Truth(nil), AttackerSizes().Truth)
			mask := g.Mask()
			if known := g.world.RedMask(); mask[0]&^known != 0 || mask[1] != 0 {
				t.Fatalf("allowed %x of the known %x", mask, known)
			}
			c := source.Below(uint32(cage2.RedActions))
			if !mask.has(int(c)) {
				c = 0
			}
			_, over, _ = g.Step(int(c))
		}
	}
}

func TestMixture(t *testing.T) {
	rows, columns := Mixture([][]float64{{0, -1, 1}, {1, 0, -1}, {-1, 1, 0}}, 20_000)
	for i := range 3 {
		if math.Abs(rows[i]-1./3) > 0.02 || math.Abs(columns[i]-1./3) > 0.02 {
			t.Errorf("rock, paper, scissors: %v and %v", rows, columns)
		}
	}
	// The equilibrium of this one is 3/4 and 1/4 for the rows, 1/2 each for the columns.
	rows, columns = Mixture([][]float64{{1, 2}, {4, 1}}, 20_000)
	if math.Abs(rows[0]-0.75) > 0.02 || math.Abs(columns[0]-0.25) > 0.02 {
		t.Errorf("%v and %v", rows, columns)
	}
}

// little is a training that a test can afford.
func little() Options {
	o := DefaultOptions()
	o.Hyper.Worlds, o.Hyper.Horizon, o.Hyper.Batch = 16, 16, 128
	o.Steps, o.Rounds, o.AttackerSteps, o.Leg, o.Episodes = 3000, 1, 600, 500, 4
	if testing.Short() {
		o.Steps, o.AttackerSteps, o.Leg, o.Episodes = 1500, 300, 250, 1
	}
	return o
}

func train(t *testing.T, o Options, stopAfter int) []byte {
	t.Helper()
	tr, err := NewTraining(o)
	if err != nil {
		t.Fatal(err)
	}
	for leg := 0; !tr.Done(); leg++ {
		if err := tr.Leg(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
		if leg%3 == stopAfter {
			tr = throughAFile(t, tr)
		}
	}
	if n := len(tr.Curve()); n < 5 || tr.Curve()[n-1].Worst == 0 {
		t.Errorf("the curve is %+v", tr.Curve())
	}
	b, err := tr.Weights().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func throughAFile(t *testing.T, tr *Training) *Training {
	t.Helper()
	c, err := tr.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/checkpoint"
	if err := c.Save(path); err != nil {
		t.Fatal(err)
	}
	read, err := LoadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tr, err = Resume(read)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// The same seed gives the same bytes on one core, on several, and through checkpoints.
func TestSameBytesWhateverTheCoresAndStops(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	one := train(t, little(), -1)
	runtime.GOMAXPROCS(4)
	if !bytes.Equal(one, train(t, little(), -1)) {
		t.Error("four cores give other weights than one")
	}
	if testing.Short() {
		return // the race detector has seen both
	}
	for stop := range 3 {
		if !bytes.Equal(one, train(t, little(), stop)) {
			t.Errorf("a training stopped after every third leg, from %d, gives other weights", stop)
		}
	}
	o := little()
	o.Seed++
	if bytes.Equal(one, train(t, o, -1)) {
		t.Error("another seed gives the same weights")
	}
}

// A leg that is interrupted leaves no trace.
func TestInterruptedLeg(t *testing.T) {
	tr, err := NewTraining(little())
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Leg(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	before, _ := tr.Checkpoint()
	ctx, stop := context.WithCancel(context.Background())
	if err := tr.Leg(ctx, func(Progress) { stop() }); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	after, _ := tr.Checkpoint()
	a, _ := before.MarshalBinary()
	b, _ := after.MarshalBinary()
	if !bytes.Equal(a, b) {
		t.Error("the interrupted leg left a trace")
	}
}

func TestBadOptions(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no steps":           func(o *Options) { o.Steps = 0 },
		"nine attackers":     func(o *Options) { o.Rounds = MaxAttackers + 1 },
		"a billion worlds":   func(o *Options) { o.Hyper.Worlds = 1e9 },
		"uneven worlds":      func(o *Options) { o.Hyper.Worlds = 6 },
		"an endless horizon": func(o *Options) { o.Hyper.Horizon = 1e9 },
		"a rate of NaN":      func(o *Options) { o.Hyper.Rate = math.NaN() },
		"a batch too large":  func(o *Options) { o.Hyper.Batch = 1e6 },
		"an odd width":       func(o *Options) { o.Hidden = 65 },
		"no measurement":     func(o *Options) { o.Episodes = 0 },
	} {
		o := little()
		change(&o)
		if _, err := NewTraining(o); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
