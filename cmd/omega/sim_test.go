package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func runSim(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	a := newApp(strings.NewReader(""), &o, &e)
	code = a.run(context.Background(), append([]string{"sim"}, args...))
	return code, o.String(), e.String()
}

// What is recorded replays cleanly under its own rules and fails, with exit code 1, under the others.
func TestSimRecordAndReplay(t *testing.T) {
	dir := t.TempDir()
	if code, _, e := runSim(t, "record", "--red", "b_line", "--policy", "react", "--episodes", "5", "--out", filepath.Join(dir, "a.jsonl")); code != exitDone {
		t.Fatalf("record: exit %d, %s", code, e)
	}
	for version, want := range map[string]int{"leaderboard": exitDone, "later": exitFailed} {
		code, out, _ := runSim(t, "replay", "--scenario", "cage2", "--version", version, "--json", dir)
		var r struct {
			Episodes, Steps, Mismatches int
			First                       *struct{ Field string }
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		if code != want || r.Episodes != 5 || r.Steps != 500 || (r.Mismatches > 0) != (want != 0) || (r.First != nil) != (want != 0) {
			t.Errorf("%s: exit %d, %s", version, code, out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "b.jsonl"), []byte("{\"ep\":{\"red\":\"b_line\",\"steps\":3}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, e := runSim(t, "replay", dir); code != exitFailed || !strings.Contains(e, "truncated: 0 of 3 steps") {
		t.Errorf("a truncated recording: exit %d, %s", code, e)
	}
}

// What a run of a described network wrote replays cleanly, says what was changed in it, and is refused where it is cut off.
func TestSimRunRecordAndReplay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "office.jsonl")
	office := filepath.Join("..", "..", "sim", "world", "testdata", "office.yaml")
	_, plain, _ := runSim(t, "run", office, "--runs", "3", "--seed", "5")
	if code, out, e := runSim(t, "run", office, "--runs", "3", "--seed", "5", "--record", file); code != exitDone || out != plain {
		t.Fatalf("exit %d, %s%s, without --record %s", code, out, e, plain)
	}
	recorded, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	code, out, e := runSim(t, "replay", "--json", file)
	var r struct{ Episodes, Steps, Mismatches int }
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitDone || r.Episodes != 3 || r.Steps < 100 || r.Mismatches != 0 {
		t.Errorf("exit %d, %s%s", code, out, e)
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(bytes.Replace(recorded, []byte(`"actor":"user"`), []byte(`"actor":"nobody"`), 1))
	if code, out, _ := runSim(t, "replay", file); code != exitFailed || !strings.Contains(out, "1 mismatches") || !strings.Contains(out, "actor is nobody in the recording, user in the model") {
		t.Errorf("a changed recording: exit %d, %s", code, out)
	}
	write(recorded[:len(recorded)/2])
	if code, _, e := runSim(t, "replay", file); code != exitFailed || !strings.Contains(e, "malformed recording: line") {
		t.Errorf("half a recording: exit %d, %s", code, e)
	}
	if code, _, e := runSim(t, "replay", t.TempDir()); code != exitFailed || !strings.Contains(e, "holds no recordings") {
		t.Errorf("an empty folder: exit %d, %s", code, e)
	}
}

// A server on a socket answers a plain POST of JSON, lets no second one take its place, and leaves nothing behind.
func TestSimServe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if l, err := net.Listen("unix", path); err != nil {
		t.Fatal(err)
	} else { // what a server that was killed leaves
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	read, write := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- newApp(strings.NewReader(""), write, io.Discard).run(ctx, []string{"sim", "serve", "--listen", "unix:" + path, "--json"})
	}()
	said, err := bufio.NewReader(read).ReadString('\n')
	if err != nil || said != `{"listen":"unix:`+path+`"}`+"\n" {
		t.Fatalf("%v, %q", err, said)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is open to others: %v, %v", info, err)
	}
	h := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
	r, err := h.Post("http://localhost/omega.sim.v1.Environments/Create", "application/json", strings.NewReader(`{"environment":"cage2","worlds":3}`))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil || r.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(`"Restore User4"`)) {
		t.Errorf("%v, %s, %.200s", err, r.Status, body)
	}
	if code, _, e := runSim(t, "serve", "--listen", "unix:"+path); code != exitFailed || !strings.Contains(e, "another server listens") {
		t.Errorf("a second server: exit %d, %s", code, e)
	}
	cancel()
	if code := <-ended; code != exitDone {
		t.Errorf("exit %d", code)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	for _, bad := range [][]string{{"--listen", "0.0.0.0:0"}, {"--listen", ":0"}, {"--listen", "nowhere"}, {"--listen", "unix:"}, {"--idle", "0s"}, {"--client", "--example"}} {
		if code, _, e := runSim(t, append([]string{"serve"}, bad...)...); code != exitUsage {
			t.Errorf("%v: exit %d, %s", bad, code, e)
		}
	}
	for flag, want := range map[string]string{"--client": "class VectorEnv", "--example": "import omega_sim"} {
		if code, out, _ := runSim(t, "serve", flag); code != exitDone || !strings.Contains(out, want) {
			t.Errorf("%s: exit %d, %.100s", flag, code, out)
		}
	}
}

func TestSimEval(t *testing.T) {
	code, out, e := runSim(t, "eval", "--scenario", "cage2", "--policy", "rules", "--episodes", "20", "--seed", "3", "--json")
	var s struct {
		Settings []struct {
			Red        string
			Steps      int
			Mean, CI95 float64
		}
		Total, CI95 float64
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != exitDone {
		t.Fatalf("exit %d, %v, %s", code, err, e)
	}
	sum := 0.0
	for _, x := range s.Settings {
		sum += x.Mean
	}
	if len(s.Settings) != 9 || s.Total > -60 || s.Total < -250 || s.Total-sum > 1e-6 || sum-s.Total > 1e-6 {
		t.Errorf("settings %d, total %v, sum %v", len(s.Settings), s.Total, sum)
	}
	for _, bad := range [][]string{{"eval", "--policy", "magic"}, {"eval", "--version", "v9"}, {"eval", "--scenario", "cage9"}, {"replay"}, {"explain", "--step", "-1"}, {"explain", "--red", "blue"}} {
		if code, _, _ := runSim(t, bad...); code != exitUsage {
			t.Errorf("%v: exit %d, want %d", bad, code, exitUsage)
		}
	}
}

func TestSimRun(t *testing.T) {
	file := filepath.Join("..", "..", "sim", "world", "testdata", "office.yaml")
	code, out, e := runSim(t, "run", file, "--runs", "20", "--json")
	var s struct {
		Runs       int
		Loss, CI95 float64
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != exitDone || s.Runs != 20 || s.Loss <= 0 {
		t.Errorf("exit %d, %v, %s %s", code, err, out, e)
	}
	if code, again, _ := runSim(t, "run", file, "--runs", "20", "--json"); code != exitDone || again != out {
		t.Errorf("the same seed gives %s, then %s", out, again)
	}
	if code, out, _ := runSim(t, "run", file, "--runs", "20"); code != exitDone || strings.Count(out, "\n") != 6 || strings.Contains(out, `\x`) {
		t.Errorf("for a person: exit %d, %q", code, out)
	}
	code, out, _ = runSim(t, "run", file, "--steps")
	if code != exitDone || !strings.Contains(out, "burglar") || !strings.Contains(out, "T1018") {
		t.Errorf("steps: exit %d, %.300s", code, out)
	}
	if code, out, _ := runSim(t, "run", "--schema"); code != exitDone || !json.Valid([]byte(out)) {
		t.Errorf("schema: exit %d", code)
	}
	for _, bad := range [][]string{{"run"}, {"run", file, "--runs", "0"}, {"run", file, "--runs", "1000000000"}} {
		if code, _, _ := runSim(t, bad...); code != exitUsage {
			t.Errorf("%v: exit %d", bad, code)
		}
	}
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	if err := os.WriteFile(broken, []byte("nmae: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, e := runSim(t, "run", broken); code != exitFailed || !strings.Contains(e, `did you mean "name"`) {
		t.Errorf("exit %d, %s", code, e)
	}
}

// What train writes, eval plays; a training that was stopped goes on to the same weights.
func TestSimTrain(t *testing.T) {
	dir := t.TempDir()
	file := func(n string) string { return filepath.Join(dir, n) }
	small := []string{"--steps", "70000", "--leg", "33000", "--attacker-steps", "33000", "--rounds", "1", "--json"}
	code, out, e := runSim(t, append([]string{"train", "--out", file("a"), "--curve", file("a.svg")}, small...)...)
	if code != exitDone || !strings.Contains(e, "worst learned attacker") {
		t.Fatalf("exit %d, %s", code, e)
	}
	first, _, _ := strings.Cut(out, "\n")
	var p struct {
		Learns string
		Steps  int64
	}
	if err := json.Unmarshal([]byte(first), &p); err != nil || p.Learns != "defender" || p.Steps == 0 {
		t.Errorf("the first line is %s: %v", first, err)
	}
	if code, _, e := runSim(t, append([]string{"train", "--out", file("b"), "--checkpoint", file("ckpt"), "--minutes", "1e-9"}, small...)...); code != exitDone || !strings.Contains(e, "go on with --resume") {
		t.Fatalf("exit %d, %s", code, e)
	}
	if _, err := os.Stat(file("ckpt")); err != nil {
		t.Fatal(err)
	}
	if code, _, e := runSim(t, "train", "--resume", "--checkpoint", file("ckpt"), "--out", file("b")); code != exitDone {
		t.Fatalf("resume: exit %d, %s", code, e)
	}
	a, _ := os.ReadFile(file("a"))
	if b, _ := os.ReadFile(file("b")); len(a) == 0 || !bytes.Equal(a, b) {
		t.Error("the resumed training gives other weights")
	}
	code, out, e = runSim(t, "eval", "--policy", "trained", "--weights", file("a"), "--episodes", "5", "--duels", "5", "--json")
	var s struct {
		Settings []any
		Learned  []struct{ Mean float64 }
		Worst    struct {
			Attacker string
			Mean     float64
		}
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != exitDone || len(s.Settings) != 9 || len(s.Learned) != 1 || s.Worst.Attacker != "learned-1" || s.Worst.Mean >= 0 {
		t.Errorf("exit %d, %v, %s %s", code, err, out, e)
	}
	if err := os.WriteFile(file("c"), a[:len(a)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, e := runSim(t, "eval", "--policy", "trained", "--weights", file("c")); code != exitFailed || !strings.Contains(e, "damaged") {
		t.Errorf("cut off weights: exit %d, %s", code, e)
	}
	for _, bad := range [][]string{{"train", "--steps", "0"}, {"train", "--resume"}, {"train", "--rounds", "99"}, {"train", "--scenario", "cage9"}, {"eval", "--duels", "-1"}, {"eval", "--policy", "planner", "--base", "magic"}, {"eval", "--policy", "rules", "--base", "trained"}, {"explain", "--base", "x"}} {
		if code, _, _ := runSim(t, bad...); code != exitUsage {
			t.Errorf("%v: exit %d", bad, code)
		}
	}
}
