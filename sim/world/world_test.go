package world

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/omega-mesh/omega/sim/rng"
	"github.com/omega-mesh/omega/swarm/event"
)

func office(t testing.TB) *Scenario {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "office.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func start(t testing.TB, s *Scenario, seed uint64) *World {
	t.Helper()
	w, err := New(s, rng.New(seed))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// record runs a world to its end and gives every step as JSON Lines, and the result.
func record(t testing.TB, w *World) (string, Result) {
	t.Helper()
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	w.OnStep = func(s Step) {
		if err := out.Encode(s); err != nil {
			t.Error(err)
		}
	}
	r := w.Run(1 << 62)
	return b.String(), r
}

func TestSameSeedSameBytes(t *testing.T) {
	s := office(t)
	want := make([]string, 8)
	for i := range want {
		want[i], _ = record(t, start(t, s, uint64(i)))
		if len(want[i]) < 1000 {
			t.Fatalf("seed %d: hardly anything happened:\n%s", i, want[i])
		}
		for j := range i {
			if want[i] == want[j] {
				t.Errorf("seeds %d and %d give the same day", i, j)
			}
		}
	}
	var all sync.WaitGroup // worlds of one scenario, at once and in another order
	for i := len(want) - 1; i >= 0; i-- {
		all.Go(func() {
			if got, _ := record(t, start(t, s, uint64(i))); got != want[i] {
				t.Errorf("seed %d: another day when run beside others", i)
			}
		})
	}
	all.Wait()
}

// A checkpoint has the same future, and what is done to a branch is not felt by the other.
func TestCloneIsABranch(t *testing.T) {
	s := office(t)
	whole := start(t, s, 3)
	whole.Run(5 * time.Hour)
	branch, blocked := whole.Clone(), whole.Clone()
	if !blocked.RefuseSource("203.0.113.9") || blocked.RefuseSource("192.0.2.1") {
		t.Fatal("RefuseSource knows the wrong addresses")
	}
	_, _ = record(t, blocked)
	a, ra := record(t, whole)
	b, rb := record(t, branch)
	if a != b || ra != rb {
		t.Errorf("the branch went another way:\n%+v\n%+v", ra, rb)
	}
}

func mean(t *testing.T, s *Scenario, n int) (loss float64, harmed int) {
	t.Helper()
	for i := range n {
		r := start(t, s, uint64(i)).Run(1 << 62)
		loss += r.Loss / float64(n)
		harmed += r.HarmedLogons
	}
	return loss, harmed
}

// What the simulator is for: it must tell a defence that works from none.
func TestDefencesDiffer(t *testing.T) {
	const days = 300
	with := office(t)
	watching := office(t)
	watching.Response = Response{}
	noDecoys := office(t)
	for i := range noDecoys.Hosts {
		noDecoys.Hosts[i].Decoys = nil
	}
	blind := office(t)
	for i := range blind.Hosts {
		blind.Hosts[i].Decoys, blind.Hosts[i].Detect, blind.Hosts[i].FalseRate = nil, 0, 0
	}
	full, _ := mean(t, with, days)
	bare, _ := mean(t, noDecoys, days)
	none, harmed := mean(t, watching, days)
	sightless, _ := mean(t, blind, days)
	t.Logf("mean loss: response %.1f, without decoys %.1f, watching only %.1f, blind %.1f", full, bare, none, sightless)
	// Without decoys it takes two hosts' findings within ten minutes, which a slow burglar seldom gives.
	if !(full < 0.5*bare && bare < 1.05*none) || harmed != 0 {
		t.Errorf("response %.1f, without decoys %.1f, watching %.1f (harmed %d)", full, bare, none, harmed)
	}
	if sightless < 0.8*none {
		t.Errorf("a blind swarm loses %.1f, a watching one %.1f", sightless, none)
	}
}

// Privileges never appear without a cause, refused sources act nowhere, and the loss is that of the recorded sessions.
func TestInvariants(t *testing.T) {
	s := office(t)
	for seed := range uint64(40) {
		w := start(t, s, seed)
		refused := map[string]bool{}
		last := time.Duration(0)
		seen := 0
		w.OnEvent = func(host string, e *event.Event) {
			seen++
			if host == "" || e.Time != w.now || e.Sensor != "simulation" {
				t.Fatalf("event %+v", e)
			}
		}
		w.OnStep = func(st Step) {
			if st.At < last {
				t.Fatalf("time went back: %+v", st)
			}
			last = st.At
			switch {
			case st.Action == Refuse.String():
				refused[st.From] = true
			case refused[st.From] && st.OK && st.Action != Sweep.String():
				t.Fatalf("seed %d: a refused source acts: %+v", seed, st)
			}
		}
		r := w.Run(1 << 62)
		if r.Rooted > r.Taken || r.Loss < 0 || (r.Loss > 0) != (r.Rooted > 0) || seen == 0 || r.Blocks != len(refused) {
			t.Fatalf("seed %d: %+v, %d refused", seed, r, len(refused))
		}
	}
}

func TestReadRefuses(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine: there is nothing for the race detector to see")
	}
	good, err := os.ReadFile(filepath.Join("testdata", "office.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	swap := func(old, new string) string { return strings.Replace(string(good), old, new, 1) }
	for want, text := range map[string]string{
		`unknown key "zoen"; did you mean "zone"?`:          swap("zone: dmz", "zoen: dmz"),
		`no host "fils"; did you mean "files"?`:             swap("opens: [files", "opens: [fils"),
		`exploit is 1.4; from 0 to 1`:                       swap("exploit: 0.4", "exploit: 1.4"),
		`exploit is NaN`:                                    swap("exploit: 0.4", "exploit: .nan"),
		`duration is -24h0m0s`:                              swap("duration: 24h", "duration: -24h"),
		`"soon" is not a duration`:                          swap("start: 1h", "start: soon"),
		`pace is 0s`:                                        swap("pace: 4m", "pace: 0s"),
		`the name "web" is empty, too long or taken`:        swap("name: mail", "name: web"),
		`a decoy cannot listen on 25`:                       swap("decoys: [2323]", "decoys: [25]"),
		`anchors and aliases are not taken`:                 swap("name: a small office", "name: &a x"),
		`key "zone" again`:                                  swap("zone: dmz", "zone: dmz, zone: dmz"),
		`no host and no attacker is in zone "offfice"; did`: swap("to: office", "to: offfice"),
		`gives "god"; user or root`:                         swap("gives: root", "gives: god"),
		`scenario: larger than`:                             string(good) + strings.Repeat("#", MaxFile),
		`0 hosts`:                                           "name: x\nduration: 1h\n",
		`empty`:                                             "",
		`cannot stand here`:                                 "hosts: 7\n",
		`the name "aaaa`:                                    swap("name: web", "name: "+strings.Repeat("a", 1<<20)),
		`larger than 8388608 bytes`:                         swap("name: web", "name: "+strings.Repeat("a", 10<<20)),
		`start is -1h`:                                      swap("start: 1h", "start: -1h"),
		`immunity is -50ms`:                                 swap("immunity: 50ms", "immunity: -50ms"),
		`the name "aaa`:                                     swap("name: a small office", "name: "+strings.Repeat("a", 300)),
		`there is no port 0`:                                swap("ports: [25,", "ports: [0,"),
		`port 80 is 0 or taken`:                             swap("port: 22}]", "port: 80}]"),
		`port 0 is 0 or taken`:                              swap("port: 22}]", "port: 0}]"),
		`cannot unmarshal`:                                  swap("port: 80", "port: 70000"),
		`no service listens on 99`:                          swap("zone: dmz", "zone: dmz, vulnerabilities: [{id: X, exploit: 1, port: 99}]"),
		`it can only give root`:                             swap("zone: dmz", "zone: dmz, vulnerabilities: [{id: X, exploit: 1, gives: user}]"),
		`no identifier`:                                     swap("zone: dmz", "zone: dmz, vulnerabilities: [{id: '', exploit: 1}]"),
		`account "a": the name is empty, too long or taken`: swap("zone: dmz", "zone: dmz, accounts: [{name: a}, {name: a}]"),
		`no host has an account "ann"; did you mean "anna"`: strings.Replace(swap("zone: dmz", "zone: dmz, accounts: [{name: anna}]"), "opens: [files", "account: ann, opens: [files", 1),
		`works from 20h0m0s until 8h0m0s`:                   swap("each: 30m", "each: 30m, from: 20h, until: 8h"),
		`a seq cannot stand here`:                           swap("zone: dmz", "zone: [office]"),
		`anchors and aliases are`:                           "hosts: &a [*a]\n",
		`unknown key "<<"`:                                  swap("name: a small office", "name: x\n<<: {name: y}"),
	} {
		_, err := Read(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 400 {
			t.Errorf("want %q, got %.300v", want, err)
		}
	}
}

// The schema beside this package is the one that the types give.
func TestSchemaIsCurrent(t *testing.T) {
	name := "scenario.schema.json"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(name, Schema(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	was, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(was, Schema()) {
		t.Errorf("%s is not what the types give (%v): run the test with UPDATE=1", name, err)
	}
}

func FuzzRead(f *testing.F) {
	good, err := os.ReadFile(filepath.Join("testdata", "office.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("name: x\nduration: 1h\nhosts: [{name: a, zone: z}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Read(bytes.NewReader(data))
		if err != nil || len(s.Hosts)*len(s.Attackers) > 1000 {
			return
		}
		w, err := New(s, rng.New(1))
		if err != nil {
			t.Fatalf("read, but cannot be run: %v", err)
		}
		w.OnStep = func(st Step) {
			if st.At > time.Second {
				t.Fatalf("ran past its time: %+v", st)
			}
		}
		w.Run(time.Second) // at a step a millisecond no more than a thousand an actor
	})
}

func TestLargeDay(t *testing.T) {
	w := start(t, large(2000), 1)
	r := w.Run(1 << 62)
	if r.Steps < 1400 || r.Logons < 40000 {
		t.Errorf("%+v", r)
	}
}

func BenchmarkLargeDay(b *testing.B) {
	b.ReportAllocs()
	s := large(10_000)
	for i := range b.N {
		start(b, s, uint64(i)).Run(1 << 62)
	}
}

// Run i of Many is the run of Stream i, and the means are those of the runs.
func TestMany(t *testing.T) {
	s := office(t)
	const n = 30
	sum, err := Many(context.Background(), s, n, 9)
	if err != nil {
		t.Fatal(err)
	}
	want := 0.0
	for i := range n {
		w, err := New(s, Stream(9, i))
		if err != nil {
			t.Fatal(err)
		}
		want += w.Run(time.Duration(s.Duration)).Loss
	}
	if want /= n; sum.Loss != want || sum.CI95 <= 0 || sum.Runs != n || sum.Logons < 50 {
		t.Errorf("%+v, want a loss of %v", sum, want)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Many(ctx, s, n, 9); err == nil {
		t.Error("a cancelled batch gives a result")
	}
	for _, bad := range []int{0, -1, 1e9} {
		if _, err := Many(context.Background(), s, bad, 9); err == nil {
			t.Errorf("%d runs are accepted", bad)
		}
	}
}
