package anonymous

import (
	"bytes"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/cloudflare/circl/group"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
)

var (
	swarm = trust.SwarmID{1, 2, 3}
	body  = []byte("T1110 from 192.0.2.7")
)

const epoch = Epoch(495_000)

func newKeys(t testing.TB, n int) ([]*Key, []PublicKey) {
	t.Helper()
	keys, public := make([]*Key, n), make([]PublicKey, n)
	for i := range keys {
		k, err := NewKey([32]byte{byte(i), byte(i >> 8), 7})
		if err != nil {
			t.Fatal(err)
		}
		keys[i], public[i] = k, k.Public()
	}
	return keys, public
}

func sign(t testing.TB, k *Key, keys []PublicKey, slot uint8, body []byte) *Report {
	t.Helper()
	ring, err := PickRing(swarm, epoch, keys, k.Public())
	if err != nil {
		t.Fatal(err)
	}
	r, err := k.Sign(swarm, epoch, slot, ring, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func among(keys []PublicKey) func(PublicKey) bool {
	return func(k PublicKey) bool { return slices.Contains(keys, k) }
}

func TestEveryMemberOfARingSignsWhatVerifies(t *testing.T) {
	for _, n := range []int{trust.MinRing, 7, trust.MaxRing} {
		keys, public := newKeys(t, n)
		for i, k := range keys {
			if n == trust.MaxRing && i%21 != 0 {
				continue
			}
			r := sign(t, k, public, uint8(i%trust.AnonymousSlots), body)
			encoded, err := r.Encode()
			if err != nil {
				t.Fatal(err)
			}
			back, err := Decode(encoded)
			if err != nil {
				t.Fatal(err)
			}
			if err := back.Verify(swarm, among(public)); err != nil {
				t.Errorf("signer %d of %d: %v", i, n, err)
			}
		}
	}
}

func TestLargestReportFitsAnActivityEntry(t *testing.T) {
	keys, public := newKeys(t, trust.MaxRing)
	encoded, err := sign(t, keys[0], public, 0, make([]byte, trust.MaxAnonymousBody)).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(encoded) > maxReport || maxReport > trust.MaxActivityBody {
		t.Fatalf("%d bytes, bounds %d and %d", len(encoded), maxReport, trust.MaxActivityBody)
	}
}

func TestAChangeOfAnyFieldIsRefused(t *testing.T) {
	keys, public := newKeys(t, 8)
	_, strangers := newKeys(t, 9)
	good := sign(t, keys[3], public, 2, body)
	other := sign(t, keys[4], public, 2, body)
	everyone := func(PublicKey) bool { return true }
	for name, change := range map[string]func(*Report){
		"epoch":             func(r *Report) { r.Epoch++ },
		"slot":              func(r *Report) { r.Slot++ },
		"body":              func(r *Report) { r.Body[0] ^= 1 },
		"longer body":       func(r *Report) { r.Body = append(r.Body, 0) },
		"another's tag":     func(r *Report) { r.Tag = other.Tag },
		"tag of a key":      func(r *Report) { r.Tag = Tag(r.Ring[0]) },
		"challenge":         func(r *Report) { r.challenge = bytes.Clone(other.challenge) },
		"first response":    func(r *Report) { copy(r.responses, other.responses[:scalarSize]) },
		"last response":     func(r *Report) { copy(r.responses[7*scalarSize:], other.responses[7*scalarSize:]) },
		"responses swapped": func(r *Report) { swapScalars(r.responses) },
		"a key more": func(r *Report) {
			r.Ring = append(r.Ring, strangers[8])
			slices.SortFunc(r.Ring, func(a, b PublicKey) int { return bytes.Compare(a[:], b[:]) })
			r.responses = append(r.responses, other.responses[:scalarSize]...)
		},
		"a key less": func(r *Report) { r.Ring = r.Ring[1:]; r.responses = r.responses[scalarSize:] },
	} {
		r := *good
		r.Ring, r.Body = slices.Clone(good.Ring), bytes.Clone(good.Body)
		r.challenge, r.responses = bytes.Clone(good.challenge), bytes.Clone(good.responses)
		change(&r)
		if err := r.Verify(swarm, everyone); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v, want %v", name, err, ErrSignature)
		}
	}
	if err := good.Verify(trust.SwarmID{9}, everyone); !errors.Is(err, ErrSignature) {
		t.Errorf("in another swarm: %v", err)
	}
	if err := good.Verify(swarm, everyone); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

// A member that makes up its tags would have as many slots as it likes: its key closes the ring of the keys, not that of
// the tags. A stranger's key closes that of the tags, not that of the keys.
func TestNeitherHalfOfTheRingClosesAlone(t *testing.T) {
	keys, public := newKeys(t, 4)
	g := group.Ristretto255
	honest := sign(t, keys[0], public, 0, body)
	forge := func(tagKey, secret group.Scalar) *Report {
		base := tagBase(swarm, epoch, 0)
		tag := g.NewElement().Mul(base, tagKey)
		encoded, err := encode(tag)
		if err != nil {
			t.Fatal(err)
		}
		r := &Report{Epoch: epoch, Ring: honest.Ring, Body: body, Tag: encoded}
		points, err := r.points()
		if err != nil {
			t.Fatal(err)
		}
		n, at, digest := len(r.Ring), slices.Index(r.Ring, keys[0].Public()), r.digest(swarm)
		challenges, responses := make([]group.Scalar, n), make([]group.Scalar, n)
		u := g.RandomScalar(nil)
		left, right := g.NewElement().MulGen(u), g.NewElement().Mul(base, u)
		for step := 1; step <= n; step++ {
			i := (at + step) % n
			if challenges[i], err = link(digest, left, right); err != nil {
				t.Fatal(err)
			}
			responses[i] = g.RandomScalar(nil)
			left = combine(responses[i], g.Generator(), challenges[i], points[i])
			right = combine(responses[i], base, challenges[i], tag)
		}
		responses[at] = answer(u, challenges[at], secret)
		if r.challenge, err = appendScalars(nil, challenges[0]); err != nil {
			t.Fatal(err)
		}
		if r.responses, err = appendScalars(nil, responses...); err != nil {
			t.Fatal(err)
		}
		return r
	}
	mine, foreign := keys[0].x, g.RandomNonZeroScalar(nil)
	if err := forge(mine, mine).Verify(swarm, among(public)); err != nil {
		t.Fatalf("the forger's way with the true tag: %v", err)
	}
	for name, r := range map[string]*Report{
		"a member with a random tag":  forge(foreign, mine),
		"a member with another's tag": forge(keys[1].x, mine),
		"a stranger with its own tag": forge(foreign, foreign),
		"a stranger with a member's":  forge(mine, foreign),
	} {
		if err := r.Verify(swarm, among(public)); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v, want %v", name, err, ErrSignature)
		}
	}
}

// A ring that the digest left out could be chosen after the challenges: a key made to fit them would count as a signer.
func TestEveryLinkIsBoundToTheRingAndTheTag(t *testing.T) {
	keys, public := newKeys(t, 5)
	r := sign(t, keys[0], public, 0, body)
	before := r.digest(swarm)
	for i := range r.Ring {
		r.Ring[i][0] ^= 2
		if bytes.Equal(r.digest(swarm), before) {
			t.Errorf("key %d is in no digest", i)
		}
		r.Ring[i][0] ^= 2
	}
	r.Tag[0] ^= 2
	if bytes.Equal(r.digest(swarm), before) {
		t.Error("the tag is in no digest")
	}
}

func swapScalars(b []byte) {
	first := bytes.Clone(b[:scalarSize])
	copy(b, b[scalarSize:2*scalarSize])
	copy(b[scalarSize:], first)
}

func TestRingsThatProveNothingAreRefused(t *testing.T) {
	keys, public := newKeys(t, 6)
	good := sign(t, keys[0], public, 0, body)
	for i := range public {
		without := slices.Delete(slices.Clone(public), i, i+1)
		if err := good.Verify(swarm, among(without)); !errors.Is(err, ErrRing) {
			t.Errorf("key %d no longer counts: %v", i, err)
		}
	}
	ring := slices.Clone(good.Ring)
	ring[1] = ring[0]
	unsorted := slices.Clone(good.Ring)
	slices.Reverse(unsorted)
	_, many := newKeys(t, trust.MaxRing+1)
	slices.SortFunc(many, func(a, b PublicKey) int { return bytes.Compare(a[:], b[:]) })
	for name, ring := range map[string]Ring{"a key twice": ring, "descending": unsorted, "two": good.Ring[:2], "none": nil, "too many": many} {
		r := *good
		r.Ring, r.responses = ring, make([]byte, len(ring)*scalarSize)
		if err := r.Verify(swarm, func(PublicKey) bool { return true }); !errors.Is(err, ErrRing) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := keys[0].Sign(swarm, epoch, 0, Ring(public[1:]), body); !errors.Is(err, ErrRing) {
		t.Errorf("signing for a ring of others: %v", err)
	}
}

// order is that of the group, 2^252 + 27742317777372353535851937790883648493, little-endian.
func order(t *testing.T) [32]byte {
	t.Helper()
	n, ok := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	if !ok {
		t.Fatal("order")
	}
	var b [32]byte
	n.FillBytes(b[:])
	slices.Reverse(b[:])
	return b
}

func TestOnlyOneEncodingOfPointsAndScalars(t *testing.T) {
	keys, public := newKeys(t, 3)
	good := sign(t, keys[0], public, 0, body)
	everyone := func(PublicKey) bool { return true }
	// RFC 9496 appendix A.3: non-canonical, negative, non-square, zero y; and the identity.
	negative := good.Ring[0]
	negative[0] |= 1
	p := [32]byte{0xed, 30: 0xff, 31: 0x7f}
	for i := 1; i < 30; i++ {
		p[i] = 0xff
	}
	above := good.Ring[0]
	above[31] |= 0x80
	for name, point := range map[string][32]byte{"identity": {}, "zero as the field's order": p, "negative": negative, "high bit": above, "one": {1}} {
		ring := slices.Clone(good.Ring)
		ring[1] = point
		slices.SortFunc(ring, func(a, b PublicKey) int { return bytes.Compare(a[:], b[:]) })
		r := *good
		r.Ring = ring
		if err := r.Verify(swarm, everyone); !errors.Is(err, ErrPoint) {
			t.Errorf("key %s: %v", name, err)
		}
		r = *good
		r.Tag = point
		if err := r.Verify(swarm, everyone); !errors.Is(err, ErrPoint) {
			t.Errorf("tag %s: %v", name, err)
		}
		if err := VerifyPossession(swarm, "", point, make([]byte, PossessionSize)); !errors.Is(err, ErrPoint) {
			t.Errorf("possession of %s: %v", name, err)
		}
	}
	// The same scalar with the order added: it would verify, in other bytes.
	n := order(t)
	r := *good
	r.responses = bytes.Clone(good.responses)
	carry := 0
	for i := range scalarSize {
		carry += int(r.responses[i]) + int(n[i])
		r.responses[i] = byte(carry)
		carry >>= 8
	}
	if err := r.Verify(swarm, everyone); !errors.Is(err, ErrScalar) {
		t.Errorf("response with the order added: %v", err)
	}
	r = *good
	r.challenge = n[:]
	if err := r.Verify(swarm, everyone); !errors.Is(err, ErrScalar) {
		t.Errorf("challenge of the order: %v", err)
	}
}

func TestTagsLinkOneSlotOfOneKeyOnly(t *testing.T) {
	keys, public := newKeys(t, 4)
	seen := map[Tag]string{}
	for i, k := range keys {
		for slot := range uint8(3) {
			a, b := sign(t, k, public, slot, body), sign(t, k, public, slot, []byte("something else"))
			if a.Tag != b.Tag {
				t.Errorf("key %d, slot %d: two tags", i, slot)
			}
			if _, ok := seen[a.Tag]; ok {
				t.Errorf("key %d, slot %d: a tag of elsewhere", i, slot)
			}
			seen[a.Tag] = ""
		}
	}
	// Another epoch and another swarm have tags of their own.
	ring := sign(t, keys[0], public, 0, body).Ring
	next, err := keys[0].Sign(swarm, epoch+1, 0, ring, body)
	if err != nil {
		t.Fatal(err)
	}
	away, err := keys[0].Sign(trust.SwarmID{9}, epoch, 0, ring, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Report{next, away} {
		if _, ok := seen[r.Tag]; ok {
			t.Error("a tag repeats across epochs or swarms")
		}
		seen[r.Tag] = ""
	}
}

func TestASlotCountsOnce(t *testing.T) {
	keys, public := newKeys(t, 4)
	now := time.Unix(int64(epoch)*3600+60, 0)
	spent := NewSpent()
	first := sign(t, keys[0], public, 0, body)
	again := sign(t, keys[0], public, 0, body) // the same words, another signature
	second := sign(t, keys[0], public, 0, []byte("more"))
	smaller, err := keys[0].Sign(swarm, epoch, 0, slices.DeleteFunc(slices.Clone(first.Ring), func(k PublicKey) bool { return k == public[1] }), body)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		r    *Report
		want error
	}{
		{"first", first, nil}, {"carried twice", first, ErrKnown}, {"signed anew", again, ErrKnown}, {"over another ring", smaller, ErrKnown},
		{"second in the slot", second, ErrSpent}, {"another slot", sign(t, keys[0], public, 1, body), nil}, {"another member", sign(t, keys[1], public, 0, body), nil},
	} {
		if err := spent.Take(swarm, step.r, now); !errors.Is(err, step.want) {
			t.Errorf("%s: %v, want %v", step.name, err, step.want)
		}
	}
	for name, c := range map[string]struct {
		at   time.Duration
		want error
	}{
		"an hour too early": {-time.Hour, ErrEpoch}, "within the skew": {-2 * time.Minute, ErrSpent}, "a day late": {trust.AnonymousWindow * time.Hour, ErrEpoch},
		"still remembered": {(trust.AnonymousWindow - 1) * time.Hour, ErrSpent},
	} {
		fresh := NewSpent()
		if err := fresh.Take(swarm, first, now); err != nil {
			t.Fatal(err)
		}
		if err := fresh.Take(swarm, second, now.Add(c.at)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	late := NewSpent()
	if err := late.Take(swarm, &Report{Epoch: 1<<64 - 1}, now); !errors.Is(err, ErrEpoch) {
		t.Errorf("the last epoch there is: %v", err)
	}
}

func TestTagsOfPastEpochsAreForgotten(t *testing.T) {
	spent := NewSpent()
	for i := range Epoch(100) {
		if err := spent.Take(swarm, &Report{Epoch: epoch + i, Tag: Tag{byte(i)}}, time.Unix(int64(epoch+i)*3600, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if len(spent.epochs) != trust.AnonymousWindow {
		t.Errorf("%d epochs are kept, want %d", len(spent.epochs), trust.AnonymousWindow)
	}
	full := NewSpent()
	for i := range trust.MaxSpent {
		if err := full.Take(swarm, &Report{Epoch: epoch, Tag: Tag{byte(i), byte(i >> 8), byte(i >> 16)}}, time.Unix(int64(epoch)*3600, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := full.Take(swarm, &Report{Epoch: epoch, Tag: Tag{31: 1}}, time.Unix(int64(epoch)*3600, 0)); !errors.Is(err, ErrFull) {
		t.Errorf("one more than are remembered: %v", err)
	}
}

func TestAllOfOneRingPickThatRing(t *testing.T) {
	_, public := newKeys(t, 3*trust.MaxRing-50)
	rings := map[string]int{}
	for _, k := range public {
		ring, err := PickRing(swarm, epoch, public, k)
		if err != nil {
			t.Fatal(err)
		}
		if err := ring.validate(); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(ring, k) {
			t.Fatal("a ring without the one that picked it")
		}
		var all []byte
		for _, k := range ring {
			all = append(all, k[:]...)
		}
		rings[string(all)]++
	}
	for ring, picked := range rings {
		if size := len(ring) / pointSize; picked != size || size < trust.MaxRing/2 {
			t.Errorf("a ring of %d was picked by %d", size, picked)
		}
	}
	if len(rings) != 3 {
		t.Errorf("%d rings of %d keys", len(rings), len(public))
	}
	backwards := slices.Clone(public)
	slices.Reverse(backwards)
	a, err := PickRing(swarm, epoch, public, public[0])
	if err != nil {
		t.Fatal(err)
	}
	b, err := PickRing(swarm, epoch, append(backwards, public[0]), public[0])
	if err != nil || !slices.Equal(a, b) {
		t.Errorf("the order or a repetition of the keys changes the ring: %v", err)
	}
	next, err := PickRing(swarm, epoch+1, public, public[0])
	if err != nil || slices.Equal(a, next) {
		t.Errorf("the next epoch has the same ring: %v", err)
	}
	if _, err := PickRing(swarm, epoch, public[1:], public[0]); !errors.Is(err, ErrRing) {
		t.Errorf("a key that does not count: %v", err)
	}
	if _, err := PickRing(swarm, epoch, []PublicKey{public[0], public[1], public[0]}, public[0]); !errors.Is(err, ErrRing) {
		t.Errorf("two keys, one twice: %v", err)
	}
}

func TestPossessionIsOfOneKeyOneMemberOneSwarm(t *testing.T) {
	keys, public := newKeys(t, 2)
	alice, bob := identity.DIDFromBytes([32]byte{1}), identity.DIDFromBytes([32]byte{2})
	proof, err := keys[0].Possess(swarm, alice)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyPossession(swarm, alice, public[0], proof); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"another member": VerifyPossession(swarm, bob, public[0], proof),
		"another swarm":  VerifyPossession(trust.SwarmID{9}, alice, public[0], proof),
		"another key":    VerifyPossession(swarm, alice, public[1], proof),
		"short":          VerifyPossession(swarm, alice, public[0], proof[1:]),
	} {
		if !errors.Is(err, ErrPossession) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range proof {
		proof[i] ^= 1
		if VerifyPossession(swarm, alice, public[0], proof) == nil {
			t.Errorf("byte %d changed, and it verifies", i)
		}
		proof[i] ^= 1
	}
}

func FuzzDecode(f *testing.F) {
	keys, public := newKeys(f, trust.MinRing)
	good := sign(f, keys[0], public, 0, body)
	encoded, err := good.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x decodes, and encodes as %x (%v)", data, again, err)
		}
		// Nothing else was ever signed. Each fuzzing process has signed it anew, so that bytes say nothing.
		if r.Verify(swarm, among(public)) == nil && !bytes.Equal(r.digest(swarm), good.digest(swarm)) {
			t.Fatalf("forged: %x", data)
		}
	})
}
