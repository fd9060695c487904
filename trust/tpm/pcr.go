package tpm

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/google/go-tpm/tpm2"
)

// PCRs is a set of platform configuration registers of the SHA-256 bank, number n as bit n; there are 24.
type PCRs uint32

// SecureBoot is PCR 7, what a secret is sealed to unless told: which keys the firmware let start the loader. Updates of
// the kernel leave it as it is.
const SecureBoot PCRs = 1 << 7

const allPCRs PCRs = 1<<24 - 1

// ParsePCRs reads numbers from 0 to 23, with commas between.
func ParsePCRs(s string) (PCRs, error) {
	var p PCRs
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(part), 10, 8)
		if err != nil || n > 23 {
			return 0, fmt.Errorf("tpm: %q is not a PCR: want numbers from 0 to 23, with commas between", part)
		}
		p |= 1 << n
	}
	return p, nil
}

// String is the numbers, with commas between.
func (p PCRs) String() string {
	var b []byte
	for _, n := range p.list() {
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(n), 10)
	}
	return string(b)
}

// Names says what firmware and loaders measure into each, for a person.
func (p PCRs) Names() string {
	var out []string
	for _, n := range p.list() {
		what := "measured by the system"
		switch {
		case n == 0 || n == 2:
			what = "firmware code"
		case n == 1 || n == 3:
			what = "firmware settings"
		case n == 4 || n == 5:
			what = "boot loader"
		case n == 7:
			what = "Secure Boot"
		case n >= 8 && n <= 13:
			what = "kernel and its command line"
		}
		out = append(out, fmt.Sprintf("%d (%s)", n, what))
	}
	return strings.Join(out, ", ")
}

func (p PCRs) valid() bool { return p != 0 && p&^allPCRs == 0 }
func (p PCRs) count() int  { return bits.OnesCount32(uint32(p)) }

func (p PCRs) list() []uint {
	var out []uint
	for n := uint(0); n < 32; n++ {
		if p&(1<<n) != 0 {
			out = append(out, n)
		}
	}
	return out
}

func (p PCRs) selection() tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(p.list()...),
	}}}
}

// selected is the set that a selection of the SHA-256 bank names.
func selected(l tpm2.TPMLPCRSelection) (PCRs, error) {
	if len(l.PCRSelections) != 1 || l.PCRSelections[0].Hash != tpm2.TPMAlgSHA256 || len(l.PCRSelections[0].PCRSelect) != 3 {
		return 0, fmt.Errorf("not a selection of the SHA-256 bank: %w", ErrMalformed)
	}
	b := l.PCRSelections[0].PCRSelect
	return PCRs(b[0]) | PCRs(b[1])<<8 | PCRs(b[2])<<16, nil
}

// Read gives the values of p, the lowest number's first, 32 bytes each.
func (d *Device) Read(p PCRs) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.read(p)
}

func (d *Device) read(p PCRs) ([]byte, error) {
	if !p.valid() {
		return nil, fmt.Errorf("tpm: no PCRs chosen, or none there is: %w", ErrMalformed)
	}
	var values []byte
	for left := p; left != 0; { // a chip gives at most eight at a time
		r, err := tpm2.PCRRead{PCRSelectionIn: left.selection()}.Execute(d.line)
		if err != nil {
			return nil, d.failed("read PCRs", err)
		}
		got, err := selected(r.PCRSelectionOut)
		if err != nil || got == 0 || got&^left != 0 || got.count() != len(r.PCRValues.Digests) || left&^got&lowerThan(got) != 0 {
			return nil, d.failed("read PCRs: its SHA-256 bank is off, or the answer is of others", errors.Join(ErrDevice, err))
		}
		for _, v := range r.PCRValues.Digests {
			if len(v.Buffer) != sha256.Size {
				return nil, d.failed("read PCRs: a value of another size", ErrDevice)
			}
			values = append(values, v.Buffer...)
		}
		left &^= got
	}
	return values, nil
}

// lowerThan are the numbers under the highest of p: a chip gives the lowest first, and what it left must lie above.
func lowerThan(p PCRs) PCRs { return 1<<(bits.Len32(uint32(p))-1) - 1 }

// changed are those of p whose value differs.
func (p PCRs) changed(was, is []byte) PCRs {
	var out PCRs
	for i, n := range p.list() {
		if at := i * sha256.Size; !bytes.Equal(was[at:at+sha256.Size], is[at:at+sha256.Size]) {
			out |= 1 << n
		}
	}
	return out
}
