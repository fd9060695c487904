package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
)

func newIntegrityCommand(a *app) *cobra.Command {
	return group("integrity", "Watched files: what they are to be, and what differs", `  omega integrity status
  omega integrity accept /etc/ssh
  omega events --where 'class == "file_integrity"' --since 24h`,
		newIntegrityStatusCommand(a), newIntegrityRescanCommand(a), newIntegrityAcceptCommand(a))
}

func newIntegrityStatusCommand(a *app) *cobra.Command {
	var peers bool
	cmd := &cobra.Command{Use: "status [--peers]", Short: "How this host's watched files stand against their baseline",
		Long: `How this host's watched files stand against their baseline, and each that differs: what it was, what it is. What differs stays
until it is accepted. With --peers: what each member last signed of its own baseline.`,
		Example: `  omega integrity status
  omega integrity status --peers
  omega integrity status --json | jq -r '.differences[].path'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.Integrity(cmd.Context(), &apiv1.IntegrityRequest{})
			if err != nil {
				return err
			}
			if peers {
				return a.showWords(r)
			}
			return a.showIntegrity(r)
		}}
	cmd.Flags().BoolVar(&peers, "peers", false, "what each member last signed of its own")
	return cmd
}

func (a *app) showWords(r *apiv1.IntegrityResponse) error {
	var rows [][]string
	for _, w := range r.Words {
		if a.json {
			if err := a.emit(map[string]any{"peer": w.Peer, "host": w.Host, "time": stamp(w.Time), "why": w.Why, "by": w.By, "entries": w.Entries, "differ": w.Differ,
				"skipped": w.Skipped, "root": w.Root, "file": w.File}); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{w.Host, clock(w.Time), strings.TrimSpace(w.Why + " " + w.By), fmt.Sprint(w.Entries), fmt.Sprint(w.Differ), w.Root[:min(len(w.Root), 16)]})
	}
	return a.table([]string{"HOST", "SIGNED", "WHY", "ENTRIES", "DIFFER", "ROOT"}, rows)
}

func (a *app) showIntegrity(r *apiv1.IntegrityResponse) error {
	if a.json {
		differences := []any{}
		for _, d := range r.Differences {
			differences = append(differences, map[string]any{"path": ocsf.Escape(string(d.Path)), "what": d.What, "was": ocsf.Escape(string(d.Was)), "is": ocsf.Escape(string(d.Is))})
		}
		return a.emit(map[string]any{"phase": r.Phase, "why": r.Why, "live": r.Live, "entries": r.Entries, "differ": r.Differ, "skipped": r.Skipped,
			"scan": map[string]any{"entries": r.Done, "bytes": r.Bytes}, "scans": r.Scans, "dropped": r.Dropped, "unsigned": r.Unsigned, "fault": r.Fault, "looked": stamp(r.Looked),
			"file": r.File, "paths": list(r.Paths), "exclude": list(r.Exclude), "differences": differences})
	}
	line := fmt.Sprintf("%s: %d entries below %d paths, %d differ", r.Phase, r.Entries, len(r.Paths), r.Differ)
	switch r.Phase {
	case "off":
		line = "off: " + r.Why
	case "building", "scanning":
		line = fmt.Sprintf("%s: %d entries and %d MiB so far", r.Phase, r.Done, r.Bytes>>20)
	}
	if r.Phase != "off" && !r.Live {
		line += "; changes are found by an hourly scan, and nobody knows by whom"
	}
	if r.Fault != "" {
		line += "; fault: " + r.Fault
	}
	fmt.Fprintln(a.out, printable(line))
	var rows [][]string
	for _, d := range r.Differences {
		rows = append(rows, []string{string(d.Path), d.What, brief(string(d.Was)), brief(string(d.Is))})
	}
	if uint64(len(rows)) < r.Differ && len(rows) > 0 {
		defer fmt.Fprintf(a.errOut, "and %d more\n", r.Differ-uint64(len(rows)))
	}
	return a.table([]string{"PATH", "CHANGED", "WAS", "IS"}, rows)
}

// brief cuts a digest to what tells two apart.
func brief(s string) string {
	rest, ok := strings.CutPrefix(s, "blake3 ")
	if !ok || len(rest) < 64 {
		return s
	}
	return rest[:12] + rest[64:]
}

func newIntegrityRescanCommand(a *app) *cobra.Command {
	var full, wait bool
	cmd := &cobra.Command{Use: "rescan [--full] [--wait]", Short: "Look at all watched files now",
		Long: `Look at all watched files now. A file whose inode, size, mode and times are as they were is not read; with --full each is. A
change that nobody saw being made is told as an event "between" two looks.`,
		Example: `  omega integrity rescan
  omega integrity rescan --full --wait`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			before, err := c.Integrity(cmd.Context(), &apiv1.IntegrityRequest{})
			if err != nil {
				return err
			}
			if _, err := c.IntegrityRescan(cmd.Context(), &apiv1.IntegrityRescanRequest{Full: full}); err != nil {
				return err
			}
			if !wait {
				return a.say(map[string]any{"state": "asked", "full": full}, "asked for; see `omega integrity status`")
			}
			return a.waitForScan(cmd.Context(), c, before.Scans)
		}}
	cmd.Flags().BoolVar(&full, "full", false, "read every file, whatever its inode and times say")
	cmd.Flags().BoolVar(&wait, "wait", false, "until it is done")
	return cmd
}

// waitForScan shows how far a scan is until there was one more than scans.
func (a *app) waitForScan(ctx context.Context, c *client.Client, scans uint64) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		r, err := c.Integrity(ctx, &apiv1.IntegrityRequest{})
		if err != nil {
			return err
		}
		if r.Scans > scans {
			return a.say(map[string]any{"state": "done", "entries": r.Entries, "differ": r.Differ}, "done: %d entries, %d differ", r.Entries, r.Differ)
		}
		a.progress(fmt.Sprintf("%s: %d entries, %d MiB", r.Phase, r.Done, r.Bytes>>20))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func newIntegrityAcceptCommand(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{Use: "accept PATH… | --all", Short: "Take what differs for right: the baseline is signed anew",
		Long: `Take what differs at these paths, and below them, for right. The new baseline is signed into the feed with the user who said
so, and every member sees it.`,
		Example: `  omega integrity accept /etc/ssh/sshd_config
  omega integrity accept /usr/bin /usr/sbin
  omega integrity accept --all`,
		Args: cobra.ArbitraryArgs, ValidArgsFunction: a.completeDifference,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return fail(exitUsage, "name paths, or --all; see `%s --help`", cmd.CommandPath())
			}
			in := &apiv1.IntegrityAcceptRequest{}
			for _, p := range args {
				p, err := filepath.Abs(p)
				if err != nil {
					return err
				}
				in.Paths = append(in.Paths, []byte(p))
			}
			c := a.client()
			defer c.Close()
			r, err := c.IntegrityAccept(cmd.Context(), in)
			if err != nil {
				return err
			}
			if r.Accepted == 0 && len(args) > 0 {
				return fail(exitNotFound, "nothing differs at %s; see `omega integrity status`", strings.Join(args, ", "))
			}
			return a.say(map[string]any{"accepted": r.Accepted}, "accepted %d; the baseline is signed anew within seconds", r.Accepted)
		}}
	cmd.Flags().BoolVar(&all, "all", false, "everything that differs")
	return cmd
}

// completeDifference offers the paths that differ.
func (a *app) completeDifference(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
	defer cancel()
	c := a.client()
	defer c.Close()
	r, err := c.Integrity(ctx, &apiv1.IntegrityRequest{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var out []string
	for _, d := range r.Differences {
		out = append(out, printable(string(d.Path)))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
