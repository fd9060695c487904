package main

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
)

// contextWithoutCancel is the command's context, deaf to the first signal.
func contextWithoutCancel(cmd *cobra.Command) context.Context {
	return context.WithoutCancel(cmd.Context())
}

func newStatusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "What this node is doing, and what is wrong with it",
		Example: `  omega status
  omega status --json | jq '.problems[]'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			s, err := c.Status(cmd.Context(), &apiv1.StatusRequest{})
			if err != nil {
				return err
			}
			if a.json {
				queues := map[string]any{}
				for name, q := range s.Queues {
					queues[name] = map[string]any{"len": q.Len, "cap": q.Cap, "dropped": q.Dropped}
				}
				problems := []any{}
				for _, p := range s.Problems {
					problems = append(problems, map[string]any{"code": p.Code, "severity": p.Severity, "text": p.Text, "fix": p.Fix})
				}
				sensors := map[string]string{}
				maps.Copy(sensors, s.Sensors)
				rejected := map[string]uint64{}
				maps.Copy(rejected, s.Rejected)
				return a.emit(map[string]any{"peer": s.Peer, "did": s.Did, "name": s.Name, "swarm": s.Swarm, "swarm_name": s.SwarmName, "roles": list(s.Roles),
					"peers": s.Peers, "members": s.Members, "synced": s.Synced, "uptime_ms": s.UptimeMs, "sensors": sensors, "queues": queues, "mode": s.Mode,
					"problems": problems, "addrs": list(s.Addrs), "version": s.Version, "rejected": rejected})
			}
			synced := "synced"
			if !s.Synced {
				synced = "not synced yet"
			}
			fmt.Fprintf(a.out, "%s  %s  swarm %s (%s)\n", printable(s.Name), short(s.Did), printable(s.SwarmName), shortID(s.Swarm))
			fmt.Fprintf(a.out, "roles    %s\npeers    %d of %d members connected, %s\nmode     %s\nup       %s\n", strings.Join(s.Roles, ", "), s.Peers, max(s.Members, 1)-1, synced, s.Mode, milliseconds(s.UptimeMs))
			for _, name := range slices.Sorted(maps.Keys(s.Sensors)) {
				fmt.Fprintf(a.out, "sensor   %s: %s\n", printable(name), printable(s.Sensors[name]))
			}
			for _, name := range slices.Sorted(maps.Keys(s.Queues)) {
				if q := s.Queues[name]; q.Dropped > 0 {
					fmt.Fprintf(a.out, "queue    %s: %d of %d, %d dropped\n", printable(name), q.Len, q.Cap, q.Dropped)
				}
			}
			for _, p := range s.Problems {
				fmt.Fprintf(a.out, "%-8s %s: %s\n         %s\n", p.Severity, printable(p.Code), printable(p.Text), printable(p.Fix))
			}
			return nil
		},
	}
}

func newDoctorCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "What this host can see and stop, and what it cannot",
		Example: `  omega doctor
  omega doctor --json | jq '.checks[] | select(.ok | not)'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.Doctor(cmd.Context(), &apiv1.DoctorRequest{})
			if err != nil {
				return err
			}
			checks := []any{}
			for _, k := range r.Checks {
				if a.json {
					checks = append(checks, map[string]any{"name": k.Name, "ok": k.Ok, "detail": k.Detail, "lost": k.Lost})
					continue
				}
				mark := "ok  "
				if !k.Ok {
					mark = "LOST"
				}
				fmt.Fprintf(a.out, "%s  %-24s %s\n", mark, printable(k.Name), printable(k.Detail))
				if k.Lost != "" {
					fmt.Fprintf(a.out, "      %-24s lost: %s\n", "", printable(k.Lost))
				}
			}
			if a.json {
				return a.emit(map[string]any{"checks": checks})
			}
			return nil
		},
	}
}

func newPeersCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "peers",
		Short: "The swarm's members, as this node sees them",
		Example: `  omega peers
  omega peers --json | jq -r .did`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.ListPeers(cmd.Context(), &apiv1.ListPeersRequest{})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, p := range r.Peers {
				if a.json {
					if err := a.emit(map[string]any{"peer": p.Peer, "did": p.Did, "name": p.Name, "roles": list(p.Roles), "addrs": list(p.Addrs), "rtt_ms": p.RttMs,
						"since": stamp(p.Since), "head": p.Head, "reputation": p.Reputation, "connected": p.Connected}); err != nil {
						return err
					}
					continue
				}
				state, rtt := "away", ""
				if p.Connected {
					state, rtt = "connected", fmt.Sprintf("%.1f ms", p.RttMs)
				}
				rows = append(rows, []string{p.Name, short(p.Did), state, rtt, clock(p.Since), fmt.Sprint(p.Head), strings.Join(p.Roles, ",")})
			}
			return a.table([]string{"NAME", "PEER", "STATE", "RTT", "SINCE", "HEAD", "ROLES"}, rows)
		},
	}
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Version, commit and date of this build", Example: "  omega version --json", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.say(map[string]any{"version": version, "commit": commit, "date": date, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH},
				"omega %s (%s, %s, %s %s/%s)", version, shortID(commit), date, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}
