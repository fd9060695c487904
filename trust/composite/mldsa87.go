package composite

import "github.com/cloudflare/circl/sign/mldsa/mldsa87"

// Sizes of ML-DSA-87 in bytes, as in FIPS 204, table 2; the seed is its xi.
const (
	publicKeySize87 = mldsa87.PublicKeySize // 2592
	signatureSize87 = mldsa87.SignatureSize // 4627
	seedSize87      = mldsa87.SeedSize      // 32
)

// signer87 and verifier87 are ML-DSA.Sign and ML-DSA.Verify of FIPS 204 (pure, not pre-hashed), with the context as its ctx.
type (
	signer87   struct{ key *mldsa87.PrivateKey }
	verifier87 struct{ key mldsa87.PublicKey }
)

func key87(seed []byte) (signer, verifier, []byte) {
	pub, priv := mldsa87.NewKeyFromSeed((*[mldsa87.SeedSize]byte)(seed))
	raw := make([]byte, publicKeySize87)
	pub.Pack((*[mldsa87.PublicKeySize]byte)(raw))
	return &signer87{priv}, &verifier87{*pub}, raw
}

func expand87(raw []byte) *verifier87 {
	v := new(verifier87)
	v.key.Unpack((*[mldsa87.PublicKeySize]byte)(raw))
	return v
}

func (k *signer87) sign(context string, msg []byte) ([]byte, error) {
	sig := make([]byte, signatureSize87)
	return sig, mldsa87.SignTo(k.key, msg, []byte(context), true, sig)
}

func (v *verifier87) verify(context string, msg, sig []byte) bool {
	return mldsa87.Verify(&v.key, msg, []byte(context), sig)
}
