// Package logs is the sensor of what programs say of themselves: log-ons and their failures, sessions, sudo and su, jobs
// of cron, services that start, stop and fail, accounts that change. Where journald runs it is asked; elsewhere the
// classic files are followed, through rotation, truncation and absence. A Follower in the privileged half reads lines it
// does not look at and hands them over by a pipe; the Sensor in the other half reads what they say.
//
// A line is a claim, and parts of it are chosen by whoever knocks: a user name may read "x from 192.0.2.1 port 22 ssh2".
// What sshd itself wrote stands at the end of the line, so the right-most reading counts, and where two readings are
// possible the event has no address at all. Whether a claimed address was ever connected is for the detectors to ask of
// the kernel's own events. It decides nothing.
package logs
