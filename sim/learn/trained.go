package learn

import (
	"bytes"
	_ "embed"
	"fmt"

	"github.com/omega-mesh/omega/sim/cage2"
)

// cage2Weights are the weights that `make train-cage2` makes.
//
//go:embed cage2.weights
var cage2Weights []byte

// Trained are the published weights: a defender, and the attackers that were learned against it and its predecessors.
func Trained() (*File, error) {
	f, err := ReadFile(bytes.NewReader(cage2Weights))
	if err != nil {
		return nil, fmt.Errorf("the built-in weights: %w", err)
	}
	return f, nil
}

// Defender is the file's defender for the rules of v.
func (f *File) Defender(v cage2.Version) (*Policy, error) {
	n, ok := f.Find(defenderName)
	if !ok {
		return nil, fmt.Errorf("learn: these weights have no %s", defenderName)
	}
	if n.Inputs != DefenderInputs || n.Outputs != len(choices) {
		return nil, fmt.Errorf("learn: a defender of %d inputs and %d choices; this program's has %d and %d: train anew", n.Inputs, n.Outputs, DefenderInputs, len(choices))
	}
	return NewPolicy(n, v), nil
}

// Attackers are the file's learned attackers, in the order in which they were learned.
func (f *File) Attackers() ([]*Network, error) {
	var all []*Network
	for i := range MaxAttackers {
		n, ok := f.Find(attackerName(i))
		if !ok {
			break
		}
		if s := AttackerSizes(); n.Inputs != s.Inputs || n.Outputs != s.Choices {
			return nil, fmt.Errorf("learn: %s has %d inputs and %d choices; this program's attackers have %d and %d: train anew", attackerName(i), n.Inputs, n.Outputs, s.Inputs, s.Choices)
		}
		all = append(all, n)
	}
	return all, nil
}
