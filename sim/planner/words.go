package planner

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
)

// Write puts the explanation in words and numbers.
func (e Explanation) Write(to io.Writer) error {
	var b bytes.Buffer
	best := e.Alternatives[0]
	fmt.Fprintf(&b, "Decision: %s, in %.1f ms.\n\nBelief about the attacker:\n", e.Action, e.TookMS)
	names := slices.Collect(maps.Keys(e.Attacker))
	slices.SortFunc(names, func(a, c string) int {
		if e.Attacker[a] != e.Attacker[c] {
			if e.Attacker[a] > e.Attacker[c] {
				return -1
			}
			return 1
		}
		return bytes.Compare([]byte(a), []byte(c))
	})
	for _, n := range names {
		fmt.Fprintf(&b, "  %-12s %5.1f %%\n", n, 100*e.Attacker[n])
	}
	if len(e.Hosts) == 0 {
		b.WriteString("It holds nothing beyond its foothold.\n")
	} else {
		b.WriteString("Where it may sit (beyond its foothold):\n")
		for _, h := range e.Hosts {
			fmt.Fprintf(&b, "  %-12s user %5.1f %%, root %5.1f %%\n", h.Host, 100*h.User, 100*h.Root)
		}
	}
	if e.BeliefLost > 0 {
		fmt.Fprintf(&b, "In %d steps of this episode nothing it believed could explain what it saw.\n", e.BeliefLost)
	}
	fmt.Fprintf(&b, "\nExpected loss over the next %d steps:\n", e.Depth)
	for i, a := range e.Alternatives {
		mark := " "
		if i == 0 {
			mark = ">"
		}
		fmt.Fprintf(&b, "%s %-30s %7.2f ± %.2f  (%d simulations)\n", mark, a.Action, a.Loss, a.CI95, a.Simulations)
	}
	if len(e.Alternatives) > 1 {
		next := e.Alternatives[1]
		if next.Loss == best.Loss {
			fmt.Fprintf(&b, "\n%s loses no more than any other; of equals the base policy's own choice comes first.\n", e.Action)
			_, err := to.Write(b.Bytes())
			return err
		}
		fmt.Fprintf(&b, "\n%s is expected to lose %.2f less than the next best, %s.\n", e.Action, next.Loss-best.Loss, next.Action)
	}
	_, err := to.Write(b.Bytes())
	return err
}
