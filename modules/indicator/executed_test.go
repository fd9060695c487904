package indicator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omega-mesh/omega/bpf/executable"
	"github.com/omega-mesh/omega/swarm/event"
)

func execution(inode uint64, boot time.Duration, flags event.ProcessFlag) []*event.Event {
	return []*event.Event{{Class: event.ClassProcess, Activity: event.ActivityExec, Time: 1e18 + int64(boot), Boot: uint64(boot),
		Process: event.Process{Key: event.ProcessKey{PID: uint32(inode), Start: uint64(boot)}, Exe: fmt.Sprint("/x/", inode), Inode: inode, Device: 1, Flags: flags}}}
}

// What is executed is hashed once, again when it may have changed or a weak digest is wanted for the first time, and found by the
// event itself once it is known; what is too much is counted.
func TestExecuted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := func(i *executable.Image) string { return fmt.Sprint("file ", i.Inode) }
		sumOf := func(text string) executable.Sums { return executable.Sums{SHA256: sha256.Sum256([]byte(text))} }
		listed := sumOf("file 1").SHA256
		var current Current
		b := NewBuilder(0, time.Unix(1, 0))
		b.set.origins = []Origin{{Source: "list"}}
		if _, err := b.put(normal{kind: SHA256, sum: listed[:]}, Meta{Confidence: 80}, false); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		asked, fails := 0, false
		var told, found []event.Finding
		sightings := &Sightings{}
		x := NewExecuted(&current, sightings, func(_ context.Context, i executable.Image, weak bool) (executable.Sums, error) {
			mu.Lock()
			defer mu.Unlock()
			if asked++; fails {
				return executable.Sums{}, errors.New("gone")
			}
			s := sumOf(content(&i))
			s.Weak = weak
			return s, nil
		}, func(_ context.Context, f event.Finding) { told = append(told, f) })
		sees := func(batch []*event.Event) {
			t.Helper()
			if err := x.Detect(t.Context(), batch, func(f event.Finding) { found = append(found, f) }); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = x.Run(ctx) })
		check := func(when string, wantAsked, wantTold, wantFound int) {
			t.Helper()
			if asked != wantAsked || len(told) != wantTold || len(found) != wantFound {
				t.Errorf("%s: asked %d, told %d, found %d", when, asked, len(told), len(found))
			}
		}
		sees(execution(1, time.Second, 0))
		check("no digest is listed", 0, 0, 0)
		current.Store(b.Set())
		sees(execution(1, 2*time.Second, 0))
		check("the first time", 1, 1, 0)
		if f := told[0]; f.RuleID != "indicator.hash" || f.Subject.File != "/x/1" || f.Subject.Process == nil || f.Evidence[0].Value != hex.EncodeToString(listed[:]) {
			t.Errorf("%+v", f)
		}
		sees(execution(1, 5*time.Second, 0))
		check("it is known", 1, 1, 1)
		sees(execution(1, 6*time.Second, event.FlagJustWritten))
		check("it may have changed", 2, 2, 1)
		sees(execution(1, 17*time.Second, 0))
		check("that was long ago", 3, 3, 1)
		sees(execution(2, 18*time.Second, 0))
		check("another file", 4, 3, 1)
		fails = true
		sees(execution(3, 19*time.Second, 0))
		fails = false
		sees(execution(3, 20*time.Second, 0))
		check("one that was gone is asked for again", 6, 3, 1)
		if c := x.Counts(); c != (Executions{Hashed: 5, Failed: 1}) {
			t.Errorf("%+v", c)
		}
		if n, _ := sightings.Count(); n != 4 {
			t.Errorf("%d sightings", n)
		}
		for i := range maxPublished + 5 { // copies of it, within one minute
			e := execution(1, 30*time.Second, event.FlagJustWritten)
			e[0].Process.Key.PID = uint32(1000 + i)
			sees(e)
		}
		if c := x.Counts(); c.Untold < 5 || len(told) > 3+maxPublished {
			t.Errorf("%d told, %+v", len(told), c)
		}
		cancel()
		wg.Wait()
		for i := range maxWaiting + 7 { // nobody takes them
			sees(execution(uint64(100+i), 40*time.Second, 0))
		}
		if c := x.Counts(); c.Dropped != 7 {
			t.Errorf("%+v", c)
		}
	})
}
