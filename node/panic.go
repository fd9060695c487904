package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/node/privileged"
	"github.com/omega-mesh/omega/node/privileged/immutable"
	"github.com/omega-mesh/omega/node/privileged/quarantine"
)

// panicTimeout bounds one exchange on the emergency socket.
const panicTimeout = 5 * time.Second

// Panic releases every block of the node in dir and makes it stop enforcing, at once and without the network. It asks
// the privileged half over a socket of its own, so that it works when the API does not; and when no node runs it takes
// what an earlier one pinned out of the kernel. It returns how many blocks it released.
func Panic(ctx context.Context, dir string) (released int, err error) {
	ctx, cancel := context.WithTimeout(ctx, panicTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", Layout{dir}.Emergency())
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return 0, fmt.Errorf("panic: %w", err)
		}
		n, cerr := bpf.Cleanup(PinDir(dir))
		if store, serr := quarantine.Open(Layout{dir}.Quarantine(), slog.Default()); serr != nil {
			cerr = errors.Join(cerr, serr)
		} else {
			files, ferr := store.RestoreAll()
			n, cerr = n+files, errors.Join(cerr, ferr)
		}
		held, herr := releaseHeld(dir)
		n, cerr = n+held, errors.Join(cerr, herr)
		if cerr != nil {
			return n, fmt.Errorf("panic: no node answers (%w), and its blocks could not be taken out of the kernel: %w", err, cerr)
		}
		return n, nil
	}
	defer c.Close()
	if at, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(at)
	}
	if _, err := io.WriteString(c, "panic\n"); err != nil {
		return 0, fmt.Errorf("panic: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(c, 4096))
	if err != nil {
		return 0, fmt.Errorf("panic: %w", err)
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(string(raw)), " ")
	n, nerr := strconv.Atoi(word)
	switch {
	case nerr != nil:
		return 0, fmt.Errorf("panic: the node answered %.80q", raw)
	case rest != "":
		return n, fmt.Errorf("panic: %s", rest)
	}
	return n, nil
}

// Cleanup takes everything an earlier node of dir pinned out of the kernel: blocks, programs, links. It returns how many
// pins there were.
// A node that runs on dir keeps what is its own: ErrLocked.
func Cleanup(dir string) (int, error) {
	if _, err := os.Stat(Layout{dir}.Lock()); err == nil {
		unlock, err := lock(Layout{dir}.Lock())
		if err != nil {
			return 0, err
		}
		defer unlock()
	}
	held, herr := releaseHeld(dir)
	n, err := bpf.Cleanup(PinDir(dir))
	return n + held, errors.Join(err, herr)
}

// releaseHeld lets what an earlier node of dir held be written again.
func releaseHeld(dir string) (int, error) {
	k, err := immutable.Open(immutable.Options{Dir: Layout{dir}.Held(), Log: slog.Default()})
	if err != nil {
		return 0, err
	}
	defer k.Close()
	return k.ReleaseAll()
}

// servePanic answers the emergency socket: one word, one answer. It is held by the half that parses nothing else.
func servePanic(ctx context.Context, l *net.UnixListener, s privileged.Service, log *slog.Logger) {
	defer os.Remove(l.Addr().String())
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil {
				log.Error("the emergency socket is gone", "err", err)
			}
			l.Close()
			return
		}
		answerPanic(ctx, c, s)
	}
}

func answerPanic(ctx context.Context, c net.Conn, s privileged.Service) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(panicTimeout))
	word := make([]byte, len("panic\n"))
	if _, err := io.ReadFull(c, word); err != nil || string(word) != "panic\n" {
		return
	}
	n, err := s.Panic(ctx)
	if err != nil {
		fmt.Fprintf(c, "%d %s\n", n, err)
		return
	}
	fmt.Fprintf(c, "%d\n", n)
}
