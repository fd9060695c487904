// Package store is the indicators of one host: which sources there are, what they gave last, the set made of it, and what
// was seen. A source is what a person handed over, which is kept here, or a file, folder, address or TAXII collection that
// is read again every so often. When one changes, a new set is made beside the old one and takes its place at once.
//
// A source that fails keeps what it gave before, and says why. Everything is bounded: sources, bytes, memory.
package store
