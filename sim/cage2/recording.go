package cage2

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A recording is JSON Lines: an episode's header, then a line a step, then the next header. The fields are those of the
// recordings that were made from the reference environment, so both can be replayed.
type (
	// Header begins an episode.
	Header struct {
		Episode struct {
			Red   string `json:"red"`
			Blue  string `json:"blue"`
			Green bool   `json:"green"`
			Steps int    `json:"steps"`
		} `json:"ep"`
		Seed        uint64 `json:"seed"`
		Observation string `json:"obs"`
		Privileges  string `json:"priv"`
	}
	// Line is one step.
	Line struct {
		Step        int                 `json:"t"`
		Blue        BlueLine            `json:"b"`
		Red         RedLine             `json:"r"`
		Green       *GreenLine          `json:"g,omitempty"`
		Observation string              `json:"obs"`
		Reward      float64             `json:"rew"`
		Privileges  string              `json:"priv"` // a digit a host: 0 none, 1 user, 2 root
		Sessions    map[string][]string `json:"ses"`  // red's accounts on each host, without the foothold
		ServiceDown int                 `json:"ot"`
	}
	// BlueLine is blue's action; OK is 1, 0, or -1 where the reference does not say.
	BlueLine struct {
		Type string `json:"t"`
		Host string `json:"h,omitempty"`
		ID   int    `json:"id"`
		OK   int    `json:"ok"`
	}
	// RedLine is red's move and its chances.
	RedLine struct {
		Type     string           `json:"t"`
		Host     string           `json:"h,omitempty"`
		Subnet   string           `json:"s,omitempty"`
		Exploit  string           `json:"x,omitempty"`
		Ports    []int            `json:"ports,omitempty"` // what red remembers of the host, before an exploit
		Detected *int             `json:"det,omitempty"`
		Escalate *json.RawMessage `json:"esc,omitempty"` // [index, count, account] where a session had to be picked
		Invalid  int              `json:"invalid,omitempty"`
		OK       int              `json:"ok"`
	}
	// GreenLine is green's scan.
	GreenLine struct {
		Type string `json:"t"`
		Host string `json:"h"`
	}
)

// Bounds of a recording that is read.
const (
	maxLine    = 64 << 10 // bytes
	maxEpisode = MaxSteps // steps
)

// ErrRecording is what every error of a malformed recording wraps.
var ErrRecording = errors.New("malformed recording")

// Episode is a header with its steps.
type Episode struct {
	Header Header
	Line   int // of the header in its file, from 1
	Steps  []Line
}

// Reader reads episodes one after another.
type Reader struct {
	scan *bufio.Scanner
	line int
	next *Header
	at   int // the line of next
}

// NewReader reads a recording from r.
func NewReader(r io.Reader) *Reader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	return &Reader{scan: s}
}

func (r *Reader) errorf(format string, a ...any) error {
	return fmt.Errorf("%w: line %d: %s", ErrRecording, r.line, fmt.Sprintf(format, a...))
}

// Next gives the next episode, io.EOF after the last. An episode with fewer steps than its header promises is an error.
func (r *Reader) Next() (*Episode, error) {
	var e *Episode
	if r.next != nil {
		e, r.next = &Episode{Header: *r.next, Line: r.at}, nil
	}
	for r.scan.Scan() {
		r.line++
		raw := bytes.TrimSpace(r.scan.Bytes())
		if len(raw) == 0 {
			continue
		}
		if bytes.HasPrefix(raw, []byte(`{"ep"`)) {
			var h Header
			if err := json.Unmarshal(raw, &h); err != nil {
				return nil, r.errorf("%v", err)
			}
			if h.Episode.Steps < 0 || h.Episode.Steps > maxEpisode {
				return nil, r.errorf("episode of %d steps; at most %d", h.Episode.Steps, maxEpisode)
			}
			if e == nil {
				e = &Episode{Header: h, Line: r.line}
				continue
			}
			r.next, r.at = &h, r.line
			return e, r.whole(e)
		}
		if e == nil {
			return nil, r.errorf("a step before any episode's header")
		}
		if len(e.Steps) >= e.Header.Episode.Steps {
			return nil, r.errorf("more steps than the header's %d", e.Header.Episode.Steps)
		}
		var l Line
		if err := json.Unmarshal(raw, &l); err != nil {
			return nil, r.errorf("%v", err)
		}
		if l.Step != len(e.Steps) {
			return nil, r.errorf("step %d where %d was due", l.Step, len(e.Steps))
		}
		e.Steps = append(e.Steps, l)
	}
	if err := r.scan.Err(); err != nil {
		r.line++
		return nil, r.errorf("%v", err)
	}
	if e == nil {
		return nil, io.EOF
	}
	return e, r.whole(e)
}

func (r *Reader) whole(e *Episode) error {
	if len(e.Steps) != e.Header.Episode.Steps {
		return r.errorf("truncated: %d of %d steps", len(e.Steps), e.Header.Episode.Steps)
	}
	return nil
}

// roster keeps red's sessions on each host in the order in which they were opened, which State does not need: a recorded
// escalation names the session it picked by that order.
type roster [Hosts][]SessionKind

func (r *roster) blue(a Action) {
	switch v, h := a.Split(); v {
	case Remove:
		keep := r[h][:0]
		for _, k := range r[h] {
			if k != Detected {
				keep = append(keep, k)
			}
		}
		r[h] = keep
	case Restore:
		r[h] = r[h][:0]
	}
}

func (r *roster) red(m Move, picked int, ok bool) {
	h := Host(m.Target)
	switch {
	case !ok:
	case m.Kind == EscalateMove && picked >= 0:
		r[h][picked] = Root
	case m.Kind == ExploitMove:
		k := Hidden
		switch got := service[h][m.Exploit]; {
		case got == asLogin:
			k = ByLogin
		case got == asRoot:
			k = Root
		case m.Detected:
			k = Detected
		}
		r[h] = append(r[h], k)
	}
}

// account is the name a session of kind k on h goes by.
func account(h Host, k SessionKind) string {
	windows := windowsHosts>>h&1 == 1
	switch {
	case k == ByLogin && windows:
		return "vagrant"
	case k == ByLogin:
		return "pi"
	case k == Root && windows:
		return "SYSTEM"
	case k == Root:
		return "root"
	case windows:
		return "NetworkService"
	}
	return "www-data"
}

// privileges is red's standing as a digit a host.
func (s *State) privileges() string {
	var b strings.Builder
	for h := range Hosts {
		b.WriteByte('0' + byte(s.Privilege(h)))
	}
	return b.String()
}

// accounts is how many sessions red has under each account on each host, without the foothold on User0.
func (s *State) accounts() map[string]int {
	m := map[string]int{}
	for h := range Hosts {
		for k := ByLogin; k <= Root; k++ {
			n := int(s.sessions[h].count(k))
			if h == User0 && k == Root {
				n--
			}
			if n > 0 {
				m[h.String()+" "+account(h, k)] += n
			}
		}
	}
	return m
}
