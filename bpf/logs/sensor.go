package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/swarm/event"
)

// MaxLine is the longest line that is handed over, in bytes. Of a longer one the end, which is the program's own word,
// would be lost: it is counted and passed over.
const MaxLine = 8 << 10

// stampTrust is how far a line's own stamp may lie behind the clock, and still be believed.
const stampTrust = 5 * time.Minute

// What the lines of the pipe begin with.
const (
	fromFile    = 'f'
	fromJournal = 'j'
)

// Sensor implements bpf.Sensor: it reads what a Follower wrote. Its events are of Sensor "logs".
type Sensor struct {
	pipe *os.File
	lost struct{ malformed, tooLong atomic.Uint64 }
	read atomic.Uint64
}

// Open makes the sensor of a pipe's reading end, which is its own from then on.
func Open(pipe *os.File) (*Sensor, error) {
	// A descriptor that was inherited may block; only one that does not can be given a deadline.
	fd, err := unix.Dup(int(pipe.Fd()))
	pipe.Close()
	if err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("logs: %w", err)
	}
	return &Sensor{pipe: os.NewFile(uintptr(fd), "logs")}, nil
}

// Name implements bpf.Sensor.
func (s *Sensor) Name() string { return "logs" }

// Drops implements bpf.Sensor: lines that do not read, and lines too long to be read whole.
func (s *Sensor) Drops() map[string]uint64 {
	return map[string]uint64{"malformed": s.lost.malformed.Load(), "too_long": s.lost.tooLong.Load()}
}

// Lines is how many lines were read.
func (s *Sensor) Lines() uint64 { return s.read.Load() }

// Close gives the pipe back. Run must have ended.
func (s *Sensor) Close() error { return s.pipe.Close() }

// Run implements bpf.Sensor. It also ends, without an error, where the follower has ended: nothing more can come.
func (s *Sensor) Run(ctx context.Context, out func(*event.Event)) error {
	if err := s.pipe.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("logs: %w", err)
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_ = s.pipe.SetReadDeadline(time.Unix(1, 0)) // a pipe takes deadlines: Open saw to that
	})
	defer func() {
		if !stop() {
			<-stopped
		}
	}()
	r := bufio.NewReaderSize(s.pipe, MaxLine+2)
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case err == nil:
			s.take(line[:len(line)-1], out)
		case errors.Is(err, bufio.ErrBufferFull):
			s.lost.tooLong.Add(1)
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = r.ReadSlice('\n')
			}
			if err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("logs: %w", err)
			}
		case ctx.Err() != nil, errors.Is(err, io.EOF):
			return nil
		default:
			return fmt.Errorf("logs: %w", err)
		}
	}
}

// take reads one line with its mark.
func (s *Sensor) take(line []byte, out func(*event.Event)) {
	s.read.Add(1)
	var x event.Event
	known, ok := parse(line, time.Now(), bpf.BootTime(), &x)
	if !ok {
		s.lost.malformed.Add(1)
	} else if known {
		out(&x)
	}
}

// parse fills x from a marked line. ok is false for a line that is of no format; known for one that says nothing here.
func parse(line []byte, now time.Time, boot uint64, x *event.Event) (known, ok bool) {
	if len(line) < 2 || len(line) > MaxLine+1 {
		return false, false
	}
	var e entry
	switch line[0] {
	case fromFile:
		// sshd escapes control characters in names, and so does a syslog daemon in what it writes: who sends one raw is neither.
		if bytes.ContainsFunc(line[1:], func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return false, false
		}
		e, ok = parseClassic(string(line[1:]), now)
	case fromJournal:
		e, ok = parseJournal(line[1:])
		if ok && bytes.ContainsFunc([]byte(e.message), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return false, true // of many lines: none of those that are read here
		}
		if ok && !e.sure && claimsRight(e.program) {
			return false, true // somebody who only calls himself sshd
		}
	}
	if !ok {
		return false, false
	}
	*x = event.Event{Sensor: "logs", Time: now.UnixNano(), Boot: boot}
	if age := now.Sub(e.at); !e.at.IsZero() && age >= 0 && age < stampTrust && uint64(age) < boot {
		x.Time, x.Boot = e.at.UnixNano(), boot-uint64(age)
	}
	x.Process.Key.PID, x.Process.Comm, x.Process.Unit = e.pid, cut(e.program), cut(e.unit)
	if e.sure {
		x.Process.UID = e.uid
	}
	return read(&e, x), true
}

// claimsRight tells programs that only root runs with the name and the user journald sees: what another writes under
// their name is a lie. sudo, su and pkexec are set-user-id, and are root too when they write.
func claimsRight(program string) bool {
	switch program {
	case "sshd", "sshd-session", "sshd-auth", "dropbear", "sudo", "su", "pkexec", "CRON", "cron", "crond", "systemd", "systemd-logind", "login":
		return true
	}
	return false
}
