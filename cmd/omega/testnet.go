package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/node/testnet"
)

// newTestnetCommand is the group of commands about a swarm in small on this machine.
func newTestnetCommand(a *app) *cobra.Command {
	var id string
	c := group("testnet", "A real swarm on this machine alone",
		`  omega testnet up                                # five hosts and an outsider, until Ctrl-C
  omega testnet exec x1 -- curl 10.77.0.14:2323   # in another terminal: as the attacker
  omega --dir "$(omega testnet dir n1)" responses --active`,
		newTestnetUpCommand(a), newTestnetStatusCommand(a, &id), newTestnetDirCommand(a, &id), newTestnetExecCommand(a, &id),
		newTestnetAddCommand(a, &id), newTestnetDownCommand(a, &id), newChaosCommand(a, &id), helperCommand(testnet.Helper))
	c.PersistentFlags().StringVar(&id, "testnet", "", "id of the testnet, where several run")
	return c
}

// helperCommand is how the binary runs its own tools in a process of their own. It is not for use by hand.
func helperCommand(run func([]string) int) *cobra.Command {
	return &cobra.Command{Use: "helper", Hidden: true, DisableFlagParsing: true, RunE: func(_ *cobra.Command, args []string) error {
		if code := run(args); code != exitDone {
			return &exitError{code, errors.New("")}
		}
		return nil
	}}
}

// testnetError gives the errors of a testnet the exit code a script waits for.
func testnetError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, testnet.ErrNotFound):
		return &exitError{exitNotFound, err}
	case errors.Is(err, testnet.ErrNone):
		return &exitError{exitUnreachable, fmt.Errorf("%w; start one with `omega testnet up`", err)}
	case errors.Is(err, testnet.ErrMany):
		return &exitError{exitUsage, fmt.Errorf("%w with --testnet", err)}
	case errors.Is(err, testnet.ErrInvalid):
		return &exitError{exitUsage, err}
	case errors.Is(err, testnet.ErrNotRoot):
		return &exitError{exitNotPermitted, err}
	}
	return err
}

// steps shows the progress of work that starts several things at once.
func (a *app) steps() func(string) {
	var mu sync.Mutex
	return func(text string) {
		mu.Lock()
		defer mu.Unlock()
		a.progress(text)
	}
}

func newTestnetUpCommand(a *app) *cobra.Command {
	var opt testnet.Options
	var mode string
	c := &cobra.Command{
		Use: "up", Short: "Run a swarm and an outsider on this machine until Ctrl-C", Args: cobra.NoArgs,
		Long: `Build hosts n1 to nN, members of one swarm, and x1, an outsider on the same bridge, and keep them until Ctrl-C.

As root each host is a network namespace and a cgroup with a real node in it. The machine's own interfaces, routes and
firewall are not touched, and nothing is left when it ends, however it ends.`,
		Example: `  omega testnet up
  omega testnet up --nodes 9 --dir /tmp/swarm`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opt.Mode, opt.Dir, opt.Progress = testnet.Mode(mode), a.dir, a.steps()
			began := time.Now()
			net, err := testnet.Up(cmd.Context(), opt)
			if err != nil {
				return testnetError(err)
			}
			state := net.State()
			if a.json {
				err = a.emit(state)
			} else {
				err = a.showTestnet(state)
				a.progress(fmt.Sprintf("ready in %.1f s; Ctrl-C ends it. In another terminal: omega testnet exec %s -- CMD", time.Since(began).Seconds(), testnet.Outsider))
			}
			if err == nil {
				<-cmd.Context().Done()
				a.progress("ending the testnet")
			}
			return errors.Join(err, net.Close())
		},
	}
	c.Flags().IntVar(&opt.Nodes, "nodes", testnet.DefaultNodes, fmt.Sprintf("members, 1 to %d", testnet.MaxNodes))
	c.Flags().StringVar(&mode, "mode", string(testnet.ModeAuto), "auto, netns or process")
	c.Flags().StringVar(&opt.Suite, "suite", "default", "the swarm's cryptographic suite: default or cnsa")
	c.Flags().BoolVar(&opt.Bare, "bare", false, "make the hosts, start no nodes")
	return c
}

func (a *app) showTestnet(s *testnet.State) error {
	rows := make([][]string, len(s.Hosts))
	for i, h := range s.Hosts {
		what := strings.Join(h.Roles, " ")
		if !h.Member {
			what = "no member"
		}
		pid := ""
		if h.PID != 0 {
			pid = fmt.Sprint(h.PID)
		}
		rows[i] = []string{h.Name, h.Addr.String(), what, pid, h.Dir}
	}
	if err := a.table([]string{"HOST", "ADDRESS", "ROLES", "PID", "DIR"}, rows); err != nil {
		return err
	}
	for _, u := range s.Unforced {
		fmt.Fprintln(a.out, "!", u)
	}
	return nil
}

func newTestnetStatusCommand(a *app, id *string) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the hosts of the running testnet", Args: cobra.NoArgs,
		Example: `  omega testnet status --json | jq -r '.hosts[] | select(.name=="n1").dir'`,
		RunE: func(*cobra.Command, []string) error {
			s, err := testnet.Find(*id)
			if err != nil {
				return testnetError(err)
			}
			if a.json {
				return a.emit(s)
			}
			return a.showTestnet(s)
		},
	}
}

func newTestnetDirCommand(a *app, id *string) *cobra.Command {
	return &cobra.Command{
		Use: "dir HOST", Short: "Print the state folder of a host, for --dir", Args: cobra.ExactArgs(1),
		Example: `  omega --dir "$(omega testnet dir n1)" status`,
		RunE: func(_ *cobra.Command, args []string) error {
			_, h, err := findHost(*id, args[0])
			if err != nil {
				return err
			}
			return a.say(map[string]string{"dir": h.Dir}, "%s", h.Dir)
		},
	}
}

func findHost(id, name string) (*testnet.State, *testnet.Host, error) {
	s, err := testnet.Find(id)
	if err != nil {
		return nil, nil, testnetError(err)
	}
	h, err := s.Host(name)
	return s, h, testnetError(err)
}

func newTestnetExecCommand(a *app, id *string) *cobra.Command {
	return &cobra.Command{
		Use: "exec HOST -- CMD [ARG…]", Short: "Run a command inside a host's network namespace and cgroup", Args: cobra.MinimumNArgs(2),
		Long: `Run a command on a host of the testnet, as an attacker or a user of it would. Its terminal, signals and exit code
are the command's own. OMEGA_DIR names the host's node, so that plain omega commands speak to it.`,
		Example: `  omega testnet exec x1 -- curl -m 2 10.77.0.14:2323
  omega testnet exec n1 -- omega status`,
		RunE: func(_ *cobra.Command, args []string) error {
			s, h, err := findHost(*id, args[0])
			if err != nil {
				return err
			}
			return testnetError(testnet.Exec(s, h, args[1:]))
		},
	}
}

func newTestnetAddCommand(a *app, id *string) *cobra.Command {
	return &cobra.Command{
		Use: "add HOST", Short: "Plug one more host into the bridge, which may join by itself", Args: cobra.ExactArgs(1),
		Example: `  omega testnet add n6
  omega testnet exec n6 -- omega join omega1… --name n6 --up`,
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := testnet.Find(*id)
			if err != nil {
				return testnetError(err)
			}
			h, err := testnet.Add(s, args[0])
			if err != nil {
				return testnetError(err)
			}
			return a.say(h, "%s is at %s; its state folder is %s", h.Name, h.Addr, h.Dir)
		},
	}
}

func newTestnetDownCommand(a *app, id *string) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End the running testnet, and remove what dead ones left", Args: cobra.NoArgs,
		Example: `  omega testnet down`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			removed, err := testnet.Cleanup()
			if err != nil {
				return err
			}
			s, err := testnet.Find(*id)
			switch {
			case err == nil:
				if err := testnet.Down(cmd.Context(), s); err != nil {
					return err
				}
				removed = append(removed, s.ID)
			case !errors.Is(err, testnet.ErrNone) || len(removed) == 0:
				return testnetError(err)
			}
			return a.say(map[string][]string{"removed": removed}, "removed %s", strings.Join(removed, ", "))
		},
	}
}

func newChaosCommand(a *app, id *string) *cobra.Command {
	each := func(use, short, example string, fault func(context.Context, *testnet.State, *testnet.Host) error, flags func(*cobra.Command)) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Args: cobra.MinimumNArgs(1), Example: example, RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				s, h, err := findHost(*id, name)
				if err != nil {
					return err
				}
				if err := fault(cmd.Context(), s, h); err != nil {
					return testnetError(err)
				}
			}
			return nil
		}}
		if flags != nil {
			flags(c)
		}
		return c
	}
	var by time.Duration
	var percent float64
	return group("chaos", "Faults on purpose", `  omega testnet chaos kill n1
  omega testnet chaos heal n1`,
		each("kill HOST…", "End a node with SIGKILL", "  omega testnet chaos kill n1",
			func(_ context.Context, s *testnet.State, h *testnet.Host) error { return testnet.Kill(s, h) }, nil),
		each("partition HOST…", "Cut hosts off the bridge", "  omega testnet chaos partition n4 n5",
			func(_ context.Context, s *testnet.State, h *testnet.Host) error { return testnet.Partition(s, h) }, nil),
		each("heal HOST…", "End all faults, and start a killed node again", "  omega testnet chaos heal n4 n5",
			func(ctx context.Context, s *testnet.State, h *testnet.Host) error {
				if err := testnet.Heal(s, h); err != nil || !h.Member {
					return err
				}
				ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
				defer cancel()
				return testnet.Reached(ctx, h)
			}, nil),
		each("delay HOST…", "Delay packets to hosts", "  omega testnet chaos delay n3 --by 50ms",
			func(_ context.Context, s *testnet.State, h *testnet.Host) error {
				return testnet.Degrade(s, h, by, 0)
			},
			func(c *cobra.Command) { c.Flags().DurationVar(&by, "by", 100*time.Millisecond, "how long, up to 1m") }),
		each("loss HOST…", "Lose a share of the packets to hosts", "  omega testnet chaos loss n3 --percent 20",
			func(_ context.Context, s *testnet.State, h *testnet.Host) error {
				return testnet.Degrade(s, h, 0, percent)
			},
			func(c *cobra.Command) {
				c.Flags().Float64Var(&percent, "percent", 10, "share of packets, 0 to 100")
			}),
	)
}
