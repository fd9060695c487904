package identity

import (
	"strings"
	"testing"
)

func TestWords(t *testing.T) {
	// The proposal's own examples, as the first bits of a DID: 127.0.0.1, 63.84.220.193, 140.98.193.141 of 16 bits each half.
	d := DIDFromBytes([32]byte{127, 0, 0, 1, 63, 84, 220, 193, 140, 98})
	if got, want := d.Words(), "lusab-babad-gutih-tugad-mudof"; got != want {
		t.Errorf("words %q, want %q", got, want)
	}
	if DID("did:omega:short").Words() != "" {
		t.Error("words of what is no DID")
	}
	if n := strings.Count(DIDFromBytes([32]byte{}).Words(), "-"); n != 4 {
		t.Errorf("%d hyphens", n)
	}
}
