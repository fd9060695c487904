package main

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
)

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// findResponse finds a response by the beginning of its id.
func findResponse(ctx context.Context, c *client.Client, want string) (string, error) {
	r, err := c.ListResponses(ctx, &apiv1.ListResponsesRequest{})
	if err != nil {
		return "", err
	}
	var ids []string
	for _, x := range r.Responses {
		ids = append(ids, x.Id)
	}
	return oneOf("response", want, ids)
}

func targetText(t *apiv1.Target) string {
	switch {
	case t.GetAddress() != "":
		return t.Address
	case t.GetDomain() != "":
		return t.Domain
	case t.GetPort() != 0:
		return "port " + strconv.Itoa(int(t.Port)) + map[uint32]string{6: "/tcp", 17: "/udp"}[t.Protocol]
	case t.GetPath() != "":
		return t.Path
	case t.GetSha256() != "":
		return "sha256:" + t.Sha256
	case t.GetPid() != 0:
		return fmt.Sprintf("pid %d on %s", t.Pid, short(t.Peer))
	case t.GetPeer() != "":
		return short(t.Peer)
	case t.GetInode() != 0:
		return fmt.Sprintf("inode %d", t.Inode)
	}
	return ""
}

func responseJSON(r *apiv1.Response) map[string]any {
	t := map[string]any{}
	if x := r.Target; x != nil {
		for k, v := range map[string]string{"address": x.Address, "path": x.Path, "sha256": x.Sha256, "peer": x.Peer, "domain": x.Domain} {
			if v != "" {
				t[k] = v
			}
		}
		if x.Pid != 0 {
			t["pid"], t["tree"] = x.Pid, x.Tree
		}
		if x.Port != 0 {
			t["port"], t["protocol"] = x.Port, x.Protocol
		}
		if x.Inode != 0 {
			t["inode"], t["device"] = x.Inode, x.Device
		}
	}
	return map[string]any{"id": r.Id, "action": r.Action, "target": t, "scope": list(r.Scope), "reason": r.Reason, "authority": r.Authority, "by": r.By,
		"findings": list(r.Findings), "issued": stamp(r.Issued), "ttl_ms": r.TtlMs, "releases": r.Releases, "state": r.State, "remaining_ms": r.RemainingMs}
}

func newResponsesCommand(a *app) *cobra.Command {
	var active bool
	cmd := &cobra.Command{
		Use: "responses [--active]", Short: "What is blocked, by whom, why, until when", Example: "  omega responses --active", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.ListResponses(cmd.Context(), &apiv1.ListResponsesRequest{Active: active})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, x := range r.Responses {
				if a.json {
					if err := a.emit(responseJSON(x)); err != nil {
						return err
					}
					continue
				}
				left := ""
				if x.RemainingMs > 0 {
					left = milliseconds(x.RemainingMs)
				}
				rows = append(rows, []string{shortID(x.Id), x.Action, targetText(x.Target), x.State, left, x.Authority, short(x.By), x.Reason})
			}
			return a.table([]string{"ID", "ACTION", "TARGET", "STATE", "LEFT", "BY", "WHO", "WHY"}, rows)
		},
	}
	cmd.Flags().BoolVar(&active, "active", false, "only what stands now")
	return cmd
}
