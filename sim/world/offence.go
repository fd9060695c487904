package world

// An attacker that is no script is given orders by their number: 0 waits; then Loot, Escalate, Logon, Exploit and Scan of
// each host in turn; then Sweep of each zone.

// Orders is how many there are.
func (w *World) Orders() int { return 1 + int(Sweep)*len(w.rooted) + len(w.net.zones) }

// read is what a number stands for; actions where it waits.
func (w *World) read(n int32) (k Action, target int32) {
	hosts := int32(len(w.rooted))
	switch n--; {
	case n < 0:
		return actions, 0
	case n < int32(Sweep)*hosts:
		return Action(n / hosts), n % hosts
	}
	return Sweep, n - int32(Sweep)*hosts
}

// OrderName is what order n is called: "exploit web", "sweep dmz".
func (w *World) OrderName(n int) string {
	switch k, target := w.read(int32(n)); k {
	case actions:
		return "wait"
	case Sweep:
		return k.String() + " " + w.net.zones[target]
	default:
		return k.String() + " " + w.net.s.Hosts[target].Name
	}
}

// Order takes attacker a out of its script's hands: at its next turn it carries out order n, where that is still open to
// it, and waits afterwards until it is given another.
func (w *World) Order(a, n int) {
	if w.ordered == nil {
		w.ordered = make([]int32, len(w.net.s.Attackers))
		for i := range w.ordered {
			w.ordered[i] = scripted
		}
	}
	w.ordered[a] = int32(n)
}

// scripted in place of an order leaves the attacker to its script.
const scripted = -1

// obey carries out the order that attacker a was given, if any, and reports whether it was.
func (w *World) obey(a int32) bool {
	if w.ordered == nil || w.ordered[a] == scripted {
		return false
	}
	k, target := w.read(w.ordered[a])
	w.ordered[a] = 0
	w.footholds(a)
	switch {
	case !w.can(a, k, target):
	case k == Sweep:
		w.sweep(a, target)
	default:
		w.onHost(a, k, target)
	}
	return true
}

// can says whether a step is open to attacker a, whose footholds have been found: what its script would consider too.
func (w *World) can(a int32, k Action, target int32) bool {
	hosts := int32(len(w.rooted))
	switch k {
	case actions:
		return false
	case Sweep:
		return !w.swept[int(a)*len(w.net.zones)+int(target)] && w.zoneSource(target, 0) >= 0
	}
	i := a*hosts + target
	if !w.known[i] || w.privilege[i] > 0 && w.burned[a*(hosts+int32(len(w.net.s.Attackers)))+w.via[i]] {
		return false
	}
	switch k {
	case Loot:
		return w.privilege[i] == 2 && !w.looted[i]
	case Escalate:
		return w.privilege[i] == 1 && w.net.escalate[target] > 0 && w.pushed[i] < patience
	case Scan:
		return w.privilege[i] == 0 && !w.scanned[i] && w.sourceFor(target, 0) >= 0
	case Exploit:
		return w.privilege[i] == 0 && w.scanned[i] && w.tried[i] < patience && w.wayIn(target) >= 0
	case Logon:
		return w.privilege[i] == 0 && w.hasSecret(a, target) && w.sourceFor(target, logonPort) >= 0
	}
	return false
}

// hasSecret says whether attacker a found a secret that opens host h.
func (w *World) hasSecret(a, h int32) bool {
	for c, doors := range w.net.opens {
		if w.secrets[int(a)*len(w.net.opens)+c] {
			for _, d := range doors {
				if d.host == h {
					return true
				}
			}
		}
	}
	return false
}

// OpenOrders calls yield with the number of every order that is open to attacker a now, waiting included.
func (w *World) OpenOrders(a int, yield func(n int)) {
	yield(0)
	w.footholds(int32(a))
	for n := 1; n < w.Orders(); n++ {
		if k, target := w.read(int32(n)); w.can(int32(a), k, target) {
			yield(n)
		}
	}
}

// AttackerNumbers is how long an AttackerView is.
func (w *World) AttackerNumbers() int { return 5*len(w.rooted) + len(w.net.zones) }

// AttackerView calls put with everything attacker a knows, each number at its place: for each host whether it knows it,
// whether it scanned it, and what it holds there (1 user, 2 root); for each zone whether it swept it; then for each host
// whether it has met a refusal as that host, and whether it has a secret that opens it.
func (w *World) AttackerView(a int, put func(at int, x float32)) {
	hosts, at := len(w.rooted), 0
	next := func(x float32) { put(at, x); at++ }
	yes := func(b bool) {
		if b {
			next(1)
		} else {
			next(0)
		}
	}
	w.footholds(int32(a))
	for h := range hosts {
		i := a*hosts + h
		yes(w.known[i])
		yes(w.scanned[i])
		next(float32(w.privilege[i]))
	}
	for z := range w.net.zones {
		yes(w.swept[a*len(w.net.zones)+z])
	}
	for h := range hosts {
		yes(w.burned[a*(hosts+len(w.net.s.Attackers))+h])
		yes(w.hasSecret(int32(a), int32(h)))
	}
}
