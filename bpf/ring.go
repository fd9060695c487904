package bpf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// How often the reader looks when nothing urgent wakes it: pollFast once after it was woken, pollMuch and pollSome while there is
// much and some, and while there is little after ever longer, up to pollIdle. At 300,000 records a second of 256 bytes a ring of 4 MiB is full after 50 ms.
// A look is cheap, but the waiting for it is not: it takes six switches between threads of the runtime, a quarter of a millisecond
// here, and 500 of them a second made a build on two processors 6 % slower. With nothing after pollIdle it sleeps until the next
// record wakes it.
const (
	pollFast  = 2 * time.Millisecond
	pollMuch  = 5 * time.Millisecond
	pollSome  = 10 * time.Millisecond
	pollIdle  = 50 * time.Millisecond
	pollSleep = time.Second

	much = 100 // records a millisecond
	some = 10
)

// RingFile is the ring as it is handed to another process: the descriptor of the map, which that process may map into
// its memory without any privilege, and the ring's size.
type RingFile struct {
	File  *os.File
	Bytes int
}

// Ring duplicates the ring's descriptor for an unprivileged process. The caller closes it.
func (k *Kernel) Ring() (RingFile, error) {
	fd, err := unix.FcntlInt(uintptr(k.ring.FD()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return RingFile{}, fmt.Errorf("duplicate the ring: %w", err)
	}
	return RingFile{File: os.NewFile(uintptr(fd), "ring"), Bytes: k.opt.RingBytes}, nil
}

func readDrops(m *ebpf.Map) (map[string]uint64, error) {
	all := map[string]uint64{}
	for kind := uint32(1); kind < recordKinds; kind++ {
		name := recordNames[kind]
		if name == "" {
			continue // no program of this build writes it
		}
		var each []uint64
		if err := m.Lookup(kind, &each); err != nil {
			return nil, fmt.Errorf("read the drop counters: %w", err)
		}
		for _, n := range each {
			all[name] += n
		}
	}
	return all, nil
}

// RingSensor reads the ring of the kernel half.
type RingSensor struct {
	consumer, producer []byte // the two control pages, the second followed by the data, mapped twice over
	data               []byte
	mask               uint64
	position           uint64 // of the first record not read yet
	file               *os.File
	tree               *ProcessTree
	listeners          map[uint16]event.ProcessKey
	gain               event.Event // room for one, so that none is made for each
	names              nameCache
	accepts            accepts
	garbled            atomic.Uint64
	seen               atomic.Uint64
}

// OpenRing maps the ring. It needs the descriptor alone, no privilege.
func OpenRing(r RingFile) (*RingSensor, error) {
	page := os.Getpagesize()
	if r.Bytes < page || r.Bytes&(r.Bytes-1) != 0 {
		return nil, fmt.Errorf("ring of %d bytes: want a power of two of whole pages", r.Bytes)
	}
	fd := int(r.File.Fd())
	consumer, err := unix.Mmap(fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the ring's read position: %w", err)
	}
	producer, err := unix.Mmap(fd, int64(page), page+2*r.Bytes, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the ring: %w", err), unix.Munmap(consumer))
	}
	position := atomic.LoadUint64((*uint64)(unsafe.Pointer(&consumer[0])))
	return &RingSensor{consumer: consumer, producer: producer, data: producer[page:], mask: uint64(r.Bytes) - 1, position: position, file: r.File,
		tree: NewProcessTree(), listeners: map[uint16]event.ProcessKey{}, names: newNameCache()}, nil
}

// Name implements Sensor.
func (s *RingSensor) Name() string { return "kernel" }

// Drops implements Sensor: records that were not ours, what went to or came from port 53 without being DNS, and what lineage
// lost (LineageDrops). Those that found the ring full are counted in the kernel, by Kernel.Drops.
func (s *RingSensor) Drops() map[string]uint64 {
	return map[string]uint64{"garbled": s.garbled.Load(), "dns_malformed": s.names.malformed.Load(),
		LineageDrops + "forgotten": s.tree.Lost(), LineageDrops + "parent_unknown": s.tree.Orphans()}
}

// LineageDrops begins the names of those Drops that are no lost event: processes that the tree had no room for, and events
// told without their parent's name.
const LineageDrops = "lineage/"

// Seen counts the records read so far.
func (s *RingSensor) Seen() uint64 { return s.seen.Load() }

// Tree is the sensor's picture of the processes.
func (s *RingSensor) Tree() *ProcessTree { return s.tree }

// Close unmaps the ring. Run must have returned.
func (s *RingSensor) Close() error {
	return errors.Join(unix.Munmap(s.consumer), unix.Munmap(s.producer), s.file.Close())
}

// Run reads until ctx ends. Ordinary records are fetched every 2 to 50 ms, by load; the urgent ones (a refusal, a
// kill, a suspicious exec) wake it at once.
func (s *RingSensor) Run(ctx context.Context, out func(*event.Event)) error {
	poll, err := newPoller(int(s.file.Fd()))
	if err != nil {
		return err
	}
	defer poll.close()
	stop := context.AfterFunc(ctx, poll.wake)
	defer stop()

	defer s.rest() // who reads next begins where this one ended
	s.tree.Seed()
	var e event.Event
	interval, woken := pollFast, false
	for ctx.Err() == nil {
		n := s.drain(&e, out)
		switch {
		case woken:
			interval = pollFast
		case n > much*int(interval/time.Millisecond):
			interval = pollMuch
		case n > some*int(interval/time.Millisecond):
			interval = pollSome
		case interval < pollIdle: // not at once: much may come again
			interval = min(5*interval, pollIdle)
		case n > 0:
			interval = pollIdle
		case len(s.accepts.queue) > 0:
			interval = pollIdle
		case !s.rest():
			interval = pollFast
		default:
			interval = pollSleep
		}
		if woken, err = poll.wait(interval); err != nil {
			return err
		}
	}
	return nil
}

// The header the kernel puts before each record.
const (
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
	ringHeader  = 8
)

// drain hands on every record that is complete and returns how many. The kernel is told that they were read but for the last:
// it wakes a reader that has read all, and this one will look again by itself.
func (s *RingSensor) drain(e *event.Event, out func(*event.Event)) int {
	consumed := (*uint64)(unsafe.Pointer(&s.consumer[0]))
	produced := (*uint64)(unsafe.Pointer(&s.producer[0]))
	offset := time.Now().UnixNano() - int64(BootTime())
	at, last, n := s.position, s.position, 0
	for end := atomic.LoadUint64(produced); at < end; n++ {
		if n&1023 == 1023 { // give room back while draining, not only at the end
			atomic.StoreUint64(consumed, at)
			end = atomic.LoadUint64(produced)
		}
		head := s.head(at)
		if head&ringBusy != 0 {
			break // still being written
		}
		size := uint64(head &^ (ringBusy | ringDiscard))
		if size > s.mask || at+size+ringHeader > end { // never so from our kernel; do not follow it out of the ring
			s.garbled.Add(1)
			at, last = end, end
			break
		}
		if head&ringDiscard == 0 {
			from := at&s.mask + ringHeader
			b := s.data[from : from+size]
			if err := decode(b, offset, e); err != nil {
				s.garbled.Add(1)
			} else {
				s.hand(b, e, out)
			}
			s.seen.Add(1)
		}
		last = at
		at += (size + ringHeader + 7) &^ 7
	}
	if at != s.position {
		s.position = at
		atomic.StoreUint64(consumed, last)
	}
	s.overdue(out)
	return n
}

func (s *RingSensor) head(at uint64) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&s.data[at&s.mask])))
}

// rest tells the kernel that all was read, so that the next record wakes the reader, and says whether that is so: a record that was
// completed before the kernel knew wakes nobody. One that is still being written will.
func (s *RingSensor) rest() bool {
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&s.consumer[0])), s.position)
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&s.producer[0]))) == s.position || s.head(s.position)&ringBusy != 0
}

// hand completes e, which was read from record b, and passes it on: first a gain of privilege, if this record is where
// one shows.
func (s *RingSensor) hand(b []byte, e *event.Event, out func(*event.Event)) {
	h := (*recordHeader)(unsafe.Pointer(unsafe.SliceData(b)))
	switch h.Kind {
	case recordAccept:
		if !s.accepted(b, e, out) {
			return
		}
	case recordClose:
		s.closing(b, e, out)
	}
	gain, gained := s.tree.watchRights(b, e)
	if !s.names.complete(b, h.Kind, e) {
		return
	}
	s.enrich(e)
	if gained {
		s.gain = *e
		s.gain.Class, s.gain.Activity, s.gain.Network, s.gain.File = event.ClassProcess, event.ActivityPrivilegeGain, event.Network{}, event.File{}
		s.gain.Result, s.gain.Count, s.gain.Access = 0, 0, gain
		out(&s.gain)
	}
	if h.Flags&flagMuted == 0 {
		out(e)
	}
}

// maxListeners bounds the ports whose owner is remembered.
const maxListeners = 4096

// enrich adds what one record alone does not say: lineage, and whose listener a connection came to.
func (s *RingSensor) enrich(e *event.Event) {
	switch e.Activity {
	case event.ActivityListen:
		if len(s.listeners) >= maxListeners { // any one goes: old ones are mostly of the dead
			for port := range s.listeners {
				delete(s.listeners, port)
				break
			}
		}
		s.listeners[e.Network.Local.Port()] = e.Process.Key
	case event.ActivityConnect:
		// Of a connection from before nobody says who called whom, but who listens at its port here.
		if _, ok := s.listeners[e.Network.Local.Port()]; ok && e.Process.Flags&event.FlagBeforeAgent != 0 {
			e.Activity, e.Network.Inbound = event.ActivityAccept, true
		}
	case event.ActivityAccept, event.ActivityClose:
		if e.Network.Inbound && e.Process.Key.PID == 0 { // nobody took it yet, or nobody ever did
			e.Process.Key = s.listeners[e.Network.Local.Port()]
		}
	}
	if t := &e.Access.Target; t.PID != 0 {
		if known, ok := s.tree.Lookup(t.PID); ok && sameStart(known.Key.Start, t.Start) {
			t.Start, e.Access.TargetExe = known.Key.Start, known.Exe
		}
	}
	s.tree.Observe(e)
}

// poller waits for an urgent record, for a wake, or for time to pass. It waits as a network connection does, in the runtime's
// own poller: in a system call that blocks it would keep the runtime's monitor awake, which was half of what an idle node cost.
type poller struct {
	epoll *os.File
	raw   syscall.RawConn
	event int

	ready  func(fd uintptr) bool // made once
	events [2]unix.EpollEvent
	n      int
	err    error
}

func newPoller(ring int) (*poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch the ring: %w", err)
	}
	if err := unix.SetNonblock(epoll, true); err != nil { // or the runtime does not poll it
		unix.Close(epoll)
		return nil, fmt.Errorf("watch the ring: %w", err)
	}
	p := &poller{epoll: os.NewFile(uintptr(epoll), "ring's events"), event: -1}
	p.ready = func(fd uintptr) bool {
		for {
			if p.n, p.err = unix.EpollWait(int(fd), p.events[:], 0); p.err != unix.EINTR {
				return p.n > 0 || p.err != nil
			}
		}
	}
	if p.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		p.close()
		return nil, fmt.Errorf("watch the ring: %w", err)
	}
	// Edge-triggered: level-triggered epoll would return at once for each ordinary record as well.
	for fd, events := range map[int]uint32{ring: unix.EPOLLIN | unix.EPOLLET, p.event: unix.EPOLLIN} {
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
			p.close()
			return nil, fmt.Errorf("watch the ring: %w", err)
		}
	}
	if p.raw, err = p.epoll.SyscallConn(); err != nil {
		p.close()
		return nil, fmt.Errorf("watch the ring: %w", err)
	}
	return p, nil
}

// wait says whether it was woken before the time was over. The kernel wakes at most once a millisecond and CPU: what is
// urgent in between relies on the reader looking soon by itself after it was woken.
func (p *poller) wait(d time.Duration) (woken bool, err error) {
	if err := p.epoll.SetReadDeadline(time.Now().Add(d)); err != nil {
		return false, fmt.Errorf("wait for the ring: %w", err)
	}
	err = p.raw.Read(p.ready)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	if err = errors.Join(err, p.err); err != nil {
		return false, fmt.Errorf("wait for the ring: %w", err)
	}
	return p.n > 0, nil
}

func (p *poller) wake() {
	_, _ = unix.Write(p.event, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // full means already woken
}

func (p *poller) close() {
	p.epoll.Close()
	if p.event >= 0 {
		unix.Close(p.event)
	}
}
