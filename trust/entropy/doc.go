// Package entropy makes the random bytes of long-lived keys from more than one source, so that no single generator that
// fails or lies decides them: the kernel's, and with it what else a host has: a TPM, a token, the jitter of its processor.
// Each source stands under the continuous health tests of NIST SP 800-90B, section 4.4, from its first bytes on; one that
// fails is dropped for good and named. What is read is HKDF-SHA-512 (RFC 5869) over a state and a fresh block of each
// source: it is as good as the best of them, and never worse than the kernel's alone. Where the kernel's own source fails,
// reading fails: there is no fallback to the others.
//
// The tests find a source that is stuck, biased or gone, which is all that such tests can; they do not say that a source
// cannot be predicted. Beside the kernel's, the bytes of a TPM or a token come out of a generator of theirs, and what the
// jitter has is a claim, kept low.
package entropy
