// Package sync is the repair way of the feeds: a peer says how many entries of each feed it has (a version vector), and
// the other sends what comes after. A late joiner, a missed message, a healed partition and a restored snapshot are all
// this one path; gossip is only faster.
//
// What arrives goes to the ledger, which alone decides what stands; this package bounds what it may cost.
package sync
