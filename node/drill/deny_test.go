package drill

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
)

// serveNames answers each question with its own address, and takes connections to 4444: it says when it is ready.
const serveNames = `import socket, sys, threading
a = sys.argv[1]
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind((a, 53))
t = socket.create_server((a, 4444))
def take():
    while True: t.accept()[0].close()
threading.Thread(target=take, daemon=True).start()
print("ready", flush=True)
while True:
    q, of = u.recvfrom(512)
    u.sendto(q[:2] + b"\x81\x80" + q[4:6] + b"\0\1\0\0\0\0" + q[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(a), of)
`

// askFor asks a server for a name, and prints what came of it.
const askFor = `import socket, sys
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5)
q = b"\0\7\1\0\0\1\0\0\0\0\0\0" + b"".join(bytes([len(l)]) + l.encode() for l in sys.argv[2].split(".")) + b"\0\0\1\0\1"
try:
    u.sendto(q, (sys.argv[1], 53)); u.recv(512); print("answered")
except OSError as e:
    print(e)
`

// deniedByNameAndPort has n1's operator refuse a domain and a port by the command, on n1 alone, and looks from n1 at a host
// outside the swarm: those within are spared.
func deniedByNameAndPort(s swarm) {
	python, err := exec.LookPath("python3")
	if err != nil {
		s.Skip("no python3")
	}
	n1, x1 := s.host("n1"), s.host("x1")
	server := exec.CommandContext(s.Context(), python, "-c", serveNames, x1.Addr.String())
	out, err := server.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := s.net.Start(x1, server); err != nil {
		s.Fatal(err)
	}
	defer server.Wait()
	defer server.Process.Kill()
	if !bufio.NewScanner(out).Scan() {
		s.Fatal("the name server does not start")
	}
	ask := func(name string) string {
		s.Helper()
		said, err := s.run("n1", "", python, "-c", askFor, x1.Addr.String(), name)
		if err != nil {
			s.Fatalf("%v: %s", err, said)
		}
		return strings.TrimSpace(said)
	}
	reach := func() string {
		s.Helper()
		if got := s.attempt("n1", n1.Addr, x1.Addr, 4444); !got.OK {
			return got.Error
		}
		return ""
	}
	refused := func(what string) {
		s.Helper()
		s.eventually(what, func() bool { return strings.Contains(reach(), "not permitted") })
	}
	admitted := func(what string) {
		s.Helper()
		last := ""
		defer func() { s.Log(what, last) }()
		s.eventually(what, func() bool { last = reach(); return last == "" })
	}
	if got := ask("c2.evil.example"); got != "answered" {
		s.Fatal("before: ", got)
	}
	admitted("x1 takes n1's connections")
	s.Log(s.omega("n1", "respond", "deny", "domain", "evil.example", "--ttl", "1h", "--scope", "self"))
	refused("an address given for a denied name is refused")
	if got := ask("other.EVIL.example"); !strings.Contains(got, "not permitted") {
		s.Errorf("a denied name could be asked for: %s", got)
	}
	list, err := n1.Client().ListResponses(s.Context(), &apiv1.ListResponsesRequest{Active: true})
	if err != nil {
		s.Fatal(err)
	}
	id := ""
	for _, r := range list.GetResponses() {
		if r.GetTarget().GetDomain() == "evil.example" {
			id = r.GetId()
		}
	}
	if id == "" {
		s.Fatalf("no response names the domain: %v", list.GetResponses())
	}
	s.Log(s.omega("n1", "respond", "release", id))
	admitted("a released domain is admitted")
	if got := ask("c2.evil.example"); got != "answered" {
		s.Errorf("after the release: %s", got)
	}
	s.omega("n1", "respond", "deny", "port", "4444/tcp", "--ttl", "3s", "--scope", "self")
	refused("a denied port is refused")
	admitted("a port's block ends by itself")
}

// deniedFile is one that a host denies by its hash: found was started once, copy never.
type deniedFile struct{ on, hash, found, copy string }

// denyByHash has n1's operator deny a file on another host by its hash, by the command, and sees it killed.
func denyByHash(s swarm, on string) deniedFile {
	s.Helper()
	sleep, err := os.ReadFile("/bin/sleep")
	if err != nil {
		s.Fatal(err)
	}
	sleep = append(sleep, s.net.State().ID...) // what is denied is this file, and not this machine's sleep
	dir := s.TempDir()
	f := deniedFile{on: on, hash: fmt.Sprintf("%x", sha256.Sum256(sleep)), found: filepath.Join(dir, "found"), copy: filepath.Join(dir, "copy")}
	for _, path := range []string{f.found, f.copy} {
		if err := os.WriteFile(path, sleep, 0o755); err != nil {
			s.Fatal(err)
		}
	}
	if out, err := s.run(on, "", f.found, "0"); err != nil {
		s.Fatalf("before it is denied: %v: %s", err, out)
	}
	s.Log(s.omega("n1", "respond", "deny", "exec", f.hash, "--ttl", "1h", "--scope", on))
	f.refused(s, f.found)
	return f
}

// stands says whether the host holds the denial for active.
func (f deniedFile) stands(s swarm) bool {
	list, err := s.host(f.on).Client().ListResponses(s.Context(), &apiv1.ListResponsesRequest{Active: true})
	return err == nil && slices.ContainsFunc(list.GetResponses(), func(r *apiv1.Response) bool { return r.GetTarget().GetSha256() == f.hash })
}

// refused starts a file that would sleep for long, and holds it to be killed.
func (f deniedFile) refused(s swarm, path string) {
	s.Helper()
	if out, err := s.run(f.on, "", path, "25"); err == nil || !strings.Contains(err.Error(), "signal: killed") {
		s.Errorf("%s on %s: %v: %s", path, f.on, err, out)
	}
}
