package sentinel

// slab is a fixed number of values by key that forgets the least recently used. After it is made it allocates nothing:
// what an attacker sends decides which keys it holds, never how much memory it takes.
type slab[K comparable, V any] struct {
	index      map[K]int32
	cells      []cell[K, V]
	head, tail int32 // most and least recent; -1 when empty
	used       int32
}

type cell[K comparable, V any] struct {
	key        K
	value      V
	prev, next int32
}

func newSlab[K comparable, V any](size int) *slab[K, V] {
	return &slab[K, V]{index: make(map[K]int32, size+1), cells: make([]cell[K, V], size), head: -1, tail: -1}
}

// get finds the value of k, or nil; it does not count as use.
func (s *slab[K, V]) get(k K) *V {
	if i, ok := s.index[k]; ok {
		return &s.cells[i].value
	}
	return nil
}

// touch finds the value of k, or a zero one in place of the least recently used.
func (s *slab[K, V]) touch(k K) *V {
	i, ok := s.index[k]
	switch {
	case ok:
		s.unlink(i)
	case int(s.used) < len(s.cells):
		i = s.used
		s.used++
	default:
		i = s.tail
		s.unlink(i)
		delete(s.index, s.cells[i].key)
	}
	c := &s.cells[i]
	if !ok {
		var zero V
		c.key, c.value = k, zero
		s.index[k] = i
	}
	c.prev, c.next = -1, s.head
	if s.head >= 0 {
		s.cells[s.head].prev = i
	}
	s.head = i
	if s.tail < 0 {
		s.tail = i
	}
	return &c.value
}

func (s *slab[K, V]) unlink(i int32) {
	c := &s.cells[i]
	if c.prev >= 0 {
		s.cells[c.prev].next = c.next
	} else {
		s.head = c.next
	}
	if c.next >= 0 {
		s.cells[c.next].prev = c.prev
	} else {
		s.tail = c.prev
	}
}

// len is how many keys it holds.
func (s *slab[K, V]) len() int { return len(s.index) }
