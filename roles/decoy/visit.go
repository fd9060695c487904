package decoy

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm/event"
)

// visits are the connections of one run, and the sources they came from.
type visits struct {
	decoy *Decoy
	peer  roles.Peer
	wg    sync.WaitGroup
	slots chan struct{} // taken by those talked to
	later chan event.Finding

	telling chan struct{} // taken by touches being signed

	mu      sync.Mutex
	sources map[netip.Addr]*source
}

// source is what is remembered of one address.
type source struct {
	touched uint64 // CLOCK_BOOTTIME of the touch last told
	open    int
}

// accept takes a connection in. The finding of a first touch comes before everything else, and before any bound.
func (v *visits) accept(ctx context.Context, s *service, c net.Conn) {
	boot := v.peer.Boot()
	s.touches.Add(1)
	remote, ok := addrPort(c.RemoteAddr())
	local, _ := addrPort(c.LocalAddr())
	if !ok {
		c.Close()
		return
	}
	fresh, room := v.enter(remote.Addr(), boot)
	if room {
		select {
		case v.slots <- struct{}{}:
		default:
			v.leave(remote.Addr())
			room = false
		}
	}
	if !room {
		s.dropped.Add(1)
		if !fresh {
			c.Close()
			return
		}
	}
	name := "tcp/" + strconv.Itoa(int(local.Port()))
	v.wg.Go(func() {
		defer c.Close()
		if room {
			defer func() { <-v.slots; v.leave(remote.Addr()) }()
		}
		if fresh {
			v.tell(ctx, s, touch(name, remote, local, boot, v.peer.Now()))
		}
		if !room {
			return
		}
		said := converse(ctx, c)
		if f, worth := session(name, remote, local, boot, v.peer.Now(), said); worth {
			select {
			case v.later <- f:
			default:
				s.dropped.Add(1)
			}
		}
	})
}

// enter notes a touch of a: fresh is true if it is to be told, room if it may be talked to.
func (v *visits) enter(a netip.Addr, now uint64) (fresh, room bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, known := v.sources[a]
	if !known {
		if len(v.sources) >= maxSources {
			v.forget(now)
		}
		s = &source{}
		if len(v.sources) < maxSources {
			v.sources[a] = s
		}
		fresh = true
	} else {
		fresh = now-s.touched >= touchAgain
	}
	if fresh {
		s.touched = now
	}
	if room = s.open < maxPerSource; room {
		s.open++
	}
	return fresh, room
}

func (v *visits) leave(a netip.Addr) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s := v.sources[a]; s != nil && s.open > 0 {
		s.open--
	}
}

// forget drops the sources that could be told again anyway, and if there are none, one that is not connected.
func (v *visits) forget(now uint64) {
	var spare netip.Addr
	for a, s := range v.sources {
		if s.open > 0 {
			continue
		}
		if spare = a; now-s.touched >= touchAgain {
			delete(v.sources, a)
		}
	}
	if len(v.sources) >= maxSources && spare.IsValid() {
		delete(v.sources, spare)
	}
}

// tell publishes at once.
func (v *visits) tell(ctx context.Context, s *service, f event.Finding) {
	select {
	case v.telling <- struct{}{}:
		defer func() { <-v.telling }()
	default:
		s.dropped.Add(1)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	if _, err := v.peer.Publish(ctx, f); err != nil {
		s.dropped.Add(1)
		v.decoy.log.Error("decoy touch not published", "source", f.Subject.Address, "err", err)
	}
}

// publishLater signs what visitors said, apart from the touches of others.
func (v *visits) publishLater(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-v.later:
			if _, err := v.peer.Publish(ctx, f); err != nil && ctx.Err() == nil {
				v.decoy.log.Error("decoy session not published", "err", err)
			}
		}
	}
}

// touch is the finding that has the swarm refuse the source.
func touch(name string, remote, local netip.AddrPort, boot uint64, now time.Time) event.Finding {
	return event.Finding{
		Time: now.UnixNano(), Boot: boot,
		RuleID: "omega.decoy.touch", Rule: "decoy touched", Title: remote.Addr().String() + " connected to the decoy " + name,
		Attack: []string{"T1021", "T1046"}, Severity: event.SeverityHigh, Confidence: 100,
		Subject:   event.Subject{Address: remote.Addr(), Port: local.Port()},
		Evidence:  []event.Evidence{{Name: "source_port", Value: strconv.Itoa(int(remote.Port()))}},
		Handshake: true, Decoy: name,
	}
}

// session is what a visitor did after the touch. It carries no Handshake: the touch has had its effect, and what was
// typed is for people.
func session(name string, remote, local netip.AddrPort, boot uint64, now time.Time, said transcript) (f event.Finding, worth bool) {
	if said.bytes == 0 {
		return f, false
	}
	f = event.Finding{
		Time: now.UnixNano(), Boot: boot,
		RuleID: "omega.decoy.session", Rule: "decoy session", Title: remote.Addr().String() + " talked to the decoy " + name,
		Attack: []string{"T1021"}, Severity: event.SeverityMedium, Confidence: 50,
		Subject:  event.Subject{Address: remote.Addr(), Port: local.Port(), User: said.user},
		Evidence: said.evidence(), Decoy: name,
	}
	if said.logons > 0 {
		f.Attack = []string{"T1021", "T1110.001"}
	}
	return f, true
}

func addrPort(a net.Addr) (netip.AddrPort, bool) {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port()), p.IsValid()
}
