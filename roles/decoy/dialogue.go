package decoy

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
)

// Bounds of one conversation.
const (
	maxBytes   = 4 << 10          // read from one visitor
	maxLine    = 256              // of one line typed; what is longer is cut
	maxLogons  = 3                // attempts, as login(1) has it
	idleLimit  = 15 * time.Second // of silence
	totalLimit = 60 * time.Second // of one conversation
	maxSaid    = 8                // lines kept as evidence
)

// What the visitor is shown: a getty's, of a small appliance. It names no product whose real manners would give it away.
const (
	greeting = "\r\n\r\nlogin: "
	askPass  = "Password: "
	failure  = "\r\nLogin incorrect\r\n\r\nlogin: "
	farewell = "\r\nMaximum number of tries exceeded\r\n"
)

// transcript is what a visitor said, fit to travel.
type transcript struct {
	bytes  int
	logons int
	user   string // the first it tried
	said   []string
	full   bool // a bound ended it
}

func (t *transcript) evidence() []event.Evidence {
	out := []event.Evidence{{Name: "bytes", Value: strconv.Itoa(t.bytes)}}
	if t.logons > 0 {
		out = append(out, event.Evidence{Name: "logons", Value: strconv.Itoa(t.logons)})
	}
	for _, s := range t.said {
		out = append(out, event.Evidence{Name: "typed", Value: s})
	}
	if t.full {
		out = append(out, event.Evidence{Name: "cut", Value: "a bound ended the conversation"})
	}
	return out
}

// converse asks for a login until a bound is reached, the visitor leaves, or ctx ends.
func converse(ctx context.Context, c net.Conn) transcript {
	unhook := context.AfterFunc(ctx, func() { c.Close() })
	defer unhook()
	end := time.Now().Add(totalLimit)
	d := dialogue{}
	say := func(s string) bool {
		c.SetWriteDeadline(earliest(end, time.Now().Add(idleLimit)))
		_, err := c.Write([]byte(s))
		return err == nil
	}
	if !say(greeting) {
		return d.transcript
	}
	buf := make([]byte, 512)
	for d.bytes < maxBytes {
		c.SetReadDeadline(earliest(end, time.Now().Add(idleLimit)))
		n, err := c.Read(buf[:min(len(buf), maxBytes-d.bytes)])
		reply, over := d.hear(buf[:n])
		if reply != "" && !say(reply) || over || err != nil {
			d.finish()
			return d.transcript
		}
	}
	d.full = true
	d.finish()
	return d.transcript
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// dialogue is the state of one conversation: bytes in, bytes out, and no clock or socket, so that any input can be tried.
type dialogue struct {
	transcript
	line     []byte
	long     bool
	command  int // bytes left of a telnet command
	sub      bool
	last     byte
	password bool // what comes next is one
}

// Telnet commands (RFC 854).
const (
	telnetIAC  = 255
	telnetWill = 251
	telnetDont = 254
	telnetSB   = 250
	telnetSE   = 240
)

// hear takes what was read and gives what is answered; over says that the conversation ends.
func (d *dialogue) hear(in []byte) (reply string, over bool) {
	d.bytes += len(in)
	var out strings.Builder
	for _, b := range in {
		if d.telnet(b) {
			continue
		}
		last := d.last
		d.last = b
		switch {
		case b == '\n' && last == '\r', b == 0 && last == '\r':
			// the second half of a line's end
		case b == '\r', b == '\n':
			reply, over := d.enter()
			out.WriteString(reply)
			if over {
				return out.String(), true
			}
		case b == 0x7f || b == 8:
			if len(d.line) > 0 {
				d.line = d.line[:len(d.line)-1]
			}
		case len(d.line) < maxLine:
			d.line = append(d.line, b)
		default:
			d.long = true
		}
	}
	return out.String(), false
}

// telnet swallows the options that a telnet client negotiates; nothing is agreed to.
func (d *dialogue) telnet(b byte) bool {
	switch {
	case d.command == 1 && !d.sub: // the verb
		d.command = 0
		switch {
		case b >= telnetWill && b <= telnetDont:
			d.command = 2
		case b == telnetSB:
			d.sub = true
		case b == telnetIAC:
			return false // an escaped byte of data
		}
		return true
	case d.command == 2: // the option
		d.command = 0
		return true
	case d.sub:
		if d.command == 1 {
			d.command = 0
			d.sub = b != telnetSE
		} else if b == telnetIAC {
			d.command = 1
		}
		return true
	case b == telnetIAC:
		d.command = 1
		return true
	}
	return false
}

// enter ends a line.
func (d *dialogue) enter() (reply string, over bool) {
	line := string(d.line)
	d.line = d.line[:0]
	if d.long {
		line, d.long = line+"...", false
	}
	if d.password {
		d.password = false
		d.logons++
		// A password is somebody's, and may be a real one: its length is enough.
		d.keep("password of " + strconv.Itoa(len(line)) + " bytes")
		if d.logons >= maxLogons {
			return farewell, true
		}
		return failure, false
	}
	if strings.TrimSpace(line) == "" {
		return "\r\nlogin: ", false
	}
	if d.user == "" {
		d.user = redact.Printable(line, 64)
	}
	d.keep(redact.Words(strings.Fields(line), maxLine))
	d.password = true
	return askPass, false
}

func (d *dialogue) keep(s string) {
	if len(d.said) < maxSaid {
		d.said = append(d.said, s)
	} else {
		d.full = true
	}
}

// finish keeps what was typed without an end of line.
func (d *dialogue) finish() {
	if len(d.line) == 0 {
		return
	}
	if d.password {
		d.keep("password of " + strconv.Itoa(len(d.line)) + " bytes")
	} else {
		d.keep(redact.Words(strings.Fields(string(d.line)), maxLine))
	}
	d.line = nil
}
