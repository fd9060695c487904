package world

import (
	"net/netip"
	"slices"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// attack is one turn of an attacker: of the kinds of step open to it, the most rewarding; among those, any.
func (w *World) attack(a int32) {
	w.result.Steps++
	if w.obey(a) {
		return
	}
	hosts := int32(len(w.rooted))
	sources := hosts + int32(len(w.net.s.Attackers))
	w.footholds(a)
	best := actions
	w.candidates = w.candidates[:0]
	consider := func(k Action, h int32) {
		if k < best {
			best = k
			w.candidates = w.candidates[:0]
		}
		if k == best {
			w.candidates = append(w.candidates, h)
		}
	}
	for h := range hosts {
		i := a*hosts + h
		if !w.known[i] || w.privilege[i] > 0 && w.burned[a*sources+w.via[i]] {
			continue
		}
		switch {
		case w.privilege[i] == 2:
			if !w.looted[i] {
				consider(Loot, h)
			}
			continue
		case w.privilege[i] == 1 && w.net.escalate[h] > 0 && w.pushed[i] < patience:
			consider(Escalate, h)
		case w.privilege[i] == 0 && best >= Scan && !w.scanned[i]:
			if w.sourceFor(h, 0) >= 0 {
				consider(Scan, h)
			}
		case w.privilege[i] == 0 && best >= Exploit && w.scanned[i] && w.tried[i] < patience && w.wayIn(h) >= 0:
			consider(Exploit, h)
		}
	}
	if best > Logon {
		for c := range w.net.opens {
			if !w.secrets[int(a)*len(w.net.opens)+c] {
				continue
			}
			for _, d := range w.net.opens[c] {
				h := d.host
				i := a*hosts + h
				if w.known[i] && w.privilege[i] == 0 && w.sourceFor(h, logonPort) >= 0 {
					consider(Logon, h)
				}
			}
		}
	}
	if best > Sweep {
		for z := range w.net.zones {
			if !w.swept[int(a)*len(w.net.zones)+z] && w.zoneSource(int32(z), 0) >= 0 {
				consider(Sweep, int32(z))
			}
		}
	}
	if best == actions {
		return // nothing left to do from here
	}
	target := w.candidates[w.rand.Below(uint32(len(w.candidates)))]
	if best == Sweep {
		w.sweep(a, target)
		return
	}
	w.onHost(a, best, target)
}

// logonPort is where stolen secrets are used.
const logonPort = 22

// footholds finds, for each zone, a machine that attacker a can act from: one that it has not seen refused, and whose
// session was not opened from one that was.
func (w *World) footholds(a int32) {
	hosts := int32(len(w.rooted))
	sources := hosts + int32(len(w.net.s.Attackers))
	for z := range w.foothold {
		w.foothold[z] = -1
	}
	if !w.burned[a*sources+hosts+a] {
		w.foothold[w.net.origin[a]] = hosts + a
	}
	for h := range hosts {
		if w.privilege[a*hosts+h] == 0 {
			continue
		}
		if w.burned[a*sources+w.via[a*hosts+h]] { // a session is steered through the machine it was opened from
			w.burned[a*sources+h] = true
		}
		if z := w.net.zone[h]; w.foothold[z] < 0 && !w.burned[a*sources+h] {
			w.foothold[z] = h
		}
	}
}

// zoneSource is a machine from which zone z can be reached on a port (0: on any), or -1.
func (w *World) zoneSource(z int32, p uint16) int32 {
	for _, r := range w.net.from[z] {
		if w.foothold[r.zone] >= 0 && (p == 0 || r.open(p)) {
			return w.foothold[r.zone]
		}
	}
	return -1
}

func (w *World) sourceFor(h int32, p uint16) int32 { return w.zoneSource(w.net.zone[h], p) }

// wayIn is the first reachable port of h that looks like a way in, as an index into net.weak, or -1.
func (w *World) wayIn(h int32) int {
	for i, p := range w.net.weak[h] {
		if w.sourceFor(h, p.number) >= 0 {
			return i
		}
	}
	return -1
}

// sweep finds the hosts of a zone.
func (w *World) sweep(a, zone int32) {
	source := w.zoneSource(zone, 0)
	w.swept[int(a)*len(w.net.zones)+int(zone)] = true
	hosts := int32(len(w.rooted))
	for h := range hosts {
		if w.net.zone[h] == zone {
			w.known[a*hosts+h] = true
		}
	}
	if w.OnStep != nil {
		w.OnStep(Step{At: time.Duration(w.now), Actor: w.net.s.Attackers[a].Name, Action: Sweep.String(), Technique: Sweep.Technique(),
			From: w.net.address[source].String(), To: w.net.zones[zone], OK: true})
	}
}

// onHost carries out one step against a host.
func (w *World) onHost(a int32, k Action, h int32) {
	hosts := int32(len(w.rooted))
	i := a*hosts + h
	host := &w.net.s.Hosts[h]
	s := Step{At: time.Duration(w.now), Actor: w.net.s.Attackers[a].Name, Action: k.String(), Technique: k.Technique(), To: host.Name}
	var target port
	source := w.via[i]
	switch k {
	case Scan:
		source = w.sourceFor(h, 0)
	case Logon:
		source = w.sourceFor(h, logonPort)
		target.number = logonPort
	case Exploit:
		w.candidates = w.candidates[:0]
		for j, p := range w.net.weak[h] {
			if w.sourceFor(h, p.number) >= 0 {
				w.candidates = append(w.candidates, int32(j))
			}
		}
		target = w.net.weak[h][w.candidates[w.rand.Below(uint32(len(w.candidates)))]]
		source = w.sourceFor(h, target.number)
	}
	s.Port = target.number
	if w.OnStep != nil {
		s.From = w.net.address[source].String()
	}
	if source != h && w.refused[source] > w.now {
		s.Refused = true
		w.result.Refused++
		w.burned[a*(hosts+int32(len(w.net.s.Attackers)))+source] = true
		w.show(h, event.ClassNetwork, event.ActivityRefuse, source, target.number, "", 0)
		w.step(s)
		return
	}
	switch k {
	case Loot:
		w.looted[i] = true
		for _, c := range w.net.lies[h] {
			w.secrets[int(a)*len(w.net.opens)+int(c)] = true
		}
		for _, l := range w.net.leaves[h] {
			if w.left[l.number] {
				w.secrets[int(a)*len(w.net.opens)+int(l.credential)] = true
			}
		}
		s.OK = true
		w.show(h, event.ClassProcess, event.ActivityExec, source, 0, "/usr/bin/find", 0)
	case Escalate:
		w.pushed[i]++
		if s.OK = w.rand.Chance(w.net.escalate[h]); s.OK {
			w.become(a, h, 2)
		}
		w.show(h, event.ClassProcess, event.ActivityExec, source, 0, "/usr/bin/pkexec", 1000)
	case Logon:
		level := uint8(1)
		for c, doors := range w.net.opens {
			if w.secrets[int(a)*len(w.net.opens)+c] && slices.Contains(doors, door{h, true}) {
				level = 2
				break
			}
		}
		w.via[i] = source
		w.become(a, h, level)
		s.OK = true
		w.show(h, event.ClassAuthentication, event.ActivityLogonSuccess, source, logonPort, "", 0)
	case Exploit:
		w.tried[i]++
		w.show(h, event.ClassNetwork, event.ActivityAccept, source, target.number, "", 0)
		if s.OK = w.rand.Chance(target.exploit); s.OK {
			w.via[i] = source
			level, uid := uint8(1), uint32(33)
			if target.root {
				level, uid = 2, 0
			}
			w.become(a, h, level)
			w.show(h, event.ClassProcess, event.ActivityExec, source, target.number, "/bin/sh", uid)
		}
	case Scan:
		w.scanned[i] = true
		s.OK = true
		for _, v := range host.Services {
			w.show(h, event.ClassNetwork, event.ActivityProbe, source, v.Port, "", 0)
		}
	}
	switch {
	case target.decoy:
		s.Caught = "decoy"
	case w.rand.Chance(host.Detect * k.loudness()):
		s.Caught = "sensor"
	}
	if s.Caught != "" {
		w.result.Caught++
		if source != h {
			w.found(source, h, target.decoy)
		}
	}
	w.step(s)
}

func (w *World) step(s Step) {
	if w.OnStep != nil {
		w.OnStep(s)
	}
}

// become raises what attacker a holds on h.
func (w *World) become(a, h int32, level uint8) {
	i := a*int32(len(w.rooted)) + h
	if level == 2 && w.privilege[i] < 2 {
		w.settle()
		if w.rooted[h]++; w.rooted[h] == 1 {
			w.rate += w.net.s.Hosts[h].Value
		}
	}
	w.privilege[i] = max(w.privilege[i], level)
}

// logon is one logon of a user.
func (w *World) logon(u int32) {
	from := w.net.userHost[u]
	which := w.rand.Below(uint32(len(w.net.userTo[u])))
	to := w.net.userTo[u][which]
	w.result.Logons++
	s := Step{At: time.Duration(w.now), Actor: "user", Action: UserLogon.String(), To: w.net.s.Hosts[to].Name, Port: logonPort, OK: true}
	switch {
	case from != to && w.refused[from] > w.now:
		w.result.HarmedLogons++
		s.OK, s.Refused = false, true
		w.show(to, event.ClassNetwork, event.ActivityRefuse, from, logonPort, "", 0)
	default:
		w.show(to, event.ClassAuthentication, event.ActivityLogonSuccess, from, logonPort, "", 0)
		w.leave(u, int32(which), to)
		if from != to && w.rand.Chance(w.net.s.Hosts[to].FalseRate) {
			s.Caught = "sensor"
			w.found(from, to, false)
		}
	}
	if w.OnStep != nil {
		s.From = w.net.address[from].String()
		w.OnStep(s)
	}
}

// leave puts the secret of a user's account into the memory of a host it logged on to, for whoever is root there.
func (w *World) leave(u, which, host int32) {
	if w.net.s.Users[u].Account == "" || w.left[w.net.trail[u]+which] {
		return
	}
	w.left[w.net.trail[u]+which] = true
	for a := range w.net.s.Attackers {
		w.looted[a*len(w.rooted)+int(host)] = false // there is something new to find
	}
}

// asleep is how long until user u's work begins; 0 while it works.
func (w *World) asleep(u int32) int64 {
	x := &w.net.s.Users[u]
	clock := w.now % int64(day)
	switch {
	case clock < int64(x.From):
		return int64(x.From) - clock
	case clock >= int64(x.until()):
		return int64(day) - clock + int64(x.From)
	}
	return 0
}

// show gives a host's sensor what it would have seen of a step.
func (w *World) show(h int32, class event.Class, activity event.Activity, source int32, number uint16, exe string, uid uint32) {
	if w.OnEvent == nil {
		return
	}
	w.seen = event.Event{Class: class, Activity: activity, Time: w.now, Boot: uint64(w.now), Sensor: "simulation"}
	w.seen.Network.Protocol = 6
	w.seen.Network.Inbound = true
	w.seen.Network.Local = netip.AddrPortFrom(w.net.address[h], number)
	w.seen.Network.Remote = netip.AddrPortFrom(w.net.address[source], 40000)
	switch class {
	case event.ClassProcess:
		w.seen.Network = event.Network{}
		w.seen.Process = event.Process{Exe: exe, UID: uid, EUID: uid}
		if number != 0 { // a shell that an exploit hung on its connection
			w.seen.Process.Flags = event.FlagStdinSocket | event.FlagStdoutSocket
		}
	case event.ClassAuthentication:
		w.seen.Logon = event.Logon{Service: "sshd", Remote: w.net.address[source]}
	}
	w.OnEvent(w.net.s.Hosts[h].Name, &w.seen)
}
