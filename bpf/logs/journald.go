package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/omega-mesh/omega/bpf"
)

// How journalctl is brought back when it ends: at once, then with growing patience.
const (
	journalMin = time.Second
	journalMax = time.Minute
)

// journalctl finds the program in the folders where distributions put it: PATH is not asked, since root runs it.
func journalctl() (string, error) {
	for _, p := range [...]string{"/usr/bin/journalctl", "/bin/journalctl"} {
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", errors.New("there is no journalctl")
}

// journalArguments ask for new entries of the facilities auth, authpriv and cron, and for what pid 1 says, with the fields
// that are read and no others.
func journalArguments() []string {
	return []string{"--follow", "--lines=0", "--output=json", "--no-pager", "--quiet",
		"--output-fields=MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,UNIT,JOB_TYPE,JOB_RESULT,_COMM,_PID,_UID",
		"SYSLOG_FACILITY=4", "SYSLOG_FACILITY=10", "SYSLOG_FACILITY=9", "+", "_PID=1"}
}

// followJournal keeps a journalctl running, and hands its lines over.
func (f *Follower) followJournal(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = f.w.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	for wait := journalMin; ; wait = min(2*wait, journalMax) {
		began := time.Now()
		err := f.readJournal(ctx)
		if ctx.Err() != nil {
			return nil
		}
		f.state.Store(&[]bpf.Check{{Name: "sensor/logs", Detail: "journalctl ended: " + err.Error(), Lost: lostLogs}})
		f.log.Warn("journald is not followed; it is tried again", "err", err, "in", wait)
		if time.Since(began) > journalMax {
			wait = journalMin
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// readJournal is one life of journalctl. Should this process be killed, it ends at the next line it has for a pipe nobody reads.
func (f *Follower) readJournal(ctx context.Context) error {
	path, err := journalctl()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, journalArguments()...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "SYSTEMD_COLORS=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 2 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("logs: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("logs: %w", err)
	}
	f.state.Store(&[]bpf.Check{{Name: "sensor/logs", OK: true, Detail: "following journald by journalctl"}})
	r := bufio.NewReaderSize(out, MaxLine+1)
	var failed error
	for failed == nil {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			f.lost.tooLong.Add(1)
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = r.ReadSlice('\n')
			}
			line = nil
		}
		if err == nil && len(line) > 0 {
			err = f.hand(fromJournal, line[:len(line)-1])
		}
		failed = err
	}
	cancel()
	return errors.Join(failed, cmd.Wait())
}
