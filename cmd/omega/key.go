package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/node"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/trust/identity"
)

func newKeyCommand(a *app) *cobra.Command {
	return group("key", "This host's key: where it lies, its rotation, and what its TPM says of this host",
		"  omega key status\n  omega key rotate\n  omega key protect --key-store tpm", newKeyStatus(a), newKeyRotate(a), newKeyProtect(a), newKeyQuote(a), newKeyVerify(a))
}

func newKeyStatus(a *app) *cobra.Command {
	var next string
	cmd := &cobra.Command{
		Use: "status [--next-key DIR]", Short: "How this host's key is protected, and whether the next one is here",
		Example: "  omega key status\n  omega key status --json --next-key /media/usb/omega-next", Args: cobra.NoArgs,
		RunE: func(_ *cobra.Command, _ []string) error {
			dir := node.Layout{Dir: a.stateDir()}.Identity()
			keys, err := identity.ReadKeys(dir)
			if errors.Is(err, identity.ErrNone) {
				return fmt.Errorf("%s: %w: make one with `omega init` or `omega join`", a.stateDir(), node.ErrNotInitialised)
			}
			if err != nil {
				return err
			}
			p, err := identity.ReadProtection(dir)
			if err != nil {
				return err
			}
			by, pcrs := protects(p)
			nextDir := node.NextDir(a.stateDir(), next)
			here := identity.NextPresent(nextDir, keys.Number())
			together := here && inside(nextDir, a.stateDir())
			stored := p.Kind == identity.KindTPM || p.Kind == identity.KindPKCS11
			back := stored && identity.RecoveryPresent(nextDir)
			if a.json {
				return a.emit(map[string]any{
					"did": keys.Inception.DID(), "suite": keys.Inception.Suite.Name(), "protection": p.Kind.String(), "dir": dir, "rotation": keys.Number(),
					"next_dir": nextDir, "next_present": here, "together": together, "pcrs": pcrs, "in_token": p.Half != nil, "recovery_present": back,
				})
			}
			where := "not there: name its folder with --next-key"
			if here {
				where = "there"
			}
			if together {
				where += ", inside the state folder: a thief of that has both; move it to removable or offline media"
			}
			fmt.Fprintf(a.out, "identity    %s\nkey         number %d, in %s\nprotection  %s\nnext key    %s: %s\n", keys.Inception.DID(), keys.Number(), dir, by, nextDir, where)
			if stored {
				where = "not there: name the next key's folder with --next-key"
				if back {
					where = "there; with the next key beside it, it opens this key without the hardware: carry both away, or see that they have a passphrase"
				}
				fmt.Fprintf(a.out, "way back    %s: %s\n", nextDir, where)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&next, "next-key", "", "folder of the pre-rotated next key (default beside the state folder)")
	return cmd
}

// inside reports whether path lies in dir.
func inside(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

func newKeyRotate(a *app) *cobra.Command {
	var next string
	cmd := &cobra.Command{
		Use: "rotate [--next-key DIR]", Short: "Go on with the next key, on the running node",
		Long: `Go on with the key that this host's identity committed to before, and commit to another. The DID, the roles and the
history stay. What the old key signs from now on counts nowhere: of two copies of this host, the one that does this stays,
and the other is cut off. The next key is read from a folder outside the state folder; keep that on removable or offline
media, and name it here.`,
		Example: "  omega key rotate\n  omega key rotate --next-key /media/usb/omega-next", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			passphrase, err := a.readPassphrase()
			if err != nil {
				return err
			}
			defer clear(passphrase)
			dir := node.NextDir(a.stateDir(), next)
			random, endRandom, err := a.random(cmd.Context(), cmd.Flags(), nil)
			if err != nil {
				return err
			}
			defer endRandom()
			step, err := identity.Succeed(node.Layout{Dir: a.stateDir()}.Identity(), identity.Options{NextDir: dir, Passphrase: passphrase, Random: random})
			switch {
			case errors.Is(err, identity.ErrNextKey):
				return fail(exitNotPermitted, "%w: bring the medium it lies on and name its folder with --next-key; without it nobody can rotate this identity", err)
			case errors.Is(err, identity.ErrNone):
				return fmt.Errorf("%s: %w", a.stateDir(), node.ErrNotInitialised)
			case err != nil:
				return err
			}
			defer func() { _ = step.Close() }()
			c := a.client()
			defer c.Close()
			seed := step.Key.Seed()
			defer clear(seed)
			r, err := c.Rotate(cmd.Context(), &apiv1.RotateRequest{Seed: seed, Next: step.Next[:]})
			if err != nil {
				return err
			}
			if err := step.Done(); err != nil {
				return err
			}
			return a.say(map[string]any{"rotation": r.Number, "entry": r.Entry, "next_dir": dir},
				"key %d is in use; the one after it lies in %s: keep that away from this host", r.Number, dir)
		},
	}
	cmd.Flags().StringVar(&next, "next-key", "", "folder of the pre-rotated next key (default beside the state folder)")
	return cmd
}

func newDIDCommand(a *app) *cobra.Command {
	show := &cobra.Command{
		Use: "show [PEER]", Short: "Print the W3C DID document of a member; of this host where none is named",
		Example: "  omega did show\n  omega did show n2 | jq .verificationMethod", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.Identity(cmd.Context(), &apiv1.IdentityRequest{Peer: append(args, "")[0]})
			if err != nil {
				return err
			}
			// Checked here again: the document says what the records prove, not what the node says.
			keys, err := history(r)
			if err != nil {
				return fmt.Errorf("the node's records of that identity: %w", err)
			}
			d := keys.Document()
			d.Deactivated = !r.Active
			return a.emit(d)
		},
		ValidArgsFunction: a.completePeer,
	}
	return group("did", "Decentralised identifiers of members", "  omega did show n2", show)
}

func history(r *apiv1.IdentityResponse) (identity.Keys, error) {
	inception, err := identity.DecodeInception(r.Inception)
	if err != nil {
		return identity.Keys{}, err
	}
	keys := identity.Keys{Inception: inception}
	for _, raw := range r.Rotations {
		x, err := identity.DecodeRotation(raw)
		if err == nil {
			err = keys.Follows(x)
		}
		if err != nil {
			return keys, err
		}
		keys = keys.Rotated(x)
	}
	return keys, nil
}
