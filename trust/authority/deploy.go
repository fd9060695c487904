package authority

import (
	"crypto/sha256"
	"encoding/binary"
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

// What was released may run; a deployment says where it does. Of one author the last word on a module counts; those of
// several authors stand beside one another. Whoever undeploys takes back its own word, an operator everybody's. Nothing
// runs by a deployment whose module is not released.

// CapabilityModuleDeploy is what a credential must allow for a member's deployment to count: on the peers that it names,
// or on all where the deployment does not name them.
const CapabilityModuleDeploy = "module-deploy"

// DeployBody has a module run on some hosts. Of an operator, or a member with a credential.
type DeployBody struct {
	Module  []byte   `cbor:"1,keyasint"`           // SHA-256 of its root block: the digest of its CID, 32 bytes
	Name    string   `cbor:"2,keyasint,omitempty"` // for people; what counts is the digest
	Version string   `cbor:"3,keyasint,omitempty"`
	Roles   []string `cbor:"4,keyasint,omitempty"` // hosts that hold one of these, sorted
	Labels  []string `cbor:"5,keyasint,omitempty"` // hosts that call themselves one of these, sorted
	Peers   [][]byte `cbor:"6,keyasint,omitempty"` // hosts by the hash of their DID, 32 bytes each, sorted
	// Share is how many hundredths of those hosts, 1 to 99: a canary. 0 is all of them. Which they are follows from the
	// module and each host's DID.
	Share uint8 `cbor:"7,keyasint,omitempty"`
	// Shadow: what it finds is counted and held against what runs there under its name, and not told.
	Shadow     bool     `cbor:"8,keyasint,omitempty"`
	Why        string   `cbor:"9,keyasint,omitempty"`
	Credential [][]byte `cbor:"10,keyasint,omitempty"` // credential.Chain; empty for an operator
}

// UndeployBody ends the deployments of a module. Of an operator, or a member with a credential.
type UndeployBody struct {
	Module     []byte   `cbor:"1,keyasint"`
	Why        string   `cbor:"2,keyasint,omitempty"`
	Credential [][]byte `cbor:"3,keyasint,omitempty"`
}

// Kind implements Body.
func (*DeployBody) Kind() ledger.Kind { return ledger.KindModuleDeploy }

// Encode implements Body.
func (b *DeployBody) Encode() ([]byte, error) { return encode(b) }

// Kind implements Body.
func (*UndeployBody) Kind() ledger.Kind { return ledger.KindModuleUndeploy }

// Encode implements Body.
func (b *UndeployBody) Encode() ([]byte, error) { return encode(b) }

func (b *DeployBody) check() error {
	if b.Share > 99 {
		return fmt.Errorf("a share of %d hundredths: 1 to 99, or 0 for all", b.Share)
	}
	for what, list := range map[string][]string{"roles": b.Roles, "labels": b.Labels} {
		if len(list) == 0 {
			continue
		}
		if err := checkRoles(list); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if len(b.Peers) > trust.MaxCapabilityPeers {
		return fmt.Errorf("%d peers, at most %d", len(b.Peers), trust.MaxCapabilityPeers)
	}
	for i, p := range b.Peers {
		if len(p) != 32 || i > 0 && string(b.Peers[i-1]) >= string(p) {
			return errors.New("peers must be 32 bytes each, sorted, without repeats")
		}
	}
	return errors.Join(checkModule(b.Module, b.Credential), checkText("name", b.Name, 128), checkText("version", b.Version, 128), checkText("reason", b.Why, trust.MaxReason))
}

// Named are the hosts that a credential must allow it on: those it names, where it runs on no others; none is all hosts.
func (b *DeployBody) Named() (peers []identity.DID) {
	if len(b.Roles)+len(b.Labels) > 0 {
		return nil
	}
	for _, p := range b.Peers {
		peers = append(peers, identity.DIDFromBytes([32]byte(p)))
	}
	return peers
}

func (b *UndeployBody) check() error {
	return errors.Join(checkModule(b.Module, b.Credential), checkText("reason", b.Why, trust.MaxReason))
}

func checkModule(module []byte, chain [][]byte) error {
	if len(module) != 32 {
		return fmt.Errorf("module digest of %d bytes", len(module))
	}
	if len(chain) == 0 {
		return nil
	}
	_, err := credential.DecodeChain(chain)
	return err
}

// Deployment is where a module is to run, by one author's word. It is immutable.
type Deployment struct {
	Module   [32]byte
	Name     string
	Version  string
	Roles    []string
	Labels   []string
	Peers    []identity.DID
	Share    int // hundredths, 1 to 99; 0: all
	Shadow   bool
	Why      string
	By       identity.DID
	Operator bool   // by its own word; otherwise under a credential
	Entry    string // id of the entry
	At       time.Time
}

// Matches reports whether the deployment is for a host that holds these roles and calls itself these labels. One that
// names neither roles, labels nor peers is for every host.
func (d *Deployment) Matches(did identity.DID, roles, labels []string) bool {
	has := func(want, have []string) bool {
		return slices.ContainsFunc(want, func(w string) bool { return slices.Contains(have, w) })
	}
	all := len(d.Roles)+len(d.Labels)+len(d.Peers) == 0
	return (all || has(d.Roles, roles) || has(d.Labels, labels) || slices.Contains(d.Peers, did)) && (d.Share == 0 || int(d.draw(did)) < d.Share)
}

// draw is a host's number from 0 to 99 in the canary of this module: the same for every deployment of it, so that a
// larger share adds hosts and takes none away.
func (d *Deployment) draw(did identity.DID) uint32 {
	h := sha256.New()
	h.Write([]byte("omega/canary/1\x00"))
	h.Write(d.Module[:])
	h.Write([]byte(did))
	return binary.BigEndian.Uint32(h.Sum(nil)) % 100
}

// Deployments are all that stand, of modules that are released, oldest first. The caller must not change what they hold.
func (s *State) Deployments() []Deployment { return s.deployed.made(s) }

// deployFact is one deployment, or the end of some.
type deployFact struct {
	word
	body   *DeployBody // nil: an end
	module [32]byte
	chain  credential.Chain // nil: as an operator
	proved *proved
}

func (f *Fold) applyDeploy(e *ledger.Entry, body *DeployBody, module []byte, raw [][]byte) error {
	x := deployFact{word: word{fact: factOf(e), seen: authorityHeads(e.Seen)}, body: body, module: [32]byte(module)}
	most := trust.MaxReleases
	if len(raw) > 0 {
		chain, err := credential.DecodeChain(raw)
		if err != nil {
			return fmt.Errorf("authority: %w", err)
		}
		x.chain, x.proved = chain, &proved{keys: make([]*composite.PublicKey, len(chain))}
		most = trust.MaxReleasesEach
		if _, known := f.deployed[e.Author]; !known && len(f.deployed) >= trust.MaxReleasers {
			return fmt.Errorf("authority: deployments of more than %d authors: %w", trust.MaxReleasers, ErrFull)
		}
	}
	list := insert(f.deployed[e.Author], x, func(x deployFact) fact { return x.fact })
	f.deployed[e.Author] = list[max(0, len(list)-most):]
	f.publishOrders()
	if f.quiet {
		return nil
	}
	s := f.State()
	err := s.deploys(x)
	if err == nil && body != nil {
		if _, ok := s.Released(x.module); !ok {
			err = ErrUnreleased
		}
	}
	if err != nil {
		return fmt.Errorf("authority: %s %s of %s: %w: %w", e.Kind, e.ID(), e.Author.Short(), err, ErrVoid)
	}
	return nil
}

// ErrUnreleased: a module that nobody who may has released does not run.
var ErrUnreleased = errors.New("the module is not released")

func (f *Fold) fillDeployed(s *State) {
	s.deployed = &deployed{frost: f.frost}
	for _, list := range f.deployed {
		s.deployed.facts = append(s.deployed.facts, list)
	}
}

// deployed is what was said of where modules run, and what follows from it in one state, when first asked for.
type deployed struct {
	facts [][]deployFact // a list an author
	frost *frost

	once   sync.Once
	stands []Deployment
}

func (d *deployed) made(s *State) []Deployment {
	d.once.Do(func() {
		var ends []deployFact
		for _, list := range d.facts {
			for _, x := range list {
				if x.body == nil {
					ends = append(ends, x)
				}
			}
		}
		for _, list := range d.facts {
			said := make(map[[32]byte]bool)
			for _, x := range slices.Backward(list) {
				if x.body == nil || said[x.module] || s.deploys(x) != nil || d.ended(x, ends) {
					continue
				}
				said[x.module] = true
				if _, ok := s.Released(x.module); ok {
					d.stands = append(d.stands, x.deployment())
				}
			}
		}
		slices.SortFunc(d.stands, func(a, b Deployment) int {
			if c := a.At.Compare(b.At); c != 0 {
				return c
			}
			return strings.Compare(a.Entry, b.Entry)
		})
	})
	return d.stands
}

func (x deployFact) deployment() Deployment {
	b := x.body
	out := Deployment{
		Module: x.module, Name: b.Name, Version: b.Version, Roles: b.Roles, Labels: b.Labels, Share: int(b.Share), Shadow: b.Shadow, Why: b.Why,
		By: x.by, Operator: x.chain == nil, Entry: x.id, At: time.Unix(0, x.time).UTC(),
	}
	for _, p := range b.Peers {
		out.Peers = append(out.Peers, identity.DIDFromBytes([32]byte(p)))
	}
	return out
}

// ended reports whether an end exists that x does not know of: its author's own, or an operator's. What forbids holds
// although its author be frozen, or its credential be over.
func (d *deployed) ended(x deployFact, ends []deployFact) bool {
	return slices.ContainsFunc(ends, func(w deployFact) bool {
		mine := w.by == x.by || w.chain == nil && d.frost.counts(w.by, w.seq)
		return mine && w.module == x.module && !x.knows(w.by, w.seq)
	})
}

// deploys says why a deployment, or the end of some, does not count.
func (s *State) deploys(x deployFact) error {
	if x.chain == nil {
		if !s.deployed.frost.allows(x.fact) {
			return fmt.Errorf("%w: %s is no operator", credential.ErrIssuer, x.by.Short())
		}
		return nil
	}
	c, err := s.vouched(x.fact, x.chain, x.proved)
	if err != nil {
		return err
	}
	if x.body == nil { // who may deploy somewhere may take its own word back
		if !slices.ContainsFunc(c.Capabilities, func(k credential.Capability) bool { return k.Action == CapabilityModuleDeploy }) {
			return fmt.Errorf("%w: it does not allow %s", credential.ErrCredential, CapabilityModuleDeploy)
		}
		return nil
	}
	if !c.Allows(CapabilityModuleDeploy, x.body.Named(), 0) {
		return fmt.Errorf("%w: it does not allow %s there", credential.ErrCredential, CapabilityModuleDeploy)
	}
	return nil
}
