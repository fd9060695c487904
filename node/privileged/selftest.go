package privileged

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/omega-mesh/omega/bpf/selftest"
)

// selfTestLimit is how long a self-test may take before its process is killed; it ends itself earlier.
const selfTestLimit = 10 * time.Second

// ErrTesting says that a self-test runs already.
var ErrTesting = errors.New("a self-test runs already")

// SelfTest implements Service.
func (h *Host) SelfTest(ctx context.Context, secret string) ([]selftest.Attempt, error) {
	if !h.testing.TryLock() {
		return nil, ErrTesting
	}
	defer h.testing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, selfTestLimit)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("self-test: %w", err)
	}
	defer r.Close()
	var uid uint32
	if os.Geteuid() == 0 {
		uid = UID(h.opt.Dir)
	}
	c, err := Spawn(ChildOptions{Name: selftest.Name, Args: []string{secret}, UID: uid, Env: []string{"HOME=/", "PATH=/usr/bin:/bin", "GOMAXPROCS=1"}, Output: w})
	w.Close()
	if err != nil {
		return nil, fmt.Errorf("self-test: %w", err)
	}
	stop := context.AfterFunc(ctx, c.Kill)
	raw, err := io.ReadAll(io.LimitReader(r, 16<<10+1))
	if err != nil {
		c.Kill()
	}
	<-c.Done()
	stop()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("self-test: %w", ctx.Err())
	case err != nil:
		return nil, fmt.Errorf("self-test: %w", err)
	case c.Err() != nil:
		return nil, fmt.Errorf("self-test: its process: %w", c.Err())
	}
	return selftest.Decode(raw)
}
