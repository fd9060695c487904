// Package indicator looks events up among what others have published as bad: digests, addresses, prefixes, domains, URLs,
// file names and paths, by the million, and STIX patterns that no set can answer.
//
// A Set is built once and never changed, so that any goroutine may look things up; a new one takes its place at once
// (Current). Its table keeps of each value what two hashes, seeded at random, say of it, with who said so, how sure and until
// when: three to a line of the processor's cache, so that a look-up of what is there goes to one line, and a filter before
// it answers most look-ups of what is not. Nobody who writes a feed can make it slow, or make two values meet.
//
// Readers of files are in feed, patterns in stix, the client of collections in taxii, and what a host keeps in store.
package indicator
