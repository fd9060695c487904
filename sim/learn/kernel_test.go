package learn

import (
	"math"
	"testing"

	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/rng"
)

func BenchmarkDecision(b *testing.B) { decisionBenchmark(b) }

func randoms(n int, source *rng.Source) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(normal(source))
	}
	return x
}

// The assembly must give the very bits of the loops, or weights would depend on the processor.
func TestAssemblyGivesTheSameBits(t *testing.T) {
	if !vectors {
		t.Skip("this processor has no AVX: only the loops are there")
	}
	source := rng.New(1)
	for _, width := range []int{lane, 2 * lane} {
		w, x, start := randoms(20*width, &source), randoms(60, &source), randoms(width, &source)
		rows := []uint16{0, 3, 4, 17, 19}
		run := func(fast bool) (all []float32) {
			dst := append([]float32(nil), start...)
			gatherWith(fast, dst, w, rows)
			productWith(fast, dst, x, 3, w, 20)
			m := append([]float32(nil), w...)
			scatterWith(fast, m, rows, dst)
			return append(dst, m...)
		}
		a, b := run(true), run(false)
		for i := range a {
			if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
				t.Fatalf("width %d: value %d is %v by assembly, %v by the loop", width, i, a[i], b[i])
			}
		}
	}
}

func TestHalves(t *testing.T) {
	for h := range 1 << 16 {
		x := fromHalf(uint16(h))
		if x != x {
			continue
		}
		if got := toHalf(x); got != uint16(h) {
			t.Fatalf("half %04x is %v, which is half %04x", h, x, got)
		}
	}
	for x, want := range map[float32]uint16{1: 0x3c00, 65504: 0x7bff, 65520: 0x7c00, 1e-9: 0, 1 + 0x1p-11: 0x3c00, 1 + 0x1.8p-10: 0x3c02, 0x1p-24: 1, 0x1.8p-24: 2} {
		if got := toHalf(x); got != want {
			t.Errorf("%v is half %04x, want %04x", x, got, want)
		}
	}
}

func TestExp(t *testing.T) {
	for x := float32(-90); x < 20; x += 0.0137 {
		want := math.Exp(float64(x))
		if got := float64(exp32(x)); math.Abs(got-want) > 4e-7*want && x > -87 {
			t.Fatalf("exp(%v) is %v, want %v", x, got, want)
		}
	}
}

// The gradient that back computes is the one that finite differences show.
func TestGradient(t *testing.T) {
	source := rng.New(3)
	n, err := NewNetwork(Shape{40, 64, 128, 5}, 6, 1, source)
	if err != nil {
		t.Fatal(err)
	}
	p := newPass(n.Shape)
	const rows = 7
	pull := randoms(rows*5, &source) // the loss is the sum of pull times output
	for i := range rows {
		for f := range uint16(40) {
			if source.Chance(0.15) {
				p.inputs[i] = append(p.inputs[i], f)
			}
		}
	}
	loss := func() (sum float64) {
		p.run(n, rows)
		for i := range rows {
			for j := range 5 {
				sum += float64(pull[i*5+j]) * float64(p.row(i)[j])
			}
		}
		return sum
	}
	loss()
	grad := make([]float32, len(n.flat))
	view := n.views(grad)
	for i := range rows {
		clear(p.row(i))
		copy(p.row(i), pull[i*5:(i+1)*5])
	}
	p.turn(n)
	p.back(n, &view)
	checked, off := 0, 0
	for range 600 {
		i := int(source.Below(uint32(len(n.flat))))
		const h = 1e-2
		keep := n.flat[i]
		n.flat[i] = keep + h
		up := loss()
		n.flat[i] = keep - h
		down := loss()
		n.flat[i] = keep
		want := (up - down) / (2 * h)
		if want == 0 && grad[i] == 0 {
			continue
		}
		checked++
		// A unit that crosses zero within the difference bends it: a few may be off.
		if math.Abs(want-float64(grad[i])) > 0.02+0.02*math.Abs(want) {
			off++
		}
	}
	if checked < 200 || off > checked/25 {
		t.Errorf("%d of %d derivatives differ from finite differences", off, checked)
	}
	// One vector alone gives what the pass gave.
	loss()
	scratch, out := n.buffers()
	n.forward(p.inputs[2], scratch, out)
	for j := range 5 {
		if out[j] != p.row(2)[j] {
			t.Errorf("output %d is %v alone and %v in a pass", j, out[j], p.row(2)[j])
		}
	}
}

func TestDecisionAllocatesNothing(t *testing.T) {
	f, err := Trained()
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Defender(cage2.Later)
	if err != nil {
		t.Fatal(err)
	}
	w := cage2.NewWorld(cage2.Later, cage2.Meander, false, rng.New(1))
	var o cage2.Observation
	if n := testing.AllocsPerRun(50, func() { o = w.Step(p.Act(o)).Observation }); n != 0 {
		t.Errorf("%v allocations a decision", n)
	}
}
