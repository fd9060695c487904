// Package rng is the one source of chance in a simulated world: a 64-bit generator small enough to be copied with the
// world it drives, so that a checkpoint, a branch or a recording carries its own future with it.
//
// The sequence is SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014). It
// depends on the seed alone: never on the machine, the number of cores or the order in which worlds are run. It is not
// for secrets.
package rng

import "math/bits"

// Source is a stream of random numbers. The zero value is the stream of seed 0. One Source serves one goroutine.
type Source struct{ state uint64 }

// New begins the stream of seed.
func New(seed uint64) Source { return Source{state: seed} }

// Derive begins the stream number i of seed: episode i of an evaluation, world i of a batch. Streams of different i
// start at unrelated places, so worlds may be run in any order and on any number of cores.
func Derive(seed, i uint64) Source { return Source{state: mix(mix(seed)^(i+1)*0xd1342543de82ef95) ^ i} }

// State is where the stream stands: New(State()) goes on from here.
func (s *Source) State() uint64 { return s.state }

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Uint64 gives 64 random bits.
func (s *Source) Uint64() uint64 {
	s.state += 0x9e3779b97f4a7c15
	return mix(s.state)
}

// Below gives a number in [0, n); n of 0 gives 0. The bias is under n/2^64.
func (s *Source) Below(n uint32) uint32 {
	hi, _ := bits.Mul64(s.Uint64(), uint64(n))
	return uint32(hi)
}

// Float64 gives a number in [0, 1).
func (s *Source) Float64() float64 { return float64(s.Uint64()>>11) * 0x1p-53 }

// Chance is true with probability p.
func (s *Source) Chance(p float64) bool { return s.Float64() < p }

// Bit gives a uniformly chosen set bit of mask, or -1 where it has none.
func (s *Source) Bit(mask uint32) int {
	n := bits.OnesCount32(mask)
	if n == 0 {
		return -1
	}
	if n > 1 {
		for k := s.Below(uint32(n)); k > 0; k-- {
			mask &= mask - 1
		}
	}
	return bits.TrailingZeros32(mask)
}
