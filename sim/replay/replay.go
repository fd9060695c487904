// Package replay says how a model and a recording of what it should do compare. The engines fill in a Report while they
// play a recording again: sim/cage2 with the chances that were recorded, sim/world with the seed that was.
package replay

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Mismatch is one thing in which the model and a recording differ.
type Mismatch struct {
	File  string `json:"file,omitempty"`
	Line  int    `json:"line"` // in the file, from 1
	Step  int    `json:"step"` // of the episode, -1: its beginning
	Field string `json:"field"`
	Want  string `json:"want"` // what the recording has
	Got   string `json:"got"`  // what the model gives
}

// Report is the outcome of a replay.
type Report struct {
	Episodes   int       `json:"episodes"`
	Steps      int       `json:"steps"`
	Mismatches int       `json:"mismatches"`
	First      *Mismatch `json:"first,omitempty"`
}

// Add counts a mismatch; the first is kept.
func (r *Report) Add(m Mismatch) {
	if r.Mismatches == 0 {
		r.First = &m
	}
	r.Mismatches++
}

// Files are the recordings that path names: itself, or where it is a folder the folder's *.jsonl in the order of their
// names. A folder without any is an error.
func Files(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	files, err := filepath.Glob(filepath.Join(path, "*.jsonl"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s holds no recordings (*.jsonl)", path)
	}
	slices.Sort(files)
	return files, nil
}
