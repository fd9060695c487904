package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/bpf/workload"
	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/node/journal"
	"github.com/omega-mesh/omega/node/privileged"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/guard"
)

// Benchmarks are the figures of an assembled node that `omega bench` shows. Those of a whole swarm are node/testnet's.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{
		{Name: "node/cold-up", Unit: "s", Limit: 3, Measure: coldUp},
		{Name: "node/line", Unit: "us", Limit: 200, Measure: lineRoundTrip},
		{Name: "sensor/user-space", Unit: "us-cpu/event", Limit: 1, Measure: kernelToJournal},
	}
}

// kernelToJournal is the processor time of an event, in microseconds, from the kernel's record to the journal on the disk, with no
// detector listening: of all threads but the one that makes the records, 310,000 a second.
func kernelToJournal() (microseconds float64, err error) {
	dir, err := os.MkdirTemp("", "omega-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	j, err := journal.Open(dir, journal.Options{Budget: 1 << 30})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-done)
	}()
	t := newTelemetry(j, workload.NewTable(nil))
	s, err := bpf.Sustain(3*time.Second, 310_000, t.take)
	if err != nil {
		return 0, err
	}
	if err := j.Flush(ctx); err != nil {
		return 0, err
	}
	if stored := j.Stats(); len(stored.Dropped) > 0 {
		return 0, fmt.Errorf("the journal dropped %v", stored.Dropped)
	}
	return s.Process, nil
}

// coldUp is the time from the start of a founder's node, in this process and on loopback, to its being ready.
func coldUp() (float64, error) {
	base, err := os.MkdirTemp("", "omega-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(base)
	dir := filepath.Join(base, "d") // the next key lies beside it
	if _, err := Init(dir, InitOptions{Name: "bench", Swarm: "bench"}); err != nil {
		return 0, err
	}
	cfg := config.Default(dir)
	cfg.Listen, cfg.MDNS, cfg.Split, cfg.Sensor = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}, false, false, "off"
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ready, done := make(chan struct{}), make(chan error, 1)
	began := time.Now()
	go func() { done <- Up(ctx, cfg, UpOptions{Log: io.Discard, Ready: func() { close(ready) }}) }()
	select {
	case <-ready:
		took := time.Since(began)
		cancel()
		return took.Seconds(), <-done
	case err := <-done:
		return 0, errors.Join(errors.New("the node ended before it was ready"), err)
	}
}

// lineRoundTrip is one command to act and its receipt, across the line between the two halves, in observe mode: guard
// rails included, the kernel excluded.
func lineRoundTrip() (float64, error) {
	dir, err := os.MkdirTemp("", "omega-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	log := slog.New(slog.DiscardHandler)
	host, err := privileged.NewHost(privileged.HostOptions{Mode: privileged.ModeObserve, Dir: dir, Rails: guard.New(), Log: log})
	if err != nil {
		return 0, err
	}
	near, file, err := privileged.Pair()
	if err != nil {
		return 0, err
	}
	far, err := privileged.FromFile(file)
	if err != nil {
		near.Close()
		return 0, err
	}
	client := privileged.NewClient(far)
	ended := make(chan struct{}, 2)
	go func() { _ = privileged.Serve(context.Background(), near, host, func() {}, log); ended <- struct{}{} }()
	go func() { _ = client.Run(context.Background()); ended <- struct{}{} }()
	defer func() { near.Close(); far.Close(); <-ended; <-ended }()
	r := event.Response{ID: "00112233445566778899aabbccddeeff", Action: event.ActionDeny, TTL: time.Hour, Authority: event.AuthorityPolicy,
		Target: event.Target{Address: netip.MustParsePrefix("203.0.113.9/32")}}
	var failed error
	ns := event.PerOperation(func(b *testing.B) {
		for b.Loop() {
			if rc, err := client.Apply(context.Background(), r, 0); err != nil || rc.Outcome != event.OutcomeObserved {
				failed = fmt.Errorf("outcome %q: %w", rc.Outcome, err)
				return
			}
		}
	})
	return ns / 1000, failed
}
