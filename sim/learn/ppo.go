package learn

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"

	"github.com/omega-mesh/omega/sim/rng"
)

// Hyper are the settings of proximal policy optimisation (Schulman et al., "Proximal policy optimization algorithms",
// arXiv 1707.06347) with generalised advantage estimation (arXiv 1506.02438).
type Hyper struct {
	Worlds     int     // played at once; a multiple of shards
	Horizon    int     // steps of each world an iteration
	Epochs     int     // passes over an iteration's experience
	Batch      int     // samples a gradient
	Rate       float64 // of learning, falling to RateEnd over the run
	RateEnd    float64
	Discount   float64
	Lambda     float64
	Clip       float64
	Entropy    float64 // weight of the entropy bonus, falling to EntropyEnd
	EntropyEnd float64
	Gradient   float64 // longest gradient
}

// DefaultHyper is what the published weights were trained with.
func DefaultHyper() Hyper {
	return Hyper{Worlds: 256, Horizon: 128, Epochs: 3, Batch: 2048, Rate: 1e-3, RateEnd: 5e-5, Discount: 0.99, Lambda: 0.95,
		Clip: 0.2, Entropy: 0.01, EntropyEnd: 0.001, Gradient: 0.5}
}

// Validate says what is wrong with h.
func (h Hyper) Validate() error {
	switch {
	case h.Worlds < shards || h.Worlds > 1<<16 || h.Worlds%shards != 0:
		return fmt.Errorf("learn: %d worlds; from %d to 65,536, a multiple of %d", h.Worlds, shards, shards)
	case h.Horizon < 1 || h.Horizon > 1024:
		return fmt.Errorf("learn: horizon %d; from 1 to 1024", h.Horizon)
	case h.Epochs < 1 || h.Epochs > 32:
		return fmt.Errorf("learn: %d epochs; from 1 to 32", h.Epochs)
	case h.Batch < shards || h.Batch > h.Worlds*h.Horizon:
		return fmt.Errorf("learn: batches of %d; from %d to the experience of an iteration, %d", h.Batch, shards, h.Worlds*h.Horizon)
	}
	for _, x := range []float64{h.Rate, h.RateEnd, h.Discount, h.Lambda, h.Clip, h.Entropy, h.EntropyEnd, h.Gradient} {
		if !(x >= 0 && x <= 100) {
			return fmt.Errorf("learn: a setting of %v; want from 0 to 100", x)
		}
	}
	return nil
}

// shards is how many parts the worlds and every batch are split into. It is fixed, and the parts are added up in their
// order, so that the result does not depend on how many cores worked on them.
const shards = 4

// ErrExploded says that a gradient or a weight became infinite or no number; the learner is back at the last good one.
var ErrExploded = errors.New("learn: the network exploded; the last good weights are kept")

// Learner trains one policy with its critic.
type Learner struct {
	Policy, Critic *Network

	hyper      Hyper
	sizes      Sizes
	policyAdam *adam
	criticAdam *adam
	shards     [shards]*shard
	scale      float64 // running scale of the returns, so that the critic's targets are about 1
	Steps      int64   // of the environment so far
	lastScale  float64
	lastPolicy []float32
	lastCritic []float32
}

// NewLearner makes a learner with fresh networks of the given hidden sizes.
func NewLearner(h Hyper, sizes Sizes, hidden1, hidden2 int, seed uint64) (*Learner, error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	policy, err := NewNetwork(Shape{sizes.Inputs, hidden1, hidden2, sizes.Choices}, sizes.Active, 0.01, rng.Derive(seed, 1))
	if err != nil {
		return nil, err
	}
	critic, err := NewNetwork(Shape{sizes.Inputs + sizes.Truth, hidden1, hidden2, 1}, 2*sizes.Active, 0.1, rng.Derive(seed, 2))
	if err != nil {
		return nil, err
	}
	return &Learner{Policy: policy, Critic: critic, hyper: h, sizes: sizes, policyAdam: newAdam(len(policy.flat)), criticAdam: newAdam(len(critic.flat)), scale: 1}, nil
}

// Play sets the learner before fresh games, whose every chance comes from seed: what happens next depends on the
// learner's networks and on this call alone. Each game is used by one goroutine at a time.
func (l *Learner) Play(fresh func() Game, seed uint64) {
	for i := range l.shards {
		l.shards[i] = newShard(l, rng.Derive(seed, uint64(i)), fresh)
	}
}

// Report is what one iteration of training came to.
type Report struct {
	Steps    int64   `json:"steps"`    // of the environment so far
	Reward   float64 `json:"reward"`   // mean a step
	Entropy  float64 `json:"entropy"`  // mean, in nats
	KL       float64 `json:"kl"`       // how far the policy moved
	Value    float64 `json:"value"`    // the critic's mean squared error, in its own scale
	Explains float64 `json:"explains"` // the share of the returns' variance that the critic explains
}

// each runs f on every shard, on as many goroutines as there are cores.
func (l *Learner) each(f func(*shard)) {
	if runtime.GOMAXPROCS(0) == 1 {
		for _, s := range l.shards {
			f(s)
		}
		return
	}
	var wg sync.WaitGroup
	for _, s := range l.shards {
		wg.Go(func() { f(s) })
	}
	wg.Wait()
}

// Iterate plays Horizon steps of every world and learns from them; progress, from 0 to 1, is how far the run has come.
// On ErrExploded the networks are as before the call.
func (l *Learner) Iterate(ctx context.Context, progress float64) (r Report, err error) {
	if err := ctx.Err(); err != nil {
		return r, err
	}
	if l.shards[0] == nil {
		return r, errors.New("learn: a learner without games: call Play first")
	}
	l.lastScale = l.scale
	l.lastPolicy = append(l.lastPolicy[:0], l.Policy.flat...)
	l.lastCritic = append(l.lastCritic[:0], l.Critic.flat...)
	l.each(func(s *shard) { s.play() })
	n := l.hyper.Worlds * l.hyper.Horizon
	l.Steps += int64(n)
	l.prepare(&r)
	rate := l.hyper.Rate + progress*(l.hyper.RateEnd-l.hyper.Rate)
	entropy := l.hyper.Entropy + progress*(l.hyper.EntropyEnd-l.hyper.Entropy)
	per := n / shards
	batch := l.hyper.Batch / shards
	batches := 0
	for range l.hyper.Epochs {
		l.each(func(s *shard) { s.shuffle() })
		for from := 0; from+batch <= per; from += batch {
			l.each(func(s *shard) { s.gradient(from, batch, float32(1)/float32(batch*shards), float32(entropy)) })
			first := l.shards[0]
			for _, s := range l.shards[1:] {
				add(first.policyGrad, s.policyGrad)
				add(first.criticGrad, s.criticGrad)
			}
			if !l.policyAdam.step(l.Policy.flat, first.policyGrad, rate, l.hyper.Gradient) || !l.criticAdam.step(l.Critic.flat, first.criticGrad, rate, l.hyper.Gradient) {
				return r, l.restore()
			}
			batches++
		}
	}
	if !l.Policy.finite() || !l.Critic.finite() {
		return r, l.restore()
	}
	samples := float64(batches * batch * shards)
	for _, s := range l.shards {
		r.Entropy += s.entropy / samples
		r.KL += s.kl / samples
		r.Value += s.loss / samples
		s.entropy, s.kl, s.loss = 0, 0, 0
	}
	r.Steps = l.Steps
	return r, nil
}

// restore goes back to the weights before the iteration, and forgets the optimiser's memory, which may be infected.
func (l *Learner) restore() error {
	l.scale = l.lastScale
	copy(l.Policy.flat, l.lastPolicy)
	copy(l.Critic.flat, l.lastCritic)
	l.policyAdam, l.criticAdam = newAdam(len(l.Policy.flat)), newAdam(len(l.Critic.flat))
	return ErrExploded
}

// prepare turns what was played into advantages and returns.
func (l *Learner) prepare(r *Report) {
	gamma, lambda := l.hyper.Discount, l.hyper.Lambda
	var n, sum, square, retSum, retSquare, err2, reward float64
	for _, s := range l.shards {
		worlds := len(s.games)
		for w := range worlds {
			ahead, next := 0.0, float64(s.final[w])*l.scale
			for t := l.hyper.Horizon - 1; t >= 0; t-- {
				i := t*worlds + w
				v := float64(s.values[i]) * l.scale
				switch s.ended[i] {
				case lengthOver:
					ahead, next = 0, float64(s.cut[i])*l.scale
				case gameEnd:
					ahead, next = 0, 0
				}
				delta := float64(s.rewards[i]) + gamma*next - v
				ahead = delta + gamma*lambda*ahead
				next = v
				s.advantages[i] = float32(ahead)
				ret := ahead + v
				s.returns[i] = float32(ret)
				n++
				sum += ahead
				square += ahead * ahead
				retSum += ret
				retSquare += ret * ret
				err2 += ahead * ahead
				reward += float64(s.rewards[i])
			}
		}
	}
	mean := sum / n
	deviation := math.Sqrt(max(1e-12, square/n-mean*mean))
	variance := max(1e-12, retSquare/n-(retSum/n)*(retSum/n))
	r.Reward = reward / n
	r.Explains = 1 - err2/n/variance
	// The critic's outputs are in units of scale. It follows the returns slowly, and its last layer is brought along so
	// that what the critic says does not jump.
	scale := math.Sqrt(retSquare/n) + 1e-3
	if l.Steps > int64(n) {
		scale = l.scale + 0.05*(scale-l.scale)
	}
	ratio := float32(l.scale / scale)
	for i := range l.Critic.w3 {
		l.Critic.w3[i] *= ratio
	}
	l.Critic.b3[0] *= ratio
	l.scale = scale
	for _, s := range l.shards {
		for i := range s.advantages {
			s.advantages[i] = float32((float64(s.advantages[i]) - mean) / deviation)
			s.returns[i] /= float32(scale)
		}
	}
}
