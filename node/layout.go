package node

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
)

// Layout names what lies in a state folder. Under two processes the folder itself, Operator and Next belong to
// root alone; Identity, Ledger and Swarm to the unprivileged half.
type Layout struct{ Dir string }

// Identity is the folder of the node's own keys.
func (l Layout) Identity() string { return filepath.Join(l.Dir, "identity") }

// Operator is the folder of the operator's keys; it exists on the founder's host only, and the node never reads it.
func (l Layout) Operator() string { return filepath.Join(l.Dir, "operator") }

// Recovery is the folder of the recovery keys that founding a swarm made here, until they are carried away.
func (l Layout) Recovery() string { return filepath.Join(l.Dir, "recovery") }

// Next is the folder of the pre-rotated next key, which no running node reads: beside the state folder, so that a copy of
// that does not have it.
func (l Layout) Next() string { return filepath.Clean(l.Dir) + "-next" }

// NextInside is where the next key lay in older folders.
func (l Layout) NextInside() string { return filepath.Join(l.Dir, "next") }

// Ledger is the folder of all feeds.
func (l Layout) Ledger() string { return filepath.Join(l.Dir, "ledger") }

// Journal is the folder of what this host saw.
func (l Layout) Journal() string { return filepath.Join(l.Dir, "journal") }

// Modules is the folder of modules by content; Compiled, within it, that of what was compiled of them, and ModuleFailures the
// file that remembers which failed here.
func (l Layout) Modules() string { return filepath.Join(l.Dir, "modules") }

// Compiled is described at Modules.
func (l Layout) Compiled() string { return filepath.Join(l.Modules(), "compiled") }

// ModuleFailures is described at Modules.
func (l Layout) ModuleFailures() string { return filepath.Join(l.Modules(), "failures.json") }

// Indicators is the folder of what this host looks for: its sources, what they gave, and what was seen.
func (l Layout) Indicators() string { return filepath.Join(l.Dir, "indicators") }

// Swarm is the folder of what the network half remembers.
func (l Layout) Swarm() string { return filepath.Join(l.Dir, "swarm") }

// Peers is the address book: one multiaddr a line.
func (l Layout) Peers() string { return filepath.Join(l.Swarm(), "peers.txt") }

// Genesis is the first entry of the swarm.
func (l Layout) Genesis() string { return filepath.Join(l.Dir, "genesis.cbor") }

// Allowed is the list of what this host's own socket said must never be blocked here, one a line.
func (l Layout) Allowed() string { return filepath.Join(l.Dir, "allow.txt") }

// Baseline is what watched files are to be; it belongs to the privileged half.
func (l Layout) Baseline() string { return filepath.Join(l.Dir, "baseline") }

// Quarantine is the folder of sealed files; it is root's.
func (l Layout) Quarantine() string { return filepath.Join(l.Dir, "quarantine") }

// Held is what is needed to put back what may not be written, and to let it be written again.
func (l Layout) Held() string { return filepath.Join(l.Dir, "held") }

// PanicMark is there after a panic, until a start that names its mode.
func (l Layout) PanicMark() string { return filepath.Join(l.Dir, "panic") }

// Config is the configuration file read unless another is named.
func (l Layout) Config() string { return filepath.Join(l.Dir, "omega.yaml") }

// Socket is where the API answers.
func (l Layout) Socket() string { return filepath.Join(l.Dir, "omega.sock") }

// Emergency is the socket on which the privileged half answers `omega panic`.
func (l Layout) Emergency() string { return filepath.Join(l.Dir, "panic.sock") }

// Lock is held for as long as a node runs on the folder.
func (l Layout) Lock() string { return filepath.Join(l.Dir, "lock") }

// PinDir is where the node of dir pins what may outlive it in the kernel: a folder of its own on the BPF file system.
func PinDir(dir string) string {
	h := sha256.Sum256([]byte(filepath.Clean(dir)))
	return filepath.Join("/sys/fs/bpf", "omega-"+hex.EncodeToString(h[:6]))
}
