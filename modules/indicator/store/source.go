package store

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/omega-mesh/omega/modules/indicator"
	"github.com/omega-mesh/omega/modules/indicator/taxii"
)

// Errors a caller decides by.
var (
	ErrNotFound = errors.New("no such source")
	ErrInvalid  = errors.New("not a source")
)

// Bounds of what is kept.
const (
	MaxSources = 256
	MaxFiles   = 1000 // of one source
	maxSecret  = 4096
	maxCA      = 64 << 10
)

// taxiiScheme marks a TAXII server's address.
const taxiiScheme = "taxii+"

// Kind is where a source's indicators come from.
type Kind string

// The kinds of sources.
const (
	Kept  Kind = "kept"  // handed over by a person: the store has them
	Path  Kind = "path"  // a file or folder of this host
	Web   Kind = "web"   // one file by HTTPS
	TAXII Kind = "taxii" // a TAXII 2.1 server's collections
)

// Source is one, as it is kept.
type Source struct {
	ID         string        `json:"id"`
	Name       string        `json:"name"`
	Kind       Kind          `json:"kind"`
	Location   string        `json:"location,omitempty"` // path or URL; of a TAXII server #NAME chooses a collection
	Confidence uint8         `json:"confidence"`         // of what names none; 1 to 100
	TTL        time.Duration `json:"ttl,omitempty"`      // how long what names no end is looked for after it came; 0 for as long as it is there
	Exact      bool          `json:"exact,omitempty"`    // listed domains are themselves alone
	User       string        `json:"user,omitempty"`
	Password   string        `json:"password,omitempty"`
	Token      string        `json:"token,omitempty"`
	CA         string        `json:"ca,omitempty"` // PEM of who vouches for the server, beside those this host trusts
	Added      time.Time     `json:"added"`
	Configured bool          `json:"-"` // by the node's configuration: removed there

	Fetched  time.Time         `json:"fetched,omitzero"` // when something new came last
	Version  string            `json:"version,omitempty"`
	Progress map[string]string `json:"progress,omitempty"` // of a TAXII server's collections
}

// State is a source and what became of it.
type State struct {
	Source
	Indicators uint64 // that it gave and the set has
	Report     indicator.Report
	Visited    time.Time
	Error      string
}

// Validate checks what a person gave.
func (s *Source) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if s.Name == "" || len(s.Name) > 128 || strings.ContainsFunc(s.Name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return bad("a name has 1 to 128 printable characters")
	}
	if s.Confidence < 1 || s.Confidence > 100 {
		return bad("a confidence is 1 to 100")
	}
	if s.TTL < 0 || s.TTL > 3650*24*time.Hour {
		return bad("indicators live 0 to 3650 days")
	}
	if len(s.User) > maxSecret || len(s.Password) > maxSecret || len(s.Token) > maxSecret || len(s.CA) > maxCA || len(s.Location) > 2048 {
		return bad("a setting is too long")
	}
	switch s.Kind {
	case Kept:
		if s.Location != "" {
			return bad("what is kept has no location")
		}
	case Path:
		if !filepath.IsAbs(s.Location) {
			return bad("%q is not an absolute path", s.Location)
		}
	case Web, TAXII:
		u, err := url.Parse(strings.TrimPrefix(s.Location, taxiiScheme))
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
			return bad("%q is no https URL without a user in it", s.Location)
		}
		if !taxii.Private(u) {
			return bad("%s: over http anyone on the way chooses what is looked for: want https", u.Host)
		}
	default:
		return bad("%q is no kind of source", s.Kind)
	}
	return nil
}

// Locate makes a location a source: a path, an https URL, or taxii+https://….
func Locate(location string) (Source, error) {
	s := Source{Name: location, Location: location, Kind: Path, Confidence: DefaultConfidence}
	if u, err := url.Parse(strings.TrimPrefix(location, taxiiScheme)); err == nil && u.Host != "" {
		s.Name = u.Host
		if s.Kind = Web; strings.HasPrefix(location, taxiiScheme) {
			s.Kind = TAXII
		}
	}
	s.Name = s.Name[:min(len(s.Name), 128)]
	return s, s.Validate()
}

// DefaultConfidence is that of sources which name none: a finding of medium severity.
const DefaultConfidence = 50

// identify makes an id of a name that no other source has.
func identify(name string, taken func(string) bool) string {
	id := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, name), "-")
	for strings.Contains(id, "--") {
		id = strings.ReplaceAll(id, "--", "-")
	}
	if id = id[:min(len(id), 40)]; id == "" {
		id = "source"
	}
	for n, base := 2, id; taken(id); n++ {
		id = fmt.Sprintf("%s-%d", base, n)
	}
	return id
}
