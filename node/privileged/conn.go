package privileged

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Conn is one end of the line: whole frames in, whole frames out. Send may be called by many goroutines, Receive by one.
type Conn struct {
	c     *net.UnixConn
	codec codec
	mu    sync.Mutex // one packet at a time
	buf   []byte
}

// Pair makes the line. The first end is ours; the second is a file for the child to inherit, closed by the caller
// once the child has it.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "omega-privileged")
	ours, err := FromFile(os.NewFile(uintptr(fds[0]), "omega-privileged"))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// FromFile makes an end of an inherited file, and closes the file.
func FromFile(f *os.File) (*Conn, error) {
	defer f.Close()
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("privileged line: %w", err)
	}
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		nc.Close()
		return nil, fmt.Errorf("privileged line: descriptor is a %s", nc.LocalAddr().Network())
	}
	return newConn(uc)
}

func newConn(uc *net.UnixConn) (*Conn, error) {
	cd, err := newCodec()
	if err != nil {
		uc.Close()
		return nil, err
	}
	// The default send buffer holds one large frame; what is over is refused by the kernel, not queued by us.
	_ = uc.SetWriteBuffer(4 * MaxFrame)
	_ = uc.SetReadBuffer(4 * MaxFrame)
	return &Conn{c: uc, codec: cd, buf: make([]byte, MaxFrame+1)}, nil
}

// Send writes one frame; body may be nil.
func (c *Conn) Send(f Frame, body any) error {
	raw, err := c.codec.encode(f, body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.c.Write(raw); err != nil {
		return fmt.Errorf("%w: %v", ErrClosed, err)
	}
	return nil
}

// Receive waits for one frame. A malformed one is an error that wraps ErrFrame, after which the line is still good; a
// closed line gives ErrClosed.
func (c *Conn) Receive() (Frame, error) {
	n, _, flags, _, err := c.c.ReadMsgUnix(c.buf, nil)
	switch {
	case err != nil && errors.Is(err, io.EOF), err == nil && n == 0:
		return Frame{}, ErrClosed
	case err != nil:
		return Frame{}, fmt.Errorf("%w: %v", ErrClosed, err)
	case flags&unix.MSG_TRUNC != 0:
		return Frame{}, fmt.Errorf("%w: more than %d bytes", ErrFrame, MaxFrame)
	}
	return c.codec.decode(c.buf[:n])
}

// SendStart is the privileged side's first word.
func (c *Conn) SendStart(s Start) error { return c.Send(Frame{Kind: KindStart}, s) }

// ReceiveStart waits for it.
func (c *Conn) ReceiveStart() (Start, error) {
	var s Start
	f, err := c.Receive()
	if err != nil {
		return s, err
	}
	if f.Kind != KindStart {
		return s, fmt.Errorf("%w: kind %d before the start", ErrFrame, f.Kind)
	}
	return s, c.codec.body(f, &s)
}

// Close ends the line for both sides.
func (c *Conn) Close() error { return c.c.Close() }
