package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/omega-mesh/omega/modules/indicator"
	indicators "github.com/omega-mesh/omega/modules/indicator/store"
	"github.com/omega-mesh/omega/node/api"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/swarm/event"
)

// openIndicators opens what this host looks for; nothing is read or fetched before the node runs.
func (n *Node) openIndicators() (*indicators.Store, error) {
	return indicators.Open(n.layout.Indicators(), indicators.Options{
		Configured: n.cfg.IndicatorSources, Refresh: time.Duration(n.cfg.IndicatorRefresh) * time.Second, Budget: int64(n.cfg.IndicatorMiB) << 20, Log: n.log,
	})
}

// indicatorsWithin is how long the sensor waits for the sets at the start: the kernel keeps what happens meanwhile, but not
// without end.
const indicatorsWithin = 2 * time.Second

func (n *Node) awaitIndicators(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, indicatorsWithin)
	defer cancel()
	select {
	case <-n.indicators.Loaded():
	case <-ctx.Done():
	}
}

// lookUpExecuted looks what is executed here up by its digest.
func (n *Node) lookUpExecuted() *indicator.Executed {
	return indicator.NewExecuted(&n.indicators.Current, &n.indicators.Sightings, n.parts.Service.Digest, func(ctx context.Context, f event.Finding) {
		if _, err := n.Publish(ctx, f); err != nil && ctx.Err() == nil {
			n.log.Error("finding not published", "rule", f.RuleID, "err", err)
		}
	})
}

// lookFor answers modules that were granted the look-up.
func (n *Node) lookFor(kind, value string) (source string, found bool) {
	m, ok := n.indicators.Lookup(kind, value)
	return m.Origin.Source, ok
}

// indicatorCheck is the doctor's line.
func (b backend) indicatorCheck() (ok bool, detail, lost string) {
	all := b.indicators.Sources()
	if len(all) == 0 {
		return true, "none: omega indicators add", ""
	}
	failed, first := 0, ""
	for _, s := range all {
		if s.Error != "" {
			if failed++; first == "" {
				first = s.ID + ": " + s.Error
			}
		}
	}
	set := b.indicators.Current.Load()
	detail = fmt.Sprintf("%d of %d sources, %d MiB of %d", set.Len(), len(all), set.Bytes()>>20, b.indicators.Budget()>>20)
	var x indicator.Executions
	if b.executed != nil && set.Len(indicator.MD5, indicator.SHA1, indicator.SHA256) > 0 {
		x = b.executed.Counts()
		detail += fmt.Sprintf("; %d executables hashed, %d gone or unreadable", x.Hashed, x.Failed)
	}
	switch {
	case x.Dropped+x.Untold > 0:
		return false, detail, fmt.Sprintf("%d executions that were not hashed, and %d findings: more at once than are looked at", x.Dropped, x.Untold)
	case b.indicators.Full():
		return false, detail, "what the sources have beyond that: raise indicator_mib, or take a source away"
	case failed > 0:
		return false, detail, fmt.Sprintf("what is new in %d of them, such as %s", failed, first)
	}
	return true, detail, ""
}

// AddIndicators implements api.Backend.
func (b backend) AddIndicators(ctx context.Context, in *apiv1.IndicatorSource, next func() (io.Reader, error)) (*apiv1.IndicatorSource, error) {
	s := indicators.Source{
		Name: in.Name, Kind: indicators.Kind(in.Kind), Location: in.Location, Confidence: uint8(min(in.Confidence, 255)), TTL: time.Duration(in.TtlMs * float64(time.Millisecond)),
		Exact: in.Exact, User: in.User, Password: in.Password, Token: in.Token, CA: in.Ca,
	}
	st, err := b.indicators.Add(ctx, s, next)
	if err != nil {
		return nil, indicatorError(err)
	}
	st.Password, st.Token = "", ""
	return indicatorSource(&st), nil
}

func indicatorError(err error) error {
	switch {
	case errors.Is(err, indicators.ErrNotFound):
		return fmt.Errorf("%w: %w: omega indicators list shows what there is", api.ErrNotFound, err)
	case errors.Is(err, indicators.ErrInvalid):
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	return err
}

// Indicators implements api.Backend.
func (b backend) Indicators(context.Context) (*apiv1.ListIndicatorsResponse, error) {
	set := b.indicators.Current.Load()
	out := &apiv1.ListIndicatorsResponse{Kinds: map[string]uint64{}, Total: set.Len(), Bytes: uint64(set.Bytes()), Budget: uint64(b.indicators.Budget()), Full: b.indicators.Full()}
	for _, k := range indicator.Kinds() {
		if n := set.Len(k); n > 0 {
			out.Kinds[k.String()] = n
		}
	}
	for _, s := range b.indicators.Sources() {
		out.Sources = append(out.Sources, indicatorSource(&s))
	}
	out.Sightings, out.SightingsUncounted = b.indicators.Sightings.Count()
	return out, nil
}

// Sightings implements api.Backend.
func (b backend) Sightings(_ context.Context, limit int) ([]*apiv1.IndicatorSighting, error) {
	all := b.indicators.Sightings.All()
	return sightings(all[:min(limit, len(all))]), nil
}

func sightings(all []indicator.Sighting) []*apiv1.IndicatorSighting {
	out := make([]*apiv1.IndicatorSighting, 0, len(all))
	for _, s := range all {
		out = append(out, &apiv1.IndicatorSighting{
			Kind: s.Kind, Value: s.Value, Source: s.Source, Label: s.Label, Count: s.Count, First: timestamppb.New(time.Unix(0, s.First)), Last: timestamppb.New(time.Unix(0, s.Last)),
		})
	}
	return out
}

// LookupIndicator implements api.Backend.
func (b backend) LookupIndicator(_ context.Context, kind, value string) (*apiv1.LookupIndicatorResponse, error) {
	m, ok := b.indicators.Lookup(kind, value)
	if !ok {
		return &apiv1.LookupIndicatorResponse{}, nil
	}
	out := &apiv1.LookupIndicatorResponse{
		Found: true, Kind: m.Kind.String(), Value: m.Value, Source: m.Origin.Source, Label: m.Origin.Label, Confidence: uint32(m.Confidence), Sightings: sightings(b.indicators.Sightings.Of(m.Value)),
	}
	if m.Expires != 0 {
		out.Expires = timestamppb.New(time.Unix(int64(m.Expires), 0))
	}
	return out, nil
}

// RemoveIndicators implements api.Backend.
func (b backend) RemoveIndicators(ctx context.Context, id string) (uint64, error) {
	if err := b.indicators.Remove(ctx, id); err != nil {
		return 0, indicatorError(err)
	}
	return b.indicators.Current.Load().Len(), nil
}

// RefreshIndicators implements api.Backend.
func (b backend) RefreshIndicators(ctx context.Context, id string) error {
	return indicatorError(b.indicators.Refresh(ctx, id))
}

func indicatorSource(s *indicators.State) *apiv1.IndicatorSource {
	refusals := func(of map[string]*indicator.Refusal) (out []*apiv1.IndicatorRefusal) {
		for _, r := range indicator.Refusals(of) {
			out = append(out, &apiv1.IndicatorRefusal{Why: r.Reason, Count: r.Count, Example: r.Example})
		}
		return out
	}
	out := &apiv1.IndicatorSource{
		Id: s.ID, Name: s.Name, Kind: string(s.Kind), Location: s.Location, Confidence: uint32(s.Confidence), TtlMs: float64(s.TTL.Milliseconds()), Exact: s.Exact, User: s.User,
		Configured: s.Configured, Error: s.Error, Report: &apiv1.IndicatorReport{
			Read: s.Report.Read, Taken: s.Report.Taken, Duplicate: s.Report.Duplicate, Expired: s.Report.Expired, NotApplicable: refusals(s.Report.NotApplicable), Rejected: refusals(s.Report.Rejected),
		},
	}
	for to, at := range map[**timestamppb.Timestamp]time.Time{&out.Added: s.Added, &out.Fetched: s.Fetched, &out.Visited: s.Visited} {
		if !at.IsZero() {
			*to = timestamppb.New(at)
		}
	}
	return out
}
