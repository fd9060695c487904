package integrity

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"lukechampine.com/blake3"
)

// ErrFormat is wrapped by every refusal to read a stored baseline or entry.
var ErrFormat = errors.New("no baseline")

// Bounds and marks of the stored form, which README.md describes.
const (
	magic     = "OMEGAFIM"
	version   = 1
	maxListed = 1024 // paths watched, or left out
	maxStored = 96 << 20
)

// State is all that is kept of a host's watched files.
type State struct {
	Time     int64    // of the last look at all of them, Unix nanoseconds
	Paths    []string // watched
	Exclude  []string
	Accepted Baseline // what they are to be
	// Standing is what was seen to differ and is not accepted: how it is, nil where it is gone.
	Standing map[string]*Entry
}

// StandingRoot is the Merkle root of what differs, by the order of paths; of what is gone the leaf is its path alone.
func (s *State) StandingRoot() [32]byte {
	b := Baseline{}
	for _, path := range s.standing() {
		e := Entry{Path: path}
		if is := s.Standing[path]; is != nil {
			e = *is
		}
		b.Entries = append(b.Entries, e)
	}
	return b.Root()
}

// standing are the paths that differ, in order.
func (s *State) standing() []string {
	paths := make([]string, 0, len(s.Standing))
	for p := range s.Standing {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths
}

// Write stores a state and gives its digest, which is its last 32 bytes: the BLAKE3 of all before them.
func (s *State) Write(w io.Writer) (digest [32]byte, err error) {
	hash := blake3.New(32, nil)
	out := bufio.NewWriterSize(io.MultiWriter(w, hash), 64<<10)
	b := append(make([]byte, 0, 2*MaxPath), magic...)
	b = binary.BigEndian.AppendUint16(b, version)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Time))
	b = binary.BigEndian.AppendUint64(b, s.Accepted.Skipped)
	for _, list := range [][]string{s.Paths, s.Exclude} {
		b = binary.BigEndian.AppendUint16(b, uint16(min(len(list), maxListed)))
		for _, p := range list[:min(len(list), maxListed)] {
			b = appendText(b, p)
		}
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Accepted.Entries)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Standing)))
	_, _ = out.Write(b) // Flush tells of a fault
	for i := range s.Accepted.Entries {
		b = AppendEntry(b[:0], &s.Accepted.Entries[i])
		_, _ = out.Write(b)
	}
	for _, p := range s.standing() {
		if is := s.Standing[p]; is != nil {
			b = AppendEntry(append(b[:0], 1), is)
		} else {
			b = appendText(append(b[:0], 0), p)
		}
		_, _ = out.Write(b)
	}
	if err := out.Flush(); err != nil {
		return digest, fmt.Errorf("store the baseline: %w", err)
	}
	hash.Sum(digest[:0])
	if _, err := w.Write(digest[:]); err != nil {
		return digest, fmt.Errorf("store the baseline: %w", err)
	}
	return digest, nil
}

func appendText(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// AppendEntry appends the stored form of one entry.
func AppendEntry(b []byte, e *Entry) []byte {
	b = appendText(appendText(b, e.Path), e.Target)
	for _, n := range [...]uint32{e.Mode, e.UID, e.GID} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	for _, n := range [...]uint64{uint64(e.Size), e.Inode, e.Device, uint64(e.Changed), uint64(e.Modified)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return append(append(b, e.Digest[:]...), e.Xattrs[:]...)
}

// ReadEntry reads what AppendEntry wrote, and nothing after it.
func ReadEntry(raw []byte) (*Entry, error) {
	r := &reader{in: bufio.NewReader(strings.NewReader(string(raw)))}
	e := r.entry()
	if r.err != nil {
		return nil, fmt.Errorf("%w: an entry: %w", ErrFormat, r.err)
	}
	if _, err := r.in.ReadByte(); err == nil {
		return nil, fmt.Errorf("%w: bytes after an entry", ErrFormat)
	}
	return &e, nil
}

// Read reads what Write wrote and gives its digest. It believes no count before it has the bytes, and refuses what is not in
// order, not whole, or longer than this package would write. The error wraps ErrFormat unless reading itself failed.
func Read(in io.Reader) (*State, [32]byte, error) {
	hash := blake3.New(32, nil)
	limited := io.LimitReader(in, maxStored+1)
	r := &reader{in: bufio.NewReaderSize(limited, 64<<10), hash: hash}
	s, err := r.state()
	var digest, stored [32]byte
	hash.Sum(digest[:0])
	r.hash = nil
	r.fill(stored[:])
	switch {
	case err != nil:
	case r.err != nil:
		err = r.err
	case stored != digest:
		err = errors.New("its digest is another")
	default:
		if _, end := r.in.ReadByte(); end == nil {
			err = errors.New("there are bytes after its end")
		}
	}
	if err != nil {
		return nil, digest, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return s, digest, nil
}

// reader keeps its first fault; what it gives after that means nothing.
type reader struct {
	in      *bufio.Reader
	hash    *blake3.Hasher
	err     error
	scratch [MaxPath]byte
}

func (r *reader) fill(b []byte) {
	if r.err != nil {
		clear(b)
		return
	}
	if _, err := io.ReadFull(r.in, b); err != nil {
		r.err = errors.New("it ends too early")
		clear(b)
		return
	}
	if r.hash != nil {
		r.hash.Write(b)
	}
}

func (r *reader) u16() uint16 { r.fill(r.scratch[:2]); return binary.BigEndian.Uint16(r.scratch[:]) }
func (r *reader) u32() uint32 { r.fill(r.scratch[:4]); return binary.BigEndian.Uint32(r.scratch[:]) }
func (r *reader) u64() uint64 { r.fill(r.scratch[:8]); return binary.BigEndian.Uint64(r.scratch[:]) }

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

func (r *reader) text() string {
	n := int(r.u16())
	if n > MaxPath {
		r.fail("a text of %d bytes", n)
		return ""
	}
	r.fill(r.scratch[:n])
	return string(r.scratch[:n])
}

func (r *reader) path() string {
	p := r.text()
	if r.err == nil && !plain(p) {
		r.fail("%.80q is no path", p)
	}
	return p
}

func (r *reader) entry() Entry {
	e := Entry{Path: r.path(), Target: r.text(), Mode: r.u32(), UID: r.u32(), GID: r.u32(), Size: int64(r.u64()), Inode: r.u64(), Device: r.u64(),
		Changed: int64(r.u64()), Modified: int64(r.u64())}
	r.fill(e.Digest[:])
	r.fill(e.Xattrs[:])
	if e.Size < 0 {
		r.fail("a size of %d", e.Size)
	}
	return e
}

func (r *reader) state() (*State, error) {
	r.fill(r.scratch[:len(magic)])
	if r.err == nil && string(r.scratch[:len(magic)]) != magic {
		return nil, errors.New("it begins otherwise")
	}
	if v := r.u16(); r.err == nil && v != version {
		return nil, fmt.Errorf("version %d, want %d", v, version)
	}
	s := &State{Time: int64(r.u64()), Standing: map[string]*Entry{}}
	s.Accepted.Skipped = r.u64()
	for _, list := range []*[]string{&s.Paths, &s.Exclude} {
		n := int(r.u16())
		if n > maxListed {
			r.fail("%d paths", n)
		}
		for i := 0; i < n && r.err == nil; i++ {
			*list = append(*list, r.path())
		}
	}
	entries, standing := r.u32(), r.u32()
	if entries > MaxEntries || standing > 2*MaxEntries {
		r.fail("%d entries, %d that differ", entries, standing)
	}
	if r.err == nil {
		s.Accepted.Entries = make([]Entry, 0, min(entries, 8192)) // grows with what really comes
	}
	last := ""
	order := func(p string) {
		if r.err == nil && p <= last {
			r.fail("%.80q comes after %.80q", p, last)
		}
		last = p
	}
	for i := uint32(0); i < entries && r.err == nil; i++ {
		e := r.entry()
		order(e.Path)
		s.Accepted.Entries = append(s.Accepted.Entries, e)
	}
	last = ""
	for i := uint32(0); i < standing && r.err == nil; i++ {
		r.fill(r.scratch[:1])
		switch there := r.scratch[0]; there {
		case 0:
			p := r.path()
			order(p)
			s.Standing[p] = nil
		case 1:
			e := r.entry()
			order(e.Path)
			s.Standing[e.Path] = &e
		default:
			r.fail("mark %d", there)
		}
	}
	return s, r.err
}
