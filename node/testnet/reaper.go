package testnet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// removeTimeout bounds how long a removal waits for killed processes to be gone.
const removeTimeout = 10 * time.Second

// helloTimeout bounds how long a reaper may take to start, on a busy machine.
const helloTimeout = 10 * time.Second

var validID = regexp.MustCompile(`^[0-9a-f]{6}$`)

// reaper is the process that outlives the testnet's by the time it takes to remove everything. It is this binary with
// a hidden command, in a session of its own so that no Ctrl-C and no closed terminal reaches it, and it holds the
// read end of a pipe: however the writer ends, SIGKILL included, the kernel closes the other end.
type reaper struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// inReaper marks the environment of a reaper. A binary that does not know the hidden command might do anything else
// instead, such as making the next testnet and its reaper: this ends the chain at the first.
const inReaper = "TESTNET_REAPER"

// reaping is what a reaper says first: without it the binary is not one that knows the hidden command.
const reaping = "reaping\n"

func startReaper(binary, id string) (*reaper, error) {
	cmd := exec.Command(binary, "testnet", "helper", "reap", id)
	cmd.Args[0] = "omega"
	cmd.Env = []string{inReaper + "=1", "PATH=" + os.Getenv("PATH"), "XDG_RUNTIME_DIR=" + os.Getenv("XDG_RUNTIME_DIR"), "TMPDIR=" + os.Getenv("TMPDIR")}
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	said, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the reaper: %w", err)
	}
	word := make([]byte, len(reaping))
	late := time.AfterFunc(helloTimeout, func() { cmd.Process.Kill() })
	_, err = io.ReadFull(said, word)
	late.Stop()
	if err != nil || string(word) != reaping {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, fmt.Errorf("%s does not know `omega testnet helper`: nothing would remove the testnet", binary)
	}
	return &reaper{cmd: cmd, pipe: pipe}, nil
}

// watch tells the reaper of a process that no cgroup holds.
func (r *reaper) watch(p Process) { fmt.Fprintf(r.pipe, "%d %d\n", p.PID, p.Start) }

// finish lets the reaper remove everything and waits for it.
func (r *reaper) finish() error {
	r.pipe.Close()
	if err := r.cmd.Wait(); err != nil {
		return fmt.Errorf("the reaper: %w", err)
	}
	return nil
}

// Helper is the life of the hidden `omega testnet helper …`; its result is the exit code.
func Helper(args []string) int {
	if len(args) != 2 || args[0] != "reap" || !validID.MatchString(args[1]) {
		fmt.Fprintln(os.Stderr, "omega testnet helper: not for use by hand")
		return 2
	}
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	fmt.Print(reaping)
	processes := untilClosed(os.Stdin)
	if err := remove(args[1], processes); err != nil {
		fmt.Fprintln(os.Stderr, "omega testnet: remove:", err)
		return 1
	}
	return 0
}

// untilClosed reads the processes the testnet tells of, until it is gone.
func untilClosed(r io.Reader) []Process {
	var out []Process
	for sc := bufio.NewScanner(r); sc.Scan(); {
		var p Process
		if _, err := fmt.Sscanf(sc.Text(), "%d %d", &p.PID, &p.Start); err == nil && len(out) < 64*MaxHosts {
			out = append(out, p)
		}
	}
	return out
}

// remove takes away everything a testnet made, whatever state it was left in. It may be repeated.
func remove(id string, processes []Process) error {
	ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
	defer cancel()
	dir := filepath.Join(Registry(), id)
	s, err := load(dir)
	if err == nil {
		for _, h := range s.Hosts {
			processes = append(processes, Process{PID: h.PID, Start: h.Start})
		}
	}
	killProcesses(processes)
	errs := []error{removeCgroups(ctx, id), removeNamespaces(id)}
	if s != nil && s.Dir != dir {
		errs = append(errs, removeFiles(s.Dir))
	}
	if errors.Join(errs...) == nil { // what is written down goes last, so that a failed removal can be repeated
		errs = append(errs, removeFiles(dir))
		os.Remove(Registry())
	}
	return errors.Join(errs...)
}

// killProcesses ends process groups that no cgroup holds.
func killProcesses(processes []Process) {
	for _, p := range processes {
		if p.PID > 1 && p.Alive() {
			unix.Kill(-p.PID, unix.SIGKILL)
		}
	}
}

// removeFiles removes a folder, first whatever may be mounted below it.
func removeFiles(dir string) error {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			unix.Unmount(f[4], unix.MNT_DETACH)
		}
	}
	err := os.RemoveAll(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Cleanup removes what dead testnets of this user left, and names their ids. A living one is not touched.
func Cleanup() ([]string, error) {
	ids := map[string]bool{}
	collect := func(dir string, id func(string) string) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if v := id(e.Name()); validID.MatchString(v) {
				ids[v] = true
			}
		}
	}
	collect(Registry(), func(n string) string { return n })
	if os.Geteuid() == 0 {
		ofName := func(n string) string {
			v, _, _ := strings.Cut(strings.TrimPrefix(n, "omega-"), "-")
			if !strings.HasPrefix(n, "omega-") {
				return ""
			}
			return v
		}
		collect(netnsDir, ofName)
		if root, err := cgroupRoot(); err == nil {
			collect(root, ofName)
		}
	}
	var removed []string
	var errs []error
	for id := range ids {
		// What lies there before its state is written is seconds old at most: the registry's entry is made first.
		s, err := load(filepath.Join(Registry(), id))
		if err == nil && s.Alive() {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("testnet %s: it cannot be told whether it runs: %w", id, err))
			continue
		}
		if err := remove(id, nil); err != nil {
			errs = append(errs, fmt.Errorf("testnet %s: %w", id, err))
			continue
		}
		removed = append(removed, id)
	}
	return removed, errors.Join(errs...)
}
