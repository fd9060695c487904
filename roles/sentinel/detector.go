package sentinel

import (
	"path/filepath"
	"strings"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
)

// Builtin are the detectors of this build, each with its own state; own is the agent, where it is one that runs.
func Builtin(own Own) []modules.Detector {
	flows := newFlows()
	return []modules.Detector{flows, &shell{flows: flows}, &execution{fetched: newFetched()}, newScan(), newBrute(), &refused{}, newKernel(), &changed{}, self{own}}
}

// maxArgs and maxPath bound what of a process travels, in bytes.
const (
	maxArgs = 512
	maxPath = 256
)

// finding begins one on an event: what happened when, and by which process if there is one.
func finding(e *event.Event, rule, name, title string, severity event.Severity, confidence uint8, attack ...string) event.Finding {
	f := event.Finding{Time: e.Time, Boot: e.Boot, RuleID: rule, Rule: name, Title: title, Attack: attack, Severity: severity, Confidence: confidence}
	if e.Process.Key.PID != 0 {
		p := &e.Process
		exe := p.Exe
		if exe == "" {
			exe = p.Comm
		}
		f.Subject.Process = &event.ProcessRef{
			Key: p.Key, UID: p.UID,
			Exe:       redact.Printable(strings.Clone(exe), maxPath),
			Args:      redact.Words(p.Argv(), maxArgs),
			ParentExe: redact.Printable(strings.Clone(p.ParentExe), maxPath),
		}
	}
	return f
}

func evidence(f *event.Finding, name, value string) {
	f.Evidence = append(f.Evidence, event.Evidence{Name: name, Value: redact.Printable(strings.Clone(value), maxPath)})
}

// base is the last element of a path, without allocation.
func base(path string) string {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[i+1:]
	}
	return path
}

// isShell tells command interpreters a person types into.
func isShell(exe string) bool {
	switch strings.TrimSuffix(base(exe), " (deleted)") {
	case "sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "busybox":
		return true
	}
	return false
}

// isInterpreter tells programs that run what they are handed.
func isInterpreter(exe string) bool {
	b := base(exe)
	for _, p := range [...]string{"python", "perl", "ruby", "php", "lua", "node", "nodejs", "tclsh", "awk", "gawk", "mawk", "java"} {
		// python3.11 and php8.2 are themselves; pythonista is not.
		if strings.HasPrefix(b, p) && strings.Trim(b[len(p):], "0123456789.") == "" {
			return true
		}
	}
	return false
}

// isService tells programs that serve the network and have little reason to start what was just written.
func isService(exe string) bool {
	b := base(exe)
	switch b {
	case "nginx", "apache2", "httpd", "lighttpd", "caddy", "haproxy", "envoy", "named", "dnsmasq", "postgres", "mysqld", "mariadbd",
		"redis-server", "mongod", "memcached", "smbd", "vsftpd", "proftpd", "exim4", "exim", "master", "smtpd", "dovecot", "slapd", "squid", "unicorn", "gunicorn", "uwsgi", "beam.smp":
		return true
	}
	return strings.HasPrefix(b, "php-fpm") || strings.HasPrefix(b, "php-cgi")
}

// isFetcher tells programs that bring files in from elsewhere.
func isFetcher(exe string) bool {
	switch base(exe) {
	case "curl", "wget", "wget2", "aria2c", "tftp", "ftp", "lftp", "ftpget", "nc", "ncat", "netcat", "nc.openbsd", "nc.traditional", "socat", "scp", "sftp", "rsync", "axel", "fetch":
		return true
	}
	return false
}

// isBuilder tells programs that write executables and run them all day.
func isBuilder(exe string) bool {
	switch base(exe) {
	case "go", "cargo", "rustc", "make", "gmake", "ninja", "cmake", "ctest", "meson", "bazel", "gradle", "mvn", "sbt", "cabal", "stack", "ghc", "zig",
		"configure", "libtool", "gcc", "cc", "clang", "ld", "collect2", "dlv", "gdb", "gopls", "pytest", "tox", "npm", "yarn", "pnpm", "bun", "esbuild", "git",
		"dpkg", "dpkg-preconfigure", "dpkg-reconfigure", "debconf", "frontend", "apt", "apt-get", "apt-key", "rpm", "dnf", "dnf-3", "yum", "zypper", "pacman", "apk", "snapd", "snap", "flatpak", "packagekitd", "unattended-upgr":
		return true
	}
	return strings.HasSuffix(base(exe), ".test")
}

// worldFolder is the world-writable folder that a path lies in, or "".
func worldFolder(path string) string {
	for _, d := range [...]string{"/dev/shm/", "/tmp/", "/var/tmp/", "/run/lock/", "/dev/mqueue/"} {
		if strings.HasPrefix(path, d) {
			return d[:len(d)-1]
		}
	}
	return ""
}

// hidden says whether the file, or a folder on its way, has a name that ls leaves out.
func hidden(path string) bool { return strings.Contains(path, "/.") }

func clean(path string) string { return filepath.Clean(strings.Clone(path)) }
