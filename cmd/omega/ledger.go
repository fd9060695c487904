package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/node"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/audit"
)

func newLedgerCommand(a *app) *cobra.Command {
	return group("ledger", "What peers signed", "  omega ledger show --follow\n  omega ledger verify", newLedgerShow(a), newLedgerVerify(a), newLedgerExport(a))
}

func newLedgerShow(a *app) *cobra.Command {
	var peer, kind, back string
	var follow, evidence bool
	show := &cobra.Command{
		Use: "show [--peer PEER] [--kind KIND] [--since 1h] [--follow] | show --evidence", Short: "The signed entries this node holds, everybody's",
		Example: "  omega ledger show --kind grant\n  omega ledger show --peer n2 --follow --json\n  omega ledger show --evidence        # what authors contradicted themselves with",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := since(back); err != nil {
				return err
			}
			if evidence && (follow || back != "" || peer != "" || kind != "") {
				return fail(exitUsage, "--evidence goes alone: it shows every proof there is")
			}
			c := a.client()
			defer c.Close()
			s, err := c.Entries(cmd.Context(), &apiv1.EntriesRequest{Peer: peer, Kind: kind, Follow: follow, Since: back, Evidence: evidence})
			if evidence {
				return a.showEvidence(s, err)
			}
			return stream(s, err, func(e *apiv1.Entry) error {
				if a.json {
					return a.emit(entryJSON(e))
				}
				return a.entryLine(e)
			})
		},
	}
	show.Flags().StringVar(&peer, "peer", "", "only entries of this author: a name or a DID")
	show.Flags().StringVar(&kind, "kind", "", "only entries of this kind")
	show.Flags().StringVar(&back, "since", "", "how far back, e.g. 10m (default all this node keeps)")
	show.Flags().BoolVarP(&follow, "follow", "f", false, "go on as new ones come")
	show.Flags().BoolVar(&evidence, "evidence", false, "only the proofs that an author signed two different entries of one number: both entries of each")
	_ = show.RegisterFlagCompletionFunc("peer", a.completePeer)
	return show
}

func entryID(e *apiv1.Entry) string {
	if len(e.Hash) > 32 {
		return e.Hash[:32]
	}
	return e.Hash
}

func entryJSON(e *apiv1.Entry) map[string]any {
	body := json.RawMessage("null")
	if json.Valid([]byte(e.BodyJson)) {
		body = json.RawMessage(e.BodyJson)
	}
	return map[string]any{"id": entryID(e), "hash": e.Hash, "author": e.Author, "chain": e.Chain, "seq": e.Seq, "kind": e.Kind, "time": stamp(e.Time), "bytes": len(e.Raw), "body": body}
}

func (a *app) entryLine(e *apiv1.Entry) error {
	_, err := fmt.Fprintf(a.out, "%s  %-10s %-9s %6d  %-11s %s  %s\n", clock(e.Time), printable(short(e.Author)), printable(e.Chain), e.Seq, printable(e.Kind), shortID(entryID(e)), printable(e.BodyJson))
	return err
}

// showEvidence prints the two entries of each proof together.
func (a *app) showEvidence(s *connect.ServerStreamForClient[apiv1.Entry], err error) error {
	var first *apiv1.Entry
	return stream(s, err, func(e *apiv1.Entry) error {
		if first == nil {
			first = e
			return nil
		}
		one, other := first, e
		first = nil
		if a.json {
			return a.emit(map[string]any{"author": one.Author, "chain": one.Chain, "seq": one.Seq, "a": entryJSON(one), "b": entryJSON(other)})
		}
		if _, err := fmt.Fprintf(a.out, "%s signed two different entries %d of its %s chain:\n", printable(short(one.Author)), one.Seq, printable(one.Chain)); err != nil {
			return err
		}
		return errors.Join(a.entryLine(one), a.entryLine(other))
	})
}

func newLedgerExport(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "export FILE|-", Short: "Write everything this node holds into one file that verifies anywhere",
		Long:    "Write everything this node holds into one file. `omega ledger verify --file FILE --genesis ID` checks it on any machine, without a node and without the network.",
		Example: "  omega ledger export swarm.omega\n  omega ledger export - | zstd > swarm.omega.zst", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "-" {
				return a.export(cmd.Context(), a.out)
			}
			size, err := a.exportFile(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.say(map[string]any{"file": args[0], "bytes": size}, "%s: %d bytes", args[0], size)
		},
	}
}

// exportFile writes beside the name and renames, so that the name never holds half an export.
func (a *app) exportFile(ctx context.Context, name string) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if err := a.export(ctx, f); err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	return info.Size(), os.Rename(f.Name(), name)
}

// export asks the node, and reads its folder where it does not run.
func (a *app) export(ctx context.Context, w io.Writer) error {
	c := a.client()
	defer c.Close()
	s, err := c.ExportLedger(ctx)
	if client.Unreachable(err) {
		if _, e := os.Stat(a.stateDir()); e != nil {
			return err
		}
		a.progress("the node does not run: reading its folder")
		return node.ExportStore(ctx, a.stateDir(), w)
	}
	return stream(s, err, func(r *apiv1.ExportLedgerResponse) error {
		_, err := w.Write(r.Part)
		return err
	})
}

func newLedgerVerify(a *app) *cobra.Command {
	var file, genesis string
	cmd := &cobra.Command{
		Use: "verify [--file FILE [--genesis ID]]", Short: "Check every signature, link, checkpoint and cosignature",
		Long: `Check every signature, link, checkpoint, cosignature and seen head: of what this node holds or, with --file, of an
export, for which neither a node nor the network is needed. Each fault is named by feed, entry and cause; with any, the
exit code is 1.

A feed or the end of one that was left out is a fault (missing) where an entry in the file names what is not there: as seen,
by a cosignature or by a checkpoint. What its author said after all that others name can be left out unseen, and so can a
member that nobody had heard: notes say of which members there is nothing.`,
		Example: "  omega ledger verify\n  omega ledger verify --file swarm.omega --genesis 3f0c…   # the id, as `omega status --json` names the swarm", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" && genesis != "" {
				return fail(exitUsage, "--genesis goes with --file")
			}
			var want *trust.SwarmID
			if genesis != "" {
				b, err := hex.DecodeString(genesis)
				if err != nil || len(b) != len(trust.SwarmID{}) {
					return fail(exitUsage, "--genesis %q: want the swarm's id, 64 hex digits", genesis)
				}
				id := trust.SwarmID(b)
				want = &id
			}
			r, err := a.verify(cmd.Context(), file, want)
			if err != nil {
				return err
			}
			return a.verified(r)
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "an export, or - for standard input (default what this node holds)")
	cmd.Flags().StringVar(&genesis, "genesis", "", "the id of the swarm it has to be of")
	return cmd
}

func (a *app) verify(ctx context.Context, file string, want *trust.SwarmID) (*audit.Result, error) {
	next := time.Now().Add(time.Second)
	opt := audit.Options{Swarm: want, Progress: func(entries uint64) {
		if now := time.Now(); now.After(next) {
			next = now.Add(time.Second)
			a.progress(fmt.Sprintf("%d entries", entries))
		}
	}}
	switch file {
	case "":
		id, err := node.SwarmOf(a.stateDir())
		if err != nil {
			return nil, err
		}
		opt.Swarm = &id
		r, err := a.verifyOwn(ctx, opt)
		// Gossip may bring an entry before what it names: what is on its way is no fault of what is here.
		for range arriveTries {
			if err != nil || !r.OnlyMissing() {
				break
			}
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(arriveSoon):
			}
			r, err = a.verifyOwn(ctx, opt)
		}
		return r, err
	case "-":
		return audit.Verify(ctx, a.in, opt)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return audit.Verify(ctx, f, opt)
}

// What this node holds is verified again where entries are named that it has not.
const (
	arriveTries = 3
	arriveSoon  = time.Second
)

// verifyOwn verifies what the node exports while it exports it.
func (a *app) verifyOwn(ctx context.Context, opt audit.Options) (*audit.Result, error) {
	r, w := io.Pipe()
	failed := make(chan error, 1)
	go func() {
		b := bufio.NewWriterSize(w, 64<<10)
		err := a.export(ctx, b)
		if err == nil {
			err = b.Flush()
		}
		_ = w.CloseWithError(err)
		failed <- err
	}()
	res, err := audit.Verify(ctx, r, opt)
	_ = r.CloseWithError(errVerified)
	if e := <-failed; e != nil && !errors.Is(e, errVerified) {
		return nil, e
	}
	return res, err
}

// errVerified ends an export of which enough was read.
var errVerified = errors.New("verified")

func (a *app) verified(r *audit.Result) error {
	if a.json {
		if err := a.emit(r); err != nil {
			return err
		}
	} else {
		for _, f := range r.Faults {
			if _, err := fmt.Fprintf(a.out, "%s %s entry %d, byte %d: %s: %s\n", f.Record, printable(f.Feed), f.Seq, f.Offset, f.Cause, printable(f.Detail)); err != nil {
				return err
			}
		}
		for _, e := range r.Evidence {
			if _, err := fmt.Fprintf(a.out, "proved: %s signed two entries %d: %s and %s\n", printable(e.Feed), e.Seq, e.A, e.B); err != nil {
				return err
			}
		}
		for _, n := range r.Notes {
			if _, err := fmt.Fprintf(a.out, "note: %s: %s\n", printable(n.Feed), printable(n.Detail)); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(a.out, "swarm %s: %d feeds, %d entries, %d seals, %d checkpoints, %d cosignatures, %d faults\n", r.Swarm, r.Feeds, r.Entries, r.Seals, r.Checkpoints, r.Cosignatures, uint64(len(r.Faults))+r.MoreFaults); err != nil {
			return err
		}
	}
	if !r.OK {
		return fail(exitFailed, "%d faults: what is named above is not what was signed; get those feeds from another peer", uint64(len(r.Faults))+r.MoreFaults)
	}
	return nil
}
