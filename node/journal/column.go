package journal

// column is one field of an event. Its number stands in files: new ones go to the end.
type column uint8

const (
	colClass column = iota
	colActivity
	colTime
	colBoot
	colSensor
	colResult
	colCount
	colPID
	colStart
	colParentPID
	colParentStart
	colUID
	colGID
	colEUID
	colEGID
	colExe
	colComm
	colArgs
	colCWD
	colInode
	colDevice
	colCgroup
	colMountNS
	colPIDNS
	colNetNS
	colSession
	colLoginUID
	colCaps
	colFlags
	colExitCode
	colParentExe
	colAncestors
	colScript
	colTTY
	colContainer
	colImage
	colPod
	colUnit
	colProtocol
	colLocal
	colLocalPort
	colRemote
	colRemotePort
	colBytesIn
	colBytesOut
	colDuration
	colInbound
	colName
	colSNI
	colFile
	colOther
	colFileInode
	colFileDevice
	colMode
	colFileUID
	colFileGID
	colFileFlags
	colHash
	colFS
	colDNSName
	colDNSType
	colDNSCode
	colDNSID
	colAnswers
	colOperation
	colTargetPID
	colTargetStart
	colTargetExe
	colNumber
	colOldUID
	colNewUID
	colGained
	colAddress
	colLength
	colUser
	colAs
	colService
	colMethod
	colCommand
	colLogonRemote
	colWas
	columns
)

const stringColumns = 33 // that hold text or an address

// mask says which columns an event has: the others are zero.
type mask [2]uint64

func (m *mask) set(c column)      { m[c>>6] |= 1 << (c & 63) }
func (m *mask) has(c column) bool { return m[c>>6]&(1<<(c&63)) != 0 }

// known is what has been seen of a process in this block: what the next event of it most likely says again.
type known struct {
	pid                uint32
	ppid               uint32
	start, parentStart uint64
}

const (
	knownSize = 1024 // processes
	inodeSize = 256  // executables
)

// guess predicts values from what the block already holds. Both sides keep the same.
type guess struct {
	prev   [columns]uint64
	known  [knownSize]known
	inodes [inodeSize]uint64
}

// start is when pid most likely started: as last said, else now.
func (g *guess) start(pid uint32, otherwise uint64) uint64 {
	if k := &g.known[pid%knownSize]; k.pid == pid {
		return k.start
	}
	return otherwise
}

// learn keeps what an event said of its process and its parent.
func (g *guess) learn(pid uint32, start uint64, ppid uint32, parentStart uint64) {
	if ppid != 0 {
		if k := &g.known[ppid%knownSize]; k.pid != ppid || k.start != parentStart {
			*k = known{pid: ppid, start: parentStart}
		}
	}
	if pid != 0 {
		g.known[pid%knownSize] = known{pid: pid, start: start, ppid: ppid, parentStart: parentStart}
	}
}

func zigzag(d uint64) uint64   { return d<<1 ^ uint64(int64(d)>>63) }
func unzigzag(z uint64) uint64 { return z>>1 ^ -(z & 1) }
