// Package discovery knows where peers are: the address book on disk, and a look at the local network. It finds addresses;
// who listens there is for the handshake to prove.
package discovery
