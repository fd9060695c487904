package node

import (
	"testing"
	"time"

	"github.com/omega-mesh/omega/trust/identity"
)

func TestClockDoubtsUntilAnotherIsMet(t *testing.T) {
	k := newClock()
	day := time.Now().Add(-24 * time.Hour).UnixNano()
	k.met(identity.DIDFromBytes([32]byte{1}), day)
	if !k.doubtful() {
		t.Error("one witness a day off leaves no doubt")
	}
	k.met(identity.DIDFromBytes([32]byte{2}), day)
	if k.doubtful() || time.Until(k.now()).Round(time.Minute) != -24*time.Hour {
		t.Errorf("two witnesses agree, and now is %s", k.now())
	}
}

func TestClockIsDoubtedOnlyByWitnesses(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		name    string
		offsets []time.Duration
		want    time.Duration // that now is put right by
		skew    bool
	}{
		{"alone", nil, 0, false},
		{"transit", []time.Duration{-time.Second, -2 * time.Second, -time.Millisecond}, 0, false},
		{"one witness may be the wrong one", []time.Duration{day}, 0, true},
		{"two agree", []time.Duration{day, day}, day, true},
		{"a liar among three", []time.Duration{-time.Second, 365 * day, -time.Second}, 0, false},
		{"behind by a day", []time.Duration{-day, -day, time.Second}, -day, true},
		{"two disagree", []time.Duration{day, 0}, 0, false},
	} {
		k := newClock()
		for i, o := range c.offsets {
			k.observe(identity.DIDFromBytes([32]byte{byte(i)}), time.Now().Add(o).UnixNano())
		}
		k.settle()
		if got := time.Until(k.now()).Round(time.Second); got != c.want || (k.skew() != 0) != c.skew {
			t.Errorf("%s: put right by %s, want %s; skew %s", c.name, got, c.want, k.skew())
		}
	}
}
