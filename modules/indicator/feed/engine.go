package feed

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/indicator"
)

// moduleBudget bounds the memory of one module's indicators; they stand beside those of the host's own sources.
const moduleBudget = 64 << 20

// Engine runs modules whose payload is a file of indicators, of any form that Read takes.
type Engine struct{}

// Kind implements modules.Engine.
func (Engine) Kind() modules.Kind { return modules.KindIndicators }

// Compile implements modules.Engine: a module with a value that is not sound, or none that can be looked for here, is
// refused. One without a confidence of its own has 50.
func (Engine) Compile(ctx context.Context, m *modules.Manifest, payload []byte) (modules.Program, error) {
	now := time.Now()
	b := indicator.NewBuilder(moduleBudget, now)
	var rep indicator.Report
	if err := Read(ctx, bytes.NewReader(payload), Options{Source: m.Name, Confidence: 50, Now: now}, b, &rep); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", modules.ErrRefused, m.Name, err)
	}
	if all := indicator.Refusals(rep.Rejected); len(all) > 0 {
		return nil, fmt.Errorf("%w: %s: %s: %s", modules.ErrRefused, m.Name, all[0].Example, all[0].Reason)
	}
	if rep.Taken == 0 {
		why := "it has no indicators, or all of them have ended"
		if all := indicator.Refusals(rep.NotApplicable); len(all) > 0 {
			why = all[0].Reason
		}
		return nil, fmt.Errorf("%w: %s: %s", modules.ErrRefused, m.Name, why)
	}
	return &program{set: b.Set(), prefix: modules.RuleID(m.Name, "")}, nil
}

// Close implements modules.Engine.
func (Engine) Close(context.Context) error { return nil }

type program struct {
	set    *indicator.Set
	prefix string
}

func (p *program) Detector(context.Context, modules.Host) (modules.Detector, error) {
	return p.set.Detector(p.prefix), nil
}

func (*program) Close(context.Context) error { return nil }
