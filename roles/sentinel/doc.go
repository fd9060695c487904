// Package sentinel watches this host and acts for the swarm on it.
//
// It stands at both ends of the data's way. Detectors turn the events of this host's sensors into findings, which are
// aggregated, bounded and published. The responder folds the findings of all peers through the response policy and acts
// at once in this host's own kernel: no peer waits for another's word, since all fold the same. What guard rails hold
// back waits on the board for a person; what operators order or approve is done here too.
//
// It decides nothing by itself: what may act is trust/policy's, what may not be crossed is trust/guard's, and the kernel
// is reached through roles.Peer.
package sentinel

//go:generate env UPDATE_GOLDEN=1 go test -count=1 -run ^TestCoverageTable$ .
