package entropy

import (
	"errors"
	"fmt"
	"math"
)

// Refusals of a health test; each is wrapped with the counts.
var (
	// ErrRepetition: the same sample came so often in a row that the source is stuck (SP 800-90B, 4.4.1).
	ErrRepetition = errors.New("stuck: repetition count test")
	// ErrProportion: one sample came so often in a window that the source lost entropy (SP 800-90B, 4.4.2).
	ErrProportion = errors.New("biased: adaptive proportion test")
)

const (
	// alphaBits is -log2 of the chance that a sound source fails a test at one sample: the standard takes 20 to 40, and
	// since a failed source is dropped for good, or fails all reading, a false alarm must never happen: 40.
	alphaBits = 40
	// window is that of the adaptive proportion test for samples that are not binary.
	window = 512
	// startSamples are tested before a source's first byte is used (SP 800-90B, 4.3: at least 1024), and thrown away.
	startSamples = 1024
)

// repetitionCutoff is C = 1 + ceil(-log2(alpha) / H) of the repetition count test.
func repetitionCutoff(h float64, alphaBits int) int {
	return 1 + int(math.Ceil(float64(alphaBits)/h))
}

// proportionCutoff is C = 2 + CRITBINOM(W-1, 2^-H, 1-alpha) of the adaptive proportion test: the standard's 1 + CRITBINOM(W,
// ...), put right for the window's first sample, which always equals itself (UL's comments on SP 800-90B, 10b; Linux does the
// same). CRITBINOM is the smallest k that a binomial variable passes with chance alpha at most. No cut-off lies past the
// window.
func proportionCutoff(h float64, w, alphaBits int) int {
	n := w - 1
	logP, log1P := -h*math.Ln2, math.Log1p(-math.Exp2(-h))
	logN, _ := math.Lgamma(float64(n) + 1)
	alpha, tail := math.Exp2(-float64(alphaBits)), 0.0
	k := n
	for ; k > 0; k-- {
		a, _ := math.Lgamma(float64(k) + 1)
		b, _ := math.Lgamma(float64(n-k) + 1)
		if tail += math.Exp(logN - a - b + float64(k)*logP + float64(n-k)*log1P); tail > alpha {
			break
		}
	}
	return min(2+k, w)
}

// health is both tests over one source's samples. Samples are bytes.
type health struct {
	repeatAt, proportionAt int // cut-offs

	last   byte
	repeat int // how often last came in a row; 0 before the first sample

	first byte // of the window
	seen  int  // samples of the window so far
	same  int  // of them, those equal to first
}

func newHealth(minEntropy float64) *health {
	return &health{repeatAt: repetitionCutoff(minEntropy, alphaBits), proportionAt: proportionCutoff(minEntropy, window, alphaBits)}
}

// check tests samples, in order, after all before.
func (h *health) check(samples []byte) error {
	for _, s := range samples {
		if h.repeat > 0 && s == h.last {
			h.repeat++
		} else {
			h.last, h.repeat = s, 1
		}
		if h.repeat >= h.repeatAt {
			return fmt.Errorf("%w: one value %d times in a row", ErrRepetition, h.repeat)
		}
		if h.seen == 0 {
			h.first, h.same = s, 0
		}
		if s == h.first {
			h.same++
		}
		if h.same >= h.proportionAt {
			return fmt.Errorf("%w: one value %d times of %d", ErrProportion, h.same, h.seen+1)
		}
		if h.seen++; h.seen == window {
			h.seen = 0
		}
	}
	return nil
}
