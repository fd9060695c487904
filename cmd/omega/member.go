package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/node"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
)

func newInitCommand(a *app) *cobra.Command {
	var nextKey string
	var name, swarm, operators, suite string
	var inceptions []string
	var recovery int
	var roles []string
	var keep keepFlags
	cmd := &cobra.Command{
		Use:   "init [--swarm NAME]",
		Short: "Make this host's identity; with --swarm, found a swarm whose operator it is",
		Long: `Make this host's identity in the state folder. With --swarm, found a swarm as well: its operator's key is made beside
the node's, in operator/, and signs only in commands that a person runs here.

With --operators K/N a change of the swarm's root takes K operators' signatures. The other operators make their keys on
machines of their own ("omega root operator new") and hand over the inception file. Where fewer are given than N, the
rest are made here, in operator-2, operator-3, …: good for a lab; elsewhere carry them away. --recovery makes keys for
the day when K operators' keys are lost or stolen.

With --key-store tpm the node's key is sealed to this host's TPM and to how the host starts (--pcrs); with pkcs11 it lies in
a token. The next key and the operator's are not: they are the way back, so say --passphrase-file or --next-key.`,
		Example: `  omega init --swarm home
  omega init --name web1 --dir /srv/omega
  omega init --swarm vault --suite cnsa                # ML-DSA-87 and SecP384r1MLKEM1024, TCP only
  omega init --swarm home --operators 2/3 --recovery 3 --operator-inception alice.inception --operator-inception bob.inception
  omega init --swarm home --passphrase-file pass.txt   # keys at rest need a passphrase
  omega init --key-store tpm --next-key /media/usb/omega-next`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, n, err := parseOperators(operators)
			if err != nil {
				return err
			}
			if swarm == "" && (n > 1 || recovery > 0 || len(inceptions) > 0) {
				return fail(exitUsage, "--operators, --operator-inception and --recovery found a swarm: say --swarm")
			}
			if len(inceptions) >= n {
				return fail(exitUsage, "--operators %s: this host's operator and %d inceptions are more", operators, len(inceptions))
			}
			var records [][]byte
			for _, path := range inceptions {
				raw, err := node.ReadBounded(path, trust.MaxInception)
				if err != nil {
					return fmt.Errorf("read the operator's inception: %w", err)
				}
				records = append(records, raw)
			}
			chosen, err := trust.ParseSuite(suite)
			if err != nil {
				return fail(exitUsage, "--suite: %s", err)
			}
			slices.Sort(roles)
			roles = slices.Compact(roles)
			for _, r := range roles {
				if err := checkRole(r); err != nil {
					return err
				}
			}
			passphrase, err := a.readPassphrase()
			if err != nil {
				return err
			}
			defer clear(passphrase)
			store, closeStore, err := a.keyStore(cmd.Context(), &keep)
			if err != nil {
				return err
			}
			defer closeStore()
			random, endRandom, err := a.random(cmd.Context(), cmd.Flags(), store)
			if err != nil {
				return err
			}
			defer endRandom()
			made, err := node.Init(a.stateDir(), node.InitOptions{Name: name, Swarm: swarm, Suite: chosen, Roles: roles, Passphrase: passphrase, Store: store, Random: random,
				NextKey: nextKey, K: k, Operators: n, Inceptions: records, Recovery: recovery})
			if err != nil {
				return err
			}
			if a.json {
				return a.emit(made)
			}
			fmt.Fprintf(a.out, "identity  %s (%s)\n", made.DID, made.Name)
			if made.Swarm != "" {
				fmt.Fprintf(a.out, "swarm     %s (%s)\noperator  %s\n", made.Swarm, made.SwarmName, made.Operator)
				if len(made.Operators) > 1 {
					fmt.Fprintf(a.out, "operators %d of %d must sign a change of the root\n", made.K, len(made.Operators))
				}
				for _, path := range made.Carry {
					fmt.Fprintf(a.out, "CARRY AWAY %s: whoever has this folder has every key in it\n", path)
				}
				fmt.Fprintf(a.out, "roles     %s\nnext: `omega up` here; then, in another terminal, `omega invite` for each further host\n", strings.Join(made.Roles, ", "))
			} else {
				fmt.Fprintln(a.out, "next: `omega join omega1…` with a token from a member of the swarm")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&nextKey, "next-key", "", "folder for the pre-rotated next key, best on removable media (default beside the state folder)")
	cmd.Flags().StringVar(&name, "name", "", "this peer's name in the swarm (default the host's name)")
	cmd.Flags().StringVar(&swarm, "swarm", "", "found a swarm of this name")
	cmd.Flags().StringSliceVar(&roles, "roles", []string{"analyst", "sentinel"}, "with --swarm: roles this node is granted")
	cmd.Flags().StringVar(&operators, "operators", "1/1", "K of N operators rule the swarm")
	cmd.Flags().StringArrayVar(&inceptions, "operator-inception", nil, "inception file of another operator; may be repeated")
	cmd.Flags().IntVar(&recovery, "recovery", 0, "make so many recovery keys, more than half of which must sign a recovery")
	cmd.Flags().StringVar(&suite, "suite", "default", "cryptographic suite, fixed for the swarm's life: default, or cnsa (CNSA 2.0)")
	keep.declare(cmd)
	return cmd
}

// parseOperators reads K/N.
func parseOperators(s string) (k, n int, err error) {
	left, right, ok := strings.Cut(s, "/")
	if ok {
		k, err = strconv.Atoi(left)
		if err == nil {
			n, err = strconv.Atoi(right)
		}
	}
	if !ok || err != nil || n < 1 || n > trust.MaxOperators || k > n || 2*k <= n {
		return 0, 0, fail(exitUsage, "--operators %q: want K/N, K more than half of N, N at most %d", s, trust.MaxOperators)
	}
	return k, n, nil
}

func newInviteCommand(a *app) *cobra.Command {
	var roles []string
	var uses int
	var ttl time.Duration
	var approve bool
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Print one token that lets hosts join",
		Long: `Print one token that lets hosts join. Whoever holds it may join until it expires or is used up; no inviter need be
online then. Give it to the host by a channel you trust.`,
		Example: `  omega invite
  omega invite --uses 20 --ttl 1h --roles sentinel,analyst
  omega invite --approve --roles scheduler   # a person lets each joiner in
  omega invite --roles decoy --json | jq -r .token | ssh web2 omega join - --up`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ttl < time.Minute || ttl > trust.MaxInviteLifetime {
				return fail(exitUsage, "--ttl %s: want 1m to %s", ttl, trust.MaxInviteLifetime)
			}
			if uses < 1 || uses > trust.MaxInviteUses {
				return fail(exitUsage, "--uses %d: want 1 to %d", uses, trust.MaxInviteUses)
			}
			slices.Sort(roles)
			roles = slices.Compact(roles)
			for _, r := range roles {
				if err := checkRole(r); err != nil {
					return err
				}
			}
			if acts := slices.Index(roles, "scheduler"); acts >= 0 && !approve {
				return fail(exitUsage, "--roles %s: it runs work on other hosts, so a person must approve each joiner: say --approve", roles[acts])
			}
			return a.asOperator(cmd.Context(), func(c *client.Client, op *client.Operator) error {
				status, err := c.Status(cmd.Context(), &apiv1.StatusRequest{})
				if err != nil {
					return err
				}
				swarm, err := parseSwarm(status.Swarm)
				if err != nil {
					return err
				}
				token, body, err := authority.NewInvite(swarm, op.DID(), authority.InviteOptions{
					Suite: op.Suite(), Roles: roles, Uses: uses, NotAfter: time.Now().Add(ttl), Approve: approve, Addrs: inviteAddrs(cmd.Context(), c, status),
				})
				if err != nil {
					return err
				}
				id, err := op.Submit(cmd.Context(), body)
				if err != nil {
					return err
				}
				if a.json {
					return a.emit(map[string]any{"id": id, "token": token.Secret(), "roles": list(roles), "uses": uses,
						"expires": token.NotAfter.UTC().Format(time.RFC3339Nano)})
				}
				fmt.Fprintln(a.out, token.Secret())
				a.progress(fmt.Sprintf("invite %s: %d use(s), until %s; withdraw it with `omega invite withdraw %s`", shortID(id), uses, token.NotAfter.Local().Format("2006-01-02 15:04"), shortID(id)))
				return nil
			})
		},
	}
	cmd.Flags().StringSliceVar(&roles, "roles", []string{"analyst", "sentinel"}, "roles each joiner is granted")
	cmd.Flags().IntVar(&uses, "uses", 1, "how many hosts may join with it")
	cmd.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "how long it is good for")
	cmd.Flags().BoolVar(&approve, "approve", false, "ask a person before a joiner is admitted")
	cmd.AddCommand(&cobra.Command{
		Use: "list", Short: "List invites and what became of them", Example: "  omega invite list --json", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.ListInvites(cmd.Context(), &apiv1.ListInvitesRequest{})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, i := range r.Invites {
				state := "open"
				switch {
				case i.Withdrawn:
					state = "withdrawn"
				case i.Used >= i.Uses:
					state = "used up"
				case i.Expires.AsTime().Before(time.Now()):
					state = "expired"
				}
				if a.json {
					if err := a.emit(map[string]any{"id": i.Id, "roles": list(i.Roles), "uses": i.Uses, "used": i.Used, "expires": stamp(i.Expires), "state": state, "by": i.By}); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{shortID(i.Id), state, fmt.Sprintf("%d/%d", i.Used, i.Uses), clock(i.Expires), strings.Join(i.Roles, ",")})
			}
			return a.table([]string{"ID", "STATE", "USED", "UNTIL", "ROLES"}, rows)
		},
	}, &cobra.Command{
		Use: "withdraw ID", Short: "End an invite that is not used up", Example: "  omega invite withdraw 3f9c2a", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.asOperator(cmd.Context(), func(c *client.Client, op *client.Operator) error {
				r, err := c.ListInvites(cmd.Context(), &apiv1.ListInvitesRequest{})
				if err != nil {
					return err
				}
				var ids []string
				for _, i := range r.Invites {
					ids = append(ids, i.Id)
				}
				id, err := oneOf("invite", args[0], ids)
				if err != nil {
					return err
				}
				body, err := withdrawal(r.Invites[slices.Index(ids, id)])
				if err != nil {
					return err
				}
				if _, err := op.Submit(cmd.Context(), body); err != nil {
					return err
				}
				return a.say(map[string]any{"id": id, "state": "withdrawn"}, "invite %s is withdrawn", shortID(id))
			})
		},
	})
	return cmd
}

// withdrawal ends an invite; who joined on it so far stays.
func withdrawal(i *apiv1.Invite) (*authority.WithdrawBody, error) {
	id, err := hex.DecodeString(i.Id)
	if err != nil {
		return nil, fmt.Errorf("the node names an invite %q: not hex", i.Id)
	}
	body := &authority.WithdrawBody{Invite: id}
	for _, did := range i.Joiners {
		subject, err := subjectOf(did)
		if err != nil {
			return nil, err
		}
		body.Stand = append(body.Stand, subject)
	}
	slices.SortFunc(body.Stand, bytes.Compare)
	return body, nil
}

// inviteAddrs are up to three addresses a joiner may call: this node's first, then other members'.
func inviteAddrs(ctx context.Context, c *client.Client, s *apiv1.StatusResponse) []string {
	var addrs []string
	for _, addr := range s.Addrs {
		if !strings.Contains(addr, "/ip4/127.") && !strings.Contains(addr, "/ip6/::1/") && len(addr) <= trust.MaxTokenAddr {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		addrs = slices.Clone(s.Addrs)
	}
	// Addresses of two further members, so that this node may be down when the token is used.
	var others []string
	if peers, err := c.ListPeers(ctx, &apiv1.ListPeersRequest{}); err == nil {
		for _, p := range peers.Peers {
			// Over QUIC a peer calls from the port it listens on; the far end of a TCP connection may be any port.
			for _, addr := range p.Addrs {
				if !strings.Contains(addr, "/p2p/") {
					addr += "/p2p/" + p.Peer
				}
				if p.Connected && len(addr) <= trust.MaxTokenAddr && strings.Contains(addr, "/quic-v1") {
					others = append(others, addr)
					break
				}
			}
		}
	}
	own := min(len(addrs), max(1, trust.MaxTokenAddrs-len(others)))
	addrs = append(addrs[:own], others...)
	return addrs[:min(len(addrs), trust.MaxTokenAddrs)]
}

func newJoinCommand(a *app) *cobra.Command {
	var nextKey string
	var name string
	var up bool
	var wait time.Duration
	var keep keepFlags
	cmd := &cobra.Command{
		Use:   "join TOKEN|-|@FILE",
		Short: "Become a member of a swarm",
		Long: `Become a member of the swarm that the token is for. "-" reads the token from standard input and "@FILE" from a file:
both keep it out of the process list. Joining again with the same identity is harmless.`,
		Example: `  omega join omega1… --name web2 --up
  omega join @token.txt
  ssh n1 omega invite | omega join -`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := a.readToken(args[0])
			if err != nil {
				return err
			}
			passphrase, err := a.readPassphrase()
			if err != nil {
				return err
			}
			defer clear(passphrase)
			store, closeStore, err := a.keyStore(cmd.Context(), &keep)
			if err != nil {
				return err
			}
			defer closeStore()
			random, endRandom, err := a.random(cmd.Context(), cmd.Flags(), store)
			if err != nil {
				return err
			}
			defer endRandom()
			joined, err := node.Join(cmd.Context(), a.stateDir(), token, node.JoinOptions{Name: name, Passphrase: passphrase, Store: store, Random: random, NextKey: nextKey, Progress: a.progress, Wait: wait})
			if err != nil {
				return err
			}
			if a.json {
				if err := a.emit(joined); err != nil {
					return err
				}
			} else {
				fmt.Fprintf(a.out, "%s is a member of %s (%s), with the roles %s\n", printable(joined.Name), printable(joined.SwarmName), shortID(joined.Swarm), strings.Join(joined.Roles, ", "))
			}
			if up {
				endRandom()
				closeStore()
				return a.up(cmd, nil)
			}
			if !a.json {
				fmt.Fprintln(a.out, "next: `omega up`")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&nextKey, "next-key", "", "folder for the pre-rotated next key, best on removable media (default beside the state folder)")
	cmd.Flags().StringVar(&name, "name", "", "this peer's name in the swarm (default the host's name)")
	cmd.Flags().BoolVar(&up, "up", false, "run the node at once")
	cmd.Flags().DurationVar(&wait, "wait", time.Hour, "how long to wait where an operator must approve this host")
	keep.declare(cmd)
	return cmd
}

// readToken takes a token from an argument, standard input or a file, at most trust.MaxToken bytes.
func (a *app) readToken(arg string) (string, error) {
	var r io.Reader
	switch {
	case arg == "-":
		r = a.in
	case strings.HasPrefix(arg, "@"):
		f, err := os.Open(arg[1:])
		if err != nil {
			return "", fmt.Errorf("read the token: %w", err)
		}
		defer f.Close()
		r = f
	default:
		return strings.TrimSpace(arg), nil
	}
	b, err := io.ReadAll(io.LimitReader(r, trust.MaxToken+64))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func newLeaveCommand(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "leave",
		Short:   "Leave the swarm and wipe the state folder",
		Example: `  omega leave --yes`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return fail(exitUsage, "this wipes the keys in %s and cannot be undone; say --yes", a.stateDir())
			}
			c := a.client()
			defer c.Close()
			if _, err := c.Leave(cmd.Context(), &apiv1.LeaveRequest{}); err != nil && !client.Unreachable(err) {
				return err
			}
			// The node lets go of the folder once it has drained.
			var err error
			for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
				if err = node.Wipe(a.stateDir()); err == nil {
					return a.say(map[string]any{"left": true, "dir": a.stateDir()}, "left; %s is wiped", a.stateDir())
				}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "yes, wipe this host's keys")
	return cmd
}
