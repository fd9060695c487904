package learn

import (
	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/rng"
)

const attackerBits = 0

type match struct {
	w cage2.World
}

func (m *match) begin(v cage2.Version, o Opponent, source rng.Source) {
	m.w = cage2.NewWorld(v, o.Red, false, source)
}
func (m *match) truth(dst []uint16) []uint16      { return m.w.AppendTruth(dst) }
func (m *match) step(a cage2.Action) cage2.Result { return m.w.Step(a) }
