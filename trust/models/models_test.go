package models

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
)

// tally counts what ran, for the line that make test ends with.
type tally struct{ models, mutants, sanity atomic.Int32 }

// TestModels runs every model, which must hold, and its mutants, for each of which the attack must be found. Where a tool
// is not installed its models are skipped, and the line says so.
func TestModels(t *testing.T) {
	if testing.Short() {
		t.Skip("short: models do not depend on how the tests are built")
	}
	var n tally
	var missing []string
	t.Run("all", func(t *testing.T) {
		if need(t, &missing, "eprover") {
			for _, path := range glob(t, "*.p") {
				runProver(t, path, &n)
			}
		}
		if need(t, &missing, "spin", "gcc") {
			for _, path := range glob(t, "*.pml") {
				runSpin(t, path, &n)
			}
		}
	})
	line := fmt.Sprintf("models: %d hold, %d mutants fail as they must, %d sanity goals reached", n.models.Load(), n.mutants.Load(), n.sanity.Load())
	if len(missing) > 0 {
		line += "; left out for want of " + strings.Join(missing, ", ") + " (apt install eprover spin gcc)"
	}
	tell(t, line)
	if len(missing) > 0 {
		t.Skip(line)
	}
}

// tell prints a line, and leaves it for make test, which ends with all such lines: go test shows none of a package that
// passes.
func tell(t *testing.T, line string) {
	t.Helper()
	fmt.Println(line)
	path := os.Getenv("VECTOR_TALLY")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.WriteString(line + "\n"); err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func need(t *testing.T, missing *[]string, tools ...string) bool {
	t.Helper()
	ok := true
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			*missing, ok = append(*missing, tool), false
		}
	}
	return ok
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no models %s: %v", pattern, err)
	}
	return paths
}

// A variant is a line of a .p model: "%mutant NAME: CLAUSE" or "%sanity NAME: CLAUSE". Its clause replaces the one of the
// same name.
var (
	variantLine = regexp.MustCompile(`(?m)^%(mutant|sanity) (\w+): (cnf\((\w+),.*)$`)
	szsStatus   = regexp.MustCompile(`SZS status (\w+)`)
	errorCount  = regexp.MustCompile(`errors: (\d+)`)
	mutantMacro = regexp.MustCompile(`\bMUTANT_\w+`)
	codePath    = regexp.MustCompile(`\b(?:swarm|trust|node)/[\w/]+(?:\.go)?`)
)

func runProver(t *testing.T, path string, n *tally) {
	model := read(t, path)
	t.Run(path, func(t *testing.T) {
		t.Parallel()
		prove(t, model, "Satisfiable")
		n.models.Add(1)
	})
	mutants := 0
	for _, v := range variantLine.FindAllStringSubmatch(model, -1) {
		kind, name, clause, replaced := v[1], v[2], v[3], v[4]
		original := regexp.MustCompile(`(?m)^cnf\(` + replaced + `,.*$`)
		if len(original.FindAllString(model, -1)) != 1 {
			t.Errorf("%s: %s %s replaces no one clause", path, kind, name)
			continue
		}
		count := &n.sanity
		if kind == "mutant" {
			mutants++
			count = &n.mutants
		}
		t.Run(path+" "+kind+" "+name, func(t *testing.T) {
			t.Parallel()
			prove(t, original.ReplaceAllLiteralString(model, clause), "Unsatisfiable")
			count.Add(1)
		})
	}
	if mutants == 0 {
		t.Errorf("%s has no mutant: it shows nothing", path)
	}
}

func prove(t *testing.T, clauses, want string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "model.p")
	if err := os.WriteFile(file, []byte(clauses), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "eprover", "--auto", "--silent", "--cpu-limit=30", file).CombinedOutput()
	status := szsStatus.FindSubmatch(out)
	if status == nil {
		t.Fatalf("eprover: %v\n%s", err, out)
	}
	if string(status[1]) != want {
		t.Fatalf("%s, want %s", status[1], want)
	}
}

func runSpin(t *testing.T, path string, n *tally) {
	model := read(t, path)
	seen := map[string]bool{"": true}
	check(t, path, "", "0", &n.models)
	for _, macro := range mutantMacro.FindAllString(model, -1) {
		if !seen[macro] {
			seen[macro] = true
			check(t, path, macro, "1", &n.mutants)
		}
	}
	if len(seen) == 1 {
		t.Errorf("%s has no mutant: it shows nothing", path)
	}
}

// check has Spin search all states of a model, or of a mutant of it, and compares the number of errors.
func check(t *testing.T, path, macro, want string, count *atomic.Int32) {
	full, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Run(strings.TrimSpace(path+" "+macro), func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		args := []string{"-a", full}
		if macro != "" {
			args = append([]string{"-D" + macro}, args...)
		}
		var out []byte
		for _, cmd := range [][]string{append([]string{"spin"}, args...), {"gcc", "-O0", "-w", "-DSAFETY", "-o", "pan", "pan.c"}, {"./pan"}} {
			c := exec.CommandContext(t.Context(), cmd[0], cmd[1:]...)
			c.Dir = dir
			if out, err = c.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", cmd[0], err, out)
			}
		}
		errors := errorCount.FindSubmatch(out)
		if errors == nil || strings.Contains(string(out), "max search depth too small") {
			t.Fatalf("the search is not whole:\n%s", out)
		}
		if string(errors[1]) != want {
			t.Fatalf("%s errors, want %s\n%s", errors[1], want, out)
		}
		count.Add(1)
	})
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestModelsNameTheirCode: a model of code that is no longer there models nothing.
func TestModelsNameTheirCode(t *testing.T) {
	for _, path := range append(glob(t, "*.p"), glob(t, "*.pml")...) {
		head, _, _ := strings.Cut(read(t, path), "\n\n")
		named := codePath.FindAllString(head, -1)
		if len(named) == 0 {
			t.Errorf("%s does not say in its first lines where the code is", path)
		}
		for _, code := range named {
			if _, err := os.Stat(filepath.Join("../..", code)); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}
