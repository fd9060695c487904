//go:build yara

package scanner_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/modules/yara"
	"github.com/omega-mesh/omega/node/privileged"
	"github.com/omega-mesh/omega/node/privileged/scanner"
)

const liesEnv = "SCANNER_LIES"

func TestMain(m *testing.M) {
	if scanner.Is() {
		if how := os.Getenv(liesEnv); how != "" {
			lie(how)
		}
		os.Exit(scanner.Main())
	}
	os.Exit(m.Run())
}

const (
	marker = `rule marker { meta: description = "the test's mark" strings: $a = "OMEGA-TEST-MARKER" condition: $a }`
	// slow takes as long as it is let, for files that say so.
	slow = `rule slow { strings: $a = "TAKE-YOUR-TIME" condition: $a and for all i in (1..100000000) : (for all j in (1..100000000) : (i + j > 0)) }`
)

// rig is a scanner with a real process.
type rig struct {
	*scanner.Scanner
	t     testing.TB
	pid   atomic.Int64
	last  scanner.Process
	mu    sync.Mutex
	lines bytes.Buffer
}

func (r *rig) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lines.Write(p)
}

func newRig(t testing.TB, lies string, files map[string]string) *rig {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil { // root's alone: its process cannot read it
			t.Fatal(err)
		}
	}
	r := &rig{t: t}
	real := privileged.SpawnScanner(dir)
	spawn := func(line, output *os.File) (scanner.Process, error) {
		var p scanner.Process
		var err error
		if lies == "" {
			p, err = real(line, output)
		} else {
			p, err = privileged.Spawn(privileged.ChildOptions{Name: scanner.Name, Files: []*os.File{line}, Output: output, Env: []string{liesEnv + "=" + lies}})
		}
		if err == nil {
			r.last = p
			r.pid.Store(int64(p.(*privileged.Child).PID()))
		}
		return p, err
	}
	s, err := scanner.New(scanner.Options{Paths: []string{dir}, Spawn: spawn, Log: slog.New(slog.NewTextHandler(r, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	r.Scanner = s
	return r
}

func (r *rig) scan(text string) (*scanner.Result, error) {
	return r.Scan(r.t.Context(), strings.NewReader(text), "/tmp/file")
}

// A rule finds a file by a process that has a user of its own, no capability, no new privileges, and a filter of system calls.
func TestScanInAProcessWithoutRights(t *testing.T) {
	r := newRig(t, "", map[string]string{"good.yar": marker, "bad.yar": "rule {", "more.yara": `rule tmp { condition: filepath == "/tmp/file" and filesize > 100 }`})
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := r.Status()
	if s.Files != 2 || s.Rules != 2 || s.Rejected != 1 || !strings.HasSuffix(s.Example.File, "bad.yar") || !strings.Contains(s.Example.Why, "syntax") || s.Calls == 0 || !strings.HasPrefix(s.Version, "4.") {
		t.Errorf("%+v", s)
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.pid.Load()))
	if err != nil {
		t.Fatal(err)
	}
	status := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		status[name] = strings.TrimSpace(value)
	}
	want := map[string]string{"NoNewPrivs": "1", "Seccomp": "2"}
	if os.Geteuid() == 0 {
		for _, name := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
			want[name] = "0000000000000000"
		}
		if uid := strings.Fields(status["Uid"]); uid[0] == "0" || uid[0] != uid[2] {
			t.Errorf("uid %v", uid)
		}
	}
	for name, value := range want {
		if status[name] != value {
			t.Errorf("%s is %s, want %s", name, status[name], value)
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.pid.Load()))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", r.pid.Load(), fd.Name()))
		if to != "/dev/null" && !strings.HasPrefix(to, "pipe:") && !strings.HasPrefix(to, "socket:") && !strings.HasPrefix(to, "anon_inode:[event") {
			t.Errorf("it holds %s", to)
		}
	}
	if len(fds) > 6 {
		t.Errorf("it holds %d descriptors", len(fds))
	}
	if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", r.pid.Load())); err != nil || strings.TrimSpace(string(raw)) != "500" {
		t.Errorf("where memory is short it does not go first: %s %v", raw, err)
	}
	text := "….OMEGA-TEST-MARKER….."
	got, err := r.scan(text)
	sum := sha256.Sum256([]byte(text))
	if err != nil || len(got.Matches) != 1 || got.Matches[0].Rule != "marker" || got.Matches[0].Title != "the test's mark" || got.SHA256 != hex.EncodeToString(sum[:]) || len(got.BLAKE3) != 64 || got.Size != int64(len(text)) || got.Cut {
		t.Errorf("%+v %v", got, err)
	}
	if got, err = r.scan(strings.Repeat("x", 200)); err != nil || len(got.Matches) != 1 || got.Matches[0].Rule != "tmp" {
		t.Errorf("%+v %v", got, err)
	}
	for _, text := range []string{"", "nothing"} {
		if got, err = r.scan(text); err != nil || len(got.Matches) != 0 {
			t.Errorf("%q: %+v %v", text, got, err)
		}
	}
	if c := r.Status().Counts; c.Scanned != 3 || c.Found != 2 || c.Falls+c.Timeouts+c.Refused+c.Failed != 0 {
		t.Errorf("%+v", c)
	}
}

// What is longer than the bound is looked at as far as that; what comes without end as well.
func TestHugeFile(t *testing.T) {
	r := newRig(t, "", map[string]string{"good.yar": marker})
	for name, in := range map[string]io.Reader{
		"its beginning": io.MultiReader(strings.NewReader("OMEGA-TEST-MARKER"), zeros{}),
		"past it":       io.MultiReader(io.LimitReader(zeros{}, yara.MaxScan), strings.NewReader("OMEGA-TEST-MARKER")),
	} {
		got, err := r.Scan(t.Context(), in, "/tmp/huge")
		if err != nil || !got.Cut || got.Size != yara.MaxScan || (len(got.Matches) == 1) != (name == "its beginning") {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
	if got, err := r.Scan(t.Context(), io.LimitReader(zeros{}, yara.MaxScan), "/tmp/exact"); err != nil || got.Cut {
		t.Errorf("%+v %v", got, err)
	}
	if c := r.Status().Counts; c.Cut != 2 || c.Scanned != 3 {
		t.Errorf("%+v", c)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// during calls f while the process is busy with a file.
func (r *rig) during(f func(pid int)) (*scanner.Result, error) {
	r.t.Helper()
	if err := r.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	pid := int(r.pid.Load())
	busy := func() uint64 {
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
		var ticks uint64
		if len(fields) > 11 {
			fmt.Sscan(fields[11], &ticks)
		}
		return ticks
	}
	before := busy()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for busy() < before+20 { // a fifth of a second of its own
			time.Sleep(5 * time.Millisecond)
		}
		f(pid)
	}()
	got, err := r.scan("TAKE-YOUR-TIME")
	<-done
	return got, err
}

// A process that falls over a file is counted and started again, and not given that file twice; others are scanned.
func TestScannerFalls(t *testing.T) {
	r := newRig(t, "", map[string]string{"good.yar": marker, "slow.yar": slow})
	got, err := r.during(func(pid int) { _ = syscall.Kill(pid, syscall.SIGSEGV) })
	if !errors.Is(err, yara.ErrScan) || got == nil || got.SHA256 == "" {
		t.Errorf("%+v %v", got, err)
	}
	first := r.pid.Load()
	if got, err := r.scan("OMEGA-TEST-MARKER"); err != nil || len(got.Matches) != 1 {
		t.Errorf("after it fell: %+v %v", got, err)
	}
	if r.pid.Load() == first {
		t.Error("the same process answers")
	}
	if _, err := r.scan("TAKE-YOUR-TIME"); !errors.Is(err, scanner.ErrFallen) {
		t.Errorf("the same file again: %v", err)
	}
	if c := r.Status().Counts; c.Falls != 1 || c.Refused != 1 || c.Scanned != 1 {
		t.Errorf("%+v", c)
	}
	// One that ends while nothing is asked of it: the next file is not to blame, but has to wait its time.
	_ = syscall.Kill(int(r.pid.Load()), syscall.SIGKILL)
	<-r.last.Done()
	if _, err = r.scan("innocent OMEGA-TEST-MARKER"); !errors.Is(err, scanner.ErrResting) {
		t.Errorf("at once after the second fall: %v", err)
	}
	for range 500 {
		if got, err = r.scan("innocent OMEGA-TEST-MARKER"); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil || len(got.Matches) != 1 {
		t.Errorf("%+v %v", got, err)
	}
}

// A scan that somebody no longer waits for ends at once, and blames nobody.
func TestScanIsCalledOff(t *testing.T) {
	r := newRig(t, "", map[string]string{"slow.yar": slow})
	ctx, cancel := context.WithCancel(t.Context())
	if err := r.Start(ctx); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, err := r.Scan(ctx, strings.NewReader("TAKE-YOUR-TIME"), "/tmp/x"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if c := r.Status().Counts; c != (scanner.Counts{}) {
		t.Errorf("%+v", c)
	}
}

// A scan that takes too long is given up by libyara; a process that does not even do that is ended.
func TestScanTakesTooLong(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for two clocks")
	}
	r := newRig(t, "", map[string]string{"good.yar": marker, "slow.yar": slow})
	got, err := r.scan("TAKE-YOUR-TIME OMEGA-TEST-MARKER")
	if !errors.Is(err, yara.ErrScan) || len(got.Matches) > 1 {
		t.Errorf("%+v %v", got, err)
	}
	pid := r.pid.Load()
	if _, err = r.scan("OMEGA-TEST-MARKER"); err != nil || r.pid.Load() != pid {
		t.Errorf("the process is another, or does not answer: %v", err)
	}
	if got, err = r.during(func(pid int) { _ = syscall.Kill(pid, syscall.SIGSTOP) }); !errors.Is(err, yara.ErrScan) {
		t.Errorf("%+v %v", got, err)
	}
	if err := syscall.Kill(int(pid), 0); err == nil {
		t.Error("the process that did not answer lives on")
	}
	if got, err = r.scan("OMEGA-TEST-MARKER"); err != nil || len(got.Matches) != 1 {
		t.Errorf("%+v %v", got, err)
	}
	if c := r.Status().Counts; c.Timeouts != 2 || c.Falls != 0 {
		t.Errorf("%+v", c)
	}
}

// A rule file that the compiler falls over is left out, and the others are used.
func TestRulesThatItFallsOver(t *testing.T) {
	r := newRig(t, "compile", map[string]string{"a.yar": marker, "b.yar": "// FALL", "c.yar": marker})
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := r.Status(); s.Files != 2 || s.Rejected != 1 || !strings.HasSuffix(s.Example.File, "b.yar") || !strings.Contains(s.Example.Why, "fell") || s.Counts.Falls != 1 {
		t.Errorf("%+v", s)
	}
}

// Rules that none is left of scan nothing, and say why.
func TestNoRuleIsLeft(t *testing.T) {
	r := newRig(t, "", map[string]string{"a.yar": "rule {"})
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.scan("x"); !errors.Is(err, scanner.ErrNone) || r.Status().Why == "" {
		t.Errorf("%v %+v", err, r.Status())
	}
	empty, err := scanner.New(scanner.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil || !empty.Off() || empty.Status().Asked {
		t.Errorf("%v %+v", err, empty.Status())
	}
}

// A process that was taken over is not believed: it is ended, whatever it says, and started anew.
func TestProcessThatLies(t *testing.T) {
	for _, how := range []string{"number", "kind", "junk", "huge", "many", "severity", "descriptors", "rules", "silent", "talks"} {
		t.Run(how, func(t *testing.T) {
			if how == "silent" && testing.Short() {
				t.Skip("waits until it is ended")
			}
			r := newRig(t, how, map[string]string{"good.yar": marker})
			got, err := r.scan("OMEGA-TEST-MARKER")
			c := r.Status().Counts
			switch how {
			case "talks", "descriptors": // no lie about what was asked
				if err != nil || len(got.Matches) != 1 {
					t.Errorf("%+v %v", got, err)
				}
				if how == "talks" {
					r.Close()
					r.mu.Lock()
					defer r.mu.Unlock()
					if n := r.lines.Len(); n > 4096 {
						t.Errorf("%d bytes of what it said are in the log", n)
					}
				}
			default:
				if err == nil || c.Falls+c.Timeouts == 0 || c.Scanned != 0 {
					t.Errorf("%+v %v %+v", got, err, c)
				}
				if _, err := os.Stat(fmt.Sprintf("/proc/%d", r.pid.Load())); err == nil {
					t.Error("it lives on")
				}
			}
		})
	}
}

// lie is the life of a process that was taken over.
func lie(how string) {
	type packet struct {
		Kind    int               `cbor:"1,keyasint"`
		Index   int               `cbor:"2,keyasint,omitempty"`
		Text    string            `cbor:"3,keyasint,omitempty"`
		Count   int               `cbor:"4,keyasint,omitempty"`
		Number  uint64            `cbor:"5,keyasint,omitempty"`
		Matches []yara.Match      `cbor:"6,keyasint,omitempty"`
		Other   map[string]string `cbor:"9,keyasint,omitempty"`
	}
	_ = unix.SetsockoptInt(3, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20)
	say := func(p packet, fds ...int) {
		raw, _ := cbor.Marshal(p)
		var oob []byte
		if len(fds) > 0 {
			oob = unix.UnixRights(fds...)
		}
		_ = unix.Sendmsg(3, raw, oob, nil, 0)
	}
	buf, oob := make([]byte, 64<<10), make([]byte, 256)
	for {
		n, k, _, _, err := unix.Recvmsg(3, buf, oob, 0)
		if err != nil || n == 0 {
			os.Exit(0)
		}
		var p packet
		_ = cbor.Unmarshal(buf[:n], &p)
		messages, _ := unix.ParseSocketControlMessage(oob[:k])
		fds, _ := unix.ParseUnixRights(&messages[0])
		content, _ := io.ReadAll(io.NewSectionReader(os.NewFile(uintptr(fds[0]), "given"), 0, 1<<20))
		good := []yara.Match{{Rule: "marker"}}
		if p.Kind == 1 {
			if how == "rules" {
				say(packet{Kind: 3, Index: 77})
				continue
			}
			for i := range bytes.Count(content, []byte(".yar")) {
				say(packet{Kind: 3, Index: i})
				if at := bytes.Index(content, []byte("FALL")); how == "compile" && at >= 0 && bytes.Count(content[:at], []byte(".yar"))-1 == i {
					_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
					select {}
				}
			}
			say(packet{Kind: 3, Index: bytes.Count(content, []byte(".yar"))})
			say(packet{Kind: 5, Count: 1})
			continue
		}
		switch how {
		case "number":
			say(packet{Kind: 6, Number: p.Number + 1, Matches: good})
		case "kind":
			say(packet{Kind: 2, Number: p.Number, Matches: good})
		case "junk":
			_ = unix.Sendmsg(3, []byte("\xff\xff\xff\xff not what was asked"), nil, nil, 0)
		case "huge":
			say(packet{Kind: 6, Number: p.Number, Text: strings.Repeat("x", 1<<20)})
		case "many":
			say(packet{Kind: 6, Number: p.Number, Matches: make([]yara.Match, 1000)})
		case "severity":
			say(packet{Kind: 6, Number: p.Number, Matches: []yara.Match{{Rule: "marker", Severity: 200}}})
		case "descriptors":
			say(packet{Kind: 6, Number: p.Number, Matches: good}, 0, 1, 2, 3)
		case "silent":
		case "talks":
			for range 1000 {
				fmt.Println(strings.Repeat("omega: all is well\x1b[2J ", 100))
			}
			say(packet{Kind: 6, Number: p.Number, Matches: good})
		}
	}
}

// BenchmarkScan is one file, copied, hashed, handed over and matched with 300 rules.
func BenchmarkScan(b *testing.B) {
	var rules strings.Builder
	for i := range 300 {
		fmt.Fprintf(&rules, "rule r%d { strings: $a = \"some-string-%d-abc\" $b = { 4F 4D 45 47 41 2D %02X %02X } condition: any of them }\n", i, i, i>>8, i&255)
	}
	r := newRig(b, "", map[string]string{"rules.yar": rules.String()})
	if err := r.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{64 << 10, 8 << 20} {
		b.Run(fmt.Sprintf("%d KiB", size>>10), func(b *testing.B) {
			data := program[:min(size, len(program))]
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := r.Scan(b.Context(), bytes.NewReader(data), "/tmp/x"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
