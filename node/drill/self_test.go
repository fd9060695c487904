package drill

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// halves are the processes of a host's node: the privileged one, and its child.
func (s swarm) halves(on string) (parent, child int) {
	s.Helper()
	h := s.host(on)
	members, err := os.ReadFile(filepath.Join(h.Cgroup, "cgroup.procs"))
	if err != nil {
		s.Fatal(err)
	}
	for line := range strings.FieldsSeq(string(members)) {
		if argv, err := os.ReadFile(filepath.Join("/proc", line, "cmdline")); err == nil && strings.HasPrefix(string(argv), "omega: node") {
			child, _ = strconv.Atoi(line)
		}
	}
	return h.PID, child
}

// detached has an attacker take one of n2's programs off its cgroup: n2 puts it back, and n1 knows who did it.
func (s swarm) detached() {
	s.Helper()
	bpftool, err := exec.LookPath("bpftool")
	if err != nil {
		s.Log("no bpftool here: nothing is detached")
		return
	}
	var cgroup unix.Stat_t
	if err := unix.Stat(s.host("n2").Cgroup, &cgroup); err != nil {
		s.Fatal(err)
	}
	// The programs at n2's own cgroup: nobody else's.
	links := func() (ids []string) {
		out, err := exec.Command(bpftool, "-j", "link", "show").Output()
		if err != nil {
			s.Fatal(err)
		}
		var all []struct {
			ID     int    `json:"id"`
			Cgroup uint64 `json:"cgroup_id"`
		}
		if err := json.Unmarshal(out, &all); err != nil {
			s.Fatal(err)
		}
		for _, l := range all {
			if l.Cgroup == cgroup.Ino {
				ids = append(ids, fmt.Sprint(l.ID))
			}
		}
		return ids
	}
	before := links()
	if len(before) == 0 {
		s.Fatal("n2 has no program at its cgroup")
	}
	if out, err := s.run("n2", "", bpftool, "link", "detach", "id", before[0]); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
	s.eventually("n1 knows who took n2's program off", func() bool {
		for _, f := range s.findings("n1", "omega.self.detached") {
			if f.GetHost() == "n2" && strings.HasSuffix(f.GetSubject().GetExe(), "bpftool") {
				return true
			}
		}
		return false
	})
	if after := links(); len(after) != len(before) || slices.Contains(after, before[0]) {
		s.Errorf("n2's programs were %v and are %v", before, after)
	}
}

// immutable has a file quarantined that an attacker made immutable: the half that acts keeps what that takes.
func (s swarm) immutable() {
	s.Helper()
	path := filepath.Join(s.TempDir(), "implant")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		s.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		s.Fatal(err)
	}
	defer f.Close()
	const fixed = 0x10 // FS_IMMUTABLE_FL
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, fixed); err != nil {
		s.Log("no immutable files on this file system: ", err)
		return
	}
	defer func() { // whatever came of it, the folder is to be removed
		if f, err := os.Open(path); err == nil {
			_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0)
			f.Close()
		}
	}()
	out, err := s.run("n1", "", s.net.State().Binary, "--json", "respond", "quarantine", path+"@n2", "--ttl", "10m")
	if err != nil {
		s.Errorf("quarantine of an immutable file: %v: %s", err, out)
		return
	}
	if _, err := os.Lstat(path); err == nil {
		s.Errorf("an immutable file has its name still: %s", out)
		return
	}
	var first struct {
		ID       string `json:"id"`
		Response string `json:"response"`
	}
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&first); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
	s.omega("n1", "respond", "release", cmp.Or(first.ID, first.Response))
	s.eventually("the immutable file is given back", func() bool {
		f, err := os.Open(path)
		if err != nil {
			return false
		}
		defer f.Close()
		flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		return err == nil && flags&fixed != 0
	})
}

// struckAgent has an attacker on n2 strike first one half of its agent, then the other: who did it is known on n1, by what
// left n2 before the agent was gone.
func struckAgent(s swarm) {
	parent, child := s.halves("n2")
	if child == 0 {
		s.Fatal("n2's node is one process")
	}
	// What each half may do is what the kernel says, and no more than it needs.
	for _, half := range []struct {
		pid  int
		caps uint64 // that it must not have
		also string
	}{
		{parent, 1<<unix.CAP_SYS_MODULE | 1<<unix.CAP_SYS_RAWIO | 1<<unix.CAP_SYS_BOOT | 1<<unix.CAP_SYS_TIME | 1<<unix.CAP_MKNOD, "Seccomp:\t2"},
		{child, ^uint64(0), "NoNewPrivs:\t1\nSeccomp:\t2"},
	} {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", half.pid))
		if err != nil {
			s.Fatal(err)
		}
		for _, set := range []string{"CapEff", "CapPrm", "CapInh", "CapBnd"} {
			_, rest, _ := strings.Cut(string(status), set+":\t")
			line, _, _ := strings.Cut(rest, "\n")
			if has, err := strconv.ParseUint(line, 16, 64); err != nil || has&half.caps != 0 {
				s.Errorf("process %d: %s %s", half.pid, set, line)
			}
		}
		if !strings.Contains(string(status), half.also) {
			s.Errorf("process %d lacks %q", half.pid, half.also)
		}
		if limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", half.pid)); err != nil || !strings.Contains(string(limits), "Max core file size        0 ") {
			s.Errorf("process %d may leave a core: %v %s", half.pid, err, limits)
		}
	}

	s.immutable()

	told := func(signal string) bool {
		for _, f := range s.findings("n1", "omega.self.signal") {
			if f.GetHost() == "n2" && strings.HasSuffix(f.GetSubject().GetExe(), "kill") {
				for _, e := range f.GetEvidence() {
					if e.GetName() == "signal" && e.GetValue() == signal {
						return true
					}
				}
			}
		}
		return false
	}
	strike := func(signal string, pid int) {
		s.Helper()
		if out, err := s.run("n2", "", "/bin/kill", "-"+signal, fmt.Sprint(pid)); err != nil {
			s.Fatalf("%v: %s", err, out)
		}
	}
	strike("USR1", child)
	s.eventually("n1 knows who sent n2's agent a signal", func() bool { return told("SIGUSR1") })
	s.detached()
	if out, err := s.run("n2", "", "/bin/sh", "-c", "cd "+s.host("n2").Dir+" && echo 192.0.2.0/24 > stray && rm stray"); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
	s.eventually("n1 knows who changed n2's state folder", func() bool {
		for _, f := range s.findings("n1", "omega.self.file") {
			if f.GetHost() == "n2" && f.GetSubject().GetFile() == s.host("n2").Dir {
				return true
			}
		}
		return false
	})
	strike("KILL", parent)
	s.eventually("n1 knows who killed n2's agent", func() bool { return told("SIGKILL") })
}
