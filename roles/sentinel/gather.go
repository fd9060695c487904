package sentinel

import (
	"strconv"
	"strings"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Bounds of what one host may say: well under what a feed takes (10 entries a second), so that a flood here never stops
// this host's receipts.
const (
	// gatherWindow is how long the same rule on the same subject is told once; gatherMild is that of low severity.
	gatherWindow = uint64(time.Minute)
	gatherMild   = uint64(10 * time.Minute)
	gatherKeys   = 4096
	// findingRate is the sustained findings a second, findingBurst what may come at once.
	findingRate  = 4
	findingBurst = 128
)

type taken uint8

const (
	fresh taken = iota
	repeated
	overRate
)

// gatherer makes one finding of many equal ones, and bounds how many go out. What was left out is counted in the next
// finding of the same rule and subject.
type gatherer struct {
	seen   *slab[subjectKey, tally]
	tokens float64
	at     uint64
}

type subjectKey struct {
	rule    string
	address string
	what    string
}

type tally struct {
	at    uint64
	known bool
	count uint64
}

func newGatherer() *gatherer {
	return &gatherer{seen: newSlab[subjectKey, tally](gatherKeys), tokens: findingBurst}
}

// keyOf is what makes two findings equal: the rule, the address, and the file or program. Low ones are equal by folder.
func keyOf(f *event.Finding) subjectKey {
	k := subjectKey{rule: f.RuleID, what: f.Subject.File}
	if f.Subject.Address.IsValid() {
		k.address = f.Subject.Address.String()
	}
	if k.what == "" && f.Subject.Process != nil {
		k.what = f.Subject.Process.Exe
	}
	if f.Severity <= event.SeverityLow {
		if i := strings.LastIndexByte(k.what, '/'); i > 0 {
			k.what = k.what[:i]
		}
	}
	return k
}

func (g *gatherer) take(f *event.Finding, now uint64) taken {
	window := gatherWindow
	if f.Severity <= event.SeverityLow {
		window = gatherMild
	}
	t := g.seen.touch(keyOf(f))
	if t.known && now-t.at < window {
		t.count++
		return repeated
	}
	if g.at == 0 || now < g.at {
		g.at = now
	}
	g.tokens = min(findingBurst, g.tokens+float64(now-g.at)/float64(time.Second)*findingRate)
	g.at = now
	if g.tokens < 1 {
		t.count++
		return overRate
	}
	g.tokens--
	if t.count > 0 {
		f.Evidence = append(f.Evidence, event.Evidence{Name: "repeated", Value: strconv.FormatUint(t.count, 10)})
	}
	*t = tally{at: now, known: true}
	return fresh
}
