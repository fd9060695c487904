// Package redact takes out of texts what is nobody's business before they are kept or told: passwords and tokens in the
// words a program was started with, in addresses and in headers, keys, and this project's own join tokens. A secret on a
// command line is every user's to read while the program runs; a journal and a swarm that remember it would be worse.
//
// It knows secrets by their names and forms; one that has neither passes. It is applied where events enter the journal and
// where findings leave the host.
package redact
