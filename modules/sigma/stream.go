package sigma

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
)

// Summary is what became of a stream of events.
type Summary struct {
	Lines     int
	Events    int // lines that are events
	Malformed int // lines that are none, or too long
	Findings  int
}

// DetectLines runs rules, and other detectors, over recorded events: OCSF, or what ReadRecord reads, one a line; gzip is
// recognised. emit is given each finding with the number of the line, from 1, that completed it. A line that is no event
// is counted. It fails where in cannot be read, emit fails, or ctx ends.
func DetectLines(ctx context.Context, d *Detector, more []modules.Detector, in io.Reader, emit func(line int, f event.Finding) error) (s Summary, err error) {
	buffered := bufio.NewReaderSize(in, 64<<10)
	if magic, _ := buffered.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return s, fmt.Errorf("read events: %w", err)
		}
		defer z.Close()
		buffered = bufio.NewReaderSize(z, 64<<10)
	}
	tell := func(f event.Finding) {
		if err == nil {
			s.Findings++
			sum := sha256.Sum256([]byte(f.RuleID + "\x00" + strconv.Itoa(s.Lines)))
			f.ID = hex.EncodeToString(sum[:16])
			err = emit(s.Lines, f)
		}
	}
	var line []byte
	for err == nil && ctx.Err() == nil {
		var long bool
		var rerr error
		if line, long, rerr = readLine(buffered, line[:0]); rerr != nil && !errors.Is(rerr, io.EOF) {
			return s, fmt.Errorf("read events: %w", rerr)
		}
		if len(line) == 0 && rerr != nil {
			break
		}
		s.Lines++
		switch {
		case long:
			s.Malformed++
		case len(bytes.TrimSpace(line)) > 0:
			detectLine(ctx, d, more, line, &s, tell)
		}
	}
	return s, errors.Join(err, ctx.Err())
}

// readLine reads one line without its end; of one past MaxLine only that it was long is told.
func readLine(r *bufio.Reader, line []byte) (_ []byte, long bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if !long {
			line = append(line, part...)
		}
		if len(line) > MaxLine {
			line, long = append(line[:0], ' '), true
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, long, err
		}
	}
}

func detectLine(ctx context.Context, d *Detector, more []modules.Detector, line []byte, s *Summary, tell func(event.Finding)) {
	e, rec := readLineEvent(line)
	if e == nil && rec == nil {
		s.Malformed++
		return
	}
	s.Events++
	at := int64(s.Lines) * int64(time.Millisecond)
	switch {
	case rec == nil:
		if e.Time == 0 {
			e.Time = at
		}
		d.Event(e, func(r *Rule) { tell(d.Finding(r, e)) })
	default:
		if t := rec.Time(); t != 0 {
			at = t
		}
		if e = rec.event(at); e == nil {
			e = &event.Event{Time: at}
		}
		d.Record(rec, at, func(r *Rule) { tell(d.Finding(r, e)) })
	}
	if e.Class == 0 {
		return
	}
	if e.Boot == 0 && e.Time > 0 { // detectors measure by the time since boot, which others' records do not have
		e.Boot = uint64(e.Time)
	}
	for _, one := range more {
		_ = one.Detect(ctx, []*event.Event{e}, tell) // what it says of ctx is said by the caller
	}
}

// readLineEvent reads a line as one of our own events, or as a record of another source; neither where it is no event.
func readLineEvent(line []byte) (*event.Event, *Record) {
	if bytes.Contains(line, []byte(`"class_uid"`)) {
		if e, err := ocsf.Decode(line); err == nil {
			return e, nil
		}
	}
	r, err := ReadRecord(line)
	if err != nil {
		return nil, nil
	}
	return nil, r
}

// event is a record as one of our own events, as far as it says what ours say; nil where it is another kind of thing.
func (r *Record) event(at int64) *event.Event {
	f := r.Fields
	e := &event.Event{Time: at, Sensor: "recording"}
	number := func(name string) uint32 {
		n, err := strconv.ParseUint(f[name], 10, 32)
		if err != nil {
			return 0
		}
		return uint32(n)
	}
	e.Process = event.Process{Key: event.ProcessKey{PID: number("ProcessId")}, Parent: event.ProcessKey{PID: number("ParentProcessId")}, Exe: f["Image"], CWD: f["CurrentDirectory"], ParentExe: f["ParentImage"]}
	e.Process.Comm = e.Process.Exe[strings.LastIndexByte(e.Process.Exe, '/')+1:]
	if u := f["User"]; u != "" && u != "root" {
		if n, err := strconv.ParseUint(u, 10, 32); err == nil {
			e.Process.UID = uint32(n)
		} else {
			e.Process.UID = 65534 // somebody: the record names a user, and numbers are another host's
		}
	}
	e.Process.EUID = e.Process.UID
	e.Process.Args = strings.Join(strings.Fields(f["CommandLine"]), "\x00")
	for _, name := range [...]string{"argv", "process.args"} { // the words as they were, where they are told
		if v := f[name]; v != "" {
			e.Process.Args = v
			break
		}
	}
	switch r.Source.Category {
	case "process_creation":
		e.Class, e.Activity = event.ClassProcess, event.ActivityExec
	case "process_termination":
		e.Class, e.Activity = event.ClassProcess, event.ActivityExit
	case "process_access":
		e.Class, e.Activity = event.ClassProcess, event.ActivityPtrace
		e.Access.TargetExe, e.Access.Target.PID = f["TargetImage"], number("TargetProcessId")
	case "file_event":
		e.Class, e.Activity, e.File.Path = event.ClassFile, event.ActivityFileCreate, f["TargetFilename"]
	case "file_change":
		e.Class, e.Activity, e.File.Path = event.ClassFile, event.ActivityFileChmod, f["TargetFilename"]
	case "file_delete":
		e.Class, e.Activity, e.File.Path = event.ClassFile, event.ActivityFileUnlink, f["TargetFilename"]
	case "file_rename":
		e.Class, e.Activity, e.File.Path, e.File.Other = event.ClassFile, event.ActivityFileRename, f["TargetFilename"], f["SourceFilename"]
	case "network_connection":
		e.Class, e.Activity = event.ClassNetwork, event.ActivityConnect
		e.Network.Remote, e.Network.Local = endpoint(f["DestinationIp"], f["DestinationPort"]), endpoint(f["SourceIp"], f["SourcePort"])
		e.Network.Name, e.Network.Protocol = f["DestinationHostname"], 6
		if strings.EqualFold(f["Initiated"], "false") {
			e.Network.Inbound, e.Activity = true, event.ActivityAccept
			e.Network.Remote, e.Network.Local = e.Network.Local, e.Network.Remote
		}
		if strings.EqualFold(f["Protocol"], "udp") {
			e.Network.Protocol = 17
		}
	case "dns_query", "dns":
		e.Class, e.Activity, e.DNS.Name, e.DNS.Answers = event.ClassDNS, event.ActivityDNSQuery, strings.ToLower(f["QueryName"]), f["QueryResults"]
	default:
		return nil
	}
	return e
}

func endpoint(address, port string) netip.AddrPort {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.AddrPort{}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		n = 0
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n))
}
