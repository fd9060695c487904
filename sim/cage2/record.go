package cage2

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/omega-mesh/omega/sim/rng"
)

// Recorder writes episodes of the model in the form of the reference's recordings.
type Recorder struct {
	Version Version
	Red     Red
	Green   bool
	Policy  string
	Steps   int // an episode, 1 to MaxSteps
}

// Record plays one episode with d and writes it to w. The same seed gives the same bytes on every machine.
func (c Recorder) Record(w io.Writer, d Policy, seed uint64) error {
	if c.Steps < 1 || c.Steps > MaxSteps {
		return fmt.Errorf("an episode of %d steps; from 1 to %d", c.Steps, MaxSteps)
	}
	source := rng.Derive(seed, uint64(c.Red))
	world := NewWorld(c.Version, c.Red, c.Green, source)
	d.Begin(rng.Derive(source.State(), 1))
	var head Header
	head.Episode.Red, head.Episode.Blue, head.Episode.Green, head.Episode.Steps = c.Red.String(), c.Policy, c.Green, c.Steps
	head.Seed, head.Observation, head.Privileges = seed, Observation(0).String(), world.privileges()
	out := json.NewEncoder(w)
	if err := out.Encode(head); err != nil {
		return err
	}
	var open roster
	var o Observation
	for t := range c.Steps {
		a := d.Act(o)
		memory := world.memory
		open.blue(a)
		root := world.root
		r, green, m := world.step(a)
		o = r.Observation
		line := Line{Step: t, Blue: blueLine(a, r.BlueOK), Red: redLine(m, r.RedOK), Observation: o.String(),
			Reward: float64(r.Reward) / 10, Privileges: world.privileges(), ServiceDown: digit(world.otDown), Sessions: map[string][]string{}}
		if m.Kind == ExploitMove && m.Exploit != NoExploit {
			line.Red.Ports = portList(memory[m.Target])
		}
		picked := -1
		if h := Host(m.Target); m.Kind == EscalateMove && r.RedOK && root>>h&1 == 0 {
			for picked = 0; open[h][picked] != m.Pick; picked++ {
			}
			esc := json.RawMessage(fmt.Sprintf("[%d,%d,%q]", picked, len(open[h]), account(h, m.Pick)))
			line.Red.Escalate = &esc
		}
		open.red(m, picked, r.RedOK)
		if green < Hosts {
			line.Green = &GreenLine{Type: "GreenPortScan", Host: green.String()}
		}
		for h := range Hosts {
			for _, k := range open[h] {
				line.Sessions[h.String()] = append(line.Sessions[h.String()], account(h, k))
			}
		}
		if err := out.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

func blueLine(a Action, ok bool) BlueLine {
	l := BlueLine{ID: int(a), OK: digit(ok)}
	switch v, h := a.Split(); v {
	case VerbSleep:
		l.Type, l.OK = "Sleep", -1
	case VerbMonitor:
		l.Type = "Monitor"
	default:
		l.Type, l.Host = verbNames[v], h.String()
	}
	return l
}

func redLine(m Move, ok bool) RedLine {
	l := RedLine{Type: m.Kind.String(), OK: digit(ok)}
	switch m.Kind {
	case MoveSleep:
		l.OK = -1
	case Sweep:
		l.Subnet = Subnet(m.Target).String()
	default:
		l.Host = Host(m.Target).String()
	}
	if m.Kind == ExploitMove && m.Exploit != NoExploit {
		l.Exploit = m.Exploit.String()
		if ok {
			seen := digit(m.Detected)
			l.Detected = &seen
		}
	}
	return l
}
