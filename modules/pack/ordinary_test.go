package pack

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// task is a piece of what hosts do all day; needs are programs without which it is left out.
type task struct{ name, needs, script string }

// soak begins the name of a task that is left to longer runs.
const soak = "at length: "

// ordinary is a host's ordinary life: people at work on it, its package manager, its jobs, its services.
func ordinary() []task {
	return []task{
		{"look around", "ps", `ls -la / /etc /var/log > /dev/null; df -h > /dev/null; ps aux > /dev/null; id; tail -n 5 /etc/services; du -s /etc > /dev/null; grep -c . /etc/passwd; find /etc -name '*.conf' > /dev/null`},
		{"package database", "dpkg", `dpkg -l > /dev/null; dpkg -L dpkg > /dev/null; dpkg --get-selections > /dev/null; dpkg-query -W > /dev/null`},
		{soak + "package lists", "apt-get", `dpkg -S /bin/sh; apt list --installed > /dev/null 2>&1; apt-cache policy > /dev/null; apt-get -s install dpkg > /dev/null`},
		{"install a package", "dpkg-deb", `mkdir -p /srv/pkg/DEBIAN /srv/pkg/usr/bin /srv/pkg/etc/cron.d /srv/pkg/lib/systemd/system /srv/pkg/etc/sudoers.d /srv/pkg/etc/profile.d /srv/pkg/lib/udev/rules.d /srv/pkg/etc/pam.d /srv/pkg/etc/init.d /srv/pkg/etc/logrotate.d
printf 'Package: ordinary\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: a service as packages bring them\n' > /srv/pkg/DEBIAN/control
printf '#!/bin/sh\nset -e\nuseradd --system --no-create-home ordinary 2>/dev/null || true\nusermod -aG adm ordinary || true\nchown ordinary /usr/bin/ordinary\nchmod 4755 /usr/bin/ordinary-su\nsystemctl daemon-reload 2>/dev/null || true\nsystemctl enable ordinary.service 2>/dev/null || true\nupdate-rc.d ordinary defaults 2>/dev/null || true\n' > /srv/pkg/DEBIAN/postinst
printf '#!/bin/sh\nuserdel ordinary 2>/dev/null || true\n' > /srv/pkg/DEBIAN/postrm
chmod 755 /srv/pkg/DEBIAN/postinst /srv/pkg/DEBIAN/postrm
cp /bin/true /srv/pkg/usr/bin/ordinary; cp /bin/true /srv/pkg/usr/bin/ordinary-su
echo '0 3 * * * root /usr/bin/ordinary' > /srv/pkg/etc/cron.d/ordinary; echo '[Service]' > /srv/pkg/lib/systemd/system/ordinary.service; echo '[Timer]' > /srv/pkg/lib/systemd/system/ordinary.timer
echo 'x ALL=(ALL) ALL' > /srv/pkg/etc/sudoers.d/ordinary; echo 'export A=1' > /srv/pkg/etc/profile.d/ordinary.sh; echo '# rule' > /srv/pkg/lib/udev/rules.d/99-ordinary.rules; echo 'auth required pam_unix.so' > /srv/pkg/etc/pam.d/ordinary; echo '#!/bin/sh' > /srv/pkg/etc/init.d/ordinary
dpkg-deb -b /srv/pkg /srv/ordinary.deb > /dev/null; dpkg -i --force-all /srv/ordinary.deb > /dev/null 2>&1; dpkg -x /srv/ordinary.deb /srv/unpacked; dpkg -P --force-all ordinary > /dev/null 2>&1`},
		{"compile in C", "gcc", `mkdir -p /home/dev/c; cd /home/dev/c; printf '#include <stdio.h>\nint main(void){puts("hello");return 0;}\n' > main.c; gcc -O2 -o hello main.c; ./hello; gcc -c main.c; ar rc lib.a main.o; strip hello; rm -f main.o
printf 'all:\n\tgcc -o h2 main.c\nclean:\n\trm -f h2\n' > Makefile; make > /dev/null 2>&1; make clean > /dev/null 2>&1`},
		{"build in Go", "go", `mkdir -p /home/dev/g; cd /home/dev/g; printf 'module hello\ngo 1.26\n' > go.mod; printf 'package main\nfunc main(){println("hello")}\n' > main.go; GOFLAGS=-mod=mod go build -o hello . ; ./hello; go vet . > /dev/null 2>&1; go fmt . > /dev/null`},
		{"version control", "git", `mkdir -p /home/dev/r; cd /home/dev/r; git init -q; git config user.email a@example.org; git config user.name a; for i in 1 2 3; do echo $i > f$i; git add .; git commit -q -m "change $i"; done; git log --oneline > /dev/null; git status > /dev/null; git checkout -q -b work; git gc -q; git diff HEAD~1 > /dev/null; cd /home/dev; git clone -q r r2; tar czf r.tgz r; rm -rf r2`},
		{"archives and backups", "tar", `mkdir -p /srv/backup; tar czf /srv/backup/etc.tgz /etc 2>/dev/null; tar tzf /srv/backup/etc.tgz > /dev/null; mkdir -p /srv/restore; tar xzf /srv/backup/etc.tgz -C /srv/restore 2>/dev/null; gzip -k /srv/backup/etc.tgz; cp -a /etc/default /srv/backup/; find /srv/backup -mtime +30 -delete; cp -p /etc/shadow /var/backups/shadow.bak 2>/dev/null; sha256sum /srv/backup/etc.tgz > /srv/backup/sums`},
		{"jobs of cron", "run-parts", `for i in 1 2 3 4 5; do sh -c 'cd / && test -x /usr/sbin/anacron || run-parts --report /etc/cron.hourly'; done; test -x /etc/cron.daily/dpkg && /etc/cron.daily/dpkg; sh -c '[ -x /usr/lib/php/sessionclean ] || true'; sh -c 'date +%s > /var/lib/last-run'; sh -c 'find /var/tmp -type f -atime +10 -delete'`},
		{"log rotation", "logrotate", `mkdir -p /var/log/app; for i in 1 2 3; do echo line >> /var/log/app/app.log; printf '/var/log/app/app.log {\n rotate 3\n compress\n missingok\n create 0640 root adm\n}\n' > /etc/logrotate.d/app; logrotate -f /etc/logrotate.d/app; done; logrotate -d /etc/logrotate.conf > /dev/null 2>&1`},
		{"settings changed by people", "sed", `sed -i 's/^#//' /etc/hosts; echo 'alias ll="ls -l"' >> /home/dev/aliases; cp /etc/hosts /etc/hosts.bak; mv /etc/hosts.bak /etc/hosts.old; chmod 644 /etc/hosts.old; chmod 755 /home/dev; chown -R 1000:1000 /home/dev; mkdir -p /home/dev/.config/app; echo 'a=1' > /home/dev/.config/app/config; ln -sf /etc/hosts /home/dev/hosts; touch -d yesterday /home/dev/old; rm -f /etc/hosts.old`},
		{"scripts", "python3", `python3 -c 'import json,sys; print(json.dumps({"a":1}))'; python3 -m compileall -q /home/dev > /dev/null 2>&1; perl -e 'print "x\n" for 1..3'; perl -MList::Util=sum -e 'print sum(1..10), "\n"'; awk -F: '{print $1}' /etc/passwd > /dev/null; bash -c 'for i in {1..20}; do echo $i; done' > /dev/null; sh -c 'set -e; trap "rm -f /var/tmp/lock" EXIT; touch /var/tmp/lock; true'`},
		{soak + "keys and log-ons", "sshd", `mkdir -p /run/sshd /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_test; ssh-keygen -q -t ed25519 -N '' -f /run/host_key; /usr/sbin/sshd -f /dev/null -h /run/host_key -p 2222 -o ListenAddress=127.0.0.1 -o PidFile=/run/sshd.pid -o UsePAM=no -o AuthorizedKeysFile=/root/.ssh/id_test.pub -o StrictModes=no -o PermitRootLogin=yes
for i in 1 2; do ssh -F /dev/null -i /root/.ssh/id_test -p 2222 -o StrictHostKeyChecking=accept-new -o ConnectTimeout=5 root@127.0.0.1 'uptime; df -h /' > /dev/null 2>&1; done; scp -F /dev/null -i /root/.ssh/id_test -P 2222 -q /etc/hosts root@127.0.0.1:/srv/hosts 2>/dev/null; kill $(cat /run/sshd.pid)`},
		{"services looked at", "systemctl", `systemctl --version > /dev/null; systemctl status > /dev/null 2>&1; systemctl list-timers > /dev/null 2>&1; journalctl -n 5 > /dev/null 2>&1; systemctl restart nginx > /dev/null 2>&1; systemctl reload ssh > /dev/null 2>&1`},
		{"certificates", "openssl", `mkdir -p /srv/tls; openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout /srv/tls/key.pem -out /srv/tls/cert.pem -days 1 2>/dev/null; openssl x509 -in /srv/tls/cert.pem -noout -text > /dev/null; openssl enc -aes-256-cbc -pbkdf2 -k x -in /etc/hosts -out /srv/tls/hosts.enc; echo aGVsbG8K | base64 -d > /dev/null`},
		{"a debugger", "strace", `strace -o /dev/null /bin/true; strace -f -o /dev/null sh -c 'id > /dev/null'`},
		{"accounts", "useradd", `useradd --system metrics 2>/dev/null; passwd -S root > /dev/null; getent passwd root > /dev/null; chage --help > /dev/null; su -s /bin/sh -c 'id' nobody > /dev/null; groups root > /dev/null`},
	}
}

// TestOrdinaryLife: nothing is found in a host's ordinary life, done for real under the kernel sensor; and what is done to
// the same host afterwards is found, so that the silence means something. SOAK_FOR has it live as long.
func TestOrdinaryLife(t *testing.T) {
	if testing.Short() {
		t.Skip("short: it lives for some seconds")
	}
	d, err := New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(context.Background())
	var mu sync.Mutex
	var at string
	findings := map[string]int{}
	var batch [1]*event.Event
	events, lives := 0, 0
	var spent time.Duration
	began := time.Now()
	s := newSandbox(t, func(e *event.Event) {
		mu.Lock()
		defer mu.Unlock()
		events++
		if e.Class == event.ClassProcess && e.Activity == event.ActivityExit {
			lives++
		}
		batch[0] = e
		start := time.Now()
		if err := d.Detect(context.Background(), batch[:], func(f event.Finding) {
			findings[f.RuleID]++
			if at != "attack" {
				t.Errorf("%s: %s: %+v %s", at, f.RuleID, f.Subject.Process, f.Subject.File)
			}
		}); err != nil {
			t.Error(err)
		}
		spent += time.Since(start)
	})
	long, _ := time.ParseDuration(os.Getenv("SOAK_FOR"))
	for round := 0; round == 0 || time.Since(began) < long; round++ {
		root, done, err := s.root()
		if err != nil {
			t.Skipf("no root folder to throw away: %v", err)
		}
		for _, x := range ordinary() {
			if _, err := exec.LookPath(x.needs); err != nil {
				if round == 0 {
					t.Logf("left out: %s, there is no %s", x.name, x.needs)
				}
				continue
			}
			if strings.HasPrefix(x.name, soak) && long == 0 || x.needs == "go" && !s.warm(root) {
				continue
			}
			mu.Lock()
			at = x.name
			mu.Unlock()
			start := time.Now()
			err := s.do(func() error { return os.WriteFile(filepath.Join(root, "run/task"), []byte(x.script+"\ntrue\n"), 0o644) })
			if err == nil {
				_, err = s.run(root, 0, "/bin/sh", "/run/task")
			}
			if err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
			if round == 0 {
				t.Logf("%-30s %s", x.name, time.Since(start).Round(time.Millisecond))
			}
		}
		done()
	}
	mu.Lock()
	t.Logf("%d processes lived, %d events in %s, %d findings; the pack took %s an event", lives, events, time.Since(began).Round(time.Second), len(findings), spent/time.Duration(max(events, 1)))
	at = "attack"
	mu.Unlock()
	for _, a := range actions(t) {
		if live := slices.Contains([]string{"omega.persistence.cron", "omega.persistence.preload", "omega.privilege-escalation.setuid-bit", "omega.defense-evasion.hidden-process", "omega.discovery.burst"}, a.rule); !live || a.kind != "positive" {
			continue
		}
		if out, err := s.perform(&a); err != nil {
			t.Errorf("%s: %v: %s", a.rule, err, out)
		}
		mu.Lock()
		if findings[a.rule] == 0 {
			t.Errorf("%s was done and not found; found were %v", a.rule, slices.Sorted(maps.Keys(findings)))
		}
		mu.Unlock()
	}
}

// warm says whether Go's cache of compiled packages is seen in root: without it a build takes minutes.
func (s *sandbox) warm(root string) bool {
	out, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return false
	}
	dir := strings.TrimSpace(string(out))
	return s.do(func() error {
		list, err := os.ReadDir(filepath.Join(root, dir))
		if err == nil && (len(list) < 100 || dir != "/root/.cache/go-build") {
			err = os.ErrNotExist
		}
		return err
	}) == nil
}
