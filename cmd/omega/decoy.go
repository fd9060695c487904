package main

import (
	"fmt"

	"github.com/spf13/cobra"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
)

func newDecoyCommand(a *app) *cobra.Command {
	return group("decoy", "Services that nobody has business with", "  omega decoy list", &cobra.Command{
		Use: "list", Short: "This host's decoys and how often each was touched", Example: "  omega decoy list --json", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.ListDecoys(cmd.Context(), &apiv1.ListDecoysRequest{})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, d := range r.Decoys {
				if a.json {
					if err := a.emit(map[string]any{"peer": d.Peer, "host": d.Host, "service": d.Service, "port": d.Port, "touches": d.Touches, "state": d.State}); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{d.Host, d.Service, fmt.Sprint(d.Port), fmt.Sprint(d.Touches), d.State})
			}
			return a.table([]string{"HOST", "SERVICE", "PORT", "TOUCHES", "STATE"}, rows)
		},
	})
}
