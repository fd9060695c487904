package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
)

func newAllowCommand(a *app) *cobra.Command {
	here := func(use, short string, f func(context.Context, *client.Client, string) error, done string) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Example: "  omega allow " + use[:strings.IndexByte(use, ' ')] + " 10.0.0.0/8", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				c := a.client()
				defer c.Close()
				if err := f(cmd.Context(), c, args[0]); err != nil {
					return err
				}
				return a.say(map[string]any{"what": args[0], "state": done}, "%s: %s", args[0], done)
			}}
	}
	show := &cobra.Command{Use: "list", Short: "What no response may touch here", Example: "  omega allow list", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.ListAllowed(cmd.Context(), &apiv1.ListAllowedRequest{})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, x := range r.Allowed {
				if a.json {
					if err := a.emit(map[string]any{"what": x.What, "by": x.By, "why": x.Why}); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{x.What, x.By, x.Why})
			}
			return a.table([]string{"WHAT", "BY", "WHY"}, rows)
		}}
	return group("allow", "What must never be blocked on this host", "  omega allow add 192.0.2.10\n  omega allow list",
		here("add ADDR|PATH", "Protect an address, a prefix or an executable on this host", func(ctx context.Context, c *client.Client, what string) error {
			_, err := c.Allow(ctx, &apiv1.AllowRequest{What: what})
			return err
		}, "never blocked here"),
		show,
		here("remove ADDR|PATH", "End that protection", func(ctx context.Context, c *client.Client, what string) error {
			_, err := c.Disallow(ctx, &apiv1.DisallowRequest{What: what})
			return err
		}, "no longer protected here"))
}
