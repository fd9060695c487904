package swarm

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/block"
)

// shelf is what a peer of a test has by content.
type shelf struct{ m map[[32]byte][]byte }

func (s shelf) Block(sum [32]byte) ([]byte, bool) { b, ok := s.m[sum]; return b, ok }

// TestBlocksGoFromMemberToMember: over proved connections, from two members that each have a part.
func TestBlocksGoFromMemberToMember(t *testing.T) {
	w := newWorld(t)
	var names []block.Name
	shelves := []shelf{{map[[32]byte][]byte{}}, {map[[32]byte][]byte{}}}
	for i := range 8 {
		data := bytes.Repeat([]byte{byte(i)}, block.MaxBlock)
		sum := sha256.Sum256(data)
		names = append(names, block.Name{Sum: sum})
		shelves[i%2].m[sum] = data
	}
	holds := func(s shelf) option { return func(c *Config) { c.Blocks = s } }
	a, b, c := w.member("a"), w.member("b"), w.member("c")
	first := a.up(holds(shelves[0]))
	second := b.up(holds(shelves[1]), bootstrap(first))
	asker := c.up(bootstrap(first, second))
	asker.meets(2, 10*time.Second)
	var mu sync.Mutex
	got := map[[32]byte]int{}
	take := func(n block.Name, data []byte) error {
		mu.Lock()
		defer mu.Unlock()
		got[n.Sum] += len(data)
		return nil
	}
	check(t, asker.swarm.Fetch(t.Context(), names, take))
	for _, n := range names {
		if got[n.Sum] != block.MaxBlock {
			t.Errorf("a block came with %d bytes", got[n.Sum])
		}
	}
	if err := asker.swarm.Fetch(t.Context(), []block.Name{{Sum: [32]byte{1}}}, take); !errors.Is(err, block.ErrNowhere) {
		t.Errorf("what nobody has: %v", err)
	}
	if err := first.swarm.Fetch(t.Context(), names[:2], take); !errors.Is(err, block.ErrNowhere) { // the third gives nothing, the second has one
		t.Errorf("a member that keeps no blocks gave some: %v", err)
	}
}
