package swarm

import (
	"time"

	"github.com/omega-mesh/omega/trust/identity"
)

// CloseOutdated closes the connections that a member proved with a key older than that number: whoever holds the new one
// proves it on a new connection within a round trip or two, and who does not stays out.
func (s *Swarm) CloseOutdated(did identity.DID, number uint32) {
	for _, c := range s.peers.outdated(did, number) {
		s.count("outdated_key")
		_ = c.Close()
	}
}

// Redial dials every member that is not connected now, whatever delay it had come to: after a rotation of this peer's own
// key, those who refused it before may not.
func (s *Swarm) Redial() {
	s.dialer.mu.Lock()
	for _, t := range s.dialer.peers {
		t.next, t.delay = time.Time{}, 0
	}
	s.dialer.mu.Unlock()
	s.dialer.ring()
}
