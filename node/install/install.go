// Package install makes the running binary a service of its host: the binary in its place, the state folder, the name of
// the user that the unprivileged half runs as, and a systemd unit; and takes all of that away again, with what the node
// left in the kernel. It needs no network and asks no node; each step that has nothing to do says so, so that both
// directions can be repeated.
package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/omega-mesh/omega/node"
	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/node/privileged"
)

// User is the name that the unprivileged half's uid is given.
const User = "omega"

// Unit is the systemd unit's name.
const Unit = "omega.service"

// ErrNotRoot: the host's own folders belong to root.
var ErrNotRoot = errors.New("installing needs root")

// Options of Install and Uninstall.
type Options struct {
	// Root is put before every path, for building an image; empty is this host. Nothing is started under another root.
	Root string
	// Prefix holds bin/omega; empty is /usr/local.
	Prefix string
	// Dir is the node's state folder, without Root.
	Dir string
	// Mode is observe, enforce or read-only; empty leaves it to the configuration.
	Mode string
	// Start says whether Install starts the service too, where systemd runs and the folder belongs to a swarm.
	Start bool
	// Purge says whether Uninstall wipes the state folder too, keys included. Without it a folder with an identity stays.
	Purge bool
	// Binary is what is installed; empty is the running binary.
	Binary string
}

// Step is one thing that was done, or found done.
type Step struct {
	What   string `json:"what"`
	Path   string `json:"path,omitempty"`
	Detail string `json:"detail,omitempty"` // why nothing was to do, or what to do now
	Done   bool   `json:"done"`
}

// Paths of an installation, under Root.
func (o *Options) binary() string { return filepath.Join(o.prefix(), "bin", "omega") }
func (o *Options) unit() string   { return filepath.Join("/etc/systemd/system", Unit) }
func (o *Options) users() string  { return "/etc/sysusers.d/omega.conf" }

func (o *Options) prefix() string {
	if o.Prefix == "" {
		return "/usr/local"
	}
	return o.Prefix
}

func (o *Options) under(path string) string { return filepath.Join("/", o.Root, path) }

func (o *Options) check() error {
	for name, path := range map[string]string{"--root": o.Root, "--prefix": o.Prefix, "--dir": o.Dir} {
		if path != "" && (!filepath.IsAbs(path) || strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || strings.ContainsRune(`"'\%$`, r) })) {
			return fmt.Errorf("%s %q: want an absolute path without blanks, quotes, $ and %%", name, path)
		}
	}
	if o.Dir == "" {
		return errors.New("no state folder")
	}
	if o.Mode != "" && !slices.Contains([]string{config.ModeObserve, config.ModeEnforce, config.ModeReadOnly}, o.Mode) {
		return fmt.Errorf("--mode %q: want observe, enforce or read-only", o.Mode)
	}
	if o.Root == "" && os.Geteuid() != 0 {
		return ErrNotRoot
	}
	return nil
}

// Install puts everything in place. An error leaves what was done: Install again, or Uninstall, goes on from there.
func Install(ctx context.Context, o Options) ([]Step, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	var steps []Step
	for _, f := range []func(context.Context, *Options) (Step, error){putBinary, makeFolder, nameUser, putUnit, startUnit} {
		s, err := f(ctx, &o)
		if err != nil {
			return steps, fmt.Errorf("%s: %w", s.What, err)
		}
		steps = append(steps, s)
	}
	return steps, nil
}

func putBinary(_ context.Context, o *Options) (Step, error) {
	s := Step{What: "binary", Path: o.binary()}
	from := o.Binary
	if from == "" {
		from = "/proc/self/exe"
	}
	to := o.under(o.binary())
	if a, err := os.Stat(from); err == nil {
		if b, err := os.Stat(to); err == nil && os.SameFile(a, b) {
			s.Detail = "it is what runs now"
			return s, nil
		}
	}
	src, err := os.Open(from)
	if err != nil {
		return s, err
	}
	defer src.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return s, err
	}
	// A binary that runs cannot be written to, but it can be replaced.
	tmp, err := os.CreateTemp(filepath.Dir(to), ".omega-*")
	if err != nil {
		return s, err
	}
	defer os.Remove(tmp.Name())
	if _, err = io.Copy(tmp, src); err == nil {
		if err = tmp.Chmod(0o755); err == nil {
			err = tmp.Sync()
		}
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return s, err
	}
	s.Done = true
	return s, os.Rename(tmp.Name(), to)
}

func makeFolder(_ context.Context, o *Options) (Step, error) {
	s := Step{What: "state folder", Path: o.Dir}
	dir := o.under(o.Dir)
	if _, err := os.Stat(dir); err == nil {
		s.Detail = "it is there"
		return s, nil
	}
	s.Done = true
	return s, os.MkdirAll(dir, 0o700)
}

// nameUser gives the uid of the unprivileged half a name. The node does without: this is for those who read ps and ls.
func nameUser(ctx context.Context, o *Options) (Step, error) {
	uid := privileged.UID(o.Dir)
	s := Step{What: "user", Path: o.users()}
	line := fmt.Sprintf("# Written by omega install; omega uninstall removes it.\nu %s %d \"Omega\" %s -\n", User, uid, o.Dir)
	if err := put(o.under(o.users()), line); err != nil {
		return s, err
	}
	tool, err := exec.LookPath("systemd-sysusers")
	if err != nil {
		s.Detail = fmt.Sprintf("no systemd-sysusers here: the node's uid %d stays without a name, which it does not need", uid)
		return s, nil
	}
	args := []string{o.under(o.users())}
	if o.Root != "" {
		args = []string{"--root=" + o.Root, filepath.Base(o.users())}
	}
	if out, err := exec.CommandContext(ctx, tool, args...).CombinedOutput(); err != nil {
		s.Detail = fmt.Sprintf("systemd-sysusers: %v: %s", err, oneLine(out))
		return s, nil
	}
	s.Done, s.Detail = true, fmt.Sprintf("%s is uid %d", User, uid)
	return s, nil
}

func putUnit(_ context.Context, o *Options) (Step, error) {
	s := Step{What: "systemd unit", Path: o.unit(), Done: true}
	return s, put(o.under(o.unit()), o.unitText())
}

func startUnit(ctx context.Context, o *Options) (Step, error) {
	s := Step{What: "service"}
	if why := o.offline(); why != "" {
		s.Detail = why
		return s, nil
	}
	if err := systemctl(ctx, "daemon-reload"); err != nil {
		return s, err
	}
	if err := systemctl(ctx, "enable", Unit); err != nil {
		return s, err
	}
	s.Done = true
	if _, err := os.Stat(filepath.Join(o.Dir, "genesis.cbor")); err != nil {
		s.Detail = "enabled; it starts once this host belongs to a swarm: `omega join -`, then `systemctl start omega`"
		return s, nil
	}
	if !o.Start {
		s.Detail = "enabled; `systemctl start omega` starts it"
		return s, nil
	}
	s.Detail = "enabled and started"
	return s, systemctl(ctx, "restart", Unit)
}

// offline says why no service manager is to be asked.
func (o *Options) offline() string {
	if o.Root != "" {
		return "another root: nothing is started"
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil { // sd_booted(3)
		return "systemd does not run here: start the node with `omega up`"
	}
	return ""
}

// Uninstall takes away what Install made, and what the node left in the kernel.
func Uninstall(ctx context.Context, o Options) ([]Step, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	var steps []Step
	var errs []error
	for _, f := range []func(context.Context, *Options) (Step, error){stopUnit, cleanKernel, removeUnit, removeUser, removeFolder, removeBinary} {
		s, err := f(ctx, &o)
		if err != nil {
			s.Detail = err.Error()
			errs = append(errs, fmt.Errorf("%s: %w", s.What, err))
		}
		steps = append(steps, s)
	}
	return steps, errors.Join(errs...)
}

func stopUnit(ctx context.Context, o *Options) (Step, error) {
	s := Step{What: "service"}
	if why := o.offline(); why != "" {
		s.Detail = "systemd is not asked"
		return s, nil
	}
	if _, err := os.Stat(o.unit()); err != nil {
		s.Detail = "there is none"
		return s, nil
	}
	s.Done = true
	return s, systemctl(ctx, "disable", "--now", Unit)
}

func cleanKernel(_ context.Context, o *Options) (Step, error) {
	s := Step{What: "kernel state"}
	if o.Root != "" {
		s.Detail = "another root has none"
		return s, nil
	}
	n, err := node.Cleanup(o.Dir)
	s.Done, s.Detail = n > 0, fmt.Sprintf("%d pinned object(s)", n)
	return s, err
}

func removeUnit(ctx context.Context, o *Options) (Step, error) {
	s, err := remove("systemd unit", o, o.unit())
	if err == nil && s.Done && o.offline() == "" {
		err = systemctl(ctx, "daemon-reload")
	}
	return s, err
}

func removeUser(ctx context.Context, o *Options) (Step, error) {
	s, err := remove("user", o, o.users())
	if err != nil || !s.Done {
		return s, err
	}
	tool, err := exec.LookPath("userdel")
	if err != nil {
		s.Detail = "no userdel here: the name stays in /etc/passwd"
		return s, nil
	}
	args := []string{User}
	if o.Root != "" {
		args = []string{"--prefix", o.Root, User}
	}
	if out, err := exec.CommandContext(ctx, tool, args...).CombinedOutput(); err != nil {
		s.Detail = "userdel: " + oneLine(out)
	}
	return s, nil
}

func removeFolder(_ context.Context, o *Options) (Step, error) {
	s := Step{What: "state folder", Path: o.Dir}
	dir := o.under(o.Dir)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		s.Detail = "there is none"
		return s, nil
	}
	if o.Purge {
		s.Done = true
		return s, node.Wipe(dir)
	}
	if err := os.Remove(dir); err != nil { // only an empty one goes
		s.Detail = "kept: it holds this host's identity; --purge wipes it"
		return s, nil
	}
	s.Done = true
	return s, nil
}

func removeBinary(_ context.Context, o *Options) (Step, error) {
	return remove("binary", o, o.binary())
}

func remove(what string, o *Options, path string) (Step, error) {
	s := Step{What: what, Path: path}
	err := os.Remove(o.under(path))
	if errors.Is(err, fs.ErrNotExist) {
		s.Detail = "there is none"
		return s, nil
	}
	s.Done = err == nil
	return s, err
}

func put(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func systemctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, oneLine(out))
	}
	return nil
}

func oneLine(b []byte) string { return strings.Join(strings.Fields(string(b[:min(len(b), 500)])), " ") }
