package indicator

import (
	"encoding/binary"
	"hash/maphash"
)

// Bounds of one table.
const (
	// maxEntries is what 24 bits can number; the other 8 bits of a slot are a fingerprint.
	maxEntries = 1<<24 - 2
	metaBytes  = 8
	chunkBits  = 12 // entries of a chunk of keys
	arenaBits  = 18 // bytes of a chunk of texts
	firstSlots = 64
)

// index finds entries by hash: open addressing, linear probing, at most three quarters full. A slot holds the entry's
// number plus one in its low 24 bits, and 8 bits of the hash above them.
type index struct {
	slots  []uint32
	n      uint32
	filter []uint64
}

// settle makes the filter: a Bloom filter of three bits in one word, eight to sixteen bits an entry. It is a quarter of the
// slots, so that a look-up of what is not there stays in a nearer cache.
func (x *index) settle(hash func(i uint32) uint64) {
	if x.n == 0 {
		return
	}
	words := 1
	for uint64(words)*64 < uint64(x.n)*8 {
		words *= 2
	}
	x.filter = make([]uint64, words)
	for i := range x.n {
		h := hash(i)
		x.filter[word(h)&uint64(words-1)] |= filterBits(h)
	}
}

func word(h uint64) uint64 { return h >> 12 }

func filterBits(h uint64) uint64 { return 1<<(h>>38&63) | 1<<(h>>44&63) | 1<<(h>>50&63) }

// absent says that there is surely no entry of that hash; while a set is built it says nothing.
func (x *index) absent(h uint64) bool {
	if len(x.filter) == 0 {
		return x.n == 0
	}
	bits := filterBits(h)
	return x.filter[word(h)&uint64(len(x.filter)-1)]&bits != bits
}

func tag(h uint64) uint32 { return uint32(h>>56) << 24 }

// insert adds entry number n, which must not be there yet.
func (x *index) insert(h uint64) {
	mask := uint64(len(x.slots) - 1)
	i := h & mask
	for x.slots[i] != 0 {
		i = (i + 1) & mask
	}
	x.n++
	x.slots[i] = tag(h) | x.n
}

// full says whether one more needs a larger index.
func (x *index) full() bool { return len(x.slots) == 0 || uint64(x.n+1)*4 > uint64(len(x.slots))*3 }

func (x *index) bytes() int64 { return 4*int64(len(x.slots)) + 8*int64(len(x.filter)) }

// grow makes the index larger; hash gives that of entry i.
func (x *index) grow(hash func(i uint32) uint64) {
	n := x.n
	x.slots, x.n = make([]uint32, max(firstSlots, 2*len(x.slots))), 0
	for i := range n {
		x.insert(hash(i))
	}
}

// keys is a set of keys of one size, each with its Meta.
type keys struct {
	index
	width  int
	chunks [][]byte
}

// entry is the record of number i: key, then meta.
func (t *keys) entry(i uint32) []byte {
	size := t.width + metaBytes
	at := int(i&(1<<chunkBits-1)) * size
	return t.chunks[i>>chunkBits][at : at+size : at+size]
}

// hash gives that of an entry.
func (t *keys) hash(seed maphash.Seed) func(uint32) uint64 {
	return func(i uint32) uint64 { return maphash.Bytes(seed, t.entry(i)[:t.width]) }
}

// find gives the record of key, or nil.
func (t *keys) find(seed maphash.Seed, key []byte) []byte {
	if t.n == 0 {
		return nil
	}
	h := maphash.Bytes(seed, key)
	if t.absent(h) {
		return nil
	}
	mask, want := uint64(len(t.slots)-1), tag(h)
	for i := h & mask; ; i = (i + 1) & mask {
		s := t.slots[i]
		if s == 0 {
			return nil
		}
		if s&^maxSlot == want {
			if e := t.entry(s&maxSlot - 1); string(e[:t.width]) == string(key) {
				return e
			}
		}
	}
}

// maxSlot masks an entry's number out of a slot.
const maxSlot = 1<<24 - 1

// add gives the record of key and whether it is new; nil if there is no room.
func (t *keys) add(seed maphash.Seed, key []byte) (record []byte, fresh bool) {
	if e := t.find(seed, key); e != nil {
		return e, false
	}
	if t.n >= maxEntries {
		return nil, false
	}
	if t.full() {
		t.grow(t.hash(seed))
	}
	if int(t.n>>chunkBits) == len(t.chunks) {
		t.chunks = append(t.chunks, make([]byte, (t.width+metaBytes)<<chunkBits))
	}
	e := t.entry(t.n)
	copy(e, key)
	t.insert(maphash.Bytes(seed, key))
	return e, true
}

func (t *keys) bytes() int64 {
	return int64(len(t.chunks))*int64((t.width+metaBytes)<<chunkBits) + t.index.bytes()
}

// texts is a set of texts of at most maxText bytes, each with its Meta.
type texts struct {
	index
	offsets [][]uint32 // of the records, by entry
	arena   [][]byte
	used    int // bytes of the last chunk
}

// record is meta, two bytes of length, text.
func (t *texts) record(i uint32) []byte {
	at := t.offsets[i>>chunkBits][i&(1<<chunkBits-1)]
	r := t.arena[at>>arenaBits][at&(1<<arenaBits-1):]
	return r[:metaBytes+2+int(binary.LittleEndian.Uint16(r[metaBytes:]))]
}

func (t *texts) hash(seed maphash.Seed) func(uint32) uint64 {
	return func(i uint32) uint64 { return maphash.Bytes(seed, textOf(t.record(i))) }
}

func textOf(record []byte) []byte { return record[metaBytes+2:] }

func (t *texts) find(seed maphash.Seed, key string) []byte {
	if t.n == 0 {
		return nil
	}
	h := maphash.String(seed, key)
	if t.absent(h) {
		return nil
	}
	mask, want := uint64(len(t.slots)-1), tag(h)
	for i := h & mask; ; i = (i + 1) & mask {
		s := t.slots[i]
		if s == 0 {
			return nil
		}
		if s&^maxSlot == want {
			if r := t.record(s&maxSlot - 1); string(textOf(r)) == key {
				return r
			}
		}
	}
}

func (t *texts) add(seed maphash.Seed, key string) (record []byte, fresh bool) {
	if r := t.find(seed, key); r != nil {
		return r, false
	}
	if t.n >= maxEntries || len(t.arena) >= 1<<(32-arenaBits) {
		return nil, false
	}
	if t.full() {
		t.grow(t.hash(seed))
	}
	size := metaBytes + 2 + len(key)
	if len(t.arena) == 0 || t.used+size > 1<<arenaBits {
		t.arena, t.used = append(t.arena, make([]byte, 1<<arenaBits)), 0
	}
	if int(t.n>>chunkBits) == len(t.offsets) {
		t.offsets = append(t.offsets, make([]uint32, 1<<chunkBits))
	}
	last := len(t.arena) - 1
	t.offsets[t.n>>chunkBits][t.n&(1<<chunkBits-1)] = uint32(last<<arenaBits | t.used)
	r := t.arena[last][t.used : t.used+size : t.used+size]
	binary.LittleEndian.PutUint16(r[metaBytes:], uint16(len(key)))
	copy(textOf(r), key)
	t.used += size
	t.insert(maphash.String(seed, key))
	return r, true
}

func (t *texts) bytes() int64 {
	return int64(len(t.arena))<<arenaBits + int64(len(t.offsets))*4<<chunkBits + t.index.bytes()
}

func (m Meta) put(b []byte) {
	binary.LittleEndian.PutUint16(b, m.Origin)
	b[2], b[3] = m.Confidence, m.flags
	binary.LittleEndian.PutUint32(b[4:], m.Expires)
}

func getMeta(b []byte) Meta {
	return Meta{Origin: binary.LittleEndian.Uint16(b), Confidence: b[2], flags: b[3], Expires: binary.LittleEndian.Uint32(b[4:])}
}

// merge is what two sources say of the same: the surer one is named, the later end holds, and each adds what it covers.
func merge(a, b Meta) Meta {
	out := a
	if b.Confidence > a.Confidence {
		out.Origin, out.Confidence = b.Origin, b.Confidence
	}
	if a.Expires == 0 || b.Expires == 0 {
		out.Expires = 0
	} else {
		out.Expires = max(a.Expires, b.Expires)
	}
	out.flags = a.flags | b.flags
	return out
}
