package rng

import (
	"math"
	"testing"
)

// The first numbers of seed 1234567 are those published with the reference implementation of SplitMix64.
func TestReferenceSequence(t *testing.T) {
	s := New(1234567)
	for i, want := range []uint64{6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821} {
		if got := s.Uint64(); got != want {
			t.Fatalf("number %d is %d, want %d", i, got, want)
		}
	}
}

func TestResume(t *testing.T) {
	a := Derive(7, 3)
	a.Uint64()
	b := New(a.State())
	if x, y := a.Uint64(), b.Uint64(); x != y {
		t.Fatalf("resumed stream gives %d, the original %d", y, x)
	}
}

func TestStreamsDiffer(t *testing.T) {
	seen := map[uint64]bool{}
	for seed := range uint64(50) {
		for i := range uint64(200) {
			s := Derive(seed, i)
			v := s.Uint64()
			if seen[v] {
				t.Fatalf("stream %d of seed %d starts like another", i, seed)
			}
			seen[v] = true
		}
	}
}

func TestUniform(t *testing.T) {
	s := New(1)
	const n, draws = 13, 130000
	var below, bit [n]int
	sum := 0.0
	for range draws {
		below[s.Below(n)]++
		bit[s.Bit(1<<n-1)]++
		sum += s.Float64()
	}
	for i := range n { // five standard deviations of a binomial
		for _, c := range []int{below[i], bit[i]} {
			if math.Abs(float64(c)-draws/n) > 5*math.Sqrt(draws/n) {
				t.Errorf("value %d was drawn %d times of %d", i, c, draws)
			}
		}
	}
	if mean := sum / draws; math.Abs(mean-0.5) > 0.005 {
		t.Errorf("mean of Float64 is %v", mean)
	}
	if s.Bit(0) != -1 || s.Below(0) != 0 || s.Bit(1<<9) != 9 {
		t.Error("edge cases of Bit and Below")
	}
}
