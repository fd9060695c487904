// Package vectors holds known-answer tests of every primitive that trust and swarm rest on, through the calls that use it:
// NIST's ACVP files as circl carries them, Wycheproof's, the IETF's vector of the composite signature, and a second
// implementation of ML-DSA. The files are read from the Go module cache; the one that lies in no Go module, the IETF's, is in testdata.
// ACVP's ML-KEM decapsulation keys have a form that crypto/mlkem does not take: Wycheproof's, which are seeds, stand for
// them. There is no code here: make test says how many cases passed.
package vectors
