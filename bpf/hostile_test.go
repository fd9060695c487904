package bpf

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
)

// What a process calls itself is its own choice: two megabytes of arguments, names with control bytes and no text at all,
// and a program further down than a path may be long. Each is told, cut where it must be and saying so, and what is
// printed of it has no raw control byte.
func TestHostileNames(t *testing.T) {
	a, _ := twoHosts(t)
	find := a.watch(a.load(Options{}))
	printed := func(what string, e *event.Event) {
		t.Helper()
		line, err := ocsf.Encode(e, "host", "did:omega:x")
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if i := strings.IndexFunc(strings.TrimSuffix(string(line), "\n"), func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x9b }); i >= 0 {
			t.Errorf("%s: a raw control byte at %d of %q", what, i, line)
		}
		if !utf8.Valid(line) {
			t.Errorf("%s: printed as no text: %q", what, line)
		}
		back, err := ocsf.Decode(line)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if back.Process.Args != e.Process.Args || back.Process.Exe != e.Process.Exe {
			t.Errorf("%s: came back as %q %q", what, back.Process.Exe, back.Process.Args)
		}
	}

	many := []string{"many"}
	for range 15 {
		many = append(many, strings.Repeat("x", 128<<10-1)) // the most that the kernel takes of one
	}
	if out, err := a.run(t.Context(), "/bin/true", many...); err != nil {
		t.Fatal(err, out)
	}
	e := find("two megabytes of arguments", func(e *event.Event) bool {
		return e.Activity == event.ActivityExec && strings.HasPrefix(e.Process.Args, "/bin/true\x00many")
	})
	if e.Process.Flags&event.FlagArgsTruncated == 0 || len(e.Process.Args) < 1000 || len(e.Process.Args) > 8<<10 {
		t.Errorf("%d bytes of arguments, flags %x", len(e.Process.Args), e.Process.Flags)
	}
	printed("many arguments", e)

	dir := t.TempDir()
	for _, name := range []string{"new\nline", "\x1b[2J\x1b]0;owned\x07", "\xff\xfe\xc3\x28", "\u202efdp.exe", "\x9b31m", `quote"back\slash`} {
		path := filepath.Join(dir, name)
		if out, err := exec.Command("cp", "/bin/true", path).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
		if out, err := a.run(t.Context(), path, name, "", "\r\n\t"); err != nil {
			t.Fatal(err, out)
		}
		e := find("the program called "+name, func(e *event.Event) bool {
			return e.Activity == event.ActivityExec && e.Process.Exe == path
		})
		if e.Process.Args != path+"\x00"+name+"\x00\x00\r\n\t" {
			t.Errorf("%q: arguments %q", name, e.Process.Args)
		}
		printed(name, e)
	}

	// Down and down: no name of the file reaches it any more but one from where one stands.
	deep := `cd "$0"; n=$(printf 'd%.0s' $(seq 200)); for i in $(seq 25); do mkdir $n && cd $n || exit 1; done; cp /bin/true last && ./last deep`
	if out, err := a.run(t.Context(), "/bin/bash", "-c", deep, dir); err != nil {
		t.Fatal(err, out)
	}
	e = find("the program five thousand bytes down", func(e *event.Event) bool {
		return e.Activity == event.ActivityExec && e.Process.Args == "./last\x00deep"
	})
	if !strings.HasSuffix(e.Process.Exe, "/last") && filepath.Base(e.Process.Exe) != "last" {
		t.Errorf("executable %q", e.Process.Exe)
	}
	printed("a deep program", e)
	if out, err := exec.Command("rm", "-rf", dir).CombinedOutput(); err != nil { // os.RemoveAll goes by path
		t.Log(string(out))
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the folder is still there")
	}
}
