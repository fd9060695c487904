package gossip

import (
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// counts is what the raw tracer of pubsub tells of its queues.
type counts struct {
	outbound, validate, deliver, duplicates atomic.Uint64
}

var _ pubsub.RawTracer = (*counts)(nil)

func (c *counts) OnNewOutboundStream(peer.ID, protocol.ID)             {}
func (c *counts) OnClosedOutboundStream(peer.ID)                       {}
func (c *counts) Join(string)                                          {}
func (c *counts) Leave(string)                                         {}
func (c *counts) Graft(peer.ID, string)                                {}
func (c *counts) Prune(peer.ID, string)                                {}
func (c *counts) ValidateMessage(*pubsub.Message)                      {}
func (c *counts) DeliverMessage(*pubsub.Message)                       {}
func (c *counts) DuplicateMessage(*pubsub.Message)                     { c.duplicates.Add(1) }
func (c *counts) ThrottlePeer(peer.ID)                                 {}
func (c *counts) RecvRPC(*pubsub.RPC)                                  {}
func (c *counts) SendRPC(*pubsub.RPC, peer.ID)                         {}
func (c *counts) SendRPCCompleted(*pubsub.RPC, peer.ID, time.Duration) {}
func (c *counts) DropRPC(*pubsub.RPC, peer.ID)                         { c.outbound.Add(1) }
func (c *counts) UndeliverableMessage(*pubsub.Message)                 { c.deliver.Add(1) }
func (c *counts) RejectMessage(_ *pubsub.Message, reason string) {
	if reason == pubsub.RejectValidationQueueFull || reason == pubsub.RejectValidationThrottled {
		c.validate.Add(1)
	}
}
