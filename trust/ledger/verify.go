package ledger

import (
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
)

// VerifyRun checks consecutive raw entries of one feed whose last carries a composite signature: form, links, and that
// signature, which by the links covers all of them. It returns the last entry. The caller decides whether the first
// links to what it knows.
func VerifyRun(raws [][]byte, key *composite.PublicKey) (*Entry, error) {
	var prev, e Entry
	for i, raw := range raws {
		if len(raw) > trust.MaxEntry {
			return nil, reject(CauseOversize, "", "%d bytes, at most %d", len(raw), trust.MaxEntry)
		}
		e = Entry{raw: raw}
		if i > 0 {
			e.Author, e.author = prev.Author, prev.author
		}
		n, err := e.parse(raw)
		if err != nil {
			return nil, reject(CauseMalformed, "", "%v", err)
		}
		if err := e.checkForm(); err != nil {
			return nil, err
		}
		e.hash = hashContent(raw[:n])
		if i > 0 && (e.author != prev.author || e.Chain != prev.Chain || e.Swarm != prev.Swarm || e.Seq != prev.Seq+1 || e.Prev != prev.hash || e.Time < prev.Time || e.BootEpoch < prev.BootEpoch) {
			return nil, reject(CauseChain, e.Author, "entry %d does not follow", e.Seq)
		}
		prev.Author, prev.author, prev.Chain, prev.Swarm, prev.Seq, prev.hash, prev.Time, prev.BootEpoch = e.Author, e.author, e.Chain, e.Swarm, e.Seq, e.hash, e.Time, e.BootEpoch
	}
	if len(raws) == 0 || e.Full == nil {
		return nil, reject(CauseSignature, e.Author, "a run that no composite signature ends")
	}
	last, err := Decode(raws[len(raws)-1])
	if err != nil {
		return nil, err
	}
	return last, last.verifyFull(key)
}
