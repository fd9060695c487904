// Package pattern compiles the regular expressions that come with modules, rules and indicators. Matching is linear in the
// text (RE2), but a repeat makes a short expression a large program: `((x{30}){30}){30}` in twenty bytes would be 27,000 steps,
// and each byte of a text may visit every step. So a program is measured before it is built, and refused where it is too large;
// who asks is told its size, to charge for it.
package pattern

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
)

// MaxSteps bounds a compiled expression: about 400 kB, and 40 us for each kilobyte of a text at the very worst. The largest of
// the public Sigma rules has 603.
const MaxSteps = 4096

// ErrLarge is wrapped where an expression is well formed, and would be more than MaxSteps.
var ErrLarge = errors.New("the expression is too large")

// Compile reads an expression in Go's syntax of RE2 and gives it with the number of its steps.
func Compile(expr string) (*regexp.Regexp, int, error) {
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, 0, err
	}
	n := steps(tree)
	if n > MaxSteps {
		return nil, 0, fmt.Errorf("%w: more than %d steps once its repeats are written out", ErrLarge, MaxSteps)
	}
	re, err := regexp.Compile(expr)
	return re, n, err
}

// steps is how many instructions a tree comes to, at most MaxSteps+1.
func steps(t *syntax.Regexp) int {
	n := 0
	switch t.Op {
	case syntax.OpLiteral:
		n = len(t.Rune)
	case syntax.OpRepeat:
		times := max(t.Min, t.Max) + 1
		n = min(steps(t.Sub[0])+1, MaxSteps+1) * times
	default:
		for _, sub := range t.Sub {
			if n += steps(sub); n > MaxSteps {
				break
			}
		}
		n += 2
	}
	return min(n, MaxSteps+1)
}
