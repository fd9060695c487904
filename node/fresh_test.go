package node

import (
	"testing"
	"time"

	"github.com/omega-mesh/omega/trust"
)

func TestSilenceMakesStale(t *testing.T) {
	boot := uint64(time.Hour)
	f := &freshness{boot: func() uint64 { return boot }}
	f.word(nil)
	for _, c := range []struct {
		after time.Duration
		stale bool
	}{{0, false}, {trust.MaxSilence, false}, {trust.MaxSilence + 1, true}} {
		boot = uint64(time.Hour + c.after)
		if _, stale := f.stale(); stale != c.stale || f.silence() != c.after {
			t.Errorf("after %s: stale %v, silence %s", c.after, stale, f.silence())
		}
	}
	f.word(nil)
	if _, stale := f.stale(); stale {
		t.Error("stale after a word")
	}
	f.wordAt(nil, 30*24*time.Hour) // of an earlier life, longer ago than this boot
	if _, stale := f.stale(); !stale {
		t.Error("a host that slept for a month believes what it knew")
	}
}
