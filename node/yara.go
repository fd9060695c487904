package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/modules/yara"
	"github.com/omega-mesh/omega/node/privileged"
	"github.com/omega-mesh/omega/node/privileged/scanner"
	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
)

const (
	// maxSuspects bounds the files that wait to be scanned; what is over is counted.
	maxSuspects = 256
	// scanShare bounds how much of the time is spent scanning, so that who writes and runs programs all day costs a quarter of one core.
	scanShare = 4 // one part in
	scanRest  = 10 * time.Second
	// maxYaraFindings is how many findings one file makes; the most severe come first.
	maxYaraFindings = 8
	// A program that is started again and again is told once in yaraAgain.
	yaraAgain = 10 * time.Minute
	maxTold   = 1024
)

// suspects are files that wait to be matched with YARA rules. take runs on the sensors' goroutines.
type suspects struct {
	queue chan suspect
	lost  atomic.Uint64 // there was no room for
	gone  atomic.Uint64 // ended before they could be opened
	own   string        // this program
}

// suspect is one of them, and the process of the finding to come.
type suspect struct {
	request    privileged.ScanRequest
	time       int64
	boot       uint64
	process    *event.ProcessRef
	quarantine bool
}

func newSuspects() *suspects {
	s := &suspects{queue: make(chan suspect, maxSuspects)}
	s.own, _ = os.Executable()
	return s
}

func (s *suspects) put(x suspect) {
	select {
	case s.queue <- x:
	default:
		s.lost.Add(1)
	}
}

// take notes programs that were written just before they were started, or that have no file, and what interpreters are given:
// whether that was just written, the other half sees.
func (s *suspects) take(e *event.Event) {
	if e.Class != event.ClassProcess || e.Activity != event.ActivityExec || e.Result != 0 || e.Process.Key.PID == 0 {
		return
	}
	p := &e.Process
	written := p.Flags&(event.FlagJustWritten|event.FlagMemfd) != 0 && p.Exe != "" && p.Exe != s.own
	script := p.Script
	if p.Flags&(event.FlagScript|event.FlagBeforeAgent) != event.FlagScript || len(script) > privileged.MaxText {
		script = ""
	}
	if !written && script == "" || len(p.Exe) > privileged.MaxText {
		return
	}
	if len(s.queue) == cap(s.queue) {
		s.lost.Add(1)
		return
	}
	s.put(suspect{
		request: privileged.ScanRequest{PID: p.Key.PID, Parent: p.Parent.PID, MountNS: p.MountNS, Exe: []byte(p.Exe), Script: []byte(script), Written: written},
		time:    e.Time, boot: e.Boot,
		process: &event.ProcessRef{
			Key: p.Key, UID: p.UID, Exe: redact.Printable(strings.Clone(p.Exe), 1024), Args: redact.Words(p.Argv(), 512), ParentExe: redact.Printable(strings.Clone(p.ParentExe), 1024),
		},
	})
}

// sealed has a file that was quarantined looked at. Whose it was, the findings say that it was quarantined for.
func (n *Node) sealed(r *event.Response) {
	if len(n.cfg.YaraRules) == 0 {
		return
	}
	x := suspect{request: privileged.ScanRequest{Response: r.ID}, quarantine: true}
	if len(r.Findings) > 0 {
		_ = n.feed.findings.each(context.Background(), false, func(f *event.Finding) error {
			if slices.Contains(r.Findings, f.ID) && f.Subject.Process != nil {
				x.process = f.Subject.Process
			}
			return nil
		})
	}
	n.suspects.put(x)
}

// scanSuspects has what is written and executed, and what is quarantined, matched with this host's YARA rules until ctx ends.
func (n *Node) scanSuspects(ctx context.Context) error {
	cancel := n.telemetry.subscribe(n.suspects.take)
	defer cancel()
	told := map[string]time.Time{}
	for {
		var x suspect
		select {
		case <-ctx.Done():
			return ctx.Err()
		case x = <-n.suspects.queue:
		}
		began := time.Now()
		r, err := n.service.Scan(ctx, x.request)
		switch {
		case errors.Is(err, scanner.ErrNone):
			return nil // and the doctor says why
		case err != nil:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			n.log.Warn("a file was not scanned", "path", string(x.request.Exe), "response", x.request.Response, "err", err)
		}
		if r.Gone {
			n.suspects.gone.Add(1)
		}
		if r.Why != "" {
			n.log.Debug("a file was not scanned", "why", r.Why)
		}
		for i := range r.Found {
			n.tellScanned(ctx, &x, &r.Found[i], told)
		}
		if rest := min((scanShare-1)*time.Since(began), scanRest); rest > 10*time.Millisecond {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(rest):
			}
		}
	}
}

// tellScanned publishes what rules found in one file.
func (n *Node) tellScanned(ctx context.Context, x *suspect, s *privileged.Scanned, told map[string]time.Time) {
	matches := slices.Clone(s.Matches)
	slices.SortStableFunc(matches, func(a, b yara.Match) int { return cmp.Compare(b.Severity, a.Severity) })
	path := redact.Printable(strings.ToValidUTF8(string(s.Path), "?"), 1024)
	for i, m := range matches {
		if i == maxYaraFindings {
			break
		}
		f := event.Finding{
			Time: x.time, Boot: x.boot, RuleID: "yara." + m.Rule, Rule: m.Rule, Title: m.Title, Attack: m.Attack, Severity: m.Severity, Confidence: m.Confidence,
			Subject: event.Subject{File: path, Process: x.process},
			Evidence: []event.Evidence{
				{Name: "rule file", Value: m.File}, {Name: "sha256", Value: s.SHA256}, {Name: "blake3", Value: s.BLAKE3}, {Name: "bytes", Value: strconv.FormatInt(s.Size, 10)},
			},
		}
		if f.Title == "" {
			f.Title = "A file that was written and executed is found by a YARA rule"
			if x.quarantine {
				f.Title = "A quarantined file is found by a YARA rule"
			}
		}
		if x.quarantine {
			f.Evidence = append(f.Evidence, event.Evidence{Name: "quarantined by response", Value: x.request.Response})
		}
		if s.Cut {
			f.Evidence = append(f.Evidence, event.Evidence{Name: "looked at", Value: fmt.Sprintf("the first %d MiB, and the hashes are of those", yara.MaxScan>>20)})
		}
		if more := len(matches) - maxYaraFindings; more > 0 && i == maxYaraFindings-1 {
			f.Evidence = append(f.Evidence, event.Evidence{Name: "found by as well", Value: fmt.Sprintf("%d more rules", more)})
		}
		key := m.Rule + " " + s.SHA256 + " " + path + " " + x.request.Response
		if at, ok := told[key]; ok && time.Since(at) < yaraAgain {
			continue
		}
		if len(told) >= maxTold {
			clear(told)
		}
		told[key] = time.Now()
		if !n.HasRole(n.DID(), roles.NameSentinel) {
			n.log.Warn("a YARA rule found a file, and this host holds no role to tell it", "rule", m.Rule, "path", path, "sha256", s.SHA256)
			continue
		}
		if _, err := n.Publish(ctx, f); err != nil && ctx.Err() == nil {
			n.log.Warn("a YARA rule's finding was not published", "rule", m.Rule, "path", path, "err", err)
		}
	}
}

// yaraCheck is the doctor's line.
func (n *Node) yaraCheck(ctx context.Context) (ok bool, detail, lost string) {
	const none = "no file that is dropped and executed, or quarantined, is matched with rules"
	s, err := n.service.ScanStatus(ctx)
	switch {
	case err != nil:
		return false, err.Error(), none
	case !s.Asked && !s.Built:
		return true, "none, and this build has no YARA: `make build-yara` makes one that does", ""
	case !s.Asked:
		return true, "none: set yara_rules (libyara " + s.Version + ")", ""
	case s.Why != "":
		return false, s.Why, none
	}
	detail = fmt.Sprintf("%d rules of %d files, libyara %s; %d files scanned, %d found", s.Rules, s.Files, s.Version, s.Counts.Scanned, s.Counts.Found)
	if s.Calls == 0 && s.Rules > 0 {
		detail += "; the process that scans keeps all system calls: this kernel has no seccomp"
	}
	if k := s.Counts.Cut; k > 0 {
		detail += fmt.Sprintf("; of %d only the first %d MiB", k, yara.MaxScan>>20)
	}
	if k := n.suspects.gone.Load(); k > 0 {
		detail += fmt.Sprintf("; %d were gone before they could be opened", k)
	}
	var missed []string
	for _, m := range []struct {
		k    uint64
		what string
	}{
		{n.suspects.lost.Load(), "%d files there was no room to wait for"},
		{s.Counts.Timeouts, "%d scans that took too long"},
		{s.Counts.Falls, "%d files or rules that the scanner fell over, and was started again"},
		{s.Counts.Refused, "%d files that came while it was down, or that it fell over before"},
		{s.Counts.Failed, "%d scans that libyara gave up"},
	} {
		if m.k > 0 {
			missed = append(missed, fmt.Sprintf(m.what, m.k))
		}
	}
	if s.Rejected > 0 {
		missed = append(missed, fmt.Sprintf("what %d rejected rule files would find, such as %s: %s", s.Rejected, s.Example.File, s.Example.Why))
	}
	return len(missed) == 0, detail, strings.Join(missed, "; ")
}
