package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/sim/serve"
)

func newSimServe(a *app) *cobra.Command {
	var listen string
	var remote, client, example bool
	var idle time.Duration
	c := &cobra.Command{
		Use:   "serve",
		Short: "Let trainers play in simulated worlds, as Gymnasium and PettingZoo know them",
		Long: `Serve simulated worlds to trainers until interrupted: batches of many worlds, stepped by one call, over Connect, gRPC or JSON
over HTTP. Whoever can connect can use it, so it listens on this machine only unless --remote says otherwise. A socket is open
to this user alone. The Python client is one file that needs python3 and numpy: --client prints it, --example a trainer.`,
		Example: `  omega sim serve --listen unix:/tmp/sim.sock
  omega sim serve --client > omega_sim.py && omega sim serve --example > train.py
  omega sim serve & python3 train.py 127.0.0.1:8737`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if client && example {
				return fail(exitUsage, "--client and --example are two files: ask for one at a time")
			}
			if client || example {
				text := serve.Client()
				if example {
					text = serve.Example()
				}
				_, err := a.out.Write(text)
				return err
			}
			if idle < time.Second || idle > 24*time.Hour {
				return fail(exitUsage, "--idle %s: from 1s to 24h", idle)
			}
			l, err := simListen(c.Context(), listen, remote)
			if err != nil {
				return err
			}
			address := l.Addr().String()
			if l.Addr().Network() == "unix" {
				address = "unix:" + address
			}
			if err := a.say(map[string]string{"listen": address}, "listening on %s", address); err != nil {
				return errors.Join(err, l.Close())
			}
			return serve.New(idle).Serve(c.Context(), l)
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:8737", "address to listen on: unix:PATH, or IP:PORT")
	c.Flags().BoolVar(&remote, "remote", false, "allow an address that other machines can reach; there is no login")
	c.Flags().DurationVar(&idle, "idle", serve.DefaultIdle, "end a session that nobody used for so long")
	c.Flags().BoolVar(&client, "client", false, "instead: print the Python client")
	c.Flags().BoolVar(&example, "example", false, "instead: print an example of a trainer that uses it")
	return c
}

// simListen listens on unix:PATH or IP:PORT.
func simListen(ctx context.Context, address string, remote bool) (net.Listener, error) {
	var lc net.ListenConfig
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fail(exitUsage, "--listen %q: want unix:PATH or IP:PORT", address)
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) && !remote {
			return nil, fail(exitUsage, "--listen %s can be reached by other machines, and there is no login: take 127.0.0.1, or allow it with --remote", address)
		}
		return lc.Listen(ctx, "tcp", address)
	}
	if path == "" {
		return nil, fail(exitUsage, "--listen %q: no path", address)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		var d net.Dialer
		if c, err := d.DialContext(ctx, "unix", path); err == nil {
			c.Close()
			return nil, fmt.Errorf("another server listens on %s: end it, or choose another path", path)
		}
		if err := os.Remove(path); err != nil { // left by a server that was killed
			return nil, err
		}
	}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
