package entropy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
)

// TestRepetitionCutoff: SP 800-90B, 4.4.1, gives 11 for alpha 2^-20 and two bits; the others are its formula by hand.
func TestRepetitionCutoff(t *testing.T) {
	for _, c := range []struct {
		h     float64
		alpha int
		want  int
	}{{2, 20, 11}, {1, 20, 21}, {8, 30, 5}, {1, 30, 31}, {8, 40, 6}, {1.0 / 3, 40, 121}, {1, 40, 41}} {
		if got := repetitionCutoff(c.h, c.alpha); got != c.want {
			t.Errorf("H %.2f, alpha 2^-%d: %d, want %d", c.h, c.alpha, got, c.want)
		}
	}
}

// TestProportionCutoff compares with the cut-offs that the Linux kernel publishes for its jitter generator (window 512, one
// bit in 1 to 15 samples: the two tables of crypto/jitterentropy.c), and with exact arithmetic.
func TestProportionCutoff(t *testing.T) {
	for alpha, linux := range map[int][]int{
		30: {325, 422, 459, 477, 488, 494, 499, 502, 505, 507, 508, 509, 510, 511, 512},
		60: {355, 447, 479, 494, 502, 507, 510, 512, 512, 512, 512, 512, 512, 512, 512},
	} {
		for i, want := range linux {
			if got := proportionCutoff(1/float64(i+1), 512, alpha); got != want {
				t.Errorf("one bit in %d samples, alpha 2^-%d: %d, want %d", i+1, alpha, got, want)
			}
		}
	}
	for h := 1; h <= 8; h++ {
		for _, alpha := range []int{20, 30, 40} {
			for _, w := range []int{512, 1024} {
				if got, want := proportionCutoff(float64(h), w, alpha), exact(h, w, alpha); got != want {
					t.Errorf("H %d, W %d, alpha 2^-%d: %d, want %d", h, w, alpha, got, want)
				}
			}
		}
	}
}

// exact is 2 + CRITBINOM(w-1, 2^-h, 1-2^-alpha) by whole numbers: of 2^(h*n) outcomes, C(n,k) (2^h-1)^(n-k) have k matches.
func exact(h, window, alpha int) int {
	w := window - 1
	limit := new(big.Int).Lsh(big.NewInt(1), uint(h*w-alpha))
	other := big.NewInt(1<<h - 1)
	tail := new(big.Int)
	for k := w; ; k-- {
		n := new(big.Int).Binomial(int64(w), int64(k))
		n.Mul(n, new(big.Int).Exp(other, big.NewInt(int64(w-k)), nil))
		if tail.Add(tail, n); tail.Cmp(limit) > 0 {
			return min(2+k, window)
		}
	}
}

func TestHealthTests(t *testing.T) {
	sound := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(sound)
	if err := newHealth(8).check(sound); err != nil {
		t.Errorf("a sound source: %v", err)
	}
	for _, c := range []struct {
		name   string
		h      float64
		stream func(i int) byte
		at     int // sample with which it fails; -1 never
		err    error
	}{
		{"stuck", 8, func(int) byte { return 7 }, 5, ErrRepetition},
		{"stuck at last", 8, func(i int) byte { return sound[min(i, 1999)] }, 2004, ErrRepetition},
		{"five in a row", 8, func(i int) byte { return byte(i / 5) }, -1, nil},
		{"two values", 8, func(i int) byte { return byte(i % 2) }, 2 * (proportionCutoff(8, 512, 40) - 1), ErrProportion},
		{"a third of a bit, stuck", 1.0 / 3, func(int) byte { return 0 }, 120, ErrRepetition},
		{"a third of a bit, two values", 1.0 / 3, func(i int) byte { return byte(i % 2) }, -1, nil},
		// Of twenty samples nineteen are one: less than a tenth of a bit each.
		{"a third of a bit, biased", 1.0 / 3, func(i int) byte { return byte(i % 20 / 19) }, -2, ErrProportion},
	} {
		h, failed := newHealth(c.h), -1
		var err error
		for i := range 1 << 13 {
			if err = h.check([]byte{c.stream(i)}); err != nil {
				failed = i
				break
			}
		}
		if !errors.Is(err, c.err) || c.at != -2 && failed != c.at || c.at == -2 && failed < 0 {
			t.Errorf("%s: failed at %d, %v; want %d, %v", c.name, failed, err, c.at, c.err)
		}
	}
}

// stream is a source that gives good bytes, then fails as told after good of them.
func stream(name string, seed byte, good int, then func(ctx context.Context, p []byte) error) Source {
	r := rand.NewChaCha8([32]byte{seed})
	given := 0
	return Source{Name: name, MinEntropy: 8, Block: 64, Read: func(ctx context.Context, p []byte) error {
		if given += len(p); good >= 0 && given > good {
			return then(ctx, p)
		}
		_, err := r.Read(p)
		return err
	}}
}

func sound(name string, seed byte) Source { return stream(name, seed, -1, nil) }

var errUnplugged = errors.New("unplugged")

func stuck(_ context.Context, p []byte) error   { clear(p); return nil }
func unplugged(context.Context, []byte) error   { return errUnplugged }
func hangs(ctx context.Context, _ []byte) error { <-ctx.Done(); return ctx.Err() }
func twoValued(_ context.Context, p []byte) error {
	for i := range p {
		p[i] = byte(i % 2)
	}
	return nil
}

func read(t *testing.T, r *Reader, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		t.Fatal(err)
	}
	return p
}

// Every way in which a source fails: at the start or later, stuck, biased, gone or silent. It is dropped and named, for
// good, and the rest goes on.
func TestFailedSourceIsDroppedAndNamed(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(context.Context, []byte) error
		err  error
		says string
	}{
		"stuck": {stuck, ErrRepetition, "in a row"}, "biased": {twoValued, ErrProportion, "times of"},
		"gone": {unplugged, errUnplugged, "unplugged"}, "silent": {hangs, errSilent, "10s"},
	} {
		for _, good := range []int{0, startSamples + 64} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r, err := open(t.Context(), nil, sound("kernel", 1), []Source{stream("tpm", 2, good, c.fail), sound("token", 3)})
					if err != nil {
						t.Fatal(err)
					}
					seen := map[string]bool{}
					for range 24 {
						seen[string(read(t, r, 32))] = true
					}
					s := r.Status()
					if s[0].Failed != nil || s[0].Bytes != 24*64 || s[2].Failed != nil || s[2].Bytes != 24*64 || len(seen) != 24 {
						t.Errorf("%+v", s)
					}
					if s[1].Name != "tpm" || !errors.Is(s[1].Failed, c.err) || !strings.Contains(s[1].Failed.Error(), c.says) || s[1].Bytes != uint64(max(0, good-startSamples)) && name != "biased" {
						t.Errorf("%+v", s[1])
					}
					if good == 0 && name != "silent" && !strings.Contains(s[1].Failed.Error(), "at the start") {
						t.Error(s[1].Failed)
					}
					if err := r.Close(); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

func TestKernelFailureEndsReading(t *testing.T) {
	if _, err := open(t.Context(), nil, stream("kernel", 1, 0, stuck), []Source{sound("tpm", 2)}); !errors.Is(err, ErrKernel) || !errors.Is(err, ErrRepetition) {
		t.Errorf("at the start: %v", err)
	}
	for _, fail := range []func(context.Context, []byte) error{stuck, unplugged} {
		r, err := open(t.Context(), nil, stream("kernel", 1, startSamples+64, fail), []Source{sound("tpm", 2)})
		if err != nil {
			t.Fatal(err)
		}
		read(t, r, 32)
		for range 2 { // for good, though the source might answer again
			p := bytes.Repeat([]byte{9}, 32)
			if n, err := r.Read(p); n != 0 || !errors.Is(err, ErrKernel) || !bytes.Equal(p, make([]byte, 32)) {
				t.Errorf("%d, %v, %x", n, err, p)
			}
		}
		if s := r.Status(); s[0].Failed == nil || s[1].Failed != nil {
			t.Errorf("%+v", s)
		}
		_ = r.Close()
	}
}

// TestEverySourceCounts: with all the rest alike, another byte of any one source gives other bytes; and all alike, the same.
func TestEverySourceCounts(t *testing.T) {
	make3 := func(seed string, a, b, c byte) string {
		r, err := open(t.Context(), []byte(seed), sound("kernel", a), []Source{sound("tpm", b), sound("token", c)})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		return string(read(t, r, 1000))
	}
	base := make3("", 1, 2, 3)
	if make3("", 1, 2, 3) != base {
		t.Error("not a function of its sources")
	}
	for i, other := range []string{make3("", 9, 2, 3), make3("", 1, 9, 3), make3("", 1, 2, 9), make3("x", 1, 2, 3)} {
		if other == base {
			t.Errorf("source %d does not count", i)
		}
	}
}

func TestRealSources(t *testing.T) {
	r, err := Open(t.Context(), nil, Jitter())
	if err != nil {
		t.Fatal(err)
	}
	big := read(t, r, 3*maxOutput+1)
	if bytes.Equal(big[:64], big[maxOutput:maxOutput+64]) {
		t.Error("an expansion came twice")
	}
	if err := newHealth(8).check(big); err != nil {
		t.Error(err)
	}
	for _, s := range r.Status() {
		if s.Failed != nil || s.Bytes == 0 {
			t.Errorf("%+v", s)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestContextEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := open(ctx, nil, sound("kernel", 1), []Source{stream("tpm", 2, 0, hangs)})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		r.done.Wait() // a worker that stayed would be a deadlock here
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if s := r.Status(); s[1].Failed != nil {
			t.Errorf("ended, not failed: %v", s[1].Failed)
		}
	})
}

func TestSourcesAreChecked(t *testing.T) {
	for _, s := range []Source{{}, {Name: "x", MinEntropy: 9, Block: 1, Read: stuck}, {Name: "x", Block: 1, Read: stuck}, {Name: "x", MinEntropy: 1, Read: stuck}} {
		if _, err := Open(t.Context(), nil, s); err == nil {
			t.Errorf("%+v was taken", s)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	for name, sources := range map[string][]Source{"kernel": nil, "kernel+jitter": {Jitter()}} {
		b.Run(name, func(b *testing.B) {
			r, err := Open(b.Context(), nil, sources...)
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			p := make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Read(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
