package scanner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"lukechampine.com/blake3"

	"github.com/omega-mesh/omega/modules/yara"
)

// Times.
const (
	// startTime is how long the process may take for one rule file, and to take what it is sent; loadTime for all of them together.
	startTime = 20 * time.Second
	loadTime  = 2 * time.Minute
	// killTime is how long a scan may take before the process is ended: libyara ends one by itself after yara.ScanTime.
	killTime = yara.ScanTime + 5*time.Second
	// After the second fall within steadyTime the process is not started again at once: who has files that it falls over would
	// have it compile all day.
	restartMin = time.Second
	restartMax = 5 * time.Minute
	steadyTime = 10 * time.Minute
)

// maxFallen is how many files are remembered that the process fell over.
const maxFallen = 1024

// maxSpeech is how much of what the process writes is kept for the log, in bytes.
const maxSpeech = 4096

var (
	// ErrResting says that the process fell a moment ago, and is not started again yet.
	ErrResting = errors.New("the scanner fell, and is started again in a while")
	// ErrFallen says that a file was not scanned since the process fell over it before.
	ErrFallen = errors.New("the scanner fell over this file before")
	// ErrNone says that no file is scanned here, and Status says why.
	ErrNone = errors.New("no YARA rules are in use on this host")
)

// Process is a process that was started.
type Process interface {
	// Kill ends it at once, and waits.
	Kill()
	// Done is closed when it has ended; Err then says how.
	Done() <-chan struct{}
	Err() error
}

// Options say what a Scanner stands on.
type Options struct {
	// Paths are files and folders of rules; none switches it off.
	Paths []string
	// Spawn starts Main with line as descriptor 3 and output as standard output and error, and without rights.
	Spawn func(line, output *os.File) (Process, error)
	Log   *slog.Logger
}

// Status is what a Scanner says of itself.
type Status struct {
	Asked    bool          `cbor:"1,keyasint"` // rules are configured
	Built    bool          `cbor:"2,keyasint"`
	Version  string        `cbor:"3,keyasint,omitempty"` // libyara's
	Why      string        `cbor:"4,keyasint,omitempty"` // it scans nothing
	Files    int           `cbor:"5,keyasint,omitempty"` // of rules, in use
	Rules    int           `cbor:"6,keyasint,omitempty"`
	Rejected int           `cbor:"7,keyasint,omitempty"` // rule files
	Example  yara.Rejected `cbor:"8,keyasint,omitempty"` // of those
	Calls    int           `cbor:"9,keyasint,omitempty"` // system calls the process is left; 0 where it keeps all of them
	Counts   Counts        `cbor:"10,keyasint"`
}

// Counts are what a Scanner did since its start.
type Counts struct {
	Scanned  uint64 `cbor:"1,keyasint,omitempty"`
	Found    uint64 `cbor:"2,keyasint,omitempty"` // files that a rule matched
	Cut      uint64 `cbor:"3,keyasint,omitempty"` // files longer than yara.MaxScan
	Timeouts uint64 `cbor:"4,keyasint,omitempty"` // scans that did not end in time, by libyara's clock or by ours
	Falls    uint64 `cbor:"5,keyasint,omitempty"` // of the process, but for those that we ended
	Refused  uint64 `cbor:"6,keyasint,omitempty"` // scans there was no process for, or that it fell over before
	Failed   uint64 `cbor:"7,keyasint,omitempty"` // scans that libyara did not end, otherwise
}

// Result is what a scan found. The hashes are of all that was looked at; of a file that was Cut they are not the file's.
type Result struct {
	Size    int64
	Cut     bool
	SHA256  string
	BLAKE3  string
	Matches []yara.Match
}

// Scanner has files scanned by a process without rights. One scan is done at a time.
type Scanner struct {
	opt     Options
	codec   codec
	sources []yara.Source

	work    sync.Mutex // held while the process is spoken to, and taken before mu
	process Process
	line    *line
	speech  *speech
	number  uint64
	rest    time.Time     // the process is not started before
	last    time.Time     // it fell
	wait    time.Duration // after the next fall
	fallen  [][32]byte    // SHA-256 of what it fell over, oldest first
	closed  bool

	mu     sync.Mutex
	status Status
}

// New reads the rules. That there are none, or that this build cannot use them, is no error: Status says so. Start compiles
// them; without it the first scan does.
func New(opt Options) (*Scanner, error) {
	cd, err := newCodec()
	if err != nil {
		return nil, err
	}
	s := &Scanner{opt: opt, codec: cd}
	s.status = Status{Asked: len(opt.Paths) > 0, Built: yara.Built, Version: yara.Version()}
	switch {
	case !s.status.Asked:
		s.status.Why = "no rules are configured"
		return s, nil
	case !yara.Built:
		s.status.Why = yara.ErrBuild.Error()
		return s, nil
	}
	sources, rejected, err := yara.Read(opt.Paths...)
	if err != nil {
		s.status.Why = plain(err.Error(), 300)
		return s, nil
	}
	s.sources = sources
	for _, r := range rejected {
		s.reject(r)
	}
	return s, nil
}

// reject tells of a rule file that is not used.
func (s *Scanner) reject(r yara.Rejected) {
	r.File, r.Why = plain(r.File, 1024), plain(r.Why, 300)
	s.opt.Log.Warn("YARA rules not used", "file", r.File, "why", r.Why)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Rejected++; s.status.Rejected == 1 {
		s.status.Example = r
	}
}

// Status is what there is to say now.
func (s *Scanner) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *Scanner) count(what func(*Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what(&s.status.Counts)
}

// Off says whether nothing is scanned here, whatever comes.
func (s *Scanner) Off() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status.Why != ""
}

// Start compiles the rules, so that no scan waits for it.
func (s *Scanner) Start(ctx context.Context) error {
	if s.Off() {
		return ErrNone
	}
	s.work.Lock()
	defer s.work.Unlock()
	return s.ready(ctx)
}

// Close ends the process.
func (s *Scanner) Close() {
	s.work.Lock()
	defer s.work.Unlock()
	s.closed = true
	s.end()
}

// end ends the process, and gives how it ended and what it said.
func (s *Scanner) end() (said string) {
	if s.process == nil {
		return ""
	}
	s.process.Kill()
	s.line.c.Close()
	said = s.speech.close()
	if err := s.process.Err(); err != nil {
		said = fmt.Sprintf("%v %s", err, said)
	}
	s.process, s.line, s.speech = nil, nil, nil
	return plain(said, 300)
}

// fell ends the process after a fault, and has the next wait. It tells whether it was we who lost patience.
func (s *Scanner) fell(err error, doing string) error {
	late := errors.Is(err, os.ErrDeadlineExceeded)
	said := s.end()
	s.back()
	s.count(func(c *Counts) {
		if late {
			c.Timeouts++
		} else {
			c.Falls++
		}
	})
	s.opt.Log.Warn("the YARA scanner was ended", "doing", doing, "err", err, "said", said)
	if late {
		return fmt.Errorf("%w: it took too long", yara.ErrScan)
	}
	return fmt.Errorf("%w: the scanner fell: %w", yara.ErrScan, err)
}

// back has the next process wait, the longer the more often one fell.
func (s *Scanner) back() {
	now := time.Now()
	if now.Sub(s.last) > steadyTime {
		s.wait = 0
	}
	s.last, s.rest = now, now.Add(s.wait)
	s.wait = min(max(s.wait*2, restartMin), restartMax)
}

// ready has a process with the rules in it. A rule file that it falls over is left out from then on.
func (s *Scanner) ready(ctx context.Context) error {
	if s.process != nil {
		select {
		case <-s.process.Done(): // while nothing was asked of it: the file that comes next is not to blame
			_ = s.fell(errEnded, "nothing")
		default:
		}
	}
	for s.process == nil {
		switch {
		case s.closed:
			return ErrNone
		case time.Now().Before(s.rest):
			return ErrResting
		}
		if err := s.start(); err != nil {
			return err
		}
		at, err := s.load(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			s.end()
			return ctx.Err()
		}
		doing := "start"
		if at >= 0 && at < len(s.sources) {
			doing = "compile " + s.sources[at].Name
		} else if at == len(s.sources) {
			doing = "compile all rules together"
		}
		err = s.fell(err, doing)
		if at < 0 || at >= len(s.sources) {
			s.mu.Lock()
			s.status.Files, s.status.Rules = 0, 0
			s.mu.Unlock()
			return err
		}
		s.reject(yara.Rejected{File: s.sources[at].Name, Why: "the compiler fell over it, or took more than " + startTime.String()})
		s.sources = slices.Delete(s.sources, at, at+1)
		s.rest = time.Time{} // there is one fewer each time
	}
	return nil
}

func (s *Scanner) start() error {
	l, theirs, err := pair(s.codec)
	if err != nil {
		return err
	}
	defer theirs.Close()
	sp, output, err := listen()
	if err != nil {
		l.c.Close()
		return err
	}
	defer output.Close()
	p, err := s.opt.Spawn(theirs, output)
	if err != nil {
		l.c.Close()
		output.Close()
		sp.close()
		s.back()
		return fmt.Errorf("start the YARA scanner: %w", err)
	}
	s.process, s.line, s.speech = p, l, sp
	return nil
}

// load hands the rules over. at is the source that was being compiled at an error, their number for all of them together,
// and below 0 before that.
func (s *Scanner) load(ctx context.Context) (at int, err error) {
	at = -1
	f, err := memory(func(f *os.File) error {
		for _, one := range s.sources {
			raw, err := s.codec.enc.Marshal(source{[]byte(one.Name), one.Text})
			if err != nil {
				return err
			}
			if _, err := f.Write(raw); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return at, err
	}
	defer f.Close()
	if err := s.line.send(packet{Kind: kindRules}, f); err != nil {
		return at, err
	}
	rejected := map[int]string{}
	for {
		patience := startTime
		if at == len(s.sources) {
			patience = loadTime
		}
		p, err := s.line.receive(ctx, patience)
		if err != nil {
			return at, err
		}
		switch p.Kind {
		case kindBefore:
			if p.Index != at+1 || p.Index > len(s.sources) {
				return at, fmt.Errorf("%w: source %d after %d", errAnswer, p.Index, at)
			}
			at = p.Index
		case kindRejected:
			if p.Index >= len(s.sources) {
				return at, fmt.Errorf("%w: source %d of %d", errAnswer, p.Index, len(s.sources))
			}
			rejected[p.Index] = p.Text
		case kindLoaded:
			for i := len(s.sources) - 1; i >= 0; i-- {
				if why, ok := rejected[i]; ok {
					s.reject(yara.Rejected{File: s.sources[i].Name, Why: why})
					s.sources = slices.Delete(s.sources, i, i+1)
				}
			}
			s.mu.Lock()
			s.status.Files, s.status.Rules, s.status.Calls = len(s.sources), p.Count, p.Calls
			if len(s.sources) == 0 {
				s.status.Why = "no rule file is of use"
			}
			s.mu.Unlock()
			s.opt.Log.Info("YARA rules", "files", len(s.sources), "rules", p.Count)
			return at, nil
		default:
			return at, fmt.Errorf("%w: kind %d while the rules are compiled", errAnswer, p.Kind)
		}
	}
}

// Scan has the bytes of in matched, as far as yara.MaxScan. path is what it is called, for rules that ask. The error is
// ErrNone, ErrResting, ErrFallen, that of reading in or of ctx, or wraps yara.ErrScan.
func (s *Scanner) Scan(ctx context.Context, in io.Reader, path string) (*Result, error) {
	if s.Off() {
		return nil, ErrNone
	}
	s.work.Lock()
	defer s.work.Unlock()
	if err := s.ready(ctx); err != nil {
		s.count(func(c *Counts) { c.Refused++ })
		return nil, err
	}
	r := &Result{}
	sum, tree := sha256.New(), blake3.New(32, nil)
	f, err := memory(func(f *os.File) error {
		n, err := io.CopyBuffer(struct{ io.Writer }{f}, io.TeeReader(io.LimitReader(in, yara.MaxScan), io.MultiWriter(sum, tree)), make([]byte, 256<<10))
		r.Size = n
		return err
	})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if r.Size == yara.MaxScan {
		n, _ := io.ReadFull(in, make([]byte, 1))
		r.Cut = n > 0
	}
	digest := [32]byte(sum.Sum(nil))
	r.SHA256, r.BLAKE3 = hex.EncodeToString(digest[:]), hex.EncodeToString(tree.Sum(nil))
	if r.Size == 0 {
		return r, nil
	}
	if slices.Contains(s.fallen, digest) {
		s.count(func(c *Counts) { c.Refused++ })
		return r, ErrFallen
	}
	s.number++
	err = s.line.send(packet{Kind: kindScan, Number: s.number, Text: plain(path, 1024)}, f)
	var p packet
	if err == nil {
		p, err = s.line.receive(ctx, killTime)
	}
	if err != nil && ctx.Err() != nil {
		s.end() // it goes on with what nobody waits for
		return nil, ctx.Err()
	}
	if err == nil && (p.Kind != kindFound || p.Number != s.number) {
		err = fmt.Errorf("%w: kind %d, number %d", errAnswer, p.Kind, p.Number)
	}
	if err != nil {
		if len(s.fallen) == maxFallen {
			s.fallen = slices.Delete(s.fallen, 0, 1)
		}
		s.fallen = append(s.fallen, digest)
		return r, s.fell(err, fmt.Sprintf("scan %s, sha256 %s", plain(path, 1024), r.SHA256))
	}
	r.Matches = p.Matches
	s.count(func(c *Counts) {
		c.Scanned++
		if r.Cut {
			c.Cut++
		}
		if len(r.Matches) > 0 {
			c.Found++
		}
		switch {
		case p.Text == "":
		case strings.Contains(p.Text, "timeout"):
			c.Timeouts++
		default:
			c.Failed++
		}
	})
	if p.Text != "" { // what matched until then did
		return r, fmt.Errorf("%w: %s", yara.ErrScan, p.Text)
	}
	return r, nil
}

// speech is what a process writes: its beginning and no more, since it may write without end.
type speech struct {
	r    *os.File
	done chan struct{}
	text bytes.Buffer
}

func listen() (*speech, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("the scanner's output: %w", err)
	}
	s := &speech{r: r, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_, _ = io.CopyN(&s.text, r, maxSpeech)
		_, _ = io.Copy(io.Discard, r)
	}()
	return s, w, nil
}

// close is for when the process is gone: nobody holds the pipe's other end.
func (s *speech) close() string {
	<-s.done
	s.r.Close()
	return s.text.String()
}
