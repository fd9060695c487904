package roles_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/roles/rolestest"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// duty is a role that counts its lives.
type duty struct {
	name   string
	starts atomic.Int64
	inside atomic.Int64
	twice  atomic.Bool
	fail   func(life int64) error
}

func (d *duty) Name() string { return d.name }

func (d *duty) Run(ctx context.Context, _ roles.Peer) error {
	life := d.starts.Add(1)
	if d.inside.Add(1) > 1 {
		d.twice.Store(true)
	}
	defer d.inside.Add(-1)
	if d.fail != nil {
		if err := d.fail(life); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestGrantsStartAndStopRoles(t *testing.T) {
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	w := rolestest.New()
	p := w.Add("n1", "", roles.NameSentinel)
	watch := &duty{name: roles.NameSentinel}
	lure := &duty{name: roles.NameDecoy, fail: func(life int64) error {
		switch life {
		case 1:
			return errors.New("once")
		case 2:
			panic("twice")
		}
		return nil
	}}
	s := roles.NewSupervisor(p, roles.SupervisorOptions{Roles: []roles.Role{watch, lure}})
	inner, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Serve(inner) }()
	until := func(what string, ok func() bool) {
		t.Helper()
		if err := w.Until(ctx, ok); err != nil {
			t.Fatalf("waited for %s: %v; running %v", what, err, s.Running())
		}
	}
	until("the sentinel", func() bool { return watch.inside.Load() == 1 && slices.Equal(s.Running(), []string{"sentinel"}) })
	w.Grant("n1", roles.NameSentinel, roles.NameDecoy)
	until("the decoy to survive an error and a panic", func() bool { return lure.starts.Load() == 3 && lure.inside.Load() == 1 })
	w.Grant("n1", roles.NameDecoy)
	until("the sentinel to stop", func() bool { return watch.inside.Load() == 0 && slices.Equal(s.Running(), []string{"decoy"}) })
	w.Grant("n1", roles.NameSentinel, roles.NameDecoy)
	until("the sentinel again", func() bool { return watch.starts.Load() == 2 && watch.inside.Load() == 1 })
	end()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("serve: %v", err)
	}
	if watch.inside.Load() != 0 || lure.inside.Load() != 0 || len(s.Running()) != 0 {
		t.Error("a role outlived its supervisor")
	}
	if watch.twice.Load() || lure.twice.Load() {
		t.Error("a role ran twice at once")
	}
}

func TestBoard(t *testing.T) {
	b := roles.NewBoard()
	set := func(i int, s roles.State) {
		b.Set(roles.Standing{Response: event.Response{ID: fmt.Sprint(i)}, State: s})
	}
	set(0, roles.StateActive)
	set(1, roles.StateExpired)
	for i := 2; i < roles.MaxStandings+1; i++ {
		set(i, roles.StateActive)
	}
	if _, ok := b.Response("1"); ok {
		t.Error("what is over did not go first")
	}
	if _, ok := b.Response("0"); !ok || b.Dropped() != 0 || len(b.Responses()) != roles.MaxStandings {
		t.Errorf("%v %d %d", ok, b.Dropped(), len(b.Responses()))
	}
	set(-1, roles.StateActive)
	if _, ok := b.Response("0"); ok || b.Dropped() != 1 {
		t.Error("the bound does not hold")
	}
	if got := b.Responses()[0].Response.ID; got != "-1" {
		t.Errorf("newest first: %s", got)
	}

	for i := range roles.MaxPending + 1 {
		if !b.Propose(roles.Pending{Proposal: event.Response{ID: fmt.Sprint(i)}, Evidence: []event.Finding{{ID: "a"}}}) {
			t.Fatal("new is not new")
		}
	}
	if p := b.Pending(); len(p) != roles.MaxPending || p[0].Proposal.ID != "1" {
		t.Errorf("%d pending", len(p))
	}
	for i := range 3 * roles.MaxPendingEvidence {
		if b.Propose(roles.Pending{Proposal: event.Response{ID: "7"}, Evidence: []event.Finding{{ID: fmt.Sprint("e", i)}}}) {
			t.Fatal("known is new")
		}
	}
	p, _ := b.Waiting("7")
	if len(p.Evidence) != roles.MaxPendingEvidence || p.Evidence[0].ID != "a" || p.Evidence[len(p.Evidence)-1].ID != "e47" {
		t.Errorf("evidence: %d, %+v", len(p.Evidence), p.Evidence[0])
	}
	if _, ok := b.Withdraw("7"); !ok {
		t.Error("not withdrawn")
	}
	if _, ok := b.Withdraw("7"); ok {
		t.Error("withdrawn twice")
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"mysql -u root --password=hunter2 db": "mysql -u root --password=*** db",
		"tool --token abc next":               "tool --token *** next",
		"curl https://u:p@h.example/x?y":      "curl https://***@h.example/x?y",
		"env AWS_SECRET_ACCESS_KEY=abc id":    "env AWS_SECRET_ACCESS_KEY=*** id",
		"omega join omega1abcdef":             "omega join omega1***",
		"curl -H Authorization: Bearer xyz":   "curl -H Authorization: *** ***",
		"ls -la /tmp":                         "ls -la /tmp",
		"printf a\x1b[31m\u202eb":             "printf a?[31m?b",
	} {
		if got := redact.Words(strings.Split(in, " "), 200); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	// The value of a header in words of its own.
	if got := redact.Words([]string{"curl", "-H", "Authorization: Bearer xyz"}, 200); strings.Contains(got, "xyz") {
		t.Errorf("%q", got)
	}
}

func FuzzText(f *testing.F) {
	f.Add("--password=x", 10)
	f.Add("é\xff\u202e", 3)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		if limit < 0 || limit > 4096 {
			return
		}
		for _, got := range []string{redact.Printable(s, limit), redact.Words(strings.Split(s, " "), limit)} {
			if len(got) > limit || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Fatalf("%q at %d: %q", s, limit, got)
			}
		}
	})
}
