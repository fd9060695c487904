// Package client speaks to a node over the Unix socket in its state folder, as any client may, and signs what an
// operator says: in the caller's own process, with the operator's key, which the node never holds.
//
// It decides nothing and prints nothing: the command line, testnets and drills are built on it.
package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/api/v1/apiv1connect"
)

// Socket is the name of the API's socket within a state folder.
const Socket = "omega.sock"

// ErrUnreachable says that no node answers on the folder's socket.
var ErrUnreachable = errors.New("the node cannot be reached")

// answerWithin bounds every call that is answered once. The socket belongs to the half of the node that keeps root and
// takes connections even while the half that answers is dead or stuck: without a bound a caller would wait for ever.
// The slowest honest answer is a new entry on a busy disk.
const answerWithin = 15 * time.Second

// probeWithin bounds the question whether anybody answers at all, asked before a stream that may stay silent for hours.
const probeWithin = 5 * time.Second

// Client is a connection to one node. It is safe for concurrent use.
type Client struct {
	apiv1connect.NodeClient
	Dir       string
	transport *http.Transport
}

// New makes a client of the node whose state folder is dir. Nothing is dialled before the first call.
func New(dir string) *Client {
	path := filepath.Join(dir, Socket)
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := net.Dialer{Timeout: 5 * time.Second}
			conn, err := d.DialContext(ctx, "unix", path)
			if err != nil {
				return nil, fmt.Errorf("%w at %s: %w", ErrUnreachable, path, err)
			}
			return conn, nil
		},
		DisableCompression: true,
	}
	return &Client{
		NodeClient: apiv1connect.NewNodeClient(&http.Client{Transport: t}, "http://omega",
			connect.WithReadMaxBytes(maxAnswer), connect.WithInterceptors(connect.UnaryInterceptorFunc(bounded))),
		Dir: dir, transport: t,
	}
}

// maxAnswer bounds one message of the node: a list of every member of a large swarm fits.
const maxAnswer = 64 << 20

// bounded gives a call its time, and tells an end of that time from the caller's own.
func bounded(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		inner, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()
		answer, err := next(inner, req)
		if err != nil && inner.Err() != nil && ctx.Err() == nil {
			return nil, fmt.Errorf("%w: it took the connection but gave no answer within %s", ErrUnreachable, answerWithin)
		}
		return answer, err
	}
}

// answers reports whether the node answers at all.
func (c *Client) answers(ctx context.Context) error {
	inner, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	_, err := c.Status(inner, &apiv1.StatusRequest{})
	if err != nil && inner.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: it took the connection but gave no answer within %s", ErrUnreachable, probeWithin)
	}
	return err
}

// Findings streams findings; it fails at once where no node answers.
func (c *Client) Findings(ctx context.Context, r *apiv1.FindingsRequest) (*connect.ServerStreamForClient[apiv1.Finding], error) {
	if err := c.answers(ctx); err != nil {
		return nil, err
	}
	return c.NodeClient.Findings(ctx, r)
}

// Receipts streams receipts; it fails at once where no node answers.
func (c *Client) Receipts(ctx context.Context, r *apiv1.ReceiptsRequest) (*connect.ServerStreamForClient[apiv1.Receipt], error) {
	if err := c.answers(ctx); err != nil {
		return nil, err
	}
	return c.NodeClient.Receipts(ctx, r)
}

// Events streams this host's telemetry; it fails at once where no node answers.
func (c *Client) Events(ctx context.Context, r *apiv1.EventsRequest) (*connect.ServerStreamForClient[apiv1.Event], error) {
	if err := c.answers(ctx); err != nil {
		return nil, err
	}
	return c.NodeClient.Events(ctx, r)
}

// Entries streams entries of feeds; it fails at once where no node answers.
func (c *Client) Entries(ctx context.Context, r *apiv1.EntriesRequest) (*connect.ServerStreamForClient[apiv1.Entry], error) {
	if err := c.answers(ctx); err != nil {
		return nil, err
	}
	return c.NodeClient.Entries(ctx, r)
}

// ExportLedger streams the export of the node's ledger; it fails at once where no node answers.
func (c *Client) ExportLedger(ctx context.Context) (*connect.ServerStreamForClient[apiv1.ExportLedgerResponse], error) {
	if err := c.answers(ctx); err != nil {
		return nil, err
	}
	return c.NodeClient.ExportLedger(ctx, &apiv1.ExportLedgerRequest{})
}

// Close ends idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Unreachable reports whether err means that no node answers.
func Unreachable(err error) bool {
	return errors.Is(err, ErrUnreachable)
}
