// Package roles is what a peer does for the swarm: the contract every duty is written against (Role, Peer), the
// supervisor that starts and stops duties as grants come and go, and the board that shows what this host does and
// what waits for a person.
//
// It stands between seeing and acting: events come in through Peer, findings and receipts leave through Peer, and a
// response reaches the kernel through Peer. The duties themselves are the packages below: sentinel, decoy, analyst.
// They never import one another; they meet in findings and on the Board.
//
// It knows nothing of how a peer is made: node implements Peer and wires it.
package roles
