package api

import (
	"context"
	"net"
	"strings"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
)

// gate asks the policy before each call of the API.
type gate struct{ b Backend }

var _ connect.Interceptor = gate{}

func (g gate) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		if err := g.check(ctx, r.Spec()); err != nil {
			return nil, err
		}
		return next(ctx, r)
	}
}

func (g gate) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, c connect.StreamingHandlerConn) error {
		if err := g.check(ctx, c.Spec()); err != nil {
			return err
		}
		return next(ctx, c)
	}
}

func (g gate) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (g gate) check(ctx context.Context, s connect.Spec) error {
	uid, _ := ctx.Value(callerKey{}).(uint32)
	return code(g.b.Authorize(ctx, s.Procedure[strings.LastIndexByte(s.Procedure, '/')+1:], uid))
}

type callerKey struct{}

// nobody is the uid of a caller that the kernel does not name (overflowuid).
const nobody = 65534

// withCaller notes who is at the other end of a Unix socket, as the kernel knows it (SO_PEERCRED, unix(7)).
func withCaller(ctx context.Context, c net.Conn) context.Context {
	uid := uint32(nobody)
	if u, ok := c.(*net.UnixConn); ok {
		if raw, err := u.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) {
				if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
					uid = cred.Uid
				}
			})
		}
	}
	return context.WithValue(ctx, callerKey{}, uid)
}
