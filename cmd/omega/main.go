// Command omega is a peer of the swarm and the way to speak to one.
//
// It holds no logic: each command asks the node's API as any client would, or calls one function of the package that
// owns the work, and prints the answer, for people or as JSON. One file is one group of commands.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/omega-mesh/omega/node"
)

// Stamped by the Makefile.
var (
	version = "unknown"
	commit  = "unknown"
	date    = "unknown"
)

func main() {
	if node.IsChild() { // the unprivileged half of `omega up`
		os.Exit(node.Child())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := newApp(os.Stdin, os.Stdout, os.Stderr)
	os.Exit(a.run(ctx, os.Args[1:]))
}

// run carries out one command line and returns its exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := newRootCommand(a)
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	code := exitCode(err)
	if text := err.Error(); text != "" && !(ctx.Err() != nil && code == exitFailed) {
		fmt.Fprintln(a.errOut, "omega:", printable(oneLine(explain(err))))
	}
	return code
}
