package decoy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/roles/rolestest"
	"github.com/omega-mesh/omega/swarm/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open runs a decoy on a free port of loopback and gives its address.
func open(t *testing.T) (w *rolestest.Swarm, d *Decoy, address string, ctx context.Context) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(stop)
	w = rolestest.New()
	p := w.Add("n2", "10.0.0.2", roles.NameDecoy)
	d, err := New(Options{Services: []string{"tcp/0"}, Bind: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	inner, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- d.Run(inner, p) }()
	t.Cleanup(func() {
		end()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the decoy ended: %v", err)
		}
		if s := d.Services()[0].State; s != "stopped" {
			t.Errorf("state after the end: %s", s)
		}
	})
	if err := w.Until(ctx, func() bool { return strings.HasPrefix(d.Services()[0].State, "listening on ") }); err != nil {
		t.Fatal(err)
	}
	return w, d, "127.0.0.1:" + strings.TrimPrefix(d.Services()[0].State, "listening on "), ctx
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c
}

func TestTouchIsToldBeforeAWordIsSaid(t *testing.T) {
	w, d, address, _ := open(t)
	c := dial(t, address)
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	// The greeting has come, so the finding is out already.
	found := w.Found()
	if len(found) != 1 {
		t.Fatalf("%d findings when the first byte came", len(found))
	}
	f := found[0]
	_, port, _ := net.SplitHostPort(address)
	if f.RuleID != "omega.decoy.touch" || !f.Handshake || f.Decoy != "tcp/"+port || f.Confidence != 100 || f.Subject.Address.String() != "127.0.0.1" || f.Boot == 0 {
		t.Errorf("touch: %+v", f)
	}
	if n := d.Services()[0].Touches; n != 1 {
		t.Errorf("%d touches", n)
	}
}

func TestSessionIsRecordedWithoutSecrets(t *testing.T) {
	w, _, address, ctx := open(t)
	c := dial(t, address)
	r := bufio.NewReader(c)
	expect := func(text string) {
		t.Helper()
		var got strings.Builder
		for !strings.HasSuffix(got.String(), text) {
			b, err := r.ReadByte()
			if err != nil {
				t.Fatalf("waited for %q, got %q: %v", text, got.String(), err)
			}
			got.WriteByte(b)
		}
	}
	for range maxLogons {
		expect("login: ")
		c.Write([]byte("\xff\xfd\x18ro\x1b[31mot\r\n"))
		expect("Password: ")
		c.Write([]byte("Winter2024!\r\n"))
	}
	expect("tries exceeded\r\n")
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("after the last try: %v", err)
	}
	if err := w.Until(ctx, func() bool { return len(w.Found()) == 2 }); err != nil {
		t.Fatal(err)
	}
	f := w.Found()[1]
	if f.RuleID != "omega.decoy.session" || f.Handshake || f.Subject.User != "ro?[31mot" {
		t.Errorf("session: %+v", f)
	}
	for _, e := range f.Evidence {
		if strings.Contains(e.Value, "Winter") || strings.ContainsRune(e.Value, 0x1b) {
			t.Errorf("evidence %q", e.Value)
		}
	}
}

func TestBounds(t *testing.T) {
	w, d, address, ctx := open(t)
	held := make([]net.Conn, maxPerSource)
	for i := range held {
		held[i] = dial(t, address)
		if _, err := held[i].Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	over := dial(t, address)
	if _, err := over.Read(make([]byte, 1)); err == nil {
		t.Fatal("one source is talked to on more connections than its share")
	}
	s := d.Services()[0]
	if s.Touches != maxPerSource+1 || s.Dropped != 1 || len(w.Found()) != 1 {
		t.Errorf("%+v, %d findings", s, len(w.Found()))
	}
	// A visitor that never ends a line is cut off.
	sent := 0
	for sent < 1<<20 {
		n, err := held[0].Write(make([]byte, 1<<10))
		if sent += n; err != nil {
			break
		}
	}
	if err := w.Until(ctx, func() bool { return len(w.Found()) == 2 }); err != nil {
		t.Fatal(err)
	}
	if got := w.Found()[1].Evidence[0]; got != (event.Evidence{Name: "bytes", Value: "4096"}) {
		t.Errorf("evidence: %+v", got)
	}
}

func TestTouchAgain(t *testing.T) {
	w, d, address, ctx := open(t)
	dial(t, address)
	if err := w.Until(ctx, func() bool { return len(w.Found()) == 1 }); err != nil {
		t.Fatal(err)
	}
	dial(t, address)
	if err := w.Until(ctx, func() bool { return d.Services()[0].Touches == 2 }); err != nil {
		t.Fatal(err)
	}
	w.Advance(time.Duration(touchAgain))
	dial(t, address)
	if err := w.Until(ctx, func() bool { return len(w.Found()) == 2 }); err != nil {
		t.Fatal(err)
	}
}

func TestServices(t *testing.T) {
	for _, bad := range [][]string{{"ssh/22"}, {"tcp"}, {"tcp/x"}, {"tcp/70000"}, {"tcp/2323", "telnet@2323"}} {
		if _, err := New(Options{Services: bad}); err == nil {
			t.Errorf("took %v", bad)
		}
	}
	d, err := New(Options{Services: []string{"telnet@2323"}})
	if err != nil || d.Services()[0].Name != "tcp/2323" || d.Services()[0].State != "stopped" {
		t.Errorf("%+v %v", d, err)
	}
	if _, err := New(Options{Bind: "nowhere"}); err == nil {
		t.Error("took a bind address that is none")
	}
}

// TestBusyPort: a port in use is said, and taken as soon as it is free.
func TestBusyPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	d, err := New(Options{Services: []string{"tcp/" + port}, Bind: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	w := rolestest.New()
	ctx, stop := context.WithTimeout(context.Background(), 15*time.Second)
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, w.Add("n2", "", roles.NameDecoy)) }()
	defer func() { stop(); <-done }()
	if err := w.Until(ctx, func() bool { return strings.Contains(d.Services()[0].State, "in use") }); err != nil {
		t.Fatalf("%+v", d.Services())
	}
	l.Close()
	if err := w.Until(ctx, func() bool { return d.Services()[0].State == "listening" }); err != nil {
		t.Fatalf("%+v", d.Services())
	}
}

func FuzzDialogue(f *testing.F) {
	f.Add([]byte("root\r\nhunter2\r\n"))
	f.Add([]byte("\xff\xfa\x18\x00xterm\xff\xf0admin\r\x00pw\n\xff\xff"))
	f.Add([]byte("GET / HTTP/1.0\r\nAuthorization: Basic eDp5\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		d := dialogue{}
		written := 0
		for len(in) > 0 {
			n := min(len(in), 7)
			reply, over := d.hear(in[:n])
			if written += len(reply); over {
				break
			}
			in = in[n:]
		}
		d.finish()
		if len(d.said) > maxSaid || len(d.line) > maxLine || d.logons > maxLogons || len(d.user) > 64 {
			t.Fatalf("out of bounds: %+v", d)
		}
		for _, s := range d.said {
			if len(s) > maxLine+8 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Fatalf("kept %q", s)
			}
		}
	})
}
