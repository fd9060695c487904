package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
)

// order is what the flags of every respond command say.
type order struct {
	ttl   time.Duration
	scope []string
	why   string
	wait  time.Duration
}

func newRespondCommand(a *app) *cobra.Command {
	var o order
	flags := func(c *cobra.Command, lasts bool) *cobra.Command {
		if lasts {
			c.Flags().DurationVar(&o.ttl, "ttl", time.Hour, "how long it stands")
		}
		c.Flags().StringSliceVar(&o.scope, "scope", []string{"all"}, "who acts: all, self (this host alone, no operator's key needed), or peers by name")
		c.Flags().StringVar(&o.why, "why", "", "the reason, shown wherever the response is")
		c.Flags().DurationVar(&o.wait, "wait", 5*time.Second, "how long to wait for the peers' receipts")
		return c
	}
	deny := group("deny", "Refuse an address, a domain, a port, the execution of a file, or writing to one", "  omega respond deny ip 203.0.113.9 --ttl 1h --scope all\n  omega respond deny exec /tmp/x\n  omega respond deny write /etc/ssh/sshd_config",
		flags(&cobra.Command{
			Use: "ip ADDRESS[/BITS]", Short: "Refuse an address: new and established connections end, both ways",
			Example: "  omega respond deny ip 203.0.113.9 --ttl 1h --scope all", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				prefix, err := parsePrefix(args[0])
				if err != nil {
					return err
				}
				return a.respond(cmd.Context(), event.Response{Action: event.ActionDeny, Target: event.Target{Address: prefix}}, &o)
			},
		}, true),
		flags(&cobra.Command{
			Use: "domain NAME", Short: "Refuse a domain and all below it: it is not asked for, and the addresses it was given for are refused",
			Example: "  omega respond deny domain evil.example --ttl 24h", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				domain, err := parseDomain(args[0])
				if err != nil {
					return err
				}
				return a.respond(cmd.Context(), event.Response{Action: event.ActionDeny, Target: event.Target{Domain: domain}}, &o)
			},
		}, true),
		flags(&cobra.Command{
			Use: "port PORT[/tcp|/udp]", Short: "Refuse connections to a port, wherever it is",
			Example: "  omega respond deny port 4444/tcp --ttl 24h", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				target, err := parsePort(args[0])
				if err != nil {
					return err
				}
				return a.respond(cmd.Context(), event.Response{Action: event.ActionDeny, Target: target}, &o)
			},
		}, true),
		flags(&cobra.Command{
			Use: "exec PATH|SHA256", Short: "Deny the execution of a file: killed before its first instruction; by hash, a file's first start once it is hashed",
			Example: "  omega respond deny exec /usr/local/bin/miner --ttl 24h", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				target, err := parseExecutable(args[0])
				if err != nil {
					return err
				}
				return a.respond(cmd.Context(), event.Response{Action: event.ActionDeny, Target: target}, &o)
			},
		}, true),
		flags(&cobra.Command{
			Use: "write PATH", Short: "Deny writing to a file, or to a folder and all in it: also removing, renaming, and another mode or owner",
			Long: "Deny writing to a file, or to a folder and all in it: also removing, renaming, and another mode or owner.\n\n" +
				"The kernel denies it to everybody, root too (the immutable attribute, which ext4, XFS, Btrfs, F2FS and tmpfs have). A root\n" +
				"that takes the attribute off first is undone at a look twice a second: what was changed is put back from a copy, up to 16 MiB a\n" +
				"file and 64 MiB together, and files made there are quarantined. Where the file system has no such attribute the kernel refuses\n" +
				"nothing, and what anybody writes is put back so; the receipt says which of the two it is. At most 1,024 files; `omega doctor` says what could not be put back.",
			Example: "  omega respond deny write /etc/ssh/sshd_config --ttl 24h\n  omega respond deny write /etc/cron.d --scope self --ttl 8h", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				if !filepath.IsAbs(args[0]) || filepath.Clean(args[0]) != args[0] || args[0] == "/" {
					return fail(exitUsage, "%q is no clean absolute path of a file or folder", args[0])
				}
				return a.respond(cmd.Context(), event.Response{Action: event.ActionDeny, Target: event.Target{Write: args[0]}}, &o)
			},
		}, true))
	contain := flags(&cobra.Command{
		Use: "contain PEER", Short: "Contain a peer: only swarm traffic passes on it, and the others refuse its addresses",
		Example: "  omega respond contain n4 --ttl 1h", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completePeer,
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			p, err := findPeer(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			return a.respond(cmd.Context(), event.Response{Action: event.ActionContain, Target: event.Target{Peer: p.Did}}, &o)
		},
	}, true)
	var tree bool
	kill := flags(&cobra.Command{
		Use: "kill PID@PEER", Short: "Kill a process on a peer, with --tree all its descendants",
		Example: "  omega respond kill 4242@n1 --tree", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pid, peer, ok := strings.Cut(args[0], "@")
			n, err := strconv.ParseUint(pid, 10, 32)
			if !ok || err != nil || n < 2 {
				return fail(exitUsage, "%q: want PID@PEER", args[0])
			}
			c := a.client()
			defer c.Close()
			p, err := findPeer(cmd.Context(), c, peer)
			if err != nil {
				return err
			}
			o.scope = []string{p.Name}
			o.ttl = time.Minute
			return a.respond(cmd.Context(), event.Response{Action: event.ActionKill, Target: event.Target{PID: uint32(n), Tree: tree, Peer: p.Did}}, &o)
		},
	}, false)
	kill.Flags().BoolVar(&tree, "tree", false, "its descendants too")
	quarantine := a.quarantineCommand(&o)
	quarantine = flags(quarantine, true)
	release := flags(&cobra.Command{
		Use: "release ID", Short: "End a response everywhere", Example: "  omega respond release 3f9c2a1b", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			id, err := findResponse(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			o.ttl = time.Hour
			return a.respond(cmd.Context(), event.Response{Action: event.ActionRelease, Releases: id}, &o)
		},
	}, false)
	return group("respond", "Act: deny, contain, kill, quarantine, release", "  omega respond deny ip 203.0.113.9 --ttl 1h\n  omega respond quarantine /tmp/x@n4\n  omega respond release 3f9c2a1b", deny, contain, kill, quarantine, release)
}

// quarantineCommand is `omega respond quarantine`, but for the flags that all responses have.
func (a *app) quarantineCommand(o *order) *cobra.Command {
	return &cobra.Command{
		Use: "quarantine FILE[@PEER]", Short: "Take a file out of reach until it is released: moved, sealed, given back as it was",
		Long: "Take a file out of reach: its name is removed and a scrambled copy is kept on its host, with owner, mode, times, extended\n" +
			"attributes and SHA-256. `omega respond release ID` gives the same bytes back under the same name. --ttl ends the denial of\n" +
			"its execution in the kernel, which concerns what still holds it open; the file stays sealed until it is released, or a panic.\n" +
			"Without @PEER, or with --scope self, it is of this host and needs no operator's key. What a host needs (shells, sshd, the\n" +
			"loader, accounts, package tools, omega itself, the allow list) is refused.",
		Example: "  omega respond quarantine /tmp/miner@n4 --why 'dropped by the web server'\n  omega respond quarantine /tmp/miner --json\n  omega respond release 3f9c2a1b",
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			path, peer, named := cutPeer(toComplete)
			if !named || len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			names, directive := a.completePeer(cmd, args, peer)
			for i := range names {
				names[i] = path + "@" + names[i]
			}
			return names, directive
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			path, peer, named := cutPeer(args[0])
			if slices.Equal(o.scope, []string{"self"}) {
				path, named = args[0], false
			}
			if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" || named && peer == "" {
				return fail(exitUsage, "%q: want a clean absolute path, and @PEER where it is of another host", args[0])
			}
			r := event.Response{Action: event.ActionQuarantine, Target: event.Target{Path: path}}
			if !named {
				if cmd.Flags().Changed("scope") && !slices.Equal(o.scope, []string{"self"}) {
					return fail(exitUsage, "a file is of one host: write FILE@PEER instead of --scope")
				}
				o.scope = []string{"self"}
				return a.respond(cmd.Context(), r, o)
			}
			c := a.client()
			defer c.Close()
			p, err := findPeer(cmd.Context(), c, peer)
			if err != nil {
				return err
			}
			r.Target.Peer, o.scope = p.Did, []string{p.Name}
			return a.respond(cmd.Context(), r, o)
		},
	}
}

// cutPeer splits FILE@PEER at the last @; one that is followed by a slash belongs to the path.
func cutPeer(s string) (path, peer string, named bool) {
	i := strings.LastIndexByte(s, '@')
	if i < 0 || strings.ContainsRune(s[i:], '/') {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func parsePrefix(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return netip.Prefix{}, fail(exitUsage, "%q is neither an address nor a prefix", s)
	}
	addr = addr.Unmap()
	return netip.PrefixFrom(addr, addr.BitLen()), nil
}

func parseDomain(s string) (string, error) {
	domain := strings.ToLower(strings.TrimSuffix(s, "."))
	ok := len(domain) <= 253
	for label := range strings.SplitSeq(domain, ".") {
		ok = ok && len(label) > 0 && len(label) < 64 && !strings.ContainsFunc(label, func(c rune) bool { return c <= ' ' || c > '~' })
	}
	if !ok {
		return "", fail(exitUsage, "%q is not a domain name; write an international one in its xn-- form", s)
	}
	return domain, nil
}

func parsePort(s string) (event.Target, error) {
	number, protocol, named := strings.Cut(s, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	protocols := map[string]uint8{"tcp": 6, "udp": 17}
	if err != nil || n == 0 || named && protocols[protocol] == 0 {
		return event.Target{}, fail(exitUsage, "%q: want PORT, PORT/tcp or PORT/udp", s)
	}
	return event.Target{Port: uint16(n), Protocol: protocols[protocol]}, nil
}

func parseExecutable(s string) (event.Target, error) {
	if b, err := hex.DecodeString(s); err == nil && len(b) == 32 {
		return event.Target{SHA256: strings.ToLower(s)}, nil
	}
	if !filepath.IsAbs(s) || filepath.Clean(s) != s {
		return event.Target{}, fail(exitUsage, "%q is neither a clean absolute path nor the SHA-256 of a file", s)
	}
	return event.Target{Path: s}, nil
}

// respond gives an order: signed by the operator where it reaches beyond this host, by the socket alone where it does not.
func (a *app) respond(ctx context.Context, r event.Response, o *order) error {
	if o.ttl < time.Second {
		return fail(exitUsage, "--ttl %s: want at least 1s", o.ttl)
	}
	r.TTL, r.Reason, r.Issued = o.ttl, o.why, time.Now().UnixNano()
	if r.Reason == "" {
		r.Reason = "ordered by a person"
	}
	if slices.Equal(o.scope, []string{"self"}) {
		return a.respondLocal(ctx, r)
	}
	return a.asOperatorOrMember(ctx, func(c *client.Client, op *client.Operator) error {
		return a.order(ctx, c, r, o, func(r event.Response) (string, error) {
			r.Authority, r.By = event.AuthorityOperator, string(op.DID())
			return op.Submit(ctx, &authority.ResponseBody{Response: r})
		})
	}, func(c *client.Client, refused func(error) error) error {
		return a.order(ctx, c, r, o, func(r event.Response) (string, error) {
			answer, err := c.Order(ctx, &apiv1.OrderRequest{Response: wireResponse(r)})
			return answer.GetId(), refused(err)
		})
	})
}

// order fills in the scope, gives the order, and shows what becomes of it.
func (a *app) order(ctx context.Context, c *client.Client, r event.Response, o *order, give func(event.Response) (string, error)) error {
	expect := 0
	if slices.Contains(o.scope, "self") || slices.Contains(o.scope, "all") {
		if len(o.scope) > 1 {
			return fail(exitUsage, "--scope: all and self stand alone")
		}
		var err error
		if expect, err = acting(ctx, c); err != nil {
			return err
		}
	} else {
		for _, name := range o.scope {
			p, err := findPeer(ctx, c, name)
			if err != nil {
				return err
			}
			r.Scope = append(r.Scope, p.Did)
		}
		slices.Sort(r.Scope)
		expect = len(r.Scope)
	}
	id, err := give(r)
	if err != nil {
		return err
	}
	watch := id
	if r.Action == event.ActionRelease {
		watch = r.Releases
	}
	return a.showReceipts(ctx, c, id, watch, r.Issued, expect, o.wait)
}

// showReceipts prints the response's id, then a receipt a peer, until every expected peer has answered or time is up.
func (a *app) showReceipts(ctx context.Context, c *client.Client, id, watch string, after int64, expect int, wait time.Duration) error {
	if a.json {
		if err := a.emit(map[string]any{"response": id}); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(a.out, "response", id)
	}
	if expect == 0 {
		a.progress("nobody acts on it: no connected peer holds the role sentinel; `omega role grant PEER sentinel`")
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	answered := map[string]bool{}
	var refused *apiv1.Receipt
	s, err := c.Receipts(ctx, &apiv1.ReceiptsRequest{Follow: true, Response: watch})
	err = stream(s, err, func(r *apiv1.Receipt) error {
		if r.Response != watch || r.Time.AsTime().UnixNano() < after-int64(time.Minute) || answered[r.Peer] {
			return nil
		}
		if watch != id && r.Outcome != string(event.OutcomeReleased) {
			return nil // of the time before the release
		}
		if r.Outcome == string(event.OutcomePending) {
			return nil // what an approval answers, not its answer
		}
		answered[r.Peer] = true
		if r.Outcome == string(event.OutcomeRefused) {
			refused = r
		}
		if err := a.printReceipt(r); err != nil {
			return err
		}
		if len(answered) >= expect {
			return errDone
		}
		return nil
	})
	if err != nil && !errors.Is(err, errDone) && ctx.Err() == nil {
		return err
	}
	if len(answered) < expect {
		a.progress(fmt.Sprintf("%d of %d peers answered within %s; `omega receipts --response %s` shows the rest when they do", len(answered), expect, wait, shortID(watch)))
	}
	if refused != nil {
		return fail(exitNotPermitted, "refused on %s by the guard rail %q", refused.Host, refused.Guard)
	}
	return nil
}

// acting counts the peers that will answer a response of everybody: this one and those connected now, where they hold
// the role that acts.
func acting(ctx context.Context, c *client.Client) (int, error) {
	s, err := c.Status(ctx, &apiv1.StatusRequest{})
	if err != nil {
		return 0, err
	}
	r, err := c.ListPeers(ctx, &apiv1.ListPeersRequest{})
	if err != nil {
		return 0, err
	}
	n := 0
	if slices.Contains(s.Roles, "sentinel") {
		n++
	}
	for _, p := range r.Peers {
		if p.Did != s.Did && p.Connected && slices.Contains(p.Roles, "sentinel") {
			n++
		}
	}
	return n, nil
}

var errDone = errors.New("every peer answered")

func (a *app) respondLocal(ctx context.Context, r event.Response) error {
	c := a.client()
	defer c.Close()
	answer, err := c.RespondLocal(ctx, &apiv1.RespondLocalRequest{Response: wireResponse(r)})
	if err != nil {
		return err
	}
	if a.json {
		if err := a.emit(map[string]any{"response": answer.Response.GetId()}); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(a.out, "response", answer.Response.GetId())
	}
	if err := a.printReceipt(answer.Receipt); err != nil {
		return err
	}
	switch answer.Receipt.GetOutcome() {
	case string(event.OutcomeRefused):
		return fail(exitNotPermitted, "refused by the guard rail %q", answer.Receipt.Guard)
	case string(event.OutcomeFailed):
		return fail(exitFailed, "%s", answer.Receipt.Detail)
	}
	return nil
}

// wireResponse is r as a request carries it.
func wireResponse(r event.Response) *apiv1.Response {
	return &apiv1.Response{
		Action: string(r.Action), Reason: r.Reason, TtlMs: float64(r.TTL) / 1e6, Releases: r.Releases, Scope: r.Scope,
		Target: &apiv1.Target{Address: prefixText(r.Target.Address), Path: r.Target.Path, Sha256: r.Target.SHA256, Pid: r.Target.PID, Tree: r.Target.Tree, Peer: r.Target.Peer,
			Domain: r.Target.Domain, Port: uint32(r.Target.Port), Protocol: uint32(r.Target.Protocol), Write: r.Target.Write},
	}
}
