package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/root"
)

func newPeerCommand(a *app) *cobra.Command {
	return group("peer", "Put a peer out of the swarm, and let it in again",
		"  omega peer suspend n4 --why 'acts strangely'\n  omega peer revoke n4 --why 'disk image sold'\n  omega peer unrevoke n4 --why 'wiped and installed anew'",
		newPeerSuspendCommand(a), newPeerRevokeCommand(a), newPeerUnrevokeCommand(a))
}

func newPeerSuspendCommand(a *app) *cobra.Command {
	var why string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "suspend PEER --why TEXT", Short: "Keep a peer out for a time: its live connections close everywhere",
		Long: `Keep a peer out for a day at most: its live connections close everywhere. One operator suffices. Where a swarm has
several, one alone keeps out at most a tenth of the peers at once, none twice within a week, and never an operator's
own; for more, see "omega peer revoke".`,
		Example: "  omega peer suspend n4 --why 'root shell from a decoy session' --ttl 8h", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completePeer,
		RunE: func(cmd *cobra.Command, args []string) error {
			if ttl < time.Minute || ttl > trust.MaxSuspension {
				return fail(exitUsage, "--ttl %s: want 1m to %s", ttl, trust.MaxSuspension)
			}
			if err := needWhy(why); err != nil {
				return err
			}
			return a.asOperator(cmd.Context(), func(c *client.Client, op *client.Operator) error {
				p, err := findPeer(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				until := time.Now().Add(ttl)
				id, err := suspend(cmd.Context(), op, p, why, until)
				if err != nil {
					return err
				}
				return a.say(map[string]any{"id": id, "did": p.Did, "state": "suspended", "until": until.UTC().Format(time.RFC3339Nano)},
					"%s is suspended until %s", p.Name, until.Local().Format("2006-01-02 15:04"))
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept for ever")
	cmd.Flags().DurationVar(&ttl, "ttl", trust.MaxSuspension, "how long")
	return cmd
}

func needWhy(why string) error {
	if why == "" {
		return fail(exitUsage, "--why is needed: it is kept with the entry for ever")
	}
	return nil
}

func suspend(ctx context.Context, op *client.Operator, p *apiv1.Peer, why string, until time.Time) (string, error) {
	subject, err := subjectOf(p.Did)
	if err != nil {
		return "", err
	}
	return op.Submit(ctx, &authority.SuspendBody{Subject: subject, NotAfter: until.Unix(), Why: why})
}

func newPeerRevokeCommand(a *app) *cobra.Command {
	var why, file string
	var authorityStands, activityStands int64
	cmd := &cobra.Command{
		Use: "revoke PEER --why TEXT", Short: "Put a peer out for good: its live connections close everywhere",
		Long: `Put a peer out for good: its live connections close everywhere. Where more than one operator must agree, the peer is
suspended at once, and a proposal with this operator's signature is written for the others.`,
		Example: `  omega peer revoke n4 --why 'disk image sold'
  omega peer revoke n4 --why stolen --authority-stands 3   # what it admitted from its entry 3 on is void
  omega root sign revoke-n4.pem && omega root submit revoke-n4.pem   # the next operator, where k is more than one`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completePeer,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needWhy(why); err != nil {
				return err
			}
			return a.asOperator(cmd.Context(), func(c *client.Client, op *client.Operator) error {
				body, err := revocation(cmd.Context(), c, args[0], why, authorityStands, activityStands)
				if err != nil {
					return err
				}
				p, err := findPeer(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				return a.changeRoot(cmd.Context(), c, op, p, body, file, func() (string, error) {
					until := time.Now().Add(trust.MaxSuspension)
					_, err := suspend(cmd.Context(), op, p, why, until)
					return "it is suspended for a day meanwhile", err
				})
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept for ever")
	cmd.Flags().StringVar(&file, "file", "", "where the proposal goes (default revoke-NAME.pem here)")
	cmd.Flags().Int64Var(&authorityStands, "authority-stands", -1, "how many of its authority entries stand (default all that this node has)")
	cmd.Flags().Int64Var(&activityStands, "activity-stands", -1, "how many of its findings and receipts stand (default all that this node has)")
	return cmd
}

func newPeerUnrevokeCommand(a *app) *cobra.Command {
	var why, file string
	cmd := &cobra.Command{
		Use: "unrevoke PEER --why TEXT", Short: "Let a peer in again that was revoked or suspended", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completePeer,
		Long: `Let a peer in again: every revocation, vote and suspension said so far is undone. It takes as many operators as to
revoke. A peer that was proved to have signed two different entries stays out: it must join with a new identity.`,
		Example: "  omega peer unrevoke n4 --why 'the wrong host'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needWhy(why); err != nil {
				return err
			}
			return a.asOperator(cmd.Context(), func(c *client.Client, op *client.Operator) error {
				p, err := findPeer(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				subject, err := subjectOf(p.Did)
				if err != nil {
					return err
				}
				return a.changeRoot(cmd.Context(), c, op, p, &root.Unrevoke{Subject: subject, Why: why}, file, nil)
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept for ever")
	cmd.Flags().StringVar(&file, "file", "", "where the proposal goes (default unrevoke-NAME.pem here)")
	return cmd
}

// changeRoot changes the root where this operator's signature is enough, and else writes the proposal for the others;
// meanwhile, if not nil, is what this operator may do alone.
func (a *app) changeRoot(ctx context.Context, c *client.Client, op *client.Operator, p *apiv1.Peer, body root.Body, file string, meanwhile func() (string, error)) error {
	r, err := c.Root(ctx, &apiv1.RootRequest{})
	if err != nil {
		return err
	}
	e, err := propose(r, body)
	if err != nil {
		return fail(exitUsage, "%w", err)
	}
	if e, err = op.SignRoot(e); err != nil {
		return err
	}
	if r.K <= 1 {
		return a.submitRoot(ctx, c, e)
	}
	note := ""
	if meanwhile != nil {
		if note, err = meanwhile(); err != nil {
			note = "it is not suspended meanwhile: " + explain(err)
		}
	}
	if file == "" {
		file = e.Kind.String() + "-" + p.Name + ".pem"
	}
	text, err := e.Text()
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return fmt.Errorf("write the proposal: %w", err)
	}
	return a.say(map[string]any{"hash": e.Hash().String(), "did": p.Did, "state": "proposed", "file": file, "have": 1, "need": r.K, "note": note},
		"%s %s: 1 of %d signatures; %s. Next: another operator runs `omega root sign %s`, then `omega root submit %s`", e.Kind, p.Name, r.K, note, file, file)
}
