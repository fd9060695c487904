package guard

import (
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
	"golang.org/x/sys/unix"
)

// File is one file of a host as the rails compare it.
type File struct {
	Path   string // every symbolic link resolved
	Inode  uint64
	Device uint64 // as stat(2) gives it
}

// Process is one process of a host as the rails compare it.
type Process struct {
	PID    uint32
	Kernel bool // a kernel thread
	Exe    File // Path may end in " (deleted)"
}

// Host is the view of a host's files and processes that the rails need.
type Host interface {
	// File finds path; ok is false where it is not there.
	File(path string) (f File, ok bool)
	// Glob gives the paths that match a pattern of path/filepath.
	Glob(pattern string) []string
	// Hash is the SHA-256 of a file in hex, "" of what is no regular file; ok is false where it cannot be read.
	Hash(path string) (sum string, ok bool)
	// Self is this program's own executable, and its process with that of its other half.
	Self() (exe File, pids []uint32)
	// Process finds a process, and its descendants when asked; ok is false where it cannot be looked at.
	Process(pid uint32, tree bool) (p []Process, ok bool)
}

// essential is what a host cannot do without: a full path each, or a pattern of one. A name alone protects nothing: else
// an attacker would call its file sshd.
var essential = []struct {
	rail     string
	folders  []string
	programs []string
}{
	{RailInit, []string{"/sbin", "/usr/sbin", "/bin", "/usr/bin", "/lib/systemd", "/usr/lib/systemd"}, []string{"init", "systemd", "openrc-init", "runit", "tini"}},
	{RailSSH, []string{"/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/lib/openssh", "/usr/libexec/openssh"}, []string{"sshd", "sshd-session", "sshd-auth", "dropbear"}},
	{RailLoader, []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/lib/*-linux-gnu*", "/usr/lib/*-linux-gnu*"}, []string{"ld-linux*.so*", "ld-musl-*.so*", "ld-*.so", "libc.so.6", "libc.musl-*.so*"}},
	{RailShell, []string{"/bin", "/usr/bin", "/usr/local/bin"}, []string{"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "busybox"}},
	{RailPackage, []string{"/bin", "/usr/bin", "/sbin", "/usr/sbin"}, []string{"dpkg", "dpkg-*", "apt", "apt-*", "aptitude", "rpm", "dnf", "dnf-*", "yum", "microdnf", "zypper", "pacman", "apk", "snap", "flatpak", "nix", "nix-*"}},
	{RailPackage, []string{"/usr/lib/apt", "/usr/lib/apt/methods"}, []string{"*"}},
	// Without these nobody can log in, or the host does not start again.
	{RailSystem, []string{"/etc"}, []string{"passwd", "shadow", "group", "gshadow", "nsswitch.conf", "fstab", "sudoers"}},
	{RailSystem, []string{"/etc/pam.d"}, []string{"common-*", "system-auth", "login", "sshd", "su", "sudo"}},
	{RailSystem, []string{"/lib/*-linux-gnu*/security", "/usr/lib/*-linux-gnu*/security", "/usr/lib64/security"}, []string{"pam_unix.so", "pam_permit.so", "pam_deny.so"}},
	{RailSystem, []string{"/etc/ssh"}, []string{"sshd_config", "ssh_host_*_key"}},
	{RailSystem, []string{"/boot"}, []string{"vmlinuz*", "initrd*", "initramfs*"}},
}

func (g *Rails) checkFile(t event.Target) (rail, why string) {
	if t.SHA256 != "" {
		if t.Path != "" || t.Inode != 0 {
			return RailTarget, "a file is named by its hash or by its path, not by both"
		}
		return g.checkHash(t.SHA256)
	}
	if t.Path != "" && (!filepath.IsAbs(t.Path) || strings.ContainsRune(t.Path, 0)) {
		return RailTarget, fmt.Sprintf("%.120q is not an absolute path", t.Path)
	}
	wanted := File{Path: filepath.Clean(t.Path), Inode: t.Inode, Device: t.Device}
	if t.Path == "" {
		wanted.Path = ""
	}
	if rail, path := g.essentialFile(wanted); rail != "" {
		return rail, fmt.Sprintf("it is %s", path)
	}
	if t.Path == "" {
		return "", ""
	}
	if f, ok := g.host.File(t.Path); ok {
		if rail, path := g.essentialFile(f); rail != "" {
			return rail, fmt.Sprintf("%s is %s", t.Path, path)
		}
	}
	return "", ""
}

// neverHeld are folders that a host cannot live without writing to, or that hold everything: what is in them may be held, each by itself.
var neverHeld = [...]string{"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var",
	"/var/cache", "/var/lib", "/var/log", "/var/run", "/var/spool", "/var/tmp"}

// checkWrite is of a denial of writing.
func (g *Rails) checkWrite(r event.Response, automatic bool) (rail, why string) {
	t := r.Target
	path := t.Write
	t.Write = ""
	switch {
	case r.Action != event.ActionDeny || t != event.Target{}:
		return RailTarget, "writing is denied to one path, and nothing else besides"
	case automatic:
		return RailAuthority, "writing is denied by a person's word only"
	case !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsRune(path, 0):
		return RailTarget, fmt.Sprintf("%.120q is no clean absolute path", path)
	}
	f, ok := g.host.File(path)
	if !ok {
		f = File{Path: path}
	}
	for _, one := range [...]File{{Path: path}, f} {
		if slices.Contains(neverHeld[:], one.Path) {
			return RailSystem, fmt.Sprintf("%s is more than can be held: name what is in it", one.Path)
		}
		if rail, path := g.spared(one); rail != "" {
			return rail, fmt.Sprintf("it is %s", path)
		}
	}
	return "", ""
}

// CheckHeld is asked of each file that was opened, before writing to it is denied; f is as for CheckOpened.
func (g *Rails) CheckHeld(f File) (rail, why string) {
	if f.Inode == 0 || f.Device == 0 || !filepath.IsAbs(f.Path) {
		return RailTarget, fmt.Sprintf("%.120q cannot be checked", f.Path)
	}
	if rail, path := g.spared(f); rail != "" {
		return rail, fmt.Sprintf("%.120q is %s", f.Path, path)
	}
	return "", ""
}

// checkHash holds a hash against what the protected files contain now. They are read only when a hash is to be denied. One
// that cannot be read is not known to be safe, so the hash is refused.
func (g *Rails) checkHash(hash string) (rail, why string) {
	if sum, err := hex.DecodeString(hash); err != nil || len(sum) != 32 {
		return RailTarget, fmt.Sprintf("%.80q is no SHA-256", hash)
	}
	g.mu.RLock()
	paths := g.paths
	g.mu.RUnlock()
	self, _ := g.host.Self()
	rails, files := []string{RailSelf}, []string{self.Path}
	for _, p := range paths {
		rails, files = append(rails, RailAllow), append(files, p)
	}
	for _, e := range essential {
		for _, folder := range e.folders {
			for _, program := range e.programs {
				found := []string{folder + "/" + program}
				if strings.ContainsRune(found[0], '*') {
					found = g.host.Glob(found[0])
				}
				for _, p := range found {
					rails, files = append(rails, e.rail), append(files, p)
				}
			}
		}
	}
	read := map[File]bool{}
	for i, p := range files {
		f, ok := g.host.File(p)
		if !ok || read[f] {
			continue
		}
		read[f] = true
		have, ok := g.host.Hash(f.Path)
		if !ok {
			return RailTarget, fmt.Sprintf("%s cannot be read: the hash may be of it", f.Path)
		}
		if strings.EqualFold(have, hash) {
			return rails[i], "it is the hash of " + f.Path
		}
	}
	return "", ""
}

// CheckOpened is asked of a file that was opened, before it is acted on: a path may lead to another file by then. f is by
// its resolved path, its inode and its device.
func (g *Rails) CheckOpened(f File) (rail, why string) {
	if f.Inode == 0 || f.Device == 0 || !filepath.IsAbs(f.Path) {
		return RailTarget, fmt.Sprintf("%.120q cannot be checked", f.Path)
	}
	if rail, path := g.essentialFile(f); rail != "" {
		return rail, fmt.Sprintf("%.120q is %s", f.Path, path)
	}
	return "", ""
}

func (g *Rails) checkProcess(t event.Target) (rail, why string) {
	if t.PID == 1 {
		return RailInit, "pid 1"
	}
	self, pids := g.host.Self()
	procs, ok := g.host.Process(t.PID, t.Tree)
	if !ok || len(procs) == 0 {
		return RailTarget, fmt.Sprintf("process %d cannot be looked at", t.PID)
	}
	for i, p := range procs {
		switch {
		case p.PID == 1:
			return RailInit, "pid 1"
		case p.Kernel:
			return RailKernel, fmt.Sprintf("process %d is a kernel thread", p.PID)
		case slices.Contains(pids, p.PID) || same(p.Exe, self):
			return RailSelf, fmt.Sprintf("process %d is omega", p.PID)
		}
		exe := p.Exe
		exe.Path = strings.TrimSuffix(exe.Path, " (deleted)")
		rail, path := g.essentialFile(exe)
		// A shell below the root of a tree is that tree's own: what a killed program had started.
		if rail != "" && (i == 0 || rail != RailShell) {
			return rail, fmt.Sprintf("process %d runs %s", p.PID, path)
		}
	}
	return "", ""
}

// essentialFile says which rail protects f, by its path or by its inode on its device, and as what.
func (g *Rails) essentialFile(f File) (rail, path string) {
	if rail, path := g.spared(f); rail != "" {
		return rail, path
	}
	return g.system(f)
}

// spared says whether f is omega itself, or on the allow list.
func (g *Rails) spared(f File) (rail, path string) {
	if self, _ := g.host.Self(); same(f, self) {
		return RailSelf, self.Path
	}
	g.mu.RLock()
	paths := g.paths
	g.mu.RUnlock()
	for _, a := range paths {
		if f.Path == a || a != "/" && strings.HasPrefix(f.Path, a+"/") || a == "/" && f.Path != "" {
			return RailAllow, a
		}
		if have, ok := g.host.File(a); ok && (same(f, have) || strings.HasPrefix(f.Path, have.Path+"/")) {
			return RailAllow, a
		}
	}
	return "", ""
}

// system says whether a host needs f to be run, logged in to, or started again.
func (g *Rails) system(f File) (rail, path string) {
	for _, e := range essential {
		for _, folder := range e.folders {
			for _, program := range e.programs {
				pattern := folder + "/" + program
				if match, err := filepath.Match(pattern, f.Path); err == nil && match {
					return e.rail, f.Path
				}
				found := []string{pattern}
				if strings.ContainsRune(pattern, '*') {
					found = g.host.Glob(pattern)
				}
				for _, p := range found {
					if have, ok := g.host.File(p); ok && same(f, have) {
						return e.rail, p
					}
				}
			}
		}
	}
	return "", ""
}

// same compares by path and by inode. A device of 0 is unknown and matches any; the kernel half may give a device as the
// kernel packs it (20 bits of minor) rather than as stat(2) does.
func same(a, b File) bool {
	if a.Path != "" && a.Path == b.Path {
		return true
	}
	if a.Inode == 0 || a.Inode != b.Inode {
		return false
	}
	if a.Device == 0 || b.Device == 0 || a.Device == b.Device {
		return true
	}
	packed := func(d uint64) uint64 { return uint64(unix.Major(d))<<20 | uint64(unix.Minor(d)) }
	return a.Device == packed(b.Device) || packed(a.Device) == b.Device
}
