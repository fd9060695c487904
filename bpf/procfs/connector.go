package procfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The proc connector: linux/connector.h and linux/cn_proc.h. A datagram is a netlink header, a cn_msg, and one event.
const (
	cnIdxProc     = 1
	cnValProc     = 1
	procListen    = 1 // PROC_CN_MCAST_LISTEN
	sizeNlmsg     = 16
	sizeConnector = 20
	sizeEvent     = 16 // what, cpu, timestamp; its union follows
	offsetWhat    = sizeNlmsg + sizeConnector
	offsetUnion   = offsetWhat + sizeEvent
	maxDatagram   = 4096
)

// What a process event may be; the kernel's values.
const (
	whatAck  = 0x00000000
	whatFork = 0x00000001
	whatExec = 0x00000002
	whatExit = 0x80000000
)

// connectorBuffer is how many bytes of events may wait in the kernel: some 5,000 processes started at once. What does not
// fit is lost, and the kernel says that it was (ENOBUFS).
const connectorBuffer = 4 << 20

// ErrConnector is wrapped by what Subscribe returns: this process, or this kernel, does not hear process events.
var ErrConnector = errors.New("the kernel's proc connector is not to be heard")

// Connector is a socket on which the kernel tells each fork, exec and exit of the host. It can be made in one process,
// which may need CAP_NET_ADMIN for it (Linux before 6.6), and read in another, which needs nothing.
type Connector struct {
	File *os.File
}

// Subscribe asks the kernel for process events and waits for its word that they will come. They come only to the first
// network, user and pid namespace.
func Subscribe() (*Connector, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConnector, err)
	}
	if err := subscribe(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%w: %w", ErrConnector, err)
	}
	return &Connector{os.NewFile(uintptr(fd), "proc connector")}, nil
}

func subscribe(fd int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, connectorBuffer) != nil { // needs CAP_NET_ADMIN
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, connectorBuffer); err != nil {
			return fmt.Errorf("its buffer: %w", err)
		}
	}
	filter := onlyProcesses()
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}); err != nil {
		return fmt.Errorf("its filter: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIdxProc}); err != nil {
		return fmt.Errorf("join its group: %w", err)
	}
	seq := rand.Uint32()
	if err := unix.Sendto(fd, listenMessage(seq), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("ask it: %w", err)
	}
	return awaitAck(fd, seq)
}

// awaitAck waits for the kernel's answer. One that is not in the first namespaces is given none at all.
func awaitAck(fd int, seq uint32) error {
	buf := make([]byte, maxDatagram)
	for end := time.Now().Add(time.Second); ; {
		left := time.Until(end)
		if left <= 0 {
			return errors.New("it did not answer: this is not the first user and pid namespace")
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left/time.Millisecond)+1); err != nil && err != unix.EINTR {
			return err
		}
		m, err := receive(fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS), errors.Is(err, errMessage):
			continue
		case err != nil:
			return err
		case m.what != whatAck || m.ack != seq+1:
			continue // the next events already, or the answer to another listener
		case m.code != 0:
			return fmt.Errorf("it refuses: %w", unix.Errno(m.code))
		}
		return nil
	}
}

func listenMessage(seq uint32) []byte {
	const size = sizeNlmsg + sizeConnector + 4
	order := binary.NativeEndian
	b := make([]byte, 0, size)
	b = order.AppendUint32(b, size)
	b = order.AppendUint16(b, unix.NLMSG_DONE)
	b = order.AppendUint16(b, 0)
	b = order.AppendUint32(b, seq)
	b = order.AppendUint32(b, 0) // the port: the kernel knows it
	b = order.AppendUint32(b, cnIdxProc)
	b = order.AppendUint32(b, cnValProc)
	b = order.AppendUint32(b, seq)
	b = order.AppendUint32(b, seq) // comes back, one higher, in the answer
	b = order.AppendUint16(b, 4)
	b = order.AppendUint16(b, 0)
	return order.AppendUint32(b, procListen)
}

// onlyProcesses is a classic BPF program that lets through forks, execs and exits of processes, and answers: threads and
// the other kinds of event would only fill the buffer.
func onlyProcesses() []unix.SockFilter {
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	// A load is in network order, what the kernel writes in the machine's.
	equal := func(what uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, what))}
	}
	toX := unix.SockFilter{Code: unix.BPF_MISC | unix.BPF_TAX}
	equalX := func(yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_X, Jt: yes, Jf: no}
	}
	verdict := func(bytes uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: bytes} }
	return []unix.SockFilter{
		load(offsetWhat),
		equal(whatExec, 11, 0),
		equal(whatAck, 10, 0),
		equal(whatFork, 1, 0),
		equal(whatExit, 4, 9),
		load(offsetUnion + 8), // fork: the child's thread and its process
		toX,
		load(offsetUnion + 12),
		equalX(4, 5),      // the same: a process, not a thread
		load(offsetUnion), // exit: the thread and its process
		toX,
		load(offsetUnion + 4),
		equalX(0, 1),
		verdict(maxDatagram),
		verdict(0),
	}
}

// message is one event of the proc connector.
type message struct {
	what   uint32
	ack    uint32
	at     uint64 // CLOCK_MONOTONIC, ns
	pid    uint32 // the process: of a fork, the child
	thread uint32 // the thread it is about; equal to pid for a process's first
	parent uint32 // of a fork
	code   uint32 // an exit's status as wait(2) has it, or an answer's errno
}

// errMessage is wrapped by every refusal of a datagram.
var errMessage = errors.New("malformed message of the proc connector")

// receive reads one datagram without waiting.
func receive(fd int, buf []byte) (message, error) {
	n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	if err != nil {
		return message{}, err
	}
	if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
		return message{}, fmt.Errorf("%w: not from the kernel", errMessage)
	}
	return parse(buf[:n])
}

// parse reads one datagram. It must hold what its kind has; newer kernels may append to it.
func parse(b []byte) (message, error) {
	order := binary.NativeEndian
	var m message
	if len(b) < offsetUnion+4 || len(b) > maxDatagram {
		return m, fmt.Errorf("%w: %d bytes", errMessage, len(b))
	}
	if n := order.Uint32(b); n < offsetUnion+4 || uint64(n) > uint64(len(b)) {
		return m, fmt.Errorf("%w: a length of %d in %d bytes", errMessage, n, len(b))
	}
	c := b[sizeNlmsg:]
	if order.Uint32(c) != cnIdxProc || order.Uint32(c[4:]) != cnValProc {
		return m, fmt.Errorf("%w: of another connector", errMessage)
	}
	m.ack = order.Uint32(c[12:])
	m.what = order.Uint32(b[offsetWhat:])
	m.at = order.Uint64(b[offsetWhat+8:])
	u := b[offsetUnion:]
	want := 4
	switch m.what {
	case whatFork, whatExit:
		want = 16
	case whatExec:
		want = 8
	}
	if len(u) < want {
		return m, fmt.Errorf("%w: kind %#x in %d bytes", errMessage, m.what, len(b))
	}
	switch m.what {
	case whatAck:
		m.code = order.Uint32(u)
	case whatFork:
		m.parent, m.thread, m.pid = order.Uint32(u[4:]), order.Uint32(u[8:]), order.Uint32(u[12:])
	case whatExec:
		m.thread, m.pid = order.Uint32(u), order.Uint32(u[4:])
	case whatExit:
		m.thread, m.pid, m.code = order.Uint32(u), order.Uint32(u[4:]), order.Uint32(u[8:])
	}
	return m, nil
}
