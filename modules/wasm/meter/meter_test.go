package meter

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

func load(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "testdata", "guests", name+".wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A counted module means what the module meant: by every way out of a function.
func TestRewriteKeepsTheMeaning(t *testing.T) {
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	code := load(t, "shapes")
	m, err := Rewrite(code, Options{Memory: 64})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := r.InstantiateWithConfig(ctx, code, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		t.Fatal(err)
	}
	counted, err := r.InstantiateWithConfig(ctx, m.Code, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		t.Fatal(err)
	}
	fuel, depth := counted.ExportedGlobal(Fuel).(api.MutableGlobal), counted.ExportedGlobal(Depth)
	answers := map[uint64]bool{}
	for n := range uint64(24) {
		fuel.Set(1 << 20)
		want, err := plain.ExportedFunction("run").Call(ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		got, err := counted.ExportedFunction("run").Call(ctx, n)
		if err != nil || got[0] != want[0] {
			t.Fatalf("run(%d) is %d, and counted %v: %v", n, want[0], got, err)
		}
		if depth.Get() != 0 {
			t.Fatalf("run(%d): %d calls still open", n, depth.Get())
		}
		if fuel.Get() >= 1<<20 {
			t.Fatal("nothing was counted")
		}
		answers[want[0]] = true
	}
	if len(answers) < 8 {
		t.Fatalf("the guest gives only %d answers: it does not go all its ways", len(answers))
	}
}

func TestRewriteRefuses(t *testing.T) {
	good := load(t, "exec")
	vector := append([]byte(nil), good...)
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"another version":   append([]byte("\x00asm\x02\x00\x00\x00"), good[8:]...),
		"cut short":         good[:len(good)-3],
		"sections twice":    append(vector, good[8:]...),
		"a section of 4 GB": append(append([]byte(nil), good...), 0, 0xff, 0xff, 0xff, 0xff, 0x0f),
		"an unknown one":    append(append([]byte(nil), good...), 13, 0),
	} {
		if _, err := Rewrite(b, Options{Memory: 64}); !errors.Is(err, ErrModule) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Rewrite(good, Options{Memory: 64}); err != nil {
		t.Fatal(err)
	}
}

// Whatever the bytes, nothing breaks; and what the engine would run as it is, it runs counted.
func FuzzRewrite(f *testing.F) {
	names, err := filepath.Glob(filepath.Join("..", "testdata", "guests", "*.wasm"))
	if err != nil || len(names) == 0 {
		f.Fatal("no guests")
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2.SetEnabled(api.CoreFeatureSIMD, false)))
	f.Cleanup(func() { _ = r.Close(ctx) })
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64<<10 {
			return
		}
		m, err := Rewrite(b, Options{Memory: 1 << 16})
		if err != nil {
			return
		}
		c, err := r.CompileModule(ctx, b)
		if err != nil {
			return
		}
		_ = c.Close(ctx)
		again, err := r.CompileModule(ctx, m.Code)
		if err != nil {
			t.Fatalf("valid before, and counted: %v", err)
		}
		_ = again.Close(ctx)
	})
}
