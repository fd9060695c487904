package event

import "time"

// Why a baseline of watched files is signed.
const (
	BaselineTaken    = "taken"    // for the first time
	BaselineLoaded   = "loaded"   // the agent starts with what it finds on its disk
	BaselineChanged  = "changed"  // watched files differ from it in another way than before
	BaselineAccepted = "accepted" // By said that files are to be as they are
	BaselineAffirmed = "affirmed" // nothing changed for a day
)

// Baseline is a host's signed word on what its watched files are to be, and in what they differ. Each follows one before it:
// who keeps the last knows when the file it speaks of was changed by another than the agent. What is signed is all but Peer.
type Baseline struct {
	Peer     string   `cbor:"-"`                     // DID of the author
	Time     int64    `cbor:"1,keyasint"`            // Unix nanoseconds by the author's clock
	Why      string   `cbor:"2,keyasint"`            // one of the above
	Root     [32]byte `cbor:"3,keyasint"`            // Merkle root of the entries
	Standing [32]byte `cbor:"4,keyasint"`            // Merkle root of what differs and is not accepted
	File     [32]byte `cbor:"5,keyasint"`            // BLAKE3 of the stored baseline; zeros where it does not read
	Before   [32]byte `cbor:"6,keyasint"`            // File of the one that this one follows; zeros where there was none
	Entries  uint64   `cbor:"7,keyasint"`            // how many are watched
	Differ   uint64   `cbor:"8,keyasint,omitempty"`  // how many of them differ
	Skipped  uint64   `cbor:"9,keyasint,omitempty"`  // how many could not be read, or lie beyond a bound
	By       string   `cbor:"10,keyasint,omitempty"` // who accepted: "uid 0"
}

// Follows says whether b can come of before: it goes on from there, or says the same again.
func (b *Baseline) Follows(before *Baseline) bool {
	none := [32]byte{} // what cannot be read follows nothing
	return before.File != none && (b.File == before.File || b.Before == before.File)
}

// When is Time as a time.Time in UTC.
func (b *Baseline) When() time.Time { return time.Unix(0, b.Time).UTC() }
