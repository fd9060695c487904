package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/bundle"
	"github.com/omega-mesh/omega/modules/runner"
	"github.com/omega-mesh/omega/modules/sdk"
	"github.com/omega-mesh/omega/node/api"
	"github.com/omega-mesh/omega/swarm/event"
)

func newModuleCommand(a *app) *cobra.Command {
	return group("module", "Detection logic that travels: written, tried, published", "  omega module init --lang go fetch-watch\n  omega module build fetch-watch && omega module test fetch-watch\n  omega module publish fetch-watch && omega module deploy fetch-watch --role sentinel",
		newModuleInit(a), newModuleBuild(a), newModuleTest(a), newModuleRun(a),
		newModulePublish(a), newModuleDeploy(a), newModuleUndeploy(a), newModuleList(a), newModuleShow(a))
}

func newModuleInit(a *app) *cobra.Command {
	var language string
	cmd := &cobra.Command{
		Use: "init --lang LANGUAGE NAME", Short: "A folder with a module that builds and passes its tests as it is", Args: cobra.ExactArgs(1),
		Example: "  omega module init --lang go fetch-watch\n  omega module init --lang lua quick-rule",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := sdk.Init(args[0], language); err != nil {
				return err
			}
			return a.say(map[string]any{"dir": args[0], "language": language}, "%s is made; next: omega module test %s", args[0], args[0])
		},
	}
	cmd.Flags().StringVar(&language, "lang", "", strings.Join(sdk.Languages(), ", "))
	_ = cmd.MarkFlagRequired("lang")
	_ = cmd.RegisterFlagCompletionFunc("lang", cobra.FixedCompletions(sdk.Languages(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func newModuleBuild(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "build DIR", Short: "Make a module's folder one file", Args: cobra.ExactArgs(1),
		Long:    "Compile a module with its language's own tools (go; rustc with wasm32-unknown-unknown; npm) and put it, its manifest and its tests into one file.",
		Example: "  omega module build fetch-watch\n  omega module build fetch-watch --out /tmp/fetch-watch.car",
		RunE: func(cmd *cobra.Command, args []string) error {
			a.progress("building " + args[0])
			b, err := sdk.Build(cmd.Context(), args[0], a.errOut)
			if err != nil {
				return absentFile(err)
			}
			if out == "" {
				out = filepath.Join(args[0], b.Manifest.Name+"-"+b.Manifest.Version+".car")
			}
			if err := writeBundle(out, b); err != nil {
				return err
			}
			id, err := b.Manifest.ID()
			if err != nil {
				return err
			}
			a.progress(fmt.Sprintf("%s %s, %d bytes, by %s: %s", b.Manifest.Name, b.Manifest.Version, b.Manifest.Size, b.Manifest.Provenance.Builder, out))
			return a.say(moduleJSON(b, id, out), "%s", id)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write (default NAME-VERSION.car in the folder)")
	return cmd
}

func moduleJSON(b *bundle.Bundle, id modules.ID, file string) map[string]any {
	m := b.Manifest
	return map[string]any{"cid": id.String(), "name": m.Name, "version": m.Version, "kind": string(m.Kind), "title": m.Title, "attack": list(m.Attack), "capabilities": m.Capabilities,
		"size": m.Size, "tests": len(m.Tests), "builder": m.Provenance.Builder, "source_sha256": fmt.Sprintf("%x", m.Provenance.Source), "file": file}
}

func writeBundle(path string, b *bundle.Bundle) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".module-*")
	if err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	defer os.Remove(f.Name())
	if err := errors.Join(b.Write(f), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	return nil
}

// readBundle reads a module's file, or builds its folder.
func readBundle(a *app, cmd *cobra.Command, path string) (*bundle.Bundle, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, absentFile(fmt.Errorf("module: %w", err))
	}
	if st.IsDir() {
		a.progress("building " + path)
		b, err := sdk.Build(cmd.Context(), path, a.errOut)
		return b, absentFile(err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, absentFile(fmt.Errorf("module: %w", err))
	}
	defer f.Close()
	return bundle.Read(f)
}

// newRunner starts the engines for one command; what a module logs is shown as progress.
func (a *app) newRunner(cmd *cobra.Command) (*runner.Runner, error) {
	return runner.New(cmd.Context(), "", runner.Services{Log: func(name string, _ modules.LogLevel, text string) { a.progress(name + ": " + printable(text)) }})
}

func newModuleTest(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "test DIR|FILE", Short: "Run a module's own tests", Args: cobra.ExactArgs(1),
		Long:    "Give a module the recorded events of each of its tests, and hold what it finds against what the test says. A folder is built first.",
		Example: "  omega module test fetch-watch\n  omega module test fetch-watch-0.1.0.car --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readBundle(a, cmd, args[0])
			if err != nil {
				return err
			}
			r, err := a.newRunner(cmd)
			if err != nil {
				return err
			}
			defer r.Close(cmd.Context())
			results, err := sdk.Check(cmd.Context(), r, b)
			if err != nil {
				return err
			}
			failed := 0
			for _, one := range results {
				verdict, why := "passed", ""
				if !one.Passed() {
					failed++
					verdict, why = "FAILED", fmt.Sprintf(": wants [%s], found [%s]", strings.Join(one.Want, " "), strings.Join(one.Found, " "))
					if one.Err != nil {
						why += ", " + printable(one.Err.Error())
					}
				}
				if a.json {
					line := map[string]any{"test": one.Test, "passed": one.Passed(), "want": list(one.Want), "found": list(one.Found)}
					if one.Err != nil {
						line["error"] = one.Err.Error()
					}
					err = a.emit(line)
				} else {
					_, err = fmt.Fprintf(a.out, "%s  %s%s\n", verdict, printable(one.Test), why)
				}
				if err != nil {
					return err
				}
			}
			if failed > 0 {
				return fail(exitFailed, "%d of %d tests failed", failed, len(results))
			}
			if len(results) == 0 {
				a.progress("the module has no tests: name recordings under tests: in module.yaml")
			}
			return nil
		},
	}
}

func newModuleRun(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "run FILE --events FILE", Short: "What a module finds in recorded events", Args: cobra.ExactArgs(1),
		Long:    "Run a module, a file or a folder, over recorded events as `omega detect` reads them. Findings are printed as JSON Lines, each with its line; what became of the module is said on standard error.",
		Example: "  omega module run fetch-watch --events day.jsonl.gz",
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readBundle(a, cmd, args[0])
			if err != nil {
				return err
			}
			in := a.in
			if file != "-" {
				f, err := os.Open(file)
				if err != nil {
					return absentFile(fmt.Errorf("events: %w", err))
				}
				defer f.Close()
				in = f
			}
			r, err := a.newRunner(cmd)
			if err != nil {
				return err
			}
			defer r.Close(cmd.Context())
			m, err := r.Load(cmd.Context(), b)
			if err != nil {
				return err
			}
			s, err := sdk.Run(cmd.Context(), m, in, func(line int, f event.Finding) error {
				out := findingJSON(api.Finding(&f))
				out["line"] = line
				return a.emit(out)
			})
			if err != nil {
				return err
			}
			c := m.Counts()
			mean := 0.0
			if c.Events > 0 {
				mean = float64(c.Time.Nanoseconds()) / float64(c.Events) / 1000
			}
			a.progress(fmt.Sprintf("%d lines, %d events, %d that it wants, %d findings, %d over its rate, %d traps, %.1f us an event", s.Lines, s.Events, c.Events, c.Findings, c.Dropped, c.Traps, mean))
			if c.Last != nil {
				return fail(exitFailed, "the module failed: %w", c.Last)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "events", "", "file of events, - for standard input")
	_ = cmd.MarkFlagRequired("events")
	return cmd
}
