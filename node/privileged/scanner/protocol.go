package scanner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/modules/yara"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
)

// maxPacket is the most bytes of one packet, either way: 64 matches at their longest fit.
const maxPacket = 192 << 10

// Kinds of packet. Rules and scan go to the process, with one descriptor each; the others come from it.
const (
	kindRules    = iota + 1 // the descriptor holds the sources
	kindScan                // the descriptor holds the bytes
	kindBefore              // a source is about to be compiled
	kindRejected            // a source is not used
	kindLoaded
	kindFound
)

// errAnswer is wrapped by what is wrong with an answer: the process is no longer what was started, and is ended.
var errAnswer = errors.New("the scanner's answer is not to be believed")

type packet struct {
	Kind    int          `cbor:"1,keyasint"`
	Index   int          `cbor:"2,keyasint,omitempty"` // of a source; of before, the number of sources is all of them together
	Text    string       `cbor:"3,keyasint,omitempty"` // why, or the path of what is to be scanned
	Count   int          `cbor:"4,keyasint,omitempty"` // rules
	Number  uint64       `cbor:"5,keyasint,omitempty"` // of the scan; its answer repeats it
	Matches []yara.Match `cbor:"6,keyasint,omitempty"`
	Calls   int          `cbor:"7,keyasint,omitempty"` // how many system calls the process is left; 0 where it keeps all
}

// source is one rule file as it is handed over.
type source struct {
	Name []byte `cbor:"1,keyasint"`
	Text []byte `cbor:"2,keyasint"`
}

// codec is strict on the way in.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() (codec, error) {
	enc, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		return codec{}, err
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 8, MaxArrayElements: yara.MaxSources, MaxMapPairs: 64, UTF8: cbor.UTF8RejectInvalid, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode()
	return codec{enc, dec}, err
}

// read holds an answer against its bounds.
func (c codec) read(raw []byte) (packet, error) {
	var p packet
	if len(raw) > maxPacket {
		return p, fmt.Errorf("%w: %d bytes", errAnswer, len(raw))
	}
	if err := c.dec.Unmarshal(raw, &p); err != nil {
		return packet{}, fmt.Errorf("%w: %v", errAnswer, err)
	}
	if p.Kind < kindBefore || p.Kind > kindFound || p.Index < 0 || p.Index > yara.MaxSources || p.Count < 0 || p.Calls < 0 || len(p.Matches) > yara.MaxMatches {
		return packet{}, fmt.Errorf("%w: kind %d, %d matches", errAnswer, p.Kind, len(p.Matches))
	}
	p.Text = plain(p.Text, 512)
	for i := range p.Matches {
		m := &p.Matches[i]
		if m.Rule == "" || m.Severity > event.SeverityCritical || m.Confidence > 100 || len(m.Attack) > 16 {
			return packet{}, fmt.Errorf("%w: a match of severity %d, confidence %d, with %d techniques", errAnswer, m.Severity, m.Confidence, len(m.Attack))
		}
		m.Rule, m.File, m.Title = plain(m.Rule, yara.MaxName), plain(m.File, 1024), plain(m.Title, yara.MaxTitle)
		for j := range m.Attack {
			m.Attack[j] = plain(m.Attack[j], 16)
		}
	}
	return p, nil
}

func plain(s string, limit int) string {
	return redact.Printable(strings.ToValidUTF8(s[:min(len(s), 4*limit)], "?"), limit)
}

// line is the parent's end.
type line struct {
	c     *net.UnixConn
	codec codec
	buf   []byte
}

// pair makes a line; the second end is for the process.
func pair(cd codec) (*line, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "scanner"), os.NewFile(uintptr(fds[1]), "scanner")
	nc, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("scanner's line: %w", err)
	}
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		nc.Close()
		theirs.Close()
		return nil, nil, errors.New("scanner's line is no socket")
	}
	_ = uc.SetReadBuffer(4 * maxPacket)
	return &line{uc, cd, make([]byte, maxPacket+1)}, theirs, nil
}

// send hands f over.
func (l *line) send(p packet, f *os.File) error {
	raw, err := l.codec.enc.Marshal(p)
	if err != nil {
		return err
	}
	if err := l.c.SetWriteDeadline(time.Now().Add(startTime)); err != nil {
		return err
	}
	_, _, err = l.c.WriteMsgUnix(raw, unix.UnixRights(int(f.Fd())), nil)
	return err
}

// receive waits for an answer, for as long as patience and ctx let it. No descriptor is taken from the process: one that is sent is closed by the kernel,
// since there is no room for it.
func (l *line) receive(ctx context.Context, patience time.Duration) (packet, error) {
	if err := l.c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return packet{}, err
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		_ = l.c.SetReadDeadline(time.Now())
	})
	defer func() {
		if !stop() {
			<-cut // else it would cut the next one short
		}
	}()
	n, _, flags, _, err := l.c.ReadMsgUnix(l.buf, nil)
	switch {
	case err != nil:
		return packet{}, err
	case n == 0:
		return packet{}, errEnded
	case flags&unix.MSG_TRUNC != 0:
		return packet{}, fmt.Errorf("%w: more than %d bytes", errAnswer, maxPacket)
	}
	return l.codec.read(l.buf[:n])
}

// errEnded says that the process is gone.
var errEnded = errors.New("it ended")

// memory is a file without a name that holds what fill writes and that nobody can change after.
func memory(fill func(*os.File) error) (*os.File, error) {
	fd, err := unix.MemfdCreate("omega-scan", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|memfdNoExec)
	if errors.Is(err, syscall.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("omega-scan", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memory for the scanner: %w", err)
	}
	f := os.NewFile(uintptr(fd), "omega-scan")
	if err := fill(f); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		f.Close()
		return nil, fmt.Errorf("memory for the scanner: %w", err)
	}
	return f, nil
}

const memfdNoExec = 0x8 // MFD_NOEXEC_SEAL
