package scanner

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/modules/yara"
	"github.com/omega-mesh/omega/node/privileged/confine"
)

// Name is argv[0] of the process.
const Name = "omega: scanner"

// fdLine is the descriptor it inherits.
const fdLine = 3

// maxData is how much memory the process may have of its own, in bytes; what it is handed over is not its own.
const maxData = 1 << 30

// Is says whether this process is a scanner. main must ask before anything else, and if so exit with Main's result.
func Is() bool { return len(os.Args) > 0 && os.Args[0] == Name }

// Main is its life; the result is the exit code.
func Main() int {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serve() error {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(50)
	for what, most := range map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: 0, unix.RLIMIT_NOFILE: 32, unix.RLIMIT_DATA: maxData} {
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("limit: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("dumpable: %w", err)
	}
	calls, err := confine.Enclosed(os.Getpid())
	if err != nil && !errors.Is(err, confine.ErrUnsupported) {
		return err
	}
	cd, err := newCodec()
	if err != nil {
		return err
	}
	w := worker{codec: cd, calls: calls, buf: make([]byte, maxPacket)}
	for {
		p, data, err := w.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch p.Kind {
		case kindRules:
			err = w.load(data)
		case kindScan:
			err = w.scan(p, data)
		default:
			err = fmt.Errorf("kind %d", p.Kind)
		}
		if len(data) > 0 {
			err = errors.Join(err, unix.Munmap(data))
		}
		if err != nil {
			return err
		}
	}
}

// worker is what the process works with.
type worker struct {
	codec codec
	calls int
	buf   []byte
	rules *yara.Rules
}

// next takes one packet, and maps what came with it.
func (w *worker) next() (packet, []byte, error) {
	var p packet
	oob := make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	var err error
	for {
		n, oobn, _, _, err = unix.Recvmsg(fdLine, w.buf, oob, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return p, nil, err
	}
	if n == 0 {
		return p, nil, io.EOF
	}
	if err := w.codec.dec.Unmarshal(w.buf[:n], &p); err != nil {
		return p, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return p, nil, fmt.Errorf("%d messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return p, nil, fmt.Errorf("%d descriptors: %w", len(fds), err)
	}
	defer unix.Close(fds[0])
	var st unix.Stat_t
	if err := unix.Fstat(fds[0], &st); err != nil {
		return p, nil, err
	}
	if st.Size == 0 {
		return p, nil, nil
	}
	data, err := unix.Mmap(fds[0], 0, int(st.Size), unix.PROT_READ, unix.MAP_SHARED)
	return p, data, err
}

func (w *worker) say(p packet) error {
	raw, err := w.codec.enc.Marshal(p)
	if err != nil {
		return err
	}
	for {
		_, err = unix.Write(fdLine, raw)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (w *worker) load(data []byte) error {
	var sources []yara.Source
	for rest := data; len(rest) > 0; {
		var s source
		var err error
		if rest, err = w.codec.dec.UnmarshalFirst(rest, &s); err != nil {
			return err
		}
		sources = append(sources, yara.Source{Name: string(s.Name), Text: s.Text})
	}
	var lost error
	rules, rejected, err := yara.New(sources, func(i int) { lost = errors.Join(lost, w.say(packet{Kind: kindBefore, Index: i})) })
	if err = errors.Join(err, lost); err != nil {
		return err
	}
	index := map[string]int{}
	for i, s := range sources {
		index[s.Name] = i
	}
	for _, r := range rejected {
		if err := w.say(packet{Kind: kindRejected, Index: index[r.File], Text: r.Why}); err != nil {
			return err
		}
	}
	w.rules = rules
	clear(sources)
	debug.FreeOSMemory()
	return w.say(packet{Kind: kindLoaded, Count: rules.Len(), Calls: w.calls})
}

func (w *worker) scan(p packet, data []byte) error {
	if w.rules == nil {
		return errors.New("a scan before the rules")
	}
	found, err := w.rules.Scan(data, yara.Names{Path: p.Text})
	out := packet{Kind: kindFound, Number: p.Number, Matches: found}
	if err != nil {
		out.Text = err.Error()
	}
	return w.say(out)
}
