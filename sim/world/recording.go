package world

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/omega-mesh/omega/sim/replay"
)

// A recording is JSON Lines: a header with the whole scenario, then for each run its steps in their order and a line
// with what the run came to. It needs nothing else to be replayed.
type (
	recordingHeader struct {
		World    string `json:"world"` // the scenario's name
		Format   int    `json:"format"`
		Seed     uint64 `json:"seed"`
		Runs     int    `json:"runs"`
		Scenario string `json:"scenario"` // as a scenario file
	}
	recordingEnd struct {
		Run    int    `json:"run"`
		Steps  int    `json:"steps"`
		Result Result `json:"result"`
	}
)

// Bounds of a recording that is read.
const (
	recordingFormat   = 1
	maxRecordingHead  = 3 * MaxFile // bytes: a scenario as a JSON string
	maxRecordingLine  = 4 << 10     // bytes of a step
	maxRecordingAhead = 1 << 20     // steps a model is let run past what the recording has of a run
)

// ErrRecording is what every error of a malformed recording wraps.
var ErrRecording = errors.New("malformed recording")

// Record runs a scenario n times on as many goroutines as workers says (0: one a core), writes every step to out, and
// gives the summary that Many gives. The same seed gives the same bytes on every machine, whatever the number of workers.
func Record(ctx context.Context, out io.Writer, s *Scenario, n int, seed uint64, workers int) (*Summary, error) {
	if n < 1 || n > MaxRuns {
		return nil, fmt.Errorf("%d runs; from 1 to %d", n, MaxRuns)
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	var text strings.Builder
	if err := s.Write(&text); err != nil {
		return nil, err
	}
	if text.Len() > MaxFile {
		return nil, fmt.Errorf("the scenario is %d bytes as a file; a recording holds at most %d", text.Len(), MaxFile)
	}
	if err := encoder(out).Encode(recordingHeader{World: s.Name, Format: recordingFormat, Seed: seed, Runs: n, Scenario: text.String()}); err != nil {
		return nil, err
	}
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	results := make([]Result, n)
	lines, errs := make([]bytes.Buffer, workers), make([]error, workers)
	for first := 0; first < n; first += workers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		batch := min(workers, n-first)
		var all sync.WaitGroup
		for i := range batch {
			all.Go(func() {
				lines[i].Reset()
				results[first+i], errs[i] = recordRun(&lines[i], s, first+i, seed)
			})
		}
		all.Wait()
		for i := range batch {
			if errs[i] != nil {
				return nil, errs[i]
			}
			if _, err := out.Write(lines[i].Bytes()); err != nil {
				return nil, err
			}
		}
	}
	return summarise(s, results, seed), nil
}

func recordRun(out io.Writer, s *Scenario, run int, seed uint64) (Result, error) {
	w, err := New(s, Stream(seed, run))
	if err != nil {
		return Result{}, err
	}
	to := encoder(out)
	end := recordingEnd{Run: run}
	w.OnStep = func(x Step) {
		end.Steps++
		err = errors.Join(err, to.Encode(x))
	}
	end.Result = w.Run(time.Duration(s.Duration))
	return end.Result, errors.Join(err, to.Encode(end))
}

func encoder(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}

// recording reads the lines of one.
type recording struct {
	scan *bufio.Scanner
	line int
}

func (r *recording) errorf(format string, a ...any) error {
	return fmt.Errorf("%w: line %d: %s", ErrRecording, r.line, fmt.Sprintf(format, a...))
}

func (r *recording) next() ([]byte, error) {
	r.line++
	if r.scan.Scan() {
		return r.scan.Bytes(), nil
	}
	if err := r.scan.Err(); err != nil {
		return nil, r.errorf("%v", err)
	}
	return nil, io.EOF
}

func (r *recording) header() (*recordingHeader, *Scenario, error) {
	raw, err := r.next()
	if err == io.EOF {
		return nil, nil, r.errorf("empty")
	}
	if err != nil {
		return nil, nil, err
	}
	var h recordingHeader
	if err := json.Unmarshal(raw, &h); err != nil {
		return nil, nil, r.errorf("%v", err)
	}
	switch {
	case h.Format != recordingFormat:
		return nil, nil, r.errorf("format %d; this build reads %d", h.Format, recordingFormat)
	case h.Runs < 1 || h.Runs > MaxRuns:
		return nil, nil, r.errorf("%d runs; from 1 to %d", h.Runs, MaxRuns)
	}
	s, err := Read(strings.NewReader(h.Scenario))
	if err != nil {
		return nil, nil, r.errorf("%v", err)
	}
	return &h, s, nil
}

// Replay runs what a recording says was run and compares every step and every result. Differences go into the report,
// under the name file; the error is of reading, ErrRecording, or of ctx.
func Replay(ctx context.Context, in io.Reader, file string, report *replay.Report) error {
	r := &recording{scan: bufio.NewScanner(in)}
	r.scan.Buffer(make([]byte, 0, 4096), maxRecordingHead)
	h, s, err := r.header()
	if err != nil {
		return err
	}
	for run := range h.Runs {
		report.Episodes++
		if err := r.replayRun(ctx, s, run, h.Seed, file, report); err != nil {
			return err
		}
	}
	if _, err := r.next(); err == nil {
		return r.errorf("more than the header's %d runs", h.Runs)
	} else if err != io.EOF {
		return err
	}
	return nil
}

func (r *recording) replayRun(ctx context.Context, s *Scenario, run int, seed uint64, file string, report *replay.Report) error {
	w, err := New(s, Stream(seed, run))
	if err != nil {
		return err
	}
	var (
		step   int           // how many the recording has so far
		ahead  int           // how many steps more than the recording the model made
		end    *recordingEnd // the run's last line, once it is read
		failed error
		line   bytes.Buffer
	)
	differ := func(field, want, got string) {
		report.Add(replay.Mismatch{File: file, Line: r.line, Step: step, Field: field, Want: want, Got: got})
	}
	read := func() []byte { // the next recorded step; nil where the run ends
		raw, err := r.next()
		switch {
		case err == io.EOF:
			failed = r.errorf("truncated: run %d of %d steps so far has no end", run, step)
		case err != nil:
			failed = err
		case bytes.HasPrefix(raw, []byte(`{"run"`)):
			end = &recordingEnd{}
			if err := json.Unmarshal(raw, end); err != nil {
				failed = r.errorf("%v", err)
			} else if end.Run != run || end.Steps != step {
				failed = r.errorf("the end of run %d after %d steps, where that of run %d after %d was due", end.Run, end.Steps, run, step)
			}
		case len(raw) > maxRecordingLine:
			failed = r.errorf("a step of %d bytes; at most %d", len(raw), maxRecordingLine)
		default:
			return raw
		}
		return nil
	}
	w.OnStep = func(got Step) {
		if failed != nil {
			return
		}
		var raw []byte
		if end == nil {
			raw = read()
		}
		if raw == nil {
			if ahead++; ahead == 1 && failed == nil {
				differ("step", "the run's end", got.Action)
			}
			return
		}
		report.Steps++
		line.Reset()
		if err := encoder(&line).Encode(got); err != nil {
			failed = err
			return
		}
		if !bytes.Equal(bytes.TrimSuffix(line.Bytes(), []byte{'\n'}), raw) {
			var want Step
			if err := json.Unmarshal(raw, &want); err != nil {
				failed = r.errorf("%v", err)
				return
			}
			differ(difference(want, got))
		}
		step++
	}
	for n := 0; failed == nil && ahead < maxRecordingAhead && w.advance(w.end); n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	for failed == nil && end == nil { // steps that the model did not make
		if raw := read(); raw != nil {
			report.Steps++
			differ("step", clip(string(raw)), "the run's end")
			step++
		}
	}
	if failed != nil {
		return failed
	}
	if got := w.Run(time.Duration(w.end)); got != end.Result {
		differ("result", fmt.Sprintf("%+v", end.Result), fmt.Sprintf("%+v", got))
	}
	return nil
}

// difference names the first field in which two steps differ; where none does, they differ in how they are written.
func difference(want, got Step) (field, wantText, gotText string) {
	for _, f := range []struct {
		name string
		a, b any
	}{
		{"at_ns", want.At, got.At}, {"actor", want.Actor, got.Actor}, {"action", want.Action, got.Action}, {"technique", want.Technique, got.Technique},
		{"from", want.From, got.From}, {"to", want.To, got.To}, {"port", want.Port, got.Port}, {"ok", want.OK, got.OK},
		{"refused", want.Refused, got.Refused}, {"caught", want.Caught, got.Caught},
	} {
		if f.a != f.b {
			return f.name, fmt.Sprint(f.a), fmt.Sprint(f.b)
		}
	}
	return "line", fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)
}
