package modules

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/canonical"
)

// Kind says which engine runs a module.
type Kind string

// Kinds of modules.
const (
	KindWASM       Kind = "wasm"
	KindSigma      Kind = "sigma"
	KindLua        Kind = "lua"
	KindIndicators Kind = "indicators"
)

// Capability is one thing a module asks to be allowed.
type Capability string

// What can be asked for. There is no file, no network, no environment and no fine clock.
const (
	CapabilityLog        Capability = "log"
	CapabilityClock      Capability = "clock"
	CapabilityState      Capability = "state"
	CapabilityIndicators Capability = "indicators"
	CapabilityReputation Capability = "reputation"
)

var capabilities = [...]Capability{CapabilityLog, CapabilityClock, CapabilityState, CapabilityIndicators, CapabilityReputation}

// Bounds of a module. A manifest is read whole before anything it names is fetched, so it says how much that will be.
const (
	MaxManifest   = 64 << 10 // bytes
	MaxPayload    = 16 << 20 // bytes
	MaxBlock      = 256 << 10
	MaxBlocks     = MaxPayload / MaxBlock
	MaxName       = 63
	MaxText       = 1024
	MaxWants      = 64
	MaxTechniques = 64
	MaxTests      = 64
	MaxLog        = 512

	// MaxFuel is the most a call may be allowed: about a quarter of a second.
	MaxFuel        = 1 << 30
	MaxMemory      = 64 << 20 // bytes of a guest's memory
	MaxOutput      = 1 << 20  // bytes of findings a call may give
	MaxStateBytes  = 4 << 20
	MaxFindingRate = 1000 // a minute
)

// What a manifest that names no limit gets.
const (
	DefaultFuel        = 32 << 20
	DefaultMemory      = 4 << 20
	DefaultOutput      = 64 << 10
	DefaultStateBytes  = 256 << 10
	DefaultFindingRate = 60
)

// ErrRefused is wrapped by every refusal of a module: nothing of it runs.
var ErrRefused = errors.New("module refused")

// ErrQuota is returned where a module's state would grow past what it may hold.
var ErrQuota = errors.New("the module's state is full")

// Want is one class of events a module is given. What it does not want never reaches it.
type Want struct {
	Class event.Class `cbor:"1,keyasint"`
	// Activities is a set, by bit; 0 means all of the class.
	Activities uint64 `cbor:"2,keyasint,omitempty"`
	// Fields are names of the field table of which at least one must be there; empty means none need be.
	Fields []string `cbor:"3,keyasint,omitempty"`
}

// Limits bound one instance on one host. Zero takes the default.
type Limits struct {
	Fuel        uint64 `cbor:"1,keyasint,omitempty"` // instructions of one call, about; see the engine
	Memory      uint32 `cbor:"2,keyasint,omitempty"` // bytes
	Output      uint32 `cbor:"3,keyasint,omitempty"` // bytes of findings a call
	StateBytes  uint32 `cbor:"4,keyasint,omitempty"`
	FindingRate uint32 `cbor:"5,keyasint,omitempty"` // findings a minute
}

// Test is a recording that comes with a module, and what must be found in it.
type Test struct {
	Name string `cbor:"1,keyasint"`
	// Events is the SHA-256 of a recording, a block of the bundle: one event a line, as `omega events --record` or
	// `omega events --json` writes them.
	Events []byte `cbor:"2,keyasint"`
	// Rules are the ids that must be found, in the order and as often as they stand here; none means that nothing may be.
	Rules []string `cbor:"3,keyasint,omitempty"`
}

// Provenance says where a payload came from.
type Provenance struct {
	Source       []byte `cbor:"1,keyasint,omitempty"` // SHA-256 of the source as it was built
	Builder      string `cbor:"2,keyasint,omitempty"` // what built it: "go1.26.8", "rustc 1.63.0"
	Reproducible bool   `cbor:"3,keyasint,omitempty"` // whoever builds Source with Builder gets these bytes
}

// Manifest says what a module is. Its canonical CBOR is the root block, and the CID of that block (version 1, codec cbor,
// SHA-256) is the module's name: it names the payload's blocks by their hashes, so it names all of the module.
type Manifest struct {
	Name         string       `cbor:"1,keyasint"`
	Version      string       `cbor:"2,keyasint"` // semantic version 2.0.0
	Kind         Kind         `cbor:"3,keyasint"`
	ABI          uint16       `cbor:"4,keyasint"` // of the engine's contract with the payload; 1 is the first
	Title        string       `cbor:"5,keyasint,omitempty"`
	Wants        []Want       `cbor:"6,keyasint,omitempty"`
	Capabilities []Capability `cbor:"7,keyasint,omitempty"` // sorted
	Limits       Limits       `cbor:"8,keyasint"`
	Attack       []string     `cbor:"9,keyasint,omitempty"` // technique ids
	Tests        []Test       `cbor:"10,keyasint,omitempty"`
	Author       string       `cbor:"11,keyasint,omitempty"` // DID of who wrote it; who signs the release is another matter
	Provenance   Provenance   `cbor:"12,keyasint"`
	Size         uint32       `cbor:"13,keyasint"` // of the payload, bytes
	Blocks       [][]byte     `cbor:"14,keyasint"` // SHA-256 of each block of the payload, in order; each but the last has MaxBlock bytes
}

// Encode gives the root block.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	b, err := canonical.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("%w: a manifest of %d bytes, more than %d", ErrRefused, len(b), MaxManifest)
	}
	return b, nil
}

// DecodeManifest reads a root block. Only the one canonical encoding of a valid manifest is taken.
func DecodeManifest(b []byte) (*Manifest, error) {
	m := new(Manifest)
	if err := canonical.Unmarshal(b, m, MaxManifest); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrRefused, err)
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return m, nil
}

// Validate holds m against the bounds.
func (m *Manifest) Validate() error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: manifest: %s", ErrRefused, fmt.Sprintf(format, args...))
	}
	if !validName(m.Name) {
		return refuse("name %.80q: want 1 to %d of a-z, 0-9, '-' and '.', not a '-' or '.' first", m.Name, MaxName)
	}
	if !validVersion(m.Version) {
		return refuse("version %.80q is no semantic version (1.2.3)", m.Version)
	}
	switch m.Kind {
	case KindWASM, KindSigma, KindLua, KindIndicators:
	default:
		return refuse("no engine for kind %.40q", m.Kind)
	}
	if m.ABI != 1 {
		return refuse("ABI %d: this build has 1", m.ABI)
	}
	for _, s := range []string{m.Title, m.Author, m.Provenance.Builder} {
		if !plain(s) {
			return refuse("%.80q: a text is at most %d printable bytes", s, MaxText)
		}
	}
	if len(m.Wants) > MaxWants || len(m.Attack) > MaxTechniques || len(m.Tests) > MaxTests {
		return refuse("%d wants, %d techniques, %d tests: at most %d, %d and %d", len(m.Wants), len(m.Attack), len(m.Tests), MaxWants, MaxTechniques, MaxTests)
	}
	for _, w := range m.Wants {
		if w.Class.String() == "unknown" {
			return refuse("it wants events of class %d, which no sensor has", w.Class)
		}
		if w.Activities>>event.Activities != 0 {
			return refuse("it wants an activity that no sensor has")
		}
		if len(w.Fields) > MaxWants {
			return refuse("%d fields in one want, more than %d", len(w.Fields), MaxWants)
		}
	}
	if !slices.IsSorted(m.Capabilities) || len(slices.Compact(slices.Clone(m.Capabilities))) != len(m.Capabilities) {
		return refuse("capabilities are sorted, and each stands once")
	}
	for _, c := range m.Capabilities {
		if !slices.Contains(capabilities[:], c) {
			return refuse("it asks for %.40q, which no module may have", c)
		}
	}
	for _, a := range m.Attack {
		if !IsTechnique(a) {
			return refuse("%.40q is no ATT&CK technique id", a)
		}
	}
	for _, t := range m.Tests {
		if t.Name == "" || !plain(t.Name) || len(t.Events) != 32 || len(t.Rules) > MaxTests || !plain(strings.Join(t.Rules, " ")) {
			return refuse("test %.80q is not well formed", t.Name)
		}
	}
	l := m.Limits
	if l.Fuel > MaxFuel || l.Memory > MaxMemory || l.Output > MaxOutput || l.StateBytes > MaxStateBytes || l.FindingRate > MaxFindingRate {
		return refuse("it asks for limits past what any module may have")
	}
	if n := len(m.Provenance.Source); n != 0 && n != 32 {
		return refuse("a source hash of %d bytes", n)
	}
	if m.Size == 0 || m.Size > MaxPayload || len(m.Blocks) != (int(m.Size)+MaxBlock-1)/MaxBlock {
		return refuse("a payload of %d bytes in %d blocks: 1 to %d bytes, in blocks of %d", m.Size, len(m.Blocks), MaxPayload, MaxBlock)
	}
	for _, b := range m.Blocks {
		if len(b) != 32 {
			return refuse("a block's hash has %d bytes", len(b))
		}
	}
	return nil
}

// Effective is l with the defaults for what it leaves out.
func (l Limits) Effective() Limits {
	return Limits{
		Fuel: or(l.Fuel, DefaultFuel), Memory: or(l.Memory, DefaultMemory), Output: or(l.Output, DefaultOutput),
		StateBytes: or(l.StateBytes, DefaultStateBytes), FindingRate: or(l.FindingRate, DefaultFindingRate),
	}
}

func or[T uint32 | uint64](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// Grants says whether m asks for c.
func (m *Manifest) Grants(c Capability) bool { return slices.Contains(m.Capabilities, c) }

// Filter is the native test that events pass before they reach a module: by class and activity, without a call.
type Filter struct {
	all     bool
	classes []event.Class
	sets    []uint64
}

// Filter compiles Wants. A module that says nothing is given everything.
func (m *Manifest) Filter() Filter {
	f := Filter{all: len(m.Wants) == 0}
	for _, w := range m.Wants {
		set := w.Activities
		if set == 0 {
			set = ^uint64(0)
		}
		if i := slices.Index(f.classes, w.Class); i >= 0 {
			f.sets[i] |= set
			continue
		}
		f.classes, f.sets = append(f.classes, w.Class), append(f.sets, set)
	}
	return f
}

// Pass says whether e is wanted. It allocates nothing.
func (f *Filter) Pass(e *event.Event) bool {
	if f.all {
		return true
	}
	for i, c := range f.classes {
		if c == e.Class {
			return f.sets[i]&(1<<e.Activity) != 0
		}
	}
	return false
}

func validName(s string) bool {
	if s == "" || len(s) > MaxName || s[0] == '-' || s[0] == '.' {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.')
	}) < 0
}

// validVersion reads semver.org 2.0.0: three numbers without leading zeros, a pre-release, build data.
func validVersion(s string) bool {
	if len(s) > MaxName {
		return false
	}
	s, build, hasBuild := strings.Cut(s, "+")
	core, pre, hasPre := strings.Cut(s, "-")
	if hasBuild && !identifiers(build, false) || hasPre && !identifiers(pre, true) {
		return false
	}
	parts := strings.Split(core, ".")
	return len(parts) == 3 && identifiers(core, true) && strings.Trim(core, "0123456789.") == ""
}

// identifiers checks dot-separated identifiers; strict refuses a number with a leading zero.
func identifiers(s string, strict bool) bool {
	for part := range strings.SplitSeq(s, ".") {
		digits := strings.Trim(part, "0123456789") == ""
		if part == "" || strict && digits && len(part) > 1 && part[0] == '0' {
			return false
		}
		for _, c := range []byte(part) {
			if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-') {
				return false
			}
		}
	}
	return true
}

// IsTechnique says whether s has the form of an ATT&CK technique id: T1059, T1059.004.
func IsTechnique(s string) bool {
	s, sub, has := strings.Cut(s, ".")
	if len(s) != 5 || s[0] != 'T' || strings.Trim(s[1:], "0123456789") != "" {
		return false
	}
	return !has || len(sub) == 3 && strings.Trim(sub, "0123456789") == ""
}

func plain(s string) bool {
	return len(s) <= MaxText && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// Equal says whether two manifests are the same module.
func (m *Manifest) Equal(o *Manifest) bool {
	a, err := canonical.Marshal(m)
	if err != nil {
		return false
	}
	b, err := canonical.Marshal(o)
	return err == nil && bytes.Equal(a, b)
}
