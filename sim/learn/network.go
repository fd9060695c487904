package learn

import (
	"fmt"
	"math"

	"github.com/omega-mesh/omega/sim/rng"
)

// Shape is a network's size. Inputs are bits: an input vector is the list of those that are set, and the first layer adds
// their rows up.
type Shape struct {
	Inputs, Hidden1, Hidden2, Outputs int
}

// The largest network that is made or read.
const (
	maxInputs  = 4096
	maxHidden  = 512
	maxOutputs = MaxChoices
)

// Validate says what is wrong with s.
func (s Shape) Validate() error {
	if s.Hidden1%lane != 0 || s.Hidden2%lane != 0 {
		return fmt.Errorf("hidden layers of %d and %d units; want multiples of %d", s.Hidden1, s.Hidden2, lane)
	}
	if s.Inputs < 1 || s.Inputs > maxInputs || s.Hidden1 < 1 || s.Hidden1 > maxHidden || s.Hidden2 < 1 || s.Hidden2 > maxHidden || s.Outputs < 1 || s.Outputs > maxOutputs {
		return fmt.Errorf("network of %d-%d-%d-%d; at most %d-%d-%d-%d", s.Inputs, s.Hidden1, s.Hidden2, s.Outputs, maxInputs, maxHidden, maxHidden, maxOutputs)
	}
	return nil
}

func (s Shape) parameters() int {
	return (s.Inputs+1)*s.Hidden1 + (s.Hidden1+1)*s.Hidden2 + (s.Hidden2+1)*pad(s.Outputs)
}

// layers are views into one flat list of parameters, or of their gradients: a matrix has a row for each input.
type layers struct {
	w1, b1, w2, b2, w3, b3 []float32
}

func (s Shape) views(flat []float32) (l layers) {
	take := func(n int) []float32 {
		part := flat[:n:n]
		flat = flat[n:]
		return part
	}
	l.w1, l.b1 = take(s.Inputs*s.Hidden1), take(s.Hidden1)
	l.w2, l.b2 = take(s.Hidden1*s.Hidden2), take(s.Hidden2)
	l.w3, l.b3 = take(s.Hidden2*pad(s.Outputs)), take(pad(s.Outputs))
	return l
}

// Network is a float32 perceptron with two hidden layers of rectified units. Many goroutines may read one.
type Network struct {
	Shape
	flat []float32
	layers
}

// NewNetwork draws weights by He's rule (He et al., "Delving deep into rectifiers", 2015), the last layer's scaled by
// last: a policy starts near the uniform one where last is small. active is about how many inputs are set at once.
func NewNetwork(s Shape, active int, last float32, source rng.Source) (*Network, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	n := s.network()
	draw := func(w []float32, fan int, scale float32) {
		d := float64(scale) * math.Sqrt(2/float64(max(1, fan)))
		for i := range w {
			w[i] = float32(d * normal(&source))
		}
	}
	draw(n.w1, active, 1)
	draw(n.w2, s.Hidden1, 1)
	width := pad(s.Outputs)
	for i := range s.Hidden2 {
		draw(n.w3[i*width:i*width+s.Outputs], s.Hidden2, last) // what pads the lanes stays 0
	}
	return n, nil
}

func (s Shape) network() *Network {
	flat := make([]float32, s.parameters())
	return &Network{Shape: s, flat: flat, layers: s.views(flat)}
}

// clone is a copy that shares nothing.
func (n *Network) clone() *Network {
	c := n.Shape.network()
	copy(c.flat, n.flat)
	return c
}

// buffers are what forward needs.
func (n *Network) buffers() (scratch, out []float32) {
	return make([]float32, n.Hidden1+n.Hidden2), make([]float32, pad(n.Outputs))
}

// finite says whether every weight is a number.
func (n *Network) finite() bool { return finite(n.flat) }

func finite(x []float32) bool {
	for _, v := range x {
		if v-v != 0 { // NaN and the infinities
			return false
		}
	}
	return true
}

// normal draws from the standard normal distribution, by the sum of twelve uniform ones: exact enough for weights, and
// the same on every machine.
func normal(source *rng.Source) float64 {
	sum := -6.0
	for range 12 {
		sum += source.Float64()
	}
	return sum
}

// forward computes one output vector; the values past Outputs are 0. scratch holds Hidden1+Hidden2 values, out whole
// lanes. Nothing is allocated.
func (n *Network) forward(active []uint16, scratch, out []float32) {
	h1, h2 := scratch[:n.Hidden1], scratch[n.Hidden1:n.Hidden1+n.Hidden2]
	copy(h1, n.b1)
	gather(h1, n.w1, active)
	rectify(h1)
	copy(h2, n.b2)
	product(h2, h1, 1, n.w2, n.Hidden1)
	rectify(h2)
	copy(out, n.b3)
	product(out, h2, 1, n.w3, n.Hidden2)
}

// passRows is how many vectors a pass takes at once.
const passRows = 64

// pass holds the activations of up to passRows vectors, for the way back.
type pass struct {
	rows   int
	width  int       // of an output vector, in whole lanes
	h1, h2 []float32 // after rectifying
	out    []float32
	d1, d2 []float32
	t2, t3 []float32 // the two upper matrices turned
	inputs [passRows][]uint16
}

func newPass(s Shape) *pass {
	width := pad(s.Outputs)
	return &pass{width: width,
		h1: make([]float32, passRows*s.Hidden1), h2: make([]float32, passRows*s.Hidden2), out: make([]float32, passRows*width),
		d1: make([]float32, passRows*s.Hidden1), d2: make([]float32, passRows*s.Hidden2),
		t2: make([]float32, s.Hidden1*s.Hidden2), t3: make([]float32, s.Hidden2*width),
	}
}

// row is the output for vector i, in whole lanes.
func (p *pass) row(i int) []float32 { return p.out[i*p.width : (i+1)*p.width] }

// run computes the outputs of p.inputs[:rows].
func (p *pass) run(n *Network, rows int) {
	p.rows = rows
	for i := range rows {
		h1, h2, out := p.h1[i*n.Hidden1:(i+1)*n.Hidden1], p.h2[i*n.Hidden2:(i+1)*n.Hidden2], p.row(i)
		copy(h1, n.b1)
		gather(h1, n.w1, p.inputs[i])
		rectify(h1)
		copy(h2, n.b2)
		product(h2, h1, 1, n.w2, n.Hidden1)
		rectify(h2)
		copy(out, n.b3)
		product(out, h2, 1, n.w3, n.Hidden2)
	}
}

// turn prepares for back: it is called again whenever the weights have changed.
func (p *pass) turn(n *Network) {
	transpose(p.t2, n.w2, n.Hidden1, n.Hidden2)
	transpose(p.t3, n.w3, n.Hidden2, p.width)
}

// back adds to g the gradient of a loss whose derivative by each output lies in p.out.
func (p *pass) back(n *Network, g *layers) {
	rows := p.rows
	for i := range n.Hidden2 {
		product(g.w3[i*p.width:(i+1)*p.width], p.h2[i:], n.Hidden2, p.out, rows)
	}
	clear(p.d2[:rows*n.Hidden2])
	clear(p.d1[:rows*n.Hidden1])
	for i := range rows {
		d2 := p.d2[i*n.Hidden2 : (i+1)*n.Hidden2]
		product(d2, p.row(i), 1, p.t3, n.Outputs)
		through(d2, p.h2[i*n.Hidden2:])
		add(g.b3, p.row(i))
		add(g.b2, d2)
	}
	for i := range n.Hidden1 {
		product(g.w2[i*n.Hidden2:(i+1)*n.Hidden2], p.h1[i:], n.Hidden1, p.d2, rows)
	}
	for i := range rows {
		d1 := p.d1[i*n.Hidden1 : (i+1)*n.Hidden1]
		product(d1, p.d2[i*n.Hidden2:(i+1)*n.Hidden2], 1, p.t2, n.Hidden2)
		through(d1, p.h1[i*n.Hidden1:])
		add(g.b1, d1)
		scatter(g.w1, p.inputs[i], d1)
	}
}
