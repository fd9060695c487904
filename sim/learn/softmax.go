package learn

import (
	"math"
	"math/bits"

	"github.com/omega-mesh/omega/sim/rng"
)

// softmax writes the probabilities of the allowed choices into p, 0 for the others, and returns the logarithm of the sum
// by which the exponentials were divided.
func softmax(out []float32, mask *Mask, p []float32) float32 {
	clear(p)
	top := float32(math.Inf(-1))
	for w, set := range mask {
		for ; set != 0; set &= set - 1 {
			top = max(top, out[w<<6|bits.TrailingZeros64(set)])
		}
	}
	sum := float32(0)
	for w, set := range mask {
		for ; set != 0; set &= set - 1 {
			i := w<<6 | bits.TrailingZeros64(set)
			p[i] = exp32(out[i] - top)
			sum += p[i]
		}
	}
	for i := range p {
		p[i] /= sum
	}
	return top + float32(math.Log(float64(sum)))
}

// draw draws a choice by its probability.
func draw(p []float32, mask *Mask, source *rng.Source) int {
	at := float32(source.Float64())
	last := 0
	for w, set := range mask {
		for ; set != 0; set &= set - 1 {
			i := w<<6 | bits.TrailingZeros64(set)
			if p[i] == 0 {
				continue
			}
			last = i
			if at -= p[i]; at < 0 {
				return i
			}
		}
	}
	return last
}

// best is the allowed choice with the largest output, the first of equals.
func best(out []float32, mask *Mask) int {
	choice := -1
	for w, set := range mask {
		for ; set != 0; set &= set - 1 {
			if i := w<<6 | bits.TrailingZeros64(set); choice < 0 || out[i] > out[choice] {
				choice = i
			}
		}
	}
	return max(choice, 0)
}

// exp32 is e to the x within 2 units of the last place of a float32; below -87 it is 0. The standard library's differs
// in the last bits between processors with and without fused multiplication, and training must not.
func exp32(x float32) float32 {
	if x < -87 {
		return 0
	}
	if x > 88 {
		x = 88
	}
	n := float32(math.Round(float64(x) * math.Log2E))
	r := float32(float64(x) - float64(n)*math.Ln2)
	// Taylor's series to the sixth power on [-ln2/2, ln2/2].
	y := 1 + r*(1+r*(0.5+r*(1.0/6+r*(1.0/24+r*(1.0/120+r*(1.0/720))))))
	return math.Float32frombits(uint32(int32(n)+127)<<23) * y
}
