//go:build pkcs11

package token

import (
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"runtime"
	"unsafe"

	"github.com/miekg/pkcs11"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
)

// Of PKCS#11 3.0 (Ed25519) and 3.2 (ML-DSA), which the bindings do not name.
const (
	ckkECEdwards           = 0x40
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEDDSA               = 0x1057

	ckkMLDSA           = 0x4a
	ckmMLDSAKeyPairGen = 0x1c
	ckmMLDSA           = 0x1d
	ckaParameterSet    = 0x61d
	ckpMLDSA65         = 2
	ckpMLDSA87         = 3
	ckhHedgePreferred  = 0
)

// ed25519OID is id-Ed25519 (RFC 8410), DER.
func ed25519OID() []byte { return []byte{0x06, 0x03, 0x2b, 0x65, 0x70} }

const labelKey = "omega signing key"

// Generate implements identity.Keeper. Of the default suite it keeps the Ed25519 half, and the ML-DSA half where the token
// can; of the other suite the ML-DSA key where it can, and nothing else.
func (t *Token) Generate(s trust.Suite, random io.Reader) (*composite.PrivateKey, []byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var h keptHalf
	var made []byte // an id that nothing names yet
	newID := func() ([]byte, error) {
		made = make([]byte, idSize)
		_, err := io.ReadFull(random, made)
		return made, err
	}
	var seed []byte
	var err error
	if t.knows[ckmMLDSAKeyPairGen] && t.knows[ckmMLDSA] {
		if h.MLDSA, err = newID(); err == nil {
			err = t.generate(ckmMLDSAKeyPairGen, ckkMLDSA, pkcs11.NewAttribute(ckaParameterSet, ulong(parameterSet(s))), h.MLDSA)
		}
	} else if s == trust.SuiteDefault {
		seed = make([]byte, 32)
		_, err = io.ReadFull(random, seed)
	}
	if err == nil && s == trust.SuiteDefault {
		if !t.knows[ckmECEdwardsKeyPairGen] || !t.knows[ckmEDDSA] {
			err = fmt.Errorf("token: %s knows no Ed25519: %w", t.label, ErrNone)
		} else if h.Ed25519, err = newID(); err == nil {
			err = t.generate(ckmECEdwardsKeyPairGen, ckkECEdwards, pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, ed25519OID()), h.Ed25519)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if h.Ed25519 == nil && h.MLDSA == nil {
		key, err := composite.Generate(s, random)
		return key, nil, err
	}
	defer clear(seed)
	return t.named(s, seed, h)
}

// named joins the halves, and gives the bytes that name them.
func (t *Token) named(s trust.Suite, seed []byte, h keptHalf) (*composite.PrivateKey, []byte, error) {
	half, err := canonical.Marshal(h)
	if err != nil {
		return nil, nil, err
	}
	key, err := t.load(s, seed, &h)
	return key, half, err
}

func parameterSet(s trust.Suite) uint64 {
	if s == trust.SuiteCNSA {
		return ckpMLDSA87
	}
	return ckpMLDSA65
}

func (t *Token) generate(mechanism, keyType uint, parameter *pkcs11.Attribute, id []byte) error {
	public := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType), parameter,
		pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_LABEL, labelKey), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
	}
	secret := append(private(id), pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, labelKey), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true))
	_, key, err := t.module.GenerateKeyPair(t.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, public, secret)
	if err != nil {
		return t.failed("make a signing key", err)
	}
	return t.keeps(key)
}

// Adopt implements identity.Keeper: it puts the Ed25519 half of a key that was made outside into the token, which does not
// give it out again. Of the suite that has none, nothing.
func (t *Token) Adopt(key *composite.PrivateKey) (*composite.PrivateKey, []byte, error) {
	if key.Suite() != trust.SuiteDefault {
		return key, nil, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	seed := key.Seed()
	defer clear(seed)
	if len(seed) != composite.SeedSize(trust.SuiteDefault) {
		return nil, nil, t.failed("adopt: a part of the key is elsewhere already", ErrMissing)
	}
	id, err := t.module.GenerateRandom(t.session, idSize)
	if err != nil {
		return nil, nil, t.failed("adopt", err)
	}
	ed := ed25519.NewKeyFromSeed(seed[32:])
	defer clear(ed)
	// The public half first: without the other it is harmless.
	if _, err := t.module.CreateObject(t.session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, ckkECEdwards),
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, ed25519OID()), pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, append([]byte{4, 32}, ed[32:]...)),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_LABEL, labelKey), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
	}); err != nil {
		return nil, nil, t.failed("adopt", err)
	}
	h, err := t.module.CreateObject(t.session, append(private(id), pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, ckkECEdwards), pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, ed25519OID()), pkcs11.NewAttribute(pkcs11.CKA_VALUE, seed[32:]),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, labelKey), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true)))
	if err != nil {
		return nil, nil, t.failed("adopt", err)
	}
	if err := t.keeps(h); err != nil {
		return nil, nil, err
	}
	return t.named(trust.SuiteDefault, seed[:32], keptHalf{Ed25519: id})
}

// Load implements identity.Keeper.
func (t *Token) Load(s trust.Suite, seed, half []byte) (*composite.PrivateKey, error) {
	h, err := decodeHalf(half)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.load(s, seed, h)
}

// load joins the halves; t.mu is held, and let go of while the key signs for the first time.
func (t *Token) load(s trust.Suite, seed []byte, h *keptHalf) (*composite.PrivateKey, error) {
	parts := composite.Halves{Seed: seed}
	if h.MLDSA != nil {
		key, public, err := t.pair(ckkMLDSA, h.MLDSA, pkcs11.CKA_VALUE)
		if err != nil {
			return nil, err
		}
		parts.Seed, parts.MLDSA, parts.MLDSAPublic = nil, &mldsaKey{t, key}, public
	}
	if h.Ed25519 != nil {
		key, point, err := t.pair(ckkECEdwards, h.Ed25519, pkcs11.CKA_EC_POINT)
		if err != nil {
			return nil, err
		}
		// The point is an OCTET STRING around its 32 bytes, or in older libraries these alone.
		if len(point) == 34 && point[0] == 4 && point[1] == 32 {
			point = point[2:]
		}
		if len(point) != ed25519.PublicKeySize {
			return nil, t.failed("an Ed25519 point of another size", ErrMalformed)
		}
		parts.Ed25519 = &ed25519Key{t, key, point}
	}
	t.mu.Unlock()
	defer t.mu.Lock()
	key, err := composite.FromHalves(s, parts)
	if err != nil {
		return nil, t.failed("the key", err)
	}
	return key, nil
}

// pair finds a private key and reads its public one.
func (t *Token) pair(keyType uint, id []byte, value uint) (pkcs11.ObjectHandle, []byte, error) {
	of := func(class uint) (pkcs11.ObjectHandle, error) {
		return t.find(pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType), pkcs11.NewAttribute(pkcs11.CKA_ID, id))
	}
	key, err := of(pkcs11.CKO_PRIVATE_KEY)
	if err != nil {
		return 0, nil, err
	}
	public, err := of(pkcs11.CKO_PUBLIC_KEY)
	if err != nil {
		return 0, nil, err
	}
	a, err := t.module.GetAttributeValue(t.session, public, []*pkcs11.Attribute{pkcs11.NewAttribute(value, nil)})
	if err != nil {
		return 0, nil, t.failed("a public key", err)
	}
	return key, a[0].Value, t.keeps(key)
}

// Discard implements identity.Keeper: what half names is destroyed. That it is gone already is no error.
func (t *Token) Discard(half []byte) error {
	h, err := decodeHalf(half)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, id := range [][]byte{h.Ed25519, h.MLDSA} {
		for _, class := range []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY} {
			if id == nil {
				continue
			}
			key, err := t.find(pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_ID, id))
			if errors.Is(err, ErrMissing) {
				continue
			}
			if err == nil {
				err = t.module.DestroyObject(t.session, key)
			}
			if err != nil {
				errs = append(errs, t.failed("destroy a key", err))
			}
		}
	}
	return errors.Join(errs...)
}

// sign runs one signature.
func (t *Token) sign(mechanism *pkcs11.Mechanism, key pkcs11.ObjectHandle, msg []byte) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.module.SignInit(t.session, []*pkcs11.Mechanism{mechanism}, key); err != nil {
		return nil, t.failed("sign", err)
	}
	sig, err := t.module.Sign(t.session, msg)
	if err != nil {
		return nil, t.failed("sign", err)
	}
	return sig, nil
}

// ed25519Key is a crypto.Signer.
type ed25519Key struct {
	token  *Token
	handle pkcs11.ObjectHandle
	public ed25519.PublicKey
}

func (k *ed25519Key) Public() crypto.PublicKey { return k.public }

func (k *ed25519Key) Sign(_ io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != 0 {
		return nil, fmt.Errorf("token: Ed25519 signs the message itself: %w", ErrMalformed)
	}
	sig, err := k.token.sign(pkcs11.NewMechanism(ckmEDDSA, nil), k.handle, msg)
	if err == nil && len(sig) != ed25519.SignatureSize {
		err = k.token.failed("an Ed25519 signature of another size", ErrMalformed)
	}
	return sig, err
}

// mldsaKey is a composite.MLDSASigner.
type mldsaKey struct {
	token  *Token
	handle pkcs11.ObjectHandle
}

func (k *mldsaKey) SignMLDSA(msg, context []byte) ([]byte, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	return k.token.sign(pkcs11.NewMechanism(ckmMLDSA, signContext(&pin, context)), k.handle, msg)
}

// signContext is a CK_SIGN_ADDITIONAL_CONTEXT: how to hedge, a pointer to the context, its length. What it points to stays
// where it is until pin is let go of.
func signContext(pin *runtime.Pinner, context []byte) []byte {
	var at uint64
	if len(context) > 0 {
		pin.Pin(&context[0])
		at = uint64(uintptr(unsafe.Pointer(&context[0])))
	}
	return append(append(ulong(ckhHedgePreferred), ulong(at)...), ulong(uint64(len(context)))...)
}
