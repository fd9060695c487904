package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/runner"
	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
	"github.com/omega-mesh/omega/trust/authority"
)

// ruleStopped is the finding that a module was taken out here.
const ruleStopped = "omega.module.stopped"

// named is a deployment with the manifest's own name of its module: what a deployment calls it is for people.
type named struct {
	authority.Deployment
	name string
}

// here are the deployments for this host whose modules are whole and did not fail, oldest first.
func (r *Rollout) here(s *authority.State, deployments []authority.Deployment) []named {
	held := r.opt.Roles()
	if !slices.Contains(held, roles.NameSentinel) {
		return nil // nothing here sees events
	}
	var out []named
	for _, d := range deployments {
		rel, ok := s.Released(d.Module)
		name := r.complete[modules.ID(d.Module)]
		if !ok || !rel.Enough(r.opt.Releasers) || name == "" || !d.Matches(r.opt.Self, held, r.opt.Labels) {
			continue
		}
		if _, failed := r.failure(d.Entry); !failed {
			out = append(out, named{d, name})
		}
	}
	return out
}

// slot is what one instance is for.
type slot struct {
	id     modules.ID
	shadow bool
}

// arrange exchanges what runs for what should, and says whether that is all. Of one name the last deployed runs; where
// that is refused, the one before.
func (r *Rollout) arrange(ctx context.Context, s *authority.State, deployments []authority.Deployment) (done bool) {
	have := map[slot]*running{}
	for _, x := range *r.set.live.Load() {
		if !x.off.Load() {
			have[slot{x.module.ID, x.shadow}] = x
		}
	}
	done = true
	begin := func(d named) *running {
		x, err := r.load(ctx, d.Deployment)
		if err != nil {
			done = done && !errors.Is(err, errAgain)
			r.refused(ctx, s, d.Deployment, err)
			return nil
		}
		return x
	}
	var live, shadows []*running
	byName := map[string]*running{}
	list := r.here(s, deployments)
	for _, d := range slices.Backward(list) {
		if d.Shadow || byName[d.name] != nil || len(live) >= MaxRunning-MaxShadows {
			continue
		}
		x := have[slot{modules.ID(d.Module), false}]
		if x == nil {
			x = begin(d)
		}
		if x != nil {
			r.under(x, d.Deployment)
			byName[d.name] = x
			live = append(live, x)
		}
	}
	for _, d := range slices.Backward(list) {
		rival, id := byName[d.name], modules.ID(d.Module)
		if !d.Shadow || len(shadows) >= MaxShadows || rival != nil && rival.module.ID == id ||
			slices.ContainsFunc(shadows, func(x *running) bool { return x.module.ID == id }) {
			continue
		}
		x := have[slot{id, true}]
		if x != nil && x.rival != rival {
			x = nil // it counted against another: it begins anew
		}
		if x == nil {
			if x = begin(d); x != nil {
				x.rival = rival
			}
		}
		if x != nil {
			r.under(x, d.Deployment)
			shadows = append(shadows, x)
		}
	}
	r.exchange(ctx, append(live, shadows...)) // a shadow is compared with what ran just before it
	return done
}

// under has an instance go on under another deployment of the same module.
func (r *Rollout) under(x *running, d authority.Deployment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x.deployment = d
}

// exchange makes next what runs, and ends what does not any more.
func (r *Rollout) exchange(ctx context.Context, next []*running) {
	old := *r.set.live.Load()
	if slices.Equal(old, next) {
		return
	}
	if err := r.set.exchange(ctx, next); err != nil {
		return // the node ends
	}
	r.mu.Lock()
	r.running = next
	r.move()
	r.mu.Unlock()
	for _, x := range old {
		if slices.Contains(next, x) {
			continue
		}
		if err := x.module.Close(ctx); err != nil {
			r.opt.Log.Warn("a module did not end cleanly", "module", x.module.Manifest.Name, "err", err)
		}
		r.opt.Log.Info("module out", "name", x.module.Manifest.Name, "version", x.module.Manifest.Version, "cid", x.module.ID)
	}
	for _, x := range next {
		if !slices.Contains(old, x) {
			r.opt.Log.Info("module in", "name", x.module.Manifest.Name, "version", x.module.Manifest.Version, "cid", x.module.ID, "shadow", x.shadow, "after", r.opt.Now().Sub(x.deployment.At))
		}
	}
}

// settle takes note of what ended by its own fault since the last time.
func (r *Rollout) settle(ctx context.Context, s *authority.State, deployments []authority.Deployment) {
	for _, x := range *r.set.live.Load() {
		if !x.off.Load() {
			continue
		}
		why := "it was ended"
		if err := x.why(); errors.Is(err, runner.ErrDisabled) {
			why = fmt.Sprintf("it failed %d times, the last: %v", runner.MaxTraps, x.module.Counts().Last)
		} else if err != nil {
			why = err.Error()
		}
		if r.fail(x.deployment.Entry, why) {
			r.tell(ctx, s, x.deployment, why)
		}
	}
	r.prune(deployments)
}

// refused takes note of a module that cannot run here.
func (r *Rollout) refused(ctx context.Context, s *authority.State, d authority.Deployment, err error) {
	if errors.Is(err, errAgain) {
		r.opt.Log.Warn("module not built", "name", d.Name, "err", err)
		return
	}
	if r.fail(d.Entry, err.Error()) {
		r.tell(ctx, s, d, err.Error())
	}
}

// tell publishes that a module was taken out, or never let in, and whose it is.
func (r *Rollout) tell(ctx context.Context, s *authority.State, d authority.Deployment, why string) {
	why = redact.Printable(why, modules.MaxFindingText)
	f := event.Finding{
		RuleID: ruleStopped, Rule: "module stopped", Severity: event.SeverityMedium, Confidence: 100,
		Title: "A module was taken out on this host", Subject: event.Subject{Member: string(d.By)},
	}
	add := func(name, value string) {
		if value != "" {
			f.Evidence = append(f.Evidence, event.Evidence{Name: name, Value: redact.Printable(value, modules.MaxFindingText)})
		}
	}
	name, version := d.Name, d.Version
	if m, err := r.opt.Store.Manifest(modules.ID(d.Module)); err == nil {
		name, version = m.Name, m.Version
		add("author", m.Author)
	}
	add("module", fmt.Sprintf("%s %s", name, version))
	add("cid", modules.ID(d.Module).String())
	add("why", why)
	add("deployed_by", string(d.By))
	if rel, ok := s.Released(d.Module); ok {
		var by []string
		for _, x := range rel.By {
			by = append(by, string(x.DID))
		}
		if rel.Root {
			by = append(by, "the root")
		}
		add("released_by", strings.Join(by, " "))
	}
	r.opt.Log.Error("module stopped", "name", name, "version", version, "why", why)
	if err := r.opt.Publish(ctx, f); err != nil && ctx.Err() == nil {
		r.opt.Log.Error("finding not published", "rule", f.RuleID, "err", err)
	}
}

// judgeAgain is when modules are looked at next, 0 for never.
func (r *Rollout) judgeAgain() time.Duration {
	again := time.Duration(0)
	for _, x := range *r.set.live.Load() {
		if x.off.Load() {
			continue
		}
		if x.deployment.Share > 0 {
			return judgeEvery
		}
		again = judgeRest
	}
	return again
}

// judge ends modules that are slow, and canaries that are less slow or flood.
func (r *Rollout) judge() {
	for _, x := range *r.set.live.Load() {
		if x.off.Load() {
			continue
		}
		c := x.module.Counts()
		since := runner.Counts{Events: c.Events - x.judged.Events, Time: c.Time - x.judged.Time}
		heavy := since.Time >= slowTime
		if heavy {
			x.judged = c
		}
		canary := x.deployment.Share > 0
		switch {
		case heavy && since.Mean() > slowMean:
			x.end(fmt.Errorf("it is slow: %s an event over %d, at most %s", since.Mean(), since.Events, slowMean))
		case canary && c.Dropped > 0:
			x.end(fmt.Errorf("as a canary: it floods: %d findings past its rate of %d a minute", c.Dropped, x.module.Manifest.Limits.Effective().FindingRate))
		case canary && c.Events >= canaryEvents && c.Mean() > canaryMean:
			x.end(fmt.Errorf("as a canary: it is slow: %s an event over %d, at most %s", c.Mean(), c.Events, canaryMean))
		}
	}
}
