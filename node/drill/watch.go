package drill

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/testnet"
)

// seen is a finding as it came out of the API.
type seen struct {
	*apiv1.Finding
	at uint64 // CLOCK_BOOTTIME, nanoseconds
}

// watch is what one member's API told of findings and receipts since the drill began. Every member has everybody's.
type watch struct {
	host *testnet.Host
	wg   sync.WaitGroup
	stop context.CancelFunc

	mu       sync.Mutex
	findings []seen
	receipts []*apiv1.Receipt
	targets  map[string]*apiv1.Response // responses by id
	changed  chan struct{}              // closed and replaced at each change
	err      error                      // why a stream ended
}

// follow opens both streams and returns once they are open.
func follow(ctx context.Context, h *testnet.Host) (*watch, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{host: h, stop: cancel, targets: map[string]*apiv1.Response{}, changed: make(chan struct{})}
	client := h.Client()
	findings, err := client.Findings(ctx, &apiv1.FindingsRequest{Follow: true})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("follow the findings of %s: %w", h.Name, err)
	}
	receipts, err := client.Receipts(ctx, &apiv1.ReceiptsRequest{Follow: true})
	if err != nil {
		cancel()
		findings.Close()
		return nil, fmt.Errorf("follow the receipts of %s: %w", h.Name, err)
	}
	w.wg.Go(func() {
		defer findings.Close()
		for findings.Receive() {
			f := seen{findings.Msg(), bootTime()}
			w.note(func() { w.findings = append(w.findings, f) })
		}
		w.ended(ctx, findings.Err())
	})
	w.wg.Go(func() {
		defer receipts.Close()
		for receipts.Receive() {
			r := receipts.Msg()
			w.learn(ctx, r.GetResponse())
			w.note(func() { w.receipts = append(w.receipts, r) })
		}
		w.ended(ctx, receipts.Err())
	})
	return w, nil
}

func (w *watch) close() {
	w.stop()
	w.wg.Wait()
}

func (w *watch) note(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *watch) ended(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		err = errors.New("the stream ended")
	}
	w.note(func() { w.err = fmt.Errorf("following %s: %w", w.host.Name, err) })
}

// learn asks what a response is, unless it is known.
func (w *watch) learn(ctx context.Context, id string) {
	w.mu.Lock()
	_, known := w.targets[id]
	w.mu.Unlock()
	if known {
		return
	}
	list, err := w.host.Client().ListResponses(ctx, &apiv1.ListResponsesRequest{})
	if err != nil {
		return // asked again with the next receipt
	}
	w.note(func() {
		for _, r := range list.GetResponses() {
			w.targets[r.GetId()] = r
		}
	})
}

// until waits for something to be true of what was seen, and returns whether it became so in time.
func (w *watch) until(ctx context.Context, limit time.Duration, good func() bool) (bool, error) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		w.mu.Lock()
		ok, changed, err := good(), w.changed, w.err
		w.mu.Unlock()
		if ok || err != nil {
			return ok, err
		}
		select {
		case <-changed:
		case <-deadline.C:
			return false, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// mark is where findings stand now: those of a step come after it.
func (w *watch) mark() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.findings)
}

// finding waits for the first finding after mark that fits; it is zero if none comes in time.
func (w *watch) finding(ctx context.Context, mark int, limit time.Duration, fits func(*apiv1.Finding) bool) (seen, error) {
	var found seen
	_, err := w.until(ctx, limit, func() bool {
		i := slices.IndexFunc(w.findings[mark:], func(s seen) bool { return fits(s.Finding) })
		if i >= 0 {
			found = w.findings[mark+i]
		}
		return i >= 0
	})
	return found, err
}

// denied says whether a response denies exactly this address.
func denied(r *apiv1.Response, addr netip.Addr) bool {
	if r.GetAction() != "deny" {
		return false
	}
	if p, err := netip.ParsePrefix(r.GetTarget().GetAddress()); err == nil {
		return p.IsSingleIP() && p.Addr().Unmap() == addr
	}
	a, err := netip.ParseAddr(r.GetTarget().GetAddress())
	return err == nil && a.Unmap() == addr
}

// acted are the receipts of hosts whose kernel refuses addr, the first of each. The caller holds w.mu.
func (w *watch) acted(addr netip.Addr) map[string]*apiv1.Receipt {
	out := map[string]*apiv1.Receipt{}
	for _, r := range w.receipts {
		if r.GetOutcome() == "done" && out[r.GetHost()] == nil && denied(w.targets[r.GetResponse()], addr) {
			out[r.GetHost()] = r
		}
	}
	return out
}
