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

	"github.com/omega-mesh/omega/node/api/v1/apiv1connect"
)

// Socket is the name of the API's socket within a state folder.
const Socket = "omega.sock"

// ErrUnreachable says that no node answers on the folder's socket.
var ErrUnreachable = errors.New("the node cannot be reached")

// Client is a connection to one node.
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
		NodeClient: apiv1connect.NewNodeClient(&http.Client{Transport: t}, "http://omega", connect.WithReadMaxBytes(64<<20)),
		Dir:        dir, transport: t,
	}
}

// Close ends idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Unreachable reports whether err means that no node answers.
func Unreachable(err error) bool {
	return errors.Is(err, ErrUnreachable)
}
