package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/modules/pack"
)

func newRulesListCommand(a *app) *cobra.Command {
	var technique, tactic string
	cmd := &cobra.Command{
		Use: "list", Short: "The detections that come with the program", Args: cobra.NoArgs,
		Example: "  omega rules list\n  omega rules list --technique T1053\n  omega rules list --json | jq -r .rules[].attack[] | sort -u | wc -l",
		RunE: func(*cobra.Command, []string) error {
			all, err := pack.Rules()
			if err != nil {
				return err
			}
			all = slices.DeleteFunc(all, func(r pack.Rule) bool {
				return tactic != "" && r.Tactic != tactic || technique != "" && !slices.ContainsFunc(r.Attack, func(id string) bool {
					return id == technique || strings.HasPrefix(id, technique+".")
				})
			})
			if a.json {
				list := []map[string]any{}
				for i := range all {
					list = append(list, ruleJSON(&all[i]))
				}
				return a.emit(map[string]any{"rules": list})
			}
			for _, r := range all {
				_, werr := fmt.Fprintf(a.out, "%-13s %-5s %-52s %s  (%s)\n", r.Level, r.Kind, r.ID, r.Title, strings.Join(r.Attack, " "))
				err = errors.Join(err, werr)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&technique, "technique", "", "only those for this ATT&CK technique, its sub-techniques included")
	f.StringVar(&tactic, "tactic", "", "only those of this tactic, e.g. persistence")
	return cmd
}

func newRulesShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Why a detection that comes with the program is bad news, and what to do about it", Args: cobra.ExactArgs(1),
		Example: "  omega rules show omega.persistence.cron\n  omega rules show omega.impact.miner --json",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			all, err := pack.Rules()
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			ids := make([]string, len(all))
			for i, r := range all {
				ids[i] = r.ID
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := pack.Rules()
			if err != nil {
				return err
			}
			i := slices.IndexFunc(all, func(r pack.Rule) bool { return r.ID == args[0] })
			if i < 0 {
				return fail(exitNotFound, "no detection %q comes with the program: see omega rules list", args[0])
			}
			r := &all[i]
			text, err := r.Text()
			if err != nil {
				return err
			}
			if a.json {
				out := ruleJSON(r)
				out["text"] = text
				return a.emit(out)
			}
			_, err = fmt.Fprintf(a.out, "%s\n%s, %s, %s\n\n", r.Title, r.ID, r.Level, r.Kind)
			for _, id := range r.Attack {
				_, werr := fmt.Fprintf(a.out, "ATT&CK      %s %s\n", id, pack.Technique(id))
				err = errors.Join(err, werr)
			}
			_, werr := fmt.Fprintf(a.out, "seen by     %s\n\nWhy         %s\n\nWhat to do  %s\n\nMay be      %s\n\n%s", strings.Join(r.Components, ", "), r.Reason, r.Response, strings.Join(r.FalsePositives, "\n            "), text)
			return errors.Join(err, werr)
		},
	}
}

func ruleJSON(r *pack.Rule) map[string]any {
	return map[string]any{"id": r.ID, "title": r.Title, "level": r.Level, "kind": string(r.Kind), "tactic": r.Tactic, "attack": r.Attack,
		"data_components": r.Components, "reason": r.Reason, "response": r.Response, "false_positives": r.FalsePositives}
}
