package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/omega-mesh/omega/"

// floors: a package imports only lower floors, or its own tree. On floor 1 nobody imports anybody.
var floors = map[string]int{"trust": 1, "bpf": 1, "sim": 1, "modules": 2, "swarm": 2, "roles": 3, "node": 4, "cmd": 5}

// The top level of the repository, dot files apart.
var topLevel = []string{"LICENSE", "Makefile", "README.md", "bpf", "cmd", "go.mod", "go.sum", "modules", "node", "roles", "sim", "swarm", "trust"}

// source is one Go file of the project.
type source struct {
	path, dir string // slash-separated, from the root
	file      *ast.File
	generated bool
}

func sources(t *testing.T) []source {
	t.Helper()
	root := filepath.Join("..", "..")
	var all []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		all = append(all, source{rel, filepath.ToSlash(filepath.Dir(rel)), f, ast.IsGenerated(f)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d Go files found: the walk is wrong", len(all))
	}
	return all
}

func tree(path string) string {
	first, _, _ := strings.Cut(path, "/")
	return first
}

func TestImportFloors(t *testing.T) {
	for _, s := range sources(t) {
		own := tree(s.dir)
		floor, ok := floors[own]
		if !ok {
			t.Errorf("%s lies in no floor of the house: the design has %v", s.path, topLevel)
			continue
		}
		for _, i := range s.file.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			to, ours := strings.CutPrefix(path, module)
			if !ours || tree(to) == own && own != "swarm" {
				continue
			}
			if to == "swarm/event" || strings.HasPrefix(to, "swarm/event/") {
				continue // the leaf that all may import
			}
			if s.dir == "swarm/event" || strings.HasPrefix(s.dir, "swarm/event/") {
				t.Errorf("%s imports %s: swarm/event is a leaf of plain types, so that every floor may import it", s.path, to)
				continue
			}
			if tree(to) == own {
				continue
			}
			if floors[tree(to)] >= floor {
				t.Errorf("%s (floor %d) imports %s (floor %d): a package imports only lower floors; declare the interface you need and let node wire it", s.path, floor, to, floors[tree(to)])
			}
		}
	}
}

// Roles meet only in events.
func TestRolesDoNotImportOneAnother(t *testing.T) {
	for _, s := range sources(t) {
		parts := strings.Split(s.dir, "/")
		if parts[0] != "roles" || len(parts) < 2 {
			continue
		}
		for _, i := range s.file.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			to, ours := strings.CutPrefix(path, module+"roles/")
			if ours && tree(to) != parts[1] && !(strings.HasSuffix(s.path, "_test.go") && tree(to) == "rolestest") {
				t.Errorf("%s imports roles/%s: roles meet only in events", s.path, to)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	said, seen := map[string]bool{}, map[string]bool{}
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") || s.generated {
			continue
		}
		seen[s.dir] = true
		if s.file.Doc != nil && len(s.file.Doc.Text()) > 60 {
			said[s.dir] = true
		}
	}
	for dir := range seen {
		if !said[dir] {
			t.Errorf("%s has no paragraph at its top that tells its one idea and its place in the data's way", dir)
		}
	}
}

func TestNamesSayWhatIsInside(t *testing.T) {
	for _, s := range sources(t) {
		for _, part := range strings.Split(strings.TrimSuffix(s.path, ".go"), "/") {
			if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "manager", "misc", "base"}, part) {
				t.Errorf("%s: %q says nothing of what is inside", s.path, part)
			}
		}
	}
}

func TestNoInitAndNoGlobalRegistration(t *testing.T) {
	for _, s := range sources(t) {
		if s.generated {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", filepath.FromSlash(s.path)), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init(): assembly is by plain constructors in node", s.path)
			}
		}
	}
}

func TestTopLevelIsTheDesigns(t *testing.T) {
	entries, err := os.ReadDir(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); !strings.HasPrefix(name, ".") && name != "bin" && !slices.Contains(topLevel, name) {
			t.Errorf("%s stands at the top level beside the agreed layout", name)
		}
	}
}

// TestDeadCodeGoes: packages that call methods by name make the linker keep every exported method there is, which cost
// nine megabytes of binary and a tenth of a node's memory when one came in.
func TestDeadCodeGoes(t *testing.T) {
	for _, s := range sources(t) {
		for _, i := range s.file.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if (path == "text/template" || path == "html/template") && !strings.HasSuffix(s.path, "_test.go") {
				t.Errorf("%s imports %s", s.path, path)
			}
		}
	}
}
