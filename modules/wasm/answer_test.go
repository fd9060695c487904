package wasm

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/swarm/event"
)

// answering is a guest of which nothing runs: what a call gives back, and what lies in its memory, is the fuzzer's.
type answering struct {
	api.Function
	gives uint64
}

func (a answering) CallWithStack(_ context.Context, stack []uint64) error {
	stack[0] = a.gives
	return nil
}

// FuzzAnswer is what a guest gives back: a place and a length anywhere, and any bytes there. Whatever they are, the host reads
// within the guest's memory alone, and a finding is about an event that the guest was given, under the module's own name.
func FuzzAnswer(f *testing.F) {
	code := guest(f, "exec")
	p, err := engine(f).Compile(f.Context(), manifest(code), code)
	if err != nil {
		f.Fatal(err)
	}
	d, err := p.Detector(f.Context(), newSurroundings())
	if err != nil {
		f.Fatal(err)
	}
	i := d.(*instance)
	text := func(s string) []byte { return append(binary.LittleEndian.AppendUint16(nil, uint16(len(s))), s...) }
	var texts []byte
	for _, s := range []string{"rule", "Rule", "A title", "T1059,T1105.001", "name", "value"} {
		texts = append(texts, text(s)...)
	}
	finding := func(index uint32, severity, confidence, subject, n byte) []byte {
		b := binary.LittleEndian.AppendUint32(nil, uint32(findingHead+len(texts)))
		return append(append(binary.LittleEndian.AppendUint32(b, index), severity, confidence, subject, n), texts...)
	}
	one := append([]byte{1, 0, 0, 0}, finding(1, 3, 80, 0xff, 6)...)
	for _, answer := range [][]byte{one, append([]byte{2, 0, 0, 0}, append(finding(0, 1, 0, 1, 6), finding(2, 5, 100, 2, 6)...)...), one[:9], {0, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff}, nil} {
		f.Add(uint64(1024)<<32|uint64(len(answer)), answer)
	}
	f.Add(uint64(0xfffffff0)<<32|64, one)
	f.Add(uint64(1024)<<32|1<<30, one)
	f.Add(uint64(i.memory.Size()-4)<<32|8, one)
	f.Fuzz(func(t *testing.T, gives uint64, answer []byte) {
		if !i.memory.Write(1024, answer[:min(len(answer), 1<<15)]) {
			t.Fatal("no room")
		}
		batch := started(3)
		i.detect = answering{gives: gives}
		n := 0
		err := i.Detect(context.Background(), batch, func(found event.Finding) {
			n++
			if !strings.HasPrefix(found.RuleID, "module.test.") || found.Time < batch[0].Time || found.Time > batch[2].Time || found.Confidence > 100 ||
				len(found.Attack) > maxEvidence || len(found.Evidence) > maxEvidence || len(found.Title) > 4*maxText || modules.Printable(found.Title) != found.Title {
				t.Errorf("%+v", found)
			}
			if s := found.Subject; s.Process != nil && (s.Process.Key.PID == 0 || s.Process.Key.PID > 3) {
				t.Errorf("about a process that it was not given: %+v", s.Process)
			}
		})
		if err != nil && !errors.Is(err, ErrOutput) {
			t.Fatal(err)
		}
		if n > maxFindings {
			t.Fatalf("%d findings", n)
		}
	})
}
