package privileged

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/omega-mesh/omega/roles/sentinel/integrity"
	"github.com/omega-mesh/omega/swarm/event"
)

// Baseline is the part of a Service that keeps what watched files are to be: only the privileged side can read them all. The
// other side names paths, never files: what is not watched is passed over. Each method gives ErrNoBaseline where no file is
// watched.
type Baseline interface {
	// BaselineBegin says which stored state was signed last, and gives the word with which this life starts; nil where there is none.
	BaselineBegin(ctx context.Context, signed [32]byte) (*event.Baseline, error)
	// BaselineNews waits for changes that a scan found, beyond those numbered up to after, or for a word to be signed. After an hour without any it gives nothing.
	BaselineNews(ctx context.Context, after uint64) (integrity.News, error)
	// BaselineCommit says that the word with this File was signed: that state is the one in force.
	BaselineCommit(ctx context.Context, file [32]byte) error
	// BaselineLook compares paths, at most integrity.MaxLook, with how they were last seen.
	BaselineLook(ctx context.Context, paths []string) (integrity.Report, error)
	BaselineStatus(ctx context.Context) (integrity.Status, error)
	// BaselineDifferences lists what differs and is not accepted, from the first path beyond after; some 100 at a time.
	BaselineDifferences(ctx context.Context, after string) ([]integrity.Change, error)
	// BaselineRescan has everything looked at; with full, content is read again whatever inode and times say.
	BaselineRescan(ctx context.Context, full bool) error
	// BaselineAccept takes what differs at these paths and below for right, in the name of by; none is all of it.
	BaselineAccept(ctx context.Context, paths []string, by string) (int, error)
}

// ErrNoBaseline says that no files are watched on this host.
var ErrNoBaseline = errors.New("no files are watched on this host")

// Bounds of what crosses the line about watched files.
const (
	maxPaths    = 256      // of one acceptance
	maxAnswered = 64 << 10 // bytes of changes in one answer; one change may pass it
	maxRows     = 100
	newsWait    = time.Hour
)

func (h *Host) keeper() (*integrity.Keeper, error) {
	if h.opt.Baseline == nil {
		return nil, ErrNoBaseline
	}
	return h.opt.Baseline, nil
}

// BaselineBegin implements Service.
func (h *Host) BaselineBegin(_ context.Context, signed [32]byte) (*event.Baseline, error) {
	k, err := h.keeper()
	if err != nil {
		return nil, err
	}
	return k.Begin(signed)
}

// BaselineNews implements Service.
func (h *Host) BaselineNews(ctx context.Context, after uint64) (integrity.News, error) {
	k, err := h.keeper()
	if err != nil {
		return integrity.News{}, err
	}
	// Who asked may be gone, and nothing that waits for it may stay for ever.
	ctx, cancel := context.WithTimeout(ctx, newsWait)
	defer cancel()
	news, err := k.News(ctx, after)
	if errors.Is(err, context.DeadlineExceeded) {
		return integrity.News{}, nil
	}
	return news, err
}

// BaselineCommit implements Service.
func (h *Host) BaselineCommit(_ context.Context, file [32]byte) error {
	k, err := h.keeper()
	if err != nil {
		return err
	}
	return k.Commit(file)
}

// BaselineLook implements Service.
func (h *Host) BaselineLook(ctx context.Context, paths []string) (integrity.Report, error) {
	k, err := h.keeper()
	if err != nil {
		return integrity.Report{}, err
	}
	return k.Look(ctx, paths)
}

// BaselineStatus implements Service.
func (h *Host) BaselineStatus(context.Context) (integrity.Status, error) {
	k, err := h.keeper()
	if err != nil {
		return integrity.Status{}, err
	}
	return k.Status(), nil
}

// BaselineDifferences implements Service.
func (h *Host) BaselineDifferences(_ context.Context, after string) ([]integrity.Change, error) {
	k, err := h.keeper()
	if err != nil {
		return nil, err
	}
	return k.Differences(after, maxRows), nil
}

// BaselineRescan implements Service.
func (h *Host) BaselineRescan(_ context.Context, full bool) error {
	k, err := h.keeper()
	if err != nil {
		return err
	}
	k.Rescan(full)
	return nil
}

// BaselineAccept implements Service.
func (h *Host) BaselineAccept(_ context.Context, paths []string, by string) (int, error) {
	k, err := h.keeper()
	if err != nil {
		return 0, err
	}
	return k.Accept(paths, cut(by)), nil
}

// baselineCheck is the line of the coverage.
func (h *Host) baselineCheck() (Check, bool) {
	const lost = "a watched file that is changed is an event among others: nothing says what it was, and nothing notices a change made while the agent was down"
	if h.opt.Baseline == nil {
		return Check{Name: "sensor/integrity", Detail: cut(h.opt.NoBaseline), Lost: lost}, h.opt.NoBaseline != ""
	}
	s := h.opt.Baseline.Status()
	c := Check{Name: "sensor/integrity", OK: true, Detail: fmt.Sprintf("%d entries below %d paths are watched", s.Entries, s.WatchedOf)}
	switch {
	case s.Phase == integrity.PhaseWaiting:
		c.Detail = "the baseline waits for what this host signed last"
	case s.Phase == integrity.PhaseBuilding:
		c.Detail = fmt.Sprintf("the first baseline is being taken: %d entries, %d MiB so far", s.Done, s.Bytes>>20)
	case s.Differ > 0:
		c.Detail += fmt.Sprintf("; %d differ and are not accepted (omega integrity status)", s.Differ)
	}
	if !s.Live {
		c.Detail += "; changes are found by an hourly scan, and nobody knows by whom"
	}
	if s.Fault != "" {
		c.OK, c.Lost = false, "after a restart changes are told again, or the baseline begins anew: "+s.Fault
	}
	c.Detail, c.Lost = cut(c.Detail), cut(c.Lost)
	return c, true
}

// What follows is the form in which it crosses the line. Names of files are bytes, not text.

type changeBody struct {
	Path []byte `cbor:"1,keyasint"`
	What string `cbor:"2,keyasint"`
	Was  []byte `cbor:"3,keyasint,omitempty"` // as integrity.AppendEntry has it
	Is   []byte `cbor:"4,keyasint,omitempty"`
	Seq  uint64 `cbor:"5,keyasint,omitempty"`
	From int64  `cbor:"6,keyasint,omitempty"`
	To   int64  `cbor:"7,keyasint,omitempty"`
}

type beginBody struct {
	Word *event.Baseline `cbor:"1,keyasint,omitempty"`
}

type digestBody struct {
	Digest [32]byte `cbor:"1,keyasint"`
	After  uint64   `cbor:"2,keyasint,omitempty"`
}

type newsBody struct {
	Changes []changeBody    `cbor:"1,keyasint"`
	Sign    *event.Baseline `cbor:"2,keyasint,omitempty"`
}

type pathsBody struct {
	Paths [][]byte `cbor:"1,keyasint"`
	By    string   `cbor:"2,keyasint,omitempty"`
}

type reportBody struct {
	Changes []changeBody `cbor:"1,keyasint"`
	Busy    [][]byte     `cbor:"2,keyasint"`
	Again   [][]byte     `cbor:"3,keyasint"`
	Over    bool         `cbor:"4,keyasint"`
}

func packed(c *integrity.Change) changeBody {
	b := changeBody{Path: []byte(c.Path), What: c.What}
	if c.Was != nil {
		b.Was = integrity.AppendEntry(nil, c.Was)
	}
	if c.Is != nil {
		b.Is = integrity.AppendEntry(nil, c.Is)
	}
	return b
}

// size is about how many bytes it takes.
func (b *changeBody) size() int { return len(b.Path) + len(b.Was) + len(b.Is) + 64 }

func (b *changeBody) unpack() (c integrity.Change, err error) {
	c = integrity.Change{Path: string(b.Path), What: b.What}
	if len(b.Was) > 0 {
		if c.Was, err = integrity.ReadEntry(b.Was); err != nil {
			return c, fmt.Errorf("%w: %w", ErrFrame, err)
		}
	}
	if len(b.Is) > 0 {
		if c.Is, err = integrity.ReadEntry(b.Is); err != nil {
			return c, fmt.Errorf("%w: %w", ErrFrame, err)
		}
	}
	return c, nil
}

func pathBytes(paths []string) (out [][]byte) {
	for _, p := range paths {
		out = append(out, []byte(p))
	}
	return out
}

func pathTexts(paths [][]byte) (out []string) {
	for _, p := range paths {
		out = append(out, string(p))
	}
	return out
}

// checkPaths bounds paths that came over the line.
func checkPaths(paths [][]byte, most int) error {
	if len(paths) > most {
		return fmt.Errorf("%w: %d paths", ErrFrame, len(paths))
	}
	for _, p := range paths {
		if len(p) > integrity.MaxPath {
			return fmt.Errorf("%w: a path of %d bytes", ErrFrame, len(p))
		}
	}
	return nil
}

func answerBaseline(ctx context.Context, cd codec, s Service, f Frame) (any, error) {
	switch f.Kind {
	case KindBaselineStatus:
		return s.BaselineStatus(ctx)
	case KindBaselineRescan:
		var b numberBody
		if err := cd.body(f, &b); err != nil {
			return nil, err
		}
		return nil, s.BaselineRescan(ctx, b.Number != 0)
	case KindBaselineBegin, KindBaselineCommit, KindBaselineNews:
		var b digestBody
		if err := cd.body(f, &b); err != nil {
			return nil, err
		}
		switch f.Kind {
		case KindBaselineBegin:
			word, err := s.BaselineBegin(ctx, b.Digest)
			return beginBody{word}, err
		case KindBaselineCommit:
			return nil, s.BaselineCommit(ctx, b.Digest)
		}
		news, err := s.BaselineNews(ctx, b.After)
		out := newsBody{Sign: news.Sign}
		size := 0
		for i := range news.Changes {
			t := &news.Changes[i]
			c := packed(&t.Change)
			c.Seq, c.From, c.To = t.Seq, t.From, t.To
			if size += c.size(); size > maxAnswered && i > 0 {
				break // the next call gives the rest
			}
			out.Changes = append(out.Changes, c)
		}
		return out, err
	case KindBaselineLook, KindBaselineAccept:
		var b pathsBody
		if err := cd.body(f, &b); err != nil {
			return nil, err
		}
		if f.Kind == KindBaselineAccept {
			if err := checkPaths(b.Paths, maxPaths); err != nil {
				return nil, err
			}
			n, err := s.BaselineAccept(ctx, pathTexts(b.Paths), b.By)
			return numberBody{uint64(n)}, err
		}
		if err := checkPaths(b.Paths, integrity.MaxLook); err != nil {
			return nil, err
		}
		r, err := s.BaselineLook(ctx, pathTexts(b.Paths))
		out := reportBody{Busy: pathBytes(r.Busy), Again: pathBytes(r.Again), Over: r.Over}
		for i := range r.Changes {
			out.Changes = append(out.Changes, packed(&r.Changes[i]))
		}
		return out, err
	case KindBaselineDifferences:
		var b pathsBody
		if err := cd.body(f, &b); err != nil {
			return nil, err
		}
		if err := checkPaths(b.Paths, 1); err != nil {
			return nil, err
		}
		after := ""
		if len(b.Paths) > 0 {
			after = string(b.Paths[0])
		}
		rows, err := s.BaselineDifferences(ctx, after)
		out := listBody[changeBody]{}
		size := 0
		for i := range rows {
			c := packed(&rows[i])
			if size += c.size(); size > maxAnswered && i > 0 {
				break
			}
			out.Rows = append(out.Rows, c)
		}
		return out, err
	}
	return nil, fmt.Errorf("%w: kind %d is no request", ErrFrame, f.Kind)
}

// BaselineBegin implements Service.
func (c *Client) BaselineBegin(ctx context.Context, signed [32]byte) (*event.Baseline, error) {
	var b beginBody
	err := c.call(ctx, KindBaselineBegin, digestBody{Digest: signed}, &b)
	return b.Word, err
}

// BaselineNews implements Service.
func (c *Client) BaselineNews(ctx context.Context, after uint64) (out integrity.News, err error) {
	var b newsBody
	if err := c.call(ctx, KindBaselineNews, digestBody{After: after}, &b); err != nil {
		return out, err
	}
	out.Sign = b.Sign
	for i := range b.Changes {
		x, err := b.Changes[i].unpack()
		if err != nil {
			return out, err
		}
		out.Changes = append(out.Changes, integrity.Told{Change: x, Seq: b.Changes[i].Seq, From: b.Changes[i].From, To: b.Changes[i].To})
	}
	return out, nil
}

// BaselineCommit implements Service.
func (c *Client) BaselineCommit(ctx context.Context, file [32]byte) error {
	return c.call(ctx, KindBaselineCommit, digestBody{Digest: file}, nil)
}

// BaselineLook implements Service.
func (c *Client) BaselineLook(ctx context.Context, paths []string) (out integrity.Report, err error) {
	var b reportBody
	if err := c.call(ctx, KindBaselineLook, pathsBody{Paths: pathBytes(paths)}, &b); err != nil {
		return out, err
	}
	out.Busy, out.Again, out.Over = pathTexts(b.Busy), pathTexts(b.Again), b.Over
	for i := range b.Changes {
		x, err := b.Changes[i].unpack()
		if err != nil {
			return out, err
		}
		out.Changes = append(out.Changes, x)
	}
	return out, nil
}

// BaselineStatus implements Service.
func (c *Client) BaselineStatus(ctx context.Context) (s integrity.Status, err error) {
	err = c.call(ctx, KindBaselineStatus, nil, &s)
	return s, err
}

// BaselineDifferences implements Service.
func (c *Client) BaselineDifferences(ctx context.Context, after string) (out []integrity.Change, err error) {
	var b listBody[changeBody]
	if err := c.call(ctx, KindBaselineDifferences, pathsBody{Paths: pathBytes([]string{after})}, &b); err != nil {
		return nil, err
	}
	for i := range b.Rows {
		x, err := b.Rows[i].unpack()
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// BaselineRescan implements Service.
func (c *Client) BaselineRescan(ctx context.Context, full bool) error {
	var n numberBody
	if full {
		n.Number = 1
	}
	return c.call(ctx, KindBaselineRescan, n, nil)
}

// BaselineAccept implements Service.
func (c *Client) BaselineAccept(ctx context.Context, paths []string, by string) (int, error) {
	var n numberBody
	err := c.call(ctx, KindBaselineAccept, pathsBody{Paths: pathBytes(paths), By: by}, &n)
	return int(n.Number), err
}
