package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSimExport(t *testing.T) {
	file := filepath.Join("..", "..", "sim", "world", "testdata", "office.yaml")
	for format, want := range map[string]string{"graphviz": "digraph ", "svg": "<svg ", "stix": `"type": "bundle"`} {
		code, out, e := runSim(t, "export", file, "--format", format)
		if code != exitDone || !strings.Contains(out, want) || format == "stix" && !json.Valid([]byte(out)) {
			t.Errorf("%s: exit %d, %.100s %s", format, code, out, e)
		}
	}
	if code, _, _ := runSim(t, "export", file, "--format", "pdf"); code != exitUsage {
		t.Errorf("exit %d", code)
	}
	picture := filepath.Join(t.TempDir(), "decision.svg")
	code, _, e := runSim(t, "explain", "--step", "3", "--svg", picture)
	if svg, err := os.ReadFile(picture); code != exitDone || err != nil || !strings.HasPrefix(string(svg), "<svg ") {
		t.Errorf("exit %d, %v, %s", code, err, e)
	}
}
