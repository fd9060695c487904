package world

import (
	"slices"
	"time"

	"github.com/omega-mesh/omega/sim/rng"
	"github.com/omega-mesh/omega/swarm/event"
)

// Step is one thing that happened, as recordings have it.
type Step struct {
	At        time.Duration `json:"at_ns"`
	Actor     string        `json:"actor"`
	Action    string        `json:"action"`
	Technique string        `json:"technique,omitempty"`
	From      string        `json:"from"` // the address it came from
	To        string        `json:"to,omitempty"`
	Port      uint16        `json:"port,omitempty"`
	OK        bool          `json:"ok"`
	Refused   bool          `json:"refused,omitempty"`
	Caught    string        `json:"caught,omitempty"` // "decoy" or "sensor"
}

// Result is what a run came to.
type Result struct {
	Loss         float64       `json:"loss"`           // value of hosts under root, by the hours they were
	Taken        int           `json:"taken"`          // hosts with any session of an attacker at the end
	Rooted       int           `json:"rooted"`         // of those, as root
	Steps        int           `json:"steps"`          // of attackers
	Refused      int           `json:"refused"`        // attackers' connections that were refused
	Caught       int           `json:"caught"`         // steps that a sensor or a decoy saw
	Blocks       int           `json:"blocks"`         // sources refused
	HarmedLogons int           `json:"harmed"`         // users' logons that were refused: the cost of the response
	Logons       int           `json:"logons"`         // users' logons in all
	FirstBlock   time.Duration `json:"first_block_ns"` // when the first source was refused, -1: never
}

// World is a running scenario. It is deterministic by its seed, on any machine. One World serves one goroutine; worlds
// of one scenario may run at once.
type World struct {
	net   *network
	rand  rng.Source
	now   int64 // nanoseconds from the beginning
	end   int64
	queue []due
	order uint64

	// By attacker and host: what this attacker holds and knows.
	privilege []uint8
	known     []bool
	scanned   []bool
	looted    []bool
	tried     []uint8
	pushed    []uint8 // attempts to escalate
	via       []int32 // the source a session was opened from
	secrets   []bool  // by attacker and credential
	left      []bool  // by trail: whether its user has logged on there yet
	swept     []bool  // by attacker and zone
	burned    []bool  // by attacker and source: it has met a refusal
	ordered   []int32 // by attacker: its next step, where somebody else gives it orders; nil: nobody does

	// By source: until when it is refused, when it was last found out, and by which host.
	refused []int64
	pending []bool
	foundAt []int64
	foundBy []int32

	rooted  []uint8 // by host: attackers who are root
	rate    float64 // loss an hour now
	settled int64   // until when loss is counted
	result  Result

	candidates []int32 // scratch
	foothold   []int32 // scratch, by zone
	seen       event.Event

	// OnStep, where set, is told of every step. It must not change the world.
	OnStep func(Step)
	// OnEvent, where set, sees what the sensors of a host see. The event is valid during the call only.
	OnEvent func(host string, e *event.Event)
	// OnFinding, where set, is told what a host, by its number, found out about a source: rightly or not.
	OnFinding func(source, host int, decoy bool)
}

// due is an entry of the event queue: a heap by time, then by order of entry, so that equal times have one order.
type due struct {
	at    int64
	order uint64
	kind  dueKind
	who   int32
}

type dueKind uint8

const (
	attackerTurn dueKind = iota
	userTurn
	refusal
)

// New makes a world of a scenario that has been validated.
func New(s *Scenario, source rng.Source) (*World, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return begin(compile(s), source), nil
}

// begin is a world at its beginning.
func begin(n *network, source rng.Source) *World {
	s := n.s
	hosts, attackers := len(s.Hosts), len(s.Attackers)
	cells, sources := hosts*attackers, hosts+attackers
	w := &World{
		net: n, rand: source, end: int64(s.Duration),
		privilege: make([]uint8, cells), known: make([]bool, cells), scanned: make([]bool, cells), looted: make([]bool, cells),
		tried: make([]uint8, cells), pushed: make([]uint8, cells), via: make([]int32, cells),
		secrets: make([]bool, attackers*len(n.opens)), left: make([]bool, n.trails), swept: make([]bool, attackers*len(n.zones)), burned: make([]bool, attackers*sources),
		refused: make([]int64, sources), pending: make([]bool, sources), foundAt: make([]int64, sources), foundBy: make([]int32, sources),
		rooted: make([]uint8, hosts), foothold: make([]int32, len(n.zones)), candidates: make([]int32, 0, hosts),
	}
	w.result.FirstBlock = -1
	for i := range w.foundBy {
		w.foundBy[i] = -1
	}
	for i, a := range s.Attackers {
		w.push(int64(a.Start), attackerTurn, int32(i))
	}
	for i, u := range s.Users {
		w.push(w.around(u.Each), userTurn, int32(i))
	}
	return w
}

// Clone is a checkpoint: a world with the same past and, while nobody interferes, the same future. It has no observers.
func (w *World) Clone() *World {
	c := *w
	c.queue = slices.Clone(w.queue)
	for _, p := range []*[]bool{&c.known, &c.scanned, &c.looted, &c.secrets, &c.left, &c.swept, &c.burned, &c.pending} {
		*p = slices.Clone(*p)
	}
	for _, p := range []*[]uint8{&c.privilege, &c.tried, &c.pushed, &c.rooted} {
		*p = slices.Clone(*p)
	}
	for _, p := range []*[]int32{&c.via, &c.foundBy, &c.foothold} {
		*p = slices.Clone(*p)
	}
	for _, p := range []*[]int64{&c.refused, &c.foundAt} {
		*p = slices.Clone(*p)
	}
	c.ordered = slices.Clone(w.ordered)
	c.candidates = make([]int32, 0, cap(w.candidates))
	c.OnStep, c.OnEvent, c.OnFinding = nil, nil, nil
	return &c
}

// Now is the virtual time since the beginning.
func (w *World) Now() time.Duration { return time.Duration(w.now) }

// RefuseSource makes every host refuse an address from now on, for the response's lifetime: a what-if. It reports whether
// the address is one of the scenario's.
func (w *World) RefuseSource(address string) bool {
	for i, a := range w.net.address {
		if a.String() == address {
			w.refuse(int32(i))
			return true
		}
	}
	return false
}

// Run plays until the given virtual time, or the scenario's end if that is sooner, and says what it came to so far.
func (w *World) Run(until time.Duration) Result {
	stop := min(int64(until), w.end)
	for w.advance(stop) {
	}
	w.now = max(w.now, stop)
	w.settle()
	r := w.result
	hosts := len(w.rooted)
	for h := range hosts {
		if w.rooted[h] > 0 {
			r.Rooted++
		}
		for a := range w.net.s.Attackers {
			if w.privilege[a*hosts+h] > 0 {
				r.Taken++
				break
			}
		}
	}
	return r
}

// advance lets the next thing happen that is due by stop, and reports whether there was one.
func (w *World) advance(stop int64) bool {
	if len(w.queue) == 0 || w.queue[0].at > stop {
		return false
	}
	d := w.pop()
	w.now = d.at
	switch d.kind {
	case attackerTurn:
		w.attack(d.who)
		w.push(w.now+w.around(w.net.s.Attackers[d.who].Pace), attackerTurn, d.who)
	case userTurn:
		if wait := w.asleep(d.who); wait > 0 {
			u := &w.net.s.Users[d.who]
			w.push(w.now+wait+w.around(min(u.Each, u.shift()))/2, userTurn, d.who)
			return true
		}
		w.logon(d.who)
		w.push(w.now+w.around(w.net.s.Users[d.who].Each), userTurn, d.who)
	case refusal:
		w.pending[d.who] = false
		w.refuse(d.who)
	}
	return true
}

// around is a time between half and one and a half of d, in whole nanoseconds: no logarithm, so that every machine
// comes to the same bits.
func (w *World) around(d Duration) int64 {
	n := int64(d)
	return n/2 + int64(w.rand.Uint64()%uint64(n+1))
}

// settle counts the loss up to now.
func (w *World) settle() {
	hours := float64(w.now-w.settled) / float64(time.Hour)
	w.result.Loss += float64(w.rate * hours) // the conversion keeps the compiler from fusing the two operations
	w.settled = w.now
}

func (w *World) push(at int64, kind dueKind, who int32) {
	w.order++
	w.queue = append(w.queue, due{at, w.order, kind, who})
	for i := len(w.queue) - 1; i > 0; {
		parent := (i - 1) / 2
		if !w.queue[i].before(w.queue[parent]) {
			return
		}
		w.queue[i], w.queue[parent] = w.queue[parent], w.queue[i]
		i = parent
	}
}

func (d due) before(e due) bool { return d.at < e.at || d.at == e.at && d.order < e.order }

func (w *World) pop() due {
	top := w.queue[0]
	last := len(w.queue) - 1
	w.queue[0] = w.queue[last]
	w.queue = w.queue[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return top
		}
		if child+1 < last && w.queue[child+1].before(w.queue[child]) {
			child++
		}
		if !w.queue[child].before(w.queue[i]) {
			return top
		}
		w.queue[i], w.queue[child] = w.queue[child], w.queue[i]
		i = child
	}
}

// refuse makes every host refuse a source from now on.
func (w *World) refuse(source int32) {
	life := int64(w.net.s.Response.Lifetime)
	if life == 0 {
		life = int64(time.Hour)
	}
	if w.refused[source] <= w.now {
		w.result.Blocks++
		if w.result.FirstBlock < 0 {
			w.result.FirstBlock = time.Duration(w.now)
		}
	}
	w.refused[source] = w.now + life
	if w.OnStep != nil {
		w.OnStep(Step{At: time.Duration(w.now), Actor: "swarm", Action: Refuse.String(), From: w.net.address[source].String(), OK: true})
	}
}

// found is a host's finding about a source. The swarm refuses the source everywhere where a decoy was touched, or where
// another host found it out within the window; one host's word alone is not enough.
func (w *World) found(source, host int32, decoy bool) {
	if w.OnFinding != nil {
		w.OnFinding(int(source), int(host), decoy)
	}
	response := &w.net.s.Response
	window := int64(response.Window)
	if window == 0 {
		window = int64(10 * time.Minute)
	}
	second := w.foundBy[source] >= 0 && w.foundBy[source] != host && w.now-w.foundAt[source] <= window
	w.foundBy[source], w.foundAt[source] = host, w.now
	if response.Immunity == 0 || !decoy && !second || w.pending[source] || w.refused[source] > w.now {
		return
	}
	w.pending[source] = true
	w.push(w.now+int64(response.Immunity), refusal, source)
}
