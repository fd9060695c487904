package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
)

var (
	idA = strings.Repeat("0123456789abcdef", 4)
	idB = strings.Repeat("fedcba9876543210", 4)
)

func TestParse(t *testing.T) {
	for path, want := range map[string]Identity{
		"/":                           {},
		"":                            {},
		"/system.slice/nginx.service": {Unit: "nginx.service"},
		"/system.slice/system-getty.slice/getty@tty1.service":                               {Unit: "getty@tty1.service"},
		"/user.slice/user-1000.slice/session-4.scope":                                       {Unit: "session-4.scope"},
		"/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox.scope":         {Unit: "app-firefox.scope"},
		"/system.slice/_cpu.service":                                                        {Unit: "cpu.service"},
		"/init.scope":                                                                       {Unit: "init.scope"},
		"/docker/" + idA:                                                                    {Container: idA},
		"/docker/" + idA + " (deleted)":                                                     {Container: idA},
		"/system.slice/docker-" + idA + ".scope":                                            {Container: idA, Unit: "docker-" + idA + ".scope"},
		"/docker/" + idA + "/system.slice/nginx.service":                                    {Container: idA},
		"/docker/" + idA + "/kubelet.slice/kubepods.slice/cri-containerd-" + idB + ".scope": {Container: idB},
		"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b2c_3d.slice/cri-containerd-" + idA + ".scope": {Container: idA, Unit: "cri-containerd-" + idA + ".scope"},
		"/kubepods/burstable/pod1b2c-3d/" + idA:                                             {Container: idA},
		"/kubepods.slice/kubepods-pod1.slice/crio-" + idA + ".scope/container":              {Container: idA, Unit: "crio-" + idA + ".scope"},
		"/kubepods.slice/kubepods-pod1.slice/crio-conmon-" + idA + ".scope":                 {Unit: "crio-conmon-" + idA + ".scope"},
		"/machine.slice/libpod-" + idA + ".scope/container":                                 {Container: idA, Unit: "libpod-" + idA + ".scope"},
		"/machine.slice/libpod-conmon-" + idA + ".scope":                                    {Unit: "libpod-conmon-" + idA + ".scope"},
		"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + idA + ".scope": {Container: idA, Unit: "libpod-" + idA + ".scope"},
		"/libpod_parent/libpod-" + idA:                                                      {Container: idA},
		"/system.slice/nerdctl-" + idA + ".scope":                                           {Container: idA, Unit: "nerdctl-" + idA + ".scope"},
		"/default/" + idA:            {Container: idA},
		"/ecs/0a1b2c/" + idA:         {Container: idA},
		"/actions_job/" + idA + "/x": {Container: idA},
		"/lxc/web-1":                 {Container: "web-1"},
		"/lxc.payload.web-1/system.slice/cron.service":           {Container: "web-1"},
		"/lxc.monitor.web-1":                                     {},
		`/machine.slice/machine-deb\x2d12.scope/payload`:         {Container: "deb-12", Unit: `machine-deb\x2d12.scope`},
		"/system.slice/" + idA[:63] + "g":                        {},
		"/docker/" + strings.ToUpper(idA):                        {},
		"/docker/" + idA[:63]:                                    {},
		"/../../" + idA:                                          {Container: idA},
		"/system.slice/.service":                                 {},
		"/system.slice/" + strings.Repeat("x", 300) + ".service": {},
		"/" + strings.Repeat("a/", maxPath):                      {},
	} {
		if got := Parse(path); got != want {
			t.Errorf("%.120s:\n%+v, want\n%+v", path, got, want)
		}
	}
}

func TestParseProc(t *testing.T) {
	for _, c := range []struct {
		text, unified string
		want          Identity
	}{
		{"0::/system.slice/docker-" + idA + ".scope\n", "/system.slice/docker-" + idA + ".scope", Identity{Container: idA, Unit: "docker-" + idA + ".scope"}},
		{"0::/system.slice/x.service (deleted)\n", "/system.slice/x.service", Identity{Unit: "x.service"}},
		{"12:cpu,cpuacct:/docker/" + idA + "\n1:name=systemd:/docker/" + idA + "\n0::/system.slice/containerd.service\n", "/system.slice/containerd.service", Identity{Container: idA, Unit: "containerd.service"}},
		{"3:pids:/user.slice\n1:name=systemd:/user.slice/user-0.slice/session-1.scope\n0::/\n", "/", Identity{Unit: "session-1.scope"}},
		{"1:name=systemd:/a:b.service\n0::/a:b.service\n", "/a:b.service", Identity{Unit: "a:b.service"}},
		{"\n::\nx\n", "", Identity{}},
	} {
		if got, unified := parseProc(c.text); got != c.want || unified != c.unified {
			t.Errorf("%q:\n%+v at %q, want\n%+v at %q", c.text, got, unified, c.want, c.unified)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("12:cpu:/docker/" + idA + "\n0::/system.slice/_x.service/libpod-" + idB + ".scope")
	f.Fuzz(func(t *testing.T, text string) {
		for _, id := range []Identity{Parse(text), first(parseProc(text))} {
			if len(id.Container) > maxName || len(id.Unit) > maxName || strings.ContainsAny(id.Container, "/\n") || strings.Contains(id.Unit, "/") || id.Image+id.Pod != "" {
				t.Fatalf("%+v", id)
			}
		}
	})
}

func first(id Identity, _ string) Identity { return id }

func write(t *testing.T, path string, v any) {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

type object = map[string]any

func TestStateFiles(t *testing.T) {
	root := t.TempDir()
	r := &Runtime{root: root, client: dialer}
	write(t, root+"/var/lib/docker/containers/"+idA+"/config.v2.json", object{"Config": object{"Image": "nginx:1.27", "Labels": object{"io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": "prod"}}})
	cri := strings.Repeat("1", 64)
	write(t, root+"/run/containerd/io.containerd.runtime.v2.task/k8s.io/"+cri+"/config.json", object{"annotations": object{"io.kubernetes.cri.image-name": "registry.example/app:2",
		"io.kubernetes.cri.sandbox-name": "app-0", "io.kubernetes.cri.sandbox-namespace": "shop"}})
	plain := strings.Repeat("2", 64)
	write(t, root+"/run/containerd/io.containerd.runtime.v2.task/default/"+plain+"/config.json", object{"ociVersion": "1.1.0"})
	crio := strings.Repeat("3", 64)
	write(t, root+"/run/containers/storage/overlay-containers/"+crio+"/userdata/config.json", object{"annotations": object{"io.kubernetes.cri-o.ImageName": "quay.example/db:9",
		"io.kubernetes.pod.name": "db-0", "io.kubernetes.pod.namespace": "shop"}})
	huge := strings.Repeat("4", 64)
	write(t, root+"/var/lib/docker/containers/"+huge+"/config.v2.json", object{"Config": object{"Image": strings.Repeat("x", maxState)}})
	long := strings.Repeat("5", 64)
	write(t, root+"/var/lib/docker/containers/"+long+"/config.v2.json", object{"Config": object{"Image": strings.Repeat("x", 2*maxText)}})
	link := strings.Repeat("6", 64)
	if err := os.MkdirAll(root+"/var/lib/docker/containers/"+link, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../"+idA+"/config.v2.json", root+"/var/lib/docker/containers/"+link+"/config.v2.json"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, id string
		want     Description
		err      error
	}{
		{"docker", idA, Description{"nginx:1.27", "prod/web"}, nil},
		{"containerd by CRI", cri, Description{"registry.example/app:2", "shop/app-0"}, nil},
		{"containerd by itself", plain, Description{}, nil},
		{"CRI-O", crio, Description{"quay.example/db:9", "shop/db-0"}, nil},
		{"too large", huge, Description{}, ErrUnknown},
		{"a long name", long, Description{Image: strings.Repeat("x", maxText)}, nil},
		{"a link", link, Description{}, ErrUnknown},
		{"nobody's", idB, Description{}, ErrUnknown},
		{"no id", "../../etc/passwd", Description{}, ErrUnknown},
	} {
		if got, err := r.Describe(t.Context(), c.id); got != c.want || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: %.80v %v", c.name, got, err)
		}
	}
}

// TestSocket asks a server that speaks Docker's API by a socket, as Docker and Podman do.
func TestSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only a socket of root's is asked")
	}
	root := t.TempDir()
	l, err := net.Listen("unix", root+"/docker.sock")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1.24/containers/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		switch r.PathValue("id") {
		case idA:
			_ = json.NewEncoder(w).Encode(object{"Id": idA, "Config": object{"Image": "alpine:3", "Labels": object{}}})
		case idB:
			fmt.Fprintf(w, `{"Config":{"Image":%q}}`, strings.Repeat("x", 2*maxState))
		default:
			http.NotFound(w, r)
		}
	})
	server := &http.Server{Handler: mux}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	defer func() {
		server.Close()
		<-done
	}()
	r := &Runtime{root: root, sockets: []string{"/none.sock", "/docker.sock"}, client: dialer}
	if d, err := r.Describe(t.Context(), idA); err != nil || d.Image != "alpine:3" || d.Pod != "" {
		t.Errorf("%+v %v", d, err)
	}
	for _, id := range []string{idB, strings.Repeat("7", 64)} {
		if d, err := r.Describe(t.Context(), id); !errors.Is(err, ErrUnknown) || d != (Description{}) {
			t.Errorf("%.8s: %.60v %v", id, d, err)
		}
	}
	if err := os.Chown(root+"/docker.sock", 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Describe(t.Context(), idA); !errors.Is(err, ErrUnknown) {
		t.Errorf("somebody else's socket was asked: %v", err)
	}
}

// TestRealCgroup follows processes in cgroups named as runtimes name them, one of which is gone before it is looked at.
func TestRealCgroup(t *testing.T) {
	mount := cgroupMount("/proc/self/mounts")
	if os.Geteuid() != 0 || mount == "" {
		t.Skip("making a cgroup takes root, and cgroup v2")
	}
	top := filepath.Join(mount, fmt.Sprintf("workload-test-%d", os.Getpid()))
	dir := filepath.Join(top, "docker-"+idA+".scope")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Skipf("no cgroup can be made: %v", err)
	}
	defer os.Remove(top)
	defer os.Remove(dir)
	group, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	cmd := exec.Command("/bin/sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd()), Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Skipf("no process can be started in a cgroup: %v", err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	defer end()
	asked := 0
	table := NewTable(func(_ context.Context, id string) (Description, error) {
		if asked++; asked == 1 || id != idA {
			return Description{}, ErrUnknown // it was not yet written down
		}
		return Description{Image: "nginx:1", Pod: "a/b"}, nil
	})
	e := func(boot uint64) *event.Event {
		return &event.Event{Boot: boot, Process: event.Process{Key: event.ProcessKey{PID: uint32(cmd.Process.Pid)}, CgroupID: inode(dir), MountNS: 1}}
	}
	settle := func() {
		for len(table.asks) > 0 {
			table.answer(t.Context(), <-table.asks)
		}
	}
	x := e(1)
	table.Fill(x)
	if x.Process.Container != idA || x.Process.Unit != "docker-"+idA+".scope" || x.Process.Image != "" {
		t.Errorf("at first: %+v", x.Process)
	}
	settle()
	x = e(2)
	if table.Fill(x); x.Process.Image != "" || len(table.asks) != 0 {
		t.Error("a runtime that knew nothing is asked again at once")
	}
	x = e(2 + uint64(again))
	table.Fill(x)
	settle()
	x = e(3 + uint64(again))
	if table.Fill(x); x.Process.Image != "nginx:1" || x.Process.Pod != "a/b" || len(table.asks) != 0 {
		t.Errorf("after the runtime told: %+v", x.Process)
	}
	if n := testing.AllocsPerRun(100, func() { table.Fill(x) }); n != 0 {
		t.Errorf("%v allocations", n)
	}

	// A child that is gone already is known by its parent.
	child := e(4)
	child.Process.Key.PID, child.Process.Parent.PID = 1<<22+1, uint32(cmd.Process.Pid)
	if NewTable(nil).Fill(child); child.Process.Container != idA {
		t.Errorf("of a child that is gone: %+v", child.Process)
	}

	// Its process gone, another event of the cgroup comes: it is found by its id.
	end()
	fresh := NewTable(nil)
	x = e(5)
	if fresh.Fill(x); x.Process.Container != "" || len(fresh.asks) != 1 {
		t.Errorf("of a process that is gone: %+v", x.Process)
	}
	fresh.answer(t.Context(), <-fresh.asks)
	x = e(6)
	if fresh.Fill(x); x.Process.Container != idA {
		t.Errorf("after it was looked for: %+v", x.Process)
	}

	// The cgroup gone as well: it is asked for a few times, and then left alone.
	last := NewTable(nil)
	gone := e(7)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	gone.Process.CgroupID = 1 << 60
	for i := range uint64(10) {
		gone.Boot = 7 + i*2*uint64(again)
		last.Fill(gone)
		for len(last.asks) > 0 {
			last.answer(t.Context(), <-last.asks)
		}
	}
	if k := (key{1 << 60, 1}); !last.young[k].settle || last.young[k].times != tries || gone.Process.Container != "" {
		t.Errorf("%+v", last.young[k])
	}
}

// TestBounds: a flood of cgroups costs neither memory nor the way of an event.
func TestBounds(t *testing.T) {
	table := &Table{proc: t.TempDir(), asks: make(chan request, waiting), young: map[key]*entry{}, old: map[key]*entry{}}
	for i := range 5 * generation {
		table.Fill(&event.Event{Boot: uint64(i), Process: event.Process{Key: event.ProcessKey{PID: 1}, CgroupID: uint64(i + 1)}})
	}
	if len(table.young) > perSecond || len(table.asks) != waiting || table.Skipped() < 4*generation {
		t.Errorf("%d kept, %d waiting, %d skipped", len(table.young), len(table.asks), table.Skipped())
	}
	for i := range 5 * generation { // ten in each second
		table.Fill(&event.Event{Boot: uint64(i) * 100_000_000, Process: event.Process{Key: event.ProcessKey{PID: 1}, CgroupID: uint64(i + 1_000_000)}})
	}
	if len(table.young) > generation || len(table.old) > generation {
		t.Errorf("%d and %d kept", len(table.young), len(table.old))
	}
	said := &event.Event{Process: event.Process{Key: event.ProcessKey{PID: 1}, CgroupID: 5, Unit: "told.service"}}
	if table.Fill(said); said.Process.Unit != "told.service" {
		t.Error("what a record said was replaced")
	}
}

func BenchmarkFill(b *testing.B) {
	table := &Table{asks: make(chan request, waiting), young: map[key]*entry{{7, 8}: {Identity: Identity{Container: idA, Unit: "x.scope"}, settle: true}}, old: map[key]*entry{}}
	e := &event.Event{Process: event.Process{Key: event.ProcessKey{PID: 1}, CgroupID: 7, MountNS: 8}}
	b.ReportAllocs()
	for b.Loop() {
		e.Process.Container, e.Process.Unit = "", ""
		table.Fill(e)
	}
}
