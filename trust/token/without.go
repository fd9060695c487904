//go:build !pkcs11

package token

import (
	"context"
	"io"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
)

// Built says whether this binary can load a token's library.
const Built = false

// Token is what Open would give in a build with the tag pkcs11; here there is none.
type Token struct{}

// Open says that this binary has no PKCS#11: ErrBuild.
func Open(Options) (*Token, error) { return nil, ErrBuild }

// Close does nothing.
func (*Token) Close() error { return nil }

// Kind implements identity.Store.
func (*Token) Kind() identity.Kind { return identity.KindPKCS11 }

// NewWrap implements identity.Store: ErrBuild.
func (*Token) NewWrap(io.Reader) (wrap, sealed []byte, err error) { return nil, nil, ErrBuild }

// Open implements identity.Store: ErrBuild.
func (*Token) Open([]byte) ([]byte, error) { return nil, ErrBuild }

// Generate implements identity.Keeper: ErrBuild.
func (*Token) Generate(trust.Suite, io.Reader) (*composite.PrivateKey, []byte, error) {
	return nil, nil, ErrBuild
}

// Adopt implements identity.Keeper: ErrBuild.
func (*Token) Adopt(*composite.PrivateKey) (*composite.PrivateKey, []byte, error) {
	return nil, nil, ErrBuild
}

// Load implements identity.Keeper: ErrBuild.
func (*Token) Load(trust.Suite, []byte, []byte) (*composite.PrivateKey, error) { return nil, ErrBuild }

// Discard implements identity.Keeper: ErrBuild.
func (*Token) Discard([]byte) error { return ErrBuild }

// Random fills p from the token's generator: ErrBuild.
func (*Token) Random(context.Context, []byte) error { return ErrBuild }
