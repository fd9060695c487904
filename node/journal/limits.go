package journal

import "time"

// Bounds of a block, in memory and on disk.
const (
	maxEvents = 2048
	maxText   = 8 << 10   // bytes of one string; longer ones are cut, and counted
	maxDict   = 96 << 10  // bytes of all strings of a block at which it is full; one event may pass it
	maxCols   = 128 << 10 // bytes of all columns at which it is full
	// One event adds at most its strings and some bytes a column.
	dictLimit = 2 * (maxDict + stringColumns*maxText)
	colsLimit = maxCols + int(columns)*(10+4) + maxEvents*2 + 64
	// headerLimit and blockLimit are the longest of what is read back.
	headerLimit = headerLen + maxFilter
	blockLimit  = headerLimit + dictLimit + colsLimit + 4096
)

const (
	builders      = 4 // blocks in memory that are filled or wait to be written; made when needed
	keptBuilders  = 2 // of them after a burst
	flushEvery    = 5 * time.Second
	followEvery   = 100 * time.Millisecond // while somebody follows
	syncEvery     = time.Second
	minSegment    = 1 << 20
	maxSegment    = 8 << 20
	segmentShare  = 64 // segments in a budget
	minBudget     = 8 << 20
	defaultBudget = 2 << 30
)
