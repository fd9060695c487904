package sigma

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/fields"
)

// read gives a field of one of our own events: as text that is there already, or appended to buf. Several values are
// joined by NUL.
type read func(e *event.Event, buf []byte) (text string, made []byte)

// reader is how a slot is read from our own events; nil where they do not have it.
func reader(slot string) read {
	if name, ok := strings.CutPrefix(slot, auditdSpace); ok {
		return auditd(name)
	}
	switch slot {
	case "":
		return nil
	case "User": // rules name it, events number it
		return func(e *event.Event, buf []byte) (string, []byte) {
			if e.Process.UID == 0 {
				return "root", buf
			}
			return "", strconv.AppendUint(buf, uint64(e.Process.UID), 10)
		}
	case "query", "record_type", "answer": // of category dns
		slot = map[string]string{"query": "dns_name", "record_type": "dns_type", "answer": "answers"}[slot]
	case "CommandLine":
		return func(e *event.Event, buf []byte) (string, []byte) { return "", appendWords(buf, e.Process.Args) }
	}
	f, ok := fields.Find(slot)
	if !ok {
		return nil
	}
	switch {
	case f.Text != nil:
		return func(e *event.Event, buf []byte) (string, []byte) { return f.Text(e), buf }
	case f.Number != nil:
		return func(e *event.Event, buf []byte) (string, []byte) { return "", strconv.AppendUint(buf, f.Number(e), 10) }
	case f.Address != nil:
		return func(e *event.Event, buf []byte) (string, []byte) { return "", appendAddress(buf, f.Address(e)) }
	}
	return func(e *event.Event, buf []byte) (string, []byte) {
		for bits, i := f.Bits(e), 0; bits != 0 && i < len(f.Names); bits, i = bits>>1, i+1 {
			if bits&1 != 0 {
				buf = append(append(buf, f.Names[i]...), 0)
			}
		}
		return "", buf
	}
}

func appendAddress(buf []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return buf
	}
	return a.AppendTo(buf)
}

// appendWords joins arguments by spaces.
func appendWords(buf []byte, args string) []byte {
	args = strings.TrimRight(args, "\x00")
	for {
		i := strings.IndexByte(args, 0)
		if i < 0 {
			return append(buf, args...)
		}
		buf = append(append(buf, args[:i]...), ' ')
		args = args[i+1:]
	}
}

// word is argument n, from 0.
func word(args string, n int) string {
	args = strings.TrimRight(args, "\x00")
	for ; n > 0; n-- {
		i := strings.IndexByte(args, 0)
		if i < 0 {
			return ""
		}
		args = args[i+1:]
	}
	s, _, _ := strings.Cut(args, "\x00")
	return s
}

// auditd reads a field as auditd's records have it. One of our events stands for all the records auditd writes of a call
// (SYSCALL, EXECVE, PATH), so that its type is each of them.
func auditd(name string) read {
	if n, ok := strings.CutPrefix(name, "a"); ok && len(n) == 1 && n[0] >= '0' && n[0] <= '9' {
		return func(e *event.Event, buf []byte) (string, []byte) {
			if e.Activity != event.ActivityExec {
				return "", buf
			}
			return word(e.Process.Args, int(n[0]-'0')), buf
		}
	}
	number := func(f func(*event.Event) uint32) read {
		return func(e *event.Event, buf []byte) (string, []byte) {
			return "", strconv.AppendUint(buf, uint64(f(e)), 10)
		}
	}
	switch name {
	case "type":
		return func(e *event.Event, buf []byte) (string, []byte) { return auditdType(e), buf }
	case "SYSCALL", "syscall":
		return func(e *event.Event, buf []byte) (string, []byte) { return auditdCall(e), buf }
	case "exe":
		return func(e *event.Event, buf []byte) (string, []byte) { return e.Process.Exe, buf }
	case "comm":
		return func(e *event.Event, buf []byte) (string, []byte) { return e.Process.Comm, buf }
	case "cwd":
		return func(e *event.Event, buf []byte) (string, []byte) { return e.Process.CWD, buf }
	case "name":
		return func(e *event.Event, buf []byte) (string, []byte) {
			if e.Activity == event.ActivityExec {
				return e.Process.Exe, buf
			}
			return e.File.Path, buf
		}
	case "nametype":
		return func(e *event.Event, buf []byte) (string, []byte) {
			switch e.Activity {
			case event.ActivityFileCreate, event.ActivityFileLink:
				return "CREATE", buf
			case event.ActivityFileUnlink, event.ActivityFileRename:
				return "DELETE", buf
			case event.ActivityFileWrite, event.ActivityFileChmod, event.ActivityFileChown, event.ActivityFileSetXattr, event.ActivityExec:
				return "NORMAL", buf
			}
			return "", buf
		}
	case "unit":
		return func(e *event.Event, buf []byte) (string, []byte) { return e.Process.Unit, buf }
	case "pid":
		return number(func(e *event.Event) uint32 { return e.Process.Key.PID })
	case "ppid":
		return number(func(e *event.Event) uint32 { return e.Process.Parent.PID })
	case "uid":
		return number(func(e *event.Event) uint32 { return e.Process.UID })
	case "euid":
		return number(func(e *event.Event) uint32 { return e.Process.EUID })
	case "gid":
		return number(func(e *event.Event) uint32 { return e.Process.GID })
	case "egid":
		return number(func(e *event.Event) uint32 { return e.Process.EGID })
	case "auid":
		return number(func(e *event.Event) uint32 { return e.Process.LoginUID })
	case "success":
		return func(e *event.Event, buf []byte) (string, []byte) {
			if e.Result == 0 {
				return "yes", buf
			}
			return "no", buf
		}
	}
	return nil
}

func auditdType(e *event.Event) string {
	switch e.Class {
	case event.ClassProcess:
		if e.Activity == event.ActivityExec {
			return "EXECVE\x00SYSCALL\x00PATH\x00CWD\x00PROCTITLE"
		}
		return "SYSCALL"
	case event.ClassFile:
		return "PATH\x00SYSCALL\x00CWD"
	case event.ClassKernel:
		if e.Activity == event.ActivityModuleLoad {
			return "KERN_MODULE\x00SYSCALL"
		}
		return "SYSCALL"
	case event.ClassNetwork:
		return "SYSCALL\x00SOCKADDR"
	case event.ClassMemory:
		return "SYSCALL"
	case event.ClassAuthentication:
		switch e.Activity {
		case event.ActivityAccount:
			return "ADD_USER\x00USER_MGMT"
		case event.ActivityServiceStart:
			return "SERVICE_START"
		case event.ActivityServiceStop:
			return "SERVICE_STOP"
		case event.ActivitySudo:
			return "USER_CMD"
		}
		return "USER_AUTH\x00USER_LOGIN"
	}
	return ""
}

// auditdCalls are the system calls an activity may have been; a rule names one of them.
var auditdCalls = map[event.Activity]string{
	event.ActivityExec: "execve\x00execveat\x0059", event.ActivityFileUnlink: "unlink\x00unlinkat\x00rmdir\x00unlinkat", event.ActivityFileRename: "rename\x00renameat\x00renameat2",
	event.ActivityFileChmod: "chmod\x00fchmod\x00fchmodat", event.ActivityFileChown: "chown\x00fchown\x00fchownat\x00lchown", event.ActivityFileSetXattr: "setxattr\x00fsetxattr\x00lsetxattr",
	event.ActivityFileCreate: "open\x00openat\x00creat\x00mkdir\x00mkdirat", event.ActivityFileWrite: "open\x00openat\x00openat2", event.ActivityFileLink: "link\x00linkat\x00symlink\x00symlinkat",
	event.ActivityMount: "mount", event.ActivityUnmount: "umount2", event.ActivityPivotRoot: "pivot_root", event.ActivityPtrace: "ptrace", event.ActivityProcessWrite: "process_vm_writev",
	event.ActivitySetUID: "setuid\x00setreuid\x00setresuid", event.ActivitySetGID: "setgid\x00setregid\x00setresgid", event.ActivityCapSet: "capset", event.ActivityMemfdCreate: "memfd_create",
	event.ActivityMemoryExecutable: "mprotect\x00mmap", event.ActivityUnshare: "unshare", event.ActivitySetNS: "setns", event.ActivityKeyctl: "keyctl", event.ActivityModuleLoad: "init_module\x00finit_module",
	event.ActivityModuleUnload: "delete_module", event.ActivityBPF: "bpf", event.ActivityConnect: "connect", event.ActivityAccept: "accept\x00accept4", event.ActivityListen: "listen", event.ActivityBind: "bind",
	event.ActivityRawSocket: "socket", event.ActivitySignal: "kill\x00tgkill\x00tkill",
}

func auditdCall(e *event.Event) string { return auditdCalls[e.Activity] }
