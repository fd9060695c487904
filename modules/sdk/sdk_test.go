package sdk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/modules/runner"
)

// A folder that was just made builds, and passes its tests, in every language whose tools are here.
func TestNewModulePassesItsTests(t *testing.T) {
	r, err := runner.New(t.Context(), "", runner.Services{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	for _, language := range Languages() {
		t.Run(language, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "fetch-watch")
			if err := Init(dir, language); err != nil {
				t.Fatal(err)
			}
			if err := Init(dir, language); !errors.Is(err, ErrExists) {
				t.Errorf("made again: %v", err)
			}
			var log strings.Builder
			b, err := Build(t.Context(), dir, &log)
			if errors.Is(err, ErrTool) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err, log.String())
			}
			if b.Manifest.Name != "fetch-watch" || b.Manifest.Provenance.Builder == "" || len(b.Manifest.Provenance.Source) != 32 {
				t.Errorf("%+v", b.Manifest)
			}
			results, err := Check(t.Context(), r, b)
			if err != nil || len(results) != 2 {
				t.Fatal(err, results)
			}
			for _, one := range results {
				if !one.Passed() {
					t.Errorf("%s: want %v, found %v, %v", one.Test, one.Want, one.Found, one.Err)
				}
			}
			t.Logf("%d bytes by %s", len(b.Payload), b.Manifest.Provenance.Builder)
			again, err := Build(t.Context(), dir, &log)
			if err != nil || !again.Manifest.Equal(b.Manifest) {
				t.Errorf("built again it is another module: %v", err)
			}
		})
	}
}

// A test that should fail does.
func TestCheckTellsWhatWasNotFound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x")
	if err := Init(dir, "lua"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "detect.lua"), []byte("function detect(e) if e.pid == 4712 then error('oh') end end"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := Build(t.Context(), dir, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	r, err := runner.New(t.Context(), "", runner.Services{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	results, err := Check(t.Context(), r, b)
	if err != nil {
		t.Fatal(err)
	}
	if results[0].Passed() || results[1].Passed() || results[1].Err == nil {
		t.Errorf("%+v", results)
	}
}

func TestProjectsThatAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"an unknown key":      "name: x\nversion: 1.0.0\nlanguage: lua\ncolour: red\n",
		"an unknown class":    "name: x\nversion: 1.0.0\nlanguage: lua\nwants: [{class: weather}]\n",
		"an unknown activity": "name: x\nversion: 1.0.0\nlanguage: lua\nwants: [{class: process, activities: [dance]}]\n",
		"an unknown language": "name: x\nversion: 1.0.0\nlanguage: cobol\n",
		"a file outside":      "name: x\nversion: 1.0.0\nlanguage: lua\ntests: [{name: a, events: ../../etc/passwd}]\n",
		"a strange name":      "name: ../x\nversion: 1.0.0\nlanguage: lua\n",
		"a file, please":      "name: x\nversion: 1.0.0\nlanguage: lua\ncapabilities: [file]\n",
	} {
		dir := t.TempDir()
		for file, s := range map[string]string{fileProject: text, "detect.lua": "function detect(e) end"} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(s), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Build(t.Context(), dir, os.Stderr); err == nil {
			t.Errorf("%s: built", name)
		}
	}
}
