package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/omega-mesh/omega/node"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/token"
	"github.com/omega-mesh/omega/trust/tpm"
)

// keyFlags declares the settings that say where a key may be kept; they may stand in the configuration as well.
func keyFlags(f *pflag.FlagSet) {
	f.String("tpm", "", "device of the TPM (default /dev/tpmrm0 where it is)")
	f.String("pkcs11-module", "", "library of the PKCS#11 token")
	f.String("pkcs11-token", "", "label of the PKCS#11 token")
	f.String("pkcs11-pin-file", "", "file with the PIN of the PKCS#11 token")
}

// keepFlags are the flags of a command that makes a key or protects one.
type keepFlags struct {
	kind, pcrs string
	set        *pflag.FlagSet
}

func (k *keepFlags) declare(cmd *cobra.Command) {
	k.set = cmd.Flags()
	k.set.StringVar(&k.kind, "key-store", "", "what keeps this host's key: file, tpm or pkcs11 (default file, or what keeps it now)")
	k.set.StringVar(&k.pcrs, "pcrs", "7", "PCRs that the TPM seals it to; 7 is Secure Boot")
	keyFlags(k.set)
	_ = cmd.RegisterFlagCompletionFunc("key-store", cobra.FixedCompletions([]string{"file", "tpm", "pkcs11"}, cobra.ShellCompDirectiveNoFileComp))
}

// keyStore opens what the flags name; where they name nothing, what keeps the key that is here already. It is nil for a file.
func (a *app) keyStore(ctx context.Context, k *keepFlags) (identity.Store, func(), error) {
	var kind identity.Kind
	switch k.kind {
	case "":
		p, err := identity.ReadProtection(node.Layout{Dir: a.stateDir()}.Identity())
		if err != nil && !errors.Is(err, identity.ErrNone) {
			return nil, nil, err
		}
		kind = p.Kind
	case "file":
	case "tpm":
		kind = identity.KindTPM
	case "pkcs11":
		kind = identity.KindPKCS11
	default:
		return nil, nil, fail(exitUsage, "--key-store %q: want file, tpm or pkcs11", k.kind)
	}
	return a.openKeyStore(ctx, k, kind)
}

func (a *app) openKeyStore(ctx context.Context, k *keepFlags, kind identity.Kind) (identity.Store, func(), error) {
	cfg, err := a.settings(k.set)
	if err != nil {
		return nil, nil, err
	}
	pcrs, err := tpm.ParsePCRs(k.pcrs)
	if err != nil {
		return nil, nil, fail(exitUsage, "--pcrs: %w", err)
	}
	return node.KeyStore(ctx, cfg, kind, pcrs)
}

// protects says for a person what p protects from, and to which PCRs it is sealed.
func protects(p identity.Protection) (text string, pcrs []string) {
	pcrs = []string{}
	switch p.Kind {
	case identity.KindTPM:
		text = "tpm: this host's TPM"
		if set, err := tpm.SealedTo(p.Sealed); err == nil {
			pcrs = strings.Split(set.String(), ",")
			text += " gives it up while PCR " + set.Names() + " is as it was"
		}
		text += "; a copy of the disk has it not, root on the running host has"
	case identity.KindPKCS11:
		text = "pkcs11: the token's key wraps it; a copy of the disk has it not"
		if p.Half != nil {
			text = "pkcs11: a part of it never leaves the token; neither a copy of the disk nor root on this host can take it away"
		}
	case identity.KindPassphrase:
		text = "passphrase: a copy of the disk has it not without that; root on the running host has"
	default:
		text = "file: whoever reads the folder has it, root and every backup; `omega key protect --key-store tpm` ends that"
	}
	return text, pcrs
}

func newKeyProtect(a *app) *cobra.Command {
	var next string
	var keep keepFlags
	cmd := &cobra.Command{
		Use: "protect [--key-store file|tpm|pkcs11]", Short: "Protect this host's key anew: in hardware, or sealed again after new firmware",
		Long: `Protect this host's key anew, while the node is stopped: in a TPM, a PKCS#11 token, or a file. Without --key-store what
keeps it now keeps it again: so a key that the TPM does not give up, since the host starts otherwise than it did (new
firmware, other Secure Boot keys, a new board), is sealed to how it starts now. That takes the copy of the wrapping key that
lies with the next key, and its passphrase: only do it when you know what changed.`,
		Example: `  omega key protect --key-store tpm --passphrase-file pass.txt
  omega key protect --next-key /media/usb/omega-next      # after new firmware
  omega key protect --key-store tpm --pcrs 0,2,7 --next-key /media/usb/omega-next`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir := node.Layout{Dir: a.stateDir()}.Identity()
			p, err := identity.ReadProtection(dir)
			if errors.Is(err, identity.ErrNone) {
				return fmt.Errorf("%s: %w", a.stateDir(), node.ErrNotInitialised)
			}
			if err != nil {
				return err
			}
			passphrase, err := a.readPassphrase()
			if err != nil {
				return err
			}
			defer clear(passphrase)
			to, closeTo, err := a.keyStore(cmd.Context(), &keep)
			if err != nil {
				return err
			}
			defer closeTo()
			from := to
			if to == nil || to.Kind() != p.Kind {
				var closeFrom func()
				if from, closeFrom, err = a.openKeyStore(cmd.Context(), &keep, p.Kind); err != nil {
					a.progress("what keeps the key now is not here: " + err.Error())
					from, closeFrom = nil, func() {}
				}
				defer closeFrom()
			}
			held := to // an emulator takes one connection at a time: what is open is asked
			if held == nil {
				held = from
			}
			random, endRandom, err := a.random(cmd.Context(), cmd.Flags(), held)
			if err != nil {
				return err
			}
			defer endRandom()
			if err := node.Protect(a.stateDir(), identity.Options{Passphrase: passphrase, Store: to, NextDir: next, Random: random}, from); err != nil {
				return err
			}
			if p, err = identity.ReadProtection(dir); err != nil {
				return err
			}
			text, pcrs := protects(p)
			return a.say(map[string]any{"protection": p.Kind.String(), "pcrs": pcrs, "next_dir": node.NextDir(a.stateDir(), next)}, "%s", text)
		},
	}
	cmd.Flags().StringVar(&next, "next-key", "", "folder of the pre-rotated next key, where the copy of the wrapping key lies (default beside the state folder)")
	keep.declare(cmd)
	return cmd
}

func readNonce(text string) ([]byte, error) {
	nonce, err := hex.DecodeString(text)
	if err != nil || len(nonce) < trust.MinNonce || len(nonce) > trust.MaxNonce {
		return nil, fail(exitUsage, "--nonce: want %d to %d bytes in hex, chosen at random by whoever verifies: `openssl rand -hex 32`", trust.MinNonce, trust.MaxNonce)
	}
	return nonce, nil
}

func newKeyQuote(a *app) *cobra.Command {
	var nonce, pcrs string
	cmd := &cobra.Command{
		Use: "quote FILE|- --nonce HEX", Short: "Have this host's TPM sign how this host started, for somebody who asks",
		Long: `Have this host's TPM sign its PCRs, which hold what the firmware measured as this host started, over a nonce that the one who
asks chose. The file says whose TPM it is as well: "omega key verify" checks it anywhere, without a network.`,
		Example: "  omega key quote quote.bin --nonce $NONCE\n  omega key quote - --nonce $NONCE --pcrs 0,2,4,7 | ssh auditor omega key verify - --nonce $NONCE", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := readNonce(nonce)
			if err != nil {
				return err
			}
			set, err := tpm.ParsePCRs(pcrs)
			if err != nil {
				return fail(exitUsage, "--pcrs: %w", err)
			}
			cfg, err := a.settings(cmd.Flags())
			if err != nil {
				return err
			}
			att, err := node.Quote(cmd.Context(), cfg, set, n)
			if err != nil {
				return err
			}
			raw, err := att.Encode()
			if err != nil {
				return err
			}
			if args[0] == "-" {
				_, err = a.out.Write(raw)
				return err
			}
			if err := os.WriteFile(args[0], raw, 0o644); err != nil {
				return fmt.Errorf("write the quote: %w", err)
			}
			return a.say(map[string]any{"file": args[0], "did": att.Keys.Inception.DID(), "pcrs": strings.Split(set.String(), ","), "bytes": len(raw)},
				"%s: PCR %s of %s; check it with `omega key verify %s --nonce %s`", args[0], set, att.Keys.Inception.DID(), args[0], nonce)
		},
	}
	cmd.Flags().StringVar(&nonce, "nonce", "", "the verifier's nonce, 16 to 64 bytes in hex")
	cmd.Flags().StringVar(&pcrs, "pcrs", "0,1,2,3,4,5,6,7", "PCRs to sign")
	keyFlags(cmd.Flags())
	return cmd
}

func newKeyVerify(a *app) *cobra.Command {
	var nonce, peer string
	var expect []string
	cmd := &cobra.Command{
		Use: "verify FILE|- --nonce HEX [--peer PEER] [--expect PCR=HEX]", Short: "Check what another host's TPM signed, and print its PCRs",
		Long: `Check a file of "omega key quote": that a TPM signed these PCRs over this nonce, and that the identity it names endorsed that
TPM's key. With --peer the identity must be that member's, by the key in use as this host's node knows it; without, the
records in the file are taken, which whoever stole an older key of that identity could have cut short. It tells who started
how; that a TPM is a real chip its maker's certificate would say, which is not asked for here.`,
		Example: "  omega key verify quote.bin --nonce $NONCE --peer web1\n  omega key verify quote.bin --nonce $NONCE --expect 7=65caf8dd…", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := readNonce(nonce)
			if err != nil {
				return err
			}
			raw, err := a.readBounded(args[0], trust.MaxAttestation)
			if err != nil {
				return err
			}
			att, err := identity.DecodeAttestation(raw)
			if err != nil {
				return err
			}
			keys, by := att.Keys, "the file's records"
			if peer != "" {
				c := a.client()
				defer c.Close()
				r, err := c.Identity(cmd.Context(), &apiv1.IdentityRequest{Peer: peer})
				if err != nil {
					return err
				}
				if keys, err = history(r); err != nil {
					return fmt.Errorf("the node's records of that identity: %w", err)
				}
				if keys.Inception.DID() != att.Keys.Inception.DID() {
					return fmt.Errorf("%w: it is of %s, and %s is %s", identity.ErrAttestation, att.Keys.Inception.DID(), peer, keys.Inception.DID())
				}
				if err := keys.Endorses(&att.Endorsement); err != nil {
					return err
				}
				by = "this node's records of " + peer
			}
			q, err := tpm.DecodeQuote(att.Quote)
			if err != nil {
				return err
			}
			state, err := q.Verify(identity.Challenge(keys.Inception.DID(), n))
			if err != nil {
				return err
			}
			if string(q.Key) != string(att.Endorsement.Key) {
				return fmt.Errorf("%w: another TPM signed than the identity endorsed", identity.ErrAttestation)
			}
			if err := expected(q, expect); err != nil {
				return err
			}
			name, err := tpm.Name(q.Key)
			if err != nil {
				return err
			}
			values := map[string]string{}
			for _, i := range q.PCRs.List() {
				values[strconv.FormatUint(uint64(i), 10)] = hex.EncodeToString(q.Value(i))
			}
			if a.json {
				return a.emit(map[string]any{
					"ok": true, "did": keys.Inception.DID(), "name": keys.Inception.Name, "attestation_key": name, "pcrs": values, "resets": state.Resets,
					"restarts": state.Restarts, "clock_ms": state.Clock, "clock_safe": state.Safe, "firmware": strconv.FormatUint(state.Firmware, 16), "by": by,
				})
			}
			fmt.Fprintf(a.out, "good        signed by the TPM of %s (%s), by %s\nTPM         %s, started %d times\n", keys.Inception.DID(), printable(keys.Inception.Name), by, name, state.Resets)
			for _, i := range q.PCRs.List() {
				fmt.Fprintf(a.out, "PCR %-2d      %x\n", i, q.Value(i))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&nonce, "nonce", "", "the nonce that was asked with, in hex")
	cmd.Flags().StringVar(&peer, "peer", "", "the member that must have made it, as this host's node knows it")
	cmd.Flags().StringSliceVar(&expect, "expect", nil, "PCR=HEX: refuse another value; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("peer", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return a.peerNames(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

// expected compares a quote's values with what the verifier wants.
func expected(q *tpm.Quote, want []string) error {
	for _, e := range want {
		number, value, ok := strings.Cut(e, "=")
		n, err := strconv.ParseUint(number, 10, 8)
		v, verr := hex.DecodeString(value)
		if !ok || err != nil || verr != nil || len(v) != 32 {
			return fail(exitUsage, "--expect %q: want PCR=HEX, 64 digits", e)
		}
		if got := q.Value(uint(n)); string(got) != string(v) {
			return fmt.Errorf("PCR %d is %x, not %x: that host started otherwise than you expect", n, got, v)
		}
	}
	return nil
}

// readBounded reads a file, or standard input for "-", of at most limit bytes.
func (a *app) readBounded(path string, limit int) ([]byte, error) {
	if path != "-" {
		return node.ReadBounded(path, limit)
	}
	raw, err := io.ReadAll(io.LimitReader(a.in, int64(limit)+1))
	if err == nil && len(raw) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return raw, err
}

// keyRefused says that the hardware which keeps the key does not give it, so that a script is told "not permitted".
func keyRefused(err error) bool {
	return errors.Is(err, tpm.ErrPCRs) || errors.Is(err, tpm.ErrOtherTPM) || errors.Is(err, identity.ErrStore) ||
		errors.Is(err, token.ErrPIN) || errors.Is(err, token.ErrMissing)
}

// random opens what makes new keys. The function ends it, and says which sources were dropped.
func (a *app) random(ctx context.Context, flags *pflag.FlagSet, store identity.Store) (io.Reader, func(), error) {
	cfg, err := a.settings(flags)
	if err != nil {
		return nil, nil, err
	}
	r, end, err := node.Entropy(ctx, cfg, store)
	if err != nil {
		return nil, nil, err
	}
	return r, sync.OnceFunc(func() {
		for _, dropped := range end() {
			a.progress("random bytes come from the other sources, without " + dropped)
		}
	}), nil
}
