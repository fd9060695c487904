package world

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/sim/replay"
)

func recordingOf(t testing.TB, s *Scenario, runs, workers int) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Record(context.Background(), &b, s, runs, 11, workers); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRecordAndReplay(t *testing.T) {
	s := office(t)
	recorded := recordingOf(t, s, 5, 2)
	var report replay.Report
	if err := Replay(context.Background(), bytes.NewReader(recorded), "", &report); err != nil {
		t.Fatal(err)
	}
	if report.Episodes != 5 || report.Steps < 300 || report.Mismatches != 0 {
		t.Errorf("%+v, first %+v", report, report.First)
	}
	var b bytes.Buffer
	sum, err := Record(context.Background(), &b, s, 5, 11, 1)
	if err != nil || !bytes.Equal(b.Bytes(), recorded) {
		t.Errorf("one worker and two write different recordings (%v)", err)
	}
	if want, err := Many(context.Background(), s, 5, 11); err != nil || *sum != *want {
		t.Errorf("recorded %+v, want %+v (%v)", sum, want, err)
	}
}

// A change of anything that was recorded is found, and where it is said.
func TestReplayFindsChanges(t *testing.T) {
	recorded := string(recordingOf(t, office(t), 2, 1))
	lines := strings.SplitAfter(recorded, "\n")
	last := 0 // the line that ends the first run
	for !strings.HasPrefix(lines[last], `{"run":0`) {
		last++
	}
	end := func(steps int) string {
		return strings.Replace(lines[last], fmt.Sprintf(`"steps":%d`, last-1), fmt.Sprintf(`"steps":%d`, steps), 1)
	}
	without := strings.Join(lines[:last-1], "") + end(last-2) + strings.Join(lines[last+1:], "")
	with := strings.Join(lines[:last], "") + lines[last-1] + end(last) + strings.Join(lines[last+1:], "")
	changed := strings.Replace(recorded, `"actor":"user"`, `"actor":"nobody"`, 1)
	for name, c := range map[string]struct {
		text, field string
		mismatches  int
	}{
		"a step changed":   {changed, "actor", 1},
		"a step less":      {without, "step", 1},
		"a step more":      {with, "step", 1},
		"another loss":     {strings.Replace(recorded, `"loss":`, `"loss":1`, 1), "result", 1},
		"another seed":     {strings.Replace(recorded, `"seed":11`, `"seed":12`, 1), "at_ns", 100},
		"another scenario": {strings.Replace(recorded, "detect: 0.3", "detect: 0.31", 1), "", 0},
	} {
		var report replay.Report
		if err := Replay(context.Background(), strings.NewReader(c.text), "f", &report); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.text == recorded && c.field != "" {
			t.Errorf("%s: the test changed nothing", name)
		}
		switch {
		case c.field == "":
		case report.First == nil, report.First.Field != c.field, report.First.File != "f", report.Mismatches < c.mismatches, c.mismatches == 1 && report.Mismatches > 1:
			t.Errorf("%s: %+v, first %+v", name, report, report.First)
		}
	}
}

func TestReplayRefuses(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine: there is nothing for the race detector to see")
	}
	recorded := string(recordingOf(t, office(t), 2, 1))
	lines := strings.SplitAfter(recorded, "\n")
	for want, text := range map[string]string{
		"empty":                      "",
		"line 1: unexpected end":     recorded[:40],
		"truncated: run 0 of 20":     strings.Join(lines[:21], ""),
		"unexpected end of JSON":     strings.Join(lines[:30], "") + lines[30][:20],
		"the end of run 0 after":     lines[0] + recorded[strings.Index(recorded, `{"run":0`):],
		"runs; from 1":               strings.Replace(recorded, `"runs":2`, `"runs":1000000000`, 1),
		"format 7":                   strings.Replace(recorded, `"format":1`, `"format":7`, 1),
		"more than the header's":     recorded + lines[1],
		"token too long":             recorded + strings.Repeat("x", maxRecordingHead+1),
		"a step of":                  lines[0] + strings.Repeat("x", maxRecordingLine+1) + "\n",
		"no host and no attacker":    strings.Replace(recorded, "to: dmz", "to: dmzz", 1),
		"the end of run 1 after 0 s": lines[0] + `{"run":1,"steps":0}` + "\n",
	} {
		var report replay.Report
		err := Replay(context.Background(), strings.NewReader(text), "", &report)
		if !errors.Is(err, ErrRecording) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %.200v", want, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var report replay.Report
	if err := Replay(ctx, strings.NewReader(recorded), "", &report); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled replay gives %v", err)
	}
	if _, err := Record(ctx, &bytes.Buffer{}, office(t), 2, 1, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled recording gives %v", err)
	}
}

// Two processes, one with one core and one with two, write the same bytes.
func TestSameBytesOnAnyNumberOfCores(t *testing.T) {
	if os.Getenv("RECORD_TEST_OUT") != "" {
		fmt.Printf("recorded %x\n", sha256.Sum256(recordingOf(t, office(t), 40, 0)))
		return
	}
	var sums []string
	for _, cores := range []string{"1", "2"} {
		c := exec.Command(os.Args[0], "-test.run", "^TestSameBytesOnAnyNumberOfCores$")
		c.Env = append(os.Environ(), "RECORD_TEST_OUT=1", "GOMAXPROCS="+cores)
		out, err := c.CombinedOutput()
		_, sum, found := strings.Cut(string(out), "recorded ")
		if err != nil || !found || len(sum) < 64 {
			t.Fatalf("GOMAXPROCS=%s: %v\n%s", cores, err, out)
		}
		sums = append(sums, sum[:64])
	}
	own := sha256.Sum256(recordingOf(t, office(t), 40, 3))
	if sums[0] != sums[1] || sums[0] != hex.EncodeToString(own[:]) {
		t.Errorf("one core %s, two %s, here %x", sums[0], sums[1], own)
	}
}

func FuzzReplay(f *testing.F) {
	s, err := Read(strings.NewReader("name: x\nduration: 1h\nhosts: [{name: a, zone: z, services: [{name: s, port: 80, exploit: 0.5}]}]\nattackers: [{name: m, zone: z, pace: 10m}]\n"))
	if err != nil {
		f.Fatal(err)
	}
	good := recordingOf(f, s, 2, 1)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"world":"x","format":1,"runs":1,"scenario":"hosts: 7"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if head := good[:bytes.IndexByte(good, '\n')+1]; !bytes.HasPrefix(data, head) { // what is in the header has a target of its own
			data = append(bytes.Clone(head), data...)
		}
		var report replay.Report
		if err := Replay(context.Background(), bytes.NewReader(data), "", &report); err != nil && !errors.Is(err, ErrRecording) {
			t.Fatal(err)
		}
		if report.Steps > bytes.Count(data, []byte{'\n'})+1 || (report.First != nil) != (report.Mismatches > 0) {
			t.Fatalf("%+v", report)
		}
	})
}
