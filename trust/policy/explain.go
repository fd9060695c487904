package policy

import (
	"slices"

	"github.com/omega-mesh/omega/swarm/event"
)

// Explanation is what a policy makes of one of a list of findings.
type Explanation struct {
	Finding   *event.Finding
	Verdict   Verdict
	Reasons   []string
	Response  event.Response // what would follow; zero where nothing does
	OverQuota bool           // its author had named enough
}

// Explain runs findings through a policy in order, as a peer that heard them would: a finding may come to act because an
// earlier one saw the same address. A peer counts as a decoy's holder where a finding of its own says that a decoy of its
// was touched. IDs, peers and times must be set.
func Explain(e *Engine, findings []event.Finding) []Explanation {
	decoys := map[string]bool{}
	for i := range findings {
		if findings[i].Decoy != "" {
			decoys[findings[i].Peer] = true
		}
	}
	f := NewFold(e, FoldOptions{HasRole: func(did, role string) bool { return role == "decoy" && decoys[did] }})
	out := make([]Explanation, 0, len(findings))
	for i := range findings {
		x := Explanation{Finding: &findings[i]}
		over := f.OverQuota()
		// A host acts on its own findings too: seen from its author.
		f.opt.Self = findings[i].Peer
		if p, ok := f.Add(&findings[i]); ok {
			x.Verdict, x.Reasons, x.Response = p.Verdict, slices.Clone(p.Reasons), p.Response
		}
		x.OverQuota = f.OverQuota() > over
		out = append(out, x)
	}
	return out
}
