//go:build pkcs11

package token

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/miekg/pkcs11"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/token/tokentest"
)

func openToken(t *testing.T, module string) *Token {
	t.Helper()
	k, err := Open(Options{Module: module, Label: tokentest.Label, PIN: []byte(tokentest.PIN)})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// read tries to take a private object's value.
func (t *Token) read(key pkcs11.ObjectHandle) error {
	_, err := t.module.GetAttributeValue(t.session, key, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
	return err
}

func (t *Token) all(test *testing.T, class uint) []pkcs11.ObjectHandle {
	test.Helper()
	if err := t.module.FindObjectsInit(t.session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}); err != nil {
		test.Fatal(err)
	}
	found, _, err := t.module.FindObjects(t.session, 100)
	if err := errors.Join(err, t.module.FindObjectsFinal(t.session)); err != nil {
		test.Fatal(err)
	}
	return found
}

// An identity whose Ed25519 half a real token made: it signs, survives a restart of the token's library and a rotation, and
// neither half of it can be read from the token.
func TestIdentityInSoftHSM(t *testing.T) {
	module, _ := tokentest.Start(t)
	k := openToken(t, module)
	base := t.TempDir()
	dir, next := filepath.Join(base, "id"), filepath.Join(base, "next")
	id, err := identity.Create(dir, identity.Options{Name: "n1", Store: k, NextDir: next})
	if err != nil {
		t.Fatal(err)
	}
	check := func(id *identity.Identity) {
		t.Helper()
		sig, err := id.Sign("c", []byte("m"))
		if err != nil || !id.Keys().Current().Verify("c", []byte("m"), sig) {
			t.Fatal("signature", err)
		}
		secrets := append(k.all(t, pkcs11.CKO_PRIVATE_KEY), k.all(t, pkcs11.CKO_SECRET_KEY)...)
		if len(secrets) != 2 {
			t.Errorf("%d secrets in the token, want a signing key and an AES key", len(secrets))
		}
		for _, s := range secrets {
			var code pkcs11.Error
			if err := k.read(s); !errors.As(err, &code) || code != pkcs11.CKR_ATTRIBUTE_SENSITIVE {
				t.Errorf("a secret of the token could be read: %v", err)
			}
			if err := k.keeps(s); err != nil {
				t.Error(err)
			}
		}
	}
	check(id)
	p, err := identity.ReadProtection(dir)
	if err != nil || p.Kind != identity.KindPKCS11 || p.Half == nil {
		t.Fatalf("%+v, %v", p, err)
	}
	if err := errors.Join(id.Close(), k.Close()); err != nil {
		t.Fatal(err)
	}

	k = openToken(t, module)
	if id, err = identity.Open(dir, identity.Options{Store: k}); err != nil {
		t.Fatal(err)
	}
	check(id)
	step, err := identity.Succeed(dir, identity.Options{NextDir: next})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := id.Rotate(step.Key, nil, func(n uint32) (*identity.Rotation, []byte, error) {
		r, err := identity.NewRotation(trust.SwarmID{1}, id.DID(), n, step.Key, step.Next, identity.Standing{})
		return r, []byte{1}, err
	}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(step.Done(), step.Close()); err != nil {
		t.Fatal(err)
	}
	check(id) // the new key was taken in, the old one destroyed
	_ = id.Close()

	// The key file without the token, or with another one, is nothing.
	half := p.Half
	if _, err := k.Load(trust.SuiteDefault, make([]byte, 32), half); !errors.Is(err, ErrMissing) {
		t.Errorf("a key that was destroyed: %v", err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	module, _ = tokentest.Start(t)
	k = openToken(t, module)
	defer k.Close()
	if _, err := identity.Open(dir, identity.Options{Store: k}); !errors.Is(err, ErrMissing) {
		t.Errorf("another token: %v", err)
	}
}

func TestOtherSuiteIsWrapped(t *testing.T) {
	module, _ := tokentest.Start(t)
	k := openToken(t, module)
	defer k.Close()
	dir := filepath.Join(t.TempDir(), "id")
	id, err := identity.Create(dir, identity.Options{Name: "n1", Store: k, Suite: trust.SuiteCNSA})
	if err != nil {
		t.Fatal(err)
	}
	_ = id.Close()
	if p, err := identity.ReadProtection(dir); err != nil || p.Half != nil {
		t.Errorf("SoftHSM knows no ML-DSA, and yet keeps a half: %+v %v", p, err)
	}
	if id, err = identity.Open(dir, identity.Options{Store: k}); err != nil {
		t.Fatal(err)
	}
	_ = id.Close()
}

func TestOpenRefusals(t *testing.T) {
	module, _ := tokentest.Start(t)
	for name, c := range map[string]struct {
		opt Options
		err error
	}{
		"no module":     {Options{}, ErrNone},
		"not a library": {Options{Module: "/etc/hostname"}, ErrNone},
		"other label":   {Options{Module: module, Label: "x", PIN: []byte(tokentest.PIN)}, ErrNone},
		"wrong PIN":     {Options{Module: module, Label: tokentest.Label, PIN: []byte("0000")}, ErrPIN},
	} {
		if _, err := Open(c.opt); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	k := openToken(t, module)
	defer k.Close()
	a, b := make([]byte, 300), make([]byte, 300)
	if err := errors.Join(k.Random(t.Context(), a), k.Random(t.Context(), b)); err != nil || bytes.Equal(a, b) {
		t.Error("random", err)
	}
}

// newer is a token of PKCS#11 3.2: SoftHSM for all it knows, and ML-DSA kept in memory beside it.
type newer struct {
	module
	keys   map[pkcs11.ObjectHandle]mldsaObject
	found  []pkcs11.ObjectHandle
	asked  bool
	signer pkcs11.ObjectHandle
	ctx    []byte
	leaky  bool
}

type mldsaObject struct {
	id, public []byte
	secret     any // *mldsa65.PrivateKey or *mldsa87.PrivateKey; nil for the public object
}

func attribute(a []*pkcs11.Attribute, kind uint) []byte {
	for _, x := range a {
		if x.Type == kind {
			return x.Value
		}
	}
	return nil
}

func is(b []byte, n uint64) bool { return len(b) == 8 && binary.NativeEndian.Uint64(b) == n }

func (n *newer) GenerateKeyPair(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pkcs11.ObjectHandle, pkcs11.ObjectHandle, error) {
	if m[0].Mechanism != ckmMLDSAKeyPairGen {
		return n.module.GenerateKeyPair(s, m, public, private)
	}
	o := mldsaObject{id: attribute(private, pkcs11.CKA_ID)}
	switch set := attribute(public, ckaParameterSet); {
	case is(set, ckpMLDSA65):
		pub, key, err := mldsa65.GenerateKey(rand.Reader)
		if err != nil {
			return 0, 0, err
		}
		o.public, o.secret = pub.Bytes(), key
	case is(set, ckpMLDSA87):
		pub, key, err := mldsa87.GenerateKey(rand.Reader)
		if err != nil {
			return 0, 0, err
		}
		o.public, o.secret = pub.Bytes(), key
	default:
		return 0, 0, pkcs11.Error(pkcs11.CKR_TEMPLATE_INCOMPLETE)
	}
	h := pkcs11.ObjectHandle(1<<20 + 2*len(n.keys))
	n.keys[h], n.keys[h+1] = mldsaObject{id: o.id, public: o.public}, o
	return h, h + 1, nil
}

func (n *newer) FindObjectsInit(s pkcs11.SessionHandle, a []*pkcs11.Attribute) error {
	if n.asked = is(attribute(a, pkcs11.CKA_KEY_TYPE), ckkMLDSA); !n.asked {
		return n.module.FindObjectsInit(s, a)
	}
	n.found = nil
	for h, o := range n.keys {
		if bytes.Equal(o.id, attribute(a, pkcs11.CKA_ID)) && (o.secret != nil) == is(attribute(a, pkcs11.CKA_CLASS), pkcs11.CKO_PRIVATE_KEY) {
			n.found = append(n.found, h)
		}
	}
	return nil
}

func (n *newer) FindObjects(s pkcs11.SessionHandle, most int) ([]pkcs11.ObjectHandle, bool, error) {
	if n.asked {
		return n.found, false, nil
	}
	return n.module.FindObjects(s, most)
}

func (n *newer) FindObjectsFinal(s pkcs11.SessionHandle) error {
	if n.asked {
		return nil
	}
	return n.module.FindObjectsFinal(s)
}

func (n *newer) GetAttributeValue(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, a []*pkcs11.Attribute) ([]*pkcs11.Attribute, error) {
	o, ok := n.keys[h]
	if !ok {
		return n.module.GetAttributeValue(s, h, a)
	}
	if a[0].Type == pkcs11.CKA_VALUE {
		return []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, o.public)}, nil
	}
	return []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, n.leaky)}, nil
}

func (n *newer) SignInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, h pkcs11.ObjectHandle) error {
	n.signer = 0
	if m[0].Mechanism != ckmMLDSA {
		return n.module.SignInit(s, m, h)
	}
	// CK_SIGN_ADDITIONAL_CONTEXT as C reads it.
	p := m[0].Parameter
	if len(p) != 24 || binary.NativeEndian.Uint64(p) != ckhHedgePreferred {
		return pkcs11.Error(pkcs11.CKR_MECHANISM_PARAM_INVALID)
	}
	var at *byte
	*(*uint64)(unsafe.Pointer(&at)) = binary.NativeEndian.Uint64(p[8:])
	n.ctx = bytes.Clone(unsafe.Slice(at, int(binary.NativeEndian.Uint64(p[16:]))))
	n.signer = h
	return nil
}

func (n *newer) Sign(s pkcs11.SessionHandle, msg []byte) ([]byte, error) {
	switch key := n.keys[n.signer].secret.(type) {
	case *mldsa65.PrivateKey:
		sig := make([]byte, mldsa65.SignatureSize)
		return sig, mldsa65.SignTo(key, msg, n.ctx, true, sig)
	case *mldsa87.PrivateKey:
		sig := make([]byte, mldsa87.SignatureSize)
		return sig, mldsa87.SignTo(key, msg, n.ctx, true, sig)
	}
	return n.module.Sign(s, msg)
}

// TestBothHalvesInTheToken: where the token knows ML-DSA, nothing of the key is in the file.
func TestBothHalvesInTheToken(t *testing.T) {
	path, _ := tokentest.Start(t)
	for _, suite := range trust.Suites() {
		k := openToken(t, path)
		n := &newer{module: k.module, keys: map[pkcs11.ObjectHandle]mldsaObject{}}
		k.module = n
		k.knows[ckmMLDSAKeyPairGen], k.knows[ckmMLDSA] = true, true
		dir := filepath.Join(t.TempDir(), "id")
		id, err := identity.Create(dir, identity.Options{Name: "n1", Store: k, Suite: suite})
		if err != nil {
			t.Fatal(err)
		}
		did := id.DID()
		_ = id.Close()
		if id, err = identity.Open(dir, identity.Options{Store: k}); err != nil {
			t.Fatal(err)
		}
		sig, err := id.Sign("omega/test/1", []byte("m"))
		if err != nil || !id.Inception().PublicKey().Verify("omega/test/1", []byte("m"), sig) || id.DID() != did {
			t.Errorf("%s: %v", suite.Name(), err)
		}
		a, err := id.Derive("x")
		if err != nil || a == [32]byte{} {
			t.Error("derive", err)
		}
		_ = id.Close()
		n.leaky = true
		if _, err := identity.Open(dir, identity.Options{Store: k}); !errors.Is(err, ErrLeaks) {
			t.Errorf("a key that may be taken out: %v", err)
		}
		_ = k.Close()
	}
}
