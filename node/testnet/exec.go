package testnet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// environ is the environment of a host's processes: the caller's, without its own node's settings.
func (s *State) environ(h *Host) []string {
	var env []string
	for _, kv := range os.Environ() {
		if name, value, _ := strings.Cut(kv, "="); name == "PATH" {
			env = append(env, "PATH="+value+":"+filepath.Dir(s.Binary))
		} else if !strings.HasPrefix(name, "OMEGA_") && name != "NOTIFY_SOCKET" {
			env = append(env, kv)
		}
	}
	return append(env, "OMEGA_DIR="+h.Dir)
}

// start starts cmd in the host's network namespace and cgroup, as leader of its own process group.
func (s *State) start(h *Host, cmd *exec.Cmd) error {
	if cmd.Env == nil {
		cmd.Env = s.environ(h)
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if !cmd.SysProcAttr.Setsid {
		cmd.SysProcAttr.Setpgid = true
	}
	if s.Mode == ModeProcess {
		return cmd.Start()
	}
	ns, err := os.Open(h.NetNS)
	if err != nil {
		return err
	}
	defer ns.Close()
	cg, err := os.Open(h.Cgroup)
	if err != nil {
		return err
	}
	defer cg.Close()
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(cg.Fd())
	return inside(ns, cmd.Start)
}

// Exec turns the calling process into argv inside the host's network namespace and cgroup: its terminal, its signals
// and its exit code are argv's. It returns only with an error.
func Exec(s *State, h *Host, argv []string) error {
	if len(argv) == 0 {
		return errors.New("no command given")
	}
	env := s.environ(h)
	for _, kv := range env {
		if name, value, _ := strings.Cut(kv, "="); name == "PATH" {
			os.Setenv("PATH", value)
		}
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	if s.Mode == ModeProcess {
		return fmt.Errorf("run %s: %w", path, syscall.Exec(path, argv, env))
	}
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	ns, err := os.Open(h.NetNS)
	if err != nil {
		return err
	}
	defer ns.Close()
	// The thread that calls exec is the one that lives on as the process, in the namespace it is in then.
	runtime.LockOSThread()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", h.NetNS, err)
	}
	if err := os.WriteFile(filepath.Join(h.Cgroup, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return fmt.Errorf("enter %s: %w", h.Cgroup, err)
	}
	return fmt.Errorf("run %s: %w", path, syscall.Exec(path, argv, env))
}
