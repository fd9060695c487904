package tpm

import (
	"errors"
	"fmt"
	"io"

	"github.com/omega-mesh/omega/trust/identity"
)

// Store keeps an identity's wrapping key with a TPM. It implements identity.Store.
type Store struct {
	Device *Device
	PCRs   PCRs // that a new wrapping key is sealed to; zero is SecureBoot
}

// Kind implements identity.Store.
func (s *Store) Kind() identity.Kind { return identity.KindTPM }

// NewWrap implements identity.Store.
func (s *Store) NewWrap(random io.Reader) (wrap, sealed []byte, err error) {
	wrap = make([]byte, identity.WrapSize)
	if _, err := io.ReadFull(random, wrap); err != nil {
		return nil, nil, fmt.Errorf("tpm: read random: %w", err)
	}
	p := s.PCRs
	if p == 0 {
		p = SecureBoot
	}
	if sealed, err = s.Device.Seal(wrap, p); err != nil {
		clear(wrap)
		return nil, nil, err
	}
	return wrap, sealed, nil
}

// Open implements identity.Store. A refusal says what to do.
func (s *Store) Open(sealed []byte) ([]byte, error) {
	wrap, err := s.Device.Unseal(sealed)
	if errors.Is(err, ErrPCRs) || errors.Is(err, ErrOtherTPM) {
		return nil, fmt.Errorf("%w: if that was you (new firmware, other Secure Boot keys, another board), `omega key protect` seals it anew from the copy that lies with the next key; if not, somebody changed how this host starts", err)
	}
	return wrap, err
}
