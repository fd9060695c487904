package journal

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"

	"github.com/omega-mesh/omega/swarm/event"
)

const (
	dictSlots = 4096
	dictTries = 16 // probes for a string; past them it is kept twice
)

// builder is a block being filled: each field in a column of its own, each string once.
type builder struct {
	guess
	cols    [columns][]byte
	masks   []mask
	which   []byte // of each event, the number of its mask
	arena   []byte // strings, one after the other
	ends    []uint32
	slots   [dictSlots]uint32 // number of the string + 1
	filter  filter
	has     mask
	events  int
	bytes   int
	cut     uint64 // strings that were too long
	min     int64
	max     int64
	classes [classCount]uint32
	did     [2]uint64 // activities
	scratch [48]byte
}

func newBuilder() *builder {
	b := &builder{}
	b.reset()
	return b
}

// reset makes b empty, and gives back what a strange load made it grow to.
func (b *builder) reset() {
	held := cap(b.which) + cap(b.arena)
	for i := range b.cols {
		held += cap(b.cols[i])
	}
	if held > 3*(maxDict+maxCols) {
		*b = builder{}
	}
	for i := range b.cols {
		b.cols[i] = b.cols[i][:0]
	}
	b.masks, b.which, b.arena, b.ends = b.masks[:0], b.which[:0], b.arena[:0], b.ends[:0]
	b.guess, b.filter, b.classes, b.did = guess{}, filter{}, [classCount]uint32{}, [2]uint64{}
	clear(b.slots[:])
	b.events, b.bytes, b.cut, b.min, b.max = 0, 0, 0, math.MaxInt64, math.MinInt64
}

func (b *builder) full() bool {
	return b.events >= maxEvents || b.bytes >= maxCols || len(b.arena) >= maxDict
}

// put stores v in column c as its distance from what was expected.
func (b *builder) put(c column, v, expected uint64) {
	b.has.set(c)
	n := len(b.cols[c])
	b.cols[c] = binary.AppendUvarint(b.cols[c], zigzag(v-expected))
	b.bytes += len(b.cols[c]) - n
}

// num stores a number; 0 is not stored.
func (b *builder) num(c column, v uint64) {
	if v == 0 {
		return
	}
	b.put(c, v, b.prev[c])
	b.prev[c] = v
}

// text stores a string and gives its number.
func (b *builder) text(c column, s string) uint32 {
	if s == "" {
		return 0
	}
	if len(s) > maxText {
		s = s[:maxText]
		b.cut++
	}
	id := b.intern(s)
	b.has.set(c)
	n := len(b.cols[c])
	b.cols[c] = binary.AppendUvarint(b.cols[c], uint64(id))
	b.bytes += len(b.cols[c]) - n
	return id
}

func (b *builder) addr(c column, a netip.Addr) {
	if !a.IsValid() {
		return
	}
	b.text(c, string(appendAddr(b.scratch[:0], a)))
}

// appendAddr gives an address as its 4 or 16 bytes and its zone, of at most 32 bytes.
func appendAddr(out []byte, a netip.Addr) []byte {
	if a.Is4() {
		x := a.As4()
		return append(out, x[:]...)
	}
	x := a.As16()
	out = append(out, x[:]...)
	if z := a.Zone(); z != "" {
		out = append(out, z[:min(len(z), 16)]...)
	}
	return out
}

func (b *builder) intern(s string) uint32 {
	h := hashText(s)
	free := -1
	for i := range uint64(dictTries) {
		at := (h>>20 + i) % dictSlots
		id := b.slots[at]
		if id == 0 {
			free = int(at)
			break
		}
		if string(b.word(id-1)) == s {
			return id - 1
		}
	}
	id := uint32(len(b.ends))
	b.arena = append(b.arena, s...)
	b.ends = append(b.ends, uint32(len(b.arena)))
	b.filter.add(h)
	if free >= 0 {
		b.slots[free] = id + 1
	}
	return id
}

func (b *builder) word(id uint32) []byte {
	from := uint32(0)
	if id > 0 {
		from = b.ends[id-1]
	}
	return b.arena[from:b.ends[id]]
}

// pid notes a process id for those who look for it.
func (b *builder) pid(pid uint32) {
	if pid != 0 {
		b.filter.add(hashPID(pid))
	}
}

// add stores e.
func (b *builder) add(e *event.Event) {
	b.has = mask{}
	b.happened(e)
	b.process(e)
	if e.Network != (event.Network{}) {
		b.network(&e.Network)
	}
	if e.File != (event.File{}) {
		b.file(&e.File)
	}
	if e.DNS != (event.DNS{}) {
		b.dns(&e.DNS)
	}
	if e.Access != (event.Access{}) {
		b.access(&e.Access)
	}
	if e.Logon != (event.Logon{}) {
		b.logon(&e.Logon)
	}
	at := len(b.masks) - 1
	if at < 0 || b.masks[at] != b.has {
		if at = slices.Index(b.masks[:min(len(b.masks), 64)], b.has); at < 0 {
			at = len(b.masks)
			b.masks = append(b.masks, b.has)
			b.bytes += 16
		}
	}
	b.which = binary.AppendUvarint(b.which, uint64(at))
	b.events++
	b.min, b.max = min(b.min, e.Time), max(b.max, e.Time)
	b.classes[classIndex(e.Class)]++
	b.did[(e.Activity>>6)&1] |= 1 << (e.Activity & 63)
}

func (b *builder) happened(e *event.Event) {
	b.num(colClass, uint64(e.Class))
	b.num(colActivity, uint64(e.Activity))
	b.num(colTime, uint64(e.Time))
	if e.Boot != 0 { // two clocks that run alike: what is between them stays
		between := e.Boot - uint64(e.Time)
		b.put(colBoot, between, b.prev[colBoot])
		b.prev[colBoot] = between
	}
	b.text(colSensor, e.Sensor)
	b.num(colResult, uint64(uint32(e.Result)))
	b.num(colCount, uint64(e.Count))
}

func (b *builder) process(e *event.Event) {
	p := &e.Process
	if *p == (event.Process{}) {
		return
	}
	b.num(colPID, uint64(p.Key.PID))
	b.pid(p.Key.PID)
	if p.Key.Start != 0 {
		b.put(colStart, p.Key.Start, b.start(p.Key.PID, e.Boot))
	}
	if p.Parent.PID != 0 {
		expected := b.prev[colParentPID]
		if k := &b.known[p.Key.PID%knownSize]; k.pid == p.Key.PID {
			expected = uint64(k.ppid)
		}
		b.put(colParentPID, uint64(p.Parent.PID), expected)
		b.prev[colParentPID] = uint64(p.Parent.PID)
		b.pid(p.Parent.PID)
	}
	if p.Parent.Start != 0 {
		b.put(colParentStart, p.Parent.Start, b.start(p.Parent.PID, b.prev[colParentStart]))
		b.prev[colParentStart] = p.Parent.Start
	}
	b.learn(p.Key.PID, p.Key.Start, p.Parent.PID, p.Parent.Start)
	b.num(colUID, uint64(p.UID))
	b.num(colGID, uint64(p.GID))
	b.num(colEUID, uint64(p.EUID))
	b.num(colEGID, uint64(p.EGID))
	exe := b.text(colExe, p.Exe)
	b.text(colComm, p.Comm)
	b.text(colArgs, p.Args)
	b.text(colCWD, p.CWD)
	if p.Inode != 0 {
		b.put(colInode, p.Inode, b.inodes[exe%inodeSize])
		b.inodes[exe%inodeSize] = p.Inode
	}
	b.num(colDevice, p.Device)
	b.num(colCgroup, p.CgroupID)
	b.num(colMountNS, uint64(p.MountNS))
	b.num(colPIDNS, uint64(p.PIDNS))
	b.num(colNetNS, uint64(p.NetNS))
	b.num(colSession, uint64(p.Session))
	b.num(colLoginUID, uint64(p.LoginUID))
	b.num(colCaps, p.Caps)
	b.num(colFlags, uint64(p.Flags))
	b.num(colExitCode, uint64(uint32(p.ExitCode)))
	b.text(colParentExe, p.ParentExe)
	b.text(colAncestors, p.Ancestors)
	b.text(colScript, p.Script)
	b.text(colTTY, p.TTY)
	b.text(colContainer, p.Container)
	b.text(colImage, p.Image)
	b.text(colPod, p.Pod)
	b.text(colUnit, p.Unit)
}

func (b *builder) network(n *event.Network) {
	b.num(colProtocol, uint64(n.Protocol))
	b.addr(colLocal, n.Local.Addr())
	b.num(colLocalPort, uint64(n.Local.Port()))
	b.addr(colRemote, n.Remote.Addr())
	b.num(colRemotePort, uint64(n.Remote.Port()))
	b.num(colBytesIn, n.BytesIn)
	b.num(colBytesOut, n.BytesOut)
	b.num(colDuration, uint64(n.Duration))
	if n.Inbound {
		b.num(colInbound, 1)
	}
	b.text(colName, n.Name)
	b.text(colSNI, n.SNI)
}

func (b *builder) file(f *event.File) {
	b.text(colFile, f.Path)
	b.text(colOther, f.Other)
	b.num(colFileInode, f.Inode)
	b.num(colFileDevice, f.Device)
	b.num(colMode, uint64(f.Mode))
	b.num(colFileUID, uint64(f.UID))
	b.num(colFileGID, uint64(f.GID))
	b.num(colFileFlags, uint64(f.Flags))
	b.text(colHash, f.Hash)
	b.text(colFS, f.FS)
	b.text(colWas, f.Was)
}

func (b *builder) dns(d *event.DNS) {
	b.text(colDNSName, d.Name)
	b.num(colDNSType, uint64(d.Type))
	b.num(colDNSCode, uint64(d.Code))
	b.num(colDNSID, uint64(d.ID))
	b.text(colAnswers, d.Answers)
}

func (b *builder) access(a *event.Access) {
	b.text(colOperation, a.Operation)
	b.num(colTargetPID, uint64(a.Target.PID))
	b.pid(a.Target.PID)
	b.num(colTargetStart, a.Target.Start)
	b.text(colTargetExe, a.TargetExe)
	b.num(colNumber, a.Number)
	b.num(colOldUID, uint64(a.OldUID))
	b.num(colNewUID, uint64(a.NewUID))
	b.num(colGained, a.Gained)
	b.num(colAddress, a.Address)
	b.num(colLength, a.Length)
}

func (b *builder) logon(l *event.Logon) {
	b.text(colUser, l.User)
	b.text(colAs, l.As)
	b.text(colService, l.Service)
	b.text(colMethod, l.Method)
	b.text(colCommand, l.Command)
	b.addr(colLogonRemote, l.Remote)
}

// dictionary appends the strings: how many, how long each is, then their bytes.
func (b *builder) dictionary(out []byte) []byte {
	out = binary.AppendUvarint(out, uint64(len(b.ends)))
	from := uint32(0)
	for _, end := range b.ends {
		out = binary.AppendUvarint(out, uint64(end-from))
		from = end
	}
	return append(out, b.arena...)
}

// table appends the masks and the columns that are not empty.
func (b *builder) table(out []byte) []byte {
	out = binary.AppendUvarint(out, uint64(len(b.masks)))
	for _, m := range b.masks {
		out = binary.LittleEndian.AppendUint64(out, m[0])
		out = binary.LittleEndian.AppendUint64(out, m[1])
	}
	out = binary.AppendUvarint(out, uint64(len(b.which)))
	out = append(out, b.which...)
	for c := range b.cols {
		if len(b.cols[c]) > 0 {
			out = append(out, byte(c))
			out = binary.AppendUvarint(out, uint64(len(b.cols[c])))
			out = append(out, b.cols[c]...)
		}
	}
	return out
}

// Classes are numbered by their place in event.Classes, which never changes; the last bit is for what that does not list.
const classCount = 16

func classIndex(c event.Class) int {
	switch c {
	case event.ClassFile:
		return 0
	case event.ClassKernel:
		return 1
	case event.ClassMemory:
		return 2
	case event.ClassScheduledJob:
		return 3
	case event.ClassProcess:
		return 4
	case event.ClassAuthentication:
		return 5
	case event.ClassNetwork:
		return 6
	case event.ClassDNS:
		return 7
	case event.ClassFileIntegrity:
		return 8
	}
	return classCount - 1
}
