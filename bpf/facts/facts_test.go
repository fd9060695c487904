package facts

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// tree is a host's files.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	put(t, root, files)
	return root
}

func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRead(t *testing.T) {
	root := tree(t, map[string]string{
		"proc/sys/kernel/tainted":      "12288\n",
		"proc/sys/kernel/core_pattern": "|/tmp/x %p\nmore\n",
		"proc/sys/kernel/modprobe":     strings.Repeat("m", 10_000),
		"proc/modules":                 "good 16384 0 - Live 0x0\n",
		"sys/module/good/initstate":    "live\n",
		"sys/module/rootkit/initstate": "live\n",
		"sys/module/builtin/version":   "1\n",
	})
	got := map[string]string{}
	var names []string
	for _, f := range Read(root) {
		got[f.Name] = f.Value
		names = append(names, f.Name)
	}
	if !slices.IsSorted(names) || len(got) != 4 || got["kernel.tainted"] != "12288" || got["kernel.core_pattern"] != "|/tmp/x %p" || len(got["kernel.modprobe"]) != maxValue || got[HiddenModules] != "rootkit" {
		t.Errorf("%q", got)
	}
	for value, want := range map[string]string{"0": "", "12288": "OE", "1": "P", "18446744073709551615": taints, "x": "?", "524288": "(bit 19)"} {
		if got := Taint(value); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("taint %s: %q, want %q", value, got, want)
		}
	}
	if len(Read("/")) == 0 {
		t.Error("this kernel says nothing of itself")
	}
}

func TestChangesAreTold(t *testing.T) {
	root := tree(t, map[string]string{"proc/sys/kernel/tainted": "0\n", "proc/sys/kernel/modprobe": "/sbin/modprobe\n"})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		var told []string
		s := New(root, Every, func() uint64 { return 7 })
		done := make(chan error, 1)
		go func() {
			done <- s.Run(ctx, func(e *event.Event) {
				mark := ""
				if e.Process.Flags&event.FlagBeforeAgent != 0 {
					mark = " before"
				}
				mu.Lock()
				defer mu.Unlock()
				told = append(told, e.Access.Operation+"="+e.File.Other+mark)
			})
		}()
		expect := func(want ...string) {
			t.Helper()
			time.Sleep(Every + time.Second)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(told, want) {
				t.Errorf("told %q, want %q", told, want)
			}
			told = nil
		}
		expect("kernel.modprobe=/sbin/modprobe before", "kernel.tainted=0 before")
		expect()
		put(t, root, map[string]string{"proc/sys/kernel/modprobe": "/tmp/x\n"})
		expect("kernel.modprobe=/tmp/x")
		if err := os.Remove(filepath.Join(root, "proc/sys/kernel/tainted")); err != nil {
			t.Fatal(err)
		}
		expect("kernel.tainted=")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
