package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A segment is a file of blocks. When it is full, what its blocks begin with (place, header, filter) is written once more at
// its end, so that a reader has it in one piece, and then the trailer:
//
//	0 magic      8 length of the index   16 events       24 first time
//	4 checksum  12 0                     40 classes, 0   32 last time   48 checksum of the index, 0   56 0
const (
	trailerMagic = 0x31544a4f // "OJT1"
	trailerLen   = 64
	suffix       = ".events"
)

// segment is one file; what is here of it changes under the journal's lock alone.
type segment struct {
	id      uint64
	path    string
	size    int64 // bytes, index and trailer too
	blocks  int64 // bytes of blocks
	index   []byte
	sealed  bool
	events  uint64
	first   int64
	last    int64
	classes uint16
}

func newSegment(dir string, id uint64) *segment {
	return &segment{id: id, path: filepath.Join(dir, fmt.Sprintf("%016x%s", id, suffix)), first: math.MaxInt64, last: math.MinInt64}
}

// note adds a block that begins at s.blocks to the index. b is at least its header and filter.
func (s *segment) note(h *header, b []byte) {
	s.index = binary.LittleEndian.AppendUint64(s.index, uint64(s.blocks))
	s.index = append(s.index, b[:headerLen+h.filterLen()]...)
	s.blocks += int64(h.length)
	s.size = s.blocks
	s.events += uint64(h.events)
	s.first, s.last = min(s.first, h.first), max(s.last, h.last)
	s.classes |= h.classes
}

// seal writes the index and the trailer; the segment takes no more blocks.
func (s *segment) seal(f *os.File) error {
	le := binary.LittleEndian
	var t [trailerLen]byte
	le.PutUint32(t[0:], trailerMagic)
	le.PutUint32(t[8:], uint32(len(s.index)))
	le.PutUint64(t[16:], s.events)
	le.PutUint64(t[24:], uint64(s.first))
	le.PutUint64(t[32:], uint64(s.last))
	le.PutUint16(t[40:], s.classes)
	le.PutUint32(t[48:], crc32.Checksum(s.index, castagnoli))
	le.PutUint32(t[4:], crc32.Checksum(t[8:], castagnoli))
	if _, err := f.WriteAt(append(s.index, t[:]...), s.blocks); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	s.size = s.blocks + int64(len(s.index)) + trailerLen
	s.index, s.sealed = nil, true
	return nil
}

// openSegment reads the trailer of a segment; one that has none, or another's, is read through, cut at the first block
// that is not whole, and sealed. cut is how many bytes went.
func openSegment(path string, id uint64) (s *segment, cut int64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	s = newSegment(filepath.Dir(path), id)
	s.size = st.Size()
	if s.readTrailer(f) {
		return s, 0, nil
	}
	size := s.size
	s.size = 0
	var buf []byte
	for s.blocks < size {
		h, b, err := readBlock(f, s.blocks, buf)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, io.EOF) {
				return nil, 0, err
			}
			break
		}
		buf = b
		s.note(&h, b)
	}
	cut = size - s.blocks
	if err := f.Truncate(s.blocks); err != nil {
		return nil, 0, err
	}
	if s.events == 0 {
		return s, cut, nil
	}
	return s, cut, s.seal(f)
}

func (s *segment) readTrailer(f io.ReaderAt) bool {
	var t [trailerLen]byte
	if s.size < trailerLen {
		return false
	}
	if _, err := f.ReadAt(t[:], s.size-trailerLen); err != nil {
		return false
	}
	le := binary.LittleEndian
	if le.Uint32(t[0:]) != trailerMagic || le.Uint32(t[4:]) != crc32.Checksum(t[8:], castagnoli) || int64(le.Uint32(t[8:])) > s.size-trailerLen {
		return false
	}
	s.blocks = s.size - trailerLen - int64(le.Uint32(t[8:]))
	s.events, s.first, s.last, s.classes = le.Uint64(t[16:]), int64(le.Uint64(t[24:])), int64(le.Uint64(t[32:])), le.Uint16(t[40:])
	s.sealed = true
	return true
}

// readIndex reads the index of a sealed segment.
func (s *segment) readIndex(f io.ReaderAt) ([]byte, error) {
	n := s.size - trailerLen - s.blocks
	b := make([]byte, n+trailerLen)
	if _, err := f.ReadAt(b, s.blocks); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if crc32.Checksum(b[:n], castagnoli) != binary.LittleEndian.Uint32(b[n+48:]) {
		return nil, fmt.Errorf("%w: index of %s", ErrDamaged, filepath.Base(s.path))
	}
	return b[:n], nil
}

// readBlock reads and checks the block at off, into buf where it is large enough.
func readBlock(f io.ReaderAt, off int64, buf []byte) (h header, b []byte, err error) {
	var head [headerLen]byte
	if _, err := f.ReadAt(head[:], off); err != nil {
		return h, buf, err
	}
	if h, err = parseHeader(head[:]); err != nil {
		return h, buf, err
	}
	if b = buf; cap(b) < int(h.length) {
		b = make([]byte, h.length)
	}
	b = b[:h.length]
	if _, err := f.ReadAt(b, off); err != nil {
		return h, b, err
	}
	return h, b, checkBlock(b)
}

// listSegments gives the segments in dir, oldest first.
func listSegments(dir string) (paths []string, ids []uint64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		hex, ok := strings.CutSuffix(e.Name(), suffix)
		id, err := strconv.ParseUint(hex, 16, 64)
		if ok && err == nil && len(hex) == 16 && e.Type().IsRegular() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		paths = append(paths, newSegment(dir, id).path)
	}
	return paths, ids, nil
}
