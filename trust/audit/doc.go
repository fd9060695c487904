// Package audit takes a swarm's whole history out of it and verifies it elsewhere: one file with the genesis, every feed
// and every proof of equivocation, that a machine which never saw the swarm checks with nothing but the swarm's id. Every
// damaged or forged byte is named by its feed, entry and cause. Both ways are one pass in bounded memory.
//
// What an entry has to be is the ledger's word, who may say what the authority's; this package knows the file.
package audit
