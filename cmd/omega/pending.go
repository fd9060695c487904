package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
	"github.com/omega-mesh/omega/trust/authority"
)

func newPendingCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "pending", Short: "Responses and joiners that wait for a person, with their evidence", Example: "  omega pending\n  omega pending --json | jq -r .id", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.ListPending(cmd.Context(), &apiv1.ListPendingRequest{})
			if err != nil {
				return err
			}
			for _, p := range r.Pending {
				if a.json {
					evidence := []any{}
					for _, f := range p.Evidence {
						evidence = append(evidence, findingJSON(f))
					}
					v := responseJSON(p.Proposal)
					v["guard"], v["suggested"], v["evidence"] = p.Guard, p.Suggested, evidence
					if err := a.emit(v); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintf(a.out, "%s  %s %s  held back by %s; approving will %s\n", shortID(p.Proposal.GetId()), p.Proposal.GetAction(), printable(targetText(p.Proposal.GetTarget())), printable(p.Guard), printable(p.Suggested))
				for _, f := range p.Evidence {
					fmt.Fprintf(a.out, "    %s  %s  %s  %s\n", clock(f.Time), printable(f.Host), printable(f.Title), printable(subjectText(f.Subject)))
				}
			}
			return a.printJoiners(r.Joiners)
		},
	}
}

// printJoiners shows who waits to be let in.
func (a *app) printJoiners(joiners []*apiv1.Joiner) error {
	for _, j := range joiners {
		if a.json {
			if err := a.emit(map[string]any{"id": j.Id, "action": "join", "peer": j.Did, "name": j.Name, "words": j.Words, "roles": list(j.Roles),
				"invite": j.Invite, "address": j.Address, "asked": j.Asked, "time": stamp(j.Time)}); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(a.out, "%s  join %s  from %s, roles %s; approve only if its own screen shows %s\n", shortID(j.Id), printable(j.Name), printable(j.Address),
			printable(strings.Join(j.Roles, ",")), j.Words)
	}
	return nil
}

// admitJoiner answers a joiner that waits.
func (a *app) admitJoiner(ctx context.Context, op *client.Operator, joiners []*apiv1.Joiner, id string, approve bool) error {
	i := slices.IndexFunc(joiners, func(j *apiv1.Joiner) bool { return j.Id == id })
	j := joiners[i]
	if !approve {
		if _, err := op.Submit(ctx, &authority.RejectBody{Response: id}); err != nil {
			return err
		}
		return a.say(map[string]any{"peer": j.Did, "name": j.Name, "state": "rejected"}, "%s may not join", printable(j.Name))
	}
	invite, err := hex.DecodeString(j.Invite)
	if err != nil {
		return fmt.Errorf("the node names an invite %q: not hex", j.Invite)
	}
	if _, err := op.Submit(ctx, &authority.MemberBody{Inception: j.Inception, Invite: invite}); err != nil {
		return err
	}
	return a.say(map[string]any{"peer": j.Did, "name": j.Name, "state": "admitted"}, "%s is a member", printable(j.Name))
}

// decide answers a pending response as the operator.
func (a *app) decide(ctx context.Context, want string, body func(id string) authority.Body, wait time.Duration) error {
	return a.asOperator(ctx, func(c *client.Client, op *client.Operator) error {
		r, err := c.ListPending(ctx, &apiv1.ListPendingRequest{})
		if err != nil {
			return err
		}
		var ids []string
		for _, p := range r.Pending {
			ids = append(ids, p.Proposal.GetId())
		}
		for _, j := range r.Joiners {
			ids = append(ids, j.Id)
		}
		id, err := oneOf("pending response", want, ids)
		if err != nil {
			return err
		}
		if slices.Index(ids, id) >= len(r.Pending) {
			return a.admitJoiner(ctx, op, r.Joiners, id, wait != 0)
		}
		now := time.Now().UnixNano()
		if _, err := op.Submit(ctx, body(id)); err != nil {
			return err
		}
		if wait == 0 {
			return a.say(map[string]any{"response": id, "state": "rejected"}, "%s is rejected", shortID(id))
		}
		expect, err := acting(ctx, c)
		if err != nil {
			return err
		}
		return a.showReceipts(ctx, c, id, id, now, expect, wait)
	})
}

func newApproveCommand(a *app) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "approve ID", Short: "Let a pending response act, or a joiner in", Example: "  omega approve 3f9c2a1b", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.decide(cmd.Context(), args[0], func(id string) authority.Body { return &authority.ApproveBody{Response: id} }, max(wait, time.Millisecond))
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 5*time.Second, "how long to wait for the peers' receipts")
	return cmd
}

func newRejectCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "reject ID", Short: "Refuse a pending response, or a joiner", Example: "  omega reject 3f9c2a1b", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.decide(cmd.Context(), args[0], func(id string) authority.Body { return &authority.RejectBody{Response: id} }, 0)
		},
	}
}
