package logs

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

var noon = time.Date(2026, 11, 23, 12, 0, 10, 0, time.UTC)

const boot = uint64(time.Hour)

// one reads a message as program would have rsyslog write it, in each of the three formats; all must say the same.
func one(t *testing.T, program, message string) (event.Event, bool) {
	t.Helper()
	var first event.Event
	var firstKnown bool
	for i, head := range []string{"fNov 23 12:00:05 host " + program + "[42]: ", "f2026-11-23T12:00:05.000000+00:00 host " + program + "[42]: ",
		"f<38>1 2026-11-23T12:00:05Z host " + program + ` 42 - [a b="]\""] `} {
		var x event.Event
		known, ok := parse([]byte(head+message), noon, boot, &x)
		if !ok {
			t.Fatalf("%q does not read", head+message)
		}
		if i == 0 {
			first, firstKnown = x, known
		} else if x != first || known != firstKnown {
			t.Fatalf("%q reads as %+v, and by another format as %+v", message, x, first)
		}
	}
	return first, firstKnown
}

func TestReadsWhatProgramsWrite(t *testing.T) {
	for _, c := range []struct {
		program, message string
		activity         event.Activity
		user, as         string
		from             string // address, or address:port
		detail           string // method or command
	}{
		{"sshd", "Failed password for root from 203.0.113.9 port 5555 ssh2", event.ActivityLogonFailure, "root", "", "203.0.113.9:5555", "password"},
		{"sshd", "Failed password for invalid user bob from 2001:db8::1 port 5 ssh2", event.ActivityLogonFailure, "bob", "", "[2001:db8::1]:5", "password"},
		{"sshd-session", "Failed keyboard-interactive/pam for root from 203.0.113.9 port 1 ssh2", event.ActivityLogonFailure, "root", "", "203.0.113.9:1", "keyboard-interactive/pam"},
		{"sshd", "Failed publickey for root from 203.0.113.9 port 1 ssh2: RSA SHA256:abc", event.ActivityLogonFailure, "root", "", "203.0.113.9:1", "publickey"},
		{"sshd", "Failed none for invalid user  from 203.0.113.9 port 1 ssh2", event.ActivityLogonFailure, "", "", "203.0.113.9:1", "none"},
		{"sshd", "Invalid user admin from 203.0.113.9 port 4242", event.ActivityLogonFailure, "admin", "", "203.0.113.9:4242", "none"},
		{"sshd", "Invalid user admin from 203.0.113.9", event.ActivityLogonFailure, "admin", "", "203.0.113.9", "none"},
		{"sshd", "error: maximum authentication attempts exceeded for root from 203.0.113.9 port 7 ssh2 [preauth]", event.ActivityLogonFailure, "root", "", "203.0.113.9:7", "too many"},
		{"sshd", "User eve from 203.0.113.9 not allowed because not listed in AllowUsers", event.ActivityLogonFailure, "eve", "", "203.0.113.9", "not allowed"},
		{"sshd", "Accepted publickey for alice from 203.0.113.9 port 1 ssh2: ED25519 SHA256:abc", event.ActivityLogonSuccess, "alice", "", "203.0.113.9:1", "publickey"},
		{"sshd", "Accepted password for alice from 203.0.113.9 port 1 ssh2", event.ActivityLogonSuccess, "alice", "", "203.0.113.9:1", "password"},
		{"sshd", "Disconnected from user alice 203.0.113.9 port 33", event.ActivitySessionClose, "alice", "", "203.0.113.9:33", ""},
		{"sshd", "pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)", event.ActivitySessionOpen, "alice", "", "", ""},
		{"dropbear", "Bad password attempt for 'root' from 203.0.113.9:5555", event.ActivityLogonFailure, "root", "", "203.0.113.9:5555", "password"},
		{"dropbear", "Login attempt for nonexistent user 'a' from 203.0.113.9:5555", event.ActivityLogonFailure, "a", "", "203.0.113.9:5555", "none"},
		{"dropbear", "Pubkey auth succeeded for 'root' with ssh-ed25519 key SHA256:x from 203.0.113.9:5555", event.ActivityLogonSuccess, "root", "", "203.0.113.9:5555", "publickey"},
		{"sudo", "   alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/usr/bin/id -u", event.ActivitySudo, "alice", "root", "", "/usr/bin/id -u"},
		{"sudo", "bob : user NOT in sudoers ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh", event.ActivitySudo, "bob", "root", "", "/bin/sh"},
		{"sudo", "pam_unix(sudo:session): session opened for user root(uid=0) by alice(uid=1000)", event.ActivitySessionOpen, "alice", "root", "", ""},
		{"su", "(to root) alice on pts/1", event.ActivitySudo, "alice", "root", "", "su"},
		{"su", "FAILED SU (to root) alice on pts/1", event.ActivityLogonFailure, "alice", "root", "", "su"},
		{"pkexec", "alice: Executing command [USER=root] [TTY=unknown] [CWD=/] [COMMAND=/usr/bin/id]", event.ActivitySudo, "alice", "root", "", "/usr/bin/id"},
		{"doas", "alice ran command ls as root from /home/alice", event.ActivitySudo, "alice", "root", "", "ls"},
		{"CRON", "(root) CMD (   cd / && run-parts --report /etc/cron.hourly)", event.ActivityJobRun, "root", "", "", "cd / && run-parts --report /etc/cron.hourly"},
		{"useradd", "new user: name=bob, UID=1001, GID=1001, home=/home/bob, shell=/bin/sh, from=none", event.ActivityAccount, "", "bob", "", "new user"},
		{"usermod", "add 'bob' to group 'sudo'", event.ActivityAccount, "", "bob", "", "added to group sudo"},
		{"userdel", "delete user 'bob'", event.ActivityAccount, "", "bob", "", "user removed"},
		{"passwd", "pam_unix(passwd:chauthtok): password changed for bob", event.ActivityAccount, "", "bob", "", "password changed"},
		{"chage", "changed password expiry for bob", event.ActivityAccount, "", "bob", "", "expiry changed"},
		{"gpasswd", "user bob added by root to group sudo", event.ActivityAccount, "root", "bob", "", "added to group sudo"},
		{"login", "FAILED LOGIN (1) on '/dev/tty1' FOR 'root', Authentication failure", event.ActivityLogonFailure, "root", "", "", "password"},
		{"systemd-logind", "New session 3 of user alice.", event.ActivitySessionOpen, "alice", "", "", "session 3"},
		{"vsftpd", "pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=bob rhost=203.0.113.9  user=bob", event.ActivityLogonFailure, "bob", "", "203.0.113.9", "pam"},
	} {
		x, known := one(t, c.program, c.message)
		from := ""
		if x.Network.Remote.IsValid() {
			from = x.Network.Remote.String()
		} else if x.Logon.Remote.IsValid() {
			from = x.Logon.Remote.String()
		}
		if !known || x.Activity != c.activity || x.Logon.User != c.user || x.Logon.As != c.as || from != c.from || c.detail != "" && x.Logon.Method != c.detail && x.Logon.Command != c.detail {
			t.Errorf("%s: %s: known %t, %s %+v from %q", c.program, c.message, known, x.Activity, x.Logon, from)
		}
		if x.Process.Key.PID != 42 || x.Sensor != "logs" || x.Boot != boot-uint64(5*time.Second) {
			t.Errorf("%s: pid %d, sensor %q, boot %d", c.message, x.Process.Key.PID, x.Sensor, x.Boot)
		}
	}
	for _, c := range [][2]string{{"sshd", "Server listening on 0.0.0.0 port 22."}, {"sshd", "Failed password for root from example.org port 5 ssh2"},
		{"sshd", "pam_unix(sshd:auth): authentication failure; rhost=203.0.113.9 user=root"}, {"kernel", "Failed password for root from 203.0.113.9 port 5 ssh2"}} {
		if x, known := one(t, c[0], c[1]); known {
			t.Errorf("%s: %s is read as %+v", c[0], c[1], x)
		}
	}
}

func TestUnits(t *testing.T) {
	for _, c := range []struct {
		line     string
		activity event.Activity
		unit     string
		result   int32
	}{
		{`fNov 23 12:00:05 host systemd[1]: Started ssh.service - OpenBSD Secure Shell server.`, event.ActivityServiceStart, "ssh.service", 0},
		{`fNov 23 12:00:05 host systemd[1]: ssh.service: Deactivated successfully.`, event.ActivityServiceStop, "ssh.service", 0},
		{`fNov 23 12:00:05 host systemd[1]: ssh.service: Failed with result 'exit-code'.`, event.ActivityServiceStop, "ssh.service", 1},
		{`j{"MESSAGE":"Started OpenBSD Secure Shell server.","SYSLOG_IDENTIFIER":"systemd","UNIT":"ssh.service","JOB_TYPE":"start","_PID":"1","_UID":"0","_COMM":"systemd"}`, event.ActivityServiceStart, "ssh.service", 0},
	} {
		var x event.Event
		known, ok := parse([]byte(c.line), noon, boot, &x)
		if !known || !ok || x.Class != event.ClassScheduledJob || x.Activity != c.activity || x.Process.Unit != c.unit || x.Result != c.result {
			t.Errorf("%s: %t %t %+v %q", c.line, known, ok, x.Activity, x.Process.Unit)
		}
	}
	var x event.Event
	if known, _ := parse([]byte("fNov 23 12:00:05 host systemd[900]: Started ssh.service - fake."), noon, boot, &x); known {
		t.Error("a user's own manager speaks for the host's")
	}
}

// TestNamesAreNotBelieved: whatever a stranger calls itself, the address is the one sshd added, or there is none.
func TestNamesAreNotBelieved(t *testing.T) {
	const victim, truth = "8.8.8.8", "203.0.113.9"
	for _, name := range []string{"x from 8.8.8.8 port 22 ssh2", "x from 8.8.8.8", " from 8.8.8.8 port 1", "root from 8.8.8.8 port 22 ssh2: RSA SHA256:abc",
		"a' from 8.8.8.8:22", "rhost=8.8.8.8", "x rhost=8.8.8.8 user=y", `x\nNov 23 12:00:05 host sshd[1]: Failed password for root from 8.8.8.8 port 22 ssh2`, "invalid user a from 8.8.8.8"} {
		for _, c := range [][2]string{
			{"sshd", "Failed password for invalid user " + name + " from 203.0.113.9 port 5555 ssh2"},
			{"sshd", "Failed none for invalid user " + name + " from 203.0.113.9 port 5555 ssh2"},
			{"sshd", "Invalid user " + name + " from 203.0.113.9 port 5555"},
			{"sshd", "Failed publickey for invalid user " + name + " from 203.0.113.9 port 5555 ssh2: RSA-CERT SHA256:abc ID key (serial 0) CA RSA SHA256:def"},
			{"sshd", "Failed publickey for root from 203.0.113.9 port 5555 ssh2: RSA-CERT SHA256:abc ID " + name + " (serial 0) CA RSA SHA256:def"},
			{"sshd", "maximum authentication attempts exceeded for invalid user " + name + " from 203.0.113.9 port 5555 ssh2 [preauth]"},
			{"sshd", "User " + name + " from 203.0.113.9 not allowed because not listed in AllowUsers"},
			{"sshd", "Disconnected from user " + name + " 203.0.113.9 port 5555"},
			{"dropbear", "Login attempt for nonexistent user '" + name + "' from 203.0.113.9:5555"},
			{"vsftpd", "pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=" + name + " rhost=203.0.113.9  user=" + name},
		} {
			x, known := one(t, c[0], c[1])
			if got := x.Logon.Remote; known && got.IsValid() && got.String() != truth || strings.Contains(x.Network.Remote.String(), victim) {
				t.Errorf("%s: %s is from %s", c[0], c[1], got)
			}
		}
	}
	// A line that somebody else wrote under sshd's name: journald knows who it was.
	for _, fields := range []string{`"_COMM":"logger","_UID":"0"`, `"_COMM":"sshd","_UID":"1000"`, `"_UID":"0"`} {
		var x event.Event
		known, ok := parse([]byte(`j{"MESSAGE":"Failed password for root from 8.8.8.8 port 22 ssh2","SYSLOG_IDENTIFIER":"sshd","_PID":"7",`+fields+`}`), noon, boot, &x)
		if known || !ok {
			t.Errorf("%s speaks for sshd: %+v", fields, x)
		}
	}
	var x event.Event
	known, ok := parse([]byte(`j{"MESSAGE":"Failed password for root from 203.0.113.9 port 22 ssh2","SYSLOG_IDENTIFIER":"sshd","_PID":"7","_COMM":"sshd-session","_UID":"0"}`), noon, boot, &x)
	if !known || !ok || x.Logon.Remote != netip.MustParseAddr(truth) {
		t.Errorf("sshd itself is not believed: %+v", x)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("fNov 23 12:00:05 host sshd[42]: Failed password for x from 8.8.8.8 port 22 ssh2 from 203.0.113.9 port 5555 ssh2"))
	f.Add([]byte(`f<38>1 2026-11-23T12:00:05Z host sudo 42 - [a b="]\""] alice : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/id`))
	f.Add([]byte(`j{"MESSAGE":[70,97,105],"SYSLOG_IDENTIFIER":"sshd","_PID":"7","_COMM":"sshd","_UID":"0","__REALTIME_TIMESTAMP":"1764000000000000"}`))
	f.Add([]byte("fNov 23 12:00:05 host dropbear[9]: Login attempt for nonexistent user '' from ::1:80"))
	f.Add([]byte("fNov 23 12:00:05 host x[9]: pam_unix(vsftpd:auth): authentication failure; ruser=a rhost=1.2.3.4 user=b"))
	f.Fuzz(func(t *testing.T, line []byte) {
		var x event.Event
		known, ok := parse(line, noon, boot, &x)
		if known && !ok {
			t.Fatal("known, and yet of no format")
		}
		if !known {
			return
		}
		if x.Class == 0 || x.Activity == 0 || x.Boot > boot || x.Sensor != "logs" {
			t.Fatalf("%q: %+v", line, x)
		}
		for _, s := range []string{x.Logon.User, x.Logon.As, x.Logon.Service, x.Logon.Method, x.Logon.Command} {
			if len(s) > MaxLine || strings.ContainsAny(s, "\x00\n\r\x1b") {
				t.Fatalf("%q: %q", line, s)
			}
		}
		if a := x.Logon.Remote; a.IsValid() && (a.Zone() != "" || a.Is4In6()) {
			t.Fatalf("%q: address %s", line, a)
		}
	})
}

// FuzzName: sshd's line about a stranger, whatever its name, is about the stranger's address or nobody's.
func FuzzName(f *testing.F) {
	f.Add("x from 8.8.8.8 port 22 ssh2")
	f.Add(" from 8.8.8.8 port 22")
	f.Fuzz(func(t *testing.T, name string) {
		if len(name) > 1024 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return // sshd escapes these
		}
		for _, m := range []string{"Failed password for invalid user " + name + " from 203.0.113.9 port 5 ssh2", "Invalid user " + name + " from 203.0.113.9 port 5",
			"Failed publickey for invalid user " + name + " from 203.0.113.9 port 5 ssh2: RSA SHA256:x"} {
			var x event.Event
			known, ok := parse([]byte("fNov 23 12:00:05 host sshd[42]: "+m), noon, boot, &x)
			if !ok || known && x.Logon.Remote.IsValid() && x.Logon.Remote.String() != "203.0.113.9" {
				t.Fatalf("%q: %t %s", m, ok, x.Logon.Remote)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	line := []byte("fNov 23 12:00:05 host sshd[42]: Failed password for invalid user bob from 203.0.113.9 port 5555 ssh2")
	b.ReportAllocs()
	for b.Loop() {
		var x event.Event
		parse(line, noon, boot, &x)
	}
}
