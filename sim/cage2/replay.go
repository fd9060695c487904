package cage2

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/omega-mesh/omega/sim/replay"
)

// Mismatch and Report are how a replay is told.
type (
	Mismatch = replay.Mismatch
	Report   = replay.Report
)

// Replay plays every episode of a recording under the rules of v, with the actions and the chances as recorded, and
// compares at every step: the observation bits, the reward, red's privileges and sessions on every host, the state of
// the service, whether blue's and red's actions worked, which ports red remembers, and whether the named attacker could
// have made the move. The error is of reading; differences are in the report, under the name file.
func Replay(r io.Reader, v Version, file string, report *Report) error {
	in := NewReader(r)
	for {
		e, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := replayEpisode(e, v, file, report); err != nil {
			return fmt.Errorf("%w: episode at line %d: %w", ErrRecording, e.Line, err)
		}
	}
}

// ReplayDir replays every *.jsonl file of dir, in the order of their names.
func ReplayDir(dir string, v Version) (*Report, error) {
	files, err := replay.Files(dir)
	if err != nil {
		return nil, err
	}
	report := &Report{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		err = Replay(f, v, filepath.Base(name), report)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return report, nil
}

func replayEpisode(e *Episode, v Version, file string, report *Report) error {
	red, err := RedByName(e.Header.Episode.Red)
	if err != nil {
		return err
	}
	report.Episodes++
	s := NewState(v)
	mind := NewMind(red)
	var open roster
	where := Mismatch{File: file, Line: e.Line, Step: -1}
	compare := func(field, want, got string) {
		if want != got {
			m := where
			m.Field, m.Want, m.Got = field, want, got
			report.Add(m)
		}
	}
	compare("obs", e.Header.Observation, s.remembered.String())
	compare("priv", e.Header.Privileges, s.privileges())
	for i := range e.Steps {
		l := &e.Steps[i]
		where.Line, where.Step = e.Line+1+i, i
		report.Steps++
		if l.Blue.ID < 0 || l.Blue.ID >= Actions {
			return fmt.Errorf("step %d: blue action %d", i, l.Blue.ID)
		}
		blue := Action(l.Blue.ID)
		compare("b", strings.TrimSpace(l.Blue.Type+" "+l.Blue.Host), blue.String())
		m, err := l.Red.move()
		if err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		green := NoScan
		if l.Green != nil {
			var ok bool
			if green, ok = HostByName(l.Green.Host); !ok {
				return fmt.Errorf("step %d: green scans %q", i, l.Green.Host)
			}
		}
		if !mind.Follow(&s, m) {
			compare("move", m.String(), "not a move of "+red.String())
		}
		open.blue(blue)
		picked := -1
		if l.Red.Escalate != nil {
			var count int
			if picked, count, err = pick(*l.Red.Escalate); err != nil {
				return fmt.Errorf("step %d: esc is %s: %w", i, *l.Red.Escalate, err)
			}
			if m.Kind != EscalateMove {
				return fmt.Errorf("step %d: esc with the move %s", i, m)
			}
			there := open[m.Target]
			compare("esc", fmt.Sprintf("%d sessions", count), fmt.Sprintf("%d sessions", len(there)))
			if picked < len(there) {
				m.Pick = there[picked]
			} else {
				picked = -1
			}
		}
		if m.Kind == ExploitMove && m.Exploit != NoExploit {
			want := slices.Clone(l.Red.Ports)
			slices.Sort(want)
			got := portList(s.memory[m.Target])
			slices.Sort(got)
			compare("ports", fmt.Sprint(want), fmt.Sprint(got))
			if s.available(Host(m.Target))>>m.Exploit&1 == 0 {
				compare("x", m.Exploit.String(), "not open to red")
			}
		}
		got := s.Step(blue, green, m)
		mind.Learn(got.RedOK)
		open.red(m, picked, got.RedOK)

		compare("obs", l.Observation, got.Observation.String())
		compare("rew", fmt.Sprint(int(math.Round(l.Reward*10))), fmt.Sprint(got.Reward))
		compare("priv", l.Privileges, s.privileges())
		compare("ot", fmt.Sprint(l.ServiceDown), fmt.Sprint(digit(s.otDown)))
		if want := l.accounts(); !maps.Equal(want, s.accounts()) {
			compare("ses", fmt.Sprint(want), fmt.Sprint(s.accounts()))
		}
		if l.Blue.OK >= 0 {
			compare("b.ok", fmt.Sprint(l.Blue.OK), fmt.Sprint(digit(got.BlueOK)))
		}
		if l.Red.OK >= 0 {
			compare("r.ok", fmt.Sprint(l.Red.OK), fmt.Sprint(digit(got.RedOK)))
		}
	}
	return nil
}

func digit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (l *Line) accounts() map[string]int {
	m := map[string]int{}
	for h, list := range l.Sessions {
		for _, a := range list {
			m[h+" "+a]++
		}
	}
	return m
}

func (l *RedLine) move() (Move, error) {
	var m Move
	k := slices.Index(moveNames[:], l.Type)
	if k < 0 {
		return m, fmt.Errorf("red move %q", l.Type)
	}
	m.Kind = MoveKind(k)
	switch m.Kind {
	case MoveSleep:
		return m, nil
	case Sweep:
		n := slices.Index(subnetNames[:], l.Subnet)
		if n < 0 {
			return m, fmt.Errorf("red sweeps %q", l.Subnet)
		}
		m.Target = uint8(n)
		return m, nil
	}
	h, ok := HostByName(l.Host)
	if !ok {
		return m, fmt.Errorf("red's target %q", l.Host)
	}
	m.Target = uint8(h)
	if m.Kind == ExploitMove {
		m.Exploit = NoExploit
		if l.Exploit != "" {
			x := slices.Index(exploitNames[:], l.Exploit)
			if x < 0 {
				return m, fmt.Errorf("exploit %q", l.Exploit)
			}
			m.Exploit = Exploit(x)
		}
		m.Detected = l.Detected != nil && *l.Detected == 1
	}
	return m, nil
}

// pick reads which of how many sessions of a host was raised.
func pick(raw json.RawMessage) (index, count int, err error) {
	var fields []json.RawMessage
	if json.Unmarshal(raw, &fields) != nil || len(fields) != 3 ||
		json.Unmarshal(fields[0], &index) != nil || json.Unmarshal(fields[1], &count) != nil || index < 0 || index >= count {
		return 0, 0, errors.New("want [index, count, account]")
	}
	return index, count, nil
}
