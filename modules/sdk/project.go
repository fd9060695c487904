package sdk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/bundle"
	"github.com/omega-mesh/omega/swarm/event"
)

const fileProject = "module.yaml"

// Bounds of a folder that is built.
const (
	maxProject = 64 << 10 // bytes of module.yaml
	maxSources = 4096     // files
	maxSource  = 16 << 20 // bytes of one
)

// project is module.yaml.
type project struct {
	Name         string   `yaml:"name"`
	Version      string   `yaml:"version"`
	Language     string   `yaml:"language"`
	Title        string   `yaml:"title"`
	Author       string   `yaml:"author"`
	Wants        []want   `yaml:"wants"`
	Capabilities []string `yaml:"capabilities"`
	Limits       limits   `yaml:"limits"`
	Attack       []string `yaml:"attack"`
	Tests        []test   `yaml:"tests"`
}

type want struct {
	Class      string   `yaml:"class"`
	Activities []string `yaml:"activities"`
}

type limits struct {
	Fuel        uint64 `yaml:"fuel"`
	Memory      uint32 `yaml:"memory"`
	Output      uint32 `yaml:"output"`
	StateBytes  uint32 `yaml:"state_bytes"`
	FindingRate uint32 `yaml:"finding_rate"`
}

type test struct {
	Name   string   `yaml:"name"`
	Events string   `yaml:"events"`
	Rules  []string `yaml:"rules"`
}

func readProject(dir string) (*project, error) {
	f, err := os.Open(filepath.Join(dir, fileProject))
	if err != nil {
		return nil, fmt.Errorf("%s is no module's folder: %w", dir, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxProject+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", fileProject, err)
	}
	if len(b) > maxProject {
		return nil, fmt.Errorf("%s has more than %d bytes", fileProject, maxProject)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	p := &project{}
	if err := d.Decode(p); err != nil {
		return nil, fmt.Errorf("%s: %w", fileProject, err)
	}
	return p, nil
}

// manifest says the same as a manifest does.
func (p *project) manifest() (m modules.Manifest, err error) {
	m = modules.Manifest{Name: p.Name, Version: p.Version, Kind: modules.KindWASM, ABI: 1, Title: p.Title, Attack: p.Attack, Author: p.Author,
		Limits: modules.Limits{Fuel: p.Limits.Fuel, Memory: p.Limits.Memory, Output: p.Limits.Output, StateBytes: p.Limits.StateBytes, FindingRate: p.Limits.FindingRate}}
	switch p.Language {
	case "lua":
		m.Kind = modules.KindLua
	case "sigma":
		m.Kind = modules.KindSigma
	}
	for _, w := range p.Wants {
		out := modules.Want{Class: classNamed(w.Class)}
		if out.Class == 0 {
			return m, fmt.Errorf("%s: there is no class %.40q", fileProject, w.Class)
		}
		for _, name := range w.Activities {
			a := activityNamed(name)
			if a == 0 {
				return m, fmt.Errorf("%s: there is no activity %.40q", fileProject, name)
			}
			out.Activities |= 1 << a
		}
		m.Wants = append(m.Wants, out)
	}
	for _, c := range p.Capabilities {
		m.Capabilities = append(m.Capabilities, modules.Capability(c))
	}
	slices.Sort(m.Capabilities)
	for _, t := range p.Tests {
		m.Tests = append(m.Tests, modules.Test{Name: t.Name, Rules: t.Rules})
	}
	return m, nil
}

func classNamed(name string) event.Class {
	for c := range event.Class(5000) {
		if s := c.String(); s == name && s != "unknown" {
			return c
		}
	}
	return 0
}

func activityNamed(name string) event.Activity {
	for a := range event.Activity(event.Activities) {
		if a.String() == name {
			return a
		}
	}
	return 0
}

// Build makes a bundle of a module's folder: it compiles what is to be compiled, with the language's own tools, whose
// words go to log. The bundle is not yet tested.
func Build(ctx context.Context, dir string, log io.Writer) (*bundle.Bundle, error) {
	p, err := readProject(dir)
	if err != nil {
		return nil, err
	}
	m, err := p.manifest()
	if err != nil {
		return nil, err
	}
	source, err := sourceHash(dir)
	if err != nil {
		return nil, err
	}
	m.Provenance.Source = source
	var payload []byte
	if payload, m.Provenance.Builder, err = compile(ctx, dir, p.Language, log); err != nil {
		return nil, err
	}
	var recordings [][]byte
	for _, t := range p.Tests {
		b, err := readWithin(dir, t.Events, modules.MaxBlock)
		if err != nil {
			return nil, fmt.Errorf("test %q: %w", t.Name, err)
		}
		recordings = append(recordings, b)
	}
	return bundle.New(m, payload, recordings)
}

// readWithin reads a file of the folder, and none outside of it.
func readWithin(dir, name string, most int64) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return b, err
}

// sourceHash is the SHA-256 over the names and contents of a folder's files, in their order; what tools put there is left out.
func sourceHash(dir string) ([]byte, error) {
	h := sha256.New()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != dir && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "build") {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || strings.HasSuffix(name, ".car") || name == "package-lock.json" {
			return nil
		}
		if files++; files > maxSources {
			return fmt.Errorf("more than %d files", maxSources)
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		b, err := readWithin(dir, rel, maxSource)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%d %s\n%d\n", len(rel), filepath.ToSlash(rel), len(b))
		h.Write(b)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the module's source: %w", err)
	}
	return h.Sum(nil), nil
}

// ErrTool is wrapped where a language's own tools are not there.
var ErrTool = errors.New("a tool is missing")

// compile gives the payload, and says what made it.
func compile(ctx context.Context, dir, language string, log io.Writer) (payload []byte, builder string, err error) {
	switch language {
	case "lua":
		payload, err = readWithin(dir, "detect.lua", modules.MaxPayload)
		return payload, "lua", err
	case "sigma":
		payload, err = readWithin(dir, "detect.yml", modules.MaxPayload)
		return payload, "sigma", err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, "", err
	}
	out, err := os.MkdirTemp("", "omega-module")
	if err != nil {
		return nil, "", fmt.Errorf("build: %w", err)
	}
	defer os.RemoveAll(out)
	target := filepath.Join(out, "module.wasm")
	run := func(env []string, name string, args ...string) error {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = abs, log, log, append(os.Environ(), env...)
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	version := func(name string, args ...string) string {
		b, err := exec.CommandContext(ctx, name, args...).Output()
		if err != nil {
			return name
		}
		return modules.Printable(strings.TrimSpace(string(b)))
	}
	switch language {
	case "go":
		if _, err := exec.LookPath("go"); err != nil {
			return nil, "", fmt.Errorf("%w: go (1.24 or later), to build a module in Go", ErrTool)
		}
		builder = version("go", "env", "GOVERSION")
		err = run([]string{"GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0"}, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-buildmode=c-shared", "-o", target, ".")
	case "rust":
		rustc, rerr := findRustc(ctx)
		if rerr != nil {
			return nil, "", rerr
		}
		builder = version(rustc, "--version")
		err = run(nil, rustc, "--edition=2021", "--crate-type=cdylib", "--target=wasm32-unknown-unknown", "-Copt-level=3", "-Cpanic=abort", "-Clto=yes", "-Cstrip=symbols",
			"-Clink-arg=-zstack-size=16384", "--remap-path-prefix="+abs+"=.", "-o", target, "detect.rs")
	case "assemblyscript":
		npm, lerr := exec.LookPath("npm")
		if lerr != nil {
			return nil, "", fmt.Errorf("%w: npm, to build a module in AssemblyScript", ErrTool)
		}
		asc := filepath.Join(abs, "node_modules", ".bin", "asc")
		if _, serr := os.Stat(asc); serr != nil {
			if err := run(nil, npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"); err != nil {
				return nil, "", fmt.Errorf("%w: npm could not install assemblyscript: %w", ErrTool, err)
			}
		}
		builder = "assemblyscript " + version(asc, "--version")
		err = run(nil, asc, "detect.ts", "-O3", "--noAssert", "--runtime", "stub", "--use", "abort=", "-o", target)
	default:
		return nil, "", fmt.Errorf("%s: no language %.40q: one of %s", fileProject, language, strings.Join(Languages(), ", "))
	}
	if err != nil {
		return nil, "", fmt.Errorf("build: %w", err)
	}
	payload, err = readWithin(out, "module.wasm", modules.MaxPayload)
	return payload, builder, err
}

// findRustc looks for a compiler that has the library for WebAssembly: of several, not each has it.
func findRustc(ctx context.Context) (string, error) {
	seen := map[string]bool{}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/bin") {
		path := filepath.Join(dir, "rustc")
		if seen[path] {
			continue
		}
		seen[path] = true
		b, err := exec.CommandContext(ctx, path, "--print=target-libdir", "--target=wasm32-unknown-unknown").Output()
		if err != nil {
			continue
		}
		if entries, err := os.ReadDir(strings.TrimSpace(string(b))); err == nil && len(entries) > 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: rustc with wasm32-unknown-unknown (Debian: rustc, lld and libstd-rust-dev-wasm32; or rustup target add wasm32-unknown-unknown)", ErrTool)
}
