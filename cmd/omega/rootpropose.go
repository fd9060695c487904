package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/node"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/root"
)

// proposal is what the commands below share: where they write, and how a body comes about.
type proposal struct {
	a    *app
	sign bool
}

func newRootProposeCommand(a *app) *cobra.Command {
	p := &proposal{a: a}
	cmd := group("propose", "Write a change of the root for operators to sign, to standard output", `  omega root propose revoke n4 --why stolen --sign > revoke.pem
  omega root propose operator-add alice.inception --threshold 2 > add.pem
  omega root propose release binary/linux-amd64 --version 1.2.0 --file bin/omega > release.pem
  omega root propose recover --common 3f9c2a… --after 77ab01… > rescue.pem`,
		p.add(), p.remove(), p.rotate(), p.issuers(), p.revoke(), p.unrevoke(), p.release(), p.policy(), p.retire(), p.recover())
	cmd.PersistentFlags().BoolVar(&p.sign, "sign", false, "sign it at once with the operator's key of this folder")
	return cmd
}

// make writes the proposal of body on the root as it stands, or after the entry at.
func (p *proposal) make(ctx context.Context, at string, body func(*client.Client, *apiv1.RootResponse) (root.Body, error)) error {
	c := p.a.client()
	defer c.Close()
	r, err := c.Root(ctx, &apiv1.RootRequest{At: at})
	if err != nil {
		return err
	}
	b, err := body(c, r)
	if err != nil {
		return err
	}
	e, err := propose(r, b)
	if err != nil {
		return fail(exitUsage, "%w", err)
	}
	if p.sign {
		if e, err = p.a.signRoot(ctx, c, e); err != nil {
			return err
		}
	}
	text, err := e.Text()
	if err != nil {
		return err
	}
	p.a.progress(fmt.Sprintf("root entry %d: %s; next: %d operator(s) run `omega root sign FILE`, then `omega root submit FILE`", e.Seq, describeRoot(e), int(r.K)-len(e.Signatures)))
	if p.a.json {
		return p.a.emit(map[string]any{"hash": e.Hash().String(), "kind": e.Kind.String(), "signatures": len(e.Signatures), "need": r.K, "text": string(text)})
	}
	_, err = p.a.out.Write(text)
	return err
}

// signRoot signs with the operator's key of this folder.
func (a *app) signRoot(ctx context.Context, c *client.Client, e *root.Entry) (*root.Entry, error) {
	passphrase, err := a.readPassphrase()
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	op, err := c.OpenOperator(ctx, passphrase)
	if err != nil {
		return nil, err
	}
	defer op.Close()
	return op.SignRoot(e)
}

func (p *proposal) add() *cobra.Command {
	var k int
	var peer string
	cmd := &cobra.Command{
		Use: "operator-add INCEPTION", Short: "A new operator, by its inception file", Args: cobra.ExactArgs(1),
		Example: "  omega root propose operator-add alice.inception --threshold 2 --node n7 --sign > add.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.make(cmd.Context(), "", func(c *client.Client, r *apiv1.RootResponse) (root.Body, error) {
				raw, node, err := inceptionAndNode(cmd.Context(), c, args[0], peer)
				return &root.Add{Inception: raw, K: threshold(k, len(current(r))+1), Node: node}, err
			})
		},
	}
	cmd.Flags().IntVar(&k, "threshold", 0, "how many must sign from then on (default the smallest majority)")
	cmd.Flags().StringVar(&peer, "node", "", "the operator's own peer: no single operator may suspend it")
	return cmd
}

// threshold is k, or the smallest majority of n.
func threshold(k, n int) uint8 {
	if k <= 0 || k > 255 {
		k = n/2 + 1
	}
	return uint8(k)
}

func inceptionAndNode(ctx context.Context, c *client.Client, file, peer string) (raw, subject []byte, err error) {
	if raw, err = node.ReadBounded(file, trust.MaxInception); err != nil {
		return nil, nil, fmt.Errorf("read the inception: %w", err)
	}
	if peer != "" {
		m, err := findPeer(ctx, c, peer)
		if err != nil {
			return nil, nil, err
		}
		if subject, err = subjectOf(m.Did); err != nil {
			return nil, nil, err
		}
	}
	return raw, subject, nil
}

func (p *proposal) remove() *cobra.Command {
	var k int
	var stands int64
	cmd := &cobra.Command{
		Use: "operator-remove OPERATOR", Short: "An operator less, by name or DID", Args: cobra.ExactArgs(1),
		Example: "  omega root propose operator-remove operator-3 --stands 17 > remove.pem   # what it said from number 17 on is void",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.make(cmd.Context(), "", func(_ *client.Client, r *apiv1.RootResponse) (root.Body, error) {
				o, subject, err := findOperator(r, args[0])
				if err != nil {
					return nil, err
				}
				return &root.Remove{Operator: subject, Authority: standing(stands, o), K: threshold(k, len(current(r))-1)}, nil
			})
		},
	}
	cmd.Flags().IntVar(&k, "threshold", 0, "how many must sign from then on (default the smallest majority)")
	cmd.Flags().Int64Var(&stands, "stands", -1, "how many of its entries stand (default all that this node has)")
	return cmd
}

func standing(n int64, o *apiv1.RootOperator) uint64 {
	if n < 0 {
		return o.Entries
	}
	return uint64(n)
}

func findOperator(r *apiv1.RootResponse, want string) (*apiv1.RootOperator, []byte, error) {
	var found []*apiv1.RootOperator
	for _, o := range current(r) {
		if o.Name == want || o.Did == want || len(want) >= 4 && strings.HasPrefix(o.Did, "did:omega:"+want) {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		return nil, nil, fail(exitNotFound, "%d operators are called %q; `omega root show` lists them", len(found), want)
	}
	subject, err := subjectOf(found[0].Did)
	return found[0], subject, err
}

func (p *proposal) rotate() *cobra.Command {
	var stands int64
	var peer string
	cmd := &cobra.Command{
		Use: "operator-rotate OPERATOR INCEPTION", Short: "New keys in the place of an operator's", Args: cobra.ExactArgs(2),
		Example: "  omega root propose operator-rotate alice alice-new.inception --sign > rotate.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.make(cmd.Context(), "", func(c *client.Client, r *apiv1.RootResponse) (root.Body, error) {
				o, subject, err := findOperator(r, args[0])
				if err != nil {
					return nil, err
				}
				raw, node, err := inceptionAndNode(cmd.Context(), c, args[1], peer)
				return &root.Rotate{Operator: subject, Authority: standing(stands, o), Inception: raw, Node: node}, err
			})
		},
	}
	cmd.Flags().Int64Var(&stands, "stands", -1, "how many entries of the old keys stand (default all that this node has)")
	cmd.Flags().StringVar(&peer, "node", "", "the operator's own peer: no single operator may suspend it")
	return cmd
}

func (p *proposal) issuers() *cobra.Command {
	return &cobra.Command{
		Use: "issuers [PEER=CAPABILITY[,CAPABILITY]]…", Short: "Who but operators may issue, and what: the whole list", Args: cobra.ArbitraryArgs,
		Long:    "Who but operators may issue, and what: the whole list. An issuer's node lends to each analyst what it is named for of respond-deny, respond-release, module-deploy and module-release.",
		Example: "  omega root propose issuers n1=respond-deny,respond-release n2=module-deploy,module-release > issuers.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.make(cmd.Context(), "", func(c *client.Client, _ *apiv1.RootResponse) (root.Body, error) {
				body := &root.Issuers{List: []root.Issuer{}}
				for _, arg := range args {
					peer, caps, ok := strings.Cut(arg, "=")
					if !ok {
						return nil, fail(exitUsage, "%q: want PEER=CAPABILITY", arg)
					}
					m, err := findPeer(cmd.Context(), c, peer)
					if err != nil {
						return nil, err
					}
					did, err := subjectOf(m.Did)
					if err != nil {
						return nil, err
					}
					split := strings.Split(caps, ",")
					slices.Sort(split)
					body.List = append(body.List, root.Issuer{DID: did, Capabilities: slices.Compact(split)})
				}
				slices.SortFunc(body.List, func(x, y root.Issuer) int { return slices.Compare(x.DID, y.DID) })
				return body, nil
			})
		},
	}
}

func (p *proposal) revoke() *cobra.Command {
	var why string
	var authorityStands, activityStands int64
	cmd := &cobra.Command{
		Use: "revoke PEER --why TEXT", Short: "A peer out of the swarm for good", Args: cobra.ExactArgs(1), ValidArgsFunction: p.a.completePeer,
		Example: "  omega root propose revoke n4 --why 'disk image sold' --sign > revoke.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			if why == "" {
				return fail(exitUsage, "--why is needed: it is kept with the entry for ever")
			}
			return p.make(cmd.Context(), "", func(c *client.Client, _ *apiv1.RootResponse) (root.Body, error) {
				return revocation(cmd.Context(), c, args[0], why, authorityStands, activityStands)
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept for ever")
	cmd.Flags().Int64Var(&authorityStands, "authority-stands", -1, "how many of its authority entries stand (default all that this node has)")
	cmd.Flags().Int64Var(&activityStands, "activity-stands", -1, "how many of its findings and receipts stand (default all that this node has)")
	return cmd
}

// revocation is the body that puts a peer out; what it said so far stands unless told otherwise.
func revocation(ctx context.Context, c *client.Client, peer, why string, authorityStands, activityStands int64) (*root.Revoke, error) {
	m, err := findPeer(ctx, c, peer)
	if err != nil {
		return nil, err
	}
	subject, err := subjectOf(m.Did)
	if err != nil {
		return nil, err
	}
	b := &root.Revoke{Subject: subject, Authority: uint64(max(authorityStands, 0)), Activity: uint64(max(activityStands, 0)), Why: why}
	if activityStands < 0 {
		b.Activity = m.Head
	}
	if authorityStands < 0 {
		h, err := c.Head(ctx, &apiv1.HeadRequest{Did: m.Did})
		if err != nil {
			return nil, err
		}
		b.Authority = h.NextSeq
	}
	return b, nil
}

func (p *proposal) unrevoke() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use: "unrevoke PEER --why TEXT", Short: "A peer in again: every revocation and suspension said so far is undone", Args: cobra.ExactArgs(1),
		Example: "  omega root propose unrevoke n4 --why 'found again, wiped' --sign > unrevoke.pem", ValidArgsFunction: p.a.completePeer,
		RunE: func(cmd *cobra.Command, args []string) error {
			if why == "" {
				return fail(exitUsage, "--why is needed: it is kept with the entry for ever")
			}
			return p.make(cmd.Context(), "", func(c *client.Client, _ *apiv1.RootResponse) (root.Body, error) {
				m, err := findPeer(cmd.Context(), c, args[0])
				if err != nil {
					return nil, err
				}
				subject, err := subjectOf(m.Did)
				return &root.Unrevoke{Subject: subject, Why: why}, err
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept for ever")
	return cmd
}

func (p *proposal) release() *cobra.Command {
	var version, sum, file string
	var withdraw bool
	cmd := &cobra.Command{
		Use: "release NAME", Short: "The true hash of a module or binary", Args: cobra.ExactArgs(1),
		Example: "  omega root propose release binary/linux-amd64 --version 1.2.0 --file bin/omega > release.pem\n  omega root propose release module/sigma-base --withdraw > gone.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			hash := []byte{}
			switch {
			case withdraw:
			case file != "":
				f, err := os.Open(file)
				if err != nil {
					return err
				}
				defer f.Close()
				h := sha256.New()
				if _, err := io.Copy(h, f); err != nil {
					return err
				}
				hash = h.Sum(nil)
			default:
				var err error
				if hash, err = hex.DecodeString(sum); err != nil || len(hash) != sha256.Size {
					return fail(exitUsage, "say --file, --sha256 with 64 hex digits, or --withdraw")
				}
			}
			return p.make(cmd.Context(), "", func(*client.Client, *apiv1.RootResponse) (root.Body, error) {
				return &root.Release{Name: args[0], Version: version, SHA256: hash}, nil
			})
		},
	}
	cmd.Flags().StringVar(&version, "version", "", "its version")
	cmd.Flags().StringVar(&sum, "sha256", "", "its SHA-256, 64 hex digits")
	cmd.Flags().StringVar(&file, "file", "", "hash this file")
	cmd.Flags().BoolVar(&withdraw, "withdraw", false, "no hash of that name is true any more")
	return cmd
}

func (p *proposal) policy() *cobra.Command {
	return &cobra.Command{
		Use: "policy FILE", Short: "The response policy: from then on no operator alone can change it", Args: cobra.ExactArgs(1),
		Example: "  omega policy test policy.cedar && omega root propose policy policy.cedar --sign > policy.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := node.ReadBounded(args[0], trust.MaxAuthorityBody)
			if err != nil {
				return fmt.Errorf("read the policy: %w", err)
			}
			return p.make(cmd.Context(), "", func(*client.Client, *apiv1.RootResponse) (root.Body, error) {
				return &root.Policy{Text: string(text)}, nil
			})
		},
	}
}

func (p *proposal) retire() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use: "retire GENESIS", Short: "Hand the swarm over to another, by that one's genesis file", Args: cobra.ExactArgs(1),
		Long: `Hand the swarm over to another, of another suite for instance: a suite never changes. GENESIS is genesis.cbor of the
successor. Nothing is granted here from then on; every member is told where to go.`,
		Example: "  omega init --dir next --swarm home2 --suite cnsa && omega root propose retire next/genesis.cbor --why 'CNSA 2.0' > retire.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := node.ReadBounded(args[0], trust.MaxGenesis)
			if err != nil {
				return fmt.Errorf("read the successor's genesis: %w", err)
			}
			g, err := authority.DecodeGenesis(raw)
			if err != nil {
				return fail(exitUsage, "%s: %w", filepath.Base(args[0]), err)
			}
			return p.make(cmd.Context(), "", func(*client.Client, *apiv1.RootResponse) (root.Body, error) {
				id := g.SwarmID()
				return &root.Retire{Successor: id[:], Suite: g.Suite, Why: why}, nil
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept for ever")
	return cmd
}

func (p *proposal) recover() *cobra.Command {
	var common, after string
	var round uint32
	var add, remove []string
	var k int
	cmd := &cobra.Command{
		Use: "recover --common HASH --after HASH", Short: "After a fork, or a theft of k keys: say which branch stands", Args: cobra.NoArgs,
		Long: `Say which branch of the root stands: everything after --common that does not lead to --after is dropped. The recovery keys
that genesis names sign it; where it names none, as many operators of --common as that entry asks for. With recovery
keys it needs no fork, and may put other operators in the place of stolen ones.`,
		Example: `  omega root show                       # names the fork and both branches
  omega root propose recover --common 3f9c2a… --after 77ab01… > rescue.pem
  omega root propose recover --common 3f9c2a… --after 3f9c2a… --remove bob --add bob-new.inception --threshold 2 > rescue.pem
  omega root sign rescue.pem --recovery-key /media/safe/recovery-1.key`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if common == "" || after == "" {
				return fail(exitUsage, "say --common and --after; `omega root show` lists the hashes")
			}
			c := p.a.client()
			defer c.Close()
			r, err := c.Root(cmd.Context(), &apiv1.RootRequest{})
			if err != nil {
				return err
			}
			var known []string
			known = append(known, hex.EncodeToString(r.Swarm), hex.EncodeToString(r.Head))
			for _, e := range r.Chain {
				known = append(known, e.Hash)
			}
			for _, f := range r.Forks {
				known = append(known, f.Common)
				for _, e := range f.Children {
					known = append(known, e.Hash)
				}
			}
			slices.Sort(known)
			known = slices.Compact(known)
			if after, err = oneOf("root entry", after, known); err != nil {
				return err
			}
			if common, err = oneOf("root entry", common, known); err != nil {
				return err
			}
			return p.make(cmd.Context(), after, func(_ *client.Client, r *apiv1.RootResponse) (root.Body, error) {
				hash, err := hex.DecodeString(common)
				if err != nil {
					return nil, err
				}
				body := &root.Recover{Common: hash, Round: round}
				for _, o := range remove {
					x, subject, err := findOperator(r, o)
					if err != nil {
						return nil, err
					}
					body.Remove = append(body.Remove, root.Removal{Operator: subject, Authority: x.Entries})
				}
				slices.SortFunc(body.Remove, func(x, y root.Removal) int { return slices.Compare(x.Operator, y.Operator) })
				for _, file := range add {
					raw, err := node.ReadBounded(file, trust.MaxInception)
					if err != nil {
						return nil, fmt.Errorf("read the inception: %w", err)
					}
					if _, err := identity.DecodeInception(raw); err != nil {
						return nil, fail(exitUsage, "%s: %w", file, err)
					}
					body.Add = append(body.Add, raw)
				}
				if len(add)+len(remove) > 0 {
					body.K = threshold(k, len(current(r))+len(add)-len(remove))
				}
				return body, nil
			})
		},
	}
	cmd.Flags().StringVar(&common, "common", "", "the last entry that is not in question (the swarm id for genesis)")
	cmd.Flags().StringVar(&after, "after", "", "the entry that the chain goes on from")
	cmd.Flags().Uint32Var(&round, "round", 1, "higher than that of an earlier recovery at the same place")
	cmd.Flags().StringSliceVar(&add, "add", nil, "inception files of new operators")
	cmd.Flags().StringSliceVar(&remove, "remove", nil, "operators that are none any more")
	cmd.Flags().IntVar(&k, "threshold", 0, "with --add or --remove: how many must sign from then on")
	return cmd
}
