// Package bundle is a module in one file: a content-addressed archive (CAR, version 1) whose root is the manifest and
// whose other blocks are the payload's and the tests' recordings. Each block is checked against its name as it is read,
// so that who handed the file over does not matter.
package bundle

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/omega-mesh/omega/modules"
)

// MaxSize bounds a bundle, in bytes: the payload, a recording a test, the manifest.
const MaxSize = modules.MaxPayload + modules.MaxTests*modules.MaxBlock + modules.MaxManifest + 1<<20

// Bundle is a module with everything that belongs to it.
type Bundle struct {
	Manifest   *modules.Manifest
	Payload    []byte
	Recordings [][]byte // of each test, in their order
}

// New makes a bundle of a payload and the recordings of its tests: it fills in what the manifest says of them.
func New(m modules.Manifest, payload []byte, recordings [][]byte) (*Bundle, error) {
	if len(recordings) != len(m.Tests) {
		return nil, fmt.Errorf("%d recordings for %d tests", len(recordings), len(m.Tests))
	}
	if len(payload) > modules.MaxPayload {
		return nil, fmt.Errorf("%w: a payload of %d bytes, more than %d", modules.ErrRefused, len(payload), modules.MaxPayload)
	}
	m.Size, m.Blocks = uint32(len(payload)), nil
	for rest := payload; len(rest) > 0; {
		n := min(len(rest), modules.MaxBlock)
		sum := sha256.Sum256(rest[:n])
		m.Blocks = append(m.Blocks, sum[:])
		rest = rest[n:]
	}
	m.Tests = append([]modules.Test(nil), m.Tests...)
	for i, r := range recordings {
		if len(r) > modules.MaxBlock {
			return nil, fmt.Errorf("%w: the recording of test %q has %d bytes, more than %d", modules.ErrRefused, m.Tests[i].Name, len(r), modules.MaxBlock)
		}
		sum := sha256.Sum256(r)
		m.Tests[i].Events = sum[:]
	}
	return &Bundle{&m, payload, recordings}, m.Validate()
}

// Blocks gives every block with its name: the manifest first, each once.
func (b *Bundle) Blocks(f func(c cid.Cid, data []byte) error) error {
	root, err := b.Manifest.Encode()
	if err != nil {
		return err
	}
	id := modules.ID(sha256.Sum256(root))
	if err := f(id.CID(), root); err != nil {
		return err
	}
	seen := map[[32]byte]bool{}
	raw := func(data []byte) error {
		sum := sha256.Sum256(data)
		if seen[sum] {
			return nil
		}
		seen[sum] = true
		return f(modules.BlockCID(sum), data)
	}
	for rest := b.Payload; len(rest) > 0; {
		n := min(len(rest), modules.MaxBlock)
		if err := raw(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	for _, r := range b.Recordings {
		if err := raw(r); err != nil {
			return err
		}
	}
	return nil
}

// Write writes the archive. The same module gives the same bytes.
func (b *Bundle) Write(w io.Writer) error {
	id, err := b.Manifest.ID()
	if err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	h := header(id.CID())
	section := func(parts ...[]byte) error {
		n := 0
		for _, p := range parts {
			n += len(p)
		}
		_, err := out.Write(binary.AppendUvarint(nil, uint64(n)))
		for _, p := range parts {
			if err == nil {
				_, err = out.Write(p)
			}
		}
		return err
	}
	if err := section(h); err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	if err := b.Blocks(func(c cid.Cid, data []byte) error { return section(c.Bytes(), data) }); err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	return nil
}

// header is the archive's first section: {"roots": [root], "version": 1} as DAG-CBOR, which has one form only.
func header(root cid.Cid) []byte {
	b := []byte("\xa2\x65roots\x81\xd8\x2a\x58")
	b = append(b, byte(len(root.Bytes())+1), 0)
	b = append(b, root.Bytes()...)
	return append(b, "\x67version\x01"...)
}

// Read reads an archive. It takes no more than MaxSize bytes, holds each block against its name, and wants every block
// the manifest names and no other.
func Read(r io.Reader) (*Bundle, error) {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: bundle: %s", modules.ErrRefused, fmt.Sprintf(format, args...))
	}
	in := bufio.NewReader(io.LimitReader(r, MaxSize+1))
	section := func() ([]byte, error) {
		n, err := binary.ReadUvarint(in)
		if err != nil {
			return nil, err
		}
		if n > modules.MaxBlock+128 {
			return nil, refuse("a section of %d bytes", n)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(in, b); err != nil {
			return nil, refuse("it ends too soon")
		}
		return b, nil
	}
	head, err := section()
	if err != nil {
		return nil, refuse("it does not begin as one")
	}
	var m *modules.Manifest
	blocks := map[[32]byte][]byte{}
	total := 0
	for {
		b, err := section()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, refuse("%v", err)
		}
		if total += len(b); total > MaxSize {
			return nil, refuse("more than %d bytes", MaxSize)
		}
		n, c, err := cid.CidFromBytes(b)
		if err != nil {
			return nil, refuse("a block without a name")
		}
		data := b[n:]
		sum := sha256.Sum256(data)
		h, err := multihash.Decode(c.Hash())
		if err != nil || h.Code != multihash.SHA2_256 || !bytes.Equal(h.Digest, sum[:]) {
			return nil, refuse("block %s is not what its name says", c)
		}
		if m == nil {
			id := modules.ID(sum)
			if !bytes.Equal(head, header(c)) || !c.Equals(id.CID()) {
				return nil, refuse("its first block is not its root")
			}
			if m, err = modules.DecodeManifest(data); err != nil {
				return nil, err
			}
			continue
		}
		if !c.Equals(modules.BlockCID(sum)) {
			return nil, refuse("block %s is of another kind", c)
		}
		if _, twice := blocks[sum]; twice {
			return nil, refuse("block %s stands twice", c)
		}
		blocks[sum] = data
	}
	if m == nil {
		return nil, refuse("it has no blocks")
	}
	return Assemble(m, func(sum [32]byte) ([]byte, bool) {
		b, ok := blocks[sum]
		return b, ok
	}, len(blocks))
}

// Assemble puts a module together from its blocks; total is how many there are, -1 where others' may be among them.
func Assemble(m *modules.Manifest, get func(sum [32]byte) ([]byte, bool), total int) (*Bundle, error) {
	out := &Bundle{Manifest: m}
	used := map[[32]byte]bool{}
	block := func(name []byte) ([]byte, error) {
		sum := [32]byte(name)
		b, ok := get(sum)
		if !ok {
			return nil, fmt.Errorf("%w: bundle: block %s is missing", modules.ErrRefused, modules.BlockCID(sum))
		}
		used[sum] = true
		return b, nil
	}
	for i, name := range m.Blocks {
		b, err := block(name)
		if err != nil {
			return nil, err
		}
		if want := min(int(m.Size)-i*modules.MaxBlock, modules.MaxBlock); len(b) != want {
			return nil, fmt.Errorf("%w: bundle: block %d of the payload has %d bytes, not %d", modules.ErrRefused, i, len(b), want)
		}
		out.Payload = append(out.Payload, b...)
	}
	for _, t := range m.Tests {
		b, err := block(t.Events)
		if err != nil {
			return nil, err
		}
		out.Recordings = append(out.Recordings, b)
	}
	if total >= 0 && len(used) != total {
		return nil, fmt.Errorf("%w: bundle: it has %d blocks that belong to nothing", modules.ErrRefused, total-len(used))
	}
	return out, nil
}
