package audit

// Causes of a Fault beside those of a *ledger.RejectError.
const (
	CauseChecksum   = "checksum"   // the bytes are not those that were written
	CauseGenesis    = "genesis"    // not the genesis of the swarm asked for, or none
	CauseMissing    = "missing"    // what the file announces, or an entry in it names, is not in it
	CauseTruncated  = "truncated"  // the file ends too early
	CauseTrailing   = "trailing"   // bytes behind the end
	CauseSeen       = "seen"       // an entry names a head that is not in that feed
	CauseCheckpoint = "checkpoint" // a checkpoint is not of the feed it names
	CauseCosign     = "cosign"     // a cosignature does not verify, or is of another history
	CauseBase       = "base"       // a trimmed feed begins where too few witnesses say so
	CauseEvidence   = "evidence"   // a proof of equivocation proves nothing
	CauseDigest     = "digest"     // the whole is not what was written, though each part is
)

// MaxFaults is the most faults that are listed; the rest are counted.
const MaxFaults = 1000

// Fault is one thing wrong, and where.
type Fault struct {
	Record string `json:"record"`         // header, genesis, feed, entry, evidence or end
	Feed   string `json:"feed,omitempty"` // DID and chain, "did:omega:…/activity"
	Seq    uint64 `json:"seq"`            // of the entry; in other records that of the next entry
	Entry  string `json:"entry,omitempty"`
	Offset int64  `json:"offset"` // of the record in the file
	Cause  string `json:"cause"`
	Detail string `json:"detail"`
}

// Evidence is a proven equivocation in the file: no fault of the file, but of its author.
type Evidence struct {
	Feed string `json:"feed"`
	Seq  uint64 `json:"seq"`
	A    string `json:"a"` // ids of the two entries
	B    string `json:"b"`
}

// Note is what may be missing, and cannot be told: no fault of the file.
type Note struct {
	Feed   string `json:"feed"`
	Detail string `json:"detail"`
}

// Result is what Verify found.
type Result struct {
	OK           bool       `json:"ok"`
	Swarm        string     `json:"swarm"`
	Feeds        uint64     `json:"feeds"`
	Entries      uint64     `json:"entries"`
	Seals        uint64     `json:"seals"`        // composite signatures that verified
	Checkpoints  uint64     `json:"checkpoints"`  // that agree with their feeds
	Cosignatures uint64     `json:"cosignatures"` // that verified
	Evidence     []Evidence `json:"evidence"`
	Faults       []Fault    `json:"faults"`
	Notes        []Note     `json:"notes"`
	MoreFaults   uint64     `json:"more_faults"` // beyond MaxFaults
}

// OnlyMissing reports whether all that is wrong is that entries are named which are not there: where the file is made of a
// ledger that still fills, they come.
func (r *Result) OnlyMissing() bool {
	for _, f := range r.Faults {
		if f.Cause != CauseMissing || f.Record != recordFeed.String() {
			return false
		}
	}
	return len(r.Faults) > 0 && r.MoreFaults == 0
}
