// Package facts reads what the kernel says of its own state: whether something put it out of its makers' warranty, what it
// still lets root do to it, which programs it starts by itself, and whether a module hides. A rootkit in the kernel can lie
// about each of them; one that forgets any of them is seen. The facts enter the data's way as events beside those of the
// sensors: each once at the start, and again whenever it changes.
package facts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Every is the time between two looks: files of a few bytes, a dozen of them.
const Every = time.Minute

// Bounds of what is read: bytes of one fact, and modules looked at.
const (
	maxValue   = 256
	maxModules = 4096
)

// Fact is one, as the kernel gives it.
type Fact struct {
	Name  string // "kernel.tainted"
	Path  string // of the file it comes from
	Value string // one line, at most 256 bytes
}

// files are the facts that are a file each: a table, never changed. See Documentation/admin-guide/sysctl of the kernel.
var files = [...]struct{ name, path string }{
	{"kernel.core_pattern", "proc/sys/kernel/core_pattern"}, // a program it begins with | is started as root outside every container
	{"kernel.ftrace_enabled", "proc/sys/kernel/ftrace_enabled"},
	{"kernel.kexec_load_disabled", "proc/sys/kernel/kexec_load_disabled"},
	{"kernel.kexec_loaded", "sys/kernel/kexec_loaded"},
	{"kernel.kptr_restrict", "proc/sys/kernel/kptr_restrict"},
	{"kernel.lockdown", "sys/kernel/security/lockdown"},
	{"kernel.modprobe", "proc/sys/kernel/modprobe"}, // started as root for an unknown kind of file, socket or device
	{"kernel.modules_disabled", "proc/sys/kernel/modules_disabled"},
	{"kernel.poweroff_cmd", "proc/sys/kernel/poweroff_cmd"},
	{"kernel.randomize_va_space", "proc/sys/kernel/randomize_va_space"},
	{"kernel.suid_dumpable", "proc/sys/fs/suid_dumpable"},
	{"kernel.tainted", "proc/sys/kernel/tainted"},
	{"kernel.unprivileged_bpf_disabled", "proc/sys/kernel/unprivileged_bpf_disabled"},
	{"kernel.yama.ptrace_scope", "proc/sys/kernel/yama/ptrace_scope"},
}

// HiddenModules names the fact that lists modules which are in sysfs and not in /proc/modules, by name.
const HiddenModules = "kernel.modules.hidden"

// Read gives what can be read below root, "/" on a host, in the order of names. What this kernel does not have, or does
// not tell this user, is left out.
func Read(root string) []Fact {
	var out []Fact
	for _, f := range files {
		raw, err := readSome(filepath.Join(root, f.path), maxValue)
		if err != nil {
			continue
		}
		line, _, _ := strings.Cut(strings.TrimSpace(string(raw)), "\n")
		out = append(out, Fact{f.name, "/" + f.path, line})
	}
	if hidden, err := hiddenModules(root); err == nil {
		out = append(out, Fact{HiddenModules, "/proc/modules", strings.Join(hidden, " ")})
	}
	slices.SortFunc(out, func(a, b Fact) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func readSome(path string, most int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, most)
	n, err := f.Read(b)
	if n > 0 {
		return b[:n], nil
	}
	return nil, err
}

// hiddenModules are those that have a state in sysfs and are not in the kernel's own list. One that is just being loaded
// or removed is in neither or both by the second look.
func hiddenModules(root string) ([]string, error) {
	hidden, err := unlisted(root)
	if err != nil || len(hidden) == 0 {
		return nil, err
	}
	again, err := unlisted(root)
	return slices.DeleteFunc(hidden, func(m string) bool { return !slices.Contains(again, m) }), err
}

func unlisted(root string) ([]string, error) {
	list, err := os.ReadFile(filepath.Join(root, "proc/modules"))
	if err != nil {
		return nil, err
	}
	listed := map[string]bool{}
	for line := range strings.Lines(string(list)) {
		name, _, _ := strings.Cut(line, " ")
		listed[name] = true
	}
	dir, err := os.Open(filepath.Join(root, "sys/module"))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxModules)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range names {
		if listed[name] {
			continue
		}
		// What is built in has a folder as well, and no state.
		if _, err := os.Stat(filepath.Join(root, "sys/module", name, "initstate")); err == nil {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// taints are the letters of kernel.tainted, bit by bit (Documentation/admin-guide/tainted-kernels.rst).
const taints = "PFSRMBUDAWCIOELKXTN"

// Taint gives kernel.tainted in letters, "" for none: O is a module from outside the kernel's tree, E one without a
// signature, F one that was forced in.
func Taint(value string) string {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return "?"
	}
	var b strings.Builder
	for i := range 64 {
		if n>>i&1 == 0 {
			continue
		}
		if i < len(taints) {
			b.WriteByte(taints[i])
		} else {
			fmt.Fprintf(&b, "(bit %d)", i)
		}
	}
	return b.String()
}

// Sensor gives facts as events. It implements the contract of the other sensors.
type Sensor struct {
	root   string
	every  time.Duration
	given  atomic.Uint64
	bootNS func() uint64
}

// New makes a sensor over root, "/" on a host, that looks each time; boot gives nanoseconds of CLOCK_BOOTTIME.
func New(root string, every time.Duration, boot func() uint64) *Sensor {
	return &Sensor{root: root, every: every, bootNS: boot}
}

// Name implements Sensor.
func (s *Sensor) Name() string { return "facts" }

// Drops implements Sensor: it loses none.
func (s *Sensor) Drops() map[string]uint64 { return nil }

// Run implements Sensor: out is called with every fact once, and then with each that changed, until ctx ends. Of a fact
// that is gone the value is empty.
func (s *Sensor) Run(ctx context.Context, out func(*event.Event)) error {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	known := map[string]Fact{}
	var e event.Event
	tell := func(f Fact, first bool) {
		e = event.Event{Time: time.Now().UnixNano(), Boot: s.bootNS(), Sensor: "facts", Class: event.ClassKernel, Activity: event.ActivityKernelFact,
			File: event.File{Path: f.Path, Other: f.Value}, Access: event.Access{Operation: f.Name}}
		if first {
			e.Process.Flags = event.FlagBeforeAgent
		}
		if n, err := strconv.ParseUint(f.Value, 10, 64); err == nil {
			e.Access.Number = n
		}
		s.given.Add(1)
		out(&e)
	}
	for first := true; ; first = false {
		now := map[string]bool{}
		for _, f := range Read(s.root) {
			now[f.Name] = true
			if old, ok := known[f.Name]; !ok || old.Value != f.Value {
				known[f.Name] = f
				tell(f, first)
			}
		}
		for name, f := range known {
			if !now[name] {
				delete(known, name)
				f.Value = ""
				tell(f, false)
			}
		}
		select {
		case <-ctx.Done():
			if err := ctx.Err(); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		case <-tick.C:
		}
	}
}
