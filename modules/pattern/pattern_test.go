package pattern

import (
	"errors"
	"regexp/syntax"
	"strings"
	"testing"
)

func TestCompile(t *testing.T) {
	for _, expr := range []string{"", "a", "(?i)^https?://([^/ ]+)/", `\d{1,3}(\.\d{1,3}){3}`, "(.){200,}", "a|b|c", "[^a-z]*?"} {
		re, n, err := Compile(expr)
		if err != nil || re.String() != expr || n < 0 || n > MaxSteps {
			t.Errorf("%q: %d steps, %v", expr, n, err)
		}
	}
	for _, large := range []string{"((x{30}){30}){1}" + strings.Repeat("y{999}", 5), strings.Repeat("(a{30}){30}", 8), strings.Repeat("a{1000}", 146), strings.Repeat("a", MaxSteps+1)} {
		if _, _, err := Compile(large); !errors.Is(err, ErrLarge) {
			t.Errorf("%.30q: %v", large, err)
		}
	}
	if _, _, err := Compile(`(a)\1`); err == nil || errors.Is(err, ErrLarge) {
		t.Errorf("a reference back: %v", err)
	}
}

// What is taken is never a larger program than was said, within what a program has beside its expression.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{"a{2,9}", "(a*)*(b+?){3,}$", "[^x]|\\pL{7}", "((x{30}){30}){30}", "(?i)Σ{9}", "(?:a?){50}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		if len(expr) > 1<<12 {
			return
		}
		_, n, err := Compile(expr)
		if err != nil {
			return
		}
		tree, err := syntax.Parse(expr, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		prog, err := syntax.Compile(tree.Simplify())
		if err != nil {
			t.Fatal(err)
		}
		if len(prog.Inst) > 2*n+8 {
			t.Fatalf("%q: %d steps, and was said to have %d", expr, len(prog.Inst), n)
		}
	})
}
