// Package auth is the mutual proof of membership that comes before any other protocol on a connection: each side signs,
// with the composite key of its identity, a message bound to this TLS connection. See the package's README section in
// swarm/README.md for the bytes.
//
// It works over any stream and knows nothing of libp2p: the caller gives keying material and the transport key that TLS
// proved, and says who is a member.
package auth
