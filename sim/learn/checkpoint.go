package learn

import (
	"encoding/json"
	"errors"
	"fmt"
)

// checkpoint is the header's part of a training that stands between two legs.
type checkpoint struct {
	At        position      `json:"at"`
	Defender  learnerState  `json:"defender"`
	Attacker  *learnerState `json:"attacker,omitempty"`
	Defenders int           `json:"defenders"`
	Attackers int           `json:"attackers"`
}

type learnerState struct {
	Steps int64   `json:"steps"`
	Scale float64 `json:"scale"`
	Adam  [2]int  `json:"adam"` // steps of the policy's and of the critic's optimiser
}

func (l *Learner) state() learnerState {
	return learnerState{l.Steps, l.scale, [2]int{l.policyAdam.steps, l.criticAdam.steps}}
}

// parts are a learner's six lists of numbers: the networks and their optimisers' memory, each of a network's shape.
var parts = [...]string{"policy", "policy-mean", "policy-square", "critic", "critic-mean", "critic-square"}

func (l *Learner) lists() [len(parts)][]float32 {
	return [...][]float32{l.Policy.flat, l.policyAdam.mean, l.policyAdam.square, l.Critic.flat, l.criticAdam.mean, l.criticAdam.square}
}

func (f *File) putLearner(name string, l *Learner) {
	for i, list := range l.lists() {
		shape := l.Policy.Shape
		if i >= len(parts)/2 {
			shape = l.Critic.Shape
		}
		n := shape.network()
		copy(n.flat, list)
		f.Put(name+"/"+parts[i], n, false)
	}
}

func (f *File) takeLearner(name string, l *Learner, s learnerState) error {
	for i, list := range l.lists() {
		n, err := f.sized(name+"/"+parts[i], len(list))
		if err != nil {
			return err
		}
		copy(list, n.flat)
	}
	if !(s.Scale > 0) || s.Steps < 0 || s.Adam[0] < 0 || s.Adam[1] < 0 {
		return fmt.Errorf("the state of %s is %+v", name, s)
	}
	l.Steps, l.scale, l.policyAdam.steps, l.criticAdam.steps = s.Steps, s.Scale, s.Adam[0], s.Adam[1]
	return nil
}

// sized finds a network with as many parameters.
func (f *File) sized(name string, parameters int) (*Network, error) {
	n, ok := f.Find(name)
	if !ok {
		return nil, fmt.Errorf("no network %q", name)
	}
	if len(n.flat) != parameters {
		return nil, fmt.Errorf("network %q has %d parameters, want %d", name, len(n.flat), parameters)
	}
	return n, nil
}

// Checkpoint is everything that Resume needs; it shares nothing with the training.
func (t *Training) Checkpoint() (*File, error) {
	f := &File{Header: Header{Seed: t.at.Options.Seed, Steps: t.at.Steps}}
	c := checkpoint{At: t.at, Defender: t.learner.state(), Defenders: len(t.defenders), Attackers: len(t.attackers)}
	f.putLearner("defender", t.learner)
	if t.attacker != nil {
		s := t.attacker.state()
		c.Attacker = &s
		f.putLearner("attacker", t.attacker)
	}
	for i, n := range t.defenders {
		f.Put(fmt.Sprintf("past-%d", i), n.clone(), false)
	}
	for i, n := range t.attackers {
		f.Put(attackerName(i), n.clone(), false)
	}
	f.Put("best", t.best.clone(), false)
	var err error
	f.Training, err = json.Marshal(c)
	return f, err
}

// Resume goes on from a checkpoint. A file that is none, or whose parts do not fit together, is an ErrDamaged.
func Resume(f *File) (*Training, error) {
	t, err := resume(f)
	if err != nil {
		return nil, fmt.Errorf("%w: not a training to go on with: %w", ErrDamaged, err)
	}
	return t, nil
}

func resume(f *File) (*Training, error) {
	if len(f.Training) == 0 {
		return nil, errors.New("finished weights; a checkpoint is wanted")
	}
	var c checkpoint
	if err := json.Unmarshal(f.Training, &c); err != nil {
		return nil, err
	}
	t, err := NewTraining(c.At.Options)
	if err != nil {
		return nil, err
	}
	t.at = c.At
	if c.Defenders != (t.at.Stage+1)/2 || c.Attackers != t.at.Stage/2 || t.at.Stage < 0 || t.at.Stage > 2*t.at.Options.Rounds+1 {
		return nil, fmt.Errorf("%d defenders and %d attackers at stage %d", c.Defenders, c.Attackers, t.at.Stage)
	}
	if len(t.at.Attackers) != c.Attackers || c.Defenders > 0 && len(t.at.Defenders) != c.Defenders {
		return nil, fmt.Errorf("mixtures of %d defenders and %d attackers", len(t.at.Defenders), len(t.at.Attackers))
	}
	if err := f.takeLearner("defender", t.learner, c.Defender); err != nil {
		return nil, err
	}
	if c.Attacker != nil {
		if t.attacker, err = t.newAttacker(); err != nil {
			return nil, err
		}
		if err := f.takeLearner("attacker", t.attacker, *c.Attacker); err != nil {
			return nil, err
		}
	}
	defends, attacks := t.learner.Policy.Shape, attackerShape(t.at.Options)
	for i := range c.Defenders {
		n, err := f.shaped(fmt.Sprintf("past-%d", i), defends)
		if err != nil {
			return nil, err
		}
		t.defenders = append(t.defenders, n)
	}
	for i := range c.Attackers {
		n, err := f.shaped(attackerName(i), attacks)
		if err != nil {
			return nil, err
		}
		t.attackers = append(t.attackers, n)
	}
	t.best, err = f.shaped("best", defends)
	return t, err
}

// shaped finds a network of exactly that shape.
func (f *File) shaped(name string, s Shape) (*Network, error) {
	n, ok := f.Find(name)
	if !ok {
		return nil, fmt.Errorf("no network %q", name)
	}
	if n.Shape != s {
		return nil, fmt.Errorf("network %q is of shape %v, want %v", name, n.Shape, s)
	}
	return n.clone(), nil
}

func attackerShape(o Options) Shape {
	s := AttackerSizes()
	return Shape{s.Inputs, o.Hidden, o.Hidden, s.Choices}
}
