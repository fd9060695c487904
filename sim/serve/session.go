package serve

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"time"

	simv1 "github.com/omega-mesh/omega/sim/serve/v1"
)

// Bounds of what clients may ask.
const (
	MaxSessions = 64
	MaxWorlds   = 1 << 16          // of a session
	MaxMemory   = 1 << 30          // bytes of all worlds of all sessions, as estimated
	MaxRequest  = 4 << 20          // bytes of one request; a scenario is the largest part of any
	MaxAnswer   = 64 << 20         // bytes of one answer
	DefaultIdle = 10 * time.Minute // after which a session that nobody uses is ended
)

// session is a batch of worlds that belongs to whoever knows its id. Calls on one session are taken one after another.
type session struct {
	id    string
	bytes int64 // as estimated

	mu       sync.Mutex
	b        batch
	worlds   int
	masks    bool
	reset    bool // a step after an episode's end begins the next one
	seed     uint64
	episode  []uint32
	played   []uint32 // steps of the present episode
	over     []bool
	lastUsed time.Time // guarded by the Server's lock
}

// parallel is how many bytes of worlds are worth another goroutine: below, starting it costs more than it saves.
const parallel = 2 << 20

// each calls f for every world, on several cores where the batch is large. f must touch nothing but world i.
func (s *session) each(f func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), int(s.bytes/parallel)+1, s.worlds)
	if workers == 1 {
		for i := range s.worlds {
			f(i)
		}
		return
	}
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := w * s.worlds / workers; i < (w+1)*s.worlds/workers; i++ {
				f(i)
			}
		})
	}
	all.Wait()
}

func (s *session) restart(i int) {
	s.b.restart(i, Stream(s.seed, i, s.episode[i]))
	s.played[i], s.over[i] = 0, false
}

// begin resets worlds: all of them or those whose byte in which is set; from a seed, or each to its next episode.
func (s *session) begin(seed *uint64, which []byte) (*frame, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(which) != 0 && len(which) != s.worlds {
		return nil, fmt.Errorf("%w: %d bytes say which worlds to reset; the session has %d worlds", ErrInvalid, len(which), s.worlds)
	}
	if seed != nil {
		if len(which) != 0 {
			return nil, fmt.Errorf("%w: a new seed resets all worlds; leave out which", ErrInvalid)
		}
		s.seed = *seed
	}
	f := newFrame(s.b.agents(), s.worlds, s.masks)
	s.each(func(i int) {
		if len(which) == 0 || which[i] != 0 {
			switch {
			case seed != nil:
				s.episode[i] = 0
			case s.played[i] > 0 || s.over[i]:
				s.episode[i]++
			} // else nothing was played in it: it stands at its beginning
			s.restart(i)
		}
		f.show(s.b, i)
	})
	return f, nil
}

// actions reads a step's actions and checks each against its agent's space.
func (s *session) actions(raw []byte) ([]int32, error) {
	agents := s.b.agents()
	if want := 4 * s.worlds * len(agents); len(raw) != want {
		return nil, fmt.Errorf("%w: actions of %d bytes; %d agents in %d worlds take %d (int32, little-endian)", ErrInvalid, len(raw), len(agents), s.worlds, want)
	}
	list := make([]int32, s.worlds*len(agents)) // by world, then agent
	for k := range agents {
		for i := range s.worlds {
			a := int32(binary.LittleEndian.Uint32(raw[4*(k*s.worlds+i):]))
			if a < 0 || int(a) >= len(agents[k].actions) {
				return nil, fmt.Errorf("%w: world %d: action %d of %s; from 0 to %d", ErrInvalid, i, a, agents[k].name, len(agents[k].actions)-1)
			}
			list[i*len(agents)+k] = a
		}
	}
	return list, nil
}

// step plays one step in every world. Either all are played or none.
func (s *session) step(raw []byte) (*frame, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	actions, err := s.actions(raw)
	if err != nil {
		return nil, err
	}
	if !s.reset {
		for i, over := range s.over {
			if over {
				return nil, fmt.Errorf("%w in world %d: reset it (autoreset is disabled)", ErrOver, i)
			}
		}
	}
	agents := s.b.agents()
	f := newFrame(agents, s.worlds, s.masks)
	s.each(func(i int) {
		if s.over[i] {
			s.episode[i]++
			s.restart(i)
			f.show(s.b, i)
			return
		}
		var rewards [sides]float64
		terminated := s.b.step(i, actions[i*len(agents):(i+1)*len(agents)], rewards[:])
		s.played[i]++
		if terminated {
			f.Terminated[i] = 1
		} else if s.played[i] >= s.b.length() {
			f.Truncated[i] = 1
		}
		s.over[i] = f.Terminated[i]|f.Truncated[i] != 0
		for k := range agents {
			f.reward(i, k, rewards[k])
		}
		f.show(s.b, i)
	})
	return f, nil
}

// describe is what a client is told of its new session.
func (s *session) describe() *simv1.CreateResponse {
	r := &simv1.CreateResponse{Session: s.id, Worlds: uint32(s.worlds), Steps: s.b.length()}
	for _, a := range s.b.agents() {
		r.Agents = append(r.Agents, &simv1.Agent{Name: a.name, Actions: a.actions, Observation: a.observation,
			Action: &simv1.Space{Kind: discrete, N: uint32(len(a.actions)), High: float64(len(a.actions) - 1)}})
	}
	return r
}
