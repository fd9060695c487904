package composite

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
)

// Benchmarks are the figures of the composite for `omega bench`: processor time over that of the two algorithms called bare,
// in one run.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{
		{Name: "composite/sign", Unit: "ratio", Limit: 1.15, Measure: measureSign},
		{Name: "composite/verify", Unit: "ratio", Limit: 1.15, Measure: measureVerify},
	}
}

// benchKey is a key of the default suite, and its two halves to call bare.
func benchKey() (k *PrivateKey, s *signer65, v *verifier65, err error) {
	if k, err = FromSeed(trust.SuiteDefault, make([]byte, seedSize65)); err != nil {
		return nil, nil, nil, err
	}
	s, ok := k.signer.(*signer65)
	if !ok {
		return nil, nil, nil, errors.New("composite: bench: not a key of the default suite")
	}
	return k, s, expand65(k.pub.raw), nil
}

func measureSign() (float64, error) {
	k, s, _, err := benchKey()
	if err != nil {
		return 0, err
	}
	msg, sig := make([]byte, 300), make([]byte, mldsa65.SignatureSize)
	return ratio(func() error {
		_, err := k.Sign("omega/entry/1", msg)
		return err
	}, func() error {
		ed25519.Sign(s.ed, msg)
		return mldsa65.SignTo(s.mldsa, msg, nil, true, sig)
	})
}

func measureVerify() (float64, error) {
	k, s, v, err := benchKey()
	if err != nil {
		return 0, err
	}
	msg, sig := make([]byte, 300), make([]byte, mldsa65.SignatureSize)
	if err := mldsa65.SignTo(s.mldsa, msg, nil, true, sig); err != nil {
		return 0, err
	}
	ed := ed25519.Sign(s.ed, msg)
	full, err := k.Sign("omega/entry/1", msg)
	if err != nil {
		return 0, err
	}
	refused := errors.New("composite: bench: a good signature was refused")
	return ratio(func() error {
		if !k.Public().Verify("omega/entry/1", msg, full) {
			return refused
		}
		return nil
	}, func() error {
		if !mldsa65.Verify(&v.mldsa, msg, nil, sig) || !ed25519.Verify(v.ed, msg, ed) {
			return refused
		}
		return nil
	})
}

// ratio is the processor time of ours over that of bare: by turns, because the machine's speed changes, and the least of
// each, because only noise adds to it. A turn is long enough that ML-DSA's signing, which tries until it succeeds, evens out.
func ratio(ours, bare func() error) (float64, error) {
	const turns, calls = 8, 400
	least := [2]float64{math.Inf(1), math.Inf(1)}
	for range turns {
		for i, f := range []func() error{ours, bare} {
			began, err := processTime()
			if err != nil {
				return 0, err
			}
			for range calls {
				if err := f(); err != nil {
					return 0, err
				}
			}
			ended, err := processTime()
			if err != nil {
				return 0, err
			}
			least[i] = min(least[i], float64(ended-began))
		}
	}
	return least[0] / least[1], nil
}

// processTime is the processor time of this process.
func processTime() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("composite: bench: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
