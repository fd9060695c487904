// Package wire is the framing of the swarm's own protocols: a length of four bytes, big-endian, and that many bytes. The
// length is compared with the reader's bound before a byte is allocated or read.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrTooLong is wrapped where a frame announces more than its reader takes.
var ErrTooLong = errors.New("frame too long")

// grow is the most memory that an announced length alone gets: the rest is allocated as bytes arrive.
const grow = 64 << 10

// Read reads one frame of at most limit bytes. At the clean end of the stream it returns io.EOF itself.
func Read(r io.Reader, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("wire: read length: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if uint64(n) > uint64(limit) {
		return nil, fmt.Errorf("wire: %d bytes, at most %d: %w", n, limit, ErrTooLong)
	}
	b := make([]byte, 0, min(int(n), grow))
	for len(b) < int(n) {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		part := b[len(b):min(cap(b), int(n))]
		m, err := io.ReadFull(r, part)
		b = b[:len(b)+m]
		if err != nil {
			return nil, fmt.Errorf("wire: read frame: %w", noEOF(err))
		}
	}
	return b, nil
}

// noEOF makes an end inside a frame what it is.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Append appends b as a frame to buf.
func Append(buf, b []byte) []byte {
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(b)))
	return append(buf, b...)
}

// Write writes b as one frame, in one call.
func Write(w io.Writer, b []byte) error {
	if _, err := w.Write(Append(make([]byte, 0, 4+len(b)), b)); err != nil {
		return fmt.Errorf("wire: write frame: %w", err)
	}
	return nil
}
