package logs

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
)

// maxText bounds every text that goes into an event, in bytes.
const maxText = 1024

// read fills x from an entry, and says whether it says anything an event is made of.
func read(e *entry, x *event.Event) bool {
	m := strings.TrimRight(e.message, " \t")
	l := &x.Logon
	l.Service = e.program
	switch {
	case e.program == "sshd", strings.HasPrefix(e.program, "sshd-"):
		l.Service = "sshd"
		return readPAM(m, x, false) || readSSH(m, x)
	case e.program == "dropbear":
		return readDropbear(m, x)
	case e.program == "sudo":
		return readPAM(m, x, true) || readSudo(m, x)
	case e.program == "su", e.program == "su-l":
		return readPAM(m, x, true) || readSu(m, x)
	case e.program == "pkexec":
		return readPAM(m, x, true) || readPkexec(m, x)
	case e.program == "doas":
		return readDoas(m, x)
	case strings.EqualFold(e.program, "cron"), strings.EqualFold(e.program, "crond"), e.program == "anacron":
		l.Service = "cron"
		return readCron(m, x) || readPAM(m, x, true)
	case e.program == "systemd":
		return readUnit(e, m, x)
	case e.program == "systemd-logind":
		return readLogind(m, x)
	case e.program == "login":
		return readPAM(m, x, true) || readLogin(m, x)
	}
	return readAccount(e.program, m, x) || readPAM(m, x, true)
}

// made sets what an event is.
func made(x *event.Event, c event.Class, a event.Activity) bool {
	x.Class, x.Activity = c, a
	return true
}

func logon(x *event.Event, a event.Activity) bool { return made(x, event.ClassAuthentication, a) }

func failed(x *event.Event) bool {
	x.Result = 13 // EACCES
	return logon(x, event.ActivityLogonFailure)
}

// readSSH reads OpenSSH's auth.c and packet.c. User names are the stranger's; sshd's own words stand after them.
func readSSH(m string, x *event.Event) bool {
	l := &x.Logon
	m, _ = strings.CutSuffix(m, " [preauth]")
	m = strings.TrimPrefix(m, "error: ")
	if rest, ok := strings.CutPrefix(m, "Failed "); ok {
		return readMethod(rest, x) && failed(x)
	}
	if rest, ok := strings.CutPrefix(m, "Accepted "); ok {
		return readMethod(rest, x) && logon(x, event.ActivityLogonSuccess)
	}
	for _, p := range [...]string{"Invalid user ", "Illegal user "} {
		if rest, ok := strings.CutPrefix(m, p); ok {
			l.Method = "none"
			return readFrom(rest, x) && failed(x)
		}
	}
	if rest, ok := strings.CutPrefix(m, "maximum authentication attempts exceeded for "); ok {
		l.Method = "too many"
		rest = strings.TrimPrefix(strings.TrimSuffix(rest, " ssh2"), "invalid user ")
		return readFrom(rest, x) && failed(x)
	}
	if rest, ok := strings.CutPrefix(m, "PAM: Authentication failure for "); ok {
		l.Method = "keyboard-interactive/pam"
		return readFrom(strings.TrimPrefix(rest, "illegal user "), x) && failed(x)
	}
	if rest, ok := strings.CutPrefix(m, "Disconnected from user "); ok {
		i := strings.LastIndex(rest, " port ")
		if i < 0 {
			return false
		}
		j := strings.LastIndexByte(rest[:i], ' ')
		if j < 0 || !endpoint(rest[j+1:i], rest[i+6:], x) {
			return false
		}
		l.User = rest[:j]
		return logon(x, event.ActivitySessionClose)
	}
	if rest, ok := strings.CutPrefix(m, "User "); ok && strings.Contains(rest, " not allowed because ") {
		i := strings.LastIndex(rest, " not allowed because ")
		l.Method = "not allowed"
		return readFrom(rest[:i], x) && failed(x)
	}
	return false
}

// readMethod reads "METHOD for [invalid user ]USER from ADDRESS port PORT ssh2[: KEY]".
func readMethod(m string, x *event.Event) bool {
	method, rest, ok := strings.Cut(m, " for ")
	if !ok || len(method) > 64 {
		return false
	}
	x.Logon.Method = method
	rest = strings.TrimPrefix(rest, "invalid user ")
	if own, ok := strings.CutSuffix(rest, " ssh2"); ok {
		return readFrom(own, x)
	}
	// A key, or a certificate with an identity that its maker chose, follows. Then a reading is sure only if it is the one.
	i := strings.Index(rest, " ssh2: ")
	if i < 0 {
		return false
	}
	if strings.Count(rest, " from ") == 1 {
		return readFrom(rest[:i], x)
	}
	x.Logon.User = cut(rest[:strings.Index(rest, " from ")])
	return true
}

// readFrom reads "USER from ADDRESS[ port PORT]", the right-most: a user name may contain the words, but it ends before
// sshd's own.
func readFrom(m string, x *event.Event) bool {
	i := strings.LastIndex(m, " from ")
	if i < 0 {
		return false
	}
	address, port, _ := strings.Cut(m[i+6:], " port ")
	if !endpoint(address, port, x) {
		return false
	}
	x.Logon.User = cut(m[:i])
	return true
}

// endpoint sets where a log-on came from. A name instead of an address (UseDNS) is what its owner's DNS says: no address.
func endpoint(address, port string, x *event.Event) bool {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	a = a.Unmap().WithZone("")
	x.Logon.Remote = a
	if port == "" {
		return true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		x.Logon.Remote = netip.Addr{}
		return false
	}
	x.Network.Protocol, x.Network.Inbound, x.Network.Remote = 6, true, netip.AddrPortFrom(a, uint16(n))
	return true
}

// readDropbear reads Dropbear's svr-auth.c: "… from ADDRESS:PORT" at the end.
func readDropbear(m string, x *event.Event) bool {
	l := &x.Logon
	i := strings.LastIndex(m, " from ")
	if i < 0 {
		return false
	}
	ap, err := netip.ParseAddrPort(m[i+6:])
	if err != nil { // IPv6 without brackets
		j := strings.LastIndexByte(m, ':')
		if j < i || !endpoint(m[i+6:j], m[j+1:], x) {
			return false
		}
	} else if !endpoint(ap.Addr().String(), strconv.Itoa(int(ap.Port())), x) {
		return false
	}
	m = m[:i]
	if j, k := strings.IndexByte(m, '\''), strings.LastIndexByte(m, '\''); j >= 0 && k > j {
		l.User = cut(m[j+1 : k])
	}
	switch {
	case strings.HasPrefix(m, "Bad password attempt for "), strings.HasPrefix(m, "Bad PAM password attempt for "):
		l.Method = "password"
		return failed(x)
	case strings.HasPrefix(m, "Login attempt for nonexistent user"):
		l.Method = "none"
		return failed(x)
	case strings.HasPrefix(m, "Password auth succeeded for "), strings.HasPrefix(m, "PAM password auth succeeded for "):
		l.Method = "password"
		return logon(x, event.ActivityLogonSuccess)
	case strings.HasPrefix(m, "Pubkey auth succeeded for "):
		l.Method = "publickey"
		if j := strings.Index(m, "' with "); j > 0 {
			if k := strings.IndexByte(m, '\''); k < j {
				l.User = cut(m[k+1 : j])
			}
		}
		return logon(x, event.ActivityLogonSuccess)
	}
	return false
}

// readPAM reads pam_unix and its like: "pam_unix(SERVICE:TYPE): …". Of sshd the failures are left to sshd's own lines, which
// come for each of them as well.
func readPAM(m string, x *event.Event, failures bool) bool {
	if !strings.HasPrefix(m, "pam_") {
		return false
	}
	head, rest, ok := strings.Cut(m, "): ")
	if !ok {
		return false
	}
	_, what, ok := strings.Cut(head, "(")
	service, kind, ok2 := strings.Cut(what, ":")
	if !ok || !ok2 || len(service) > 64 {
		return false
	}
	l := &x.Logon
	l.Service = service
	switch {
	case kind == "session" && strings.HasPrefix(rest, "session opened for user "):
		rest = strings.TrimPrefix(rest, "session opened for user ")
		who, by, _ := strings.Cut(rest, " by ")
		l.User = cut(account(who))
		if by = account(by); by != "" && by != l.User {
			l.As, l.User = l.User, cut(by)
		}
		return logon(x, event.ActivitySessionOpen)
	case kind == "session" && strings.HasPrefix(rest, "session closed for user "):
		l.User = cut(account(strings.TrimPrefix(rest, "session closed for user ")))
		return logon(x, event.ActivitySessionClose)
	case kind == "chauthtok" && strings.HasPrefix(rest, "password changed for "):
		l.As, l.Command = cut(strings.TrimPrefix(rest, "password changed for ")), "password changed"
		return logon(x, event.ActivityAccount)
	case failures && kind == "auth" && strings.HasPrefix(rest, "authentication failure;"):
		// logname= uid= euid= tty= ruser= rhost= user=: ruser and user are the stranger's own words.
		l.Method = "pam"
		if _, user, ok := strings.Cut(rest, " user="); ok {
			l.User = cut(user)
		}
		if strings.Count(rest, "rhost=") == 1 {
			_, host, _ := strings.Cut(rest, "rhost=")
			host, _, _ = strings.Cut(host, " ")
			endpoint(host, "", x)
		}
		return failed(x)
	}
	return false
}

// account is "root" of "root(uid=0)".
func account(s string) string {
	s, _, _ = strings.Cut(s, "(uid=")
	return s
}

// readSudo reads "USER : [WHY ; ]TTY=… ; PWD=… ; USER=… ; COMMAND=…".
func readSudo(m string, x *event.Event) bool {
	who, rest, ok := strings.Cut(m, " : ")
	i := strings.Index(rest, "COMMAND=")
	if !ok || i < 0 {
		return false
	}
	l := &x.Logon
	l.User, l.Command, l.Method = cut(strings.TrimSpace(who)), cut(rest[i+8:]), "sudo"
	// The working folder is the user's own word, and comes before: the right-most USER counts.
	if j := strings.LastIndex(rest[:i], "USER="); j >= 0 {
		l.As, _, _ = strings.Cut(rest[j+5:i], " ;")
		l.As = cut(l.As)
	}
	logon(x, event.ActivitySudo)
	if !strings.HasPrefix(rest, "TTY=") && !strings.HasPrefix(rest, "PWD=") && !strings.HasPrefix(rest, "HOST=") {
		x.Result = 13
	}
	return true
}

// readSu reads util-linux and shadow: "(to root) alice on pts/1", "FAILED SU (to root) alice on pts/1", "Successful su for
// root by alice".
func readSu(m string, x *event.Event) bool {
	l := &x.Logon
	l.Method = "su"
	if rest, ok := strings.CutPrefix(m, "Successful su for "); ok {
		l.As, l.User, ok = strings.Cut(rest, " by ")
		return ok && logon(x, event.ActivitySudo)
	}
	rest, bad := strings.CutPrefix(m, "FAILED SU ")
	rest, ok := strings.CutPrefix(rest, "(to ")
	if !ok {
		return false
	}
	as, rest, ok := strings.Cut(rest, ") ")
	i := strings.LastIndex(rest, " on ")
	if !ok || i < 0 {
		return false
	}
	l.As, l.User = cut(as), cut(rest[:i])
	if bad {
		return failed(x)
	}
	return logon(x, event.ActivitySudo)
}

// readPkexec reads "alice: Executing command [USER=root] [TTY=…] [CWD=…] [COMMAND=…]".
func readPkexec(m string, x *event.Event) bool {
	who, rest, ok := strings.Cut(m, ": Executing command [USER=")
	if !ok {
		return false
	}
	as, rest, ok := strings.Cut(rest, "]")
	_, command, ok2 := strings.Cut(rest, "[COMMAND=")
	if !ok || !ok2 {
		return false
	}
	x.Logon.User, x.Logon.As, x.Logon.Command, x.Logon.Method = cut(who), cut(as), cut(strings.TrimSuffix(command, "]")), "pkexec"
	return logon(x, event.ActivitySudo)
}

// readDoas reads "alice ran command ls as root from /home/alice".
func readDoas(m string, x *event.Event) bool {
	who, rest, ok := strings.Cut(m, " ran command ")
	i := strings.LastIndex(rest, " as ")
	if !ok || i < 0 {
		return false
	}
	as, _, _ := strings.Cut(rest[i+4:], " from ")
	x.Logon.User, x.Logon.As, x.Logon.Command, x.Logon.Method = cut(who), cut(as), cut(rest[:i]), "doas"
	return logon(x, event.ActivitySudo)
}

// readLogin reads util-linux's login.
func readLogin(m string, x *event.Event) bool {
	l := &x.Logon
	l.Method = "password"
	if strings.HasPrefix(m, "FAILED LOGIN") {
		if _, rest, ok := strings.Cut(m, " FOR "); ok {
			rest, _, _ = strings.Cut(strings.TrimPrefix(rest, "'"), "', ")
			l.User = cut(rest)
		}
		return failed(x)
	}
	if _, who, ok := strings.Cut(m, "LOGIN ON "); ok {
		if _, who, ok = strings.Cut(who, " BY "); ok {
			l.User = cut(who)
			return logon(x, event.ActivityLogonSuccess)
		}
	}
	return false
}

// cut bounds a text.
func cut(s string) string {
	if len(s) > maxText {
		return s[:maxText]
	}
	return s
}
