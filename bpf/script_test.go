package bpf

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
)

func TestGivenScript(t *testing.T) {
	for _, c := range []struct{ exe, args, want string }{
		{"/bin/dash", "sh x.sh", "x.sh"},
		{"/bin/dash", "sh -e x.sh -c y", "x.sh"},
		{"/bin/dash", "sh -c x.sh", ""},
		{"/bin/dash", "sh -xc x.sh", ""},
		{"/bin/dash", "sh -s x.sh", ""},
		{"/bin/dash", "sh", ""},
		{"/bin/dash", "sh -- -odd", "-odd"},
		{"/bin/dash", "sh - x.sh", "x.sh"},
		{"/bin/dash", "sh +x x.sh", "x.sh"},
		{"/usr/bin/bash", "-bash -euo pipefail /x.sh a", "/x.sh"},
		{"/usr/bin/bash", "bash --norc --rcfile rc -O extglob x.sh", "x.sh"},
		{"/usr/bin/bash", "bash --rcfile", ""},
		{"/usr/bin/bash", "bash --new-option x.sh", ""},
		{"/bin/busybox", "sh x.sh", "x.sh"},
		{"/bin/busybox", "busybox ash -x x.sh", "x.sh"},
		{"/bin/busybox", "busybox wget x.sh", ""},
		{"/bin/busybox", "ls x.sh", ""},
		{"/usr/bin/python3.11", "python3 x.py", "x.py"},
		{"/usr/bin/python3.11", "python3 -uBW ignore -Xdev x.py -m y", "x.py"},
		{"/usr/bin/python3.11", "python3 -m http.server", ""},
		{"/usr/bin/python3.11", "python3 -Ic import x.py", ""},
		{"/usr/bin/python3.11", "python3 - x.py", ""},
		{"/usr/bin/python3.11", "python3 -W", ""},
		{"/usr/bin/perl", "perl -w -I lib -Ilib x.pl", "x.pl"},
		{"/usr/bin/perl", "perl -MIO::Socket -e code x.pl", ""},
		{"/usr/bin/perl", "perl -0777ne code x.pl", ""},
		{"/usr/bin/perl", "perl -lne code x.pl", ""},
		{"/usr/bin/perl", "perl -l012 x.pl", "x.pl"},
		{"/usr/bin/perl", "perl -pi.bak x.pl", "x.pl"},
		{"/usr/bin/ruby3.1", "ruby -W0 -r json x.rb", "x.rb"},
		{"/usr/bin/ruby3.1", "ruby -we code x.rb", ""},
		{"/usr/bin/php8.2", "php -q -d a=b x.php", "x.php"},
		{"/usr/bin/php8.2", "php -n -f x.php y", "x.php"},
		{"/usr/bin/php8.2", "php -r code x.php", ""},
		{"/usr/bin/php8.2", "php -- x.php", ""},
		{"/usr/bin/node", "node --max-old-space-size=100 -r x y.js", "y.js"},
		{"/usr/bin/node", "node inspect y.js", ""},
		{"/usr/bin/node", "node -e y.js", ""},
		{"/usr/bin/lua5.4", "lua -l m x.lua", "x.lua"},
		{"/bin/ls", "ls x.sh", ""},
		{"/bin/ls", "sh x.sh", ""}, // its name is its own choice
		{"", "", ""},
	} {
		if got := givenScript(c.exe, strings.ReplaceAll(c.args, " ", "\x00"), false); got != c.want {
			t.Errorf("%s, called %q: %q, want %q", c.exe, c.args, got, c.want)
		}
	}
	if got := givenScript("/bin/sh", "sh\x00/tmp/scr", true); got != "" {
		t.Errorf("an argument that is cut was taken for a name: %q", got)
	}
	if got := givenScript("/bin/sh", "sh"+strings.Repeat("\x00-e", 500)+"\x00x", false); got != "" {
		t.Errorf("it looks further than it should: %q", got)
	}
	if n := testing.AllocsPerRun(100, func() { givenScript("/usr/bin/python3.11", "python3\x00-u\x00x.py", false) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestScriptIsNamedFromTheRoot(t *testing.T) {
	tree := NewProcessTree()
	for _, c := range []struct{ cwd, script, want string }{
		{"/srv", "x.sh", "/srv/x.sh"}, {"/", "./x.sh", "/x.sh"}, {"/srv", ".//x.sh", "/srv/x.sh"}, {"/srv", "../x.sh", "/srv/../x.sh"},
		{"/srv", "/x.sh", "/x.sh"}, {"", "x.sh", "x.sh"}, {"half/of/a/path", "x.sh", "x.sh"},
	} {
		e := event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Process: event.Process{
			Key: event.ProcessKey{PID: 7, Start: 1}, Exe: "/bin/sh", Args: "sh\x00" + c.script, CWD: c.cwd}}
		tree.Observe(&e)
		if e.Process.Script != c.want || e.Process.Flags&event.FlagScript == 0 {
			t.Errorf("%q in %q: %q, flags %x", c.script, c.cwd, e.Process.Script, e.Process.Flags)
		}
	}
	before := event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Process: event.Process{
		Key: event.ProcessKey{PID: 8, Start: 1}, Exe: "/bin/sh", Args: "sh\x00/x.sh", Flags: event.FlagBeforeAgent}}
	if tree.Observe(&before); before.Process.Script != "" {
		t.Errorf("what a process says of itself was believed: %q", before.Process.Script)
	}
}

func FuzzGivenScript(f *testing.F) {
	f.Add("/bin/bash", "bash\x00-euo\x00pipefail\x00x.sh", false)
	f.Add("/bin/busybox", "busybox\x00sh\x00--\x00x", true)
	f.Add("/usr/bin/perl", "perl\x00-0777ne\x00x", false)
	f.Add("/usr/bin/php8", "php\x00-qf\x00x", false)
	f.Fuzz(func(t *testing.T, exe, args string, cut bool) {
		got := givenScript(exe, args, cut)
		if got != "" && !strings.Contains(args+"\x00", "\x00"+got+"\x00") {
			t.Errorf("%q is no argument of %q", got, args)
		}
	})
}

// What a real shell, or a real python, is given to run is the event's script, and its children's.
func TestSeesTheScriptGivenToAnInterpreter(t *testing.T) {
	a, _ := twoHosts(t)
	find := a.watch(a.load(Options{}))
	dir := t.TempDir()
	for name, text := range map[string]string{"job.sh": "cat /dev/null\n: end\n", "job.pl": "1;\n", "job.py": "pass\n", "called": "#!/bin/sh -e\n:\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	type run struct{ call, script string }
	runs := []run{{"sh ./job.sh", "job.sh"}, {"sh -e -o nounset job.sh one", "job.sh"}, {"./called", "called"}}
	for _, r := range []run{{"perl -w job.pl", "job.pl"}, {"python3 -I job.py", "job.py"}} {
		if _, err := exec.LookPath(strings.Fields(r.call)[0]); err == nil {
			runs = append(runs, r)
		}
	}
	for _, r := range runs {
		if out, err := a.run(t.Context(), "/bin/sh", "-c", "cd "+dir+" && "+r.call); err != nil {
			t.Fatal(r.call, err, out)
		}
		want := filepath.Join(dir, r.script)
		e := find(r.call, func(e *event.Event) bool {
			return e.Activity == event.ActivityExec && e.Process.Script == want && e.Process.Exe != "/usr/bin/env" &&
				strings.HasSuffix(strings.Join(e.Process.Argv(), " "), r.call[strings.IndexByte(r.call, ' ')+1:])
		})
		if e.Process.Flags&event.FlagScript == 0 || filepath.Base(e.Process.Exe) == r.script {
			t.Errorf("%s: %+v", r.call, e.Process)
		}
	}
	find("the end of a script", func(e *event.Event) bool {
		return e.Activity == event.ActivityExit && e.Process.Script == filepath.Join(dir, "job.sh")
	})
	child := find("what the script started", func(e *event.Event) bool {
		return e.Activity == event.ActivityExec && e.Process.Args == "cat\x00/dev/null"
	})
	if child.Process.Script != "" {
		t.Errorf("cat is said to run a script: %+v", child.Process)
	}
	find("the shell that was given a command", func(e *event.Event) bool {
		return e.Activity == event.ActivityExec && strings.HasPrefix(e.Process.Args, "/bin/sh\x00-c\x00") && e.Process.Script == ""
	})
}
