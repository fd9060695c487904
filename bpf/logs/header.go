package logs

import (
	"strconv"
	"strings"
	"time"
)

// entry is one line, taken apart: who says what, and when.
type entry struct {
	program string
	pid     uint32
	at      time.Time // zero where the line's own stamp says nothing
	message string
	// sure says that the kernel vouched for the writer: journald's trusted fields, not what the line says of itself.
	sure bool
	uid  uint32
	unit string
	job  string // start, stop, … of a unit, as systemd itself has it
}

// parseClassic reads the formats a syslog daemon writes: RFC 5424, the ISO 8601 stamp of newer rsyslog, and RFC 3164's
// "Nov 23 08:01:03". now gives the year that RFC 3164 leaves out. The strings of the entry lie in line.
func parseClassic(line string, now time.Time) (e entry, ok bool) {
	if strings.HasPrefix(line, "<") {
		i := strings.IndexByte(line, '>')
		if i < 2 || i > 4 {
			return e, false
		}
		line = line[i+1:]
		if rest, found := strings.CutPrefix(line, "1 "); found {
			return parse5424(rest)
		}
	}
	if len(line) < 16 {
		return e, false
	}
	if line[0] >= '0' && line[0] <= '9' {
		stamp, rest, found := strings.Cut(line, " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if !found || err != nil {
			return e, false
		}
		e.at, line = at, rest
	} else {
		at, err := time.ParseInLocation(time.Stamp, line[:15], now.Location())
		if err != nil || line[15] != ' ' {
			return e, false
		}
		at = at.AddDate(now.Year(), 0, 0)
		if at.Sub(now) > 48*time.Hour { // written in December, read in January
			at = at.AddDate(-1, 0, 0)
		}
		e.at, line = at, line[16:]
	}
	_, line, ok = strings.Cut(line, " ") // the host
	if !ok {
		return e, false
	}
	tag, message, ok := strings.Cut(line, ": ")
	if !ok || len(tag) > 64 || strings.ContainsRune(tag, ' ') {
		return e, false
	}
	e.program, e.pid = splitTag(tag)
	e.message = message
	return e, e.program != ""
}

// parse5424 reads a line from its time stamp on: TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG.
func parse5424(line string) (e entry, ok bool) {
	var f [5]string
	for i := range f {
		if f[i], line, ok = strings.Cut(line, " "); !ok {
			return e, false
		}
	}
	if f[0] != "-" {
		at, err := time.Parse(time.RFC3339Nano, f[0])
		if err != nil {
			return e, false
		}
		e.at = at
	}
	e.program = f[2]
	if pid, err := strconv.ParseUint(f[3], 10, 32); err == nil {
		e.pid = uint32(pid)
	}
	switch {
	case strings.HasPrefix(line, "- "):
		line = line[2:]
	case strings.HasPrefix(line, "["):
		if line, ok = skipStructured(line); !ok {
			return e, false
		}
	default:
		return e, false
	}
	e.message = strings.TrimPrefix(line, "\ufeff")
	return e, e.program != "" && e.program != "-"
}

// skipStructured passes over [id name="value"…]…, in which a quote, a backslash and a bracket are escaped.
func skipStructured(s string) (string, bool) {
	for strings.HasPrefix(s, "[") {
		quoted, end := false, -1
		for i := 1; i < len(s) && end < 0; i++ {
			switch {
			case quoted && s[i] == '\\':
				i++
			case s[i] == '"':
				quoted = !quoted
			case !quoted && s[i] == ']':
				end = i
			}
		}
		if end < 0 {
			return "", false
		}
		s = s[end+1:]
	}
	return strings.CutPrefix(s, " ")
}

// splitTag takes "sshd[123]" apart.
func splitTag(tag string) (program string, pid uint32) {
	program, rest, ok := strings.Cut(tag, "[")
	if !ok {
		return tag, 0
	}
	digits, tail, ok := strings.Cut(rest, "]")
	n, err := strconv.ParseUint(digits, 10, 32)
	if !ok || tail != "" || err != nil {
		return "", 0
	}
	return program, uint32(n)
}
