package journal

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/omega-mesh/omega/swarm/event"
)

// unpacker reads blocks back. It is one reader's own.
type unpacker struct {
	guess
	dec   *zstd.Decoder
	raw   []byte
	words []string
	masks []mask
	which []byte
	cols  [columns][]byte
	bad   bool
	event event.Event
}

func newUnpacker() (*unpacker, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(uint64(dictLimit+colsLimit)))
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return &unpacker{dec: dec}, nil
}

func (u *unpacker) close() { u.dec.Close() }

// expand decompresses to exactly size bytes, valid until the next call.
func (u *unpacker) expand(packed []byte, size uint32) ([]byte, error) {
	if cap(u.raw) < int(size) {
		u.raw = make([]byte, 0, size)
	}
	raw, err := u.dec.DecodeAll(packed, u.raw[:0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	u.raw = raw[:0]
	if len(raw) != int(size) {
		return nil, fmt.Errorf("%w: %d bytes where %d were said", ErrDamaged, len(raw), size)
	}
	return raw, nil
}

// dictionary reads the strings of a block. They stay valid after the next block is read.
func (u *unpacker) dictionary(packed []byte, size uint32) error {
	raw, err := u.expand(packed, size)
	if err != nil {
		return err
	}
	return u.readDictionary(raw)
}

func (u *unpacker) readDictionary(raw []byte) error {
	n, k := binary.Uvarint(raw)
	if k <= 0 || n > uint64(len(raw)) {
		return fmt.Errorf("%w: number of strings", ErrDamaged)
	}
	lengths, total := raw[k:], uint64(0)
	at := lengths
	for range n {
		l, k := binary.Uvarint(at)
		if k <= 0 || l > dictLimit {
			return fmt.Errorf("%w: length of a string", ErrDamaged)
		}
		total, at = total+l, at[k:]
	}
	if total != uint64(len(at)) {
		return fmt.Errorf("%w: strings of %d bytes in %d", ErrDamaged, total, len(at))
	}
	all := string(at)
	u.words = u.words[:0]
	for range n {
		l, k := binary.Uvarint(lengths)
		u.words, all, lengths = append(u.words, all[:l]), all[l:], lengths[k:]
	}
	return nil
}

// table reads the masks and columns of a block, which stay valid until the next expand.
func (u *unpacker) table(packed []byte, size uint32) error {
	raw, err := u.expand(packed, size)
	if err != nil {
		return err
	}
	return u.readTable(raw)
}

func (u *unpacker) readTable(raw []byte) (err error) {
	n, k := binary.Uvarint(raw)
	if k <= 0 || n > maxEvents || uint64(len(raw)-k) < n*16 {
		return fmt.Errorf("%w: masks", ErrDamaged)
	}
	raw = raw[k:]
	u.masks = u.masks[:0]
	for range n {
		u.masks = append(u.masks, mask{binary.LittleEndian.Uint64(raw), binary.LittleEndian.Uint64(raw[8:])})
		raw = raw[16:]
	}
	if u.which, raw, err = piece(raw); err != nil {
		return err
	}
	u.cols = [columns][]byte{}
	for len(raw) > 0 {
		c := raw[0]
		var col []byte
		if col, raw, err = piece(raw[1:]); err != nil {
			return err
		}
		if c < byte(columns) { // a later version's are passed over
			u.cols[c] = col
		}
	}
	u.guess, u.bad = guess{}, false
	return nil
}

func piece(raw []byte) (p, rest []byte, err error) {
	n, k := binary.Uvarint(raw)
	if k <= 0 || n > uint64(len(raw)-k) {
		return nil, nil, fmt.Errorf("%w: length of a column", ErrDamaged)
	}
	return raw[k : k+int(n)], raw[k+int(n):], nil
}

// next reads one value of a column; what is not there is noted.
func (u *unpacker) next(c column) uint64 {
	v, k := binary.Uvarint(u.cols[c])
	if k <= 0 {
		u.bad = true
		return 0
	}
	u.cols[c] = u.cols[c][k:]
	return v
}

func (u *unpacker) get(c column, expected uint64) uint64 { return expected + unzigzag(u.next(c)) }

func (u *unpacker) num(m *mask, c column) uint64 {
	if !m.has(c) {
		return 0
	}
	v := u.get(c, u.prev[c])
	u.prev[c] = v
	return v
}

func (u *unpacker) num32(m *mask, c column) uint32 { return uint32(u.num(m, c)) }

func (u *unpacker) text(m *mask, c column) string {
	if !m.has(c) {
		return ""
	}
	s, _ := u.word(c)
	return s
}

func (u *unpacker) word(c column) (string, uint32) {
	id := u.next(c)
	if id >= uint64(len(u.words)) {
		u.bad = true
		return "", 0
	}
	return u.words[id], uint32(id)
}

func (u *unpacker) addr(m *mask, c column) netip.Addr {
	s := u.text(m, c)
	switch {
	case len(s) == 4:
		return netip.AddrFrom4([4]byte([]byte(s)))
	case len(s) >= 16:
		return netip.AddrFrom16([16]byte([]byte(s[:16]))).WithZone(s[16:])
	case s != "":
		u.bad = true
	}
	return netip.Addr{}
}

// each gives the events of the block that dictionary and table read, in the order they came; the event is reused.
func (u *unpacker) each(events uint32, yield func(*event.Event) error) error {
	for range events {
		at, k := binary.Uvarint(u.which)
		if k <= 0 || at >= uint64(len(u.masks)) {
			return fmt.Errorf("%w: an event without a mask", ErrDamaged)
		}
		u.which = u.which[k:]
		u.read(&u.masks[at])
		if u.bad {
			return fmt.Errorf("%w: a column is too short", ErrDamaged)
		}
		if err := yield(&u.event); err != nil {
			return err
		}
	}
	return nil
}

// read is add, backwards: the same columns in the same order.
func (u *unpacker) read(m *mask) {
	u.event = event.Event{}
	e := &u.event
	e.Class = event.Class(u.num(m, colClass))
	e.Activity = event.Activity(u.num(m, colActivity))
	e.Time = int64(u.num(m, colTime))
	if m.has(colBoot) {
		between := u.get(colBoot, u.prev[colBoot])
		u.prev[colBoot] = between
		e.Boot = between + uint64(e.Time)
	}
	e.Sensor = u.text(m, colSensor)
	e.Result = int32(u.num(m, colResult))
	e.Count = u.num32(m, colCount)
	u.process(m, e)
	u.network(m, &e.Network)
	u.object(m, e)
	a := &e.Access
	a.Operation = u.text(m, colOperation)
	a.Target = event.ProcessKey{PID: u.num32(m, colTargetPID), Start: u.num(m, colTargetStart)}
	a.TargetExe = u.text(m, colTargetExe)
	a.Number = u.num(m, colNumber)
	a.OldUID, a.NewUID = u.num32(m, colOldUID), u.num32(m, colNewUID)
	a.Gained, a.Address, a.Length = u.num(m, colGained), u.num(m, colAddress), u.num(m, colLength)
	l := &e.Logon
	l.User, l.As, l.Service = u.text(m, colUser), u.text(m, colAs), u.text(m, colService)
	l.Method, l.Command, l.Remote = u.text(m, colMethod), u.text(m, colCommand), u.addr(m, colLogonRemote)
}

func (u *unpacker) process(m *mask, e *event.Event) {
	p := &e.Process
	p.Key.PID = u.num32(m, colPID)
	if m.has(colStart) {
		p.Key.Start = u.get(colStart, u.start(p.Key.PID, e.Boot))
	}
	if m.has(colParentPID) {
		expected := u.prev[colParentPID]
		if k := &u.known[p.Key.PID%knownSize]; k.pid == p.Key.PID {
			expected = uint64(k.ppid)
		}
		p.Parent.PID = uint32(u.get(colParentPID, expected))
		u.prev[colParentPID] = uint64(p.Parent.PID)
	}
	if m.has(colParentStart) {
		p.Parent.Start = u.get(colParentStart, u.start(p.Parent.PID, u.prev[colParentStart]))
		u.prev[colParentStart] = p.Parent.Start
	}
	u.learn(p.Key.PID, p.Key.Start, p.Parent.PID, p.Parent.Start)
	p.UID, p.GID, p.EUID, p.EGID = u.num32(m, colUID), u.num32(m, colGID), u.num32(m, colEUID), u.num32(m, colEGID)
	exe := uint32(0)
	if m.has(colExe) {
		p.Exe, exe = u.word(colExe)
	}
	p.Comm, p.Args, p.CWD = u.text(m, colComm), u.text(m, colArgs), u.text(m, colCWD)
	if m.has(colInode) {
		p.Inode = u.get(colInode, u.inodes[exe%inodeSize])
		u.inodes[exe%inodeSize] = p.Inode
	}
	p.Device, p.CgroupID = u.num(m, colDevice), u.num(m, colCgroup)
	p.MountNS, p.PIDNS, p.NetNS = u.num32(m, colMountNS), u.num32(m, colPIDNS), u.num32(m, colNetNS)
	p.Session, p.LoginUID, p.Caps = u.num32(m, colSession), u.num32(m, colLoginUID), u.num(m, colCaps)
	p.Flags, p.ExitCode = event.ProcessFlag(u.num(m, colFlags)), int32(u.num(m, colExitCode))
	p.ParentExe, p.Ancestors, p.Script, p.TTY = u.text(m, colParentExe), u.text(m, colAncestors), u.text(m, colScript), u.text(m, colTTY)
	p.Container, p.Image, p.Pod, p.Unit = u.text(m, colContainer), u.text(m, colImage), u.text(m, colPod), u.text(m, colUnit)
}

func (u *unpacker) network(m *mask, n *event.Network) {
	n.Protocol = uint8(u.num(m, colProtocol))
	local := u.addr(m, colLocal)
	n.Local = netip.AddrPortFrom(local, uint16(u.num(m, colLocalPort)))
	remote := u.addr(m, colRemote)
	n.Remote = netip.AddrPortFrom(remote, uint16(u.num(m, colRemotePort)))
	n.BytesIn, n.BytesOut, n.Duration = u.num(m, colBytesIn), u.num(m, colBytesOut), time.Duration(u.num(m, colDuration))
	n.Inbound = u.num(m, colInbound) != 0
	n.Name, n.SNI = u.text(m, colName), u.text(m, colSNI)
}

func (u *unpacker) object(m *mask, e *event.Event) {
	f := &e.File
	f.Path, f.Other = u.text(m, colFile), u.text(m, colOther)
	f.Inode, f.Device, f.Mode = u.num(m, colFileInode), u.num(m, colFileDevice), u.num32(m, colMode)
	f.UID, f.GID, f.Flags = u.num32(m, colFileUID), u.num32(m, colFileGID), u.num32(m, colFileFlags)
	f.Hash, f.FS, f.Was = u.text(m, colHash), u.text(m, colFS), u.text(m, colWas)
	d := &e.DNS
	d.Name, d.Type, d.Code = u.text(m, colDNSName), uint16(u.num(m, colDNSType)), uint8(u.num(m, colDNSCode))
	d.ID, d.Answers = uint16(u.num(m, colDNSID)), u.text(m, colAnswers)
}
