package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"
)

// A block on disk, little endian: the header, the filter, the strings, the columns; the last two compressed by zstd (RFC 8878).
//
//	 0 magic       8 length of all      16 first time   32 classes   36 strings, raw     40 compressed
//	 4 checksum   12 events             24 last time    34 filter    44 columns, raw     48 compressed
//	52 0                                                             56 activities, 128 bits
//
// The checksum is CRC-32C of all that follows it.
const (
	blockMagic = 0x314a424f // "OBJ1"
	headerLen  = 72
)

// ErrDamaged is wrapped by every refusal of what a file holds.
var ErrDamaged = errors.New("journal: damaged")

// header is what a reader knows of a block before it reads it.
type header struct {
	length     uint32
	events     uint32
	first      int64
	last       int64
	classes    uint16
	filter     uint16 // bytes / 64
	dictRaw    uint32
	dict       uint32
	colsRaw    uint32
	cols       uint32
	activities [2]uint64
}

func (h *header) filterLen() int { return int(h.filter) * minFilter }

// parseHeader reads and bounds a header; b holds at least headerLen bytes.
func parseHeader(b []byte) (h header, err error) {
	if len(b) < headerLen || binary.LittleEndian.Uint32(b) != blockMagic {
		return h, fmt.Errorf("%w: no block begins here", ErrDamaged)
	}
	le := binary.LittleEndian
	h = header{length: le.Uint32(b[8:]), events: le.Uint32(b[12:]), first: int64(le.Uint64(b[16:])), last: int64(le.Uint64(b[24:])), classes: le.Uint16(b[32:]), filter: le.Uint16(b[34:]),
		dictRaw: le.Uint32(b[36:]), dict: le.Uint32(b[40:]), colsRaw: le.Uint32(b[44:]), cols: le.Uint32(b[48:]), activities: [2]uint64{le.Uint64(b[56:]), le.Uint64(b[64:])}}
	n := h.filterLen()
	if h.events == 0 || h.events > maxEvents || int(h.dictRaw) > dictLimit || int(h.colsRaw) > colsLimit || n > maxFilter || n&(n-1) != 0 || int(h.length) > blockLimit ||
		uint64(h.length) != uint64(headerLen+n)+uint64(h.dict)+uint64(h.cols) {
		return h, fmt.Errorf("%w: a block of %d events and %d bytes cannot be", ErrDamaged, h.events, h.length)
	}
	return h, nil
}

// castagnoli is the table of CRC-32C; never changed.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkBlock holds a whole block against its checksum.
func checkBlock(b []byte) error {
	if sum := crc32.Checksum(b[8:], castagnoli); sum != binary.LittleEndian.Uint32(b[4:]) {
		return fmt.Errorf("%w: checksum %08x, want %08x", ErrDamaged, binary.LittleEndian.Uint32(b[4:]), sum)
	}
	return nil
}

// packer turns builders into blocks. It is one goroutine's own, and makes its buffers when it is first used.
type packer struct {
	enc *zstd.Encoder
	raw []byte
	out []byte
}

// pack gives the block of b, valid until the next call.
func (p *packer) pack(b *builder) ([]byte, error) {
	if p.enc == nil {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(128<<10),
			zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		p.enc = enc
	}
	le := binary.LittleEndian
	out := append(p.out[:0], make([]byte, headerLen)...)
	out = b.filter.fold(out)
	filterEnd := len(out)
	p.raw = b.dictionary(p.raw[:0])
	dictRaw := len(p.raw)
	out = p.enc.EncodeAll(p.raw, out)
	dictEnd := len(out)
	p.raw = b.table(p.raw[:0])
	colsRaw := len(p.raw)
	out = p.enc.EncodeAll(p.raw, out)
	p.out = out

	classes := uint16(0)
	for i, n := range b.classes {
		if n > 0 {
			classes |= 1 << i
		}
	}
	le.PutUint32(out[0:], blockMagic)
	le.PutUint32(out[8:], uint32(len(out)))
	le.PutUint32(out[12:], uint32(b.events))
	le.PutUint64(out[16:], uint64(b.min))
	le.PutUint64(out[24:], uint64(b.max))
	le.PutUint16(out[32:], classes)
	le.PutUint16(out[34:], uint16((filterEnd-headerLen)/minFilter))
	le.PutUint32(out[36:], uint32(dictRaw))
	le.PutUint32(out[40:], uint32(dictEnd-filterEnd))
	le.PutUint32(out[44:], uint32(colsRaw))
	le.PutUint32(out[48:], uint32(len(out)-dictEnd))
	le.PutUint32(out[52:], 0)
	le.PutUint64(out[56:], b.did[0])
	le.PutUint64(out[64:], b.did[1])
	le.PutUint32(out[4:], crc32.Checksum(out[8:], castagnoli))
	return out, nil
}
