package feed

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/omega-mesh/omega/modules/indicator"
)

// Bounds of one file.
const (
	MaxFile   = 1 << 30 // bytes, decompressed
	maxLine   = 8 << 10
	maxObject = 4 << 20 // bytes of one object, or one MISP attribute
	maxDepth  = 32
)

// ErrTooLarge is wrapped by errors about files, lines and objects past their bounds.
var ErrTooLarge = errors.New("too large")

// Options say what holds of everything in a file that does not say otherwise itself.
type Options struct {
	Source     string // the name sightings give
	Confidence uint8  // 0 to 100
	// Expires is the end of what names none of its own; zero never.
	Expires time.Time
	// Exact says that a listed domain is itself alone, not what lies beneath it.
	Exact bool
	// Now is what validity is held against.
	Now time.Time
	// Keep, if set, says of a STIX object by its id and version whether it is the one that counts.
	Keep func(id, modified string) bool
}

func (o *Options) item() indicator.Item {
	return indicator.Item{Source: o.Source, Confidence: o.Confidence, Expires: o.Expires, Exact: o.Exact}
}

// Read gives everything in r to b and counts it in rep. An error is of the file as a whole, past which nothing was read:
// what was read before it stands. It wraps indicator.ErrFull where the set has no more room.
func Read(ctx context.Context, r io.Reader, opt Options, b *indicator.Builder, rep *indicator.Report) error {
	in := bufio.NewReaderSize(&bounded{ctx: ctx, r: r, left: MaxFile}, 64<<10)
	if head, _ := in.Peek(2); bytes.Equal(head, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return fmt.Errorf("gzip: %w", err)
		}
		defer z.Close()
		in = bufio.NewReaderSize(&bounded{ctx: ctx, r: z, left: MaxFile}, 64<<10)
	}
	if bom, _ := in.Peek(3); bytes.Equal(bom, []byte("\xef\xbb\xbf")) {
		_, _ = in.Discard(3)
	}
	if isJSON(in) {
		return readJSON(in, opt, b, rep)
	}
	return readList(in, opt, b, rep)
}

// isJSON looks at the first bytes for a document; a line such as [::1] is none.
func isJSON(in *bufio.Reader) bool {
	head, _ := in.Peek(512)
	head = bytes.TrimLeft(head, " \t\r\n")
	if len(head) == 0 || head[0] != '{' && head[0] != '[' {
		return false
	}
	rest := bytes.TrimLeft(head[1:], " \t\r\n")
	return len(rest) > 0 && (rest[0] == '"' || rest[0] == '{' || rest[0] == '}' || rest[0] == ']')
}

// bounded ends with ErrTooLarge after so many bytes, and with ctx.
type bounded struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.left <= 0 {
		return 0, fmt.Errorf("%w: more than %d MiB", ErrTooLarge, MaxFile>>20)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
