// Package transport makes every connection post-quantum: an own TLS 1.3 security transport over TCP that offers
// the key exchange of the swarm's suite and nothing else, and a gate that closes whatever another transport (QUIC, which sets its own TLS
// parameters) negotiated otherwise, before a stream of it is served.
//
// It says with which transport key a connection was made and gives keying material bound to it. Whether that key may
// take part is not its question (see auth).
package transport
