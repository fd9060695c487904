package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/pack"
	"github.com/omega-mesh/omega/modules/sigma"
	"github.com/omega-mesh/omega/node/api"
	"github.com/omega-mesh/omega/roles/sentinel"
	"github.com/omega-mesh/omega/swarm/event"
)

func newDetectCommand(a *app) *cobra.Command {
	var dirs, placeholders []string
	var file string
	var builtin bool
	cmd := &cobra.Command{
		Use: "detect --rules DIR… --events FILE|-", Short: "What rules find in recorded events, without a node", Args: cobra.NoArgs,
		Long: "Run Sigma rules over recorded events, one a line: OCSF as `omega events --json` prints it, Sysmon's and auditd's events as JSON, ECS, or auditd's own log;\n" +
			"gzip is recognised. Findings are printed as JSON Lines, each with the line that completed it; what became of the lines is said on standard error.",
		Example: "  omega detect --rules rules/ --events events.jsonl.gz\n  omega events --since 1h --json | omega detect --builtin --events -",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(dirs) == 0 && !builtin {
				return fail(exitUsage, "nothing to look for: name rules by --rules DIR, or --builtin")
			}
			opt, err := sigmaOptions(placeholders)
			if err != nil {
				return err
			}
			opt.AnySource = true
			set, err := sigma.Load(cmd.Context(), opt, dirs...)
			if err != nil {
				return absentFile(err)
			}
			for _, f := range set.Rejected {
				a.progress(fmt.Sprintf("%s: not used: %s", printable(f.File), printable(f.Why)))
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
			var more []modules.Detector
			if builtin {
				own, err := pack.New(cmd.Context())
				if err != nil {
					return err
				}
				defer own.Close(context.WithoutCancel(cmd.Context()))
				more = append(sentinel.Builtin(sentinel.Own{}), own)
			}
			s, err := sigma.DetectLines(cmd.Context(), sigma.NewDetector(set), more, in, func(line int, f event.Finding) error {
				out := findingJSON(api.Finding(&f))
				out["line"] = line
				return a.emit(out)
			})
			if err != nil {
				return err
			}
			a.progress(fmt.Sprintf("%d rules (%d rejected), %d lines, %d events, %d that are none, %d findings", set.Loaded(), len(set.Rejected), s.Lines, s.Events, s.Malformed, s.Findings))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&dirs, "rules", nil, "folder or file of Sigma rules; may be given again")
	f.StringVar(&file, "events", "", "file of events, - for standard input")
	f.BoolVar(&builtin, "builtin", false, "the built-in detections too")
	f.StringArrayVar(&placeholders, "placeholder", nil, "NAME=VALUE for %NAME% in rules; may be given again")
	_ = cmd.MarkFlagRequired("events")
	_ = cmd.MarkFlagDirname("rules")
	return cmd
}

// sigmaOptions reads NAME=VALUE pairs.
func sigmaOptions(placeholders []string) (sigma.Options, error) {
	opt := sigma.Options{Placeholders: map[string][]string{}}
	for _, p := range placeholders {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return opt, fail(exitUsage, "--placeholder %q: want NAME=VALUE", p)
		}
		opt.Placeholders[name] = append(opt.Placeholders[name], value)
	}
	return opt, nil
}

func absentFile(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fail(exitNotFound, "%w", err)
	}
	return err
}

func newRulesCommand(a *app) *cobra.Command {
	var placeholders []string
	check := &cobra.Command{
		Use: "check DIR…", Short: "Which of the Sigma rules in folders this build can use, and why not the others", Args: cobra.MinimumNArgs(1),
		Example: "  omega rules check rules/\n  omega rules check rules/ --json | jq .rejected",
		RunE: func(cmd *cobra.Command, args []string) error {
			opt, err := sigmaOptions(placeholders)
			if err != nil {
				return err
			}
			set, err := sigma.Load(cmd.Context(), opt, args...)
			if err != nil {
				return absentFile(err)
			}
			faults := func(fs []sigma.Fault) []map[string]any {
				out := []map[string]any{}
				for _, f := range fs {
					out = append(out, map[string]any{"file": f.File, "why": f.Why})
				}
				return out
			}
			if a.json {
				err = a.emit(map[string]any{"files": set.Files, "rules": set.Total(), "loaded": set.Loaded(), "not_applicable": len(set.NotApplicable), "rejected": faults(set.Rejected), "not_applicable_rules": faults(set.NotApplicable)})
			} else {
				err = printRules(a.out, set, a.verbose)
			}
			if err == nil && len(set.Rejected) > 0 {
				err = fail(exitFailed, "%d of %d rules are rejected", len(set.Rejected), set.Total())
			}
			return err
		},
	}
	check.Flags().StringArrayVar(&placeholders, "placeholder", nil, "NAME=VALUE for %NAME% in rules; may be given again")
	return group("rules", "Detections: those that come with the program, and folders of Sigma rules", "  omega rules list\n  omega rules show omega.persistence.cron\n  omega rules check rules/",
		newRulesListCommand(a), newRulesShowCommand(a), check)
}

func printRules(out io.Writer, set *sigma.Set, verbose bool) error {
	_, err := fmt.Fprintf(out, "%d files, %d rules: %d loaded, %d not applicable here, %d rejected\n", set.Files, set.Total(), set.Loaded(), len(set.NotApplicable), len(set.Rejected))
	for _, f := range set.Rejected {
		_, werr := fmt.Fprintf(out, "rejected        %s: %s\n", printable(f.File), printable(f.Why))
		err = errors.Join(err, werr)
	}
	for _, f := range set.NotApplicable {
		if verbose {
			_, werr := fmt.Fprintf(out, "not applicable  %s: %s\n", printable(f.File), printable(f.Why))
			err = errors.Join(err, werr)
		}
	}
	return err
}
