package drill

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "testnet" {
		os.Exit(3) // these tests run the real binary; this one is no reaper
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

var loopback = netip.MustParseAddr("127.0.0.1")

func run(t *testing.T, into any, args ...string) {
	t.Helper()
	var out bytes.Buffer
	if err := help(t.Context(), args, strings.NewReader(""), &out); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), into); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
}

func closedPort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func TestDialTellsOpenFromRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	before := bootTime()
	var got []Attempt
	run(t, &got, "dial", "127.0.0.1", "1s", l.Addr().String(), netip.AddrPortFrom(loopback, closedPort(t)).String())
	if len(got) != 2 || !got[0].OK || got[1].OK || got[1].Error != "connection refused" {
		t.Errorf("got %+v", got)
	}
	for _, a := range got {
		if a.Boot < before || a.Boot > bootTime() {
			t.Errorf("stamp %d is not within the call", a.Boot)
		}
	}
}

func TestScanFindsTheOpenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	open := l.Addr().(*net.TCPAddr).AddrPort()
	var got Scan
	run(t, &got, "scan", "127.0.0.1", fmt.Sprintf("%d,%d", closedPort(t), open.Port()), "127.0.0.1")
	if got.Ports != 2 || len(got.Open) != 1 || got.Open[0] != open {
		t.Errorf("got %+v, want %s open of 2", got, open)
	}
}

func TestScanTargetsAreBounded(t *testing.T) {
	if got, err := parseScan("22,80-82", []string{"10.0.0.1", "10.0.0.2"}); err != nil || len(got) != 8 {
		t.Errorf("%v, %v, want 8 targets", got, err)
	}
	if _, err := parseScan("0-65535", []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}); err == nil {
		t.Error("three whole hosts are more than the bound")
	}
	for _, bad := range []string{"", "x", "1-", "70000", "1-70000"} {
		if got, err := parseScan(bad, []string{"10.0.0.1"}); err == nil {
			t.Errorf("ports %q: %v", bad, got)
		}
	}
}

// A reverse shell really is one: without a block, the listener gets an answer of a shell.
func TestReverseShellReachesTheListener(t *testing.T) {
	port := closedPort(t)
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- help(t.Context(), []string{"listen", "127.0.0.1", strconv.Itoa(int(port))}, inR, outW)
		outW.Close()
	}()
	lines := bufio.NewScanner(outR)
	if !lines.Scan() || lines.Text() != `"ready"` {
		t.Fatalf("the listener said %q", lines.Text())
	}
	if err := help(t.Context(), []string{"shell", "127.0.0.1", netip.AddrPortFrom(loopback, port).String()}, nil, io.Discard); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() {
		t.Fatal("nothing was caught")
	}
	var c Caught
	if err := json.Unmarshal(lines.Bytes(), &c); err != nil || !strings.HasPrefix(c.Said, "shell-of ") || c.From.Addr() != loopback {
		t.Errorf("caught %+v, %v", c, err)
	}
	inW.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestHelperRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, args := range [][]string{nil, {"dial"}, {"dial", "127.0.0.1"}, {"dial", "nowhere", "1s", "127.0.0.1:1"}, {"wipe", "127.0.0.1", "x"},
		{"dial", "127.0.0.1", "soon", "127.0.0.1:1"}, {"dial", "127.0.0.1", "1s", "127.0.0.1"}, {"listen", "127.0.0.1", "99999"}} {
		if err := help(t.Context(), args, strings.NewReader(""), io.Discard); err == nil {
			t.Errorf("%v was run", args)
		}
	}
}

func TestSpreadIsNearestRank(t *testing.T) {
	if got := spread(nil); got != (Spread{}) {
		t.Errorf("of nothing: %+v", got)
	}
	if got, want := spread([]float64{5, 1, 4, 2, 3}), (Spread{1, 3, 5, 5}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	hundred := make([]float64, 200)
	for i := range hundred {
		hundred[i] = float64(200 - i)
	}
	if got, want := spread(hundred), (Spread{1, 100, 198, 200}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestDeniedMeansThisAddressAlone(t *testing.T) {
	x1 := netip.MustParseAddr("10.77.0.250")
	for address, want := range map[string]bool{"10.77.0.250": true, "10.77.0.250/32": true, "::ffff:10.77.0.250": true,
		"10.77.0.0/24": false, "10.77.0.11/32": false, "": false, "fd77::250/128": false} {
		r := &apiv1.Response{Action: "deny", Target: &apiv1.Target{Address: address}}
		if got := denied(r, x1); got != want {
			t.Errorf("%q: %t", address, got)
		}
	}
	if denied(&apiv1.Response{Action: "release", Target: &apiv1.Target{Address: "10.77.0.250"}}, x1) || denied(nil, x1) {
		t.Error("only a deny denies")
	}
}

func TestBlockIsDrawnInPlaceOnATerminalOnly(t *testing.T) {
	var ansi, plain bytes.Buffer
	for _, s := range []*screen{{out: &ansi, ansi: true}, {out: &plain}} {
		s.line("above")
		s.block([]string{"one", "two"})
		s.block([]string{"eins", "zwei"})
		s.line("below")
	}
	if plain.String() != "above\nbelow\n" {
		t.Errorf("not a terminal: %q", plain.String())
	}
	var term terminal
	term.feed(0, ansi.Bytes())
	if got := term.text(); got != "above\neins\nzwei\nbelow" {
		t.Errorf("on a terminal: %q", got)
	}
}

func (t *terminal) text() string {
	lines := make([]string, len(t.rows))
	for i, row := range t.rows {
		for _, c := range row {
			lines[i] += string(c.r)
		}
	}
	return strings.Join(lines, "\n")
}

func TestBarGrowsByEighths(t *testing.T) {
	for _, c := range []struct {
		ms, full float64
		want     string
	}{{0, 10, "▏"}, {10, 10, strings.Repeat("█", barWidth)}, {20, 10, strings.Repeat("█", barWidth)}, {5, 10, strings.Repeat("█", barWidth/2)},
		{1.5, 32, "█▌"}, {1, 0, ""}} {
		if got := bar(c.ms, c.full); got != c.want {
			t.Errorf("bar(%v, %v) = %q, want %q", c.ms, c.full, got, c.want)
		}
	}
}

func TestPictureIsWellFormedAndHoldsTheText(t *testing.T) {
	r := NewRecording()
	fmt.Fprint(r, "\x1b[1momega\x1b[0m <&> drill\n\x1b[31m▶\x1b[0m x1\n")
	r.Write(bytes.Repeat([]byte("x"), maxRecording)) // over the bound: left out
	var b bytes.Buffer
	if err := r.SVG(&b, `a "title"`); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for d := xml.NewDecoder(&b); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if c, ok := tok.(xml.CharData); ok {
			text.Write(c)
		}
	}
	for _, want := range []string{"omega", "<&> drill", "▶"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in %q", want, text.String())
		}
	}
	if strings.Contains(text.String(), "xxxx") {
		t.Error("more than the bound was recorded")
	}
}

func TestPaceHidesWaitingAndShowsBursts(t *testing.T) {
	got := pace([]time.Duration{0, 0, 30 * time.Second, 30 * time.Second})
	if got[1] != 60*time.Millisecond || got[2]-got[1] != longestGap || got[3]-got[2] != 60*time.Millisecond {
		t.Errorf("%v", got)
	}
	long := make([]time.Duration, 400)
	if last := pace(long)[399]; last > playFor {
		t.Errorf("a long recording plays for %v", last)
	}
}

func FuzzParseScan(f *testing.F) {
	f.Add("22,80-82", "10.0.0.1")
	f.Add("65535-0,0-65535", "::1")
	f.Fuzz(func(t *testing.T, ports, addr string) {
		if got, err := parseScan(ports, []string{addr, addr}); err == nil && len(got) > maxScan {
			t.Fatalf("%d targets", len(got))
		}
	})
}

func FuzzTerminal(f *testing.F) {
	f.Add([]byte("\x1b[1mbold\x1b[0m\r\x1b[K\n\x1b[2A"))
	f.Add([]byte("\x1b["))
	f.Add([]byte("\x1b[99999999999999999999A\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var term terminal
		term.feed(0, b)
		if len(term.rows) > maxRows {
			t.Fatalf("%d rows", len(term.rows))
		}
		for _, r := range term.rows {
			if len(r) > maxColumns {
				t.Fatalf("%d columns", len(r))
			}
		}
	})
}

func TestRunRefusesWhatItCannotRun(t *testing.T) {
	if _, err := Run(t.Context(), Options{Scenario: "no-such"}); !errors.Is(err, ErrScenario) {
		t.Errorf("an unknown scenario: %v", err)
	}
	if _, err := Run(t.Context(), Options{Nodes: 1}); err == nil {
		t.Error("a drill of one node ran")
	}
}
