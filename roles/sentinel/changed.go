package sentinel

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
)

// Rules of watched files.
const (
	ruleChanged  = "omega.integrity.changed"
	ruleBaseline = "omega.integrity.baseline"
)

// changed tells of watched files that are not as they were. A change is no attack by itself, so that none is believed enough
// to act on it: a person, or another finding of the same process, says what it is.
type changed struct{}

// Detect implements modules.Detector.
func (*changed) Detect(_ context.Context, events []*event.Event, emit func(event.Finding)) error {
	for _, e := range events {
		if e.Class != event.ClassFileIntegrity || e.Activity != event.ActivityIntegrity {
			continue
		}
		emit(changedFinding(e))
	}
	return nil
}

func changedFinding(e *event.Event) event.Finding {
	path := redact.Printable(strings.Clone(e.File.Path), maxPath)
	manager := packageManager(&e.Process)
	severity, confidence, by := event.SeverityMedium, uint8(50), "who: unknown, "+e.Access.Operation
	if e.Process.Key.PID != 0 {
		by = redact.Printable(strings.Clone(e.Process.Exe), maxPath)
	}
	if decisive(e.File.Path) {
		severity = event.SeverityHigh
	}
	if manager != "" {
		severity, confidence, by = event.SeverityLow, 30, "the package manager "+redact.Printable(manager, maxPath)
	}
	f := finding(e, ruleChanged, "watched file changed", fmt.Sprintf("%s: %s (%s)", path, strings.Clone(e.File.Other), by), severity, confidence, technique(e.File.Path))
	f.Subject.File = path
	evidence(&f, "changed", e.File.Other)
	if e.File.Was != "" {
		evidence(&f, "was", e.File.Was)
	}
	if !strings.Contains(e.File.Other, "removed") {
		evidence(&f, "is", Fingerprint(e.File.Mode, e.File.UID, e.File.GID, e.File.Hash))
	}
	if e.Process.Key.PID != 0 {
		evidence(&f, "done", e.Access.Operation)
	} else {
		evidence(&f, "who", "unknown, "+e.Access.Operation)
	}
	if manager != "" {
		evidence(&f, "package manager", manager)
	}
	return f
}

// Fingerprint is what of a file is compared, as words.
func Fingerprint(mode, uid, gid uint32, hash string) string {
	s := fmt.Sprintf("mode %06o owner %d:%d", mode, uid, gid)
	if hash != "" {
		s = "blake3 " + hash + " " + s
	}
	return s
}

// decisive are the files that say who may enter, what runs as root, and what every program loads.
func decisive(path string) bool {
	for _, p := range [...]string{"/etc/ld.so.preload", "/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/sudoers", "/etc/pam.", "/etc/ssh/", "/etc/cron",
		"/etc/systemd/system", "/etc/rc.local", "/etc/init.d", "/etc/profile", "/etc/ld.so.conf", "/etc/modules", "/var/spool/cron", "/usr/lib/security", "/usr/lib/systemd/system"} {
		if strings.HasPrefix(path, p) && !strings.HasSuffix(path, "-") {
			return true
		}
	}
	return strings.Contains(path, "/.ssh/")
}

// technique is what ATT&CK calls a change of such a file by an attacker.
func technique(path string) string {
	has := func(s string) bool { return strings.Contains(path, s) }
	switch {
	case has("ld.so."):
		return "T1574.006"
	case has("/.ssh/"):
		return "T1098.004"
	case has("cron"):
		return "T1053.003"
	case has("/systemd/"):
		return "T1543.002"
	case has("/pam.") || has("/security/"):
		return "T1556.003"
	case has("sudoers"):
		return "T1548.003"
	case has("/etc/passwd") || has("/etc/shadow") || has("/etc/group"):
		return "T1136.001"
	case has("profile") || has("bashrc"):
		return "T1546.004"
	case has("/bin/") || has("/sbin/"):
		return "T1554"
	}
	return "T1565.001"
}

// packageManager is the package manager that a process is, or was started by; empty if none. It counts only where it lies
// where a distribution puts it: a name is anyone's to take.
func packageManager(p *event.Process) string {
	for _, exe := range [...]string{p.Exe, p.Script, p.ParentExe} {
		if isManager(exe) {
			return strings.Clone(exe)
		}
	}
	for rest := p.Ancestors; rest != ""; {
		exe, more, _ := strings.Cut(rest, "\x00")
		if isManager(exe) {
			return strings.Clone(exe)
		}
		rest = more
	}
	return ""
}

func isManager(exe string) bool {
	i := strings.LastIndexByte(exe, '/')
	if i < 0 {
		return false
	}
	switch exe[:i] {
	case "/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/libexec", "/usr/lib/apt/methods", "/usr/lib/packagekit", "/usr/lib/snapd":
	default:
		return false
	}
	switch exe[i+1:] {
	case "dpkg", "dpkg-deb", "dpkg-divert", "dpkg-statoverride", "dpkg-reconfigure", "apt", "apt-get", "aptitude", "unattended-upgrade", "unattended-upgrades",
		"rpm", "dnf", "dnf-3", "dnf5", "yum", "microdnf", "zypper", "pacman", "apk", "packagekitd", "snapd":
		return true
	}
	return false
}

// BaselineFinding says what is wrong with a member's word on its watched files, after the one that was heard before; ok is
// false where nothing is: nothing was heard before, or the one follows the other.
func BaselineFinding(before, word *event.Baseline, name string) (f event.Finding, ok bool) {
	if before == nil || word.Follows(before) {
		return f, false
	}
	f = event.Finding{RuleID: ruleBaseline, Rule: "baseline changed behind the agent", Attack: []string{"T1565.001", "T1014"}, Severity: event.SeverityHigh, Confidence: 85,
		Time: word.Time, Subject: event.Subject{Member: word.Peer}}
	name = redact.Printable(name, maxPath)
	switch {
	case word.Before == [32]byte{} && word.Why == event.BaselineTaken:
		f.Title = fmt.Sprintf("The baseline of %s was gone: its agent took a new one", name)
	case word.File == [32]byte{}:
		f.Title = fmt.Sprintf("The baseline of %s no longer reads: it was changed while the agent was down", name)
	case word.Root != before.Root:
		f.Title = fmt.Sprintf("The baseline of %s was changed while its agent was down: what its files are to be is not what it signed", name)
	default:
		f.Title = fmt.Sprintf("The stored baseline of %s is not the one it signed last", name)
	}
	evidence(&f, "signed", hex.EncodeToString(before.File[:]))
	evidence(&f, "found", hex.EncodeToString(word.Before[:]))
	evidence(&f, "signed root", hex.EncodeToString(before.Root[:]))
	evidence(&f, "found root", hex.EncodeToString(word.Root[:]))
	evidence(&f, "signed at", before.When().Format("2006-01-02T15:04:05.999999999Z"))
	return f, true
}
