package ledger

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/tlog"
)

// A feed's file is a header and records, little-endian:
//
//	header  "OMEGAFD\x01" | author 32 | chain 1 | 7 zero | number of the first record 8 | 4 zero | CRC-32C 4   (64 bytes)
//	record  length 4 | CRC-32C of the 8 bytes that follow and the entry 4 | durable 8 | entry
//
// durable is the number of entries that had been acknowledged when the record was written. A write that a power cut tore
// leaves any mixture of its bytes; if a record is spoilt and records after it are whole, theirs tells whether entries
// that were acknowledged are gone (damage) or only the last, never acknowledged, write is (a torn tail).
const (
	segmentMagic = "OMEGAFD\x01"
	headerSize   = 64
	recordHead   = 16
	suffixFeed   = ".feed"
	suffixProof  = ".proof"
	suffixBase   = ".base" // of a trimmed feed
	suffixMark   = ".mark" // a base it may be trimmed to
)

func crc(parts ...[]byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	var c uint32
	for _, p := range parts {
		c = crc32.Update(c, table, p)
	}
	return c
}

func feedFile(f Feed) string {
	return strings.TrimPrefix(string(f.Author), "did:omega:") + "-" + f.Chain.String() + suffixFeed
}

// segmentFile is the file of the segment that begins with entry first.
func segmentFile(f Feed, first uint64) string {
	if first == 0 {
		return feedFile(f)
	}
	return fmt.Sprintf("%s-%016x%s", strings.TrimSuffix(feedFile(f), suffixFeed), first, suffixFeed)
}

// besideFile is what lies beside a feed's segments under the same name.
func besideFile(f Feed, suffix string) string {
	return strings.TrimSuffix(feedFile(f), suffixFeed) + suffix
}

// parseFeedFile is the feed a file belongs to, and the number in its name; 0 where it has none.
func parseFeedFile(name, suffix string) (f Feed, first uint64, ok bool) {
	rest, ok := strings.CutSuffix(name, suffix)
	digits, chain, cut := strings.Cut(rest, "-")
	did, err := identity.ParseDID("did:omega:" + digits)
	if !ok || !cut || err != nil {
		return Feed{}, 0, false
	}
	chain, number, numbered := strings.Cut(chain, "-")
	if numbered {
		if first, err = strconv.ParseUint(number, 16, 63); err != nil || first == 0 || fmt.Sprintf("%016x", first) != number {
			return Feed{}, 0, false
		}
	}
	for _, c := range []Chain{Authority, Activity} {
		if chain == c.String() {
			return Feed{did, c}, first, true
		}
	}
	return Feed{}, 0, false
}

// segment is one file of a feed. A new one begins with a checkpoint, so that a feed can be trimmed by removing files.
type segment struct {
	name  string
	first uint64    // number of its first entry
	tree  tlog.Tree // of the entries before it
	time  int64     // of its first entry; 0 while it has none
	size  int64     // bytes that hold entries
	index []int64   // offset of every trust.IndexEvery-th entry
}

// take counts e, stored in size bytes at the end.
func (s *segment) take(e *Entry, size int64) {
	if (e.Seq-s.first)%trust.IndexEvery == 0 {
		s.index = append(s.index, s.size)
	}
	if s.time == 0 {
		s.time = e.Time
	}
	s.size += size
}

// ends says whether e begins a new segment.
func (s *segment) ends(e *Entry) bool {
	return e.Kind == KindCheckpoint && e.Seq > s.first && (s.size >= trust.SegmentBytes || e.Time-s.time >= int64(trust.SegmentAge))
}

func segmentHeader(f Feed, first uint64) []byte {
	h := make([]byte, headerSize)
	author, _ := f.Author.Bytes() // f.Author was parsed or decoded
	copy(h, segmentMagic)
	copy(h[8:], author[:])
	h[40] = byte(f.Chain)
	binary.LittleEndian.PutUint64(h[48:], first)
	binary.LittleEndian.PutUint32(h[60:], crc(h[:60]))
	return h
}

func appendRecord(b []byte, raw []byte, durable uint64) []byte {
	var head [recordHead]byte
	binary.LittleEndian.PutUint32(head[0:], uint32(len(raw)))
	binary.LittleEndian.PutUint64(head[8:], durable)
	binary.LittleEndian.PutUint32(head[4:], crc(head[8:], raw))
	return append(append(b, head[:]...), raw...)
}

var errRecord = errors.New("record does not check")

// readRecord reads the next record; its bytes are the caller's. io.EOF means a clean end.
func readRecord(r io.Reader) (raw []byte, durable uint64, err error) {
	var head [recordHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, 0, io.EOF
		}
		return nil, 0, fmt.Errorf("%w: %w", errRecord, err)
	}
	n := binary.LittleEndian.Uint32(head[0:])
	if n == 0 || n > trust.MaxEntry {
		return nil, 0, fmt.Errorf("%w: length %d", errRecord, n)
	}
	raw = make([]byte, n)
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", errRecord, err)
	}
	if crc(head[8:], raw) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, 0, fmt.Errorf("%w: checksum", errRecord)
	}
	return raw, binary.LittleEndian.Uint64(head[8:]), nil
}

// scan reads the last segment of f: links, quota, epoch key and index. It cuts what a crash tore, and reports what is
// damaged. Signatures were verified when the entries came in and are not again.
func (l *Ledger) scan(f *feed) (*Fault, error) {
	seg := f.last()
	h, err := l.files.get(seg.name)
	if err != nil {
		return nil, err
	}
	defer l.files.put(h, false)
	size, err := h.Size()
	if err != nil {
		return nil, err
	}
	header := make([]byte, min(size, headerSize))
	if _, err := h.ReadAt(header, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !bytes.Equal(header, segmentHeader(f.id, seg.first)) {
		return l.rewrite(f, h, size, len(header) == headerSize)
	}
	seg.size = headerSize
	r := bufio.NewReaderSize(io.NewSectionReader(h, headerSize, size-headerSize), 256<<10)
	for {
		raw, _, err := readRecord(r)
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		var e *Entry
		var epoch *epochKey
		if err == nil {
			e, err = decodeOwned(raw)
		}
		if err == nil {
			epoch, err = f.linkStored(e, l.swarm)
		}
		if err != nil {
			return l.cut(f, h, size, err)
		}
		seg.take(e, int64(recordHead+len(raw)))
		f.state = f.state.next(e, epoch)
	}
}

// rewrite puts the header of an empty segment; a whole but foreign header is damage.
func (l *Ledger) rewrite(f *feed, h *handle, size int64, foreign bool) (*Fault, error) {
	seg := f.last()
	var fault *Fault
	if foreign {
		next, _, err := l.salvage(f, seg.name, h, 0, size)
		if err != nil {
			return nil, err
		}
		f.lost = max(f.lost, next)
		fault = &Fault{Feed: f.id, File: seg.name, Detail: "the header is damaged; the file was set aside and is fetched again from peers"}
	}
	if err := h.Truncate(0); err != nil {
		return nil, err
	}
	if _, err := h.WriteAt(segmentHeader(f.id, seg.first), 0); err != nil {
		return nil, err
	}
	seg.size = headerSize
	if !f.own {
		return fault, nil // what a power cut takes of it is pulled again: thousands of feeds come at a join
	}
	return fault, errors.Join(h.Sync(), l.disk.Sync())
}

// cut ends f before a record that does not check. What follows is set aside if any of it is whole.
func (l *Ledger) cut(f *feed, h *handle, size int64, cause error) (*Fault, error) {
	seg := f.last()
	acked, whole, err := l.salvage(f, seg.name, h, seg.size, size)
	if err != nil {
		return nil, err
	}
	var fault *Fault
	if whole && acked > f.count {
		f.lost = max(f.lost, acked)
		fault = &Fault{Feed: f.id, File: seg.name, Detail: fmt.Sprintf("damaged after entry %d of at least %d (%v); the rest was set aside and is fetched again from peers", f.count, acked, cause)}
	} else {
		l.log.Warn("cut the torn end of a feed", "file", seg.name, "entries", f.count, "bytes", size-seg.size)
	}
	if err := h.Truncate(seg.size); err != nil {
		return nil, err
	}
	return fault, h.Sync()
}

// maxSalvage bounds how much of a damaged file is kept and searched.
const maxSalvage = 64 << 20

// salvage looks for whole records from offset on, and says how many entries they prove to have been acknowledged. Where
// there are any, the bytes are kept in a file beside.
func (l *Ledger) salvage(f *feed, name string, h *handle, offset, size int64) (acked uint64, whole bool, err error) {
	rest := make([]byte, min(size-offset, maxSalvage))
	if _, err := h.ReadAt(rest, offset); err != nil && !errors.Is(err, io.EOF) {
		return 0, false, err
	}
	mark := entryMark(l.swarm)
	for at := 0; ; {
		i := bytes.Index(rest[at:], mark)
		if i < 0 {
			break
		}
		at += i
		if at >= recordHead {
			if raw, durable, err := readRecord(bytes.NewReader(rest[at-recordHead:])); err == nil {
				if e, err := decodeOwned(raw); err == nil && e.Feed() == f.id {
					whole = true
					acked = max(acked, durable)
				}
			}
		}
		at += len(mark)
	}
	if !whole {
		return 0, false, nil
	}
	return acked, true, l.disk.Write(name+".damaged", rest)
}

// entryMark is how every entry of a swarm begins.
func entryMark(swarm trust.SwarmID) []byte {
	return appendBytes([]byte{entryVersion, 0xa0 | keyBody, keySwarm}, swarm[:])
}
