package gossip

import (
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/omega-mesh/omega/trust"
)

// SmallSwarm is the number of members up to which everybody is connected to everybody, and the push lane is used.
const SmallSwarm = 20

// Queue sizes. With libp2p's own 32, messages were lost at a tenth of a peer's quota; with these none were at twice it.
const (
	outboundQueue = 256 // RPCs to one peer
	validateQueue = 256 // messages waiting for a validation worker
	deliverQueue  = 512 // validated entries waiting for the ledger
)

// maxMessage bounds a GossipSub RPC with one entry in it.
const maxMessage = trust.MaxEntry + 4<<10

// params are GossipSub's for a swarm of that many members. Up to six peers are all in each other's mesh by either set.
// D=4 costs 40 % less than D=6 at the same latency in a small swarm, and one hop more at the 99th percentile above 20.
func params(members int) pubsub.GossipSubParams {
	p := pubsub.DefaultGossipSubParams()
	if members <= SmallSwarm {
		p.D, p.Dlo, p.Dhi, p.Dout, p.Dscore, p.Dlazy = 4, 3, 8, 1, 2, 4
	} else {
		p.D, p.Dlo, p.Dhi, p.Dout, p.Dscore, p.Dlazy = 6, 5, 12, 2, 4, 6
	}
	p.HeartbeatInterval = time.Second
	p.HistoryLength, p.HistoryGossip = 10, 6
	// Under this size the announcement costs as much as the copy that it saves.
	p.IDontWantMessageThreshold = 4 << 10
	return p
}

// scoring has what a private swarm can know: invalid messages, broken promises, and faults seen elsewhere. Mesh delivery
// (P3) is off because a small swarm's meshes are too uneven to judge by, colocation (P6) because testnets and NATs put
// many peers behind one address.
func scoring(topics []string, app func(peer.ID) float64) (*pubsub.PeerScoreParams, *pubsub.PeerScoreThresholds) {
	s := &pubsub.PeerScoreParams{
		SkipAtomicValidation: true,
		Topics:               make(map[string]*pubsub.TopicScoreParams, len(topics)),
		AppSpecificScore:     app,
		AppSpecificWeight:    1,
		// Ten broken promises (IHAVE without the message) are forgiven; 20 cost 1,000.
		BehaviourPenaltyWeight:    -10,
		BehaviourPenaltyThreshold: 10,
		BehaviourPenaltyDecay:     pubsub.ScoreParameterDecay(time.Hour),
		DecayInterval:             time.Second,
		DecayToZero:               0.01,
		RetainScore:               6 * time.Hour,
	}
	for _, t := range topics {
		s.Topics[t] = &pubsub.TopicScoreParams{
			SkipAtomicValidation: true,
			TopicWeight:          1,
			// An hour in the mesh is worth 1, a first delivery 1 up to 25: little against one invalid message.
			TimeInMeshWeight: 1.0 / 3600, TimeInMeshQuantum: time.Second, TimeInMeshCap: 3600,
			FirstMessageDeliveriesWeight: 1, FirstMessageDeliveriesCap: 25, FirstMessageDeliveriesDecay: pubsub.ScoreParameterDecay(10 * time.Minute),
			// The square of invalid messages counts: one costs 100 (no more gossip needs five), five cost 2,500 (not heard).
			InvalidMessageDeliveriesWeight: -100, InvalidMessageDeliveriesDecay: pubsub.ScoreParameterDecay(time.Hour),
		}
	}
	return s, &pubsub.PeerScoreThresholds{
		SkipAtomicValidation: true,
		GossipThreshold:      -500, PublishThreshold: -1000, GraylistThreshold: -2500,
		AcceptPXThreshold: 1000, OpportunisticGraftThreshold: 3.5,
	}
}
