package drill

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/swarm/event"
)

// action is one thing done by a real system call, and the event that must come of it.
type action struct {
	name      string // of act.c
	args      []string
	activity  event.Activity
	component string // whose coverage says whether this host sees it
	check     func(*event.Event) string
}

// everyAction has each watched action done on n1 by a small C program that a shell starts, and finds the right event with
// the right lineage for each. What the host's own coverage says it does not see may be missing, and nothing else: so the
// table proves the coverage too.
func everyAction(s swarm) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		s.Skip("no gcc")
	}
	dir := s.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		s.Fatal(err)
	}
	act := filepath.Join(dir, "act")
	if out, err := exec.Command(gcc, "-O1", "-o", act, "testdata/act.c").CombinedOutput(); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
	file, other, made := filepath.Join(dir, "file"), filepath.Join(dir, "other"), filepath.Join(dir, "ring")
	peer := s.host("n2")
	to := []string{peer.Addr.String(), fmt.Sprint(peer.Port)}
	port := func(e *event.Event) string {
		if e.Network.Remote.Addr() != peer.Addr || e.Network.Remote.Port() != peer.Port {
			return "remote " + e.Network.Remote.String()
		}
		return ""
	}
	operation := func(want string) func(*event.Event) string {
		return func(e *event.Event) string {
			if !strings.Contains(e.Access.Operation, want) {
				return "operation " + e.Access.Operation
			}
			return ""
		}
	}
	path := func(want string) func(*event.Event) string {
		return func(e *event.Event) string {
			if e.File.Path != want {
				return "path " + e.File.Path
			}
			return ""
		}
	}
	const creation, access, api = "Process Creation", "Process Access", "OS API Execution"
	actions := []action{
		{"exec", nil, event.ActivityExec, creation, nil},
		{"fork", nil, event.ActivityFork, creation, nil},
		{"exit", nil, event.ActivityExit, "Process Termination", func(e *event.Event) string {
			if e.Process.ExitCode != 42 {
				return fmt.Sprint("exit code ", e.Process.ExitCode)
			}
			return ""
		}},
		{"connect", to, event.ActivityConnect, "Network Connection Creation", port},
		{"connect", to, event.ActivityClose, "Network Traffic Flow", port},
		{"listen", nil, event.ActivityListen, "Network Traffic Flow", nil},
		{"bind", nil, event.ActivityBind, "Network Traffic Flow", func(e *event.Event) string {
			if e.Network.Local.Port() != 4712 {
				return "local " + e.Network.Local.String()
			}
			return ""
		}},
		{"raw_socket", nil, event.ActivityRawSocket, "Network Traffic Flow", operation("AF_PACKET")},
		{"dns", to[:1], event.ActivityDNSQuery, "Network Traffic Content", func(e *event.Event) string {
			if e.DNS.Name != "act.example" || e.DNS.Type != 1 || e.DNS.ID != 7 {
				return fmt.Sprintf("question %+v", e.DNS)
			}
			return ""
		}},
		{"tls", to, event.ActivityClose, "Network Traffic Content", func(e *event.Event) string {
			if e.Network.SNI != "act.example" {
				return fmt.Sprintf("server name %q", e.Network.SNI)
			}
			return port(e)
		}},
		{"setuid", nil, event.ActivitySetUID, "Process Metadata", nil},
		{"setgid", nil, event.ActivitySetGID, "Process Metadata", nil},
		{"ptrace", nil, event.ActivityPtrace, access, nil},
		{"process_vm_writev", nil, event.ActivityProcessWrite, "Process Modification", nil},
		{"memfd_create", nil, event.ActivityMemfdCreate, api, nil},
		{"memory_executable", nil, event.ActivityMemoryExecutable, api, nil},
		{"unshare", nil, event.ActivityUnshare, api, nil},
		{"setns", nil, event.ActivitySetNS, api, nil},
		{"keyctl", nil, event.ActivityKeyctl, api, nil},
		{"bpf", nil, event.ActivityBPF, api, nil},
		{"io_uring_file", []string{made}, event.ActivityIOUring, api, operation("OPENAT")},
		{"io_uring_connect", to, event.ActivityIOUring, api, operation("CONNECT")},
		{"create", []string{file}, event.ActivityFileCreate, "File Creation", path(file)},
		{"write", []string{file}, event.ActivityFileWrite, "File Modification", path(file)},
		{"chmod", []string{file}, event.ActivityFileChmod, "File Metadata", path(file)},
		{"chown", []string{file}, event.ActivityFileChown, "File Metadata", path(file)},
		{"setxattr", []string{file}, event.ActivityFileSetXattr, "File Metadata", path(file)},
		{"link", []string{file, other}, event.ActivityFileLink, "File Creation", path(other)},
		{"rename", []string{other, other + "2"}, event.ActivityFileRename, "File Modification", path(other + "2")},
		{"unlink", []string{file}, event.ActivityFileUnlink, "File Deletion", path(file)},
	}
	s.eventually("n1 has proved what it sees", func() bool { return s.coverage("n1")["Process Creation"].GetProof() == "seen" })
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ACTION\tEVENT\tPROCESS\tPARENT\tRESULT")
	shell, err := filepath.EvalSymlinks("/bin/bash")
	if err != nil {
		s.Skip(err)
	}
	pids := make([]string, len(actions))
	for i, a := range actions {
		// The shell says the pid that act will have: it becomes a shell of its own, which becomes act.
		out, err := s.run("n1", "", shell, "-c", fmt.Sprintf(`bash -c 'echo $$; exec "$0" "$@"' %s %s %s; true`, act, a.name, strings.Join(a.args, " ")))
		if err != nil {
			s.Fatalf("%s: %v: %s", a.name, err, out)
		}
		pid, rest, _ := strings.Cut(out, "\n")
		if rest != "" {
			s.Errorf("%s could not be done: %s", a.name, rest)
		}
		pids[i] = pid
	}
	missing := make([]bool, len(actions))
	var events []*event.Event
	find := func(i int) (*event.Event, string) {
		wrong := "no event"
		for _, e := range events {
			if fmt.Sprint(e.Process.Key.PID) != pids[i] && fmt.Sprint(e.Process.Parent.PID) != pids[i] || e.Activity != actions[i].activity {
				continue
			}
			if why := ""; actions[i].check != nil {
				if why = actions[i].check(e); why != "" {
					wrong = why
					continue
				}
			}
			return e, ""
		}
		return nil, wrong
	}
	sees := s.coverage("n1")
	expected := func(i int) bool {
		c := sees[actions[i].component]
		return c.GetSees() && (c.GetProof() == "seen" || c.GetProof() == "untested")
	}
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) { // until all that should come has, or a time far above that
		events = s.events("n1")
		left := 0
		for i := range actions {
			e, _ := find(i)
			missing[i] = e == nil
			if missing[i] && expected(i) {
				left++
			}
		}
		if left == 0 || time.Since(began) > 5*time.Second {
			break
		}
	}
	for i, a := range actions {
		e, wrong := find(i)
		result := "found"
		exe, parent := "-", "-"
		switch {
		case e != nil:
			exe, parent = e.Process.Exe, e.Process.ParentExe
			own := fmt.Sprint(e.Process.Key.PID) == pids[i]
			if own && exe != act && a.activity != event.ActivityExec && a.activity != event.ActivityExit && a.activity != event.ActivityFork {
				result = "WRONG: not the process that did it"
			} else if own && parent != shell {
				result = "WRONG: parent " + parent
			} else if e.Process.Key.Start == 0 {
				result = "WRONG: no start time"
			}
			if strings.HasPrefix(result, "WRONG") {
				s.Errorf("%s: %s: %+v", a.name, result, e.Process)
			}
		case !expected(i):
			result = "not seen, as the coverage says of " + a.component
		default:
			result = "MISSED: " + wrong
			s.Errorf("%s: %s, although the coverage says that %s is seen", a.name, wrong, a.component)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", a.name, a.activity, filepath.Base(exe), filepath.Base(parent), result)
	}
	w.Flush()
	s.Logf("\n%s", table.String())
}

func (s swarm) coverage(on string) map[string]*apiv1.Component {
	s.Helper()
	r, err := s.host(on).Client().Coverage(s.Context(), &apiv1.CoverageRequest{Peer: on})
	if err != nil || len(r.GetCoverages()) != 1 {
		s.Fatalf("coverage of %s: %v", on, err)
	}
	out := map[string]*apiv1.Component{}
	for _, c := range r.GetCoverages()[0].GetComponents() {
		out[c.GetName()] = c
	}
	return out
}

// events are those that a host keeps, oldest first.
func (s swarm) events(on string) (out []*event.Event) {
	s.Helper()
	s.eachEvent(on, func(e *event.Event) { out = append(out, e) })
	return out
}
