package logs

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// follow runs a follower of path and its sensor until the test ends, and gives the users that events name. It returns
// once what was in the file at the start is passed.
func follow(t *testing.T, path string) (*Follower, *Sensor, <-chan string) {
	t.Helper()
	f, err := Follow([]string{path}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Reader()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(r)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	users, done := make(chan string, 10_000), make(chan error, 2)
	go func() { done <- f.Run(ctx) }()
	go func() { done <- s.Run(ctx, func(e *event.Event) { users <- strings.Clone(e.Logon.User) }) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := os.Stat(path); err == nil {
		for !f.Coverage()[0].OK {
			time.Sleep(time.Millisecond) // until it is open; the test's own deadline ends a hang
		}
	}
	return f, s, users
}

func line(user string) string {
	return fmt.Sprintf("%s host sshd[42]: Failed password for %s from 203.0.113.9 port 5 ssh2\n", time.Now().Format(time.Stamp), user)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// expect waits for users, in order and without another between.
func expect(t *testing.T, users <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-users:
			if got != w {
				t.Fatalf("%q came, want %q", got, w)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q did not come", w)
		}
	}
}

// TestFollowsAFileThroughItsLives: what was there is history; then appended lines, one in two writes, a rotation with a
// last line to the old file, a truncation, and a removal.
func TestFollowsAFileThroughItsLives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.log")
	write(t, path, line("history"))
	f, s, users := follow(t, path)
	write(t, path, line("a"))
	expect(t, users, "a")
	half := line("halves")
	write(t, path, half[:20])
	write(t, path, half[20:])
	expect(t, users, "halves")
	old, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if _, err := old.WriteString(line("late")); err != nil { // rsyslog until it is told
		t.Fatal(err)
	}
	expect(t, users, "late")
	write(t, path, line("new"))
	expect(t, users, "new")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	for f.Drops()["logs/truncated"] == 0 {
		time.Sleep(time.Millisecond)
	}
	write(t, path, line("short"))
	expect(t, users, "short")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, line("again"))
	expect(t, users, "again")
	write(t, path, strings.Repeat("x", MaxLine+100)+"\n"+"no format\n"+line("after"))
	expect(t, users, "after")
	if f.Drops()["logs/too_long"] != 1 || s.Drops()["malformed"] != 1 {
		t.Errorf("dropped %v, %v", f.Drops(), s.Drops())
	}
}

func TestFollowsAFileThatAppears(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.log")
	f, _, users := follow(t, path)
	if c := f.Coverage()[0]; c.OK || c.Lost == "" {
		t.Errorf("a file that is not there: %+v", c)
	}
	// Two writers may meet the start of the follower: it sees the file now or by its watch.
	write(t, path, line("first"))
	deadline := time.After(10 * time.Second)
	for got := ""; got == ""; {
		select {
		case got = <-users:
		case <-time.After(20 * time.Millisecond):
			if f.Coverage()[0].OK {
				write(t, path, line("later")) // it was there when the follower began: history
			}
		case <-deadline:
			t.Fatal("nothing came")
		}
	}
}

// TestNothingIsLostInAFlood: a hundred thousand bytes a time are more than a pipe holds; the file waits.
func TestNothingIsLostInAFlood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.log")
	write(t, path, "")
	_, _, users := follow(t, path)
	const n = 5000
	var b strings.Builder
	for i := range n {
		b.WriteString(line(fmt.Sprint("u", i)))
	}
	write(t, path, b.String())
	for i := range n {
		expect(t, users, fmt.Sprint("u", i))
	}
}

// A reader whose follower is gone, killed with the half that it ran in, ends once and is no failure to try again.
func TestReaderEndsWithItsFollower(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(r)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, last := range []string{"f\n", "f" + strings.Repeat("x", MaxLine+10)} { // a whole line, and one cut short
		if _, err := w.WriteString(last); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	if err := s.Run(t.Context(), func(*event.Event) {}); err != nil {
		t.Error(err)
	}
	if err := s.Run(t.Context(), func(*event.Event) {}); err != nil {
		t.Error("asked again:", err)
	}
}
