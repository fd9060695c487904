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
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
)

// The roles this build has.
var roleNames = [...]string{"analyst", "decoy", "sentinel"}

func checkRole(r string) error {
	if !slices.Contains(roleNames[:], r) {
		return fail(exitUsage, "no such role: %q; there are %s", r, strings.Join(roleNames[:], ", "))
	}
	return nil
}

func newRoleCommand(a *app) *cobra.Command {
	var ttl time.Duration
	grant := &cobra.Command{
		Use: "grant PEER ROLE…", Short: "Grant roles to a peer: effective within a second, without restart",
		Example: "  omega role grant n2 decoy\n  omega role grant n3 sentinel analyst --ttl 8h", Args: cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completePeerThenRole,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeRoles(cmd.Context(), args[0], args[1:], func(subject []byte, roles []string) (authority.Body, error) {
				b := &authority.GrantBody{Subject: subject, Roles: roles}
				if ttl != 0 {
					if ttl < time.Minute {
						return nil, fail(exitUsage, "--ttl %s: want at least 1m", ttl)
					}
					b.NotAfter = time.Now().Add(ttl).Unix()
				}
				return b, nil
			}, "granted")
		},
	}
	grant.Flags().DurationVar(&ttl, "ttl", 0, "how long (default without end)")
	revoke := &cobra.Command{
		Use: "revoke PEER ROLE…", Short: "Take roles back", Example: "  omega role revoke n2 decoy", Args: cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completePeerThenRole,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeRoles(cmd.Context(), args[0], args[1:], func(subject []byte, roles []string) (authority.Body, error) {
				return &authority.RevokeRoleBody{Subject: subject, Roles: roles}, nil
			}, "revoked")
		},
	}
	show := &cobra.Command{
		Use: "list", Short: "Who holds which role", Example: "  omega role list", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.ListRoles(cmd.Context(), &apiv1.ListRolesRequest{})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, g := range r.Grants {
				if a.json {
					if err := a.emit(map[string]any{"did": g.Did, "name": g.Name, "role": g.Role, "by": g.By, "not_after": stamp(g.NotAfter), "running": g.Running}); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{g.Name, g.Role, clock(g.NotAfter), short(g.By)})
			}
			return a.table([]string{"PEER", "ROLE", "UNTIL", "BY"}, rows)
		},
	}
	return group("role", "Grant, revoke and list duties", "  omega role grant n2 decoy\n  omega role list", grant, revoke, show)
}

func (a *app) changeRoles(ctx context.Context, peer string, roles []string, body func(subject []byte, roles []string) (authority.Body, error), done string) error {
	roles = slices.Clone(roles)
	slices.Sort(roles)
	roles = slices.Compact(roles)
	for _, r := range roles {
		if err := checkRole(r); err != nil {
			return err
		}
	}
	return a.asOperator(ctx, func(c *client.Client, op *client.Operator) error {
		p, err := findPeer(ctx, c, peer)
		if err != nil {
			return err
		}
		subject, err := subjectOf(p.Did)
		if err != nil {
			return err
		}
		b, err := body(subject, roles)
		if err != nil {
			return err
		}
		id, err := op.Submit(ctx, b)
		if err != nil {
			return err
		}
		return a.say(map[string]any{"id": id, "did": p.Did, "roles": roles}, "%s %s: %s", done, printable(p.Name), strings.Join(roles, ", "))
	})
}

// findPeer finds a member by name, DID, libp2p peer ID, or an unambiguous beginning of these.
func findPeer(ctx context.Context, c *client.Client, want string) (*apiv1.Peer, error) {
	r, err := c.ListPeers(ctx, &apiv1.ListPeersRequest{})
	if err != nil {
		return nil, err
	}
	self, err := c.Status(ctx, &apiv1.StatusRequest{})
	if err != nil {
		return nil, err
	}
	var found []*apiv1.Peer
	for _, p := range append(r.Peers, &apiv1.Peer{Peer: self.Peer, Did: self.Did, Name: self.Name, Roles: self.Roles, Addrs: self.Addrs}) {
		if p.Name == want || p.Did == want || p.Peer == want {
			return p, nil
		}
		if len(want) >= 4 && (strings.HasPrefix(p.Did, "did:omega:"+want) || strings.HasPrefix(p.Did, want)) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, fail(exitNotFound, "no such peer: %q; `omega peers` lists them", want)
	}
	return nil, fail(exitUsage, "%q could be %d peers; say more of it", want, len(found))
}

func subjectOf(did string) ([]byte, error) {
	d, err := identity.ParseDID(did)
	if err != nil {
		return nil, err
	}
	b, err := d.Bytes()
	return b[:], err
}

func parseSwarm(s string) (id trust.SwarmID, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("the node names its swarm %q: not 64 hex digits", s)
	}
	copy(id[:], b)
	return id, nil
}

// oneOf finds the id that want begins.
func oneOf(what, want string, ids []string) (string, error) {
	var found []string
	for _, id := range ids {
		if id == want {
			return id, nil
		}
		if want != "" && strings.HasPrefix(id, want) && !slices.Contains(found, id) {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fail(exitNotFound, "no such %s: %q", what, want)
	}
	return "", fail(exitUsage, "%q could be %d %ss; say more of it", want, len(found), what)
}

func (a *app) completePeer(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.peerNames(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completePeerThenRole(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return a.peerNames(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
	}
	return roleNames[:], cobra.ShellCompDirectiveNoFileComp
}

// peerNames are for the shell's completion: silent where no node answers.
func (a *app) peerNames(ctx context.Context) []string {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c := a.client()
	defer c.Close()
	r, err := c.ListPeers(ctx, &apiv1.ListPeersRequest{})
	if err != nil {
		return nil
	}
	var names []string
	for _, p := range r.Peers {
		names = append(names, printable(p.Name))
	}
	return names
}
