package privileged

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/bpf/executable"
	"github.com/omega-mesh/omega/bpf/selftest"
	"github.com/omega-mesh/omega/swarm/event"
)

// Serve answers the requests that come over conn, one after the other, until the line closes or ctx ends. ready is
// called when the other side says it serves. A malformed frame is counted in the log and answered by nothing.
func Serve(ctx context.Context, conn *Conn, s Service, ready func(), log *slog.Logger) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	// What takes its time must not keep waiting what acts.
	var tests sync.WaitGroup
	waiting := make(chan struct{}, maxSlow)
	defer tests.Wait()
	testing, end := context.WithCancel(ctx)
	defer end()
	for {
		f, err := conn.Receive()
		if errors.Is(err, ErrFrame) {
			log.Warn("privileged line: frame refused", "err", err)
			continue
		}
		if err != nil {
			return errors.Join(ctx.Err(), err)
		}
		if f.Kind == KindReady {
			ready()
			continue
		}
		apart := false
		if slow(conn.codec, f) {
			select {
			case waiting <- struct{}{}:
				apart = true
			default:
				if f.Kind != KindApply && f.Kind != KindRelease { // those are done in their turn
					log.Warn("privileged line: too much is asked for at once", "kind", f.Kind)
					continue // whoever waits runs into its deadline
				}
			}
		}
		if apart {
			tests.Go(func() {
				defer func() { <-waiting }()
				body, err := answer(testing, conn.codec, s, f)
				reply := Frame{Kind: KindReply, Number: f.Number}
				if err != nil {
					reply.Error, body = cut(err.Error()), nil
				}
				if err := conn.Send(reply, body); err != nil {
					log.Debug("privileged line", "err", err)
				}
			})
			continue
		}
		body, err := answer(ctx, conn.codec, s, f)
		reply := Frame{Kind: KindReply, Number: f.Number}
		if err != nil {
			reply.Error, body = cut(err.Error()), nil
		}
		err = conn.Send(reply, body)
		if errors.Is(err, ErrFrame) { // an answer too large for a packet
			err = conn.Send(Frame{Kind: KindReply, Number: f.Number, Error: cut(err.Error())}, nil)
		}
		if err != nil {
			return err
		}
	}
}

// maxSlow bounds the requests of slow kinds that are answered at once.
const maxSlow = 16

// slow says which requests take their time, or wait for something to happen: a large file is sealed and given back in
// seconds, and no block may wait for that.
func slow(cd codec, f Frame) bool {
	switch f.Kind {
	case KindSelfTest, KindDigest, KindRelease, KindBaselineNews, KindBaselineLook, KindBaselineCommit, KindBaselineAccept, KindBaselineDifferences, KindBaselineBegin, KindScan:
		return true
	case KindApply:
		var b applyBody
		return cd.body(f, &b) == nil && b.Response.Action == event.ActionQuarantine
	}
	return false
}

// Drain asks the other side to stop in good order.
func Drain(conn *Conn) error { return conn.Send(Frame{Kind: KindDrain}, nil) }

// answer is the table of what may be asked.
func answer(ctx context.Context, cd codec, s Service, f Frame) (any, error) {
	switch f.Kind {
	case KindApply:
		var b applyBody
		if err := cd.body(f, &b); err != nil {
			return nil, err
		}
		if err := checkResponse(b.ID, &b.Response); err != nil {
			return nil, err
		}
		b.Response.ID = b.ID
		return s.Apply(ctx, b.Response, b.Heard)
	case KindRelease:
		var b textBody
		if err := cd.body(f, &b); err != nil {
			return nil, err
		}
		if !event.ValidResponseID(b.Text) {
			return nil, fmt.Errorf("%w: response id %.40q", ErrFrame, b.Text)
		}
		return s.Release(ctx, b.Text)
	case KindActive:
		rows, err := s.Active(ctx)
		return listBody[Enforced]{rows[:min(len(rows), MaxListed)]}, err
	case KindPanic:
		n, err := s.Panic(ctx)
		return numberBody{uint64(n)}, err
	case KindMode:
		m, err := s.Mode(ctx)
		return textBody{m}, err
	case KindCoverage:
		rows, err := s.Coverage(ctx)
		return listBody[Check]{rows}, err
	case KindCounters:
		m, err := s.Counters(ctx)
		return countersBody{m}, err
	case KindSelfTest:
		var b textBody
		if err := cd.body(f, &b); err != nil {
			return nil, err
		}
		if _, err := hex.DecodeString(b.Text); err != nil || len(b.Text) < 16 || len(b.Text) > 64 {
			return nil, fmt.Errorf("%w: a secret of %d bytes", ErrFrame, len(b.Text))
		}
		rows, err := s.SelfTest(ctx, b.Text)
		return listBody[selftest.Attempt]{rows}, err
	case KindProtect:
		var b protectBody
		if err := cd.body(f, &b); err != nil {
			return nil, err
		}
		if len(b.Proved) > MaxProtected || len(b.Listeners) > MaxListeners {
			return nil, fmt.Errorf("%w: %d addresses, %d listeners", ErrFrame, len(b.Proved), len(b.Listeners))
		}
		for _, l := range b.Listeners {
			if l.Port == 0 || l.Protocol != unix.IPPROTO_TCP && l.Protocol != unix.IPPROTO_UDP {
				return nil, fmt.Errorf("%w: listener %d/%d", ErrFrame, l.Protocol, l.Port)
			}
		}
		for _, p := range b.Proved {
			if len(p.DID) > 128 || !p.Addr.IsValid() {
				return nil, fmt.Errorf("%w: proved address", ErrFrame)
			}
		}
		return nil, s.Protect(ctx, b.Listeners, b.Proved)
	case KindProcess:
		var b numberBody
		if err := cd.body(f, &b); err != nil {
			return nil, err
		}
		if b.Number == 0 || b.Number > 1<<22 { // PID_MAX_LIMIT
			return nil, fmt.Errorf("%w: pid %d", ErrFrame, b.Number)
		}
		return s.Process(ctx, uint32(b.Number))
	case KindContainer:
		var b textBody
		if err := cd.body(f, &b); err != nil {
			return nil, err
		}
		if len(b.Text) > 128 {
			return nil, fmt.Errorf("%w: a container's id of %d bytes", ErrFrame, len(b.Text))
		}
		return s.Container(ctx, b.Text)
	case KindDigest:
		var b imageBody
		if err := cd.body(f, &b); err != nil {
			return nil, err
		}
		if b.PID == 0 || b.PID > 1<<22 || len(b.Path) > MaxText {
			return nil, fmt.Errorf("%w: pid %d, a path of %d bytes", ErrFrame, b.PID, len(b.Path))
		}
		sums, err := s.Digest(ctx, executable.Image{PID: b.PID, Path: b.Path, Inode: b.Inode, Device: b.Device, Untrusted: true}, b.Weak)
		return sumsBody{sums.SHA256, sums.Weak, sums.SHA1, sums.MD5}, err
	case KindAllow, KindDisallow:
		var b textBody
		if err := cd.body(f, &b); err != nil {
			return nil, err
		}
		if len(b.Text) > MaxText {
			return nil, fmt.Errorf("%w: a text of %d bytes", ErrFrame, len(b.Text))
		}
		if f.Kind == KindAllow {
			return nil, s.Allow(ctx, b.Text)
		}
		return nil, s.Disallow(ctx, b.Text)
	case KindOperators:
		var b listBody[string]
		if err := cd.body(f, &b); err != nil {
			return nil, err
		}
		if len(b.Rows) > MaxOperators {
			return nil, fmt.Errorf("%w: %d lines", ErrFrame, len(b.Rows))
		}
		for _, line := range b.Rows {
			if len(line) > MaxText {
				return nil, fmt.Errorf("%w: a text of %d bytes", ErrFrame, len(line))
			}
		}
		return nil, s.Operators(ctx, b.Rows)
	case KindAllowed:
		rows, err := s.Allowed(ctx)
		return listBody[string]{rows}, err
	case KindBaselineBegin, KindBaselineNews, KindBaselineCommit, KindBaselineLook, KindBaselineStatus, KindBaselineDifferences, KindBaselineRescan, KindBaselineAccept:
		return answerBaseline(ctx, cd, s, f)
	case KindScan:
		var b ScanRequest
		if err := cd.body(f, &b); err != nil {
			return nil, err
		}
		if err := checkScan(&b); err != nil {
			return nil, err
		}
		return s.Scan(ctx, b)
	case KindScanStatus:
		return s.ScanStatus(ctx)
	}
	return nil, fmt.Errorf("%w: kind %d is no request", ErrFrame, f.Kind)
}

// cut bounds a text, and keeps it valid UTF-8 as the codec demands.
func cut(s string) string { return strings.ToValidUTF8(s[:min(len(s), MaxText)], "?") }
