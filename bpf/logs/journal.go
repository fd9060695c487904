package logs

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// record is as much as is read of one entry in journald's JSON (systemd, "Journal Export Formats"). Fields that begin with
// an underscore were set by journald from the kernel's own word on the writer; no program can choose them.
type record struct {
	Identifier text `json:"SYSLOG_IDENTIFIER"`
	SyslogPID  text `json:"SYSLOG_PID"`
	Message    text `json:"MESSAGE"`
	Unit       text `json:"UNIT"`
	Job        text `json:"JOB_TYPE"`
	Result     text `json:"JOB_RESULT"`
	Comm       text `json:"_COMM"`
	PID        text `json:"_PID"`
	UID        text `json:"_UID"`
	Realtime   text `json:"__REALTIME_TIMESTAMP"`
}

// text is a field as journald writes it: a string; an array of bytes where it is not UTF-8; null where it is too long; an
// array of those where it was given several times, of which none counts.
type text string

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(raw []byte) error {
	*t = ""
	switch {
	case len(raw) > 0 && raw[0] == '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
		*t = text(s)
	case len(raw) > 0 && raw[0] == '[':
		var bytes []uint8
		var numbers []uint16
		if json.Unmarshal(raw, &numbers) != nil {
			return nil
		}
		for _, n := range numbers {
			if n > 255 {
				return nil
			}
			bytes = append(bytes, uint8(n))
		}
		*t = text(bytes)
	}
	return nil
}

// parseJournal reads one line of `journalctl -o json`.
func parseJournal(line []byte) (e entry, ok bool) {
	var r record
	if json.Unmarshal(line, &r) != nil || r.Message == "" {
		return e, false
	}
	e = entry{program: string(r.Identifier), message: string(r.Message), unit: string(r.Unit), job: string(r.Job)}
	if r.Result != "" && r.Result != "done" {
		e.job = "" // a job that failed says so in a line of its own
	}
	if us, err := strconv.ParseInt(string(r.Realtime), 10, 64); err == nil {
		e.at = time.UnixMicro(us)
	}
	pid, err := strconv.ParseUint(string(r.PID), 10, 32)
	if err != nil {
		return e, e.program != ""
	}
	e.pid = uint32(pid)
	if uid, err := strconv.ParseUint(string(r.UID), 10, 32); err == nil {
		// Who is not root may call itself sshd in what it writes, but not in _COMM and _UID both.
		e.uid, e.sure = uint32(uid), uid == 0 && sameProgram(e.program, string(r.Comm))
	}
	return e, e.program != ""
}

// sameProgram says whether the name a line goes by is that of the program that wrote it; the kernel cuts names at 15 bytes.
func sameProgram(said, comm string) bool {
	said, comm = strings.ToLower(said), strings.ToLower(comm)
	return comm != "" && (said == comm || len(comm) == 15 && strings.HasPrefix(said, comm) || said == "sshd" && strings.HasPrefix(comm, "sshd-"))
}
