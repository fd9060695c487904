package integrity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"lukechampine.com/blake3"

	"github.com/omega-mesh/omega/swarm/event"
)

// kept is a keeper at work on a folder of its own.
type kept struct {
	*Keeper
	t    *testing.T
	dir  string // watched
	file string
	stop func()
	seq  uint64
	last *event.Baseline // signed
}

// keep starts one, as a node would: it is told what was signed last.
func keep(t *testing.T, dir, file string, signed [32]byte) (*kept, *event.Baseline) {
	t.Helper()
	k, err := OpenKeeper(KeeperOptions{File: file, Paths: []string{dir}, Exclude: []string{dir + "/left"}, Share: 1, Quiet: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	word, err := k.Begin(signed)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	x := &kept{Keeper: k, t: t, dir: dir, file: file, stop: func() {
		if cancel(); !errors.Is(<-done, context.Canceled) {
			t.Error("the keeper ended by itself")
		}
	}}
	return x, word
}

// sign waits for a word, signs it and what follows at once, and gives the last and the changes told up to then.
func (k *kept) sign() (*event.Baseline, []Told) {
	k.t.Helper()
	var told []Told
	for {
		n, err := k.News(k.t.Context(), k.seq)
		if err != nil {
			k.t.Fatal(err)
		}
		for _, c := range n.Changes {
			k.seq = c.Seq
			told = append(told, c)
		}
		if n.Sign == nil {
			continue
		}
		if k.last != nil && !n.Sign.Follows(k.last) {
			k.t.Errorf("%+v does not follow %+v", n.Sign, k.last)
		}
		if err := k.Commit(n.Sign.File); err != nil {
			k.t.Fatal(err)
		}
		if k.last = n.Sign; !k.Status().Unsigned {
			return n.Sign, told
		}
	}
}

func (k *kept) look(paths ...string) Report {
	k.t.Helper()
	r, err := k.Look(k.t.Context(), paths)
	if err != nil {
		k.t.Fatal(err)
	}
	return r
}

func named(changes []Change) (out []string) {
	for _, c := range changes {
		out = append(out, filepath.Base(c.Path)+" "+c.What)
	}
	return out
}

// The life of a baseline: taken, changed before its eyes, changed while it was away, accepted, and changed behind its back.
func TestKeeper(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "baseline")
	for _, name := range []string{"a", "b", "c"} {
		put(t, filepath.Join(dir, name), name)
	}
	k, word := keep(t, dir, file, [32]byte{})
	if word != nil {
		t.Fatalf("before there is anything: %+v", word)
	}
	first, told := k.sign()
	if first.Why != event.BaselineTaken || first.Before != [32]byte{} || first.Entries != 4 || len(told) != 0 {
		t.Fatalf("%+v, %v", first, told)
	}

	// Seen once, and again only when it changes again.
	put(t, dir+"/a", "A")
	if r := k.look(dir + "/a"); fmt.Sprint(named(r.Changes)) != "[a content]" || len(r.Busy) != 0 {
		t.Errorf("%+v", r)
	}
	if r := k.look(dir+"/a", dir+"/b", dir+"/left", "/etc/passwd", "relative"); len(r.Changes) != 0 {
		t.Errorf("told twice, or of what is not watched: %+v", r)
	}
	// A folder that comes and goes brings what is in it.
	if err := os.MkdirAll(dir+"/new/deep", 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, dir+"/new/deep/x", "x")
	if r := k.look(dir + "/new"); fmt.Sprint(named(r.Changes)) != "[new added deep added x added]" {
		t.Errorf("%v", named(r.Changes))
	}
	if err := os.RemoveAll(dir + "/new"); err != nil {
		t.Fatal(err)
	}
	if r := k.look(dir + "/new"); fmt.Sprint(named(r.Changes)) != "[new removed deep removed x removed]" {
		t.Errorf("%v", named(r.Changes))
	}
	second, _ := k.sign()
	if second.Why != event.BaselineChanged || second.Differ != 1 || second.Root != first.Root || second.Standing == first.Standing {
		t.Errorf("%+v", second)
	}
	k.stop()

	// While it is away: a scan finds it, and nobody knows who did it. What was told before is not told again.
	put(t, dir+"/b", "B")
	k, word = keep(t, dir, file, second.File)
	if word == nil || word.Why != event.BaselineLoaded || !word.Follows(second) || word.Root != second.Root {
		t.Fatalf("%+v", word)
	}
	third, told := k.sign()
	if len(told) != 1 || told[0].Path != dir+"/b" || told[0].What != "content" || told[0].From == 0 || told[0].To <= told[0].From {
		t.Errorf("%+v", told)
	}
	if got := named(k.Differences("", 10)); fmt.Sprint(got) != "[a content b content]" {
		t.Errorf("%v", got)
	}
	if n := k.Accept([]string{dir + "/a"}, "uid 0"); n != 1 {
		t.Errorf("accepted %d", n)
	}
	fourth, _ := k.sign()
	if fourth.Why != event.BaselineAccepted || fourth.By != "uid 0" || fourth.Root == third.Root || fourth.Differ != 1 {
		t.Errorf("%+v", fourth)
	}
	k.stop()

	// Whoever changes a file and the stored baseline with it gives it another digest.
	put(t, dir+"/c", "evil")
	s, _, err := load(file)
	if err != nil {
		t.Fatal(err)
	}
	now := take(t, dir, nil)
	*s.Accepted.find(dir + "/c") = *now.find(dir + "/c")
	store(t, file, s)
	k, word = keep(t, dir, file, fourth.File)
	if word == nil || word.Follows(fourth) || word.Root == fourth.Root {
		t.Errorf("the peers would not notice: %+v", word)
	}
	k.stop()
}

func store(t *testing.T, file string, s *State) [32]byte {
	t.Helper()
	var b bytes.Buffer
	digest, err := s.Write(&b)
	if err != nil {
		t.Fatal(err)
	}
	put(t, file, b.String())
	return digest
}

// A host that dies between storing and signing, or between signing and putting in place, says nothing that does not follow.
func TestKeeperDies(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "baseline")
	put(t, dir+"/a", "a")
	k, _ := keep(t, dir, file, [32]byte{})
	first, _ := k.sign()
	put(t, dir+"/a", "b")
	k.look(dir + "/a")
	var second *event.Baseline
	for second == nil {
		n, err := k.News(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		second = n.Sign
	}
	k.stop()
	next, err := os.ReadFile(file + ".new")
	if err != nil {
		t.Fatal(err)
	}
	// Not signed: the old one is in force, and the change is found again.
	k, word := keep(t, dir, file, first.File)
	if word == nil || !word.Follows(first) || word.File != first.File {
		t.Errorf("%+v", word)
	}
	if _, told := k.sign(); len(told) != 1 {
		t.Errorf("%+v", told)
	}
	k.stop()
	// Signed: the new one is.
	if err := os.WriteFile(file+".new", next, 0o600); err != nil {
		t.Fatal(err)
	}
	k, word = keep(t, dir, file, second.File)
	if word == nil || !word.Follows(second) {
		t.Errorf("%+v", word)
	}
	k.stop()
	if _, err := os.Stat(file + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it was not put in its place:", err)
	}
	// Damaged, or gone.
	if err := os.Truncate(file, 100); err != nil {
		t.Fatal(err)
	}
	k, word = keep(t, dir, file, second.File)
	if word == nil || word.Follows(second) {
		t.Errorf("%+v", word)
	}
	if taken, _ := k.sign(); taken.Why != event.BaselineTaken || taken.Follows(second) {
		t.Errorf("%+v", taken)
	}
	k.stop()
}

// A file that a process holds open to write is not done with.
func TestBusyWhileOpenToWrite(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "baseline")
	put(t, dir+"/a", "a")
	k, _ := keep(t, dir, file, [32]byte{})
	defer k.stop()
	k.sign()
	f, err := os.OpenFile(dir+"/a", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := k.look(dir + "/a")
	if len(r.Busy) == 0 {
		f.Close()
		t.Skip("this file system has no leases")
	}
	if len(r.Changes) != 0 {
		t.Errorf("%v", named(r.Changes))
	}
	if _, err := f.WriteString("b"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if r := k.look(dir + "/a"); len(r.Busy) != 0 || len(r.Changes) != 1 {
		t.Errorf("%+v", r)
	}
}

// A file that is hidden by another one mounted on it has changed.
func TestHiddenByAMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "baseline")
	put(t, dir+"/a", "a")
	put(t, file+".other", "hidden")
	k, _ := keep(t, dir, file, [32]byte{})
	defer k.stop()
	k.sign()
	if err := unix.Mount(file+".other", dir+"/a", "", unix.MS_BIND, ""); err != nil {
		t.Skip("no mounts here:", err)
	}
	defer unix.Unmount(dir+"/a", unix.MNT_DETACH)
	if r := k.look(dir + "/a"); fmt.Sprint(named(r.Changes)) != "[a content]" {
		t.Errorf("%v", named(r.Changes))
	}
}

// A scan under another configuration tells of no change that is the configuration's.
func TestOtherPaths(t *testing.T) {
	root, file := t.TempDir(), filepath.Join(t.TempDir(), "baseline")
	a, b := root+"/a", root+"/b"
	for _, d := range []string{a, b} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, d+"/x", d)
	}
	k, _ := keep(t, a, file, [32]byte{})
	first, _ := k.sign()
	k.stop()
	k, word := keep(t, b, file, first.File)
	defer k.stop()
	if word == nil || !word.Follows(first) {
		t.Fatalf("%+v", word)
	}
	second, told := k.sign()
	if len(told) != 0 || second.Entries != 2 || second.Differ != 0 || second.Root == first.Root {
		t.Errorf("%+v, %+v", second, told)
	}
}

// random gives a state of n paths.
func random(r *rand.Rand, n int) *State {
	s := &State{Time: r.Int64(), Paths: []string{"/w"}, Exclude: []string{"/w/x"}, Standing: map[string]*Entry{}}
	for i := range n {
		e := Entry{Path: fmt.Sprintf("/w/%06d", i), Mode: 0o100644, UID: r.Uint32(), Size: r.Int64(), Inode: r.Uint64(), Changed: r.Int64()}
		if r.IntN(4) == 0 {
			e.Mode, e.Target = 0o120777, strings.Repeat("t", r.IntN(9))
		} else {
			e.Digest[r.IntN(32)] = byte(1 + r.IntN(255))
		}
		switch r.IntN(6) {
		case 0:
			s.Standing[e.Path] = &e // not there before
			continue
		case 1:
			s.Standing[e.Path] = nil // gone
		case 2:
			now := e
			now.UID++
			s.Standing[e.Path] = &now
		}
		s.Accepted.Entries = append(s.Accepted.Entries, e)
	}
	return s
}

// Whatever is stored comes back, and what was seen differs from what is to be by what stands, and by nothing else; once all
// is accepted it differs in nothing.
func TestStatesComeBack(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 60 {
		s := random(r, n)
		var b bytes.Buffer
		digest, err := s.Write(&b)
		if err != nil {
			t.Fatal(err)
		}
		again, read, err := Read(bytes.NewReader(b.Bytes()))
		if err != nil || read != digest {
			t.Fatal(err)
		}
		if again.Accepted.Root() != s.Accepted.Root() || again.StandingRoot() != s.StandingRoot() || again.Time != s.Time {
			t.Fatal("another state came back")
		}
		seen := &Baseline{Entries: again.seen()}
		changes := Compare(&again.Accepted, seen)
		if len(changes) != len(s.Standing) {
			t.Fatalf("%d changes, %d stand", len(changes), len(s.Standing))
		}
		for _, c := range changes {
			if _, ok := s.Standing[c.Path]; !ok {
				t.Fatalf("%s does not stand", c.Path)
			}
		}
		// Compare turned round tells of the same paths.
		if back := Compare(seen, &again.Accepted); len(back) != len(changes) {
			t.Fatalf("%d one way, %d the other", len(changes), len(back))
		}
		again.accept(func(string) bool { return true })
		if len(Compare(&again.Accepted, seen)) != 0 || again.Accepted.Root() != seen.Root() {
			t.Fatal("accepted, and it still differs")
		}
		// Any other byte is another state, or none.
		raw := b.Bytes()
		raw[r.IntN(len(raw))] ^= 1 << r.IntN(8)
		if _, _, err := Read(bytes.NewReader(raw)); !errors.Is(err, ErrFormat) {
			t.Fatalf("a changed file reads: %v", err)
		}
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if _, err := random(rand.New(rand.NewPCG(3, 4)), 5).Write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		// The digest keeps chance out: with a right one the decoder is reached to its end.
		for _, in := range [][]byte{raw, sealed(raw)} {
			s, digest, err := Read(bytes.NewReader(in))
			if err != nil {
				if !errors.Is(err, ErrFormat) {
					t.Fatal(err)
				}
				continue
			}
			var again bytes.Buffer
			if d, err := s.Write(&again); err != nil || d != digest || !bytes.Equal(again.Bytes(), in) {
				t.Fatalf("what was read is written otherwise: %v", err)
			}
		}
		if e, err := ReadEntry(raw); err == nil && !bytes.Equal(AppendEntry(nil, e), raw) {
			t.Fatal("an entry is written otherwise")
		}
	})
}

// sealed puts the right digest behind bytes.
func sealed(raw []byte) []byte {
	sum := blake3.Sum256(raw)
	return append(bytes.Clone(raw), sum[:]...)
}
