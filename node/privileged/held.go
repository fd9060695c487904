package privileged

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/node/privileged/immutable"
	"github.com/omega-mesh/omega/node/privileged/quarantine"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/guard"
)

// How writing is denied.
const (
	meansImmutable = "immutable" // the kernel refuses it, by the immutable attribute
	meansReverted  = "reverted"  // the file system has none: what is written is put back
)

// errRail is wrapped by a rail's word on one of the files that were opened.
var errRail = errors.New("guard rail")

// railError is that word.
type railError struct{ rail, why string }

func (e railError) Error() string { return e.why }
func (e railError) Unwrap() error { return errRail }

// denyWriting holds a file or folder. As for a quarantine the rails are asked of the path, and of each file that was opened.
func (h *Host) denyWriting(ctx context.Context, r event.Response, heard uint64) (event.Receipt, error) {
	h.sealing.Lock() // and then the mode: a panic that came first must find nothing held after it
	defer h.sealing.Unlock()
	rc, fail, err := h.fileResponse(ctx, r, heard, "writing not denied")
	if rc.Outcome != "" || err != nil {
		return *rc, err
	}
	if h.held == nil {
		return fail(event.OutcomeFailed, "this host denies no writing: it needs root")
	}
	outcome := event.OutcomeDone
	if h.held.Holds(r.ID) { // ordered before a restart, and done then
		outcome = event.OutcomeAdopted
	}
	report, err := h.held.Hold(r.ID, r.Target.Write, bpf.BootTime()+uint64(r.TTL), func(path string, inode, device uint64) error {
		if h.own(path) { // what it lies in comes to it as well
			return railError{guard.RailSelf, path + " is omega's own"}
		}
		if rail, why := h.opt.Rails.CheckHeld(guard.File{Path: path, Inode: inode, Device: device}); rail != "" {
			return railError{rail, why}
		}
		return nil
	})
	var rail railError
	if errors.As(err, &rail) {
		rc.Guard = rail.rail
		return fail(event.OutcomeRefused, rail.why)
	} else if err != nil {
		return fail(event.OutcomeFailed, err.Error())
	}
	means := meansImmutable
	if report.Reverted {
		means = meansReverted
	}
	rc.Outcome, rc.Means, rc.Detail, rc.Time, rc.Acted = outcome, []string{means}, cut(heldSummary(report)), time.Now().UnixNano(), bpf.BootTime()
	h.opt.Log.Info("writing denied", "response", r.ID, "path", r.Target.Write, "files", report.Files, "folders", report.Folders)
	return *rc, nil
}

func heldSummary(r immutable.Report) string {
	if r.Reverted {
		s := fmt.Sprintf("%d files and %d folders lie in a file system without the immutable attribute: the kernel refuses nothing, and what is written is put back at a look twice a second", r.Files, r.Folders)
		if r.Passed > 0 {
			s += fmt.Sprintf("; %d links and the like are not", r.Passed)
		}
		return s
	}
	s := fmt.Sprintf("%d files and %d folders are immutable; what a root writes that takes this off is put back", r.Files, r.Folders)
	if r.Uncopied > 0 {
		s += fmt.Sprintf("; %d files are too large for that", r.Uncopied)
	}
	if r.Passed > 0 {
		s += fmt.Sprintf("; %d links and the like have no such attribute, and their folder keeps their names", r.Passed)
	}
	return s
}

// allowWriting ends a hold, in any mode.
func (h *Host) allowWriting(id string) (event.Receipt, error) {
	rc := event.Receipt{Response: id, Outcome: event.OutcomeReleased}
	err := h.held.Release(id)
	rc.Time, rc.Acted = time.Now().UnixNano(), bpf.BootTime()
	if err != nil {
		rc.Outcome, rc.Detail = event.OutcomeFailed, cut(err.Error())
		h.opt.Log.Warn("writing is denied still", "response", id, "err", err)
		return rc, nil
	}
	h.opt.Log.Info("writing allowed again", "response", id)
	return rc, nil
}

// KeepHeld puts back what is changed of what may not be written, and ends that on time, until ctx ends. What is held stays so after.
func (h *Host) KeepHeld(ctx context.Context) {
	if h.held == nil {
		return
	}
	defer h.held.Close()
	if mode, _ := h.Mode(ctx); mode == ModePanic {
		if _, err := h.held.ReleaseAll(); err != nil {
			h.opt.Log.Error("panic: some files may not be written still", "err", err)
		}
	}
	h.held.Run(ctx)
}

// evict quarantines a file that somebody made where nothing may be.
func (h *Host) evict(path string, inode, device uint64) error {
	if h.sealed == nil {
		return errors.New("this host quarantines no files")
	}
	f, err := quarantine.Find(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if i, d, _ := f.Inode(); i != inode || d != device {
		return fmt.Errorf("%s is another file now", path)
	}
	if err := h.sealed.Spare(f); err != nil {
		return err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "omega evicted\x00%s\x00%d\x00%d", path, inode, bpf.BootTime()))
	kept, err := h.sealed.Seal(hex.EncodeToString(sum[:16]), f, 0)
	if err != nil {
		return err
	}
	h.opt.Log.Warn("file quarantined: it was made where writing is denied", "response", kept.ID, "path", kept.Path, "sha256", kept.SHA256)
	return nil
}

func (h *Host) heldFiles() (out []Enforced) {
	if h.held == nil {
		return nil
	}
	for _, r := range h.held.List() {
		out = append(out, Enforced{ID: r.ID, Action: event.ActionDeny, Target: event.Target{Write: r.Path}, Expires: r.Expires, Hits: r.Undone, Adopted: r.Adopted})
	}
	return out
}

func (h *Host) heldCheck() Check {
	c := Check{Name: "actuator/deny-write"}
	if h.held == nil {
		c.Detail, c.Lost = "needs root, and a mode that may change files", "no writing can be denied"
		return c
	}
	undone, lost, example, all := uint64(0), 0, "", h.held.List()
	for _, r := range all {
		undone += r.Undone
		if lost += r.Lost; r.Lost > 0 {
			example = r.Example
		}
	}
	c.OK, c.Detail = lost == 0, fmt.Sprintf("by the immutable attribute; what a root that takes it off writes is put back, at a look twice a second, and so is what anybody writes where a file system has no such attribute; %d held, %d changes undone", len(all), undone)
	if lost > 0 {
		c.Lost = cut(fmt.Sprintf("%d that may not be written are not as they were, and could not be put back, such as %s", lost, example))
	}
	return c
}
