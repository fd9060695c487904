package modules

import (
	"strings"
	"sync"
	"time"
)

// maxStateKey bounds a key, in bytes.
const maxStateKey = 256

// entryCost is what an entry is charged beside its bytes.
const entryCost = 64

// State is what one module remembers on one host: keys and values with an end, within a quota. It is in memory, and a
// restart forgets it: a detector's windows are minutes, and what must last is a finding. It is safe for concurrent use.
type State struct {
	mu      sync.Mutex
	quota   int
	used    int
	entries map[string]stateEntry
}

type stateEntry struct {
	value []byte
	ends  int64 // Unix nanoseconds by the events' clock; 0 never
}

// NewState holds at most quota bytes.
func NewState(quota uint32) *State {
	return &State{quota: int(quota), entries: map[string]stateEntry{}}
}

// Get gives a value that has not ended at now. It is the state's own: the caller does not change it.
func (s *State) Get(key string, now int64) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[key]
	if ok && e.ends != 0 && now >= e.ends {
		s.drop(key, e)
		return nil, false
	}
	return e.value, ok
}

// Put keeps a copy of value until ttl after now (0: until there is no more room for it); nil forgets key. Where there is
// no room it first drops what has ended, and then fails with ErrQuota.
func (s *State) Put(key string, value []byte, now int64, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.entries[key]; ok {
		s.drop(key, old)
	}
	if value == nil {
		return nil
	}
	cost := len(key) + len(value) + entryCost
	if len(key) > maxStateKey || cost > s.quota {
		return ErrQuota
	}
	if s.used+cost > s.quota {
		for k, e := range s.entries {
			if e.ends != 0 && now >= e.ends {
				s.drop(k, e)
			}
		}
		if s.used+cost > s.quota {
			return ErrQuota
		}
	}
	e := stateEntry{value: append([]byte(nil), value...)}
	if ttl > 0 {
		e.ends = now + int64(ttl)
	}
	s.entries[strings.Clone(key)] = e
	s.used += cost
	return nil
}

func (s *State) drop(key string, e stateEntry) {
	delete(s.entries, key)
	s.used -= len(key) + len(e.value) + entryCost
}

// Used is how many bytes are held.
func (s *State) Used() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}
