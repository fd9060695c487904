package bpf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// watchedCall is one system call of kernel/rights.c: which program reads its arguments, and what is lost without it.
type watchedCall struct {
	name      string
	number    uint32
	operation uint16
	enter     string
	lost      string
}

const (
	lostRights     = "changes of user, group and capabilities are not told, nor any gain of privilege"
	lostTrace      = "what processes do to each other's memory by this call is not seen"
	lostNamespaces = "who leaves or enters a namespace by this call is not seen"
	lostKeys       = "use of the kernel's keys by this call is not seen"
	lostModules    = "modules put into or taken out of the kernel by this call are not seen; a kernel without modules has none"
)

// watchedCalls is a table, never changed. The numbers are those of the architecture this is built for.
var watchedCalls = [...]watchedCall{
	{"setuid", unix.SYS_SETUID, opSetuid, "enter1", lostRights},
	{"setreuid", unix.SYS_SETREUID, opSetreuid, "enter2", lostRights},
	{"setresuid", unix.SYS_SETRESUID, opSetresuid, "enter3", lostRights},
	{"setfsuid", unix.SYS_SETFSUID, opSetfsuid, "enter1", lostRights},
	{"setgid", unix.SYS_SETGID, opSetgid, "enter1", lostRights},
	{"setregid", unix.SYS_SETREGID, opSetregid, "enter2", lostRights},
	{"setresgid", unix.SYS_SETRESGID, opSetresgid, "enter3", lostRights},
	{"setfsgid", unix.SYS_SETFSGID, opSetfsgid, "enter1", lostRights},
	{"setgroups", unix.SYS_SETGROUPS, opSetgroups, "enter2", lostRights},
	{"capset", unix.SYS_CAPSET, opCapset, "enter2", lostRights},
	{"ptrace", unix.SYS_PTRACE, opPtrace, "enter4", lostTrace},
	{"process_vm_writev", unix.SYS_PROCESS_VM_WRITEV, opProcessVMWritev, "enter4", lostTrace},
	{"memfd_create", unix.SYS_MEMFD_CREATE, opMemfdCreate, "enter2", "files without a name are seen only when they are executed"},
	{"memfd_secret", unix.SYS_MEMFD_SECRET, opMemfdSecret, "enter1", "memory hidden from the kernel is not seen"},
	{"unshare", unix.SYS_UNSHARE, opUnshare, "enter1", lostNamespaces},
	{"setns", unix.SYS_SETNS, opSetns, "enter2", lostNamespaces},
	{"keyctl", unix.SYS_KEYCTL, opKeyctl, "enter3", lostKeys},
	{"add_key", unix.SYS_ADD_KEY, opAddKey, "enter4", lostKeys},
	{"request_key", unix.SYS_REQUEST_KEY, opRequestKey, "enter4", lostKeys},
	{"init_module", unix.SYS_INIT_MODULE, opInitModule, "enter3", lostModules},
	{"finit_module", unix.SYS_FINIT_MODULE, opFinitModule, "enter3", lostModules},
	{"delete_module", unix.SYS_DELETE_MODULE, opDeleteModule, "enter2", lostModules},
	{"bpf", unix.SYS_BPF, opBPF, "enter3", "programs put into the kernel by others are not seen"},
}

const lostExecutable = "memory made executable by this call is not seen"

// memoryCalls have programs of their own, which say at once that most calls are nothing: every program maps its libraries.
var memoryCalls = [...]struct{ call, program string }{{"mmap", "on_mmap"}, {"mprotect", "on_mprotect"}, {"pkey_mprotect", "on_mprotect"}}

// programLost says what is lost where the kernel does not take one program.
var programLost = map[string]string{
	"enter1": lostRights, "enter2": lostRights, "enter3": lostRights, "enter4": lostTrace, "leave": lostRights,
	"on_mmap": lostExecutable, "on_mprotect": lostExecutable,
	"processes": "of processes that were before, only what /proc shows this user is known",
	"sockets":   "connections that were before are not known",
	"on_signal": "signals sent to the agent are not seen",
	"on_moved":  "it is not told when the agent is put into another cgroup",
	"on_uring":  "what is done by io_uring instead of system calls is not seen",
}

// attachRights puts each program where it belongs. What this kernel lacks is a check of its own; only where nothing could
// be attached is it an error.
func (k *Kernel) attachRights(c *ebpf.Collection) (string, error) {
	attached := 0
	var errs []error
	lack := func(name, lost string, err error) {
		errs = append(errs, err)
		k.checks = append(k.checks, Check{Name: "sensor/rights/" + name, Detail: err.Error(), Lost: lost})
	}
	for _, name := range []string{"on_signal", "on_uring"} {
		if p := c.Programs[name]; p != nil {
			l, err := link.AttachTracing(link.TracingOptions{Program: p})
			if err != nil {
				lack(name, programLost[name], err)
				continue
			}
			k.links = append(k.links, l)
			attached++
		}
	}
	points, err := openTracepoints()
	if err != nil {
		lack("syscalls", lostRights, err)
	} else {
		defer points.close()
		at := func(event, program string) error {
			p := c.Programs[program]
			if p == nil {
				return nil // said already, by program
			}
			l, err := points.attach(event, p)
			if err != nil {
				return err
			}
			k.links = append(k.links, l)
			attached++
			return nil
		}
		for i := range watchedCalls {
			w := &watchedCalls[i]
			if err := c.Maps["watched_calls"].Put(w.number, uint32(w.operation)); err != nil {
				return "", fmt.Errorf("name the call %s: %w", w.name, err)
			}
			err := at("sys_exit_"+w.name, "leave")
			if err == nil {
				err = at("sys_enter_"+w.name, w.enter)
			}
			if err != nil {
				lack(w.name, w.lost, err)
			}
		}
		for _, m := range memoryCalls {
			if err := at("sys_enter_"+m.call, m.program); err != nil {
				lack(m.call, lostExecutable, err)
			}
		}
	}
	if attached == 0 {
		return "", errors.Join(errs...)
	}
	lacking := []string{"tp_btf, a tracepoint a system call"}
	if n := len(errs); n > 0 {
		lacking = append(lacking, fmt.Sprintf("%d not to be had", n))
	}
	return strings.Join(lacking, "; "), nil
}
