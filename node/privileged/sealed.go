package privileged

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/node/privileged/quarantine"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/guard"
)

// Means of a quarantine.
const (
	meansSealed = "sealed"   // the name is gone; a scrambled copy is kept
	meansAgain  = "restored" // the file is back as it was
)

// quarantine seals a file. The rails are asked twice: of the path, as of any response, and of the inode that was opened.
// The kernel denies its execution first, so that nothing starts it while it is copied, and what still holds it open
// cannot either; that denial ends with the response, the seal when it is released.
func (h *Host) quarantine(ctx context.Context, r event.Response, heard uint64) (event.Receipt, error) {
	h.sealing.Lock() // and then the mode: a panic that came first must find nothing sealed after it
	defer h.sealing.Unlock()
	rc, fail, err := h.fileResponse(ctx, r, heard, "file not quarantined")
	if rc.Outcome != "" || err != nil {
		return *rc, err
	}
	if h.sealed == nil {
		return fail(event.OutcomeFailed, "this host quarantines no files: it needs root")
	}
	if kept, ok := h.sealed.Get(r.ID); ok { // ordered before a restart, and done then
		rc.Outcome, rc.Means, rc.Detail = event.OutcomeAdopted, []string{meansSealed}, cut(summary(kept))
		return *rc, nil
	}
	f, err := quarantine.Find(r.Target.Path)
	if err != nil {
		return fail(event.OutcomeFailed, err.Error())
	}
	defer f.Close()
	inode, device, generation := f.Inode()
	if rail, why := h.opt.Rails.CheckOpened(guard.File{Path: f.Path(), Inode: inode, Device: device}); rail != "" {
		rc.Guard = rail
		return fail(event.OutcomeRefused, why)
	}
	if h.own(f.Path()) {
		rc.Guard = guard.RailSelf
		return fail(event.OutcomeRefused, f.Path()+" is omega's own")
	}
	rc.Means = []string{meansSealed}
	note := ""
	if h.opt.Kernel != nil {
		block := r
		block.Action = event.ActionDeny
		block.Target = event.Target{Inode: inode, Device: uint64(unix.Major(device))<<20 | uint64(unix.Minor(device)), Generation: generation}
		if done, err := h.opt.Kernel.Apply(ctx, block); err != nil {
			note = "; its execution is not denied besides: " + err.Error()
		} else {
			rc.Means = append(rc.Means, done.Means...)
		}
	}
	kept, err := h.sealed.Seal(r.ID, f, bpf.BootTime()+uint64(r.TTL))
	if err != nil {
		if h.opt.Kernel != nil && len(rc.Means) > 1 {
			if _, rerr := h.opt.Kernel.Release(ctx, r.ID); rerr != nil {
				note = "; its execution is denied: " + rerr.Error()
			}
		}
		rc.Means = nil
		return fail(event.OutcomeFailed, err.Error()+note)
	}
	if f.Links() > 1 {
		note += fmt.Sprintf("; it has %d other names, under which it is where it was", f.Links()-1)
	}
	rc.Outcome, rc.Detail, rc.Time, rc.Acted = event.OutcomeDone, cut(summary(kept)+note), time.Now().UnixNano(), bpf.BootTime()
	h.opt.Log.Info("file quarantined", "response", r.ID, "path", kept.Path, "sha256", kept.SHA256)
	return *rc, nil
}

// own says whether a resolved path is of the node's state.
func (h *Host) own(path string) bool {
	dir, _ := filepath.EvalSymlinks(h.opt.Dir)
	return path == dir || strings.HasPrefix(path, dir+"/") || strings.HasPrefix(path, dir+"-next/")
}

// failing ends a receipt with what became of its response, and says so.
type failing func(outcome event.Outcome, detail string) (event.Receipt, error)

// fileResponse begins the receipt of a response that changes a file: its bounds, the rails and the mode are asked. One with an
// outcome is ended already. The caller holds sealing.
func (h *Host) fileResponse(ctx context.Context, r event.Response, heard uint64, not string) (*event.Receipt, failing, error) {
	rc := &event.Receipt{Response: r.ID, Time: time.Now().UnixNano(), Acted: bpf.BootTime()}
	fail := func(outcome event.Outcome, detail string) (event.Receipt, error) {
		rc.Outcome, rc.Detail, rc.Time, rc.Acted = outcome, cut(detail), time.Now().UnixNano(), bpf.BootTime()
		h.opt.Log.Warn(not, "response", r.ID, "target", describe(r.Target), "why", detail)
		return *rc, nil
	}
	if r.TTL <= 0 || r.TTL > bpf.MaxTTL {
		return rc, fail, fmt.Errorf("%w: a response with a life of %s", ErrFrame, r.TTL)
	}
	if heard == 0 || heard > rc.Acted {
		heard = rc.Acted
	}
	if rail, why := h.opt.Rails.Check(r, heard); rail != "" {
		rc.Guard = rail
		_, _ = fail(event.OutcomeRefused, why)
	} else if mode, _ := h.Mode(ctx); mode != ModeEnforce {
		_, _ = fail(event.OutcomeObserved, mode+" mode: nothing was done")
	}
	return rc, fail, nil
}

func summary(r quarantine.Record) string {
	return fmt.Sprintf("%s, %d bytes, sha256 %s, sealed until it is released", r.Path, r.Size, r.SHA256)
}

func (h *Host) holds(id string) bool {
	if h.sealed == nil {
		return false
	}
	_, ok := h.sealed.Get(id)
	return ok
}

// giveBack ends a quarantine, in any mode: the file first, since without it the block is all there is.
func (h *Host) giveBack(ctx context.Context, id string) (event.Receipt, error) {
	h.sealing.Lock()
	defer h.sealing.Unlock()
	rc := event.Receipt{Response: id}
	r, err := h.sealed.Restore(id)
	rc.Time, rc.Acted = time.Now().UnixNano(), bpf.BootTime()
	if err != nil {
		rc.Outcome, rc.Detail = event.OutcomeFailed, cut(err.Error())
		h.opt.Log.Warn("file not given back", "response", id, "err", err)
		return rc, nil
	}
	rc.Outcome, rc.Means, rc.Detail = event.OutcomeReleased, []string{meansAgain}, cut(r.Path+" is back as it was")
	if h.opt.Kernel != nil {
		_, _ = h.opt.Kernel.Release(ctx, id) // of an inode that is gone; past its end there is nothing to release
	}
	h.opt.Log.Info("file given back", "response", id, "path", r.Path)
	return rc, nil
}

// Active implements Service. A file that is sealed stays listed after its block's end, until it is released.
func (h *Host) Active(context.Context) ([]Enforced, error) {
	out := append(h.sealedFiles(), h.heldFiles()...)
	if h.opt.Kernel == nil {
		return out, nil
	}
	standing := map[string]bool{}
	for _, e := range h.opt.Kernel.Active() {
		standing[e.ID] = true
		one := Enforced{ID: e.ID, Action: e.Action, Target: e.Target, Expires: e.Expires, Hits: e.Hits, Adopted: e.Adopted}
		if i := slices.IndexFunc(out, func(s Enforced) bool { return s.ID == e.ID }); i >= 0 {
			out[i].Expires, out[i].Hits, out[i].Adopted = one.Expires, one.Hits, one.Adopted
			continue
		}
		out = append(out, one)
	}
	now := bpf.BootTime()
	for i := range out {
		if !standing[out[i].ID] && out[i].Target.Write == "" { // its block was of another boot, whose clock was another
			out[i].Expires = min(out[i].Expires, now)
		}
	}
	return out, nil
}

// sealedFiles lists what is sealed. The end is that of the block, and past.
func (h *Host) sealedFiles() []Enforced {
	if h.sealed == nil {
		return nil
	}
	var out []Enforced
	for _, r := range h.sealed.List() {
		out = append(out, Enforced{ID: r.ID, Action: event.ActionQuarantine, Target: event.Target{Path: r.Path, SHA256: r.SHA256}, Expires: r.Blocked, Adopted: true})
	}
	return out
}
