package node

import (
	"context"
	"errors"
	"time"
)

// Errors a caller may decide on.
var (
	// ErrInitialised says that the state folder holds an identity already.
	ErrInitialised = errors.New("this state folder holds an identity already")
	// ErrNotInitialised says that the state folder holds no identity or no swarm.
	ErrNotInitialised = errors.New("this state folder belongs to no swarm")
	// ErrLocked says that another node runs on the state folder.
	ErrLocked = errors.New("another node runs on this state folder")
)

// InitOptions say what Init makes.
type InitOptions struct {
	// Name is the peer's name in the swarm, at most 63 bytes; empty takes the host's name.
	Name string
	// Swarm names a swarm to found, whose one operator this host's operator identity is; empty makes an identity only.
	Swarm string
	// Passphrase protects both private keys (Argon2id); empty leaves key files that a daemon can read unattended.
	Passphrase []byte
}

// Initialised is what Init made.
type Initialised struct {
	Dir        string `json:"dir"`
	DID        string `json:"did"`
	Name       string `json:"name"`
	Swarm      string `json:"swarm,omitempty"` // id, hex
	SwarmName  string `json:"swarm_name,omitempty"`
	Operator   string `json:"operator,omitempty"` // DID
	Protection string `json:"protection"`         // "file" or "passphrase"
}

// JoinOptions say how Join introduces this host.
type JoinOptions struct {
	// Name is the peer's name in the swarm; empty takes the host's name.
	Name string
	// Passphrase as in InitOptions.
	Passphrase []byte
	// Timeout bounds the whole; 0 is 30 s.
	Timeout time.Duration
	// Progress, if set, is told each step in a few words.
	Progress func(string)
}

// Joined is what Join came to.
type Joined struct {
	Dir       string   `json:"dir"`
	DID       string   `json:"did"`
	Name      string   `json:"name"`
	Swarm     string   `json:"swarm"`
	SwarmName string   `json:"swarm_name"`
	Roles     []string `json:"roles"`
	By        string   `json:"by"` // DID of the member that admitted us
	Entries   int      `json:"entries"`
}

// Init makes this host's identity in dir, and founds a swarm when told its name.
func Init(dir string, opt InitOptions) (*Initialised, error) { return nil, errors.ErrUnsupported }

// Join makes dir a member's folder: it creates the identity if there is none, shows the token to a member it names,
// and keeps the genesis and the authority entries it is given. Joining again with the same identity is idempotent.
func Join(ctx context.Context, dir, token string, opt JoinOptions) (*Joined, error) {
	return nil, errors.ErrUnsupported
}

// Wipe removes everything a node keeps in dir: keys are overwritten first. The node must not be running.
func Wipe(dir string) error { return errors.ErrUnsupported }
