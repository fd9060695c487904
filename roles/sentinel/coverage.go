package sentinel

import (
	"maps"
	"slices"
	"strings"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/bpf/selftest"
	"github.com/omega-mesh/omega/swarm/event"
)

// component says which activities make up one data component of ATT&CK, and which checks stand for what no self-test can do.
type component struct {
	name    string
	proofs  []event.Activity
	sees    []string // names of checks: all of them must hold
	stops   []string // any of them
	without string   // what is not seen where it is not there
}

// components is every data component this build has eyes for. A function, so that nobody can change the table.
func components() []component {
	return []component{
		{"Process Creation", []event.Activity{event.ActivityFork, event.ActivityExec}, []string{"sensor/process"}, []string{"actuator/deny-exec"}, "programs that are started"},
		{"Process Termination", []event.Activity{event.ActivityExit}, []string{"sensor/process"}, nil, "programs that end"},
		{"Process Access", []event.Activity{event.ActivityPtrace}, []string{"sensor/rights"}, nil, "processes that look into others"},
		{"Process Modification", []event.Activity{event.ActivityProcessWrite}, []string{"sensor/rights"}, nil, "processes that write into others"},
		{"Process Metadata", []event.Activity{event.ActivitySetUID, event.ActivitySetGID, event.ActivityCapSet}, []string{"sensor/rights"}, nil, "changes of user, group and capabilities"},
		{"OS API Execution", []event.Activity{event.ActivityMemfdCreate, event.ActivityMemoryExecutable, event.ActivityUnshare, event.ActivitySetNS, event.ActivityKeyctl, event.ActivityIOUring, event.ActivityBPF},
			[]string{"sensor/memory"}, nil, "memory without a file, new namespaces, io_uring, bpf()"},
		{"Kernel Module Load", []event.Activity{event.ActivityModuleLoad}, []string{"sensor/rights"}, nil, "modules that are loaded"},
		{"File Creation", []event.Activity{event.ActivityFileCreate, event.ActivityFileLink}, []string{"sensor/file"}, nil, "files that are made"},
		{"File Modification", []event.Activity{event.ActivityFileWrite, event.ActivityFileRename}, []string{"sensor/file"}, []string{"actuator/deny-write"}, "files that are written or renamed"},
		{"File Metadata", []event.Activity{event.ActivityFileChmod, event.ActivityFileChown, event.ActivityFileSetXattr}, []string{"sensor/file"}, nil, "changes of mode, owner and attributes"},
		// No component of ATT&CK's: what D3FEND calls file integrity monitoring (D3-FIM).
		{"File Integrity", nil, []string{"sensor/integrity"}, nil, "what watched files were before they changed, and changes made while the agent was down"},
		{"File Deletion", []event.Activity{event.ActivityFileUnlink}, []string{"sensor/file"}, nil, "files that are removed"},
		{"Volume Modification", []event.Activity{event.ActivityMount}, []string{"sensor/file"}, nil, "file systems that are mounted"},
		{"Network Connection Creation", []event.Activity{event.ActivityConnect, event.ActivityAccept}, []string{"sensor/network"}, []string{"actuator/deny-address"}, "connections"},
		{"Network Traffic Flow", []event.Activity{event.ActivityListen, event.ActivityClose}, []string{"sensor/network"}, []string{"actuator/deny-address"}, "how much went over a connection, and raw sockets"},
		{"Network Traffic Content", []event.Activity{event.ActivityDNSQuery}, []string{"sensor/names"}, []string{"actuator/deny-name"}, "names asked for by DNS and in TLS, and UDP"},
		{"User Account Authentication", nil, []string{"sensor/logs"}, nil, "log-ons and their failures"},
		{"Logon Session Creation", nil, []string{"sensor/logs"}, nil, "sessions, sudo and su"},
		{"User Account Modification", nil, []string{"sensor/logs"}, nil, "accounts that are made or changed"},
		{"Scheduled Job Execution", nil, []string{"sensor/logs"}, nil, "jobs of cron"},
		{"Service Metadata", nil, []string{"sensor/logs"}, nil, "services that start, stop and fail"},
	}
}

// Assess says what a host can see and stop: what the self-test proved before what the checks say. Checks are the kernel
// half's and the sensors' own; drops are counted since the agent started.
func Assess(checks []bpf.Check, proof *selftest.Proof, drops map[string]uint64) event.Coverage {
	ok := map[string]bool{}
	var c event.Coverage
	for _, k := range checks {
		ok[k.Name] = k.OK
		if !k.OK && k.Lost != "" && len(c.Gaps) < event.MaxComponents {
			c.Gaps = append(c.Gaps, event.Gap{Name: bounded(k.Name), Lost: bounded(k.Lost)})
		}
	}
	for _, k := range components() {
		x := event.Component{Name: k.name, Proof: selftest.Untested.String()}
		seen, tested := 0, 0
		var missed []string
		for _, a := range k.proofs {
			switch proof[a] {
			case selftest.Seen:
				seen++
				tested++
			case selftest.Missed:
				missed = append(missed, a.String())
				tested++
			}
		}
		switch {
		case tested == 0:
			x.Sees = len(k.sees) > 0 && !slices.ContainsFunc(k.sees, func(name string) bool { return !ok[name] })
			if !x.Sees {
				x.Lost = k.without
			}
		case seen == tested:
			x.Sees, x.Proof = true, selftest.Seen.String()
		case seen > 0:
			x.Sees, x.Proof, x.Lost = true, "partly", "no event came of: "+strings.Join(missed, ", ")
		default:
			x.Proof, x.Lost = selftest.Missed.String(), k.without
		}
		x.Stops = slices.ContainsFunc(k.stops, func(name string) bool { return ok[name] })
		c.Components = append(c.Components, x)
	}
	for _, name := range slices.Sorted(maps.Keys(drops)) {
		if drops[name] > 0 && len(c.Drops) < event.MaxComponents {
			c.Drops = append(c.Drops, event.Drop{Name: bounded(name), Count: drops[name]})
		}
	}
	return c
}

// bounded keeps a text short enough that MaxComponents of them fit an entry.
func bounded(s string) string { return strings.ToValidUTF8(s[:min(len(s), 160)], "?") }

// Blind are the components that a host neither sees nor proved to see.
func Blind(c *event.Coverage) (names []string) {
	for _, k := range c.Components {
		if !k.Sees {
			names = append(names, k.Name)
		}
	}
	return names
}

// SameCoverage says whether two say the same but for time and the exact counts of drops: a kind that is lost anew, or ten
// times as much of one, is another coverage.
func SameCoverage(a, b *event.Coverage) bool {
	if a.Mode != b.Mode || a.Ended != b.Ended || !slices.Equal(a.Components, b.Components) || !slices.Equal(a.Gaps, b.Gaps) || len(a.Drops) != len(b.Drops) {
		return false
	}
	for i := range a.Drops {
		x, y := a.Drops[i].Count, b.Drops[i].Count
		if a.Drops[i].Name != b.Drops[i].Name || max(x, y) >= 10*max(min(x, y), 1) {
			return false
		}
	}
	return true
}
