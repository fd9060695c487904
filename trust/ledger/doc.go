// Package ledger is what each peer said: append-only, hash-chained, signed feeds, kept on this host's disk and verified
// on the way in.
//
// Every author has two chains, authority (kept for ever) and activity, so that one never waits for the other. An entry
// of the authority chain carries the author's composite signature; one of the activity chain is signed by an Ed25519 key
// that lives an hour at most and is certified in the chain, and is sealed by the next entry that carries a composite
// signature. Appending returns when the entry is on the disk; only then may it leave the host. Entries of others come in
// by gossip or sync through the same checks: bounds, signature, link, quota.
//
// It knows the form of entries and not what their bodies decide: that is authority's and the roles'. It opens no
// connection.
package ledger
