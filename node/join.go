package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/omega-mesh/omega/swarm"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Errors of Join that a caller may decide on.
var (
	// ErrToken says that the text is no join token, or one that has expired.
	ErrToken = errors.New("the join token cannot be used")
	// ErrJoinRefused says that members answered and none admitted this host.
	ErrJoinRefused = errors.New("no member admitted this host")
	// ErrJoinWaiting says that the token is good and that no operator has approved this host yet.
	ErrJoinWaiting = errors.New("this host waits for approval")
	// ErrJoinUnreachable says that no address of the token answered.
	ErrJoinUnreachable = errors.New("no member could be reached")
)

// JoinOptions say how Join introduces this host.
type JoinOptions struct {
	// Name is the peer's name in the swarm; empty takes the host's name.
	Name string
	// NextKey as in InitOptions.
	NextKey string
	// Passphrase and Store as in InitOptions.
	Passphrase []byte
	Store      identity.Store
	// Random as in InitOptions.
	Random io.Reader
	// Timeout bounds the whole, but for the time that an operator takes to approve; 0 is 30 s.
	Timeout time.Duration
	// Wait bounds the time that an operator takes, where the invite asks for approval; 0 is an hour.
	Wait time.Duration
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

// Join makes dir a member's folder: it creates the identity if there is none, shows the token to a member it names,
// and keeps the genesis and the authority entries it is given. Joining again with the same identity is idempotent.
// Nothing that is wrong with the token is ever said in its own words.
func Join(ctx context.Context, dir, token string, opt JoinOptions) (*Joined, error) {
	if opt.Timeout == 0 {
		opt.Timeout = 30 * time.Second
	}
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, opt.Timeout)
	defer cancel()
	progress := func(s string) {
		if opt.Progress != nil {
			opt.Progress(s)
		}
	}
	t, err := authority.ParseToken(token)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	l := Layout{dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	unlock, err := lock(l.Lock())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if g, err := loadGenesis(l); err == nil && g.SwarmID() != t.Swarm {
		return nil, fmt.Errorf("%s: %w: %s; `omega leave` it first", dir, ErrInitialised, g.Name)
	} else if err != nil && !errors.Is(err, ErrNotInitialised) {
		return nil, err
	} else if err != nil && !time.Now().Before(t.NotAfter) {
		return nil, fmt.Errorf("%w: it expired at %s", ErrToken, t.NotAfter.Format(time.RFC3339))
	}
	self, err := openOrCreate(l, opt.Name, opt.NextKey, t.Suite, opt.Passphrase, opt.Store, opt.Random)
	if err != nil {
		return nil, err
	}
	defer self.Close()

	progress("asking the swarm to admit " + self.Inception().Name)
	ask := swarm.JoinConfig{Token: t, Identity: self, Addrs: knownPeers(l)}
	reply, err := swarm.Join(ctx, ask)
	if errors.Is(err, swarm.ErrWaiting) {
		progress("waiting for an operator to approve " + self.Inception().Name + "; both screens must show the words " + self.DID().Words())
		if reply, err = awaitApproval(whole, ask, opt.Wait); err == nil {
			rest, stop := context.WithTimeout(whole, opt.Timeout)
			defer stop()
			ctx = rest
		}
	}
	switch {
	case errors.Is(err, swarm.ErrWaiting):
		return nil, fmt.Errorf("%w: no operator has approved it yet: `omega pending` shows it to them; join again with the same token then", ErrJoinWaiting)
	case errors.Is(err, swarm.ErrRefused):
		return nil, fmt.Errorf("%w: the token is unknown, used up, withdrawn or expired; ask the operator for a new one: %w", ErrJoinRefused, err)
	case errors.Is(err, swarm.ErrUnreachable):
		return nil, fmt.Errorf("%w at %s: %w", ErrJoinUnreachable, strings.Join(t.Addrs, ", "), err)
	case err != nil:
		return nil, fmt.Errorf("join: %w", err)
	}
	g, err := authority.DecodeGenesis(reply.Genesis)
	if err != nil {
		return nil, fmt.Errorf("join: the answer's genesis: %w", err)
	}
	if g.SwarmID() != t.Swarm {
		return nil, fmt.Errorf("join: the answer is of another swarm, %s", g.SwarmID())
	}
	progress(fmt.Sprintf("checking %d entries of %s", len(reply.Entries), g.Name))
	state, err := storeJoined(ctx, l, g, reply.Entries)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	if _, ok := state.Member(self.DID()); !ok {
		return nil, fmt.Errorf("join: the answer does not prove that this host was admitted: %w", ErrJoinRefused)
	}
	if err := writePeers(l, append(slices.Clone(reply.Addrs), t.Addrs...)); err != nil {
		return nil, fmt.Errorf("join: address book: %w", err)
	}
	if err := writeFile(l.Genesis(), g.Encode(), 0o644); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	return &Joined{
		Dir: dir, DID: string(self.DID()), Name: self.Inception().Name, Swarm: g.SwarmID().String(), SwarmName: g.Name,
		Roles: state.Roles(self.DID(), time.Now()), By: string(reply.By), Entries: len(reply.Entries),
	}, nil
}

// awaitApproval asks again now and then until an operator has answered. A member that cannot be reached for a moment
// is no answer.
func awaitApproval(ctx context.Context, ask swarm.JoinConfig, wait time.Duration) (*swarm.JoinReply, error) {
	if wait == 0 {
		wait = time.Hour
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(approvalPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, swarm.ErrWaiting
		case <-tick.C:
		}
		reply, err := swarm.Join(ctx, ask)
		if err == nil || errors.Is(err, swarm.ErrRefused) {
			return reply, err
		}
	}
}

// approvalPoll is how often a joiner that waits asks again; a member takes one request a second of an address.
const approvalPoll = 2 * time.Second

// storeJoined checks and keeps the entries of a join. They come feed by feed, and one author's may depend on another's:
// what is not known yet is tried again until a round brings nothing new.
func storeJoined(ctx context.Context, l Layout, g *authority.Genesis, entries [][]byte) (*authority.State, error) {
	fold := authority.NewFold(g)
	led, err := ledger.Open(l.Ledger(), g.SwarmID(), nil, fold, ledger.Options{OnEntry: func(e *ledger.Entry) { _ = fold.Apply(e) }})
	if err != nil {
		return nil, err
	}
	defer led.Close()
	if err := led.Replay(func(e *ledger.Entry) error { _ = fold.Apply(e); return nil }); err != nil {
		return nil, err
	}
	for waiting := entries; len(waiting) > 0; {
		var left [][]byte
		var last error
		for _, raw := range waiting {
			if _, err := led.Ingest(ctx, raw); err != nil && !errors.Is(err, ledger.ErrDuplicate) {
				left, last = append(left, raw), err
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(left) == len(waiting) {
			var missing *ledger.GapError
			var refused *ledger.RejectError
			if errors.As(last, &missing) || errors.As(last, &refused) {
				break // sync brings what leads there
			}
			return nil, last
		}
		waiting = left
	}
	if err := led.Close(); err != nil {
		return nil, err
	}
	return fold.State(), nil
}

// knownPeers are addresses of the address book, for a retry when the token's own are gone.
func knownPeers(l Layout) []string {
	raw, err := ReadBounded(l.Peers(), 1<<20)
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		addr, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(addr, "/") && len(out) < 16 {
			out = append(out, addr)
		}
	}
	return out
}

// writePeers begins the address book, unless there is one.
func writePeers(l Layout, addrs []string) error {
	if _, err := os.Stat(l.Peers()); err == nil || len(addrs) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(l.Peers()), 0o700); err != nil {
		return err
	}
	slices.Sort(addrs)
	return writeFile(l.Peers(), []byte(strings.Join(slices.Compact(addrs), "\n")+"\n"), 0o600)
}
