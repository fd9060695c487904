package composite

import (
	"crypto/ed25519"
	"crypto/sha512"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

// Sizes of MLDSA65-Ed25519-SHA512 in bytes, as in the draft's size table.
const (
	publicKeySize65 = mldsa65.PublicKeySize + ed25519.PublicKeySize // 1984
	signatureSize65 = mldsa65.SignatureSize + ed25519.SignatureSize // 3373
	seedSize65      = mldsa65.SeedSize + ed25519.SeedSize           // 64
)

// Prefix and label of the draft's message representative.
const (
	prefix = "CompositeAlgorithmSignatures2025"
	label  = "COMPSIG-MLDSA65-Ed25519-SHA512"
)

// message builds M' of the draft: Prefix || Label || len(ctx) || ctx || SHA-512(M).
func message(context string, msg []byte) []byte {
	sum := sha512.Sum512(msg)
	m := make([]byte, 0, len(prefix)+len(label)+1+len(context)+len(sum))
	m = append(m, prefix...)
	m = append(m, label...)
	m = append(m, byte(len(context)))
	m = append(m, context...)
	return append(m, sum[:]...)
}

type signer65 struct {
	mldsa *mldsa65.PrivateKey
	ed    ed25519.PrivateKey
}

type verifier65 struct {
	mldsa mldsa65.PublicKey
	ed    ed25519.PublicKey
}

func key65(seed []byte) (signer, verifier, []byte) {
	pub, priv := mldsa65.NewKeyFromSeed((*[mldsa65.SeedSize]byte)(seed))
	k := &signer65{mldsa: priv, ed: ed25519.NewKeyFromSeed(seed[mldsa65.SeedSize:])}
	raw := make([]byte, publicKeySize65)
	pub.Pack((*[mldsa65.PublicKeySize]byte)(raw))
	copy(raw[mldsa65.PublicKeySize:], k.ed[ed25519.SeedSize:])
	return k, &verifier65{mldsa: *pub, ed: raw[mldsa65.PublicKeySize:]}, raw
}

func expand65(raw []byte) *verifier65 {
	v := &verifier65{ed: raw[mldsa65.PublicKeySize:]}
	v.mldsa.Unpack((*[mldsa65.PublicKeySize]byte)(raw))
	return v
}

func (k *signer65) sign(context string, msg []byte) ([]byte, error) {
	m := message(context, msg)
	sig := make([]byte, signatureSize65)
	if err := mldsa65.SignTo(k.mldsa, m, []byte(label), true, sig[:mldsa65.SignatureSize]); err != nil {
		return nil, err
	}
	copy(sig[mldsa65.SignatureSize:], ed25519.Sign(k.ed, m))
	return sig, nil
}

// verify asks ML-DSA first: with an expanded key it is the cheaper of the two to refuse a forgery with.
func (v *verifier65) verify(context string, msg, sig []byte) bool {
	m := message(context, msg)
	return mldsa65.Verify(&v.mldsa, m, []byte(label), sig[:mldsa65.SignatureSize]) && ed25519.Verify(v.ed, m, sig[mldsa65.SignatureSize:])
}
