// Package indicator looks events up among what others have published as bad: digests, addresses, prefixes, domains, URLs,
// file names and paths, by the million, and STIX patterns that no set can answer.
//
// A Set is built once and never changed, so that any goroutine may look things up; a new one takes its place at once
// (Current). Its tables keep keys of fixed size beside eight bytes of who said so, how sure and until when, and an open
// addressing index of four bytes a slot, eight bits of which are a fingerprint: most look-ups of what is not there touch
// one cache line. The index is seeded at random, so that nobody who writes a feed can make it slow.
//
// Readers of files are in feed, patterns in stix, the client of collections in taxii, and what a host keeps in store.
package indicator
