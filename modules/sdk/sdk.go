// Package sdk is how modules are written: the folder `omega module init` makes for each language, how it is built into a
// bundle, and how its tests are run. A folder that was just made builds, and passes its tests.
package sdk

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed templates
var templates embed.FS

// Languages are what Init knows.
func Languages() []string { return []string{"go", "rust", "assemblyscript", "lua", "sigma"} }

// layout says where each template goes.
var layout = map[string][][2]string{
	"go":             {{"go/omega.go.txt", "omega.go"}, {"go/detect.go.txt", "detect.go"}},
	"rust":           {{"rust/omega.rs.txt", "omega.rs"}, {"rust/detect.rs.txt", "detect.rs"}},
	"assemblyscript": {{"assemblyscript/omega.ts.txt", "omega.ts"}, {"assemblyscript/detect.ts.txt", "detect.ts"}},
	"lua":            {{"lua/detect.lua.txt", "detect.lua"}},
	"sigma":          {{"sigma/detect.yml.txt", "detect.yml"}},
}

// ErrExists is returned by Init where something is in the way.
var ErrExists = errors.New("it is there already")

// Init makes a folder dir with a module that builds and passes its tests. The module is called as the folder is.
func Init(dir, language string) error {
	files, ok := layout[language]
	if !ok {
		return fmt.Errorf("no language %.40q: one of %s", language, strings.Join(Languages(), ", "))
	}
	name := filepath.Base(filepath.Clean(dir))
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(dir)), 0o755); err != nil {
		return fmt.Errorf("make the module's folder: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s: %w", dir, ErrExists)
	} else if err != nil {
		return fmt.Errorf("make the module's folder: %w", err)
	}
	files = append(slices.Clone(files), [2]string{"positive.jsonl.txt", "tests/positive.jsonl"}, [2]string{"negative.jsonl.txt", "tests/negative.jsonl"})
	for _, f := range files {
		b, err := templates.ReadFile("templates/" + f[0])
		if err != nil {
			return fmt.Errorf("template: %w", err)
		}
		if err := write(filepath.Join(dir, f[1]), b); err != nil {
			return err
		}
	}
	switch language {
	case "go":
		if err := write(filepath.Join(dir, "go.mod"), []byte("module "+name+"\n\ngo 1.24\n")); err != nil {
			return err
		}
	case "assemblyscript":
		if err := write(filepath.Join(dir, "package.json"), []byte("{\n  \"name\": \""+name+"\",\n  \"private\": true,\n  \"devDependencies\": {\"assemblyscript\": \"0.27.31\"}\n}\n")); err != nil {
			return err
		}
	}
	return write(filepath.Join(dir, fileProject), []byte(projectText(name, language)))
}

func write(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the module's folder: %w", err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("write the module: %w", err)
	}
	return nil
}

// projectText is a new module's module.yaml.
func projectText(name, language string) string {
	limits := "{}"
	if language == "go" { // its runtime wants more room, and more steps for the same work
		limits = "{fuel: 268435456, memory: 33554432}"
	}
	return `# What this module is, and what it asks for.
name: ` + name + `
version: 0.1.0
language: ` + language + `
title: Downloads into shared memory
wants:
  - {class: process, activities: [exec]}
capabilities: []
limits: ` + limits + `
attack: [T1105]
tests:
  - {name: finds a download into shared memory, events: tests/positive.jsonl, rules: [fetch-to-memory]}
  - {name: leaves other downloads alone, events: tests/negative.jsonl, rules: []}
`
}
