package drill

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/testnet"
)

// TestHostsSeeWhatIsDoneToThem runs one swarm of three for what a host sees of log-ons, and what its peers see of it.
func TestHostsSeeWhatIsDoneToThem(t *testing.T) {
	needRoot(t)
	n, err := testnet.Up(t.Context(), testnet.Options{Nodes: 3, Binary: omegaBinary(t), Progress: func(s string) { t.Log(s) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	// A connection by QUIC outlives a killed peer by its idle time, so the first is begun before the others and ended after.
	denied := denyByHash(swarm{t, n}, "n3")
	killed := killAgent(swarm{t, n})
	t.Run("a log that somebody forged blocks nobody", func(t *testing.T) { forgedLog(swarm{t, n}) })
	t.Run("who guesses sshd's passwords is refused", func(t *testing.T) { guessedPasswords(swarm{t, n}) })
	t.Run("every watched action is seen with its lineage", func(t *testing.T) { everyAction(swarm{t, n}) })
	t.Run("an agent that is killed is told of by its peers, once, and that it is back", func(t *testing.T) { toldOfKill(swarm{t, n}, killed) })
	t.Run("a hash that was denied before the agent was killed is denied after it", func(t *testing.T) {
		s := swarm{t, n}
		s.eventually("n3 has read its orders again", func() bool { return denied.stands(s) })
		denied.refused(s, denied.found)
		denied.refused(s, denied.copy)
	})
	t.Run("an agent that is struck tells by whom before it is gone", func(t *testing.T) { struckAgent(swarm{t, n}) })
	if t.Failed() {
		for _, h := range n.Hosts() {
			if raw, err := os.ReadFile(h.Log); err == nil {
				t.Logf("%s:\n%s", h.Name, raw[max(0, len(raw)-4000):])
			}
		}
	}
}

func (s swarm) findings(on, rule string) (out []*apiv1.Finding) {
	s.Helper()
	stream, err := s.host(on).Client().Findings(s.Context(), &apiv1.FindingsRequest{})
	if err != nil {
		s.Fatal(err)
	}
	defer stream.Close()
	for stream.Receive() {
		if f := stream.Msg(); f.GetRuleId() == rule {
			out = append(out, f)
		}
	}
	return out
}

// syslog appends a line to the log that a host's node follows, as the host's syslog daemon would.
func syslog(on *testnet.Host, program string, pid int, message string) error {
	f, err := os.OpenFile(on.AuthLog(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s %s %s[%d]: %s\n", time.Now().Format(time.Stamp), on.Name, program, pid, message)
	return errors.Join(err, f.Close())
}

// forgedLog: anybody on a host may write to its log that sshd saw an address fail. No connection came from there: it is
// told, and nothing is done.
func forgedLog(s swarm) {
	const victim = "198.51.100.7"
	for i := range 8 {
		if err := syslog(s.host("n2"), "sshd", 4000, fmt.Sprintf("Failed password for root from %s port %d ssh2", victim, 5000+i)); err != nil {
			s.Fatal(err)
		}
	}
	var found []*apiv1.Finding
	s.eventually("n2 tells of the log", func() bool { found = s.findings("n1", "omega.auth.brute"); return len(found) > 0 })
	if f := found[0]; f.GetSubject().GetAddress() != victim || f.GetConfidence() >= 60 {
		s.Errorf("%s with confidence %d", f.GetSubject().GetAddress(), f.GetConfidence())
	}
	if hosts, _ := s.refusing("deny", victim); len(hosts) > 0 {
		s.Errorf("%v refuse an address that was only written down", hosts)
	}
}

// guessedPasswords has x1 guess the passwords of a real sshd on n1, by names that say they are somebody else.
func guessedPasswords(s swarm) {
	sshd, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		s.Skip("no sshd: apt-get install openssh-server")
	}
	for _, tool := range []string{"ssh", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			s.Skip(err)
		}
	}
	dir := s.TempDir()
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "key")).CombinedOutput(); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // what sshd confines its children to
		s.Fatal(err)
	}
	const port = "2222"
	victim, attacker := s.host("n1"), s.host("x1")
	cmd := exec.Command(sshd, "-D", "-e", "-f", "/dev/null", "-p", port, "-h", filepath.Join(dir, "key"), "-o", "PidFile=none", "-o", "UsePAM=no", "-o", "PasswordAuthentication=yes",
		"-o", "ListenAddress="+victim.Addr.String(), "-o", "PerSourcePenalties=no")
	if out, _ := exec.Command(sshd, "-t", "-f", "/dev/null", "-o", "PerSourcePenalties=no", "-h", filepath.Join(dir, "key")).CombinedOutput(); strings.Contains(string(out), "Bad configuration option") {
		cmd.Args = cmd.Args[:len(cmd.Args)-2] // older than 9.8
	}
	r, w := io.Pipe()
	cmd.Stderr = w
	if err := s.net.Start(victim, cmd); err != nil {
		s.Fatal(err)
	}
	listening, reading := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var mu sync.Mutex
	var said []string
	go func() { // the host's syslog daemon
		defer close(reading)
		for lines := bufio.NewScanner(r); lines.Scan(); {
			line := strings.TrimRight(lines.Text(), "\r")
			if strings.HasPrefix(line, "Server listening") {
				once.Do(func() { close(listening) })
			}
			mu.Lock()
			said = append(said, line)
			mu.Unlock()
			if err := syslog(victim, "sshd", cmd.Process.Pid, line); err != nil {
				s.Error(err)
			}
		}
	}()
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		w.Close()
		<-reading
	}()
	select {
	case <-listening:
	case <-time.After(10 * time.Second):
		s.Fatalf("sshd does not listen: %v", said)
	}
	ask := filepath.Join(dir, "ask")
	if err := os.WriteFile(ask, []byte("#!/bin/sh\necho guess\n"), 0o700); err != nil {
		s.Fatal(err)
	}
	var wg sync.WaitGroup
	const framed = "198.51.100.8"
	for _, user := range []string{"root", "admin", "x from " + framed + " port 22 ssh2", "root"} {
		wg.Go(func() {
			c := exec.Command("ssh", "-F", "/dev/null", "-p", port, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "PreferredAuthentications=password",
				"-o", "NumberOfPasswordPrompts=3", "-o", "ConnectTimeout=2", "-l", user, victim.Addr.String(), "true")
			c.Env = append(os.Environ(), "SSH_ASKPASS="+ask, "SSH_ASKPASS_REQUIRE=force", "DISPLAY=none")
			if err := s.net.Start(attacker, c); err != nil {
				s.Error(err)
			} else if err := c.Wait(); err == nil {
				s.Error("a wrong password was taken")
			}
		})
	}
	wg.Wait()
	s.eventually("n1 refuses x1", func() bool {
		hosts, _ := s.refusing("deny", attacker.Addr.String())
		return slices.Contains(hosts, "n1")
	})
	if s.reaches("x1", "n1", 2222) {
		s.Error("x1 still reaches sshd on n1")
	}
	var found *apiv1.Finding
	for _, f := range s.findings("n2", "omega.auth.brute") {
		switch f.GetSubject().GetAddress() {
		case attacker.Addr.String():
			found = f
		case framed:
			s.Errorf("a user name became an address: %v", f)
		}
	}
	if found == nil || found.GetConfidence() < 90 {
		s.Errorf("n2 heard %v", found)
	}
	if hosts, _ := s.refusing("deny", framed); len(hosts) > 0 {
		s.Errorf("%v refuse %s, which an attacker named", hosts, framed)
	}
	if s.Failed() {
		mu.Lock()
		s.Logf("sshd said:\n%s", strings.Join(said, "\n"))
		mu.Unlock()
	}
}

// killAgent ends the agent of n3 as an attacker with root would, both its halves, and gives its DID.
func killAgent(s swarm) (did string) {
	n3 := s.host("n3")
	status, err := n3.Client().Status(s.Context(), &apiv1.StatusRequest{})
	if err != nil {
		s.Fatal(err)
	}
	if err := testnet.Kill(s.net.State(), n3); err != nil {
		s.Fatal(err)
	}
	return status.GetDid()
}

// toldOfKill sees that the peers told of it, and starts it again.
func toldOfKill(s swarm, did string) {
	silent := func(on string) (told, back int) {
		for _, f := range s.findings(on, "omega.agent.silent") {
			switch {
			case f.GetSubject().GetMember() != did:
				s.Errorf("%s is said to be silent", f.GetSubject().GetMember())
			case f.GetSeverity() == "informational":
				back++
			default:
				told++
			}
		}
		return told, back
	}
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if told, _ := silent("n1"); told > 0 {
			break
		}
		if time.Since(began) > time.Minute {
			s.Fatal("nobody told of n3 within a minute")
		}
	}
	s.eventually("the other peer knows it", func() bool { told, _ := silent("n2"); return told > 0 })
	if err := testnet.Heal(s.net.State(), s.host("n3")); err != nil {
		s.Fatal(err)
	}
	s.eventually("the peer tells that n3 is back", func() bool { _, back := silent("n2"); return back > 0 })
	told, back := silent("n1")
	s.Logf("told %d times, back %d times", told, back)
	if told > 2 || back > told { // the two may notice together, before a seal let one hear the other
		s.Errorf("told %d times, back %d times", told, back)
	}
	for _, f := range s.findings("n1", "omega.agent.isolated") {
		s.Errorf("%s lost sight of a majority: %s", f.GetHost(), f.GetTitle())
	}
}
