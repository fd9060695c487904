package fields

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
)

// full has something in every field, no two alike where it can be helped.
func full(c event.Class, a event.Activity) *event.Event {
	return &event.Event{
		Class: c, Activity: a, Time: 1_800_000_000_000_000_000, Boot: 11, Sensor: "kernel", Result: 13, Count: 4,
		Process: event.Process{Key: event.ProcessKey{PID: 42, Start: 21}, Parent: event.ProcessKey{PID: 7, Start: 22}, UID: 1000, GID: 1001, EUID: 1002, EGID: 1003,
			Exe: "/usr/bin/curl", Comm: "curl", Args: "curl\x00-s\x00x.example", CWD: "/tmp", Inode: 31, Device: 32, CgroupID: 33, MountNS: 34, PIDNS: 35, NetNS: 36, Session: 37,
			LoginUID: 38, Caps: 1 << 21, Flags: event.FlagBeforeAgent, ExitCode: 39, ParentExe: "/bin/sh", Ancestors: "/usr/sbin/sshd\x00/sbin/init", Script: "/opt/a.sh", TTY: "pts/3",
			Container: "c0ffee", Image: "docker.io/library/nginx:1", Pod: "prod/web-1", Unit: "nginx.service"},
		Network: event.Network{Protocol: 6, Local: netip.MustParseAddrPort("10.0.0.1:5000"), Remote: netip.MustParseAddrPort("203.0.113.9:443"), BytesIn: 51, BytesOut: 52,
			Duration: 53 * time.Millisecond, Name: "x.example", SNI: "sni.example"},
		File:   event.File{Path: "/etc/shadow", Other: "/etc/shadow-", Inode: 61, Device: 62, Mode: 0o100640, UID: 63, GID: 64, Flags: 65, Hash: "abcd", FS: "ext4", Was: "mode 100600"},
		DNS:    event.DNS{Name: "asked.example", Type: 28, Code: 3, ID: 66, Answers: "2001:db8::1\x00alias.example"},
		Access: event.Access{Operation: "PTRACE_ATTACH", Target: event.ProcessKey{PID: 71, Start: 72}, TargetExe: "/bin/target", Number: 73, OldUID: 74, NewUID: 75, Gained: 1 << 7, Address: 0x76, Length: 77},
		Logon:  event.Logon{User: "alice", As: "root", Service: "sudo", Method: "password", Command: "/bin/id", Remote: netip.MustParseAddr("198.51.100.7")},
	}
}

// at follows a path into decoded JSON; of a list it gives all elements.
func at(v any, path string) any {
	for _, key := range strings.Split(path, ".") {
		if l, ok := v.([]any); ok {
			var all []any
			for _, x := range l {
				all = append(all, x.(map[string]any)[key])
			}
			v = all
			continue
		}
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

func text(v any) string {
	if l, ok := v.([]any); ok {
		parts := make([]string, len(l))
		for i, x := range l {
			parts[i] = text(x)
		}
		return strings.Join(parts, " ")
	}
	return strings.Trim(string(must(json.Marshal(v))), `"`)
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// TestPathsAreTrue: at the path that the table names for a field stands what the table reads.
func TestPathsAreTrue(t *testing.T) {
	events := []*event.Event{full(event.ClassNetwork, event.ActivityConnect), full(event.ClassProcess, event.ActivityExit), full(event.ClassAuthentication, event.ActivityLogonFailure)}
	events[1].Access.Target = event.ProcessKey{} // else another process is the object
	var trees []any
	for _, e := range events {
		line, err := ocsf.Encode(e, "n1", "did")
		if err != nil {
			t.Fatal(err)
		}
		var tree any
		if err := json.Unmarshal(line, &tree); err != nil {
			t.Fatal(err)
		}
		trees = append(trees, tree)
	}
	hexadecimal := map[string]string{"caps": "200000", "gained": "80", "number": "49", "address": "76", "flag": "8192"}
	for _, f := range All() {
		if f.OCSF == "" {
			continue
		}
		found := ""
		for i, e := range events {
			path := f.OCSF
			if e.Class != event.ClassProcess && strings.HasPrefix(path, "process.") {
				path = "actor." + path
			}
			want := f.Value(e)
			if h, ok := hexadecimal[f.Name]; ok {
				want = h
			}
			if got := text(at(trees[i], path)); got == want {
				found = path
			} else if found == "" {
				t.Logf("%s: at %s of a %s stands %q, not %q", f.Name, path, e.Class, got, want)
			}
		}
		if found == "" {
			t.Errorf("%s: in no event its value stands at %s", f.Name, f.OCSF)
		}
	}
}

func TestTable(t *testing.T) {
	names := map[string]string{}
	e := full(event.ClassProcess, event.ActivityExec)
	for _, f := range All() {
		readers := 0
		for _, there := range []bool{f.Text != nil, f.Number != nil, f.Address != nil, f.Bits != nil} {
			if there {
				readers++
			}
		}
		if readers != 1 || f.Meaning == "" || f.Source == "" || f.List && f.Text == nil || (f.Bits != nil) != (f.Names != nil) {
			t.Errorf("%s: is read in %d ways, or something is not said of it", f.Name, readers)
		}
		for _, n := range append([]string{f.Name, f.OCSF}, f.Sigma...) {
			if other := names[n]; other != "" && other != f.Name && n != "" {
				t.Errorf("%q names both %s and %s", n, other, f.Name)
			}
			names[n] = f.Name
			if found, ok := Find(n); n != "" && (!ok || found.Name != f.Name) {
				t.Errorf("%q does not find %s", n, f.Name)
			}
		}
		if f.Value(e) == "" {
			t.Errorf("%s: nothing is read of an event that has everything", f.Name)
		}
	}
	if f, ok := Find("actor.process.pid"); !ok || f.Name != "pid" {
		t.Error("the actor's process is not found")
	}
	if _, ok := Find("actor.file.path"); ok {
		t.Error("an actor has no file")
	}
}

// TestNamesOfBits: every flag and capability that an event may have has its name.
func TestNamesOfBits(t *testing.T) {
	if want := 16; len(processFlags) != want || event.FlagWatchedPath != 1<<(want-1) {
		t.Errorf("%d names for the flags of a process", len(processFlags))
	}
	if len(capabilities) != 41 { // CAP_LAST_CAP is 40 since Linux 5.9
		t.Errorf("%d names of capabilities", len(capabilities))
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	e := full(event.ClassNetwork, event.ActivityConnect)
	n := testing.AllocsPerRun(100, func() {
		for i := range table {
			switch f := &table[i]; {
			case f.Text != nil:
				f.Text(e)
			case f.Number != nil:
				f.Number(e)
			case f.Address != nil:
				f.Address(e)
			default:
				f.Bits(e)
			}
		}
	})
	if n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestCategory(t *testing.T) {
	for want, e := range map[string]*event.Event{
		"process_creation":   {Class: event.ClassProcess, Activity: event.ActivityExec},
		"network_connection": {Class: event.ClassNetwork, Activity: event.ActivityConnect},
		"file_event":         {Class: event.ClassFile, Activity: event.ActivityFileCreate},
		"file_delete":        {Class: event.ClassFileIntegrity, Activity: event.ActivityFileUnlink},
		"dns_query":          {Class: event.ClassDNS, Activity: event.ActivityDNSAnswer},
		"driver_load":        {Class: event.ClassKernel, Activity: event.ActivityModuleLoad},
		"process_activity":   {Class: event.ClassProcess, Activity: event.ActivityFork},
		"kernel_activity":    {Class: event.ClassKernel, Activity: event.ActivityBPF},
		"memory_activity":    {Class: event.ClassMemory, Activity: event.ActivityMemfdCreate},
		"process_access":     {Class: event.ClassMemory, Activity: event.ActivityPtrace},
		"":                   {Class: event.ClassAuthentication, Activity: event.ActivityLogonFailure},
	} {
		if got := Category(e); got != want {
			t.Errorf("%s %s is of %q, not %q", e.Class, e.Activity, got, want)
		}
	}
}
