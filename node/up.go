package node

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/omega-mesh/omega/node/config"
)

// UpOptions are what a node needs from the process it runs in.
type UpOptions struct {
	// Version is shown in status.
	Version string
	// Log is where the node writes; nil is standard error.
	Log io.Writer
	// Ready, if set, is called once, when the API answers and the first sync is over.
	Ready func()
	// Signals, if set, brings SIGINT and SIGTERM: the first drains, the second stops. Nil leaves it to ctx.
	Signals <-chan os.Signal
}

// Up is the whole life of `omega up`: it returns when ctx ends, when the second signal comes, or when the node
// cannot go on. As root, and unless cfg.Split is off, it runs the node as two processes.
func Up(ctx context.Context, cfg *config.Config, opt UpOptions) error { return errors.ErrUnsupported }

// IsChild says whether this process is the unprivileged half that Up executed. main, and TestMain of a test that
// calls Up as root, must ask it before anything else, and if so exit with Child's result.
func IsChild() bool { return len(os.Args) > 0 && os.Args[0] == childName }

// Child is the life of the unprivileged half; its result is the exit code.
func Child() int { return 1 }

// childName is argv[0] of the unprivileged half: nothing a user types, and what ps shows.
const childName = "omega: node"
