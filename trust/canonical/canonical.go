// Package canonical is the one byte form of every value that is hashed or signed: CTAP2 canonical CBOR (RFC 8949 §4.2
// with the key order of FIDO CTAP2), written and read strictly. A value has exactly one encoding, and anything else is
// refused: indefinite lengths, tags, duplicate or unknown keys, wider integers than needed, unsorted maps, trailing
// bytes. It knows nothing of what the values mean.
package canonical

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"github.com/omega-mesh/omega/trust"
)

// ErrNotCanonical is wrapped where bytes decode, but are not the one encoding of what they say.
var ErrNotCanonical = errors.New("not the canonical encoding")

// ErrTooLong is wrapped where input is longer than its bound; nothing of it was parsed.
var ErrTooLong = errors.New("too long")

var encoder = sync.OnceValues(func() (cbor.EncMode, error) { return cbor.CTAP2EncOptions().EncMode() })

var decoder = sync.OnceValues(func() (cbor.DecMode, error) {
	return cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxNestedLevels:   trust.MaxDepth,
		MaxArrayElements:  trust.MaxElements,
		MaxMapPairs:       trust.MaxElements,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
	}.DecMode()
})

// Marshal encodes v. Struct fields take integer keys by the tag `cbor:"N,keyasint"`.
func Marshal(v any) ([]byte, error) {
	mode, err := encoder()
	if err != nil {
		return nil, fmt.Errorf("canonical: %w", err)
	}
	b, err := mode.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("canonical: encode %T: %w", v, err)
	}
	return b, nil
}

// Unmarshal decodes data, at most limit bytes, into v, and refuses it unless encoding v again gives the same bytes.
func Unmarshal(data []byte, v any, limit int) error {
	if len(data) > limit {
		return fmt.Errorf("canonical: %T of %d bytes, limit %d: %w", v, len(data), limit, ErrTooLong)
	}
	mode, err := decoder()
	if err != nil {
		return fmt.Errorf("canonical: %w", err)
	}
	if err := mode.Unmarshal(data, v); err != nil {
		return fmt.Errorf("canonical: decode %T: %w", v, err)
	}
	again, err := Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return fmt.Errorf("canonical: %T: %w", v, ErrNotCanonical)
	}
	return nil
}
