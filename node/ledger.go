package node

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/omega-mesh/omega/node/api"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/audit"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/tlog"
	"github.com/omega-mesh/omega/trust/witness"
)

// EachEntry implements api.Backend: what is stored, feed by feed, and then what comes.
func (b backend) EachEntry(ctx context.Context, author, kind string, since int64, follow bool, yield func(*api.Record) error) error {
	want := func(e *ledger.Entry) bool {
		return e.Time >= since && (kind == "" || e.Kind.String() == kind) &&
			(author == "" || string(e.Author) == author || b.nameOf(e.Author) == author)
	}
	seen := map[ledger.Feed]uint64{}
	err := b.ledger.Replay(func(e *ledger.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		seen[e.Feed()] = e.Seq + 1
		if !want(e) {
			return nil
		}
		return yield(record(e))
	})
	if err != nil || !follow {
		return err
	}
	return b.feed.entries.each(ctx, true, func(e *ledger.Entry) error {
		if e.Seq < seen[e.Feed()] || !want(e) {
			return nil
		}
		return yield(record(e))
	})
}

func record(e *ledger.Entry) *api.Record {
	h := e.Hash()
	r := &api.Record{
		Raw: e.Raw(), Hash: h.String(), Author: string(e.Author), Chain: e.Chain.String(), Seq: e.Seq, Kind: e.Kind.String(),
		Time: timestamppb.New(time.Unix(0, e.Time)),
	}
	r.BodyJson = bodyJSON(e)
	return r
}

// bodyJSON shows a body to people; what this build cannot read is left empty, the raw entry has it.
func bodyJSON(e *ledger.Entry) string {
	switch e.Kind {
	case ledger.KindFinding:
		if f, err := ledger.DecodeFinding(e); err == nil {
			if raw, err := protojson.Marshal(api.Finding(&f)); err == nil {
				return string(raw)
			}
		}
		return ""
	case ledger.KindReceipt:
		if rc, err := ledger.DecodeReceipt(e); err == nil {
			if raw, err := protojson.Marshal(api.Receipt(&rc)); err == nil {
				return string(raw)
			}
		}
		return ""
	}
	if raw, ok := witnessJSON(e); ok {
		return raw
	}
	if e.Chain != ledger.Authority {
		return ""
	}
	body, err := authority.DecodeBody(e.Kind, e.Body)
	if err != nil {
		return ""
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return ""
	}
	return string(raw)
}

// witnessJSON shows what belongs to the witnesses; a cosigned checkpoint also in the text that C2SP tools read.
func witnessJSON(e *ledger.Entry) (string, bool) {
	type size struct {
		Size uint64 `json:"size"`
		Root string `json:"root"`
	}
	show := func(c tlog.Checkpoint) size { return size{c.Size, hex.EncodeToString(c.Root[:])} }
	var v any
	switch e.Kind {
	case ledger.KindCheckpoint:
		own, other, err := ledger.Checkpoints(e)
		if err != nil {
			return "", true
		}
		v = map[string]size{"activity": show(own), "authority": show(other)}
	case ledger.KindCosign:
		c, err := witness.DecodeCosigned(e)
		if err != nil {
			return "", true
		}
		cp := c.Checkpoint(e.Swarm)
		v = map[string]any{"author": c.Feed.Author, "chain": c.Feed.Chain.String(), "size": c.Size, "root": hex.EncodeToString(c.Root[:]), "checkpoint": cp.Text()}
	case ledger.KindWitness:
		v = map[string]string{"algorithm": "ML-DSA-44"}
	default:
		return "", false
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return "", true
	}
	return string(raw), true
}

// EachEvidence implements api.Backend.
func (b backend) EachEvidence(ctx context.Context, yield func(*api.Record) error) error {
	for _, p := range b.ledger.Evidence() {
		for _, raw := range [][]byte{p.A, p.B} {
			e, err := ledger.Decode(raw)
			if err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := yield(record(e)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Export implements api.Backend.
func (b backend) Export(ctx context.Context, w io.Writer) error {
	_, err := audit.Export(ctx, w, b.genesis, b.ledger, nil)
	return err
}

// trimEvery is how often it is looked whether old activity can go.
const trimEvery = 10 * time.Minute

// retain removes what is past the configured retention, until ctx ends.
func (n *Node) retain(ctx context.Context) error {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		freed, err := n.ledger.Trim(time.Duration(n.cfg.RetentionDays)*24*time.Hour, int64(n.cfg.RetentionMiB)<<20)
		if err != nil {
			n.log.Warn("old activity was not removed", "err", err)
		} else if freed > 0 {
			n.log.Info("removed old activity behind witnessed checkpoints", "bytes", freed)
		}
	}
}

// SwarmOf is the id of the swarm that the node of dir belongs to.
func SwarmOf(dir string) (trust.SwarmID, error) {
	g, err := loadGenesis(Layout{dir})
	if err != nil {
		return trust.SwarmID{}, err
	}
	return g.SwarmID(), nil
}

// ExportStore is Export for a node that does not run: it reads the ledger in its state folder.
func ExportStore(ctx context.Context, dir string, w io.Writer) (err error) {
	layout := Layout{dir}
	g, err := loadGenesis(layout)
	if err != nil {
		return err
	}
	fold := authority.NewFold(g)
	l, err := ledger.Open(layout.Ledger(), g.SwarmID(), nil, fold, ledger.Options{})
	if err != nil {
		return err
	}
	defer func() {
		if e := l.Close(); err == nil {
			err = e
		}
	}()
	err = l.Replay(func(e *ledger.Entry) error {
		_ = fold.Apply(e) // what has no effect is history, too
		return ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	_, err = audit.Export(ctx, w, g, l, nil)
	return err
}
