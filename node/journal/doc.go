// Package journal keeps what this host saw: an embedded store of its recent events with a budget of bytes, the end of
// the raw telemetry's way. Nothing of it leaves the host; hunts and `omega events` read it where it is.
//
// Append encodes an event at once into the columns of a block in memory: it allocates nothing, never waits, and counts
// by class what finds no room. One goroutine (Run) compresses full blocks and appends them to the newest segment; the
// oldest segment goes when the budget is full. A block carries what a reader needs to pass it by: its time, its classes
// and activities, a Bloom filter of its strings, addresses and process ids, and its strings apart from the rest. Every
// block has a checksum: after a power cut the last segment is cut at the first block that does not fit its own.
//
// It is not the record that peers rely on (trust/ledger is), and holds no secrets: who appends redacts first.
package journal
