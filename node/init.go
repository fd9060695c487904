package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Errors a caller may decide on.
var (
	// ErrInitialised says that the state folder holds a swarm's member already.
	ErrInitialised = errors.New("this state folder belongs to a swarm already")
	// ErrNotInitialised says that the state folder holds no identity or no swarm.
	ErrNotInitialised = errors.New("this state folder belongs to no swarm")
	// ErrSuite says that the identity here has keys of another suite than was asked for, or than the swarm's.
	ErrSuite = errors.New("another cryptographic suite")
	// ErrLocked says that another node runs on the state folder.
	ErrLocked = errors.New("another node runs on this state folder")
)

// InitOptions say what Init makes.
type InitOptions struct {
	// Name is the peer's name in the swarm, at most 63 bytes; empty takes the host's name.
	Name string
	// Swarm names a swarm to found, whose one operator this host's operator identity is; empty makes an identity only.
	Swarm string
	// K is how many of the swarm's operators a change of its root takes; Operators how many there are. The first is this
	// host's; the others are those of Inceptions, and where they are fewer the rest are made in operator-2, operator-3, ...
	// of the folder, to be carried elsewhere. Zero is one of one.
	K, Operators int
	Inceptions   [][]byte
	// Recovery is how many recovery keys are made, in recovery/recovery-1.key, recovery-2.key, ...; more than half of them must sign.
	Recovery int
	// Roles are those the founder's node is granted, sorted; used where Swarm is set.
	Roles []string
	// Suite is the cryptographic suite of the keys, and of the swarm founded, for good; zero is trust.SuiteDefault.
	Suite trust.Suite
	// NextKey is the folder for the pre-rotated next key; empty is the one beside the state folder.
	NextKey string
	// Passphrase protects both private keys (Argon2id); empty leaves key files that a daemon can read unattended.
	Passphrase []byte
	// Store keeps the node's own key instead; Passphrase is then the next key's, and the operator's, whom no machine's
	// state may lock out.
	Store identity.Store
	// Random makes the keys; nil is crypto/rand. Entropy gives one.
	Random io.Reader
}

// Initialised is what Init made.
type Initialised struct {
	Dir        string   `json:"dir"`
	DID        string   `json:"did"`
	Name       string   `json:"name"`
	Swarm      string   `json:"swarm,omitempty"` // id, hex
	SwarmName  string   `json:"swarm_name,omitempty"`
	Operator   string   `json:"operator,omitempty"` // DID
	K          int      `json:"k,omitempty"`
	Operators  []string `json:"operators,omitempty"`  // DIDs, this host's first
	Carry      []string `json:"carry_away,omitempty"` // what was made here and must not stay: folders and files
	RecoveryK  int      `json:"recovery_k,omitempty"`
	Roles      []string `json:"roles,omitempty"`
	Suite      string   `json:"suite"`      // "default" or "cnsa"
	Protection string   `json:"protection"` // "file", "passphrase", "tpm" or "pkcs11"
}

// Init makes this host's identity in dir, and founds a swarm when told its name: the operator's identity, the genesis,
// and the operator's first entry, which makes this node a member. An identity that is there already is kept, so that
// an Init without a swarm may be followed by one with.
func Init(dir string, opt InitOptions) (*Initialised, error) {
	if opt.Suite == 0 {
		opt.Suite = trust.SuiteDefault
	}
	l := Layout{dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	unlock, err := lock(l.Lock())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := os.Lstat(l.Genesis()); err == nil {
		return nil, fmt.Errorf("%s: %w", dir, ErrInitialised)
	}
	self, err := openOrCreate(l, opt.Name, opt.NextKey, opt.Suite, opt.Passphrase, opt.Store, opt.Random)
	if err != nil {
		return nil, err
	}
	defer self.Close()
	out := &Initialised{Dir: dir, DID: string(self.DID()), Name: self.Inception().Name, Suite: self.Suite().Name(), Protection: self.Protection().String()}
	if opt.Swarm == "" {
		return out, nil
	}
	if err := identity.CheckName(opt.Swarm); err != nil {
		return nil, err
	}
	op, err := identity.Open(l.Operator(), identity.Options{Passphrase: opt.Passphrase})
	if errors.Is(err, identity.ErrNone) {
		op, err = identity.Create(l.Operator(), identity.Options{Name: clip("operator-" + self.Inception().Name), Suite: opt.Suite, Passphrase: opt.Passphrase, Random: opt.Random})
	}
	if err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	defer op.Close()
	g, carry, err := genesis(l, op.Inception(), opt)
	if err != nil {
		return nil, err
	}
	out.K, out.Carry, out.RecoveryK = g.Threshold, carry, g.RecoveryK
	for _, o := range g.Operators {
		out.Operators = append(out.Operators, string(o.DID()))
	}
	if err := found(l, g, op, self, opt.Roles); err != nil {
		return nil, err
	}
	out.Roles = opt.Roles
	out.Swarm, out.SwarmName, out.Operator = g.SwarmID().String(), g.Name, string(op.DID())
	return out, nil
}

// found writes the operator's first entries, by which this node is a member and holds its roles, then the genesis: where
// the genesis is, everything is.
func found(l Layout, g *authority.Genesis, op, self *identity.Identity, roles []string) error {
	did, err := self.DID().Bytes()
	if err != nil {
		return err
	}
	bodies := []authority.Body{&authority.MemberBody{Inception: self.Inception().Encode()}}
	if len(roles) > 0 {
		bodies = append(bodies, &authority.GrantBody{Subject: did[:], Roles: roles})
	}
	var raws [][]byte
	var prev ledger.Hash
	for seq, b := range bodies {
		body, err := b.Encode()
		if err != nil {
			return err
		}
		raw, err := ledger.SignEntry(op, g.SwarmID(), uint64(seq), prev, b.Kind(), body, time.Now())
		if err != nil {
			return err
		}
		e, err := ledger.Decode(raw)
		if err != nil {
			return err
		}
		prev = e.Hash()
		raws = append(raws, raw)
	}
	if err := store(l, g, raws); err != nil {
		return fmt.Errorf("found the swarm: %w", err)
	}
	return nil
}

// store puts entries into the ledger of a folder whose node is not running, and then the genesis beside it.
func store(l Layout, g *authority.Genesis, entries [][]byte) error {
	fold := authority.NewFold(g)
	led, err := ledger.Open(l.Ledger(), g.SwarmID(), nil, fold, ledger.Options{OnEntry: func(e *ledger.Entry) { _ = fold.Apply(e) }})
	if err != nil {
		return err
	}
	defer led.Close()
	for _, raw := range entries {
		if _, err := led.Submit(context.Background(), raw); err != nil && !errors.Is(err, ledger.ErrDuplicate) {
			return err
		}
	}
	if err := led.Close(); err != nil {
		return err
	}
	return writeFile(l.Genesis(), g.Encode(), 0o644)
}

// ReadBounded reads a file of at most limit bytes.
func ReadBounded(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(raw) > limit {
		err = fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return raw, err
}

// openOrCreate opens the node's identity, which must be of suite, or makes it.
func openOrCreate(l Layout, name, next string, suite trust.Suite, passphrase []byte, store identity.Store, random io.Reader) (*identity.Identity, error) {
	self, err := identity.Open(l.Identity(), identity.Options{Passphrase: passphrase, Store: store})
	if !errors.Is(err, identity.ErrNone) {
		if err == nil && self.Suite() != suite {
			_ = self.Close()
			return nil, fmt.Errorf("%s: its keys are of suite %s, not %s: %w; it belongs to no swarm yet: `omega leave --wipe` removes it", l.Identity(), self.Suite().Name(), suite.Name(), ErrSuite)
		}
		return self, err
	}
	if name == "" {
		name = hostName()
	}
	if store != nil && len(passphrase) == 0 && next == "" {
		return nil, ErrNoWayBack
	}
	self, err = identity.Create(l.Identity(), identity.Options{Name: name, Suite: suite, Passphrase: passphrase, Store: store, NextDir: NextDir(l.Dir, next), Random: random})
	if err != nil {
		return nil, err
	}
	if err := endorse(self, store); err != nil {
		_ = self.Close()
		return nil, err
	}
	return self, nil
}

// hostName is the host's name as a peer's name: what a name may not hold becomes a dash.
func hostName() string {
	h, err := os.Hostname()
	if err != nil || h == "" {
		return "host"
	}
	h, _, _ = strings.Cut(h, ".")
	h = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, h)
	if h = clip(strings.TrimLeft(h, "-_")); h == "" {
		return "host"
	}
	return h
}

func clip(name string) string { return name[:min(len(name), trust.MaxName)] }

// loadGenesis reads which swarm the folder belongs to.
func loadGenesis(l Layout) (*authority.Genesis, error) {
	raw, err := ReadBounded(l.Genesis(), trust.MaxGenesis)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", l.Dir, ErrNotInitialised)
	}
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	g, err := authority.DecodeGenesis(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.Genesis(), err)
	}
	return g, nil
}

// Wipe removes everything a node keeps in dir: keys are overwritten first. The node must not be running. What it does
// not know it leaves, and quarantined files, which are the host's; the folder itself goes when that leaves it empty.
func Wipe(dir string) error {
	l := Layout{dir}
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := lock(l.Lock())
	if err != nil {
		return err
	}
	defer unlock()
	more, err := filepath.Glob(l.Operator() + "-*")
	if err != nil {
		return err
	}
	more = append(more, l.Recovery())
	for _, keys := range append([]string{l.Identity(), l.Operator(), l.Next(), l.NextInside()}, more...) {
		if err := overwrite(keys); err != nil {
			return fmt.Errorf("wipe %s: %w", keys, err)
		}
	}
	if _, err := releaseHeld(dir); err != nil { // without its record nobody would know which files to free
		return fmt.Errorf("wipe: %w", err)
	}
	var errs []error
	for _, p := range append(more, l.Held(), l.Genesis(), l.Identity(), l.Operator(), l.Next(), l.NextInside(), l.Ledger(), l.Swarm(), l.Journal(), l.Modules(), l.Held(), l.Indicators(), l.Baseline(), l.Allowed(), l.PanicMark(), l.Socket(), l.Emergency(), l.Config(), l.Lock()) {
		errs = append(errs, os.RemoveAll(p))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("wipe: %w", err)
	}
	_ = os.Remove(dir) // stays where something else lies in it
	return nil
}

// overwrite fills every small file below dir with zeros. On flash and copy-on-write file systems that is best effort;
// a passphrase is what protects a key there.
func overwrite(dir string) error {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() > 1<<16 {
			return err
		}
		f, err := root.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.Write(make([]byte, info.Size())); err != nil {
			return err
		}
		return f.Sync()
	})
}

// writeFile puts data at path so that a crash leaves the old file or the new one.
func writeFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(data); err == nil {
		if err = f.Chmod(mode); err == nil {
			err = f.Sync()
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
