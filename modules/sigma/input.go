package sigma

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Bounds of a record from elsewhere.
const (
	MaxLine        = 1 << 20 // bytes
	maxFields      = 4096
	maxRecordDepth = 16
)

// ErrRecord is wrapped where a line is no event.
var ErrRecord = errors.New("not an event")

// ReadRecord reads one line of another source: JSON as Sysmon writes it (flat, or nested as in an event log's XML),
// auditd's, ECS, or a line of auditd's own log. Any other text is a message, which keywords are looked for in. OCSF is
// not read here: it is our own events.
func ReadRecord(line []byte) (*Record, error) {
	line = bytes.TrimSpace(line)
	switch {
	case len(line) > MaxLine:
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrRecord, len(line), MaxLine)
	case len(line) == 0:
		return nil, fmt.Errorf("%w: an empty line", ErrRecord)
	case line[0] != '{':
		return readText(string(line)), nil
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, fmt.Errorf("%w: %.120s", ErrRecord, err)
	}
	r := &Record{Fields: map[string]string{}, Message: string(line)}
	if err := flatten(r.Fields, "", object, 0); err != nil {
		return nil, err
	}
	lift(r.Fields)
	r.Source = recognise(r.Fields)
	return r, nil
}

// flatten gives nested objects dotted names, and lists their parts joined by NUL.
func flatten(to map[string]string, prefix string, v any, depth int) error {
	if depth > maxRecordDepth || len(to) > maxFields {
		return fmt.Errorf("%w: more than %d fields, or nested more than %d deep", ErrRecord, maxFields, maxRecordDepth)
	}
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			name := k
			if prefix != "" {
				name = prefix + "." + k
			}
			if err := flatten(to, name, v[k], depth+1); err != nil {
				return err
			}
		}
	case []any:
		var parts []string
		for _, e := range v {
			switch e := e.(type) {
			case map[string]any, []any:
				if err := flatten(to, prefix, e, depth+1); err != nil {
					return err
				}
			case nil:
			default:
				parts = append(parts, fmt.Sprint(e))
			}
		}
		if parts != nil {
			to[prefix] = strings.Join(parts, "\x00")
		}
	case nil: // a null is as if it were not there
	case string:
		to[prefix] = v
	default:
		to[prefix] = fmt.Sprint(v)
	}
	return nil
}

// elsewhere are other names of fields that rules know: ECS, the Windows security log.
var elsewhere = map[string]string{
	"process.executable": "Image", "process.command_line": "CommandLine", "process.working_directory": "CurrentDirectory", "process.pid": "ProcessId",
	"process.parent.executable": "ParentImage", "process.parent.command_line": "ParentCommandLine", "process.parent.pid": "ParentProcessId",
	"process.name": "process_name", "process.hash.sha256": "sha256", "user.name": "User", "file.path": "TargetFilename",
	"destination.ip": "DestinationIp", "destination.port": "DestinationPort", "destination.domain": "DestinationHostname", "source.ip": "SourceIp", "source.port": "SourcePort",
	"dns.question.name": "QueryName", "network.direction": "direction", "host.name": "ComputerName", "host.hostname": "ComputerName",
	"NewProcessName": "Image", "ParentProcessName": "ParentImage", "NewProcessId": "ProcessId", "ProcessCommandLine": "CommandLine",
}

// lift brings the data of a nested event log record to the top, and adds the names that rules use.
func lift(f map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		for _, prefix := range [...]string{"Event.EventData.", "Event.System.", "Event.UserData.", "EventData.", "winlog.event_data."} {
			if rest, ok := strings.CutPrefix(name, prefix); ok {
				rest = strings.TrimSuffix(rest, ".#text")
				rest = strings.ReplaceAll(strings.ReplaceAll(rest, ".#attributes.", "_"), ".", "_")
				if _, taken := f[rest]; !taken {
					f[rest] = f[name]
				}
			}
		}
	}
	for _, pair := range [...][2]string{{"winlog.channel", "Channel"}, {"winlog.event_id", "EventID"}, {"event.code", "EventID"}} {
		if v, ok := f[pair[0]]; ok && f[pair[1]] == "" {
			f[pair[1]] = v
		}
	}
	for _, from := range slices.Sorted(maps.Keys(elsewhere)) {
		if v, ok := f[from]; ok {
			if _, taken := f[elsewhere[from]]; !taken {
				f[elsewhere[from]] = v
			}
		}
	}
	if _, ok := f["CommandLine"]; !ok {
		if args, ok := f["process.args"]; ok {
			f["CommandLine"] = strings.ReplaceAll(args, "\x00", " ")
		}
	}
}

// sysmonCategories are the log sources of Sysmon's event numbers.
var sysmonCategories = map[string]string{"1": "process_creation", "2": "file_change", "3": "network_connection", "5": "process_termination", "6": "driver_load",
	"7": "image_load", "8": "create_remote_thread", "9": "raw_access_thread", "10": "process_access", "11": "file_event", "12": "registry_event", "13": "registry_set",
	"14": "registry_rename", "15": "create_stream_hash", "17": "pipe_created", "18": "pipe_created", "19": "wmi_event", "20": "wmi_event", "21": "wmi_event",
	"22": "dns_query", "23": "file_delete", "25": "process_tampering", "26": "file_delete", "27": "file_block_executable", "29": "file_executable_detected"}

// channels are the services of Windows event logs.
var channels = map[string]string{"Security": "security", "System": "system", "Application": "application", "Microsoft-Windows-Sysmon/Operational": "sysmon",
	"Linux-Sysmon/Operational": "sysmon", "Microsoft-Windows-PowerShell/Operational": "powershell", "Windows PowerShell": "powershell-classic",
	"Microsoft-Windows-TaskScheduler/Operational": "taskscheduler", "Microsoft-Windows-Windows Defender/Operational": "windefend",
	"Microsoft-Windows-DNS-Client/Operational": "dns-client", "Microsoft-Windows-Bits-Client/Operational": "bits-client"}

// recognise says what log source a record's fields are of. What cannot be told stays empty, and matches any.
func recognise(f map[string]string) (l LogSource) {
	switch system := strings.ToLower(f["host.os.type"]); {
	case f["logsource.category"] != "" || f["logsource.product"] != "" || f["logsource.service"] != "":
		return LogSource{strings.ToLower(f["logsource.category"]), strings.ToLower(f["logsource.product"]), strings.ToLower(f["logsource.service"])}
	case system != "":
		l.Product = system
	case strings.HasPrefix(f["Channel"], "Linux-"):
		l.Product = "linux"
	case f["Channel"] != "":
		l.Product = "windows"
	case strings.HasPrefix(f["Image"], "/"), strings.HasPrefix(f["TargetFilename"], "/"):
		l.Product = "linux"
	case len(f["Image"]) > 2 && f["Image"][1] == ':':
		l.Product = "windows"
	}
	if s, ok := channels[f["Channel"]]; ok {
		l.Service = s
	} else if c := f["Channel"]; c != "" {
		l.Service = strings.ToLower(c)
	}
	id := f["EventID"]
	switch {
	case l.Service == "sysmon":
		l.Category = sysmonCategories[id]
	case l.Service == "security" && id == "4688":
		l.Category = "process_creation"
	case l.Service == "powershell" && id == "4104":
		l.Category = "ps_script"
	case l.Service == "powershell" && id == "4103":
		l.Category = "ps_module"
	case f["Channel"] == "" && isCategory(f["category"]):
		l.Category = f["category"]
	case f["Channel"] == "" && id != "" && f["Image"] != "":
		l.Category = sysmonCategories[id]
	case isAuditd(f):
		l = LogSource{Product: "linux", Service: "auditd"}
	case f["event.category"] != "":
		l.Category = ecsCategory(f["event.category"], f["event.type"])
	}
	return l
}

// isCategory says whether a text has the form of a Sigma category.
func isCategory(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == ""
}

// isAuditd says whether a record is one of auditd's: its type is a word in capitals, and it has a field only auditd has.
func isAuditd(f map[string]string) bool {
	t := f["type"]
	if t == "" || strings.Trim(t, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") != "" {
		return false
	}
	for _, name := range [...]string{"a0", "msg", "syscall", "SYSCALL", "auid", "name", "exe", "key", "argc", "unit", "nametype"} {
		if f[name] != "" {
			return true
		}
	}
	return false
}

func ecsCategory(category, kind string) string {
	has := func(list, one string) bool { return slices.Contains(strings.Split(list, "\x00"), one) }
	switch {
	case has(category, "process") && has(kind, "end"):
		return "process_termination"
	case has(category, "process"):
		return "process_creation"
	case has(category, "file") && has(kind, "deletion"):
		return "file_delete"
	case has(category, "file"):
		return "file_event"
	case has(category, "dns"), has(kind, "dns"):
		return "dns_query"
	case has(category, "network"):
		return "network_connection"
	}
	return ""
}

// readText reads a line that is no JSON: auditd's own form, or a message.
func readText(line string) *Record {
	r := &Record{Message: line}
	if !strings.HasPrefix(line, "type=") && !strings.Contains(line, " type=") || !strings.Contains(line, "msg=audit(") {
		return r
	}
	r.Fields = map[string]string{}
	r.Source = LogSource{Product: "linux", Service: "auditd"}
	for rest := line; rest != "" && len(r.Fields) < maxFields; {
		rest = strings.TrimLeft(rest, " \x1d")
		name, after, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		if i := strings.LastIndexByte(name, ' '); i >= 0 {
			name = name[i+1:]
		}
		var v string
		switch {
		case strings.HasPrefix(after, `"`):
			v, rest, _ = strings.Cut(after[1:], `"`)
		case strings.HasPrefix(after, "'"):
			v, rest, _ = strings.Cut(after[1:], "'")
		default:
			v, rest, _ = strings.Cut(after, " ")
			if encoded(name) && len(v)%2 == 0 {
				if b, err := hex.DecodeString(v); err == nil && len(b) > 0 {
					v = strings.ReplaceAll(string(b), "\x00", " ")
				}
			}
		}
		if _, taken := r.Fields[name]; !taken {
			r.Fields[name] = v
		}
	}
	return r
}

// encoded are the fields that auditd writes in hexadecimal where they hold a space or worse.
func encoded(name string) bool {
	switch name {
	case "exe", "comm", "cwd", "name", "proctitle", "cmd", "key", "acct":
		return true
	}
	return len(name) > 1 && name[0] == 'a' && strings.Trim(name[1:], "0123456789") == ""
}

// Time is when a record says it happened, in Unix nanoseconds; 0 where it does not say.
func (r *Record) Time() int64 {
	for _, name := range [...]string{"@timestamp", "UtcTime", "TimeCreated_SystemTime", "timestamp", "time", "date"} {
		s := r.Fields[name]
		for _, layout := range dateLayouts[:3] {
			if t, err := time.Parse(layout, s); err == nil {
				return t.UnixNano()
			}
		}
	}
	return 0
}
