package logs

import (
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
)

// readCron reads "(root) CMD (run-parts /etc/cron.hourly)".
func readCron(m string, x *event.Event) bool {
	rest, ok := strings.CutPrefix(m, "(")
	who, rest, ok2 := strings.Cut(rest, ") CMD (")
	if !ok || !ok2 {
		return false
	}
	x.Logon.User, x.Logon.Command = cut(who), cut(strings.TrimSpace(strings.TrimSuffix(rest, ")")))
	return made(x, event.ClassScheduledJob, event.ActivityJobRun)
}

// readUnit reads what systemd as pid 1 says of units: by journald's own fields where they are, else by its English.
func readUnit(e *entry, m string, x *event.Event) bool {
	if e.pid != 1 {
		return false // a user's own manager
	}
	service := func(name string, a event.Activity) bool {
		name, _, _ = strings.Cut(name, " - ")
		x.Logon.Command = cut(strings.TrimSuffix(name, "."))
		if x.Process.Unit = cut(e.unit); x.Process.Unit == "" && strings.Contains(x.Logon.Command, ".") && !strings.Contains(x.Logon.Command, " ") {
			x.Process.Unit = x.Logon.Command
		}
		return made(x, event.ClassScheduledJob, a)
	}
	switch {
	case e.job == "start" && strings.HasPrefix(m, "Started "), e.job == "" && strings.HasPrefix(m, "Started "):
		return service(m[len("Started "):], event.ActivityServiceStart)
	case strings.HasPrefix(m, "Stopped ") && !strings.HasPrefix(m, "Stopped target "):
		return service(m[len("Stopped "):], event.ActivityServiceStop)
	case strings.HasPrefix(m, "Failed to start "):
		x.Result = 1
		return service(m[len("Failed to start "):], event.ActivityServiceStart)
	}
	if unit, why, ok := strings.Cut(m, ": Failed with result '"); ok && !strings.ContainsRune(unit, ' ') {
		x.Result = 1
		service(unit, event.ActivityServiceStop)
		x.Logon.Method = cut(strings.TrimRight(why, "'."))
		return true
	}
	if unit, ok := strings.CutSuffix(m, ": Deactivated successfully."); ok && !strings.ContainsRune(unit, ' ') {
		return service(unit, event.ActivityServiceStop)
	}
	return false
}

// readLogind reads "New session 3 of user alice." and "Removed session 3."
func readLogind(m string, x *event.Event) bool {
	if rest, ok := strings.CutPrefix(m, "New session "); ok {
		id, who, ok := strings.Cut(rest, " of user ")
		x.Logon.Method, x.Logon.User = cut("session "+id), cut(strings.TrimSuffix(who, "."))
		return ok && logon(x, event.ActivitySessionOpen)
	}
	if rest, ok := strings.CutPrefix(m, "Removed session "); ok {
		x.Logon.Method = cut("session " + strings.TrimSuffix(rest, "."))
		return logon(x, event.ActivitySessionClose)
	}
	return false
}

// accountPhrases are shadow-utils' words: what stands before the account's name, and what ends it. A function, so that
// nobody can change the table.
func accountPhrases() [][3]string {
	return [][3]string{
		{"new user: name=", ",", "new user"},
		{"new group: name=", ",", "new group"},
		{"group added to /etc/group: name=", ",", "new group"},
		{"delete user '", "'", "user removed"},
		{"group '", "' removed", "group removed"},
		{"change user '", "'", "user changed"},
		{"changed user '", "'", "user changed"},
		{"changed password expiry for ", "", "expiry changed"},
		{"lock user '", "'", "user locked"},
		{"unlock user '", "'", "user unlocked"},
		{"add '", "' to ", "added to group"},
		{"delete '", "' from ", "removed from group"},
		{"password for '", "' changed", "password changed"},
	}
}

// readAccount reads useradd, usermod, userdel, groupadd, groupdel, gpasswd, passwd, chpasswd, chage, chfn and chsh.
func readAccount(program, m string, x *event.Event) bool {
	switch program {
	case "useradd", "usermod", "userdel", "groupadd", "groupmod", "groupdel", "gpasswd", "passwd", "chpasswd", "chage", "chfn", "chsh", "adduser", "deluser":
	default:
		return false
	}
	l := &x.Logon
	for _, p := range accountPhrases() {
		rest, ok := strings.CutPrefix(m, p[0])
		if !ok {
			continue
		}
		name := rest
		if p[1] != "" {
			if name, rest, ok = strings.Cut(rest, p[1]); !ok {
				continue
			}
		}
		l.As, l.Command = cut(name), p[2]
		if strings.HasSuffix(p[2], "group") && strings.Contains(rest, "'") {
			l.Command = cut(p[2] + " " + strings.Trim(rest[strings.IndexByte(rest, '\''):], "'"))
		}
		return logon(x, event.ActivityAccount)
	}
	if rest, ok := strings.CutPrefix(m, "user "); ok && program == "gpasswd" { // "user bob added by root to group sudo"
		if who, rest, ok := strings.Cut(rest, " added by "); ok {
			by, group, _ := strings.Cut(rest, " to group ")
			l.As, l.User, l.Command = cut(who), cut(by), cut("added to group "+group)
			return logon(x, event.ActivityAccount)
		}
	}
	return false
}
