package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/omega-mesh/omega/modules/bundle"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
)

// signs makes an entry of what is said of a module, and gives its id.
type signs func(authority.Body) (string, error)

// saysOfModules is for what an operator, or a member by its credential, says of modules.
func (a *app) saysOfModules(ctx context.Context, f func(*client.Client, signs) error) error {
	return a.asOperatorOrMember(ctx, func(c *client.Client, op *client.Operator) error {
		return f(c, func(b authority.Body) (string, error) { return op.Submit(ctx, b) })
	}, func(c *client.Client, refused func(error) error) error {
		return f(c, func(b authority.Body) (string, error) {
			raw, err := b.Encode()
			if err != nil {
				return "", err
			}
			answer, err := c.OrderModule(ctx, &apiv1.OrderModuleRequest{Kind: uint32(b.Kind()), Body: raw})
			return answer.GetId(), refused(err)
		})
	})
}

func newModulePublish(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "publish DIR|FILE", Short: "Release a module to the swarm: it is signed, added and announced",
		Long: "Add a module, a folder or a file that `omega module build` made, to this host's store, and release it with the operator's key, or by this host's own credential for module-release. Every member fetches and keeps what is released; " +
			"nothing runs before it is deployed. Prints the CID.",
		Example: "  omega module publish fetch-watch\n  omega module publish fetch-watch-0.1.0.car --json", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readBundle(a, cmd, args[0])
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			return a.saysOfModules(ctx, func(c *client.Client, sign signs) error {
				added, err := addModule(ctx, c, b)
				if err != nil {
					return err
				}
				id, err := sign(&authority.ModuleReleaseBody{Module: added.Digest, Name: added.Name, Version: added.Version})
				if err != nil {
					return err
				}
				a.progress(fmt.Sprintf("%s %s is released; next: omega module deploy %s", added.Name, added.Version, added.Name))
				return a.say(map[string]any{"id": id, "cid": added.Cid, "name": added.Name, "version": added.Version}, "%s", added.Cid)
			})
		},
	}
}

// addModule hands a bundle to the node in parts.
func addModule(ctx context.Context, c *client.Client, b *bundle.Bundle) (*apiv1.AddModuleResponse, error) {
	if _, err := c.Status(ctx, &apiv1.StatusRequest{}); err != nil {
		return nil, err
	}
	var file bytes.Buffer
	if err := b.Write(&file); err != nil {
		return nil, err
	}
	s, err := c.AddModule(ctx)
	if err != nil {
		return nil, err
	}
	for part := range slices.Chunk(file.Bytes(), 64<<10) {
		if err := s.Send(&apiv1.AddModuleRequest{Part: part}); errors.Is(err, io.EOF) {
			break // the answer says why
		} else if err != nil {
			return nil, err
		}
	}
	return s.CloseAndReceive()
}

// placing is what the flags of deploy say.
type placing struct {
	roles, labels, peers []string
	share                string
	shadow               bool
	why                  string
	wait                 time.Duration
}

func newModuleDeploy(a *app) *cobra.Command {
	var p placing
	cmd := &cobra.Command{
		Use: "deploy CID|NAME[@VERSION]", Short: "Run a released module on hosts of the swarm, without a restart",
		Long: "Run a released module on the hosts that hold a role, call themselves a label or are named; on all where none is said. It takes the place of another version of its name, between two events. " +
			"With --share it is a canary on so many hundredths of them, which is taken out where it traps, is slow or floods; with --shadow what it finds is only counted and compared. " +
			"What another deployment by the same operator said of this module ends. Without an operator's key, by this host's own credential for module-deploy.",
		Example: "  omega module deploy fetch-watch --role sentinel\n  omega module deploy fetch-watch@0.2.0 --share 10%\n  omega module deploy bafireig… --peer n2,n3 --shadow", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeModule,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.deploy(cmd.Context(), args[0], &p) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&p.roles, "role", nil, "hosts that hold one of these roles")
	f.StringSliceVar(&p.labels, "label", nil, "hosts that call themselves one of these (labels in their configuration)")
	f.StringSliceVar(&p.peers, "peer", nil, "these hosts, by name or DID")
	f.StringVar(&p.share, "share", "", "a canary: this part of those hosts, 1% to 99%")
	f.BoolVar(&p.shadow, "shadow", false, "count what it finds against what runs, and tell nobody")
	f.StringVar(&p.why, "why", "", "the reason, shown wherever the deployment is")
	f.DurationVar(&p.wait, "wait", 10*time.Second, "how long to wait for the hosts' word; 0 for not at all")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name {
		case "roles", "labels", "peers":
			name = strings.TrimSuffix(name, "s")
		case "canary":
			name = "share"
		}
		return pflag.NormalizedName(name)
	})
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(roleNames[:], cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("peer", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return a.peerNames(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

// body is the deployment that the flags describe.
func (p *placing) body(ctx context.Context, c *client.Client, m *apiv1.Module) (*authority.DeployBody, error) {
	b := &authority.DeployBody{Module: m.Digest, Name: m.Name, Version: m.Version, Shadow: p.shadow, Why: p.why}
	b.Roles, b.Labels = plainSet(p.roles), plainSet(p.labels)
	for _, r := range b.Roles {
		if err := checkRole(r); err != nil {
			return nil, err
		}
	}
	for _, name := range plainSet(p.peers) {
		peer, err := findPeer(ctx, c, name)
		if err != nil {
			return nil, err
		}
		digest, err := subjectOf(peer.Did)
		if err != nil {
			return nil, err
		}
		b.Peers = append(b.Peers, digest)
	}
	slices.SortFunc(b.Peers, slices.Compare)
	b.Peers = slices.CompactFunc(b.Peers, bytes.Equal)
	if p.share != "" {
		n, err := strconv.ParseUint(strings.TrimSuffix(p.share, "%"), 10, 8)
		if err != nil || n < 1 || n > 99 {
			return nil, fail(exitUsage, "--share %q: want 1%% to 99%%", p.share)
		}
		b.Share = uint8(n)
	}
	return b, nil
}

func plainSet(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

func (a *app) deploy(ctx context.Context, want string, p *placing) error {
	return a.saysOfModules(ctx, func(c *client.Client, sign signs) error {
		m, err := findModule(ctx, c, want)
		if err != nil {
			return err
		}
		b, err := p.body(ctx, c, m)
		if err != nil {
			return err
		}
		hosts, err := deploymentHosts(ctx, c, b)
		if err != nil {
			return err
		}
		began := time.Now()
		id, err := sign(b)
		if err != nil {
			return err
		}
		if err := a.say(map[string]any{"id": id, "cid": m.Cid, "name": m.Name, "version": m.Version, "roles": list(b.Roles), "labels": list(b.Labels), "peers": list(p.peers), "share": b.Share, "shadow": b.Shadow},
			"%s %s is deployed: %s", m.Name, m.Version, id); err != nil {
			return err
		}
		return a.awaitModule(ctx, c, m.Cid, hosts, began, p.wait)
	})
}

// deploymentHosts are the connected hosts that a deployment is for, by DID, as far as this host can tell: labels are each host's own.
func deploymentHosts(ctx context.Context, c *client.Client, b *authority.DeployBody) (map[string]string, error) {
	d := authority.Deployment{Module: [32]byte(b.Module), Roles: b.Roles, Labels: b.Labels, Share: int(b.Share)}
	for _, p := range b.Peers {
		d.Peers = append(d.Peers, identity.DIDFromBytes([32]byte(p)))
	}
	peers, err := c.ListPeers(ctx, &apiv1.ListPeersRequest{})
	if err != nil {
		return nil, err
	}
	self, err := c.Status(ctx, &apiv1.StatusRequest{})
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, p := range append(peers.Peers, &apiv1.Peer{Did: self.Did, Name: self.Name, Roles: self.Roles, Connected: true}) {
		if p.Connected && slices.Contains(p.Roles, "sentinel") && d.Matches(identity.DID(p.Did), p.Roles, nil) {
			out[p.Did] = p.Name
		}
	}
	return out, nil
}

// moduleLook is how often the node is asked what the hosts said.
const moduleLook = 20 * time.Millisecond

// awaitModule tells of each host that says what became of the module there, until all of hosts did or the time is over.
func (a *app) awaitModule(ctx context.Context, c *client.Client, cid string, hosts map[string]string, began time.Time, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	told := map[string]bool{}
	for len(hosts) > 0 {
		l, err := c.ListModules(ctx, &apiv1.ListModulesRequest{Module: cid})
		if err == nil && len(l.Modules) == 1 {
			for _, h := range l.Modules[0].Hosts {
				if told[h.Peer] || h.Time.AsTime().Before(began) && h.State == "stopped" {
					continue
				}
				told[h.Peer] = true
				delete(hosts, h.Peer)
				after := time.Since(began).Round(time.Millisecond)
				if err := a.say(map[string]any{"host": h.Host, "did": h.Peer, "state": h.State, "why": h.Why, "after_ms": after.Milliseconds()}, "%s: %s", h.Host, strings.TrimSpace(h.State+" after "+after.String()+" "+h.Why)); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			for _, name := range hosts {
				a.progress(name + " has not said yet what became of it: `omega module show` tells")
			}
			return nil
		case <-time.After(moduleLook):
		}
	}
	return nil
}

func newModuleUndeploy(a *app) *cobra.Command {
	var why string
	var withdraw bool
	cmd := &cobra.Command{
		Use: "undeploy CID|NAME[@VERSION]", Short: "End a module's deployments: another version of its name that is deployed goes on instead",
		Long:    "End every deployment of a module. With --withdraw its release ends, too: no host keeps it, and it cannot be deployed again before it is published again.",
		Example: "  omega module undeploy fetch-watch\n  omega module undeploy fetch-watch@0.2.0 --withdraw --why 'it is wrong'", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeModule,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return a.saysOfModules(ctx, func(c *client.Client, sign signs) error {
				m, err := findModule(ctx, c, args[0])
				if err != nil {
					return err
				}
				id, err := sign(&authority.UndeployBody{Module: m.Digest, Why: why})
				if err == nil && withdraw {
					id, err = sign(&authority.ModuleReleaseBody{Module: m.Digest, Name: m.Name, Version: m.Version, Withdraw: true, Why: why})
				}
				if err != nil {
					return err
				}
				return a.say(map[string]any{"id": id, "cid": m.Cid, "name": m.Name, "version": m.Version, "withdrawn": withdraw}, "%s %s runs nowhere by deployment any more", m.Name, m.Version)
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason")
	cmd.Flags().BoolVar(&withdraw, "withdraw", false, "end its release, too")
	return cmd
}

func newModuleList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "The released modules, where they run, and how they do here", Example: "  omega module list\n  omega module list --json", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			l, err := c.ListModules(cmd.Context(), &apiv1.ListModulesRequest{})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, m := range l.Modules {
				if a.json {
					if err := a.emit(releasedJSON(m)); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{m.Name, m.Version, m.Kind, m.State, hostsText(m), strconv.FormatUint(m.Events, 10), strconv.FormatUint(m.Findings, 10),
					strconv.FormatUint(m.Traps, 10), microseconds(m.P99Ms), strconv.FormatUint(m.Bytes, 10), m.Cid})
			}
			return a.table([]string{"NAME", "VERSION", "KIND", "HERE", "HOSTS", "EVENTS", "FINDINGS", "TRAPS", "P99", "BYTES", "CID"}, rows)
		},
	}
}

// hostsText counts the hosts of each state.
func hostsText(m *apiv1.Module) string {
	count := map[string]int{}
	for _, h := range m.Hosts {
		count[h.State]++
	}
	var out []string
	for _, state := range []string{"running", "shadow", "stopped"} {
		if count[state] > 0 {
			out = append(out, fmt.Sprintf("%d %s", count[state], state))
		}
	}
	return strings.Join(out, ", ")
}

func microseconds(ms float64) string {
	if ms == 0 {
		return ""
	}
	return strconv.FormatFloat(ms*1000, 'f', 1, 64) + "us"
}

func newModuleShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show CID|NAME[@VERSION]", Short: "What a released module is, who released and deployed it, and how each host does with it",
		Example: "  omega module show fetch-watch\n  omega module show fetch-watch@0.2.0 --json", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeModule,
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			m, err := findModule(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.emit(releasedJSON(m))
			}
			rows := [][]string{{"cid", m.Cid}, {"name", m.Name}, {"version", m.Version}, {"kind", m.Kind}, {"title", m.Title}, {"attack", strings.Join(m.Attack, " ")},
				{"capabilities", strings.Join(m.Capabilities, " ")}, {"author", m.Author}, {"built by", m.Builder}, {"source", m.SourceSha256}, {"released by", strings.Join(m.ReleasedBy, " ")}, {"released", clock(m.Released)},
				{"here", strings.TrimSpace(m.State + " " + m.Why)}, {"events", strconv.FormatUint(m.Events, 10)}, {"findings", fmt.Sprintf("%d, %d over its rate", m.Findings, m.Dropped)},
				{"traps", strconv.FormatUint(m.Traps, 10)}, {"mean, p99", microseconds(m.MeanMs) + ", " + microseconds(m.P99Ms)}}
			for _, d := range m.Deployments {
				rows = append(rows, []string{"deployed", deploymentText(d)})
			}
			if s := m.Shadow; s != nil {
				rows = append(rows, []string{"as a shadow", fmt.Sprintf("%d findings as what runs, %d more, %d fewer", s.Both, s.Shadow, s.Live)})
				for _, e := range s.Examples {
					rows = append(rows, []string{"", e})
				}
			}
			for _, h := range m.Hosts {
				rows = append(rows, []string{"on " + h.Host, strings.TrimSpace(fmt.Sprintf("%s, as it said at %s %s", h.State, clock(h.Time), h.Why))})
			}
			return a.table([]string{"WHAT", ""}, rows)
		},
	}
}

func deploymentText(d *apiv1.Deployment) string {
	var where []string
	for what, names := range map[string][]string{"role": d.Roles, "label": d.Labels, "peer": d.Peers} {
		if len(names) > 0 {
			where = append(where, what+" "+strings.Join(names, ", "))
		}
	}
	slices.Sort(where)
	text := cmp.Or(strings.Join(where, "; "), "every host")
	if d.Share > 0 {
		text += fmt.Sprintf(", a canary of %d%%", d.Share)
	}
	if d.Shadow {
		text += ", as a shadow"
	}
	return text + " by " + short(d.By) + " at " + clock(d.Time)
}

// releasedJSON is a released module for scripts.
func releasedJSON(m *apiv1.Module) map[string]any {
	out := map[string]any{"cid": m.Cid, "name": m.Name, "version": m.Version, "kind": m.Kind, "title": m.Title, "attack": list(m.Attack), "capabilities": list(m.Capabilities), "author": m.Author,
		"builder": m.Builder, "source_sha256": m.SourceSha256, "reproducible": m.Reproducible, "size": m.Size, "bytes": m.Bytes, "released_by": list(m.ReleasedBy), "released": stamp(m.Released), "root": m.Root,
		"state": m.State, "why": m.Why, "events": m.Events, "findings": m.Findings, "dropped": m.Dropped, "traps": m.Traps, "mean_ms": m.MeanMs, "p99_ms": m.P99Ms}
	deployments, hosts := []map[string]any{}, []map[string]any{}
	for _, d := range m.Deployments {
		deployments = append(deployments, map[string]any{"id": d.Entry, "roles": list(d.Roles), "labels": list(d.Labels), "peers": list(d.Peers), "share": d.Share, "shadow": d.Shadow, "why": d.Why, "by": d.By, "time": stamp(d.Time), "here": d.Here})
	}
	for _, h := range m.Hosts {
		hosts = append(hosts, map[string]any{"host": h.Host, "did": h.Peer, "state": h.State, "why": h.Why, "time": stamp(h.Time), "events": h.Events, "findings": h.Findings, "traps": h.Traps, "p99_ms": h.P99Ms})
	}
	out["deployments"], out["hosts"] = deployments, hosts
	if s := m.Shadow; s != nil {
		out["shadow"] = map[string]any{"both": s.Both, "shadow": s.Shadow, "live": s.Live, "examples": list(s.Examples)}
	}
	return out
}

// findModule finds a released module by its CID, the unambiguous beginning of one, or a name: then the version released
// last, or the one after an @.
func findModule(ctx context.Context, c *client.Client, want string) (*apiv1.Module, error) {
	l, err := c.ListModules(ctx, &apiv1.ListModulesRequest{})
	if err != nil {
		return nil, err
	}
	name, version, exact := strings.Cut(want, "@")
	var named, begun []*apiv1.Module
	for _, m := range l.Modules {
		switch {
		case m.Cid == want:
			return m, nil
		case m.Name == name && (!exact || m.Version == version):
			named = append(named, m)
		case len(want) >= 8 && strings.HasPrefix(m.Cid, want):
			begun = append(begun, m)
		}
	}
	if len(named) > 0 {
		return slices.MaxFunc(named, func(a, b *apiv1.Module) int { return a.Released.AsTime().Compare(b.Released.AsTime()) }), nil
	}
	switch len(begun) {
	case 1:
		return begun[0], nil
	case 0:
		return nil, fail(exitNotFound, "no released module %q; `omega module list` shows them, `omega module publish` releases one", want)
	}
	return nil, fail(exitUsage, "%q could be %d modules; say more of it", want, len(begun))
}

// completeModule is for the shell's completion: silent where no node answers.
func (a *app) completeModule(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c := a.client()
	defer c.Close()
	l, err := c.ListModules(ctx, &apiv1.ListModulesRequest{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, m := range l.Modules {
		out = append(out, printable(m.Name), printable(m.Name+"@"+m.Version))
	}
	slices.Sort(out)
	return slices.Compact(out), cobra.ShellCompDirectiveNoFileComp
}
