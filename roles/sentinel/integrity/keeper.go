package integrity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// How a Keeper goes about its work.
const (
	// rescanEvery is how often all watched files are looked at though nobody told of a change, fullEvery how often their
	// content is read though inode, size and times are as they were.
	rescanEvery = time.Hour
	fullEvery   = 24 * time.Hour
	// A state is offered to be signed when nothing changed for quietFor, at the latest after signEvery as long. Both grow with
	// what there is to write: by quietFor for each perQuiet entries. In the long run there is one in wordEvery, and at most
	// wordBurst more at once.
	quietFor  = 500 * time.Millisecond
	signEvery = 10
	perQuiet  = 1000
	wordEvery = 10 * time.Second
	wordBurst = 8
	// maxTold bounds the changes of scans that wait to be told; what is over it is counted.
	maxTold = 4096
)

// KeeperOptions say what is kept, and where.
type KeeperOptions struct {
	File           string // the stored state
	Paths, Exclude []string
	Share          float64 // of one core, as Options have it
	Rate           int64   // bytes a second read by scans
	// Live says that a kernel tells of changes as they happen: else only scans find them.
	Live bool
	// Quiet is used in place of half a second as the time that nothing must change before a state is to be signed.
	Quiet time.Duration
	Log   *slog.Logger
}

// Told is a change that a scan found. Nobody saw who did it: it was done between From and To.
type Told struct {
	Change
	Seq      uint64
	From, To int64 // Unix nanoseconds; From is 0 where it is not known
}

// News is what a Keeper has to say.
type News struct {
	Changes []Told
	// Sign is the state as it is to be, which holds once Commit is called with its File; nil if there is none.
	Sign *event.Baseline
}

// Status is how a Keeper stands.
type Status struct {
	Phase     string `cbor:"1,keyasint"` // waiting, building, scanning or watching
	Live      bool   `cbor:"2,keyasint"`
	Entries   int    `cbor:"3,keyasint"`
	Differ    int    `cbor:"4,keyasint"`
	Skipped   uint64 `cbor:"5,keyasint"`
	Done      int    `cbor:"6,keyasint"` // entries looked at by the scan that runs
	Bytes     int64  `cbor:"7,keyasint"` // read by it
	Looked    int64  `cbor:"8,keyasint"` // when all were looked at last, Unix nanoseconds
	Scans     uint64 `cbor:"9,keyasint"`
	Dropped   uint64 `cbor:"10,keyasint"` // changes found and not told
	Unsigned  bool   `cbor:"11,keyasint"` // the state on disk is not the newest yet
	Fault     string `cbor:"12,keyasint"` // why the stored state was not read, or the last was not stored
	Root      []byte `cbor:"13,keyasint"`
	File      []byte `cbor:"14,keyasint"`
	WatchedOf int    `cbor:"15,keyasint"` // paths of the configuration
}

// Phases of a Keeper.
const (
	PhaseWaiting  = "waiting"  // for the word of what was signed last
	PhaseBuilding = "building" // the first baseline is being taken
	PhaseScanning = "scanning"
	PhaseWatching = "watching"
)

// Keeper holds what a host's watched files are to be and how they were last seen, and keeps both on disk. What it stores is
// in force only when its digest was signed (News.Sign, then Commit): so the file and the last signed word never part, however
// the host dies. It must be able to read every watched file. Its methods may be called by many goroutines at once.
type Keeper struct {
	opt KeeperOptions

	mu       sync.Mutex
	state    *State              // nil until the first baseline is there
	offered  *State              // of a crash between storing and signing
	next     [32]byte            // digest of what lies in File.new; zeros where nothing does
	disk     [32]byte            // digest of what lies in File
	begun    bool                // Begin was called
	lost     bool                // there was a stored state, and it does not read
	phase    string              // of Status
	touched  map[string]struct{} // looked at while a scan runs, which saw them before or after
	told     []Told
	seq      uint64
	status   Status // the counters of it
	sign     *event.Baseline
	cause    string // why the next word is signed; empty: nothing changed
	by       string
	changed  time.Time // last, since the last word
	first    time.Time // since the last word
	owed     time.Time // when the words so far would have been said at one in wordEvery
	asked    bool      // for a scan
	full     bool      // for one that reads everything
	lastFull time.Time

	wake  chan struct{} // for Run
	ring  chan struct{} // closed and made anew when there are news
	began chan struct{} // closed by Begin
}

// OpenKeeper reads what is stored. A file that does not read is no error: Begin's word says so, and the baseline is taken anew.
func OpenKeeper(opt KeeperOptions) (*Keeper, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Quiet <= 0 {
		opt.Quiet = quietFor
	}
	if len(opt.Paths) == 0 || len(opt.Paths) > maxListed || len(opt.Exclude) > maxListed {
		return nil, fmt.Errorf("%d paths to watch, %d to leave out: want 1 to %d", len(opt.Paths), len(opt.Exclude), maxListed)
	}
	for _, list := range [][]string{opt.Paths, opt.Exclude} {
		for _, p := range list {
			if !plain(p) {
				return nil, fmt.Errorf("%q: a watched path is absolute and clean", p)
			}
		}
	}
	k := &Keeper{opt: opt, phase: PhaseWaiting, wake: make(chan struct{}, 1), ring: make(chan struct{}), began: make(chan struct{})}
	var err error
	if k.state, k.disk, err = load(opt.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.lost, k.status.Fault, k.disk = true, err.Error(), [32]byte{}
		opt.Log.Error("the stored baseline of watched files does not read: it is taken anew, and the peers are told", "err", err)
	}
	if k.offered, k.next, err = load(opt.File + ".new"); err != nil {
		k.offered, k.next = nil, [32]byte{}
	}
	return k, nil
}

func load(path string) (*State, [32]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, [32]byte{}, err
	}
	defer f.Close()
	return Read(f)
}

// Begin tells which stored state was signed last (zeros: none), and lets the work start. A state that was stored and signed,
// but not put in its place before the host died, is put there. It gives the word with which this life starts; nil where
// there is nothing to say: no state was ever stored, or Begin was called before.
func (k *Keeper) Begin(signed [32]byte) (*event.Baseline, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	again := k.begun
	k.begun = true
	if !again {
		close(k.began)
	}
	if k.next != [32]byte{} && k.next == signed {
		if !again {
			k.state = k.offered
		}
		if err := k.place(); err != nil {
			return nil, err
		}
	} else if !again {
		k.next = [32]byte{}
	}
	k.offered = nil
	if again || k.state == nil && !k.lost {
		return nil, nil
	}
	word := k.word(event.BaselineLoaded)
	word.File, word.Before = k.disk, k.disk
	return word, nil
}

// word describes the state as it is. The caller holds mu.
func (k *Keeper) word(why string) *event.Baseline {
	w := &event.Baseline{Why: why, Before: k.disk}
	if k.state != nil {
		w.Root, w.Standing = k.state.Accepted.Root(), k.state.StandingRoot()
		w.Entries, w.Differ, w.Skipped = uint64(len(k.state.Accepted.Entries)), uint64(len(k.state.Standing)), k.state.Accepted.Skipped
	}
	return w
}

// place puts the stored next state in its place. The caller holds mu.
func (k *Keeper) place() error {
	if err := os.Rename(k.opt.File+".new", k.opt.File); err != nil {
		k.status.Fault = err.Error()
		return fmt.Errorf("baseline: %w", err)
	}
	k.disk, k.next, k.sign, k.status.Fault = k.next, [32]byte{}, nil, ""
	return nil
}

// Commit says that the word with this File was signed.
func (k *Keeper) Commit(file [32]byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if file == k.disk {
		return nil
	}
	if k.next == [32]byte{} || file != k.next {
		return errors.New("that state is not the one that waits to be signed")
	}
	return k.place()
}

// mark notes that the state is another than the stored one. The caller holds mu.
func (k *Keeper) mark(why, by string) {
	k.changed = time.Now()
	if k.cause == "" {
		k.first = k.changed
	}
	if k.cause == "" || why != event.BaselineChanged { // an acceptance, or the first, is what is to be said
		k.cause, k.by = why, by
	}
	k.stir()
}

// stir wakes Run.
func (k *Keeper) stir() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// bell wakes who waits for news. The caller holds mu.
func (k *Keeper) bell() {
	close(k.ring)
	k.ring = make(chan struct{})
}

// due is how long it is until the state is to be stored; ok is false where it is stored.
func (k *Keeper) due(now time.Time) (wait time.Duration, ok bool) {
	if k.cause == "" || k.state == nil || k.sign != nil {
		return 0, false
	}
	slow := time.Duration(len(k.state.Accepted.Entries)) * k.opt.Quiet / perQuiet
	wait = min(k.changed.Add(k.opt.Quiet+slow).Sub(now), k.first.Add(signEvery*k.opt.Quiet+slow).Sub(now))
	return max(0, wait, k.owed.Add(-wordBurst*wordEvery).Sub(now)), true
}

// offer stores the state beside the one in force, for its word to be signed.
func (k *Keeper) offer() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cause == "" || k.sign != nil {
		return
	}
	digest, err := k.store()
	if err != nil {
		if k.status.Fault != err.Error() {
			k.opt.Log.Error("the baseline of watched files was not stored", "err", err)
		}
		k.status.Fault = err.Error()
		k.first, k.changed = time.Now().Add(time.Minute), time.Now().Add(time.Minute) // the disk may have room by then
		return
	}
	if now := time.Now(); k.owed.Before(now) {
		k.owed = now
	}
	k.owed = k.owed.Add(wordEvery)
	k.next = digest
	k.sign = k.word(k.cause)
	k.sign.File, k.sign.By = digest, k.by
	k.cause, k.by = "", ""
	k.bell()
}

func (k *Keeper) store() (digest [32]byte, err error) {
	f, err := os.OpenFile(k.opt.File+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return digest, err
	}
	defer f.Close()
	if digest, err = k.state.Write(f); err != nil {
		return digest, err
	}
	if st, err := f.Stat(); err != nil || st.Size() > maxStored {
		return digest, errors.Join(err, fmt.Errorf("the baseline is longer than %d bytes: watch fewer paths", maxStored))
	}
	return digest, errors.Join(f.Sync(), f.Close())
}

// News waits for something to say. What is not above after was taken and is forgotten; a word is
// given until Commit is called with its File.
func (k *Keeper) News(ctx context.Context, after uint64) (News, error) {
	for {
		k.mu.Lock()
		for len(k.told) > 0 && k.told[0].Seq <= after {
			k.told = k.told[1:]
		}
		var n News
		n.Changes = append(n.Changes, k.told[:min(len(k.told), 32)]...)
		if k.sign != nil {
			word := *k.sign
			n.Sign = &word
		}
		ring := k.ring
		k.mu.Unlock()
		if n.Changes != nil || n.Sign != nil {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return News{}, ctx.Err()
		case <-ring:
		}
	}
}

// Rescan asks for a look at all watched files, and with full for one that reads their content though nothing speaks for a
// change.
func (k *Keeper) Rescan(full bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked, k.full = true, k.full || full
	k.stir()
}

// Status gives how it stands.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.status
	s.Phase, s.Live, s.File, s.WatchedOf = k.phase, k.opt.Live, k.disk[:], len(k.opt.Paths)
	s.Unsigned = k.cause != "" || k.sign != nil
	if k.state != nil {
		s.Entries, s.Differ, s.Skipped, s.Looked = len(k.state.Accepted.Entries), len(k.state.Standing), k.state.Accepted.Skipped, k.state.Time
	}
	return s
}

// Differences lists what stands, in the order of paths, from the first path after one: at most limit.
func (k *Keeper) Differences(after string, limit int) []Change {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state == nil {
		return nil
	}
	var out []Change
	for _, p := range k.state.standing() {
		if p <= after {
			continue
		}
		if len(out) >= limit {
			break
		}
		if c, ok := compare(p, k.state.Accepted.find(p), k.state.Standing[p]); ok {
			out = append(out, c)
		}
	}
	return out
}

// Accept takes what stands at these paths and below them for what is to be, in the name of by; none is everything. It gives
// how many differences it ended.
func (k *Keeper) Accept(paths []string, by string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state == nil {
		return 0
	}
	n := len(k.state.Standing)
	k.state.accept(func(p string) bool { return len(paths) == 0 || Covers(paths, p) })
	if n -= len(k.state.Standing); n > 0 {
		k.mark(event.BaselineAccepted, by)
	}
	return n
}
