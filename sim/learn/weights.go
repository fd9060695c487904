package learn

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
)

// File is a set of named networks with what is known of their making, as it lies on disk:
//
//	8 bytes "OMEGANET", 2 bytes version (1), 4 bytes length of the header, the header as JSON, the weights of its
//	networks one after the other, 32 bytes SHA-256 of all that came before; numbers little-endian
//
// Weights are IEEE 754 halves where an entry says so, else float32. Whether a file is read does not depend on trust in
// who wrote it: sizes are bounded, the sum is checked, and every weight must be a number.
type File struct {
	Header
	Networks []*Network
}

// Header is the part of a File in words.
type Header struct {
	Seed     uint64          `json:"seed"`               // of the training
	Steps    int64           `json:"steps"`              // that the defender was trained for
	Networks []Entry         `json:"networks"`           // in their order
	Training json.RawMessage `json:"training,omitempty"` // where a training stands, in a checkpoint
}

// Entry describes one network of a File.
type Entry struct {
	Name string `json:"name"`
	Shape
	Half bool `json:"half,omitempty"`
}

// ErrDamaged says that a file is no file of weights, or was cut off or changed.
var ErrDamaged = errors.New("damaged or no file of weights")

const (
	fileMagic    = "OMEGANET"
	fileVersion  = 1
	maxFile      = 64 << 20
	maxHeader    = 1 << 20
	maxNetworks  = 128
	fileSumBytes = sha256.Size
	fileHead     = len(fileMagic) + 2 + 4
)

// Find gives the network of that name.
func (f *File) Find(name string) (*Network, bool) {
	for i, e := range f.Header.Networks {
		if e.Name == name {
			return f.Networks[i], true
		}
	}
	return nil, false
}

// Put adds a network.
func (f *File) Put(name string, n *Network, half bool) {
	f.Header.Networks = append(f.Header.Networks, Entry{Name: name, Shape: n.Shape, Half: half})
	f.Networks = append(f.Networks, n)
}

// MarshalBinary is the file's bytes. Halves are rounded to the nearest; one too large for a half is an error.
func (f *File) MarshalBinary() ([]byte, error) {
	header, err := json.Marshal(f.Header)
	if err != nil {
		return nil, err
	}
	if len(header) > maxHeader || len(f.Networks) > maxNetworks || len(f.Networks) != len(f.Header.Networks) {
		return nil, fmt.Errorf("learn: a header of %d bytes for %d networks", len(header), len(f.Networks))
	}
	b := append([]byte(fileMagic), fileVersion, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
	b = append(b, header...)
	for i, n := range f.Networks {
		for _, x := range n.flat {
			if !f.Header.Networks[i].Half {
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
				continue
			}
			h := toHalf(x)
			if h&0x7c00 == 0x7c00 {
				return nil, fmt.Errorf("learn: network %s: weight %v does not fit a half", f.Header.Networks[i].Name, x)
			}
			b = binary.LittleEndian.AppendUint16(b, h)
		}
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...), nil
}

// ReadFile reads what MarshalBinary wrote, at most 64 MiB. What is wrong with the bytes is an ErrDamaged.
func ReadFile(r io.Reader) (*File, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, err
	}
	f, err := parseFile(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return f, nil
}

func parseFile(b []byte) (*File, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("more than %d MiB", maxFile>>20)
	}
	if len(b) < fileHead+fileSumBytes || string(b[:len(fileMagic)]) != fileMagic {
		return nil, errors.New("does not begin with " + fileMagic)
	}
	if v := binary.LittleEndian.Uint16(b[len(fileMagic):]); v != fileVersion {
		return nil, fmt.Errorf("version %d; this program reads %d", v, fileVersion)
	}
	body := b[:len(b)-fileSumBytes]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], b[len(body):]) {
		return nil, errors.New("its SHA-256 does not fit")
	}
	length := binary.LittleEndian.Uint32(b[len(fileMagic)+2:])
	rest := body[fileHead:]
	if length > maxHeader || int(length) > len(rest) {
		return nil, fmt.Errorf("a header of %d bytes", length)
	}
	f := new(File)
	if err := json.Unmarshal(rest[:length], &f.Header); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	rest = rest[length:]
	if len(f.Header.Networks) > maxNetworks {
		return nil, fmt.Errorf("%d networks; at most %d", len(f.Header.Networks), maxNetworks)
	}
	for _, e := range f.Header.Networks {
		if err := e.Shape.Validate(); err != nil {
			return nil, fmt.Errorf("network %q: %w", e.Name, err)
		}
		width := 4
		if e.Half {
			width = 2
		}
		if len(rest) < width*e.parameters() {
			return nil, fmt.Errorf("network %q: %d bytes left of %d", e.Name, len(rest), width*e.parameters())
		}
		n := e.network()
		for i := range n.flat {
			if e.Half {
				n.flat[i] = fromHalf(binary.LittleEndian.Uint16(rest[2*i:]))
			} else {
				n.flat[i] = math.Float32frombits(binary.LittleEndian.Uint32(rest[4*i:]))
			}
		}
		if !n.finite() {
			return nil, fmt.Errorf("network %q: a weight is no number", e.Name)
		}
		rest = rest[width*e.parameters():]
		f.Networks = append(f.Networks, n)
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("%d bytes too many", len(rest))
	}
	return f, nil
}

// Save writes the file so that path holds either what it held before or all of it.
func (f *File) Save(path string) error {
	b, err := f.MarshalBinary()
	if err != nil {
		return err
	}
	return writeAtomically(path, b)
}

func writeAtomically(path string, b []byte) error {
	t, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(t.Name()) // gone already where all went well
	_, err = t.Write(b)
	err = errors.Join(err, t.Chmod(0o644), t.Sync(), t.Close())
	if err != nil {
		return err
	}
	return os.Rename(t.Name(), path)
}

// LoadFile reads the file at path.
func LoadFile(path string) (*File, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := ReadFile(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// toHalf rounds x to the nearest IEEE 754 half, ties to even; what is too large becomes infinite.
func toHalf(x float32) uint16 {
	b := math.Float32bits(x)
	sign := uint16(b >> 16 & 0x8000)
	exponent := int(b>>23&0xff) - 127 + 15
	fraction := b & 0x7fffff
	switch {
	case exponent >= 31:
		return sign | 0x7c00
	case exponent <= 0:
		if exponent < -10 {
			return sign
		}
		fraction |= 0x800000
		shift := uint(14 - exponent)
		return sign | uint16(roundShift(fraction, shift))
	}
	return sign + uint16(uint32(exponent)<<10+roundShift(fraction, 13)) // a carry goes into the exponent, as it should
}

// roundShift is n >> shift, rounded to the nearest, ties to even.
func roundShift(n uint32, shift uint) uint32 {
	half := uint32(1) << (shift - 1)
	q := n >> shift
	if rest := n & (1<<shift - 1); rest > half || rest == half && q&1 == 1 {
		q++
	}
	return q
}

func fromHalf(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exponent, fraction := uint32(h>>10&31), uint32(h&0x3ff)
	switch exponent {
	case 0:
		v := float32(fraction) * 0x1p-24
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}

// rounded is the network as it is after a journey through halves.
func (n *Network) rounded() *Network {
	c := n.clone()
	for i, x := range c.flat {
		c.flat[i] = fromHalf(toHalf(x))
	}
	return c
}
