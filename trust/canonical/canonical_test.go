package canonical

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

type pair struct {
	A uint64   `cbor:"1,keyasint"`
	B []byte   `cbor:"2,keyasint,omitempty"`
	C []string `cbor:"3,keyasint,omitempty"`
}

func TestOneEncodingOnly(t *testing.T) {
	for name, c := range map[string]struct {
		hex string
		ok  bool
	}{
		"plain":             {"a10105", true},
		"two keys":          {"a20105024101", true},
		"wider integer":     {"a1011805", false},
		"wider length":      {"a2010502580101", false},
		"unsorted":          {"a20241010105", false},
		"duplicate key":     {"a201050106", false},
		"unknown key":       {"a201050905", false},
		"indefinite map":    {"bf0105ff", false},
		"indefinite string": {"a20105025f4101ff", false},
		"tag":               {"a101c105", false},
		"empty optional":    {"a201050240", false},
		"trailing":          {"a1010500", false},
		"float":             {"a101f94500", false},
		"cut":               {"a101", false},
		"nothing":           {"", false},
		"null":              {"f6", false},
		"bad UTF-8":         {"a20105038161ff", false},
		"text for a key":    {"a1613105", false},
		"missing field":     {"a0", false},
		"array of many":     {"a20105039b00000000ffffffff", false},
		"deep":              {"a20105038181818181818181818181818181", false},
	} {
		raw, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		var p pair
		if err := Unmarshal(raw, &p, 64); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBoundBeforeParsing(t *testing.T) {
	var p pair
	if err := Unmarshal(make([]byte, 65), &p, 64); !errors.Is(err, ErrTooLong) {
		t.Fatal(err)
	}
}

func FuzzUnmarshal(f *testing.F) {
	b, err := Marshal(pair{A: 5, B: []byte{1}, C: []string{"x"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var p pair
		if Unmarshal(raw, &p, 1<<12) != nil {
			return
		}
		again, err := Marshal(p)
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("two encodings of one value: %v", err)
		}
	})
}
