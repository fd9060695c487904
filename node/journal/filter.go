package journal

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// Bounds of a filter, in bytes on disk.
const (
	minFilter = 64
	maxFilter = 8 << 10
)

// filter is a Bloom filter of hashes (Bloom 1970; two hashes make the others, Kirsch and Mitzenmacher 2006). It is filled
// at its full size and folded in halves until it is no more than two fifths full.
type filter [maxFilter / 8]uint64

const probes = 4

func (f *filter) add(h uint64) {
	step := h>>32 | 1
	for range probes {
		bit := h % (maxFilter * 8)
		f[bit/64] |= 1 << (bit % 64)
		h += step
	}
}

// fold appends the filter to out, as small as it may be.
func (f *filter) fold(out []byte) []byte {
	words := f[:]
	var half [maxFilter / 16]uint64
	for len(words) > minFilter/8 {
		n, set := len(words)/2, 0
		for i := range n {
			half[i] = words[i] | words[n+i]
			set += bits.OnesCount64(half[i])
		}
		if set*5 > n*64*2 {
			break
		}
		copy(f[:], half[:n])
		words = f[:n]
	}
	for _, w := range words {
		out = append(out, byte(w), byte(w>>8), byte(w>>16), byte(w>>24), byte(w>>32), byte(w>>40), byte(w>>48), byte(w>>56))
	}
	return out
}

// mayHold tells whether h may have been added to the filter that fold wrote; its length is a power of two.
func mayHold(folded []byte, h uint64) bool {
	if len(folded) == 0 {
		return true
	}
	step := h>>32 | 1
	for range probes {
		bit := h % uint64(len(folded)*8)
		if folded[bit/8]&(1<<(bit%8)) == 0 {
			return false
		}
		h += step
	}
	return true
}

func hashText(s string) uint64 { return xxhash.Sum64String(s) }

// hashPID spreads a process id over the filter (splitmix64, Steele et al. 2014).
func hashPID(pid uint32) uint64 {
	z := uint64(pid) + 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
