// Package tlog is a feed as a transparency log: the RFC 6962 Merkle tree over the hashes of its entries, the C2SP
// checkpoint that names one of its sizes and the root there, and the ML-DSA-44 cosignature by which a witness says that
// what it saw before is a part of it. It knows hashes and texts only: which feed, which witness and how many of them is
// for the packages ledger and witness.
package tlog
