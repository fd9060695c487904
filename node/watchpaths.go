package node

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/roles/sentinel/integrity"
)

// watchedPaths are the files this node was told to watch, and those to leave out; why says why there are none. root says
// whether the node, or its other half, is root.
func watchedPaths(cfg *config.Config, root bool) (paths, exclude []string, why string) {
	auto := slices.Equal(cfg.IntegrityPaths, []string{"auto"})
	switch {
	case cfg.Sensor == "off" && auto:
		return nil, nil, "not asked for: sensor is off"
	case slices.Equal(cfg.IntegrityPaths, []string{"off"}) || len(cfg.IntegrityPaths) == 0:
		return nil, nil, "off by the configuration"
	case cfg.Replay() != "":
		return nil, nil, "a recording is seen instead of this host"
	case auto && cfg.Cgroup != "":
		return nil, nil, "this node sees one cgroup, and was told of no files to watch"
	case auto && !root:
		return nil, nil, "needs root, and was told of no files to watch"
	case auto:
		paths = integrity.DefaultPaths()
	default:
		paths = slices.Clone(cfg.IntegrityPaths)
	}
	switch {
	case slices.Equal(cfg.IntegrityExclude, []string{"auto"}):
		exclude = integrity.DefaultExclude()
	case !slices.Equal(cfg.IntegrityExclude, []string{"off"}):
		exclude = slices.Clone(cfg.IntegrityExclude)
	}
	return paths, exclude, ""
}

// ownPaths are the node's own files and folders: its binary, its state, what it pinned in the kernel, its unit, and the
// cgroup that a service manager keeps for it.
func ownPaths(cfg *config.Config) (own []string) {
	add := func(path string) {
		path, err := filepath.Abs(path)
		if err != nil || path == "/" {
			return
		}
		for _, p := range []string{path, resolved(path)} {
			if !slices.Contains(own, p) && len(p) <= bpf.MaxWatchedPath {
				own = append(own, p)
			}
		}
	}
	if exe, err := os.Executable(); err == nil {
		add(strings.TrimSuffix(exe, " (deleted)"))
	}
	add(cfg.Dir)
	add(Layout{cfg.Dir}.Next())
	add(PinDir(cfg.Dir))
	add(unitFile)
	add(unitFile + ".d")
	if raw, err := os.ReadFile("/proc/self/cgroup"); err == nil && cfg.Cgroup == "" {
		for line := range strings.Lines(string(raw)) {
			if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok && strings.HasSuffix(path, ".service") {
				add("/sys/fs/cgroup" + path)
			}
		}
	}
	return own
}

// unitFile is where omega install puts the node's unit.
const unitFile = "/etc/systemd/system/omega.service"

// resolved is path without links, as far as it is there.
func resolved(path string) string {
	if r, err := filepath.EvalSymlinks(path); err == nil {
		return r
	}
	return path
}

// watchFiles opens the baseline and has the kernel tell of changes below its paths, and of those to the node's own files.
func (k *kernel) watchFiles() error {
	paths, exclude, why := watchedPaths(k.cfg, os.Geteuid() == 0)
	// What the baseline holds is told as it is; the node's own files are told in the same way, but not looked at by it.
	own := slices.DeleteFunc(ownPaths(k.cfg), func(p string) bool { return integrity.Covers(paths, p) })
	if why != "" {
		k.noFiles = why
		if k.half != nil {
			if err := k.half.WatchFiles(nil, nil, own); err != nil {
				k.log.Warn("changes of this node's own files may be told late", "err", err)
			}
		}
		return nil
	}
	live := false
	if k.half != nil {
		if err := k.half.WatchFiles(aliases(paths), aliases(exclude), own); err != nil {
			k.log.Warn("changes of watched files are found by scans alone", "err", err)
		} else {
			live = true
		}
	}
	var err error
	k.files, err = integrity.OpenKeeper(integrity.KeeperOptions{
		File: Layout{k.cfg.Dir}.Baseline(), Paths: paths, Exclude: exclude, Rate: int64(k.cfg.IntegrityMiBs) << 20, Live: live, Log: k.log,
	})
	return err
}

// aliases adds to paths the names that lead to them by a link in the root folder: where /bin is a link to usr/bin, what is
// renamed into /bin is told by that name.
func aliases(paths []string) []string {
	out := slices.Clone(paths)
	for _, link := range []string{"/bin", "/sbin", "/lib", "/lib64"} {
		to, err := os.Readlink(link)
		if err != nil {
			continue
		}
		to = filepath.Join("/", to)
		for _, p := range paths {
			if p == to || strings.HasPrefix(p, to+"/") {
				if alias := link + p[len(to):]; !slices.Contains(out, alias) {
					out = append(out, alias)
				}
			}
		}
	}
	return out
}
