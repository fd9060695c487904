// Package gossip is the fast way of a new entry, in two lanes. GossipSub spreads it through swarms of any size and past
// links that are missing; in a small swarm, where everybody is connected to everybody, the author also writes it straight
// to each peer on a stream kept open for that (Push), which saves the mesh's hops and its settling time.
//
// Neither lane is relied on: an entry is in its author's ledger before it leaves, and what does not arrive is pulled by
// sync. Nothing is forwarded that the ledger has not checked.
package gossip
