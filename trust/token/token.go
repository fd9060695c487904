package token

import (
	"errors"
	"fmt"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
)

// Typed refusals; each is wrapped with what was asked.
var (
	// ErrBuild: this binary cannot load a token's library.
	ErrBuild = errors.New("this binary was built without PKCS#11: `make build-pkcs11` makes one that has it")
	// ErrNone: there is no such token, or none that has what is needed.
	ErrNone = errors.New("no such token")
	// ErrPIN: the token refused the PIN. It is not tried again: tokens lock themselves.
	ErrPIN = errors.New("the token refused the PIN")
	// ErrMissing: the token is there, the key is not in it.
	ErrMissing = errors.New("the key is not in this token")
	// ErrLeaks: the token would let a key out that it was told to keep.
	ErrLeaks = errors.New("the token does not keep what it was told to keep")
	// ErrMalformed: bytes in a key file are not of this package.
	ErrMalformed = errors.New("malformed")
)

// Options say which token.
type Options struct {
	Module string // path of the library
	Label  string // of the token; may be empty where there is only one
	PIN    []byte
}

const (
	idSize    = 16 // of an object's CKA_ID, random
	nonceSize = 12 // of AES-GCM
	tagSize   = 16
)

// sealedWrap is a wrapping key under the token's AES key.
type sealedWrap struct {
	Key    []byte `cbor:"1,keyasint"` // CKA_ID of the AES key
	Nonce  []byte `cbor:"2,keyasint"`
	Sealed []byte `cbor:"3,keyasint"` // AES-256-GCM
}

func decodeWrap(raw []byte) (*sealedWrap, error) {
	var w sealedWrap
	if err := canonical.Unmarshal(raw, &w, trust.MaxSealed); err != nil {
		return nil, fmt.Errorf("token: sealed wrapping key: %w: %w", ErrMalformed, err)
	}
	if len(w.Key) != idSize || len(w.Nonce) != nonceSize || len(w.Sealed) < tagSize || len(w.Sealed) > 128+tagSize {
		return nil, fmt.Errorf("token: sealed wrapping key: field sizes: %w", ErrMalformed)
	}
	return &w, nil
}

// keptHalf names what the token keeps of a signing key, by CKA_ID.
type keptHalf struct {
	Ed25519 []byte `cbor:"1,keyasint,omitempty"`
	MLDSA   []byte `cbor:"2,keyasint,omitempty"`
}

func decodeHalf(raw []byte) (*keptHalf, error) {
	var h keptHalf
	if err := canonical.Unmarshal(raw, &h, trust.MaxSealed); err != nil {
		return nil, fmt.Errorf("token: kept key: %w: %w", ErrMalformed, err)
	}
	for _, id := range [][]byte{h.Ed25519, h.MLDSA} {
		if len(id) != 0 && len(id) != idSize {
			return nil, fmt.Errorf("token: kept key: an id of %d bytes: %w", len(id), ErrMalformed)
		}
	}
	if h.Ed25519 == nil && h.MLDSA == nil {
		return nil, fmt.Errorf("token: kept key: neither half: %w", ErrMalformed)
	}
	return &h, nil
}
