package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
)

func newLedgerCommand(a *app) *cobra.Command {
	var peer, kind string
	var follow bool
	show := &cobra.Command{
		Use: "show [--peer PEER] [--kind KIND] [--follow]", Short: "The signed entries this node holds, everybody's",
		Example: "  omega ledger show --kind grant\n  omega ledger show --peer n2 --follow --json", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			s, err := c.Entries(cmd.Context(), &apiv1.EntriesRequest{Peer: peer, Kind: kind, Follow: follow})
			return stream(s, err, func(e *apiv1.Entry) error {
				id := e.Hash
				if len(id) > 32 {
					id = id[:32]
				}
				if a.json {
					body := json.RawMessage("null")
					if json.Valid([]byte(e.BodyJson)) {
						body = json.RawMessage(e.BodyJson)
					}
					return a.emit(map[string]any{"id": id, "hash": e.Hash, "author": e.Author, "chain": e.Chain, "seq": e.Seq, "kind": e.Kind, "time": stamp(e.Time), "bytes": len(e.Raw), "body": body})
				}
				_, err := fmt.Fprintf(a.out, "%s  %-10s %-9s %6d  %-11s %s  %s\n", clock(e.Time), printable(short(e.Author)), printable(e.Chain), e.Seq, printable(e.Kind), shortID(id), printable(e.BodyJson))
				return err
			})
		},
	}
	show.Flags().StringVar(&peer, "peer", "", "only entries of this author: a name or a DID")
	show.Flags().StringVar(&kind, "kind", "", "only entries of this kind")
	show.Flags().BoolVarP(&follow, "follow", "f", false, "go on as new ones come")
	_ = show.RegisterFlagCompletionFunc("peer", a.completePeer)
	return group("ledger", "What peers signed", "  omega ledger show --follow", show)
}
