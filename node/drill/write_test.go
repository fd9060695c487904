package drill

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
)

// deniedWrites has n1's operator deny writing to a folder on n2, by the command: n2's root is refused by the kernel, what it
// changes once it has taken the attribute off is put back, n1 knows who it was each time, and a release ends it.
func deniedWrites(s swarm) {
	dir := filepath.Join(s.TempDir(), "held")
	file := filepath.Join(dir, "settings")
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("as it was\n"), 0o644); err != nil {
		s.Fatal(err)
	}
	said := s.omega("n1", "respond", "deny", "write", dir, "--ttl", "1h", "--scope", "n2")
	s.Log(said)
	id := ""
	s.eventually("n2 denies it", func() bool {
		list, err := s.host("n2").Client().ListResponses(s.Context(), &apiv1.ListResponsesRequest{Active: true})
		if err != nil {
			return false
		}
		for _, r := range list.GetResponses() {
			if r.GetTarget().GetWrite() == dir && r.GetState() == "active" {
				id = r.GetId()
			}
		}
		return id != ""
	})
	knows := func(rule string) {
		s.Helper()
		s.eventually("n1 knows of "+rule, func() bool {
			for _, f := range s.findings("n1", rule) {
				if f.GetHost() == "n2" && f.GetSubject().GetFile() == dir && f.GetSubject().GetExe() != "" {
					return true
				}
			}
			return false
		})
	}
	for _, script := range []string{`echo evil > "$0"`, `echo evil >> "$0"`, `rm -f "$0"`, `mv "$0" "$0.away"`, `echo x > "$0.new"`, `chmod 777 "$0"`} {
		if out, err := s.run("n2", "", "/bin/sh", "-c", script, file); err == nil {
			s.Errorf("%s went through: %s", script, out)
		}
	}
	knows("omega.write.denied")
	if out, err := s.run("n2", "", "/bin/sh", "-c", `chattr -R -i "$(dirname "$0")" && echo evil > "$0" && echo evil > "$0.new"`, file); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
	knows("omega.write.undone")
	s.eventually("what was changed is back, and what was made is gone", func() bool {
		b, err := os.ReadFile(file)
		_, nerr := os.Stat(file + ".new")
		return err == nil && string(b) == "as it was\n" && os.IsNotExist(nerr)
	})
	if out, err := s.run("n2", "", "/bin/sh", "-c", `echo evil > "$0"`, file); err == nil {
		s.Errorf("after that it may be written to: %s", out)
	}
	// Its own state is not to be held, nor what a host cannot live without.
	for _, path := range []string{s.host("n1").Dir, "/var/log"} {
		if out, err := s.run("n1", "", s.net.State().Binary, "respond", "deny", "write", path, "--scope", "self", "--ttl", "1m"); err == nil || !strings.Contains(out+err.Error(), "guard rail") {
			s.Errorf("%s: %v %s", path, err, out)
		}
	}
	s.Log(s.omega("n1", "respond", "release", id))
	s.eventually("it may be written to again", func() bool { return os.WriteFile(file, []byte("mine\n"), 0o644) == nil })
	time.Sleep(700 * time.Millisecond) // nobody puts it back
	if b, err := os.ReadFile(file); err != nil || string(b) != "mine\n" {
		s.Errorf("after the release: %q, %v", b, err)
	}
}
