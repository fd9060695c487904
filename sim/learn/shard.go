package learn

import (
	"github.com/omega-mesh/omega/sim/rng"
)

// How a step ended its episode.
const (
	goesOn     = iota
	lengthOver // cut off by its length: what would have come is the critic's guess
	gameEnd
)

// shard is a fixed part of the worlds with its experience of one iteration, step-major, and its own source of chance. One
// goroutine works on it at a time.
type shard struct {
	l      *Learner
	games  []Game
	seed   uint64
	begun  uint64
	source rng.Source

	inputs, truths         []uint16 // of all samples, end to end
	inputsAt, truthsAt     []uint32 // where sample i begins
	masks                  []Mask
	chosen                 []uint8
	logs                   []float32 // of the probability it was chosen with
	values, rewards        []float32
	cut                    []float32 // the critic's value where an episode was cut off
	final                  []float32 // the same after the last step, a world each
	ended                  []uint8
	advantages, returns    []float32
	order                  []uint32
	scratch                []uint16
	policyPass, criticPass *pass
	policyGrad, criticGrad []float32
	policyView, criticView layers
	entropy, kl, loss      float64
}

func newShard(l *Learner, source rng.Source, fresh func() Game) *shard {
	worlds := l.hyper.Worlds / shards
	n := worlds * l.hyper.Horizon
	s := &shard{l: l, seed: source.Uint64(), source: source,
		inputsAt: make([]uint32, n+1), truthsAt: make([]uint32, n+1), masks: make([]Mask, n), chosen: make([]uint8, n), logs: make([]float32, n),
		values: make([]float32, n), rewards: make([]float32, n), cut: make([]float32, n), final: make([]float32, worlds), ended: make([]uint8, n),
		advantages: make([]float32, n), returns: make([]float32, n), order: make([]uint32, n),
		policyPass: newPass(l.Policy.Shape), criticPass: newPass(l.Critic.Shape),
		policyGrad: make([]float32, len(l.Policy.flat)), criticGrad: make([]float32, len(l.Critic.flat))}
	s.policyView, s.criticView = l.Policy.views(s.policyGrad), l.Critic.views(s.criticGrad)
	for i := range s.order {
		s.order[i] = uint32(i)
	}
	for range worlds {
		g := fresh()
		g.Begin(s.next())
		s.games = append(s.games, g)
	}
	return s
}

// next is the stream of the shard's next episode.
func (s *shard) next() rng.Source {
	s.begun++
	return rng.Derive(s.seed, s.begun)
}

func (s *shard) sample(i int) (inputs, truths []uint16) {
	return s.inputs[s.inputsAt[i]:s.inputsAt[i+1]], s.truths[s.truthsAt[i]:s.truthsAt[i+1]]
}

// play plays Horizon steps of every world.
func (s *shard) play() {
	l := s.l
	s.inputs, s.truths = s.inputs[:0], s.truths[:0]
	probabilities := make([]float32, pad(l.sizes.Choices))
	worlds := len(s.games)
	for t := range l.hyper.Horizon {
		for from := 0; from < worlds; from += passRows {
			rows := min(passRows, worlds-from)
			base := t*worlds + from
			for i := range rows {
				g := s.games[from+i]
				s.inputs = g.Features(s.inputs)
				s.inputsAt[base+i+1] = uint32(len(s.inputs))
				s.truths = append(s.truths, s.inputs[s.inputsAt[base+i]:]...)
				mark := len(s.truths)
				s.truths = g.Truth(s.truths)
				for j := mark; j < len(s.truths); j++ {
					s.truths[j] += uint16(l.sizes.Inputs)
				}
				s.truthsAt[base+i+1] = uint32(len(s.truths))
				s.masks[base+i] = g.Mask()
			}
			for i := range rows {
				s.policyPass.inputs[i], s.criticPass.inputs[i] = s.sample(base + i)
			}
			s.policyPass.run(l.Policy, rows)
			s.criticPass.run(l.Critic, rows)
			for i := range rows {
				at := base + i
				p := probabilities
				out := s.policyPass.row(i)
				total := softmax(out, &s.masks[at], p)
				c := draw(p, &s.masks[at], &s.source)
				s.chosen[at] = uint8(c)
				s.logs[at] = out[c] - total
				s.values[at] = s.criticPass.row(i)[0]
				g := s.games[from+i]
				reward, over, end := g.Step(c)
				if reward-reward != 0 { // no number
					reward, over, end = 0, true, true
				}
				s.rewards[at], s.ended[at] = reward, goesOn
				switch {
				case end:
					s.ended[at] = gameEnd
					g.Begin(s.next())
				case over:
					s.ended[at], s.cut[at] = lengthOver, s.value(g)
					g.Begin(s.next())
				}
			}
		}
	}
	for w, g := range s.games {
		s.final[w] = s.value(g)
	}
}

// value is the critic's word on where g stands.
func (s *shard) value(g Game) float32 {
	s.scratch = g.Features(s.scratch[:0])
	mark := len(s.scratch)
	s.scratch = g.Truth(s.scratch)
	for j := mark; j < len(s.scratch); j++ {
		s.scratch[j] += uint16(s.l.sizes.Inputs)
	}
	var out [lane]float32
	n := s.l.Critic
	n.forward(s.scratch, s.criticPass.d1[:n.Hidden1+n.Hidden2], out[:])
	return out[0]
}

func (s *shard) shuffle() {
	for i := len(s.order) - 1; i > 0; i-- {
		j := s.source.Below(uint32(i + 1))
		s.order[i], s.order[j] = s.order[j], s.order[i]
	}
}

// gradient computes the shard's part of a batch's gradient into its own buffers. weight is that of one sample.
func (s *shard) gradient(from, count int, weight, bonus float32) {
	l := s.l
	clear(s.policyGrad)
	clear(s.criticGrad)
	s.policyPass.turn(l.Policy)
	s.criticPass.turn(l.Critic)
	p := make([]float32, pad(l.sizes.Choices))
	clip := float32(l.hyper.Clip)
	for begin := from; begin < from+count; begin += passRows {
		rows := min(passRows, from+count-begin)
		for i := range rows {
			s.policyPass.inputs[i], s.criticPass.inputs[i] = s.sample(int(s.order[begin+i]))
		}
		s.policyPass.run(l.Policy, rows)
		s.criticPass.run(l.Critic, rows)
		for i := range rows {
			at := s.order[begin+i]
			mask := &s.masks[at]
			out := s.policyPass.row(i)
			total := softmax(out, mask, p)
			c := int(s.chosen[at])
			a := s.advantages[at]
			logRatio := out[c] - total - s.logs[at]
			ratio := exp32(logRatio)
			s.kl += float64(ratio - 1 - logRatio)
			pull := -a * ratio * weight // the loss's derivative by the log probability of the choice
			if a > 0 && ratio > 1+clip || a < 0 && ratio < 1-clip {
				pull = 0
			}
			entropy := total
			for j, q := range p {
				if q > 0 {
					entropy -= q * out[j]
				}
			}
			s.entropy += float64(entropy)
			for j, q := range p {
				if q > 0 {
					out[j] = -pull*q + bonus*weight*q*(out[j]-total+entropy)
				} else {
					out[j] = 0
				}
			}
			out[c] += pull
			v := s.criticPass.row(i)
			off := v[0] - s.returns[at]
			s.loss += float64(off) * float64(off)
			clear(v[1:])
			v[0] = weight * max(-1, min(1, off)) // Huber's loss: a rare disaster must not drown the rest
		}
		s.policyPass.back(l.Policy, &s.policyView)
		s.criticPass.back(l.Critic, &s.criticView)
	}
}
