package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Bounds of what a runtime may say.
const (
	maxState   = 1 << 20 // bytes of a state file or an answer
	maxText    = 512     // bytes of an image's or a pod's name
	maxSpaces  = 32      // namespaces of containerd
	askTimeout = 2 * time.Second
)

// ErrUnknown is returned for a container that no runtime of this host knows.
var ErrUnknown = errors.New("no container runtime of this host knows it")

// Runtime reads what the container runtimes of this host say of their containers: the state that Docker, containerd (with
// CRI) and CRI-O or Podman keep in files, then the Docker API where Docker or Podman serves it. It needs root.
type Runtime struct {
	root    string // of the file system, for tests
	sockets []string
	client  func(socket string) *http.Client
}

// NewRuntime looks in the places where runtimes are by default.
func NewRuntime() *Runtime {
	return &Runtime{root: "/", sockets: []string{"/run/docker.sock", "/run/podman/podman.sock"}, client: dialer}
}

func dialer(socket string) *http.Client {
	return &http.Client{Timeout: askTimeout, Transport: &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Describe implements Describe.
func (r *Runtime) Describe(ctx context.Context, container string) (Description, error) {
	if !isID(container) {
		return Description{}, fmt.Errorf("%w: %.20q is no runtime's id", ErrUnknown, container)
	}
	for _, ask := range []func(string) (Description, bool){r.docker, r.containerd, r.storage} {
		if d, ok := ask(container); ok {
			return d.bounded(), nil
		}
	}
	var last error
	for _, socket := range r.sockets {
		d, err := r.ask(ctx, filepath.Join(r.root, socket), container)
		if err == nil {
			return d.bounded(), nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			last = err
		}
	}
	return Description{}, errors.Join(ErrUnknown, last)
}

func (d Description) bounded() Description {
	for _, s := range []*string{&d.Image, &d.Pod} {
		*s = (*s)[:min(len(*s), maxText)]
	}
	return d
}

func pod(namespace, name string) string {
	if name == "" {
		return ""
	}
	return namespace + "/" + name
}

// inspected is what Docker says of a container, in its file and by its API.
type inspected struct {
	Config struct {
		Image  string
		Labels map[string]string
	}
}

func (i *inspected) description() Description {
	l := i.Config.Labels
	return Description{Image: i.Config.Image, Pod: pod(l["io.kubernetes.pod.namespace"], l["io.kubernetes.pod.name"])}
}

func (r *Runtime) docker(id string) (Description, bool) {
	var i inspected
	if readJSON(filepath.Join(r.root, "var/lib/docker/containers", id, "config.v2.json"), &i) != nil {
		return Description{}, false
	}
	return i.description(), true
}

// bundle is an OCI runtime's configuration (runtime-spec, config.md).
type bundle struct {
	Annotations map[string]string `json:"annotations"`
}

func (b *bundle) description() Description {
	a := b.Annotations
	first := func(keys ...string) string {
		for _, k := range keys {
			if a[k] != "" {
				return a[k]
			}
		}
		return ""
	}
	return Description{
		Image: first("io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName", "io.kubernetes.cri-o.Image", "org.opencontainers.image.ref.name"),
		Pod: pod(first("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri-o.Namespace", "io.kubernetes.pod.namespace"),
			first("io.kubernetes.cri.sandbox-name", "io.kubernetes.cri-o.KubeName", "io.kubernetes.pod.name")),
	}
}

// containerd reads the bundle of a running task, in whichever namespace it is.
func (r *Runtime) containerd(id string) (Description, bool) {
	base := filepath.Join(r.root, "run/containerd/io.containerd.runtime.v2.task")
	dir, err := os.Open(base)
	if err != nil {
		return Description{}, false
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxSpaces)
	for _, space := range names {
		var b bundle
		if readJSON(filepath.Join(base, space, id, "config.json"), &b) != nil {
			continue
		}
		if d := b.description(); d != (Description{}) || space != "moby" {
			return d, true
		}
	}
	return Description{}, false
}

// storage reads the bundle that CRI-O and Podman keep.
func (r *Runtime) storage(id string) (Description, bool) {
	for _, base := range []string{"run/containers/storage/overlay-containers", "var/lib/containers/storage/overlay-containers"} {
		var b bundle
		if readJSON(filepath.Join(r.root, base, id, "userdata/config.json"), &b) == nil {
			if d := b.description(); d.Image != "" { // Podman says it by its API alone
				return d, true
			}
		}
	}
	return Description{}, false
}

// readJSON reads a regular file of at most maxState bytes.
func readJSON(path string, out any) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return errors.Join(os.ErrInvalid, err)
	}
	return decodeJSON(f, out)
}

func decodeJSON(in io.Reader, out any) error {
	raw, err := io.ReadAll(io.LimitReader(in, maxState+1))
	if err != nil {
		return err
	}
	if len(raw) > maxState {
		return fmt.Errorf("a container's state of more than %d bytes", maxState)
	}
	return json.Unmarshal(raw, out)
}

// ask asks the Docker API (Engine API v1.24 and Podman's of the same form) by a socket that is root's.
func (r *Runtime) ask(ctx context.Context, socket, id string) (Description, error) {
	st, err := os.Stat(socket)
	if err != nil {
		return Description{}, err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || sys.Uid != 0 || st.Mode()&os.ModeSocket == 0 {
		return Description{}, fmt.Errorf("%s is not a socket of root's", socket)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/v1.24/containers/"+id+"/json", nil)
	if err != nil {
		return Description{}, err
	}
	res, err := r.client(socket).Do(req)
	if err != nil {
		return Description{}, fmt.Errorf("ask %s: %w", socket, err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return Description{}, ErrUnknown
	}
	if res.StatusCode != http.StatusOK {
		return Description{}, fmt.Errorf("ask %s: %s", socket, res.Status)
	}
	var i inspected
	if err := decodeJSON(res.Body, &i); err != nil {
		return Description{}, fmt.Errorf("ask %s: %w", socket, err)
	}
	return i.description(), nil
}
