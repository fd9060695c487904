package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/omega-mesh/omega/node"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/node/install"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
)

// Exit codes, as scripts rely on them.
const (
	exitDone         = 0
	exitFailed       = 1
	exitUsage        = 2
	exitUnreachable  = 3
	exitNotPermitted = 4
	exitNotFound     = 5
)

// exitError is an error that knows its exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func fail(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

// exitCode says what a script is told about err.
func exitCode(err error) int {
	var e *exitError
	switch {
	case errors.As(err, &e):
		return e.code
	case client.Unreachable(err):
		return exitUnreachable
	case errors.Is(err, client.ErrNoOperator):
		return exitNotPermitted
	case errors.Is(err, config.ErrInvalid), errors.Is(err, authority.ErrToken), errors.Is(err, node.ErrNoWayBack):
		return exitUsage
	case errors.Is(err, node.ErrNotInitialised):
		return exitNotFound
	case errors.Is(err, os.ErrPermission), errors.Is(err, identity.ErrPassphrase), errors.Is(err, install.ErrNotRoot), keyRefused(err):
		return exitNotPermitted
	}
	switch connect.CodeOf(err) {
	case connect.CodeNotFound:
		return exitNotFound
	case connect.CodePermissionDenied, connect.CodeUnauthenticated:
		return exitNotPermitted
	case connect.CodeInvalidArgument:
		return exitUsage
	}
	return exitFailed
}

// explain is err in one line for a person: what failed, why, and what to do.
func explain(err error) string {
	if client.Unreachable(err) {
		return err.Error() + "; is it running? start it with `omega up`, or name its folder with --dir"
	}
	var c *connect.Error
	if errors.As(err, &c) {
		return c.Message()
	}
	return err.Error()
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// app is what every command needs: where to write, and the global flags.
type app struct {
	in          io.Reader
	out, errOut io.Writer

	dir        string
	configFile string
	json       bool
	quiet      bool
	verbose    bool
	passphrase string // file
}

func newApp(in io.Reader, out, errOut io.Writer) *app { return &app{in: in, out: out, errOut: errOut} }

// client makes a client of the node in --dir. The caller closes it.
func (a *app) client() *client.Client { return client.New(a.stateDir()) }

func (a *app) stateDir() string {
	if a.dir != "" {
		return a.dir
	}
	return config.DefaultDir()
}

// progress tells a person on standard error what goes on, unless told to be quiet.
func (a *app) progress(text string) {
	if !a.quiet {
		fmt.Fprintln(a.errOut, printable(text))
	}
}

// colour reports whether standard output is a terminal that wants colours (https://no-color.org).
func (a *app) colour() bool {
	f, ok := a.out.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// readPassphrase reads the passphrase of a key from the file named by --passphrase-file; none where it is not given.
func (a *app) readPassphrase() ([]byte, error) {
	if a.passphrase == "" {
		return nil, nil
	}
	f, err := os.Open(a.passphrase)
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	b = []byte(strings.TrimRight(string(b), "\r\n"))
	if len(b) == 0 {
		return nil, fail(exitUsage, "the passphrase in %s is empty", a.passphrase)
	}
	return b, nil
}

// asOperator runs f with the operator's key of this folder.
func (a *app) asOperator(ctx context.Context, f func(*client.Client, *client.Operator) error) error {
	passphrase, err := a.readPassphrase()
	if err != nil {
		return err
	}
	defer clear(passphrase)
	c := a.client()
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	op, err := c.OpenOperator(ctx, passphrase)
	if err != nil {
		return err
	}
	defer op.Close()
	return f(c, op)
}

// asOperatorOrMember is asOperator for what a member may do as well: where no operator's key is here, this host's own credential
// stands for it, if it holds one, and member is called. refused makes of its node's answer that neither will do.
func (a *app) asOperatorOrMember(ctx context.Context, operator func(*client.Client, *client.Operator) error, member func(c *client.Client, refused func(error) error) error) error {
	err := a.asOperator(ctx, operator)
	if !errors.Is(err, client.ErrNoOperator) {
		return err
	}
	c := a.client()
	defer c.Close()
	if _, lerr := c.ListCredentials(ctx, &apiv1.ListCredentialsRequest{}); lerr != nil {
		return err
	}
	return member(c, func(answer error) error {
		if connect.CodeOf(answer) == connect.CodePermissionDenied {
			return fail(exitNotPermitted, "%w; and by this host's own credential: %w", err, answer)
		}
		return answer
	})
}

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "omega",
		Short: "A host-security mesh without a server: what hits one host immunises all of them",
		Long: `omega makes this host a peer of a swarm that watches itself and defends itself together.

Every peer is equal. There is no server: found a swarm on one host, let the others join with one token, and what
attacks one of them is refused in the kernel of all of them.`,
		Example: `  omega init --swarm home && omega up          # found a swarm on this host
  omega invite                                 # print a token for one more host
  omega join omega1… --up                      # on that host
  omega drill                                  # watch five hosts catch a real attack, on this machine alone`,
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := root.PersistentFlags()
	f.StringVar(&a.dir, "dir", "", "state folder (default $OMEGA_DIR, /var/lib/omega as root, $XDG_STATE_HOME/omega otherwise)")
	f.StringVar(&a.configFile, "config", "", "configuration file (default omega.yaml in the state folder)")
	f.BoolVar(&a.json, "json", false, "print JSON: one object, or JSON Lines for lists and streams")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress on standard error")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "more on standard error")
	f.StringVar(&a.passphrase, "passphrase-file", "", "file with the passphrase of this host's keys, where they have one")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fail(exitUsage, "%w; see `%s --help`", err, cmd.CommandPath())
	})
	root.AddGroup(
		&cobra.Group{ID: "node", Title: "A node and its swarm:"},
		&cobra.Group{ID: "act", Title: "Seeing and acting:"},
		&cobra.Group{ID: "try", Title: "Trying it:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("node",
		newInitCommand(a), newInviteCommand(a), newJoinCommand(a), newLeaveCommand(a), newUpCommand(a), newPanicCommand(a), newInstallCommand(a), newUninstallCommand(a), newCleanupCommand(a),
		newStatusCommand(a), newPeersCommand(a), newPeerCommand(a), newRootChainCommand(a), newRoleCommand(a), newLedgerCommand(a), newDoctorCommand(a), newCoverageCommand(a), newIntegrityCommand(a), newConfigCommand(a),
		newKeyCommand(a), newDIDCommand(a))
	add("act",
		newFindingsCommand(a), newReportCommand(a), newReceiptsCommand(a), newEventsCommand(a), newRespondCommand(a), newResponsesCommand(a), newAllowCommand(a),
		newPendingCommand(a), newApproveCommand(a), newRejectCommand(a), newPolicyCommand(a), newCredentialCommand(a), newDecoyCommand(a), newDetectCommand(a), newRulesCommand(a), newIndicatorsCommand(a), newModuleCommand(a))
	add("try", newBenchCommand(a), newVersionCommand(a))
	for _, c := range extraCommands(a) {
		add("try", c)
	}
	usage(root)
	return root
}

// usage makes every wrong call exit with 2 and name the help.
func usage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return fail(exitUsage, "%w; see `%s --help`", err, c.CommandPath())
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		usage(c)
	}
}

// group is a command that only holds others.
func group(use, short, example string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Example: example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(commands...)
	return c
}
