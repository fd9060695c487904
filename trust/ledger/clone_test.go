package ledger

import (
	"errors"
	"testing"
)

// TestClonesAreConvictedByTheirCertificates: two copies of one identity each go on with an epoch key of their own. A peer
// that knows one branch can neither believe nor disprove entries of the other: it blames nobody, asks for where that
// branch begins, and the certificate there is the proof.
func TestClonesAreConvictedByTheirCertificates(t *testing.T) {
	self, other := newIdentity(t, "a"), newIdentity(t, "b")
	keys := newMembers(self, other)
	ctx := t.Context()
	first, second := openAt(t, t.TempDir(), self, keys, Options{}), openAt(t, t.TempDir(), self, keys, Options{})
	for _, l := range []*Ledger{first, second} { // each begins with a certificate, entry 0
		mustAppend(t, l, Activity, KindFinding, "one")
		mustAppend(t, l, Activity, KindFinding, "two")
	}
	longer := mustAppend(t, second, Activity, KindFinding, "three")
	mustAppend(t, second, Activity, KindFinding, "four")
	branch, err := second.Range(self.DID(), Activity, 0, 10, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	peer := openAt(t, t.TempDir(), other, keys, Options{})
	pull(t, peer, first)
	wantGap := func(what string, err error) {
		t.Helper()
		var gap *GapError
		if !errors.As(err, &gap) || gap.Have != 0 {
			t.Errorf("%s: %v, want a gap from entry 0 on", what, err)
		}
	}
	for i, raw := range branch[1:] {
		_, err := peer.Check(raw)
		wantGap("check", err)
		if i+1 <= 3 { // those that contradict; the last is only far ahead
			_, err = peer.Ingest(ctx, raw)
			wantGap("ingest", err)
		}
	}
	_, err = peer.IngestBatch(ctx, [][]byte{longer.Raw()})
	wantGap("a batch that links to another head", err)
	if n := peer.Rejected()[CauseSignature]; n > 0 {
		t.Errorf("%d refusals for a bad signature: who passed them on is blamed", n)
	}
	var convicted *EquivocationError
	if _, err := peer.IngestBatch(ctx, branch); !errors.As(err, &convicted) {
		t.Fatalf("the branch from its beginning: %v", err)
	}
	if err := convicted.Proof.Verify(self.Inception().PublicKey()); err != nil {
		t.Error(err)
	}
}

// TestForgedSuccessorIsRefused: an entry that says it follows what is stored, and is signed by nobody, is a fault still.
func TestForgedSuccessorIsRefused(t *testing.T) {
	self, other := newIdentity(t, "a"), newIdentity(t, "b")
	keys := newMembers(self, other)
	author := openAt(t, t.TempDir(), self, keys, Options{})
	mustAppend(t, author, Activity, KindFinding, "one")
	peer := openAt(t, t.TempDir(), other, keys, Options{})
	pull(t, peer, author)
	raw := append([]byte(nil), mustAppend(t, author, Activity, KindFinding, "two").Raw()...)
	raw[len(raw)-1] ^= 1
	_, err := peer.Check(raw)
	wantCause(t, err, CauseSignature)
}
