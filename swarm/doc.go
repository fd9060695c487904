// Package swarm is what goes between peers: it carries entries of the signed feeds from the peer that wrote them to every
// other, and lets nobody but members see that it does.
//
// Its place in the data's way is the double line of gossip and sync between one peer's ledger and all the others'. The
// parts, each one idea, from the wire upwards:
//
//   - transport: post-quantum TLS 1.3 over TCP, and the same demanded of QUIC
//   - auth: the mutual proof of membership that comes before everything else
//   - host: a libp2p host of two faces, one for anybody (join, auth) and one for proved members (all the rest)
//   - gossip: the fast way of a new entry
//   - sync: the repair way, which is also the way of late joiners and healed partitions
//   - join: how the holder of a token becomes a member
//   - discovery: where peers are: address book, bootstrap list, mDNS, private DHT
//
// It does not decide what an entry means or who may say what: it asks the ledger whether an entry stands, and the fold
// who is a member. The types that travel in findings are those of swarm/event.
package swarm
