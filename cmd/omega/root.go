package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/node"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/root"
)

func newRootChainCommand(a *app) *cobra.Command {
	return group("root", "Who rules the swarm: show it, and change it with the signatures of k operators",
		`  omega root show
  omega root propose operator-remove operator-3 --threshold 2 --sign > change.pem
  omega root sign change.pem --operator-dir /media/stick/operator   # on another operator's machine, no network needed
  omega root submit change.pem`,
		newRootShowCommand(a), newRootProposeCommand(a), newRootSignCommand(a), newRootSubmitCommand(a), newRootOperatorCommand(a))
}

func newRootShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "The root chain: operators, how many must sign, what they changed, forks",
		ValidArgsFunction: cobra.NoFileCompletions, Example: "  omega root show\n  omega root show --json | jq '.operators[].name'", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.Root(cmd.Context(), &apiv1.RootRequest{})
			if err != nil {
				return err
			}
			if a.json {
				return a.emit(rootJSON(r))
			}
			fmt.Fprintf(a.out, "swarm     %s\nhead      %d %s\nneeds     %d of %d operators\n", hex.EncodeToString(r.Swarm), r.Seq, shortID(hex.EncodeToString(r.Head)), r.K, len(current(r)))
			if r.RecoveryKeys > 0 {
				fmt.Fprintf(a.out, "recovery  %d of %d keys\n", r.RecoveryK, r.RecoveryKeys)
			}
			if r.Frozen != "" {
				fmt.Fprintf(a.out, "FROZEN    %s: nothing new is granted, what is forbidden holds\n", printable(r.FrozenDetail))
			}
			var rows [][]string
			for _, o := range r.Operators {
				state := fmt.Sprintf("since %d", o.Since)
				if o.Former {
					state = fmt.Sprintf("former, %d entries stand", o.Stands)
				}
				rows = append(rows, []string{o.Name, short(o.Did), state})
			}
			if err := a.table([]string{"OPERATOR", "DID", "STATE"}, rows); err != nil {
				return err
			}
			rows = nil
			names := operatorNames(r)
			for _, e := range r.Chain {
				rows = append(rows, []string{fmt.Sprint(e.Seq), shortID(e.Hash), e.Kind, clock(e.Time), strings.Join(signers(e, names), ",")})
			}
			if err := a.table([]string{"NO", "HASH", "KIND", "TIME", "SIGNED BY"}, rows); err != nil {
				return err
			}
			for _, f := range r.Forks {
				state := "unresolved; `omega root propose recover --help`"
				if f.Stands != "" {
					state = "resolved"
				}
				fmt.Fprintf(a.out, "FORK after %s (%s): ", shortID(f.Common), state)
				for i, e := range f.Children {
					if i > 0 {
						fmt.Fprint(a.out, " against ")
					}
					fmt.Fprintf(a.out, "%s %s by %s", shortID(e.Hash), e.Kind, printable(strings.Join(signers(e, names), ",")))
				}
				fmt.Fprintln(a.out)
			}
			return nil
		},
	}
}

func current(r *apiv1.RootResponse) []*apiv1.RootOperator {
	return slices.DeleteFunc(slices.Clone(r.Operators), func(o *apiv1.RootOperator) bool { return o.Former })
}

func operatorNames(r *apiv1.RootResponse) map[string]string {
	names := make(map[string]string)
	for _, o := range r.Operators {
		names[o.Did] = o.Name
	}
	return names
}

func signers(e *apiv1.RootEntry, names map[string]string) []string {
	var out []string
	for _, s := range e.Signers {
		switch {
		case names[s] != "":
			s = names[s]
		case strings.HasPrefix(s, "did:"):
			s = short(s)
		default:
			s = "recovery key " + s[:min(len(s), 8)]
		}
		out = append(out, s)
	}
	return out
}

func rootJSON(r *apiv1.RootResponse) map[string]any {
	entry := func(e *apiv1.RootEntry) map[string]any {
		return map[string]any{"hash": e.Hash, "prev": e.Prev, "seq": e.Seq, "kind": e.Kind, "time": stamp(e.Time), "signers": list(e.Signers)}
	}
	operators, chain, forks := []map[string]any{}, []map[string]any{}, []map[string]any{}
	for _, o := range r.Operators {
		row := map[string]any{"did": o.Did, "name": o.Name, "since": o.Since, "former": o.Former, "entries": o.Entries}
		if o.Former {
			row["stands"] = o.Stands
		}
		operators = append(operators, row)
	}
	for _, e := range r.Chain {
		chain = append(chain, entry(e))
	}
	for _, f := range r.Forks {
		children := []map[string]any{}
		for _, e := range f.Children {
			children = append(children, entry(e))
		}
		forks = append(forks, map[string]any{"common": f.Common, "children": children, "signers": list(f.Signers), "stands": f.Stands})
	}
	releases := r.Releases
	if releases == nil {
		releases = map[string]string{}
	}
	return map[string]any{
		"swarm": hex.EncodeToString(r.Swarm), "head": hex.EncodeToString(r.Head), "seq": r.Seq, "k": r.K, "operators": operators,
		"recovery_k": r.RecoveryK, "recovery_keys": r.RecoveryKeys, "chain": chain, "forks": forks, "frozen": r.Frozen, "frozen_detail": r.FrozenDetail,
		"releases": releases, "revoked": list(r.Revoked), "issuers": list(r.Issuers), "successor": r.Successor,
	}
}

func newRootSignCommand(a *app) *cobra.Command {
	var operatorDir, recovery string
	cmd := &cobra.Command{
		Use: "sign FILE", Short: "Add this operator's signature to a proposal; needs no node and no network",
		Long: `Add this operator's signature to a proposal, in place. It needs no node and no network: the operator's folder may lie on
a stick. What the proposal would do is shown first, so read it. A recovery is signed with --recovery-key.`,
		Example: `  omega root sign change.pem
  omega root sign change.pem --operator-dir /media/stick/operator --passphrase-file pass.txt
  omega root sign rescue.pem --recovery-key /media/safe/recovery-1.key`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := readRoot(a, args[0])
			if err != nil {
				return err
			}
			passphrase, err := a.readPassphrase()
			if err != nil {
				return err
			}
			defer clear(passphrase)
			by := ""
			if recovery != "" {
				text, err := node.ReadBounded(recovery, 2*trust.MaxKeyFile)
				if err != nil {
					return fmt.Errorf("read the recovery key: %w", err)
				}
				key, err := root.ParseRecoveryText(text, passphrase)
				if err != nil {
					return err
				}
				if e, err = e.Recover(key); err != nil {
					return err
				}
				by = "recovery key " + hex.EncodeToString(key.Public()[:4])
			} else {
				if operatorDir == "" {
					operatorDir = filepath.Join(a.stateDir(), "operator")
				}
				op, err := identity.Open(operatorDir, identity.Options{Passphrase: passphrase})
				if err != nil {
					return fmt.Errorf("open the operator's key: %w", err)
				}
				defer op.Close()
				if e, err = e.SignedBy(op); err != nil {
					return err
				}
				by = op.Inception().Name
			}
			if err := writeRoot(args[0], e); err != nil {
				return err
			}
			return a.say(map[string]any{"hash": e.Hash().String(), "kind": e.Kind.String(), "signatures": len(e.Signatures), "signed_by": by},
				"root entry %d, %s: %s; signed by %s, %d signature(s) now", e.Seq, e.Hash().Short(), describeRoot(e), by, len(e.Signatures))
		},
	}
	cmd.Flags().StringVar(&operatorDir, "operator-dir", "", "folder of the operator's key (default operator/ in the state folder)")
	cmd.Flags().StringVar(&recovery, "recovery-key", "", "sign a recovery with this recovery key instead")
	return cmd
}

func newRootSubmitCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "submit FILE…", Short: "Hand a signed proposal to the swarm; says how many signatures are missing",
		Long: `Hand a signed proposal to the swarm through this host's node. Several files may hold copies of one proposal that were
signed apart: their signatures are put together.`,
		Example: "  omega root submit change.pem\n  omega root submit from-alice.pem from-bob.pem", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := readRoot(a, args[0])
			if err != nil {
				return err
			}
			for _, path := range args[1:] {
				other, err := readRoot(a, path)
				if err != nil {
					return err
				}
				if e, err = e.Merge(other); err != nil {
					return err
				}
			}
			c := a.client()
			defer c.Close()
			return a.submitRoot(cmd.Context(), c, e)
		},
	}
}

// submitRoot hands e to the node. Missing signatures are a failure that names their number.
func (a *app) submitRoot(ctx context.Context, c *client.Client, e *root.Entry) error {
	raw, err := e.Encode()
	if err != nil {
		return err
	}
	r, err := c.SubmitRoot(ctx, &apiv1.SubmitRootRequest{Entry: raw})
	if err != nil {
		return err
	}
	if r.Have < r.Need {
		if a.json {
			if err := a.emit(map[string]any{"hash": r.Hash, "state": "missing-signatures", "have": r.Have, "need": r.Need}); err != nil {
				return err
			}
		}
		return fail(exitFailed, "%d of %d signatures: %d more operator(s) must run `omega root sign FILE`", r.Have, r.Need, r.Need-r.Have)
	}
	return a.say(map[string]any{"hash": r.Hash, "id": r.Id, "state": "submitted", "have": r.Have, "need": r.Need},
		"root entry %d, %s: %s; it stands", e.Seq, e.Hash().Short(), describeRoot(e))
}

func newRootOperatorCommand(a *app) *cobra.Command {
	var name, suite string
	cmd := &cobra.Command{
		Use: "new DIR", Short: "Make an operator's keys in a folder of their own, on any machine, with no network",
		Long: `Make an operator's keys in DIR, on a machine or stick of that operator's. DIR/inception is the public record that the
others need: for "omega init --operator-inception", or "omega root propose operator-add". The rest never leaves.`,
		Example: `  omega root operator new /media/stick/operator --name alice --passphrase-file pass.txt
  omega init --swarm home --operators 2/3 --operator-inception alice.inception --operator-inception bob.inception`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen, err := trust.ParseSuite(suite)
			if err != nil {
				return fail(exitUsage, "--suite: %s", err)
			}
			passphrase, err := a.readPassphrase()
			if err != nil {
				return err
			}
			defer clear(passphrase)
			random, endRandom, err := a.random(cmd.Context(), cmd.Flags(), nil)
			if err != nil {
				return err
			}
			defer endRandom()
			i, err := node.NewOperator(args[0], name, chosen, passphrase, random)
			if err != nil {
				return err
			}
			file := filepath.Join(args[0], "inception")
			return a.say(map[string]any{"did": string(i.DID()), "name": i.Name, "inception": file, "suite": i.Suite.Name()},
				"operator %s (%s); give %s to who founds or changes the swarm", i.Name, i.DID(), file)
		},
	}
	cmd.Flags().StringVar(&name, "name", "operator", "the operator's name in the swarm")
	cmd.Flags().StringVar(&suite, "suite", "default", "cryptographic suite: the swarm's")
	return group("operator", "Make operators' keys", "  omega root operator new /media/stick/operator --name alice", cmd)
}

// readRoot reads a proposal from a file, or "-" for standard input.
func readRoot(a *app, path string) (*root.Entry, error) {
	var text []byte
	var err error
	if path == "-" {
		text, err = io.ReadAll(io.LimitReader(a.in, root.MaxText+1))
	} else {
		text, err = node.ReadBounded(path, root.MaxText)
	}
	if err != nil {
		return nil, fmt.Errorf("read the proposal: %w", err)
	}
	e, err := root.ParseText(text)
	if err != nil {
		return nil, fail(exitUsage, "%s: %w", path, err)
	}
	return e, nil
}

// writeRoot writes a proposal so that a crash leaves the old or the new one.
func writeRoot(path string, e *root.Entry) error {
	text, err := e.Text()
	if err != nil {
		return err
	}
	if path == "-" {
		return fail(exitUsage, "a proposal is signed in its file, not in a pipe")
	}
	next := path + ".new"
	if err := os.WriteFile(next, text, 0o644); err != nil {
		return fmt.Errorf("write the proposal: %w", err)
	}
	return os.Rename(next, path)
}

// describeRoot says in words what a root entry would do: what a signer must be able to read.
func describeRoot(e *root.Entry) string {
	did := func(b []byte) string {
		if len(b) != 32 {
			return "?"
		}
		return string(identity.DIDFromBytes([32]byte(b)))
	}
	record := func(raw []byte) string {
		i, err := identity.DecodeInception(raw)
		if err != nil {
			return "?"
		}
		return fmt.Sprintf("%s (%s)", i.Name, i.DID())
	}
	body, err := root.DecodeBody(e.Kind, e.Body)
	if err != nil {
		return fmt.Sprintf("%s, which this version of omega does not know: do not sign it", e.Kind)
	}
	switch b := body.(type) {
	case *root.Add:
		return fmt.Sprintf("make %s an operator, %d must sign from then on", record(b.Inception), b.K)
	case *root.Remove:
		return fmt.Sprintf("remove the operator %s, %d of whose entries stand; %d must sign from then on", did(b.Operator), b.Authority, b.K)
	case *root.Rotate:
		return fmt.Sprintf("put %s in the place of the operator %s, %d of whose entries stand", record(b.Inception), did(b.Operator), b.Authority)
	case *root.Issuers:
		return fmt.Sprintf("make %d the issuers", len(b.List))
	case *root.Revoke:
		return fmt.Sprintf("revoke %s for good, %d and %d of whose entries stand: %s", did(b.Subject), b.Authority, b.Activity, b.Why)
	case *root.Unrevoke:
		return fmt.Sprintf("let %s in again: %s", did(b.Subject), b.Why)
	case *root.Release:
		if len(b.SHA256) == 0 {
			return "withdraw the release " + b.Name
		}
		return fmt.Sprintf("release %s %s, SHA-256 %x", b.Name, b.Version, b.SHA256)
	case *root.Policy:
		return fmt.Sprintf("set the response policy (%d bytes): %s", len(b.Text), b.Text)
	case *root.Retire:
		return fmt.Sprintf("retire this swarm in favour of %x: %s", b.Successor, b.Why)
	case *root.Recover:
		return fmt.Sprintf("recover: %s stands after the common entry %x; %d operators go, %d come", e.Prev, b.Common, len(b.Remove), len(b.Add))
	}
	return e.Kind.String()
}

// proposed is the state that a proposal follows.
func proposed(r *apiv1.RootResponse) *root.State {
	s := &root.State{Seq: r.Seq, Time: r.Time}
	copy(s.Swarm[:], r.Swarm)
	copy(s.Head[:], r.Head)
	return s
}

// propose makes the proposal of a body on the root as the node knows it.
func propose(r *apiv1.RootResponse, body root.Body) (*root.Entry, error) {
	return root.New(proposed(r), body, time.Now().UnixNano())
}
