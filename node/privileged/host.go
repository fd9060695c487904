package privileged

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/bpf/executable"
	"github.com/omega-mesh/omega/bpf/workload"
	"github.com/omega-mesh/omega/node/privileged/immutable"
	"github.com/omega-mesh/omega/node/privileged/quarantine"
	"github.com/omega-mesh/omega/node/privileged/scanner"
	"github.com/omega-mesh/omega/roles/sentinel/integrity"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/guard"
)

// Kernel is the kernel half as a Host uses it; *bpf.Kernel is one.
type Kernel interface {
	bpf.Actuator
	ReleaseAll() (int, error)
	Active() []bpf.Enforced
	Coverage() []bpf.Check
	Drops() (map[string]uint64, error)
	SetSwarm(listeners []bpf.Listener, peers []netip.AddrPort) error
	// SetSpared says which addresses a denial by domain or port must not reach.
	SetSpared(prefixes []netip.Prefix) error
}

// Source is a sensor of the privileged side that is not the kernel's.
type Source interface {
	Coverage() []bpf.Check
	Drops() map[string]uint64
}

// HostOptions say what a Host stands on.
type HostOptions struct {
	// Mode is observe, enforce or read-only.
	Mode string
	// Resume takes a panic of an earlier run back: the person who starts the node said which mode they want.
	Resume bool
	// Self is this node's DID: what contain means here and what elsewhere.
	Self string
	// Dir keeps the allow list and the mark of a panic.
	Dir string
	// Allow are lines of the configuration; they cannot be taken away at run time.
	Allow []string
	// Kernel may be nil: then nothing can be enforced.
	Kernel Kernel
	// Logs is who follows the logs; nil where none are.
	Logs Source
	// Baseline keeps that of the watched files; nil where none are watched, and NoBaseline says why.
	Baseline   *integrity.Keeper
	NoBaseline string
	// Checks are what the node found before a Kernel was there, such as why there is none.
	Checks []Check
	Rails  *guard.Rails
	// Keep is the folder of quarantined files; empty where this host quarantines none.
	Keep string
	// Held is the folder of what may not be written; empty where this host cannot deny that.
	Held string
	// Scanner matches files with YARA rules; nil where none are.
	Scanner *scanner.Scanner
	Log     *slog.Logger
}

// Names of a Host's own files, and bounds.
const (
	fileAllow  = "allow.txt"
	filePanic  = "panic"
	maxAllowed = 1024
)

// Host is the privileged side: the one place in a node that touches the kernel.
type Host struct {
	opt     HostOptions
	testing sync.Mutex // held while a self-test runs

	// sealing is held while a file is sealed or given back, and taken before mu: a block must not wait for a large file.
	sealing sync.Mutex
	sealed  *quarantine.Store // nil where there is none
	held    *immutable.Keeper // nil where writing cannot be denied

	runtimes *workload.Runtime
	looked   lookedAt
	hasher   executable.Hasher

	mu      sync.Mutex
	mode    string
	allowed []string                // said at run time
	swarm   []string                // said by the operators
	known   map[string][]netip.Addr // DID → where it was last seen; kept when its connections end
	// ends are the swarm's endpoints of each DID, kept as known are: a contained host is refused by all others until it is
	// released, and only where it still lets their swarm traffic pass can it hear of that.
	ends  map[string][]netip.AddrPort
	parts map[string][]string // a containment elsewhere → the denials it was made of
}

// NewHost reads what an earlier run left in Dir.
func NewHost(opt HostOptions) (*Host, error) {
	h := &Host{opt: opt, mode: opt.Mode, runtimes: workload.NewRuntime(), known: map[string][]netip.Addr{}, ends: map[string][]netip.AddrPort{}, parts: map[string][]string{}}
	raw, err := os.ReadFile(filepath.Join(opt.Dir, fileAllow))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("allow list: %w", err)
	}
	for line := range bytes.Lines(raw[:min(len(raw), maxAllowed*MaxText)]) {
		if s := strings.TrimSpace(string(line)); s != "" && len(h.allowed) < maxAllowed {
			h.allowed = append(h.allowed, s)
		}
	}
	if err := h.protect(h.allowed, nil); err != nil {
		return nil, fmt.Errorf("allow list: %w", err)
	}
	h.look()
	if opt.Keep != "" {
		if h.sealed, err = quarantine.Open(opt.Keep, opt.Log); err != nil {
			return nil, err
		}
	}
	if opt.Held != "" {
		if h.held, err = immutable.Open(immutable.Options{Dir: opt.Held, Log: opt.Log, Evict: h.evict}); err != nil {
			return nil, err
		}
	}
	mark := filepath.Join(opt.Dir, filePanic)
	if opt.Resume {
		if err := os.Remove(mark); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("take back the panic: %w", err)
		}
	} else if _, err := os.Lstat(mark); err == nil {
		h.mode = ModePanic
	}
	return h, nil
}

// Modes of a Host.
const (
	ModeObserve = "observe"
	ModeEnforce = "enforce"
	ModePanic   = "panic"
	// ModeReadOnly is observe where nothing of the host may be changed.
	ModeReadOnly = "read-only"
)

// list is what this host itself said; protect adds the operators' word.
func (h *Host) list() []string { return append(slices.Clone(h.opt.Allow), h.allowed...) }

func (h *Host) protect(own, swarm []string) error {
	return h.opt.Rails.SetAllowed(append(append(slices.Clone(h.opt.Allow), own...), swarm...))
}

// Operators implements Service.
func (h *Host) Operators(_ context.Context, lines []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.protect(h.allowed, lines); err != nil {
		return err
	}
	h.swarm = lines
	return nil
}

// Apply implements Service. The rails are asked first in every mode, so that observe says what enforce would do.
func (h *Host) Apply(ctx context.Context, r event.Response, heard uint64) (event.Receipt, error) {
	switch {
	case r.Action == event.ActionQuarantine:
		return h.quarantine(ctx, r, heard)
	case r.Target.Write != "":
		return h.denyWriting(ctx, r, heard)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	rc := event.Receipt{Response: r.ID, Time: time.Now().UnixNano(), Acted: bpf.BootTime()}
	if r.TTL <= 0 {
		return rc, fmt.Errorf("%w: a response without an end", ErrFrame)
	}
	if heard == 0 || heard > rc.Acted {
		heard = rc.Acted
	}
	if rail, why := h.opt.Rails.Check(r, heard); rail != "" {
		rc.Outcome, rc.Guard, rc.Detail = event.OutcomeRefused, rail, why
		return rc, nil
	}
	switch {
	case h.mode != ModeEnforce:
		rc.Outcome, rc.Detail = event.OutcomeObserved, h.mode+" mode: nothing was done"
		return rc, nil
	case h.opt.Kernel == nil:
		rc.Outcome, rc.Detail = event.OutcomeFailed, ErrUnavailable.Error()
		return rc, nil
	}
	rc, err := h.enforce(ctx, r, heard)
	if err != nil {
		h.opt.Log.Warn("response not enforced", "response", r.ID, "action", r.Action, "err", err)
		if rc.Outcome == "" {
			return rc, err
		}
	} else {
		h.opt.Log.Info("response enforced", "response", r.ID, "action", r.Action, "target", describe(r.Target), "means", rc.Means)
	}
	return rc, nil
}

// enforce is Apply past the rails. To contain another host is to refuse each address it was proved to have, but for the
// swarm's own traffic; the rails are asked again of each, since where a member is was said by the other half.
func (h *Host) enforce(ctx context.Context, r event.Response, heard uint64) (event.Receipt, error) {
	if r.Target.Domain != "" || r.Target.Port != 0 {
		// Where it leads is not known before somebody connects: the kernel must know by then what is protected.
		if err := h.opt.Kernel.SetSpared(h.opt.Rails.Spared()); err != nil {
			return event.Receipt{Response: r.ID, Outcome: event.OutcomeFailed, Detail: cut(err.Error()), Time: time.Now().UnixNano(), Acted: bpf.BootTime()}, nil
		}
	}
	if r.Action != event.ActionContain || r.Target.Peer == h.opt.Self {
		return h.opt.Kernel.Apply(ctx, r)
	}
	rc := event.Receipt{Response: r.ID, Time: time.Now().UnixNano(), Acted: bpf.BootTime()}
	addrs := h.known[r.Target.Peer]
	if len(addrs) == 0 {
		rc.Outcome, rc.Detail = event.OutcomeFailed, "that peer was never connected here: its address is not known"
		return rc, nil
	}
	var parts []string
	for _, a := range addrs {
		part := r
		part.ID, part.Target = partID(r.ID, a), event.Target{Address: netip.PrefixFrom(a, a.BitLen())}
		if rail, why := h.mayContain(part, r.Target.Peer, heard); rail != "" {
			rc.Guard, rc.Detail = rail, cut(why)
			continue
		}
		done, err := h.opt.Kernel.Apply(ctx, part)
		if err != nil {
			for _, id := range parts {
				_, err2 := h.opt.Kernel.Release(ctx, id)
				err = errors.Join(err, err2)
			}
			rc.Outcome, rc.Detail = event.OutcomeFailed, cut(err.Error())
			return rc, nil
		}
		parts = append(parts, part.ID)
		rc.Outcome, rc.Means, rc.Acted, rc.Time = done.Outcome, done.Means, done.Acted, done.Time
	}
	if len(parts) == 0 {
		rc.Outcome = event.OutcomeRefused
		return rc, nil
	}
	rc.Guard = ""                  // some address was refused by a rail, and others were not: Detail says which
	if len(h.parts) >= MaxListed { // all of them are in the kernel with an end of their own
		clear(h.parts)
	}
	h.parts[r.ID] = parts
	return rc, nil
}

// mayContain asks the rails about one address of a member. That it is that member's, and nobody else's, is no reason not to.
func (h *Host) mayContain(part event.Response, did string, heard uint64) (rail, why string) {
	part.Action = event.ActionDeny
	rail, why = h.opt.Rails.Check(part, heard)
	if rail == guard.RailPeer {
		if at, ok := h.opt.Rails.MemberAt(part.Target.Address.Addr()); ok && at == did {
			return "", ""
		}
	}
	return rail, why
}

// partID names one denial of a containment, the same in every life of the node.
func partID(id string, a netip.Addr) string {
	sum := sha256.Sum256([]byte("omega contain\x00" + id + "\x00" + a.String()))
	return hex.EncodeToString(sum[:16])
}

// Release implements Service. A block that stands ends in any mode.
func (h *Host) Release(ctx context.Context, id string) (event.Receipt, error) {
	switch {
	case h.holds(id):
		return h.giveBack(ctx, id)
	case h.held != nil && h.held.Holds(id):
		return h.allowWriting(id)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	rc := event.Receipt{Response: id, Time: time.Now().UnixNano(), Acted: bpf.BootTime()}
	if h.opt.Kernel == nil {
		rc.Outcome, rc.Detail = event.OutcomeReleased, "nothing was enforced here"
		return rc, nil
	}
	parts, whole := h.parts[id]
	if !whole {
		parts = []string{id}
		for _, addrs := range h.known { // a containment of an earlier life
			for _, a := range addrs {
				parts = append(parts, partID(id, a))
			}
		}
	}
	delete(h.parts, id)
	released := 0
	var err error
	for _, part := range parts {
		one, perr := h.opt.Kernel.Release(ctx, part)
		switch {
		case errors.Is(perr, bpf.ErrUnknownResponse):
		case perr != nil:
			err = perr
			rc.Outcome, rc.Detail = event.OutcomeFailed, cut(perr.Error())
		default:
			released++
			rc = one
		}
	}
	rc.Response = id
	if released == 0 && err == nil {
		err = bpf.ErrUnknownResponse
	}
	if errors.Is(err, bpf.ErrUnknownResponse) {
		rc.Outcome, rc.Detail = event.OutcomeReleased, "nothing was enforced here"
		return rc, nil
	}
	if err != nil && rc.Outcome == "" {
		return rc, err
	}
	h.opt.Log.Info("response released", "response", id)
	return rc, nil
}

// Panic implements Service. The mode changes first, so that nothing new is enforced while the old is released; the mark
// on disk comes last, and its failure does not undo the rest.
func (h *Host) Panic(context.Context) (int, error) {
	n, err := h.releaseAll()
	if h.held != nil {
		h.sealing.Lock()
		files, herr := h.held.ReleaseAll()
		h.sealing.Unlock()
		n, err = n+files, errors.Join(err, herr)
	}
	if h.sealed != nil { // files last: each takes its time
		h.sealing.Lock()
		defer h.sealing.Unlock()
		files, ferr := h.sealed.RestoreAll()
		n, err = n+files, errors.Join(err, ferr)
		if h.opt.Kernel != nil { // of a file that was being sealed meanwhile
			_, rerr := h.opt.Kernel.ReleaseAll()
			err = errors.Join(err, rerr)
		}
	}
	return n, err
}

func (h *Host) releaseAll() (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mode = ModePanic
	n := 0
	var err error
	if h.opt.Kernel != nil {
		n, err = h.opt.Kernel.ReleaseAll()
	}
	h.opt.Log.Warn("panic: every block was released, nothing is enforced from now on", "released", n)
	if werr := os.WriteFile(filepath.Join(h.opt.Dir, filePanic), []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o600); werr != nil {
		err = errors.Join(err, fmt.Errorf("released, but a restart will enforce again: %w", werr))
	}
	return n, err
}

// Mode implements Service.
func (h *Host) Mode(context.Context) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mode, nil
}

// Note adds a check to those of the options.
func (h *Host) Note(c Check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.Detail, c.Lost = cut(c.Detail), cut(c.Lost)
	h.opt.Checks = append(h.opt.Checks, c)
}

// Coverage implements Service.
func (h *Host) Coverage(context.Context) ([]Check, error) {
	h.mu.Lock()
	out := slices.Clone(h.opt.Checks)
	h.mu.Unlock()
	if h.opt.Kernel != nil {
		for _, c := range h.opt.Kernel.Coverage() {
			out = append(out, Check{Name: c.Name, OK: c.OK, Detail: cut(c.Detail), Lost: cut(c.Lost)})
		}
	}
	if h.opt.Logs != nil {
		for _, c := range h.opt.Logs.Coverage() {
			out = append(out, Check{Name: c.Name, OK: c.OK, Detail: cut(c.Detail), Lost: cut(c.Lost)})
		}
	}
	out = append(out, h.heldCheck())
	if c, ok := h.baselineCheck(); ok {
		out = append(out, c)
	}
	return out, nil
}

// Counters implements Service.
func (h *Host) Counters(context.Context) (map[string]uint64, error) {
	out := map[string]uint64{}
	if h.opt.Logs != nil {
		maps.Copy(out, h.opt.Logs.Drops())
	}
	if h.opt.Kernel == nil {
		return out, nil
	}
	drops, err := h.opt.Kernel.Drops()
	maps.Copy(out, drops)
	return out, err
}

// Protect implements Service.
func (h *Host) Protect(_ context.Context, listeners []bpf.Listener, proved []Proved) error {
	rails := make([]guard.Proved, 0, len(proved))
	for _, p := range proved {
		one := guard.Proved{DID: p.DID, Address: p.Addr.Unmap(), Since: p.Since}
		if !slices.Contains(rails, one) { // several connections of one address
			rails = append(rails, one)
		}
	}
	h.opt.Rails.SetProved(rails)
	h.mu.Lock()
	if len(h.known) > MaxListed {
		clear(h.known)
		clear(h.ends)
	}
	fresh := map[string]bool{}
	for _, p := range proved {
		if !fresh[p.DID] {
			fresh[p.DID] = true
			h.known[p.DID], h.ends[p.DID] = nil, nil
		}
		if e := netip.AddrPortFrom(p.Addr.Unmap(), p.Port); len(h.ends[p.DID]) < 4*guard.MaxPerPeer && !slices.Contains(h.ends[p.DID], e) {
			h.ends[p.DID] = append(h.ends[p.DID], e)
		}
		if a := p.Addr.Unmap(); len(h.known[p.DID]) < guard.MaxPerPeer && !slices.Contains(h.known[p.DID], a) {
			h.known[p.DID] = append(h.known[p.DID], a)
		}
	}
	peers := make([]netip.AddrPort, 0, len(proved))
	for _, ends := range h.ends {
		peers = append(peers, ends...)
	}
	h.mu.Unlock()
	if h.opt.Kernel == nil {
		return nil
	}
	return errors.Join(h.opt.Kernel.SetSwarm(listeners, peers), h.opt.Kernel.SetSpared(h.opt.Rails.Spared()))
}

// Allow implements Service.
func (h *Host) Allow(_ context.Context, what string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.Contains(h.list(), what) {
		return nil
	}
	if len(h.allowed) >= maxAllowed {
		return fmt.Errorf("the allow list holds %d lines already", maxAllowed)
	}
	return h.setAllowed(append(slices.Clone(h.allowed), what))
}

// Disallow implements Service.
func (h *Host) Disallow(_ context.Context, what string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.Contains(h.opt.Allow, what) {
		return fmt.Errorf("%q stands in the configuration: take it out there", what)
	}
	i := slices.Index(h.allowed, what)
	if i < 0 {
		return fmt.Errorf("%q is not on the allow list", what)
	}
	return h.setAllowed(slices.Delete(slices.Clone(h.allowed), i, i+1))
}

// setAllowed writes before it holds: what a restart would forget is not said to be done.
func (h *Host) setAllowed(list []string) error {
	if err := h.protect(list, h.swarm); err != nil {
		return err
	}
	path := filepath.Join(h.opt.Dir, fileAllow)
	text := strings.Join(list, "\n")
	if text != "" {
		text += "\n"
	}
	err := os.WriteFile(path+".new", []byte(text), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		_ = h.protect(h.allowed, h.swarm)
		return fmt.Errorf("allow list: %w", err)
	}
	h.allowed = list
	return nil
}

// Allowed implements Service.
func (h *Host) Allowed(context.Context) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.list(), nil
}

func describe(t event.Target) string {
	switch {
	case t.Address.IsValid():
		return t.Address.String()
	case t.Domain != "":
		return t.Domain
	case t.Write != "":
		return "writing to " + t.Write
	case t.Port != 0:
		return fmt.Sprintf("port %d", t.Port)
	case t.Path != "":
		return t.Path
	case t.PID != 0:
		return fmt.Sprintf("pid %d", t.PID)
	case t.Peer != "":
		return t.Peer
	}
	return t.SHA256
}
