package scanner

import (
	"strings"
	"testing"

	"github.com/omega-mesh/omega/modules/yara"
	"github.com/omega-mesh/omega/swarm/event"
)

// FuzzAnswer: whatever a process that was taken over sends, what is read of it is within its bounds.
func FuzzAnswer(f *testing.F) {
	cd, err := newCodec()
	if err != nil {
		f.Fatal(err)
	}
	for _, p := range []packet{
		{Kind: kindBefore, Index: 3}, {Kind: kindRejected, Index: 1, Text: "line 1: syntax error"}, {Kind: kindLoaded, Count: 9, Calls: 60},
		{Kind: kindFound, Number: 7, Matches: []yara.Match{{Rule: "r", File: "f.yar", Title: "t", Severity: event.SeverityHigh, Confidence: 75, Attack: []string{"T1059"}}}},
		{Kind: kindFound, Number: 7, Matches: []yara.Match{{Rule: "r", Severity: 99}}}, {Kind: kindScan}, {Kind: 99, Index: -1},
	} {
		raw, err := cd.enc.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := cd.read(raw)
		if err != nil {
			return
		}
		if p.Kind < kindBefore || p.Kind > kindFound || p.Index < 0 || p.Index > yara.MaxSources || len(p.Matches) > yara.MaxMatches || len(p.Text) > 600 {
			t.Fatalf("%+v", p)
		}
		for _, m := range p.Matches {
			for _, s := range append(m.Attack, m.Rule, m.File, m.Title) {
				if len(s) > 1100 || strings.ContainsAny(s, "\x00\x1b\n") {
					t.Fatalf("%q", s)
				}
			}
			if m.Rule == "" || m.Severity > event.SeverityCritical || m.Confidence > 100 {
				t.Fatalf("%+v", m)
			}
		}
	})
}

// The longest answer that is within the bounds fits one packet.
func TestLongestAnswer(t *testing.T) {
	cd, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	p := packet{Kind: kindFound, Text: strings.Repeat("x", 512)}
	for range yara.MaxMatches {
		m := yara.Match{Rule: strings.Repeat("x", yara.MaxName), File: strings.Repeat("x", 1024), Title: strings.Repeat("x", yara.MaxTitle), Severity: 5, Confidence: 100}
		for range 8 {
			m.Attack = append(m.Attack, "T1059.004")
		}
		p.Matches = append(p.Matches, m)
	}
	raw, err := cd.enc.Marshal(p)
	if err != nil || len(raw) > maxPacket {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	if got, err := cd.read(raw); err != nil || len(got.Matches) != yara.MaxMatches {
		t.Error(err)
	}
}
