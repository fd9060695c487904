// Package node is one peer, assembled: identity, ledger, swarm, sensors, roles and the local API, wired by plain
// constructors that node.go reads top to bottom, and kept alive by a tree of supervisors.
//
// As root a node is two processes. The one started first keeps the privileges: it loads the kernel half, holds the
// guard rails and acts. It executes itself again as an unprivileged process that does everything that parses what
// others wrote. They speak the protocol of node/privileged over an inherited socket.
//
// It holds no logic of its own beyond wiring: what a peer may do is trust's, what travels is swarm's, what is seen
// and stopped is bpf's, what it means is roles'.
package node
