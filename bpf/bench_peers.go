package bpf

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Rounds of lifeBesideBpftrace: each measures with neither, with ours and with bpftrace, one after the other.
const (
	peerRounds  = 3
	peerBatches = 3
	peerBatch   = 100 // processes
)

// bpftraceScript has bpftrace tell of a process's life what its examples do, and less than ours: who forked whom, what was
// executed by whom with which arguments, and how it ended.
const bpftraceScript = `tracepoint:sched:sched_process_fork { printf("fork %d %d\n", args->parent_pid, args->child_pid); }
tracepoint:syscalls:sys_enter_execve { printf("exec %d %d ", pid, uid); join(args->argv); }
tracepoint:sched:sched_process_exec { printf("image %d %s\n", pid, str(args->filename)); }
tracepoint:sched:sched_process_exit { printf("exit %d %s\n", pid, comm); }`

// watching runs f while somebody watches; cpu is the processor time of who does, beside that of what is watched.
type watching func(f func(cpu func() time.Duration) error) error

// beside is what we add to what measure measures over what a peer adds to it. What else runs on the machine only adds: the least
// of all rounds is what is compared.
func beside(us, peer watching, measure func(cpu func() time.Duration) (float64, error)) (ratio float64, err error) {
	least := [3]float64{math.Inf(1), math.Inf(1), math.Inf(1)}
	for range peerRounds {
		for i, watch := range []watching{byNobody, us, peer} {
			if err := watch(func(cpu func() time.Duration) error {
				one, err := measure(cpu)
				least[i] = min(least[i], one)
				return err
			}); err != nil {
				return 0, err
			}
		}
	}
	if least[2] <= least[0] {
		return 0, errors.New("the machine is too busy: what the other adds is lost in it")
	}
	return (least[1] - least[0]) / (least[2] - least[0]), nil
}

// lifeBesideBpftrace is what our sensor of processes adds to the processor time of one process's fork, exec and exit, the
// reading of the records included, over what bpftrace adds.
func lifeBesideBpftrace() (ratio float64, err error) {
	if _, err := exec.LookPath("bpftrace"); err != nil {
		return 0, fmt.Errorf("bpftrace is compared with where it is installed: %w", err)
	}
	return beside(byUs, byBpftrace, lives)
}

// lifeBesideAuditd is the same over what auditd adds that logs who forks, executes and ends.
func lifeBesideAuditd() (ratio float64, err error) {
	return beside(byUs, byAuditd("clone", "clone3", "fork", "vfork", "execve", "execveat", "exit_group"), lives)
}

// lifeBesideSysdig is the same over what sysdig adds that captures the same calls.
func lifeBesideSysdig() (ratio float64, err error) { return beside(byUs, bySysdig, lives) }

// flowBesideAuditd is what our sensors of connections and names add to the processor time of one connection's connect, accept and
// close over what auditd adds that logs who connects and accepts, and neither names nor bytes nor ends.
func flowBesideAuditd() (ratio float64, err error) {
	us := func(f func(func() time.Duration) error) error {
		return sensing([]string{"sensor/network", "sensor/names"}, func(_ *Kernel, cpu func() time.Duration) error { return f(cpu) })
	}
	err = onLoopback(func(listener int, address unix.Sockaddr) (err error) {
		ratio, err = beside(us, byAuditd("connect", "accept", "accept4"), func(func() time.Duration) (float64, error) {
			batches, err := connections(nil, listener, address)
			if err != nil {
				return 0, err
			}
			return quietest(batches), nil
		})
		return err
	})
	return ratio, err
}

// byNobody runs f while nobody watches.
func byNobody(f func(cpu func() time.Duration) error) error {
	return f(func() time.Duration { return 0 })
}

// lives is the processor time of one process's life in microseconds, with its share of cpu: the least of batches.
func lives(cpu func() time.Duration) (float64, error) {
	least := math.Inf(1)
	for range peerBatches {
		before := cpu()
		cmd := exec.Command("/bin/sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do /bin/true; i=$((i+1)); done", peerBatch))
		if err := cmd.Run(); err != nil {
			return 0, fmt.Errorf("make load: %w", err)
		}
		time.Sleep(2 * pollIdle) // the last of it is read
		used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime() + cpu() - before
		least = min(least, float64(used.Nanoseconds())/1000/peerBatch)
	}
	return least, nil
}

// byUs runs f while our sensor of processes watches the host.
func byUs(f func(cpu func() time.Duration) error) error {
	return sensing([]string{"sensor/process"}, func(_ *Kernel, cpu func() time.Duration) error { return f(cpu) })
}

// byBpftrace runs f while bpftrace does.
func byBpftrace(f func(cpu func() time.Duration) error) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// It wants tracefs where it always was; a mount in a namespace of its own is nobody else's.
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `[ -e /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing
[ -e /sys/kernel/debug/tracing ] || mount -t debugfs debugfs /sys/kernel/debug
exec bpftrace -e "$0"`, bpftraceScript)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start bpftrace: %w", err)
	}
	if err := watchedBy(cmd, out, "Attaching", f); err != nil {
		return fmt.Errorf("bpftrace: %w: %.200s", err, strings.TrimSpace(said.String()))
	}
	return nil
}

// watchedBy runs f once cmd, which was started, has told of something on out, and ends it. Lines that begin with preface tell of nothing.
func watchedBy(cmd *exec.Cmd, out io.Reader, preface string, f func(cpu func() time.Duration) error) (err error) {
	told, drained := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drained)
		first := sync.OnceFunc(func() { close(told) })
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if line := lines.Text(); line != "" && (preface == "" || !strings.HasPrefix(line, preface)) {
				first()
			}
		}
	}()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for waiting := true; waiting; {
		select {
		case <-told:
			waiting = false
			err = f(func() time.Duration { return processTime(cmd.Process.Pid) })
		case <-drained:
			waiting = false
			err = errors.New("it does not start")
		case <-ticker.C:
			_ = exec.Command("/bin/true").Run() // something to tell of
		}
	}
	_ = cmd.Process.Signal(os.Interrupt)
	<-drained
	return errors.Join(err, cmd.Wait())
}

// processTime is what a process of one thread used of the processors so far; 0 once it is gone.
func processTime(pid int) time.Duration {
	var used int64
	b, err := readBounded(fmt.Sprintf("/proc/%d/schedstat", pid), 256)
	if err == nil {
		_, err = fmt.Sscan(string(b), &used)
	}
	if err != nil {
		return 0
	}
	return time.Duration(used)
}

// auditdConf has auditd write what it is told as it comes, as its default does.
const auditdConf = `local_events = yes
write_logs = yes
log_file = %[1]s/audit.log
log_format = RAW
flush = INCREMENTAL_ASYNC
freq = 50
max_log_file = 64
num_logs = 2
max_log_file_action = ROTATE
space_left = 75
space_left_action = IGNORE
admin_space_left = 50
admin_space_left_action = IGNORE
disk_full_action = IGNORE
disk_error_action = IGNORE
plugin_dir = %[1]s/plugins
`

// byAuditd runs f while auditd logs these system calls. It wants a host whose audit is off and has no rules, and leaves one: but
// Linux prepares each later process for an audit once there was one, until it boots, which takes some ns a system call.
func byAuditd(calls ...string) watching {
	return func(f func(cpu func() time.Duration) error) (err error) {
		for _, program := range []string{"auditd", "auditctl"} {
			if _, err := exec.LookPath(program); err != nil {
				return fmt.Errorf("auditd is compared with where it is installed: %w", err)
			}
		}
		control := func(args ...string) (string, error) {
			out, err := exec.Command("auditctl", args...).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("auditctl %s: %w: %.200s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
			}
			return string(out), err
		}
		status, err := control("-s")
		if err != nil {
			return err
		}
		rules, err := control("-l")
		if err != nil {
			return err
		}
		if !strings.Contains(status, "enabled 0\n") || !strings.Contains(status, "pid 0\n") || !strings.HasPrefix(rules, "No rules") {
			return errors.New("this host's audit is in use, and is left alone")
		}
		dir, err := os.MkdirTemp("", "omega-auditd-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if err := errors.Join(os.Mkdir(filepath.Join(dir, "plugins"), 0o750), os.WriteFile(filepath.Join(dir, "auditd.conf"), fmt.Appendf(nil, auditdConf, dir), 0o640)); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var said strings.Builder
		cmd := exec.CommandContext(ctx, "auditd", "-n", "-s", "enable", "-c", dir)
		cmd.Stderr, cmd.Stdout = &said, &said
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = 5 * time.Second
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("start auditd: %w", err)
		}
		defer func() {
			_, off := control("-e", "0")
			_, clean := control("-D")
			_ = cmd.Process.Signal(unix.SIGTERM)
			_ = cmd.Wait()
			_, size := control("-b", "64")
			err = errors.Join(err, off, clean, size)
		}()
		mine := fmt.Sprintf("pid %d\n", cmd.Process.Pid)
		for range 100 {
			if status, err = control("-s"); err != nil || strings.Contains(status, mine) {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if err == nil && !strings.Contains(status, mine) {
			err = fmt.Errorf("auditd does not start: %.200s", strings.TrimSpace(said.String()))
		}
		if err != nil {
			return err
		}
		args := []string{"-a", "always,exit", "-F", "arch=b64"}
		for _, c := range calls {
			args = append(args, "-S", c)
		}
		if _, err := control("-b", "65536"); err != nil { // it must not lose what it is measured by
			return err
		}
		if _, err := control(args...); err != nil {
			return err
		}
		if err := f(func() time.Duration { return processTime(cmd.Process.Pid) }); err != nil {
			return err
		}
		if log, err := os.Stat(filepath.Join(dir, "audit.log")); err != nil || log.Size() < 10_000 {
			return fmt.Errorf("auditd logged nothing: %v", err)
		}
		return nil
	}
}

// bySysdig runs f while sysdig captures what happens to processes.
func bySysdig(f func(cpu func() time.Duration) error) error {
	if _, err := exec.LookPath("sysdig"); err != nil {
		return fmt.Errorf("sysdig is compared with where it is installed: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var said strings.Builder
	cmd := exec.CommandContext(ctx, "sysdig", "-p", "%evt.type %proc.pid %proc.exeline", "evt.type in (clone, fork, vfork, execve, procexit)")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start sysdig: %w", err)
	}
	if err := watchedBy(cmd, out, "", f); err != nil {
		return fmt.Errorf("sysdig: %w: %.200s", err, strings.Join(strings.Fields(said.String()), " "))
	}
	return nil
}
