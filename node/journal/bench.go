package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/fields"
)

// Benchmarks are the figures of the journal; the load is a process-heavy one.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{
		{Name: "journal/append", Also: "sensor/journal/append", Unit: "events/s", Limit: 500_000, HigherIsBetter: true, Measure: func() (float64, error) {
			return measure(2_000_000, func(j *Journal, took time.Duration) (float64, error) { return 2_000_000 / took.Seconds(), nil })
		}},
		{Name: "journal/size", Also: "sensor/journal/size", Unit: "B/event", Limit: 60, Measure: func() (float64, error) {
			return measure(300_000, func(j *Journal, _ time.Duration) (float64, error) {
				s := j.Stats()
				return float64(s.Bytes) / float64(s.Events), nil
			})
		}},
		{Name: "journal/hunt-day", Unit: "ms", Limit: 2000, Measure: func() (float64, error) {
			return measure(100*86_400, hunt) // 100 events a second, for a day
		}},
	}
}

// measure appends n events of a process-heavy load to a journal on the disk, without a drop, and asks f.
func measure(n int, f func(*Journal, time.Duration) (float64, error)) (value float64, err error) {
	dir, err := os.MkdirTemp("", "omega-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	j, err := Open(dir, Options{Budget: defaultBudget})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-done)
	}()
	events := make([]event.Event, 3*4096)
	for i := range events {
		processLife(i, &events[i])
	}
	const day = int64(24 * time.Hour)
	began := time.Now()
	for i := range n {
		e := &events[i%len(events)]
		e.Time = 1_800_000_000_000_000_000 + int64(float64(i)/float64(n)*float64(day)) // spread over a day
		j.Append(e)
		if i%maxEvents == 0 && len(j.full) > 1 { // the load is as fast as the journal takes it
			if err := j.Flush(ctx); err != nil {
				return 0, err
			}
		}
	}
	if err := j.Flush(ctx); err != nil {
		return 0, err
	}
	took := time.Since(began)
	if s := j.Stats(); s.Events != uint64(n) {
		return 0, fmt.Errorf("%d of %d events were stored: %v", s.Events, n, s.Dropped)
	}
	return f(j, took)
}

// hunt looks for a command line that one event in the middle of the day has.
func hunt(j *Journal, _ time.Duration) (float64, error) {
	odd := processLife(1, &event.Event{})
	odd.Time, odd.Process.Args = 1_800_000_000_000_000_000+int64(12*time.Hour), "curl\x00-s\x00http://203.0.113.9/x"
	j.Append(odd)
	field, _ := fields.Find("args")
	need := fields.Need{Field: field, Op: fields.Contains, Text: "203.0.113.9/x"}
	found := 0
	began := time.Now()
	err := j.Read(context.Background(), Query{Needs: fields.Needs{{need}}, Match: func(e *event.Event) bool { return need.Holds(e.Process.Args) }},
		func(*event.Event) error { found++; return nil })
	if err == nil && found != 1 {
		err = fmt.Errorf("%d events found", found)
	}
	return float64(time.Since(began)) / float64(time.Millisecond), err
}

// processLife makes e the i-th event of a process-heavy load, a build: of each process a fork, an exec and an exit.
func processLife(i int, e *event.Event) *event.Event {
	n := uint64(i / 3)
	z := n * 0x9e3779b97f4a7c15 // times of a real host do not come in even steps
	boot := 5_000_000_000 + n*2_000_003 + uint64(i%3)*210_017 + (z*uint64(1+i%3))>>43
	*e = event.Event{Class: event.ClassProcess, Activity: event.Activity(i%3) + event.ActivityFork, Time: 1_800_000_000_000_000_000 + int64(boot), Boot: boot, Sensor: "kernel"}
	tools := [...]string{"/usr/bin/gcc-12", "/usr/bin/sh", "/usr/bin/as", "/usr/bin/ld", "/usr/bin/make", "/usr/bin/sed", "/usr/bin/mv", "/usr/bin/rm"}
	tool := n % uint64(len(tools))
	e.Process = event.Process{Key: event.ProcessKey{PID: uint32(1000 + n%30000), Start: 5_000_000_000 + n*2_000_003 - z>>44}, Parent: event.ProcessKey{PID: uint32(900 + n%7), Start: 4_000_000_000 + n%7},
		UID: 1000, GID: 1000, EUID: 1000, EGID: 1000, Exe: tools[tool], Comm: filepath.Base(tools[tool]), CWD: fmt.Sprintf("/home/build/src/part%d", n/64%40),
		Inode: 4000 + tool, Device: 0xfe01, CgroupID: 7777, MountNS: 4026531840, PIDNS: 4026531836, NetNS: 4026531992, Session: 880, LoginUID: 1000, ParentExe: "/usr/bin/make",
		Ancestors: "/usr/bin/bash\x00/usr/sbin/sshd\x00/usr/lib/systemd/systemd", TTY: "pts/3", Unit: "session-4.scope"}
	if i%3 == 1 {
		e.Process.Args = fmt.Sprintf("%s\x00-O2\x00-Wall\x00-Iinclude\x00-c\x00file%d.c\x00-o\x00file%d.o", e.Process.Comm, n, n)
	}
	return e
}
