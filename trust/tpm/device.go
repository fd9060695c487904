package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// Typed refusals; each is wrapped with what was asked.
var (
	// ErrNone: there is no TPM at the path, or none where one was sought.
	ErrNone = errors.New("no TPM here")
	// ErrDevice: the TPM does not answer, or not as a TPM does.
	ErrDevice = errors.New("the TPM does not answer as one should")
	// ErrPCRs: the PCRs are not what the secret was sealed to, so the TPM keeps it.
	ErrPCRs = errors.New("this host did not start as it did when the key was sealed")
	// ErrOtherTPM: the secret was sealed by another TPM, or this one was cleared since.
	ErrOtherTPM = errors.New("sealed by another TPM, or by this one before it was cleared")
	// ErrMalformed: bytes are not a sealed secret, or not a quote.
	ErrMalformed = errors.New("malformed")
)

// Bounds of the exchange with the device.
const (
	maxMessage  = 4096             // bytes of a command or an answer: what the PC Client profile gives a TPM
	headerSize  = 10               // tag, size, code: part 1, 18.2
	commandTime = 60 * time.Second // of one command: longer than the slowest chip takes to make a key
)

// Device is an open TPM. It is safe for concurrent use: one command sequence runs after the other.
type Device struct {
	path string
	line *line
	mu   sync.Mutex // held through each exported method, which may be several commands
}

// Open opens the TPM at path: a character device (/dev/tpmrm0), or the Unix socket of an emulator. An empty path takes the
// kernel's resource manager, or the bare device where that is all there is. Every command ends when ctx does. The caller
// closes it.
func Open(ctx context.Context, path string) (*Device, error) {
	if path == "" {
		path = Default()
		if path == "" {
			return nil, fmt.Errorf("tpm: neither /dev/tpmrm0 nor /dev/tpm0: %w", ErrNone)
		}
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("tpm: %s: %w", path, ErrNone)
	case err != nil:
		return nil, fmt.Errorf("tpm: %w", err)
	}
	var conn stream
	switch mode := info.Mode(); {
	case mode&os.ModeSocket != 0:
		var d net.Dialer
		conn, err = d.DialContext(ctx, "unix", path)
	case mode&os.ModeCharDevice != 0:
		conn, err = os.OpenFile(path, os.O_RDWR, 0)
	default:
		err = fmt.Errorf("%s is neither a device nor a socket: %w", path, ErrNone)
	}
	if err != nil {
		return nil, fmt.Errorf("tpm: %w", err)
	}
	return &Device{path: path, line: &line{ctx: ctx, conn: conn}}, nil
}

// Default is the path of this host's TPM as the kernel names it; empty where there is none.
func Default() string {
	for _, path := range []string{"/dev/tpmrm0", "/dev/tpm0"} {
		if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return path
		}
	}
	return ""
}

// Path is where the device is.
func (d *Device) Path() string { return d.path }

// Close lets go of the device.
func (d *Device) Close() error { return d.line.conn.Close() }

// Random fills p from the TPM's own generator (TPM2_GetRandom), its answers encrypted on the bus. It ends with ctx too.
func (d *Device) Random(ctx context.Context, p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	whole := d.line.ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(whole, cancel)
	defer stop()
	d.line.ctx = ctx
	defer func() { d.line.ctx = whole }()
	root, err := d.storageRoot()
	if err != nil {
		return err
	}
	defer root.flush()
	session, end, err := tpm2.HMACSession(d.line, tpm2.TPMAlgSHA256, 16, tpm2.AESEncryption(128, tpm2.EncryptOut), tpm2.Salted(root.handle, root.public))
	if err != nil {
		return d.failed("random", err)
	}
	defer func() { _ = end() }()
	for len(p) > 0 {
		want := min(len(p), 32) // the digest of SHA-256: what any chip gives at once
		r, err := tpm2.GetRandom{BytesRequested: uint16(want)}.Execute(d.line, session)
		if err != nil {
			return d.failed("random", err)
		}
		if len(r.RandomBytes.Buffer) == 0 || len(r.RandomBytes.Buffer) > want {
			return fmt.Errorf("tpm: %d random bytes where %d were asked: %w", len(r.RandomBytes.Buffer), want, ErrDevice)
		}
		p = p[copy(p, r.RandomBytes.Buffer):]
	}
	return nil
}

func (d *Device) failed(what string, err error) error {
	return fmt.Errorf("tpm: %s: %s: %w", d.path, what, err)
}

type stream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// line carries commands to the device and answers back (go-tpm's transport.TPM).
type line struct {
	ctx  context.Context
	conn stream
}

func (l *line) Send(command []byte) ([]byte, error) {
	if len(command) > maxMessage {
		return nil, fmt.Errorf("a command of %d bytes: %w", len(command), ErrDevice)
	}
	if err := l.ctx.Err(); err != nil {
		return nil, err
	}
	// A device that cannot be polled has no deadlines: its driver has one of its own.
	_ = l.conn.SetDeadline(time.Now().Add(commandTime))
	stop := context.AfterFunc(l.ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := l.conn.Write(command); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDevice, err)
	}
	// A device gives an answer in one read, a socket may give it in several: the header says how long it is.
	answer := make([]byte, maxMessage)
	n := 0
	for want := headerSize; n < want; {
		m, err := l.conn.Read(answer[n:])
		if n += m; err != nil && n < want {
			return nil, fmt.Errorf("%w: %w", ErrDevice, err)
		}
		if n >= headerSize {
			if want = int(binary.BigEndian.Uint32(answer[2:6])); want < headerSize || want > maxMessage {
				return nil, fmt.Errorf("an answer of %d bytes: %w", want, ErrDevice)
			}
		}
	}
	return answer[:binary.BigEndian.Uint32(answer[2:6])], nil
}

// storageRoot is the chip's storage key (TCG's ECC P-256 template), made anew from its seed: the same each time until
// the TPM is cleared.
type storageRoot struct {
	d      *Device
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
}

func (d *Device) storageRoot() (*storageRoot, error) {
	handle, name, public, err := d.primary(tpm2.TPMRHOwner, tpm2.ECCSRKTemplate)
	if err != nil {
		return nil, d.failed("make the storage key", err)
	}
	return &storageRoot{d: d, handle: handle, name: name, public: *public}, nil
}

func (d *Device) primary(hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic) (tpm2.TPMHandle, tpm2.TPM2BName, *tpm2.TPMTPublic, error) {
	r, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(template)}.Execute(d.line)
	if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) {
		err = fmt.Errorf("its hierarchy has a password, which this build gives none: %w", err)
	}
	if err != nil {
		return 0, tpm2.TPM2BName{}, nil, err
	}
	public, err := r.OutPublic.Contents()
	if err != nil {
		_, _ = tpm2.FlushContext{FlushHandle: r.ObjectHandle}.Execute(d.line)
		return 0, tpm2.TPM2BName{}, nil, fmt.Errorf("%w: %w", ErrDevice, err)
	}
	// The name is what the public part hashes to: a device that lies about it is not let name itself.
	name, err := tpm2.ObjectName(public)
	if err != nil || string(name.Buffer) != string(r.Name.Buffer) {
		_, _ = tpm2.FlushContext{FlushHandle: r.ObjectHandle}.Execute(d.line)
		return 0, tpm2.TPM2BName{}, nil, fmt.Errorf("a key whose name is not its hash: %w", ErrDevice)
	}
	return r.ObjectHandle, *name, public, nil
}

func (s *storageRoot) flush() { s.d.flush(s.handle) }

// flush frees a transient object: a chip holds three. What cannot be freed goes with the connection, by the kernel's
// resource manager.
func (d *Device) flush(h tpm2.TPMHandle) { _, _ = tpm2.FlushContext{FlushHandle: h}.Execute(d.line) }

// session is salted with the storage key, so that only the chip that has it can follow; option says what it encrypts.
func (s *storageRoot) session(option tpm2.AuthOption) tpm2.Session {
	return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, option, tpm2.Salted(s.handle, s.public))
}

// use authorises the use of the storage key over such a session.
func (s *storageRoot) use(option tpm2.AuthOption) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: s.handle, Name: s.name, Auth: s.session(option)}
}
