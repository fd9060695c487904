package bpf

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
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

// lifeBesideBpftrace is what our sensor of processes adds to the processor time of one process's fork, exec and exit, the
// reading of the records included, over what bpftrace adds.
func lifeBesideBpftrace() (ratio float64, err error) {
	if _, err := exec.LookPath("bpftrace"); err != nil {
		return 0, fmt.Errorf("bpftrace is compared with where it is installed: %w", err)
	}
	// What else runs on the machine only adds: the least of all rounds is what is compared.
	least := [3]float64{math.Inf(1), math.Inf(1), math.Inf(1)}
	for range peerRounds {
		for i, watch := range []func(func(cpu func() time.Duration) error) error{byNobody, byUs, byBpftrace} {
			if err := watch(func(cpu func() time.Duration) error {
				one, err := lives(cpu)
				least[i] = min(least[i], one)
				return err
			}); err != nil {
				return 0, err
			}
		}
	}
	if least[2] <= least[0] {
		return 0, errors.New("the machine is too busy: what bpftrace adds is lost in it")
	}
	return (least[1] - least[0]) / (least[2] - least[0]), nil
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
	return sensing([]string{"sensor/process"}, f)
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
	lines := bufio.NewScanner(out)
	ready := lines.Scan() && strings.HasPrefix(lines.Text(), "Attaching")
	for ready && lines.Scan() && lines.Text() == "" { // it attaches, and then tells of the first that happens
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() {
		}
	}()
	if ready {
		err = f(func() time.Duration { return processTime(cmd.Process.Pid) })
	} else {
		err = fmt.Errorf("bpftrace does not start: %.200s", strings.TrimSpace(said.String()))
	}
	_ = cmd.Process.Signal(os.Interrupt)
	<-drained
	if werr := cmd.Wait(); err == nil && werr != nil {
		err = fmt.Errorf("bpftrace: %w", werr)
	}
	return err
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
