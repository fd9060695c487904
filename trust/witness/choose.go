package witness

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"slices"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// ranked is every other member in the order in which it is asked to witness a feed: rendezvous hashing (Thaler and
// Ravishankar 1998), so that all peers agree without asking, an author cannot pick, and a member that comes or goes
// moves few. Of each admitter the best comes before the second of any: members let in by one hand are likely one hand's.
func ranked(members []*authority.Member, feed ledger.Feed) []identity.DID {
	type candidate struct {
		did   identity.DID
		by    identity.DID
		score [32]byte
		nth   int // among those of one admitter
	}
	list := make([]candidate, 0, len(members))
	for _, m := range members {
		if m.DID == feed.Author || m.Revoked || m.Forked {
			continue
		}
		list = append(list, candidate{did: m.DID, by: m.AdmittedBy, score: sha256.Sum256([]byte("omega/witness/1\x00" + string(feed.Author) + "\x00" + string(m.DID)))})
	}
	slices.SortFunc(list, func(a, b candidate) int { return bytes.Compare(b.score[:], a.score[:]) })
	of := make(map[identity.DID]int)
	for i := range list {
		list[i].nth = of[list[i].by]
		of[list[i].by]++
	}
	slices.SortStableFunc(list, func(a, b candidate) int { return cmp.Compare(a.nth, b.nth) })
	out := make([]identity.DID, len(list))
	for i, c := range list {
		out[i] = c.did
	}
	return out
}

// Chosen are the members that cosign a feed now: 2f+1 of them, f being trust.WitnessFaults, fewer where the swarm is small.
func Chosen(members []*authority.Member, feed ledger.Feed) []identity.DID {
	list := ranked(members, feed)
	return list[:min(len(list), 2*trust.WitnessFaults+1)]
}

// needed is how many cosignatures a checkpoint takes: f+1, so that one of them is honest where at most f lie; all others
// where the swarm has fewer.
func needed(others int) int { return min(others, trust.WitnessFaults+1) }

// accepted are the members whose cosignatures count: more than are chosen, because the ranking moves as members come.
func accepted(members []*authority.Member, feed ledger.Feed) (list []identity.DID, need int) {
	list = ranked(members, feed)
	return list[:min(len(list), trust.WitnessSlack)], needed(len(list))
}
