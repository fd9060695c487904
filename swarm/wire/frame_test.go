package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	frames := [][]byte{{}, {1}, bytes.Repeat([]byte{2}, grow), bytes.Repeat([]byte{3}, 3*grow+1)}
	for _, f := range frames {
		if err := Write(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	r := iotest.HalfReader(&b)
	for _, want := range frames {
		got, err := Read(r, 4*grow)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v; want %d", len(got), err, len(want))
		}
	}
	if _, err := Read(r, 1); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestBounds(t *testing.T) {
	whole := Append(nil, make([]byte, 100))
	if _, err := Read(bytes.NewReader(whole), 99); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long: %v", err)
	}
	for n := 1; n < len(whole); n++ {
		if _, err := Read(bytes.NewReader(whole[:n]), 100); err == nil || err == io.EOF {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	// A length alone gets no memory beyond grow.
	huge := []byte{0x7f, 0xff, 0xff, 0xff, 1}
	got := testing.AllocsPerRun(10, func() { _, _ = Read(bytes.NewReader(huge), 1<<31-1) })
	if got > 20 {
		t.Errorf("%v allocations for a length without bytes", got)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(Append(nil, []byte("hello")), 10)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, 1<<20)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		got, err := Read(bytes.NewReader(b), limit&(1<<20-1))
		if err == nil && !bytes.HasPrefix(b, Append(nil, got)) {
			t.Errorf("read %x from %x", got, b)
		}
	})
}
