// Package token keeps an identity's key in a PKCS#11 token (a smart card, an HSM, SoftHSM): the Ed25519 half is made in
// the token and cannot leave it, nor can the ML-DSA half where the token knows CKM_ML_DSA (PKCS#11 3.2); where it does not,
// the ML-DSA seed lies in the key file under a wrapping key that a token's AES key seals. A composite signature takes both
// halves, so a copy of the host's disk and memory together forge nothing without the token.
//
// It implements identity.Keeper. It is built with the tag pkcs11 only, since a token's library is C; in other builds Open
// says so. It is not responsible for where the library's path comes from: that must be the owner's configuration, never a
// folder that an unprivileged process can write, since the library runs in this process.
//
// Sources: OASIS PKCS#11 3.0 (Ed25519, AES-GCM) and 3.2 (ML-DSA).
package token
