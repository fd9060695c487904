package bpf

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/omega-mesh/omega/swarm/event"
)

// MaxRecordingLine bounds one line of a recording, in bytes.
const MaxRecordingLine = 64 << 10

// RecordingSensor gives again what was recorded: one event.Event as a JSON object a line, in the form WriteEvent has.
// It keeps no time of its own; a line that is too long, or no event, is counted and skipped.
type RecordingSensor struct {
	in              *bufio.Reader
	long, malformed atomic.Uint64
}

// NewRecording reads events from r.
func NewRecording(r io.Reader) *RecordingSensor {
	return &RecordingSensor{in: bufio.NewReaderSize(r, MaxRecordingLine)}
}

// Name implements Sensor.
func (s *RecordingSensor) Name() string { return "recording" }

// Drops implements Sensor.
func (s *RecordingSensor) Drops() map[string]uint64 {
	return map[string]uint64{"too_long": s.long.Load(), "malformed": s.malformed.Load()}
}

// Run implements Sensor. It returns nil at the recording's end, which ends no context.
func (s *RecordingSensor) Run(ctx context.Context, out func(*event.Event)) error {
	for ctx.Err() == nil {
		line, err := s.in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			s.long.Add(1)
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = s.in.ReadSlice('\n')
			}
		} else if len(line) > 1 || len(line) == 1 && line[0] != '\n' {
			var e event.Event
			if json.Unmarshal(line, &e) != nil || e.Class == 0 || e.Activity == event.ActivityUnknown {
				s.malformed.Add(1)
			} else {
				e.Sensor = s.Name()
				out(&e)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the recording: %w", err)
		}
	}
	return nil
}

// WriteEvent appends e to a recording. A command line of any bytes is kept as UTF-8: what is none becomes U+FFFD.
func WriteEvent(w io.Writer, e *event.Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("record an event: %w", err)
	}
	if len(line) >= MaxRecordingLine {
		return fmt.Errorf("record an event: %d bytes, and a line has room for %d", len(line), MaxRecordingLine)
	}
	if _, err := w.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("record an event: %w", err)
	}
	return nil
}
