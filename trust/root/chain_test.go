package root

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
)

// A scenario is a picture. Each line is a path; a name that was seen before begins a branch there:
//
//	G -> A -> B:revoke:n1 -> C
//	     A -> D:revoke:n2@12
//	          B -> R:recover:A@r
//
// G is genesis. After the colons come the kind and its arguments, after "@" the signers: digits are the operators of
// genesis, small letters the recovery keys' first, second, ... "r" and "s". Without a kind an entry is a release named
// like it; without signers the first k operators sign. A trailing "!" or "?" makes an unknown kind, critical or not.
type scene struct {
	t        *testing.T
	anchor   Anchor
	ids      map[string]*identity.Identity
	recovery []*RecoveryKey
	entries  map[string]*Entry
	order    []*Entry
	parents  map[string]string
}

func newScene(t *testing.T, k, n int, recovery ...*RecoveryKey) *scene {
	t.Helper()
	s := &scene{t: t, ids: make(map[string]*identity.Identity), recovery: recovery, entries: make(map[string]*Entry), parents: make(map[string]string)}
	s.anchor = Anchor{Swarm: sha256.Sum256([]byte(t.Name())), Suite: trust.SuiteDefault, Created: 1000, K: k, RecoveryK: len(recovery)/2 + min(len(recovery), 1)}
	for i := range n {
		s.anchor.Operators = append(s.anchor.Operators, s.id(fmt.Sprint("op", i)).Inception())
	}
	if len(recovery) == 0 {
		s.anchor.RecoveryK = 0
	}
	for _, r := range recovery {
		s.anchor.Recovery = append(s.anchor.Recovery, r.Public())
	}
	return s
}

// fresh is an empty scene of the same people: keys cost more than pictures.
func (s *scene) fresh() *scene {
	return &scene{t: s.t, anchor: s.anchor, ids: s.ids, recovery: s.recovery, entries: make(map[string]*Entry), parents: make(map[string]string)}
}

func recoveryKeys(t *testing.T, n int) []*RecoveryKey {
	t.Helper()
	var out []*RecoveryKey
	for range n {
		k, err := GenerateRecovery(nil)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if k, err = ParseRecovery(raw); err != nil {
			t.Fatal(err)
		}
		out = append(out, k)
	}
	return out
}

func (s *scene) id(name string) *identity.Identity {
	s.t.Helper()
	if id := s.ids[name]; id != nil {
		return id
	}
	id, err := identity.Create(filepath.Join(s.t.TempDir(), name), identity.Options{Name: name})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = id.Close() })
	s.ids[name] = id
	return id
}

func (s *scene) did(name string) identity.DID { return s.id(name).DID() }

func (s *scene) hash(name string) []byte {
	b, err := s.did(name).Bytes()
	if err != nil {
		s.t.Fatal(err)
	}
	return b[:]
}

// draw makes the entries of a picture. What is not valid where it stands is made all the same.
func (s *scene) draw(picture string) *scene {
	s.t.Helper()
	for line := range strings.Lines(picture) {
		at := ""
		for i, token := range strings.Split(strings.TrimSpace(line), "->") {
			token = strings.TrimSpace(token)
			if token == "" {
				continue
			}
			name, _, _ := strings.Cut(strings.TrimRight(strings.SplitN(token, "@", 2)[0], "!?"), ":")
			if i == 0 && (name == "G" || s.entries[name] != nil) {
				at = name
				continue
			}
			s.entry(at, name, token)
			at = name
		}
	}
	return s
}

// state is the state of the path to a drawn entry, as its proposer would have it.
func (s *scene) state(name string) *State {
	if name == "G" {
		return genesisState(s.anchor)
	}
	e := s.entries[name]
	before := s.state(s.parents[name])
	next, err := before.after(e)
	if err != nil { // a proposer of nonsense counts on
		bad := *before
		bad.Seq, bad.Head, bad.Time = e.Seq, e.hash, e.Time
		return &bad
	}
	return next
}

func (s *scene) entry(parent, name, token string) {
	s.t.Helper()
	what, signers, signed := strings.Cut(token, "@")
	before := s.state(parent)
	var e *Entry
	var err error
	now := before.Time + 10
	switch {
	case strings.HasSuffix(what, "!"), strings.HasSuffix(what, "?"):
		e, err = newEntry(before.Swarm, before.Seq+1, before.Head, now, 999, strings.HasSuffix(what, "!"), []byte{})
	default:
		e, err = New(before, s.body(name, strings.Split(what, ":")), now)
	}
	if err != nil {
		s.t.Fatalf("%s: %v", token, err)
	}
	if !signed {
		for i := range before.K {
			signers += strconv.Itoa(i)
		}
	}
	for _, c := range signers {
		switch {
		case c == '-':
		case c >= 'r':
			e, err = e.Recover(s.recovery[c-'r'])
		default:
			e, err = e.SignedBy(s.id("op" + string(c)))
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	raw, err := e.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	if e, err = Decode(raw); err != nil {
		s.t.Fatal(err)
	}
	s.entries[name], s.parents[name] = e, parent
	s.order = append(s.order, e)
}

func (s *scene) body(name string, words []string) Body {
	s.t.Helper()
	arg := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	number := func(i, otherwise int) int {
		if n, err := strconv.Atoi(arg(i)); err == nil {
			return n
		}
		return otherwise
	}
	switch arg(1) {
	case "add":
		return &Add{Inception: s.id(arg(2)).Inception().Encode(), K: uint8(number(3, 2))}
	case "remove":
		return &Remove{Operator: s.hash(arg(2)), K: uint8(number(3, 2)), Authority: uint64(number(4, 0))}
	case "rotate":
		return &Rotate{Operator: s.hash(arg(2)), Inception: s.id(arg(3)).Inception().Encode(), Authority: uint64(number(4, 0))}
	case "issuers":
		return &Issuers{List: []Issuer{{DID: s.hash(arg(2)), Capabilities: []string{arg(3)}}}}
	case "revoke":
		return &Revoke{Subject: s.hash(arg(2)), Authority: uint64(number(3, 0)), Activity: uint64(number(4, 0)), Why: name}
	case "unrevoke":
		return &Unrevoke{Subject: s.hash(arg(2)), Why: name}
	case "policy":
		return &Policy{Text: arg(2)}
	case "retire":
		h := sha256.Sum256([]byte(arg(2)))
		return &Retire{Successor: h[:], Suite: 2}
	case "recover":
		common := s.anchor.Swarm[:]
		if arg(2) != "G" {
			h := s.entries[arg(2)].Hash()
			common = h[:]
		}
		r := &Recover{Common: common, Round: uint32(number(3, 1))}
		for _, w := range words[min(len(words), 4):] {
			r.K = 2
			if out, ok := strings.CutPrefix(w, "-"); ok {
				r.Remove = append(r.Remove, Removal{Operator: s.hash(out)})
			} else {
				r.Add = append(r.Add, s.id(w).Inception().Encode())
			}
		}
		slices.SortFunc(r.Remove, func(a, b Removal) int { return bytes.Compare(a.Operator, b.Operator) })
		return r
	}
	h := sha256.Sum256([]byte(name))
	return &Release{Name: name, SHA256: h[:]}
}

// grown is a tree of the entries in the order given.
func (s *scene) grown(entries ...*Entry) *Tree {
	tree := NewTree(s.anchor)
	for i, e := range entries {
		_, _ = tree.Add(e, s.did(fmt.Sprint("carrier", i%2)))
	}
	return tree
}

// stands spells the chain of a tree that holds everything drawn, and whether it is frozen.
func (s *scene) stands() string {
	tree := s.grown(s.order...)
	out := "G"
	for _, e := range tree.Chain() {
		for name, x := range s.entries {
			if x.hash == e.hash {
				out += " " + name
			}
		}
	}
	if f := tree.State().Frozen; f != nil {
		out += " " + string(f.Cause)
	}
	return out
}
