package identity

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
)

func TestEndorsementFollowsTheKey(t *testing.T) {
	next := filepath.Join(t.TempDir(), "next")
	id, dir := create(t, Options{NextDir: next})
	if _, err := ReadEndorsement(dir); !errors.Is(err, ErrNone) {
		t.Errorf("nothing was endorsed: %v", err)
	}
	if err := id.Endorse([]byte("the chip's key")); err != nil {
		t.Fatal(err)
	}
	first, err := ReadEndorsement(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Keys().Endorses(first); err != nil {
		t.Error(err)
	}
	rotateStored(t, id, dir, next)
	if err := id.Keys().Endorses(first); !errors.Is(err, ErrAttestation) {
		t.Errorf("the word of a key rotated away: %v", err)
	}
	again, err := ReadEndorsement(dir)
	if err != nil || again.Number != 1 || !bytes.Equal(again.Key, first.Key) {
		t.Fatalf("%+v, %v", again, err)
	}
	raw, err := (&Attestation{Keys: id.Keys(), Endorsement: *again, Quote: []byte("q")}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if a, err := DecodeAttestation(raw); err != nil || a.Keys.Number() != 1 || string(a.Quote) != "q" {
		t.Fatal(err)
	}
	again.Key = []byte("another chip's")
	if raw, err = (&Attestation{Keys: id.Keys(), Endorsement: *again}).Encode(); err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeAttestation(raw); !errors.Is(err, ErrAttestation) {
		t.Errorf("a chip that nobody endorsed: %v", err)
	}
	other := DIDFromBytes([32]byte{1})
	if Challenge(id.DID(), []byte("n")) == Challenge(other, []byte("n")) {
		t.Error("a quote for one host answers for another")
	}
}

func FuzzDecodeAttestation(f *testing.F) {
	id, dir := create(f, Options{})
	if err := id.Endorse([]byte("key")); err != nil {
		f.Fatal(err)
	}
	e, err := ReadEndorsement(dir)
	if err != nil {
		f.Fatal(err)
	}
	a := &Attestation{Keys: id.Keys(), Endorsement: *e, Quote: []byte("quote")}
	raw, err := a.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := DecodeAttestation(raw)
		if err != nil {
			return
		}
		if again, err := a.Encode(); err != nil || !bytes.Equal(again, raw) {
			t.Fatal("decoded to something else")
		}
	})
}
