package learn

import "math"

// adam is the optimiser of Kingma and Ba ("Adam: a method for stochastic optimization", ICLR 2015) over one flat list of
// parameters.
type adam struct {
	mean, square []float32
	steps        int
}

func newAdam(n int) *adam { return &adam{mean: make([]float32, n), square: make([]float32, n)} }

const (
	adamMean    = 0.9
	adamSquare  = 0.999
	adamEpsilon = 1e-5
)

// step moves w against the gradient g, which is first shortened to the length limit. It reports false and changes
// nothing where the gradient is no number.
func (a *adam) step(w, g []float32, rate, limit float64) bool {
	norm := 0.0
	for _, x := range g {
		norm += float64(x) * float64(x)
	}
	norm = math.Sqrt(norm)
	if math.IsNaN(norm) || math.IsInf(norm, 0) {
		return false
	}
	shorten := float32(1)
	if norm > limit {
		shorten = float32(limit / norm)
	}
	a.steps++
	mean1 := 1 - math.Pow(adamMean, float64(a.steps))
	square1 := 1 - math.Pow(adamSquare, float64(a.steps))
	alpha := float32(rate * math.Sqrt(square1) / mean1)
	epsilon := float32(adamEpsilon * math.Sqrt(square1))
	for i, x := range g {
		x *= shorten
		a.mean[i] += (1 - adamMean) * (x - a.mean[i])
		a.square[i] += (1 - adamSquare) * (x*x - a.square[i])
		w[i] -= alpha * a.mean[i] / (float32(math.Sqrt(float64(a.square[i]))) + epsilon)
	}
	return true
}
