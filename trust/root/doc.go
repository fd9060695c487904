// Package root is the chain of changes that rule a swarm: who its operators are and how many must agree, who may issue,
// who is out for good, which releases are true, and to whom the swarm is handed over. Each entry names the one before it
// and is signed by k of the operators of that moment, so no one stolen key moves it.
//
// It is a tree, because keys can lie: two valid entries after one are a fork, which takes double-signing operators and
// is kept as evidence. Then what any branch revokes is revoked, nothing new is granted, and a quorum of recovery keys
// (SLH-DSA, from genesis; or k operators of the last entry before the fork) says which branch stands. What follows from
// a set of entries does not depend on their order.
//
// Entries travel in the authority chains of members, like proofs of equivocation: each proves itself. The package knows
// nothing of feeds, files or clocks.
package root
