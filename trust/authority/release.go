package authority

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/credential"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// A module runs where somebody who may says that it is the one meant. Three may: k operators by the root (root.Release),
// an operator alone, or a member under a credential. How many of the latter two are asked for is the caller's policy.
// Whoever withdraws takes back its own word; an operator takes back everybody's, but the root's.

// CapabilityModuleRelease is what a credential must allow for a member's release of a module to count.
const CapabilityModuleRelease = "module-release"

// ModuleReleaseBody releases a module, or withdraws the release of one. Of an operator, or a member with a credential.
type ModuleReleaseBody struct {
	Module     []byte   `cbor:"1,keyasint"`           // SHA-256 of its root block: the digest of its CID, 32 bytes
	Name       string   `cbor:"2,keyasint,omitempty"` // for people; what counts is the digest
	Version    string   `cbor:"3,keyasint,omitempty"`
	Withdraw   bool     `cbor:"4,keyasint,omitempty"`
	Why        string   `cbor:"5,keyasint,omitempty"`
	Credential [][]byte `cbor:"6,keyasint,omitempty"` // credential.Chain; empty for an operator
}

// Kind implements Body.
func (*ModuleReleaseBody) Kind() ledger.Kind { return ledger.KindModuleRelease }

// Encode implements Body.
func (b *ModuleReleaseBody) Encode() ([]byte, error) { return encode(b) }

func (b *ModuleReleaseBody) check() error {
	if len(b.Module) != 32 {
		return fmt.Errorf("module digest of %d bytes", len(b.Module))
	}
	if len(b.Credential) > 0 {
		if _, err := credential.DecodeChain(b.Credential); err != nil {
			return err
		}
	}
	return errors.Join(checkText("name", b.Name, 128), checkText("version", b.Version, 128), checkText("reason", b.Why, trust.MaxReason))
}

// Releaser is one whose word on a module counts.
type Releaser struct {
	DID        identity.DID
	Operator   bool // by its own word; otherwise under a credential
	Name       string
	Version    string
	Entry      string // id of its entry
	ReleasedAt time.Time
}

// ModuleRelease is what stands of one module's release.
type ModuleRelease struct {
	Module [32]byte
	// Root: k operators named it in the root chain; RootName is under which name ("module/sigma-base").
	Root     bool
	RootName string
	By       []Releaser // each once, sorted by DID
}

// Enough reports whether the root, or at least so many others, released it. Less than one is taken as one.
func (r ModuleRelease) Enough(releasers int) bool { return r.Root || len(r.By) >= max(releasers, 1) }

// Released says who released a module, by the SHA-256 of its root block, so that it stands now; ok is false where nobody
// did. It asks no clock: a credential must have been good when its holder spoke, and a revocation of credential or holder
// ends the release.
func (s *State) Released(module [32]byte) (r ModuleRelease, ok bool) {
	r, ok = s.released.made(s)[module]
	return r, ok
}

// ModuleReleases are all that stand, sorted by digest. The caller must not change what they hold.
func (s *State) ModuleReleases() []ModuleRelease {
	var out []ModuleRelease
	for _, r := range s.released.made(s) {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b ModuleRelease) int {
		return strings.Compare(hex.EncodeToString(a.Module[:]), hex.EncodeToString(b.Module[:]))
	})
	return out
}

// releaseFact is one release or withdrawal.
type releaseFact struct {
	word
	body   *ModuleReleaseBody
	chain  credential.Chain // nil: as an operator
	proved *proved
}

func (f *Fold) applyModuleRelease(e *ledger.Entry, b *ModuleReleaseBody) error {
	x := releaseFact{word: word{fact: factOf(e), seen: authorityHeads(e.Seen)}, body: b}
	if len(b.Credential) > 0 {
		chain, err := credential.DecodeChain(b.Credential)
		if err != nil {
			return fmt.Errorf("authority: %w", err)
		}
		x.chain, x.proved = chain, &proved{keys: make([]*composite.PublicKey, len(chain))}
	}
	most := trust.MaxReleases
	if x.chain != nil {
		most = trust.MaxReleasesEach
		if _, known := f.released[e.Author]; !known && len(f.released) >= trust.MaxReleasers {
			return fmt.Errorf("authority: module releases of more than %d authors: %w", trust.MaxReleasers, ErrFull)
		}
	}
	// Of each author the newest stay, whatever came first: nobody's words push out another's.
	list := insert(f.released[e.Author], x, func(x releaseFact) fact { return x.fact })
	f.released[e.Author] = list[max(0, len(list)-most):]
	f.publishOrders()
	if x.chain != nil && !f.quiet {
		if err := f.State().releases(x); err != nil {
			return fmt.Errorf("authority: %s %s of %s: %w: %w", e.Kind, e.ID(), e.Author.Short(), err, ErrVoid)
		}
	}
	return nil
}

// fillReleased hands the facts over; the maps of the fold go on changing, the lists do not.
func (f *Fold) fillReleased(s *State) {
	s.released = &released{frost: f.frost}
	for _, list := range f.released {
		s.released.facts = append(s.released.facts, list)
	}
}

// released is what was said of modules, and what follows from it in one state, when first asked for.
type released struct {
	facts [][]releaseFact // a list an author
	frost *frost

	once     sync.Once
	byModule map[[32]byte]ModuleRelease
}

func (r *released) made(s *State) map[[32]byte]ModuleRelease {
	r.once.Do(func() {
		r.byModule = make(map[[32]byte]ModuleRelease)
		for name, x := range s.root.Releases {
			if !strings.HasPrefix(name, "module/") {
				continue
			}
			m := r.byModule[[32]byte(x.SHA256)]
			if m.RootName == "" || name < m.RootName { // of two names of one module always the same
				m.RootName = name
			}
			m.Module, m.Root = [32]byte(x.SHA256), true
			r.byModule[m.Module] = m
		}
		var withdrawn []releaseFact
		for _, list := range r.facts {
			for _, x := range list {
				if x.body.Withdraw {
					withdrawn = append(withdrawn, x)
				}
			}
		}
		for _, list := range r.facts {
			said := make(map[[32]byte]bool)
			for _, x := range slices.Backward(list) {
				module := [32]byte(x.body.Module)
				if x.body.Withdraw || said[module] || s.releases(x) != nil || r.takenBack(x, withdrawn) {
					continue
				}
				said[module] = true
				m := r.byModule[module]
				m.Module = module
				m.By = append(m.By, Releaser{
					DID: x.by, Operator: x.chain == nil, Name: x.body.Name, Version: x.body.Version, Entry: x.id, ReleasedAt: time.Unix(0, x.time).UTC(),
				})
				r.byModule[module] = m
			}
		}
		for _, m := range r.byModule {
			slices.SortFunc(m.By, func(a, b Releaser) int { return strings.Compare(string(a.DID), string(b.DID)) })
		}
	})
	return r.byModule
}

// takenBack reports whether a withdrawal exists that x does not know of: its author's own, or an operator's. What forbids
// holds although its author be frozen, or its credential be over.
func (r *released) takenBack(x releaseFact, withdrawn []releaseFact) bool {
	return slices.ContainsFunc(withdrawn, func(w releaseFact) bool {
		mine := w.by == x.by || w.chain == nil && r.frost.counts(w.by, w.seq)
		return mine && slices.Equal(w.body.Module, x.body.Module) && !x.knows(w.by, w.seq)
	})
}

// releases says why a release does not count.
func (s *State) releases(x releaseFact) error {
	if x.chain == nil {
		if !s.released.frost.allows(x.fact) {
			return fmt.Errorf("%w: %s is no operator", credential.ErrIssuer, x.by.Short())
		}
		return nil
	}
	c, err := s.vouched(x.fact, x.chain, x.proved)
	if err != nil {
		return err
	}
	if !c.Allows(CapabilityModuleRelease, nil, 0) {
		return fmt.Errorf("%w: it does not allow %s", credential.ErrCredential, CapabilityModuleRelease)
	}
	return nil
}
