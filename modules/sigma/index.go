package sigma

// gramIndex finds, in one pass over a text, which of many literals stand in it: by four bytes of each (two, of short ones)
// that few others have, and then by the rest of it around them.
type gramIndex struct {
	four    map[uint32][]anchored
	mask    []uint64 // bits of hashed four-byte grams: most of a text fails here
	shift   uint
	two     map[uint16][]int32
	pairs   []uint64 // bits of two-byte grams
	shortly []int32  // literals of one byte, and none: always to be looked at
}

// anchored is a literal by four of its bytes, which stand at a place of it.
type anchored struct {
	id    int32
	place int
	text  string
}

// newGramIndex indexes literals, which are in lower case, under their numbers.
func newGramIndex(literals map[int32]string, order []int32) *gramIndex {
	x := &gramIndex{four: map[uint32][]anchored{}, two: map[uint16][]int32{}}
	seen := map[uint32]int{} // how many literals have a gram
	for _, id := range order {
		s := literals[id]
		for i := 0; i+4 <= len(s); i++ {
			seen[gram4(s, i)]++
		}
	}
	size := uint(10)
	for 1<<size < 32*len(literals) && size < 20 {
		size++
	}
	x.mask, x.shift = make([]uint64, 1<<size/64), 32-size
	for _, id := range order {
		s := literals[id]
		switch {
		case len(s) >= 4:
			best, least := 0, 1<<30
			for i := 0; i+4 <= len(s); i++ {
				if cost := seen[gram4(s, i)]*16 + common(s[i:i+4]); cost < least {
					best, least = i, cost
				}
			}
			g := gram4(s, best)
			x.four[g] = append(x.four[g], anchored{id, best, s})
			h := hash4(g) >> x.shift
			x.mask[h/64] |= 1 << (h % 64)
		case len(s) >= 2:
			g := uint16(s[0]) | uint16(s[1])<<8
			if x.pairs == nil {
				x.pairs = make([]uint64, 1<<16/64)
			}
			x.two[g] = append(x.two[g], id)
			x.pairs[g/64] |= 1 << (g % 64)
		default:
			x.shortly = append(x.shortly, id)
		}
	}
	return x
}

func gram4(s string, i int) uint32 {
	return uint32(s[i]) | uint32(s[i+1])<<8 | uint32(s[i+2])<<16 | uint32(s[i+3])<<24
}

func hash4(g uint32) uint32 { return g * 0x9e3779b1 }

// common is how often a gram is met in command lines and paths, roughly: 0 is seldom.
func common(s string) int {
	n := 0
	for i := range len(s) {
		switch c := s[i]; c {
		case '/', ' ', '-', '.':
			n += 3
		case 'e', 's', 'i', 'n', 'r', 't', 'o', 'a', 'b', 'u':
			n++
		}
	}
	for _, often := range [...]string{"/usr", "/bin", "usr/", "bin/", "/etc", "etc/", ".con", "conf", "http", "://", "/tmp", "tmp/", "/lib", "lib/", ".exe", "syst", "root"} {
		if s == often {
			n += 40
		}
	}
	return n
}

// each calls f with the number of every literal that stands in s, some of them more than once; short ones also where they do
// not.
func (x *gramIndex) each(s []byte, f func(int32)) {
	for _, id := range x.shortly {
		f(id)
	}
	if len(x.four) > 0 && len(s) >= 4 {
		g := uint32(s[0])<<8 | uint32(s[1])<<16 | uint32(s[2])<<24
		mask, shift := x.mask, x.shift
		for i, c := range s[3:] { // g begins at i
			g = g>>8 | uint32(c)<<24
			h := hash4(g) >> shift
			if mask[h/64]&(1<<(h%64)) != 0 {
				for _, l := range x.four[g] {
					if at := i - l.place; at >= 0 && at+len(l.text) <= len(s) && string(s[at:at+len(l.text)]) == l.text {
						f(l.id)
					}
				}
			}
		}
	}
	if x.pairs != nil {
		for i := 0; i+1 < len(s); i++ {
			g := uint16(s[i]) | uint16(s[i+1])<<8
			if x.pairs[g/64]&(1<<(g%64)) != 0 {
				for _, id := range x.two[g] {
					f(id)
				}
			}
		}
	}
}
