package wasm

import (
	"encoding/binary"
	"net/netip"

	"github.com/omega-mesh/omega/swarm/event"
)

// The layout of a batch, ABI 1: little-endian, every record on 8 bytes. ABI.md has the same as a table; a test holds the
// two against each other.
const (
	batchVersion = 1
	batchHeader  = 8 // version, count; then an offset of 4 bytes for each event

	recordFixed   = 288
	recordStrings = 30
	recordHeader  = recordFixed + 4*recordStrings // each string's offset and length, 2 bytes each
	recordMost    = 60 << 10
	stringMost    = 8 << 10
)

// align8 rounds up to a multiple of 8.
func align8(n int) int { return (n + 7) &^ 7 }

// texts writes the strings of a record behind its header.
type texts struct {
	b    []byte
	at   int
	full bool
}

// put writes string number i, cut where the record has no more room for it.
func (w *texts) put(i int, s string) {
	n := min(len(s), stringMost, recordMost-w.at)
	if w.at+n > len(w.b) {
		w.full = true
		return
	}
	copy(w.b[w.at:], s[:n])
	binary.LittleEndian.PutUint32(w.b[recordFixed+4*i:], uint32(w.at)|uint32(n)<<16)
	w.at += n
}

// putRecord writes e at the beginning of b, and says how many bytes it took; 0 where it does not fit. It allocates nothing.
func putRecord(b []byte, e *event.Event) int {
	if len(b) < recordHeader {
		return 0
	}
	clear(b[recordFixed:recordHeader])
	w := texts{b: b, at: recordHeader}
	p, n, f, l, d, a := &e.Process, &e.Network, &e.File, &e.Logon, &e.DNS, &e.Access
	// One after the other, since most are empty and a test is cheaper than a loop over a list made for each event.
	if p.Exe != "" {
		w.put(0, p.Exe)
	}
	if p.Comm != "" {
		w.put(1, p.Comm)
	}
	if p.Args != "" {
		w.put(2, p.Args)
	}
	if p.CWD != "" {
		w.put(3, p.CWD)
	}
	if p.ParentExe != "" {
		w.put(4, p.ParentExe)
	}
	if p.Ancestors != "" {
		w.put(5, p.Ancestors)
	}
	if p.Script != "" {
		w.put(6, p.Script)
	}
	if p.TTY != "" {
		w.put(7, p.TTY)
	}
	if p.Container != "" {
		w.put(8, p.Container)
	}
	if p.Image != "" {
		w.put(9, p.Image)
	}
	if p.Pod != "" {
		w.put(10, p.Pod)
	}
	if p.Unit != "" {
		w.put(11, p.Unit)
	}
	if n.Name != "" {
		w.put(12, n.Name)
	}
	if n.SNI != "" {
		w.put(13, n.SNI)
	}
	if f.Path != "" {
		w.put(14, f.Path)
	}
	if f.Other != "" {
		w.put(15, f.Other)
	}
	if f.Hash != "" {
		w.put(16, f.Hash)
	}
	if f.FS != "" {
		w.put(17, f.FS)
	}
	if l.User != "" {
		w.put(18, l.User)
	}
	if l.As != "" {
		w.put(19, l.As)
	}
	if l.Service != "" {
		w.put(20, l.Service)
	}
	if l.Method != "" {
		w.put(21, l.Method)
	}
	if l.Command != "" {
		w.put(22, l.Command)
	}
	if l.Remote.IsValid() {
		a := l.Remote.As16()
		w.put(23, string(a[:]))
	}
	if d.Name != "" {
		w.put(24, d.Name)
	}
	if d.Answers != "" {
		w.put(25, d.Answers)
	}
	if a.Operation != "" {
		w.put(26, a.Operation)
	}
	if a.TargetExe != "" {
		w.put(27, a.TargetExe)
	}
	if e.Sensor != "" {
		w.put(28, e.Sensor)
	}
	if f.Was != "" {
		w.put(29, f.Was)
	}
	size := align8(w.at)
	if w.full || size > len(b) {
		return 0
	}
	clear(b[w.at:size])
	putFixed((*[recordFixed]byte)(b), e, uint32(size))
	return size
}

func putFixed(h *[recordFixed]byte, e *event.Event, size uint32) {
	le := binary.LittleEndian
	p, n, f, a := &e.Process, &e.Network, &e.File, &e.Access
	le.PutUint32(h[0:], size)
	le.PutUint16(h[4:], uint16(e.Class))
	h[6], h[7] = byte(e.Activity), n.Protocol
	le.PutUint64(h[8:], uint64(e.Time))
	le.PutUint64(h[16:], e.Boot)
	le.PutUint32(h[24:], p.Key.PID)
	le.PutUint32(h[28:], p.Parent.PID)
	le.PutUint64(h[32:], p.Key.Start)
	le.PutUint64(h[40:], p.Parent.Start)
	le.PutUint32(h[48:], p.UID)
	le.PutUint32(h[52:], p.GID)
	le.PutUint32(h[56:], p.EUID)
	le.PutUint32(h[60:], p.EGID)
	le.PutUint64(h[64:], p.Inode)
	le.PutUint64(h[72:], p.Device)
	le.PutUint64(h[80:], p.CgroupID)
	le.PutUint64(h[88:], p.Caps)
	le.PutUint32(h[96:], p.MountNS)
	le.PutUint32(h[100:], p.PIDNS)
	le.PutUint32(h[104:], p.NetNS)
	le.PutUint32(h[108:], p.Session)
	le.PutUint32(h[112:], p.LoginUID)
	le.PutUint32(h[116:], uint32(p.Flags))
	le.PutUint32(h[120:], uint32(p.ExitCode))
	le.PutUint32(h[124:], uint32(e.Result))
	le.PutUint32(h[128:], e.Count)
	le.PutUint16(h[132:], n.Local.Port())
	le.PutUint16(h[134:], n.Remote.Port())
	var known byte
	known |= putAddress((*[16]byte)(h[136:]), n.Local.Addr())
	known |= putAddress((*[16]byte)(h[152:]), n.Remote.Addr()) << 1
	le.PutUint64(h[168:], n.BytesIn)
	le.PutUint64(h[176:], n.BytesOut)
	le.PutUint64(h[184:], uint64(n.Duration))
	h[192] = 0
	if n.Inbound {
		h[192] = 1
	}
	h[193], h[194], h[195] = known, e.DNS.Code, 0
	le.PutUint16(h[196:], e.DNS.Type)
	le.PutUint16(h[198:], e.DNS.ID)
	le.PutUint64(h[200:], f.Inode)
	le.PutUint64(h[208:], f.Device)
	le.PutUint32(h[216:], f.Mode)
	le.PutUint32(h[220:], f.UID)
	le.PutUint32(h[224:], f.GID)
	le.PutUint32(h[228:], f.Flags)
	le.PutUint32(h[232:], a.Target.PID)
	le.PutUint32(h[236:], a.OldUID)
	le.PutUint64(h[240:], a.Target.Start)
	le.PutUint64(h[248:], a.Number)
	le.PutUint64(h[256:], a.Gained)
	le.PutUint64(h[264:], a.Address)
	le.PutUint64(h[272:], a.Length)
	le.PutUint32(h[280:], a.NewUID)
	le.PutUint32(h[284:], recordStrings)
}

// putAddress writes an address as 16 bytes (IPv4 as ::ffff:a.b.c.d), and says with 1 that there was one.
func putAddress(out *[16]byte, a netip.Addr) byte {
	if !a.IsValid() {
		*out = [16]byte{}
		return 0
	}
	*out = a.As16()
	return 1
}
