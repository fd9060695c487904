package cage2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/sim/rng"
)

// The project's own episodes: a few of each attacker and version, written by the Recorder. They hold the rules in place
// where the reference's recordings are absent.
func TestOwnEpisodes(t *testing.T) {
	for _, v := range []Version{Leaderboard, Later} {
		name := filepath.Join("testdata", v.String()+".jsonl")
		now := ownEpisodes(t, v)
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(name, now, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		was, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(was, now) {
			t.Errorf("%s: the same seeds no longer give the same bytes", name)
		}
		for _, rules := range []Version{Leaderboard, Later} {
			var r Report
			if err := Replay(bytes.NewReader(was), rules, "", &r); err != nil {
				t.Fatal(err)
			}
			if clean := r.Mismatches == 0; clean != (rules == v) {
				t.Errorf("%s under %s rules: %d mismatches, first %+v", name, rules, r.Mismatches, r.First)
			}
			if r.Episodes != 6 || r.Steps != 600 {
				t.Errorf("%s: replayed %d episodes, %d steps", name, r.Episodes, r.Steps)
			}
		}
	}
}

func ownEpisodes(t *testing.T, v Version) []byte {
	t.Helper()
	var b bytes.Buffer
	for i, red := range []Red{BLine, Meander, RandomRed} {
		for j, policy := range []string{"rules", "random"} {
			p, err := PolicyByName(policy)
			if err != nil {
				t.Fatal(err)
			}
			c := Recorder{Version: v, Red: red, Green: j == 1, Policy: policy, Steps: 100}
			if err := c.Record(&b, p, uint64(10*i+j)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b.Bytes()
}

// A change of any recorded value must be found, or the replay compares less than it says.
func TestReplayFindsEveryField(t *testing.T) {
	clean := string(ownEpisodes(t, Later))
	for _, c := range []struct{ field, old, new string }{
		{"obs", `"obs":"0000000000000000000000000000000000000000000000000000","rew"`, `"obs":"1000000000000000000000000000000000000000000000000000","rew"`},
		{"rew", `"rew":-0.1`, `"rew":-0.2`},
		{"priv", `"priv":"0000000022000","ses"`, `"priv":"0000000021000","ses"`},
		{"ses", `"User1":["SYSTEM"`, `"User1":["vagrant"`},
		{"ot", `"ot":0`, `"ot":1`},
		{"r.ok", `"ok":1},"obs"`, `"ok":0},"obs"`},
		{"b.ok", `"id":51,"ok":1`, `"id":51,"ok":0`},
		{"move", `"t":0,"b":{"t":"DecoyFemitter","h":"User2","id":51,"ok":1},"r":{"t":"DiscoverRemoteSystems","s":"User"`, `"t":0,"b":{"t":"DecoyFemitter","h":"User2","id":51,"ok":1},"r":{"t":"DiscoverNetworkServices","h":"User0"`},
		{"ports", `"ports":[21,22]`, `"ports":[21]`},
	} {
		i := strings.Index(clean, c.old)
		if i < 0 {
			t.Errorf("%s: the own episodes have no %s", c.field, c.old)
			continue
		}
		var r Report
		err := Replay(strings.NewReader(clean[:i]+c.new+clean[i+len(c.old):]), Later, "", &r)
		if err != nil || r.Mismatches == 0 || r.First.Field != c.field {
			t.Errorf("%s changed: %d mismatches, first %+v, error %v", c.field, r.Mismatches, r.First, err)
		}
	}
}

func TestReplayRefusesBrokenFiles(t *testing.T) {
	clean := string(ownEpisodes(t, Later))
	lines := strings.SplitAfter(clean, "\n")
	for name, text := range map[string]string{
		"truncated episode": strings.Join(lines[:50], ""),
		"truncated line":    clean[:len(clean)-40],
		"step left out":     strings.Join(lines[:20], "") + strings.Join(lines[21:], ""),
		"no header":         strings.Join(lines[1:], ""),
		"endless line":      lines[0] + strings.Repeat("x", 1<<20),
		"long episode":      strings.Replace(clean, `"steps":100`, `"steps":1000000000`, 1),
		"unknown red":       strings.Replace(clean, `"red":"b_line"`, `"red":"godzilla"`, 1),
		"unknown host":      strings.Replace(clean, `"r":{"t":"DiscoverNetworkServices","h":"User`, `"r":{"t":"DiscoverNetworkServices","h":"Luser`, 1),
		"blue action 9999":  strings.Replace(clean, `"id":51`, `"id":9999`, 1),
	} {
		var r Report
		if err := Replay(strings.NewReader(text), Later, "", &r); !errors.Is(err, ErrRecording) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// Scores against the published figures of the specification's model (20,000 episodes each); ours are compared within
// both intervals, at four standard deviations.
func TestKnownScores(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine: there is nothing for the race detector to see")
	}
	known := []struct {
		policy     string
		version    Version
		red        Red
		want, ci95 [3]float64
	}{
		{"sleep", Later, BLine, [3]float64{-217.61, -479.61, -1134.61}, [3]float64{.27, .27, .27}},
		{"sleep", Later, Meander, [3]float64{-39.87, -268.38, -972.10}, [3]float64{.28, .97, .97}},
		{"random", Later, BLine, [3]float64{-154.48, -339.74, -740.8}, [3]float64{1.09, 2.2, 4.9}},
		{"random", Later, Meander, [3]float64{-33.89, -169.48, -580.59}, [3]float64{.22, 1.28, 4}},
		{"random", Leaderboard, Meander, [3]float64{-33.38, -165.76, -574.49}, [3]float64{.22, 1.28, 4}},
		{"react", Later, BLine, [3]float64{-14.89, -27.26, -63.72}, [3]float64{.03, .1, .39}},
		{"react", Leaderboard, BLine, [3]float64{-10.98, -20.59, -51.53}, [3]float64{.08, .1, .39}},
		{"react", Later, Meander, [3]float64{-11.48, -23.13, -57.33}, [3]float64{.01, .04, .16}},
		{"react", Leaderboard, Meander, [3]float64{-9.75, -19.06, -46.75}, [3]float64{.02, .04, .16}},
		{"rules", Later, BLine, [3]float64{-5.40, -10.31, -23.63}, [3]float64{.05, .1, .39}},
		{"rules", Leaderboard, BLine, [3]float64{-5.38, -10.09, -22.00}, [3]float64{.05, .1, .39}},
		{"rules", Leaderboard, Meander, [3]float64{-7.50, -19.53, -54.91}, [3]float64{.03, .08, .18}},
	}
	for _, k := range known {
		s, err := Evaluate(context.Background(), Evaluation{Policy: k.policy, New: func() (Policy, error) { return PolicyByName(k.policy) },
			Version: k.version, Reds: []Red{k.red}, Episodes: 3000, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		for i, got := range s.Settings {
			if tolerance := 2 * math.Hypot(got.CI95, k.ci95[i]); math.Abs(got.Mean-k.want[i]) > tolerance+.01 {
				t.Errorf("%s against %s, %s, %d steps: %.2f±%.2f, want %.2f±%.2f", k.policy, got.Red, k.version, got.Steps, got.Mean, got.CI95, k.want[i], k.ci95[i])
			}
		}
	}
}

func TestSameResultOnAnyNumberOfCores(t *testing.T) {
	var first *Score
	for _, workers := range []int{1, 2, 7} {
		s, err := Evaluate(context.Background(), Evaluation{New: func() (Policy, error) { return &Uniform{}, nil }, Episodes: 40, Seed: 5, Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = s
		}
		if s.Total != first.Total || s.CI95 != first.CI95 {
			t.Errorf("%d workers: %v±%v, one worker: %v±%v", workers, s.Total, s.CI95, first.Total, first.CI95)
		}
	}
}

// Two processes, one with one core and one with two, record the same bytes.
func TestSameRecordingOnAnyNumberOfCores(t *testing.T) {
	record := func() string {
		var b bytes.Buffer
		for red := range reds {
			if err := (Recorder{Version: Leaderboard, Red: red, Green: true, Policy: "rules", Steps: 100}).Record(&b, &Rules{}, 5); err != nil {
				t.Fatal(err)
			}
		}
		sum := sha256.Sum256(b.Bytes())
		return hex.EncodeToString(sum[:])
	}
	if os.Getenv("RECORD_TEST_OUT") != "" {
		fmt.Println("recorded " + record())
		return
	}
	for _, cores := range []string{"1", "2"} {
		c := exec.Command(os.Args[0], "-test.run", "^TestSameRecordingOnAnyNumberOfCores$")
		c.Env = append(os.Environ(), "RECORD_TEST_OUT=1", "GOMAXPROCS="+cores)
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "recorded "+record()) {
			t.Errorf("GOMAXPROCS=%s: %v\n%s\nwant %s", cores, err, out, record())
		}
	}
}

func TestStepAllocatesNothing(t *testing.T) {
	w := NewWorld(Leaderboard, Meander, true, rng.New(1))
	u := &Uniform{}
	u.Begin(rng.New(2))
	if n := testing.AllocsPerRun(200, func() {
		w.Steps = 0
		w.Step(u.Act(0))
	}); n != 0 {
		t.Errorf("%v allocations a step", n)
	}
}

func TestActionNames(t *testing.T) {
	for a := range Actions {
		back, err := ParseAction(Action(a).String())
		if err != nil || back != Action(a) {
			t.Fatalf("action %d reads %q, which parses to %d (%v)", a, Action(a), back, err)
		}
	}
	if got := Do(Restore, User4); got != 144 {
		t.Errorf("the last action is %d", got)
	}
	for _, s := range []string{"", "Restore", "Restore Mars", "Destroy User1"} {
		if _, err := ParseAction(s); err == nil {
			t.Errorf("%q is an action", s)
		}
	}
}

// FuzzStep plays any actions against any attacker and holds the invariants after every step.
func FuzzStep(f *testing.F) {
	f.Add([]byte{0, 1, 54, 132, 144, 30, 255}, uint64(1), uint8(1))
	f.Add(bytes.Repeat([]byte{119 + 4, 2, 27, 140}, 70), uint64(9), uint8(6))
	f.Fuzz(func(t *testing.T, actions []byte, seed uint64, mode uint8) {
		w := NewWorld(Version(mode&1), Red(mode>>1&3), mode>>3&1 == 1, rng.New(seed))
		for i, b := range actions {
			before := w.State
			r, _, m := w.step(Action(b))
			if i >= MaxSteps {
				if w.State != before || r.Reward != 0 {
					t.Fatal("the world went on past its last step")
				}
				return
			}
			checkInvariants(t, &before, &w.State, Action(b), m, r)
		}
	})
}

func checkInvariants(t *testing.T, before, after *State, a Action, m Move, r Result) {
	t.Helper()
	v, blueHost := a.Split()
	if r.Reward > 0 || r.Reward < -163 {
		t.Fatalf("reward %d tenths", r.Reward)
	}
	for h := range Hosts {
		was, is := before.sessions[h], after.sessions[h]
		if (after.root>>h&1 == 1) != (is.count(Root) > 0) {
			t.Fatalf("%s: the root set says %v, the sessions %v", h, after.root>>h&1 == 1, is)
		}
		total := func(s sessions) int {
			return int(s.count(ByLogin) + s.count(Hidden) + s.count(Detected) + s.count(Root))
		}
		grew := total(is) - total(was)
		hit := Host(m.Target) == h
		if grew > 0 && !(grew == 1 && m.Kind == ExploitMove && hit && r.RedOK) && !(h == User0 && v == Restore) {
			t.Fatalf("%s: a session appeared without an exploit: %s", h, m)
		}
		due := total(was)
		switch {
		case blueHost == h && v == Restore && h == User0:
			due = 1 // the foothold survives
		case blueHost == h && v == Restore:
			due = 0
		case blueHost == h && v == Remove:
			due -= int(was.count(Detected))
		}
		if hit && r.RedOK && m.Kind == ExploitMove {
			due++
		}
		if total(is) != due {
			t.Fatalf("%s: %d sessions became %d where %d were due: %s, %s", h, total(was), total(is), due, a, m)
		}
		if after.Privilege(h) == 2 && before.Privilege(h) < 2 && !(hit && r.RedOK && (m.Kind == EscalateMove || m.Kind == ExploitMove)) {
			t.Fatalf("%s: root without a cause: %s", h, m)
		}
		if after.memory[h] != before.memory[h] && !(m.Kind == Scan && hit) {
			t.Fatalf("%s: red learned ports by %s", h, m)
		}
	}
	if before.knownAddr&^after.knownAddr != 0 || before.knownHost&^after.knownHost != 0 || before.knownNet&^after.knownNet != 0 {
		t.Fatal("red forgot")
	}
	if after.otDown && !before.otDown && m.Kind != ImpactMove {
		t.Fatal("the service went down without an impact")
	}
	if after.root>>User0&1 == 0 || after.root>>Defender&1 == 1 {
		t.Fatal("the foothold is gone or Defender is taken")
	}
}

// FuzzReplay feeds the reader of recordings anything: it must answer with a report or an error.
func FuzzReplay(f *testing.F) {
	f.Add([]byte(`{"ep":{"red":"b_line","blue":"sleep","green":false,"steps":1},"seed":1,"obs":"","priv":""}
{"t":0,"b":{"t":"Sleep","id":0,"ok":-1},"r":{"t":"PrivilegeEscalate","h":"User0","esc":[0,1,"pi"],"ok":1},"obs":"","rew":0,"priv":"","ses":{},"ot":0}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, v := range []Version{Leaderboard, Later} {
			var r Report
			if err := Replay(bytes.NewReader(data), v, "", &r); err != nil && !errors.Is(err, ErrRecording) {
				t.Fatalf("untyped error %v", err)
			}
			if (r.First == nil) != (r.Mismatches == 0) {
				t.Fatal("a report without its first mismatch")
			}
		}
	})
}

func BenchmarkStep(b *testing.B) {
	b.Run("b_line", stepBenchmark(BLine, false))
	b.Run("meander+green", stepBenchmark(Meander, true))
}
