package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/omega-mesh/omega/node/api/v1/apiv1connect"
)

// Bounds of the server.
const (
	MaxRequest = 256 << 10 // bytes of one request
	MaxEntry   = 128 << 10 // bytes of a submitted entry; the ledger's own bound is lower
	MaxSince   = 366 * 24 * time.Hour
)

// Server answers on a listener for as long as Serve runs.
type Server struct {
	handler http.Handler
}

// New makes the service over b. encode turns an event into one line of OCSF JSON.
func New(b Backend, encode EventEncoder) *Server {
	mux := http.NewServeMux()
	mux.Handle(apiv1connect.NewNodeHandler(&service{b: b, encode: encode}, connect.WithReadMaxBytes(MaxRequest), connect.WithInterceptors(gate{b}), connect.WithRecover(
		func(_ context.Context, s connect.Spec, _ http.Header, p any) error {
			return connect.NewError(connect.CodeInternal, fmt.Errorf("%s failed: %v", s.Procedure, p))
		})))
	return &Server{handler: mux}
}

// Serve answers until ctx ends, then gives unary calls two seconds and ends streams. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC over the socket
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           s.handler,
		Protocols:         protocols,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withCaller,
	}
	down := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(down)
		cancel() // streams end now
		grace, done := context.WithTimeout(context.Background(), 2*time.Second)
		defer done()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
	err := srv.Serve(l)
	if !stop() {
		<-down
	}
	if errors.Is(err, http.ErrServerClosed) {
		return ctx.Err()
	}
	return fmt.Errorf("api: %w", err)
}

// code puts a Backend's error on the wire.
func code(err error) error {
	if err == nil {
		return nil
	}
	var already *connect.Error
	if errors.As(err, &already) {
		return err
	}
	for _, c := range [...]struct {
		err  error
		code connect.Code
	}{
		{ErrNotFound, connect.CodeNotFound}, {ErrForbidden, connect.CodePermissionDenied}, {ErrInvalid, connect.CodeInvalidArgument},
		{ErrBusy, connect.CodeUnavailable}, {ErrDropped, connect.CodeResourceExhausted}, {ErrCannot, connect.CodeUnimplemented},
		{ErrState, connect.CodeFailedPrecondition}, {ErrExists, connect.CodeAlreadyExists},
		{context.Canceled, connect.CodeCanceled}, {context.DeadlineExceeded, connect.CodeDeadlineExceeded},
	} {
		if errors.Is(err, c.err) {
			return connect.NewError(c.code, err)
		}
	}
	return connect.NewError(connect.CodeInternal, err)
}
