package ledger

import (
	"time"

	"github.com/omega-mesh/omega/trust"
)

// quota is a pair of virtual-scheduling buckets (GCRA, ITU-T I.371) over what an author's entries say of themselves:
// their number, size and claimed times. When an entry is admissible follows from the content of the chain and the
// reader's clock alone, so gossip and sync agree on it, and an author that floods is read no faster than its rate
// whichever way its entries come.
type quota struct {
	entries, bytes int64 // theoretical arrival times, Unix nanoseconds
}

type limits struct {
	perEntry, perByte     int64 // nanoseconds
	entrySlack, byteSlack int64 // what may come at once, as time
}

func limitsOf(c Chain) limits {
	if c == Authority {
		return limits{
			perEntry: int64(time.Second) / trust.AuthorityRate, perByte: int64(time.Second) / trust.AuthorityBytes,
			entrySlack: trust.AuthorityBurst * int64(time.Second) / trust.AuthorityRate,
			byteSlack:  trust.AuthorityBytesBurst * (int64(time.Second) / trust.AuthorityBytes),
		}
	}
	return limits{
		perEntry: int64(time.Second) / trust.ActivityRate, perByte: int64(time.Second) / trust.ActivityBytes,
		entrySlack: trust.ActivityBurst * int64(time.Second) / trust.ActivityRate,
		byteSlack:  trust.ActivityBytesBurst * (int64(time.Second) / trust.ActivityBytes),
	}
}

// after is the quota once an entry of size bytes, claimed at t, is taken, and how long a reader whose clock shows now
// must wait before it may take it.
func (q quota) after(c Chain, t, now int64, size int) (quota, time.Duration) {
	l := limitsOf(c)
	q.entries = max(q.entries, t) + l.perEntry
	q.bytes = max(q.bytes, t) + l.perByte*int64(size)
	return q, time.Duration(max(0, q.entries-l.entrySlack-now, q.bytes-l.byteSlack-now))
}
