package audit

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// An export is the magic and records: kind 1, length 4 (little-endian), CRC-32C 4 over kind, length and payload, payload.
// The genesis comes first, then the feeds, each announced by a record of its own, authority chains before activity
// chains and none before what admits its author; then the proofs; last the end, with the digest of all before it.
const magic = "OMEGAEX\x01"

const recordHead = 1 + 4 + 4

// maxRecord bounds a payload before it is read.
const maxRecord = trust.MaxGenesis + trust.MaxBase

// record is the kind of a record.
type record byte

const (
	recordGenesis  record = 1
	recordFeed     record = 2
	recordEntry    record = 3
	recordEvidence record = 4
	recordEnd      record = 5
)

// String is the kind as faults name it.
func (r record) String() string {
	switch r {
	case recordGenesis:
		return "genesis"
	case recordFeed:
		return "feed"
	case recordEntry:
		return "entry"
	case recordEvidence:
		return "evidence"
	case recordEnd:
		return "end"
	}
	return "header"
}

// feedHead announces a feed and how much of it follows.
type feedHead struct {
	Author []byte `cbor:"1,keyasint"`
	Chain  uint8  `cbor:"2,keyasint"`
	First  uint64 `cbor:"3,keyasint"` // number of the first entry that follows: 0, or the base's
	Count  uint64 `cbor:"4,keyasint"`
	Base   []byte `cbor:"5,keyasint,omitempty"` // ledger.Base, where the feed does not begin at 0
}

func decodeFeedHead(raw []byte) (h feedHead, f ledger.Feed, base *ledger.Base, err error) {
	if err := canonical.Unmarshal(raw, &h, maxRecord); err != nil {
		return h, f, nil, err
	}
	f.Chain = ledger.Chain(h.Chain)
	if len(h.Author) != 32 || !f.Chain.Valid() || h.First > 1<<62 || h.Count > 1<<62 || (h.First == 0) != (len(h.Base) == 0) {
		return h, f, nil, fmt.Errorf("audit: a feed of %d entries from %d", h.Count, h.First)
	}
	f.Author = identity.DIDFromBytes([32]byte(h.Author))
	if h.First == 0 {
		return h, f, nil, nil
	}
	if base, err = ledger.DecodeBase(h.Base); err != nil {
		return h, f, nil, err
	}
	if base.Feed != f || base.First != h.First {
		return h, f, nil, errors.New("audit: the base is of another feed or number")
	}
	return h, f, base, nil
}

// ending is the last record.
type ending struct {
	Feeds    uint64 `cbor:"1,keyasint"`
	Entries  uint64 `cbor:"2,keyasint"`
	Evidence uint64 `cbor:"3,keyasint"`
	Digest   []byte `cbor:"4,keyasint"` // SHA-256 of every byte before this record
}

// writer writes records and keeps the digest.
type writer struct {
	w     *bufio.Writer
	sum   hash.Hash
	table *crc32.Table
}

func newWriter(w io.Writer) (*writer, error) {
	out := &writer{w: bufio.NewWriterSize(w, 256<<10), sum: sha256.New(), table: crc32.MakeTable(crc32.Castagnoli)}
	return out, out.write([]byte(magic))
}

func (w *writer) write(b []byte) error {
	w.sum.Write(b)
	_, err := w.w.Write(b)
	return err
}

func (w *writer) record(kind record, payload []byte) error {
	if len(payload) > maxRecord {
		return fmt.Errorf("audit: a record of %d bytes", len(payload))
	}
	var head [recordHead]byte
	head[0] = byte(kind)
	binary.LittleEndian.PutUint32(head[1:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(head[5:], crc32.Update(crc32.Update(0, w.table, head[:5]), w.table, payload))
	if err := w.write(head[:]); err != nil {
		return err
	}
	return w.write(payload)
}

// errDamage says that bytes at this place are no record; reading goes on behind them.
var errDamage = errors.New("checksum: these bytes are not what was written")

// reader reads records; behind damage it finds the next whole one.
type reader struct {
	r     *bufio.Reader
	sum   hash.Hash
	table *crc32.Table
	at    int64 // of the next byte
	used  int   // of the record handed out last
}

func newReader(r io.Reader) *reader {
	return &reader{r: bufio.NewReaderSize(r, 2*(recordHead+maxRecord)), sum: sha256.New(), table: crc32.MakeTable(crc32.Castagnoli)}
}

// magic reads the first bytes.
func (r *reader) magic() error {
	b, err := r.r.Peek(len(magic))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	same := string(b) == magic
	if err := r.take(min(len(b), len(magic))); err != nil {
		return err
	}
	if !same {
		return errDamage
	}
	return nil
}

// take passes over n bytes that were peeked.
func (r *reader) take(n int) error {
	b, err := r.r.Peek(n)
	if err != nil {
		return err
	}
	r.sum.Write(b)
	_, err = r.r.Discard(n)
	r.at += int64(n)
	return err
}

// whole is the record at the begin of b.
func (r *reader) whole(b []byte) (kind record, payload []byte, ok bool) {
	if len(b) < recordHead || b[0] < byte(recordGenesis) || b[0] > byte(recordEnd) {
		return 0, nil, false
	}
	n := binary.LittleEndian.Uint32(b[1:])
	if n > maxRecord || int(n) > len(b)-recordHead {
		return 0, nil, false
	}
	payload = b[recordHead : recordHead+int(n)]
	if crc32.Update(crc32.Update(0, r.table, b[:5]), r.table, payload) != binary.LittleEndian.Uint32(b[5:]) {
		return 0, nil, false
	}
	return record(b[0]), payload, true
}

// next is the next record, good until the following call, and where it begins; io.EOF at a clean end. On errDamage the
// damaged bytes have been passed over.
func (r *reader) next() (kind record, payload []byte, at int64, err error) {
	if err := r.take(r.used); err != nil {
		return 0, nil, r.at, err
	}
	r.used = 0
	at = r.at
	b, err := r.r.Peek(recordHead)
	if len(b) == recordHead {
		if n := binary.LittleEndian.Uint32(b[1:]); n <= maxRecord {
			b, err = r.r.Peek(recordHead + int(n))
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, nil, at, err
	}
	if len(b) == 0 {
		return 0, nil, at, io.EOF
	}
	if kind, payload, ok := r.whole(b); ok {
		r.used = recordHead + len(payload)
		return kind, payload, at, nil
	}
	return 0, nil, at, r.resync()
}

// resync passes over what is no record.
func (r *reader) resync() error {
	for skip := 1; ; skip = 0 {
		b, err := r.r.Peek(2 * (recordHead + maxRecord))
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		last := err != nil
		end := len(b)
		if !last {
			end -= recordHead + maxRecord // a record that begins here is wholly in b
		}
		for i := skip; i < end; i++ {
			if _, _, ok := r.whole(b[i:]); ok {
				return errors.Join(r.take(i), errDamage)
			}
		}
		if err := r.take(end); err != nil {
			return err
		}
		if last {
			return errDamage
		}
	}
}

// digest is of every byte before the record handed out last.
func (r *reader) digest() []byte { return r.sum.Sum(nil) }
