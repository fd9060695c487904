package bpf

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
)

// MaxRecordingLine bounds one line of a recording, in bytes.
const MaxRecordingLine = ocsf.MaxLine

// maxPause is the longest that a recording played in step is silent: a gap of days is not waited for.
const maxPause = time.Minute

// RecordingSensor gives again what was recorded: OCSF JSON, one event a line, as `omega events --json` prints it and
// WriteEvent writes it, plain or in gzip. Bytes of any kind come back as they were. Recordings of the older form, an
// event.Event as a JSON object, are read as well. A line that is too long, or no event, is counted and skipped.
type RecordingSensor struct {
	in              io.Reader
	inStep          bool
	long, malformed atomic.Uint64
	given           atomic.Uint64
}

// NewRecording reads events from r, and gives them as fast as they are taken; with inStep, with the time between them
// that there was, at most a minute.
func NewRecording(r io.Reader, inStep bool) *RecordingSensor {
	return &RecordingSensor{in: r, inStep: inStep}
}

// Name implements Sensor.
func (s *RecordingSensor) Name() string { return "recording" }

// Drops implements Sensor.
func (s *RecordingSensor) Drops() map[string]uint64 {
	return map[string]uint64{"too_long": s.long.Load(), "malformed": s.malformed.Load()}
}

// Given is how many events were given so far.
func (s *RecordingSensor) Given() uint64 { return s.given.Load() }

// Run implements Sensor. It returns nil at the recording's end, which ends no context.
func (s *RecordingSensor) Run(ctx context.Context, out func(*event.Event)) error {
	in, err := plain(s.in)
	if err != nil {
		return err
	}
	last := int64(0)
	for ctx.Err() == nil {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			s.long.Add(1)
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
		} else if line = bytes.TrimSpace(line); len(line) > 0 {
			if e := readEvent(line); e == nil {
				s.malformed.Add(1)
			} else {
				if s.inStep && last != 0 && !pause(ctx, time.Duration(e.Time-last)) {
					return nil
				}
				last = e.Time
				e.Sensor = s.Name()
				out(e)
				s.given.Add(1)
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

// plain reads through gzip where there is any.
func plain(r io.Reader) (*bufio.Reader, error) {
	in := bufio.NewReaderSize(r, MaxRecordingLine)
	if head, err := in.Peek(2); err != nil || head[0] != 0x1f || head[1] != 0x8b {
		return in, nil // also what is too short for gzip
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("read the recording: %w", err)
	}
	return bufio.NewReaderSize(z, MaxRecordingLine), nil
}

// pause waits; it is false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(min(d, maxPause))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// readEvent reads a line of either form, nil if it is of none.
func readEvent(line []byte) *event.Event {
	if !bytes.HasPrefix(line, []byte(`{"Class":`)) {
		e, err := ocsf.Decode(line)
		if err != nil {
			return nil
		}
		return e
	}
	var e event.Event
	if json.Unmarshal(line, &e) != nil || e.Class.String() == "unknown" || e.Activity == event.ActivityUnknown || int(e.Activity) >= event.Activities {
		return nil
	}
	return &e
}

// WriteEvent appends e to a recording, as OCSF JSON. Every byte of it comes back.
func WriteEvent(w io.Writer, e *event.Event) error {
	line, err := ocsf.Encode(e, "", "")
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
