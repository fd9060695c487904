// Package tpm keeps a secret with a TPM 2.0, so that a copy of this host's disk does not have it: Seal binds 32 bytes to
// this chip and to what the firmware measured into chosen PCRs (SHA-256 bank), Unseal gives them back while both are
// the same, and Quote has the chip sign its PCRs for somebody who asks with a nonce. It is one source of entropy too.
//
// Every command that carries a secret goes through a session salted with the chip's storage key, its parameter encrypted
// with AES-128-CFB, and the storage key is known again by its name: who taps the bus learns nothing, and who answers in
// the chip's stead after the sealing is refused. It is not responsible for what is sealed, nor for whose key an
// attestation key belongs to: package identity says both.
//
// Sources: TCG TPM 2.0 Library, revision 1.59, parts 1 to 3; TCG PC Client Platform Firmware Profile (what a PCR holds).
package tpm
