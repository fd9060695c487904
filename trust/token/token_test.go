package token

import (
	"bytes"
	"errors"
	"testing"

	"github.com/omega-mesh/omega/trust/canonical"
)

func TestBuildWithoutSaysSo(t *testing.T) {
	if Built {
		t.Skip("this build has PKCS#11")
	}
	if _, err := Open(Options{Module: "/lib/x.so"}); !errors.Is(err, ErrBuild) {
		t.Error(err)
	}
}

func TestRefusesOtherSizes(t *testing.T) {
	id := make([]byte, idSize)
	for _, v := range []any{
		sealedWrap{Key: id[1:], Nonce: make([]byte, nonceSize), Sealed: make([]byte, 48)}, sealedWrap{Key: id, Nonce: id, Sealed: make([]byte, 48)},
		sealedWrap{Key: id, Nonce: make([]byte, nonceSize), Sealed: id[1:]}, sealedWrap{Key: id, Nonce: make([]byte, nonceSize), Sealed: make([]byte, 200)},
		keptHalf{}, keptHalf{Ed25519: id[1:]}, keptHalf{MLDSA: append(id, 1)},
	} {
		raw, err := canonical.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeWrap(raw); !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v: %v", v, err)
		}
		if _, err := decodeHalf(raw); !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v: %v", v, err)
		}
	}
}

func FuzzWrap(f *testing.F) {
	raw, err := canonical.Marshal(sealedWrap{Key: make([]byte, idSize), Nonce: make([]byte, nonceSize), Sealed: make([]byte, 48)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		w, err := decodeWrap(raw)
		if err != nil {
			return
		}
		if again, err := canonical.Marshal(w); err != nil || !bytes.Equal(again, raw) {
			t.Fatal("decoded to something else")
		}
	})
}

func FuzzHalf(f *testing.F) {
	raw, err := canonical.Marshal(keptHalf{Ed25519: make([]byte, idSize)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := decodeHalf(raw)
		if err == nil && h.Ed25519 == nil && h.MLDSA == nil {
			t.Fatal("names nothing")
		}
	})
}
