// Package authority is what follows from the authority chains: who is a member, who holds which role, which invites are
// open, which responses the operators ordered, what must never be blocked.
//
// It begins with the genesis record, whose hash is the swarm's name, and is a fold over authority entries: a pure
// function of the set of them, the same on every peer in whatever order and however often they arrive. Where a grant and
// a revocation do not know of each other, the revocation wins. The clock is not in the fold: it yields things with a
// not-after, and the reader compares. An entry of a critical kind that this build does not know stops what its author
// allows from there on, while what it forbids still holds.
//
// It trusts the ledger to have verified signatures and links, and does no input or output.
package authority
