// Package vectors holds known-answer tests of every primitive that trust and swarm rest on, through the calls that use it:
// NIST's ACVP files as circl carries them, Wycheproof's, and a second implementation of ML-DSA. The files are read from the
// Go module cache, and none is committed. The IETF's composite vectors lie in a repository that is no Go module, so they are not here; nor is
// ACVP's ML-KEM decapsulation, whose keys are in a form that crypto/mlkem does not take. There is no code here: make test says how many cases passed.
package vectors
