package anonymous

import (
	"bytes"
	"cmp"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/omega-mesh/omega/trust"
)

// ErrRing is wrapped where a ring is too small or too large, not in ascending order, or has a key that does not count.
var ErrRing = errors.New("anonymous: ring refused")

// Epoch numbers the hours since the Unix epoch.
type Epoch uint64

// EpochOf is the epoch of t; that of any time before 1970 is 0.
func EpochOf(t time.Time) Epoch {
	return Epoch(max(t.Unix(), 0) / int64(trust.AnonymousEpoch/time.Second))
}

// Ring is the set of keys one of which signed, ascending by their bytes, trust.MinRing to trust.MaxRing of them.
type Ring []PublicKey

// PickRing picks among the keys of all that count, in any order, those among which mine hides in that epoch. All keys are put
// in an order that nobody chose and that is another in each epoch, and cut into equal parts: everyone in a part has the
// same ring, so that the ring says nothing of who in it picked it. ErrRing where mine is not among the keys, or they are
// too few.
func PickRing(swarm trust.SwarmID, epoch Epoch, keys []PublicKey, mine PublicKey) (Ring, error) {
	type ranked struct {
		rank [sha512.Size]byte
		key  PublicKey
	}
	all := make([]ranked, 0, len(keys))
	for _, k := range keys {
		at := binary.BigEndian.AppendUint64(nil, uint64(epoch))
		all = append(all, ranked{hashParts(domainOrder, swarm[:], at, k[:]), k})
	}
	slices.SortFunc(all, func(a, b ranked) int {
		return cmp.Or(bytes.Compare(a.rank[:], b.rank[:]), bytes.Compare(a.key[:], b.key[:]))
	})
	all = slices.Compact(all)
	if len(all) < trust.MinRing {
		return nil, fmt.Errorf("%d keys, at least %d: %w", len(all), trust.MinRing, ErrRing)
	}
	parts := (len(all) + trust.MaxRing - 1) / trust.MaxRing
	for i := range parts {
		part := all[i*len(all)/parts : (i+1)*len(all)/parts]
		if !slices.ContainsFunc(part, func(r ranked) bool { return r.key == mine }) {
			continue
		}
		ring := make(Ring, 0, len(part))
		for _, r := range part {
			ring = append(ring, r.key)
		}
		slices.SortFunc(ring, func(a, b PublicKey) int { return bytes.Compare(a[:], b[:]) })
		return ring, nil
	}
	return nil, fmt.Errorf("the signer's key does not count: %w", ErrRing)
}

// validate checks size and order; the order leaves no key twice.
func (r Ring) validate() error {
	if len(r) < trust.MinRing || len(r) > trust.MaxRing {
		return fmt.Errorf("%d keys, %d to %d: %w", len(r), trust.MinRing, trust.MaxRing, ErrRing)
	}
	for i := 1; i < len(r); i++ {
		if bytes.Compare(r[i-1][:], r[i][:]) >= 0 {
			return fmt.Errorf("key %d is not above the one before: %w", i, ErrRing)
		}
	}
	return nil
}
