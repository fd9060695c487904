package serve

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/omega-mesh/omega/sim/cage2"
)

// interpreter is looked for once: starting a python3 that imports numpy takes a while.
var interpreter = sync.OnceValues(func() (string, error) { return python(context.Background()) })

// script runs a script of testdata beside the client, or skips where there is no python3 with numpy.
func script(t *testing.T, text []byte, args ...string) []byte {
	t.Helper()
	if testing.Short() {
		t.Skip("short: the run with the race detector does without Python")
	}
	name, err := interpreter()
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := runPython(ctx, name, text, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func file(t *testing.T, name ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(name...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A Python script that drives 256 worlds gets the rewards, observations, ends and masks that Go gives, bit for bit.
func TestPythonGetsTheSameRewards(t *testing.T) {
	lines := bytes.Split(bytes.TrimSpace(script(t, file(t, "testdata", "rewards.py"))), []byte{'\n'})
	const worlds, steps, length = 256, 230, 100
	if len(lines) != steps {
		t.Fatalf("%d lines", len(lines))
	}
	var batch [worlds]cage2.World
	var seen [worlds]cage2.Observation
	lost := 0.0
	for step, line := range lines {
		var rewards, observations, truncated, masks []byte
		for i := range batch {
			w := &batch[i]
			at := step % (length + 1) // an episode's 100 steps, and the one that begins the next
			var r cage2.Result
			if step == 0 || at == length {
				*w = cage2.NewWorld(cage2.Later, cage2.Meander, true, Stream(77, i, uint32((step+1)/(length+1))))
				seen[i] = 0
			}
			if at != length {
				r = w.Step(cage2.Action((7*i + 13*step + i*step) % cage2.Actions))
				seen[i] = r.Observation
			}
			lost += float64(r.Reward) / 10
			rewards = binary.LittleEndian.AppendUint64(rewards, math.Float64bits(float64(r.Reward)/10))
			observations = append(observations, binary.LittleEndian.AppendUint64(nil, uint64(seen[i]))[:7]...)
			end := byte(0)
			if at == length-1 {
				end = 1
			}
			truncated = append(truncated, end)
			var mask [cage2.BlueMaskBytes]byte
			w.BlueMask(mask[:])
			masks = append(masks, mask[:]...)
		}
		for k, want := range [][]byte{rewards, observations, truncated, masks} {
			if got := bytes.Fields(line)[k]; string(got) != hex.EncodeToString(want) {
				t.Fatalf("step %d: column %d is %.120s, want %.120x", step, k, got, want)
			}
		}
	}
	if lost > -1000 {
		t.Errorf("hardly anything happened: %v", lost)
	}
}

func TestPythonSemantics(t *testing.T) {
	office, err := filepath.Abs(filepath.Join("..", "world", "testdata", "office.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if out := script(t, file(t, "testdata", "semantics.py"), office); strings.TrimSpace(string(out)) != "ok" {
		t.Errorf("%s", out)
	}
}

// The example that `omega sim serve --example` prints is a trainer that runs.
func TestPythonExample(t *testing.T) {
	if out := script(t, Example(), "2"); !strings.Contains(string(out), "iteration 1: mean reward of an episode -") {
		t.Errorf("%s", out)
	}
}
