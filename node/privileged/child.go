package privileged

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// The range systemd's DynamicUser takes its uids from: no distribution gives them to people or packages.
const (
	uidMin = 61184
	uidMax = 65519
)

// UID is the user the unprivileged half of the node in dir runs as. It is a hash of the path, so that a restart owns its
// files again without a registry of users, and two nodes of one host are most likely two users.
func UID(dir string) uint32 {
	h := sha256.Sum256([]byte("omega uid\x00" + filepath.Clean(dir)))
	return uidMin + binary.BigEndian.Uint32(h[:4])%(uidMax-uidMin+1)
}

// ChildOptions say how the unprivileged half is started.
type ChildOptions struct {
	// Name is argv[0].
	Name string
	// Args are further arguments.
	Args []string
	// UID is user and group; 0 keeps the caller's (tests without root).
	UID uint32
	// Files are inherited as descriptors 3, 4, …
	Files []*os.File
	// Env is the whole environment.
	Env []string
	// Output takes what it writes to standard output and error.
	Output *os.File
	// Confine, if set, is called on the thread that starts it, with no_new_privs set: what it takes from that thread the child does not have.
	Confine func() error
	// Dies is the signal it gets should we die; 0 is SIGTERM.
	Dies syscall.Signal
}

// Child is a running unprivileged half.
type Child struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Spawn executes this binary again as another user: no supplementary groups, an empty capability bounding set,
// no_new_privs, umask 077, its own process group (the terminal's Ctrl-C is ours to forward), and a SIGTERM should we die: it has a moment
// to tell who killed us.
func Spawn(opt ChildOptions) (*Child, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{opt.Name}, opt.Args...)
	cmd.Env = opt.Env
	cmd.Dir = "/"
	cmd.ExtraFiles = opt.Files
	cmd.Stdout, cmd.Stderr = opt.Output, opt.Output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if opt.Dies != 0 {
		cmd.SysProcAttr.Pdeathsig = opt.Dies
	}
	if opt.UID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: opt.UID, Gid: opt.UID}
	}
	c := &Child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(c.done)
		// What is set on a thread is inherited by what it forks, and PDEATHSIG fires when the forking thread ends: so one
		// thread, never given back to other goroutines, starts the child and waits for it.
		runtime.LockOSThread()
		if opt.UID != 0 {
			if err := dropThread(); err != nil {
				started <- err
				return
			}
		}
		if opt.Confine != nil {
			if err := opt.Confine(); err != nil {
				started <- err
				return
			}
		}
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("%s: %w", opt.Name, err)
			return
		}
		started <- nil
		c.err = cmd.Wait()
	}()
	if err := <-started; err != nil {
		<-c.done
		return nil, err
	}
	return c, nil
}

// dropThread takes from the calling thread what a child must not inherit. The thread itself keeps its effective
// capabilities, which the change of user takes from the child.
func dropThread() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		// EINVAL: a capability newer than the kernel.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("capability bounding set: %w", err)
		}
	}
	return nil
}

// PID is its process id.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Done is closed when it has ended; Err then says how.
func (c *Child) Done() <-chan struct{} { return c.done }

// Err is nil for exit code 0.
func (c *Child) Err() error { return c.err }

// Signal sends sig.
func (c *Child) Signal(sig os.Signal) error { return c.cmd.Process.Signal(sig) }

// Kill ends it at once and waits.
func (c *Child) Kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// ExitCode is how it ended; -1 for a signal.
func (c *Child) ExitCode() int {
	if c.cmd.ProcessState == nil {
		return -1
	}
	return c.cmd.ProcessState.ExitCode()
}
