package learn

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/rng"
)

func smallFile(t testing.TB) *File {
	t.Helper()
	f := &File{Header: Header{Seed: 7, Steps: 9}}
	for i, half := range []bool{true, false} {
		n, err := NewNetwork(Shape{3, 64, 64, 2}, 2, 1, rng.New(uint64(i)))
		if err != nil {
			t.Fatal(err)
		}
		f.Put([]string{defenderName, "learned-1"}[i], n, half)
	}
	return f
}

func TestFileRoundTrip(t *testing.T) {
	f := smallFile(t)
	b, err := f.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.MarshalBinary()
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("read and written again it is another file: %v", err)
	}
	if n, ok := got.Find(defenderName); !ok || n.flat[0] != f.Networks[0].rounded().flat[0] {
		t.Error("the defender is another one")
	}
	if _, err := got.Defender(cage2.Later); err == nil {
		t.Error("a network of another shape is taken for a defender")
	}
	if _, err := Resume(got); !errors.Is(err, ErrDamaged) {
		t.Errorf("finished weights are taken for a checkpoint: %v", err)
	}
}

func TestDamagedFiles(t *testing.T) {
	b, err := smallFile(t).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	refused := func(name string, b []byte) {
		t.Helper()
		if _, err := ReadFile(bytes.NewReader(b)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	for i := 0; i < len(b); i += 1 + len(b)/60 {
		c := bytes.Clone(b)
		c[i] ^= 4
		refused("a bit changed", c)
		refused("cut off", b[:i])
	}
	refused("longer", append(bytes.Clone(b), 0))
	nan := smallFile(t)
	nan.Networks[1].flat[5] = float32(0)
	nan.Networks[1].flat[5] /= nan.Networks[1].flat[5]
	c, err := nan.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	refused("a weight that is no number", c)
	large := smallFile(t)
	large.Networks[0].flat[5] = 1e6
	if _, err := large.MarshalBinary(); err == nil {
		t.Error("a weight that fits no half is written as one")
	}
	wide := smallFile(t)
	wide.Header.Networks[0].Inputs = 1e9
	if c, err = wide.MarshalBinary(); err != nil {
		t.Fatal(err)
	}
	refused("a billion inputs", c)
}

// What stood there before survives a write that fails.
func TestSaveIsAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "weights")
	if err := smallFile(t).Save(path); err != nil {
		t.Fatal(err)
	}
	bad := smallFile(t)
	bad.Networks[0].flat[5] = 1e6
	if err := bad.Save(path); err == nil {
		t.Fatal("a bad file is saved")
	}
	if _, err := LoadFile(path); err != nil {
		t.Error(err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("%d files lie about", len(list))
	}
}

// withSum puts the sum that b should have after it.
func withSum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append(bytes.Clone(b), sum[:]...)
}

// Every byte of the head is the reader's to judge: the sum is put right so that the fuzzer gets past it.
func FuzzReadFile(f *testing.F) {
	b, err := smallFile(f).MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:300])
	f.Add([]byte(fileMagic))
	f.Add([]byte("OMEGANET\x01\x00\x40\x00\x00\x00" + `{"networks":[{"name":"defender","Inputs":1,"Hidden1":64,"Hidden2":64,"Outputs":1,"half":true}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := ReadFile(bytes.NewReader(withSum(b)))
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("error %v", err)
			}
			return
		}
		for i, n := range file.Networks {
			if !n.finite() || n.Shape != file.Header.Networks[i].Shape {
				t.Fatal("a bad network came through")
			}
		}
		_, _ = file.Attackers()
		if _, err := Resume(file); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("error %v", err)
		}
	})
}

// The built-in weights hold what sim/README.md says of them, within what 200 episodes can tell; the seed is fixed.
func TestTrainedDefender(t *testing.T) {
	if testing.Short() {
		t.Skip("hundreds of episodes are too long under the race detector")
	}
	f, err := Trained()
	if err != nil {
		t.Fatal(err)
	}
	attackers, err := f.Attackers()
	if err != nil || len(attackers) == 0 {
		t.Fatalf("%d attackers, %v", len(attackers), err)
	}
	for v, bound := range map[cage2.Version]float64{cage2.Leaderboard: -52, cage2.Later: -57} {
		fresh := func() (cage2.Policy, error) { return f.Defender(v) }
		s, err := cage2.Evaluate(context.Background(), cage2.Evaluation{New: fresh, Version: v, Episodes: 200, Seed: 77})
		if err != nil {
			t.Fatal(err)
		}
		rules := func() (cage2.Policy, error) { return cage2.PolicyByName("rules") }
		_, worst, err := FaceAll(context.Background(), fresh, v, attackers, 100, 77)
		if err != nil {
			t.Fatal(err)
		}
		_, worstRules, err := FaceAll(context.Background(), rules, v, attackers, 100, 77)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.1f±%.1f; worst case %.1f±%.1f (%s), of the rules %.1f", v, s.Total, s.CI95, worst.Mean, worst.CI95, worst.Attacker, worstRules.Mean)
		if s.Total < bound {
			t.Errorf("%s: total %.1f±%.1f, want better than %v", v, s.Total, s.CI95, bound)
		}
		if worst.Mean >= 0 {
			t.Errorf("%s: the learned attackers cost nothing", v)
		}
	}
}

func TestCurveIsWellFormed(t *testing.T) {
	for _, points := range [][]Point{nil, {{Steps: 5, Leaderboard: -60, Later: -1e9}}, {{Steps: 1, Leaderboard: -90, Later: -80}, {Steps: 9, Leaderboard: -50, Later: -55, Worst: -30}}} {
		d := xml.NewDecoder(bytes.NewReader(CurveSVG(points)))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}
