package node

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

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

// watchFiles opens the baseline and has the kernel tell of changes below its paths.
func (k *kernel) watchFiles() error {
	paths, exclude, why := watchedPaths(k.cfg, os.Geteuid() == 0)
	if why != "" {
		k.noFiles = why
		return nil
	}
	live := false
	if k.half != nil {
		if err := k.half.WatchFiles(aliases(paths), aliases(exclude)); err != nil {
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
