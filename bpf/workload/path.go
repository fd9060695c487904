package workload

import (
	"strings"
)

// Bounds of what is read.
const (
	maxPath = 4096
	maxName = 128 // bytes of a container's or a unit's name
)

// Identity is what a process belongs to; what is not known is empty.
type Identity struct {
	Container string // the runtime's id: 64 hexadecimal digits, or a name (LXC, nspawn)
	Unit      string // the host's systemd unit
	Image     string
	Pod       string // namespace/name
}

// Parse reads the path of a cgroup, of any hierarchy and as any of Docker, Podman, containerd, CRI-O, nerdctl, Kubernetes,
// ECS, LXC and systemd-nspawn name it, by cgroupfs or by systemd. Of containers within containers it gives the innermost;
// the unit is the innermost of the host's, above any container.
func Parse(path string) (id Identity) {
	if len(path) > maxPath {
		return id
	}
	path = strings.TrimSuffix(path, " (deleted)")
	inside := false // a container's own systemd has units too
	for parent := ""; path != ""; {
		var part string
		part, path, _ = strings.Cut(strings.TrimLeft(path, "/"), "/")
		unit, kind := unitOf(part)
		if !inside && unit != "" && kind != ".slice" && len(unit) <= maxName {
			id.Unit = unit
		}
		if c := containerOf(part, parent, unit, kind); c != "" {
			id.Container, inside = c, true
		}
		parent = part
	}
	return id
}

// unitOf gives a part of a path as a unit's name, with the suffix by itself; "" if it is none. An underscore before a
// name keeps it apart from the kernel's files (systemd's cg_escape).
func unitOf(part string) (name, suffix string) {
	name = strings.TrimPrefix(part, "_")
	for _, s := range [...]string{".service", ".scope", ".slice", ".mount", ".socket", ".swap"} {
		if len(name) > len(s) && strings.HasSuffix(name, s) {
			return name, s
		}
	}
	return "", ""
}

// containerOf gives the container that a part of a path is of.
func containerOf(part, parent, unit, suffix string) string {
	switch suffix {
	case ".scope":
		name := strings.TrimSuffix(unit, ".scope")
		if at := strings.LastIndexByte(name, '-'); at >= 0 && isID(name[at+1:]) && !strings.HasSuffix(name[:at], "conmon") {
			return name[at+1:] // docker-, cri-containerd-, crio-, libpod-, nerdctl-
		}
		if m, ok := strings.CutPrefix(name, "machine-"); ok && isName(m) {
			return strings.ReplaceAll(m, `\x2d`, "-") // systemd-nspawn, libvirt
		}
		return ""
	case "":
	default:
		return ""
	}
	if at := strings.LastIndexByte(part, '-'); isID(part[at+1:]) && !strings.HasSuffix(part[:max(at, 0)], "conmon") {
		return part[at+1:] // /docker/ID, /kubepods/pod…/ID, /libpod_parent/libpod-ID, /ecs/task/ID
	}
	if m, ok := strings.CutPrefix(part, "lxc.payload."); ok && isName(m) {
		return m
	}
	if parent == "lxc" && isName(part) {
		return part
	}
	return ""
}

// isID tells that s is an id as the runtimes make them.
func isID(s string) bool {
	if len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// isName tells that s may be the name of a container.
func isName(s string) bool {
	if s == "" || len(s) > maxName || s[0] == '.' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '/' {
			return false
		}
	}
	return true
}

// parseProc reads /proc/PID/cgroup (cgroups(7)): what the unified hierarchy says, and a container that an older one names.
// unified is the path in the unified hierarchy.
func parseProc(text string) (id Identity, unified string) {
	var container, unit string
	for line := range strings.Lines(text) {
		_, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 {
			continue
		}
		of := Parse(path)
		if controllers == "" {
			id, unified = of, strings.TrimSuffix(path, " (deleted)")
			continue
		}
		if container == "" {
			container = of.Container
		}
		if unit == "" && controllers == "name=systemd" {
			unit = of.Unit
		}
	}
	if id.Container == "" {
		id.Container = container
	}
	if id.Unit == "" {
		id.Unit = unit
	}
	return id, unified
}
