package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/omega-mesh/omega/node"
	"github.com/omega-mesh/omega/node/config"
)

func newUpCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up [--mode observe|enforce|read-only]",
		Short: "Run the node in the foreground",
		Long: `Run the node in the foreground; systemd's Type=notify is honoured. As root the node is two processes: a small
privileged one that loads the kernel half and acts, and one without privileges that does everything that parses what
others wrote. Without root it is one process, sees by /proc and acts on nothing.

A real host starts in observe mode: it says what it would have done. With --read-only it does so on a host that nothing
may be changed on: no program that could refuse anything is loaded, nothing is pinned, quarantined or tried on the host itself,
and nothing is written but to the state folder; what an earlier life blocked stands until it ends.

The first Ctrl-C drains, the second stops.`,
		Example: `  omega up
  omega up --read-only
  omega up --mode enforce
  omega up --rules /etc/omega/rules
  omega up --yara-rules /etc/omega/yara
  omega up --sensor replay:incident.jsonl.gz
  omega up --listen /ip4/0.0.0.0/tcp/7946 --decoys tcp/2323,tcp/8081`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if readOnly, _ := cmd.Flags().GetBool("read-only"); readOnly {
				if err := cmd.Flags().Set("mode", config.ModeReadOnly); err != nil {
					return err
				}
			}
			return a.up(cmd, cmd.Flags())
		},
	}
	settingFlags(cmd.Flags())
	cmd.Flags().Bool("read-only", false, "the same as --mode read-only")
	cmd.MarkFlagsMutuallyExclusive("mode", "read-only")
	return cmd
}

// settingFlags declares the settings that may be given on the command line; the key is the flag with _ for -.
func settingFlags(f *pflag.FlagSet) {
	f.String("mode", "", "observe, enforce or read-only (default observe)")
	f.StringSlice("listen", nil, "swarm listen addresses, as multiaddrs")
	f.StringSlice("bootstrap", nil, "addresses of members to try first, as multiaddrs")
	f.Bool("mdns", true, "seek members on the local network")
	f.StringSlice("decoys", nil, "services a decoy role serves, e.g. tcp/2323")
	f.StringSlice("allow", nil, "addresses and paths no response may touch on this host")
	f.String("sensor", "", "auto, kernel, procfs, off, or replay:FILE to see a recording (default auto)")
	f.Bool("replay-in-step", false, "replay with the time between events that there was")
	f.Bool("pack", true, "match events with the detections that come with the program (omega rules list)")
	f.StringSlice("indicator-sources", nil, "what this host looks for: files and folders of indicators, https://… or taxii+https://…#COLLECTION")
	f.StringSlice("rules", nil, "folders and files of Sigma rules that this host's events are matched with; absolute paths")
	f.StringSlice("yara-rules", nil, "files and folders of YARA rules that dropped and quarantined files are matched with; absolute paths (needs a build by make build-yara)")
	f.String("cgroup", "", "see and act only within this cgroup v2 folder")
	f.StringSlice("interfaces", nil, "interfaces packets are refused on (default all but loopback)")
	f.StringSlice("integrity-paths", nil, "files and folders to keep a baseline of, or auto, or off (default auto)")
	f.StringSlice("integrity-exclude", nil, "paths below those to leave out, or auto, or off (default auto)")
	f.Int("integrity-mib-s", 0, "MiB a second that scans of them may read (default 16)")
	keyFlags(f)
	f.String("log-level", "", "debug, info, warn or error (default info)")
	f.String("log-format", "", "text or json (default text)")
}

// settings reads the node's configuration: defaults, file, environment, then the flags that were set.
func (a *app) settings(flags *pflag.FlagSet) (*config.Config, error) {
	set := map[string]any{}
	if flags != nil {
		known := map[string]bool{}
		own := pflag.NewFlagSet("settings", pflag.ContinueOnError)
		settingFlags(own)
		own.VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
		flags.Visit(func(f *pflag.Flag) {
			if !known[f.Name] {
				return
			}
			key := underscore(f.Name)
			switch v := f.Value.(type) {
			case pflag.SliceValue:
				set[key] = v.GetSlice()
			default:
				set[key] = f.Value.String()
			}
		})
	}
	return config.Load(config.Source{Dir: a.dir, File: a.configFile, Environ: os.Environ(), Flags: set})
}

func underscore(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] == '-' {
			b[i] = '_'
		}
	}
	return string(b)
}

func (a *app) up(cmd *cobra.Command, flags *pflag.FlagSet) error {
	cfg, err := a.settings(flags)
	if err != nil {
		return err
	}
	if a.passphrase != "" {
		cfg.PassphraseFile = a.passphrase
	}
	if a.verbose {
		cfg.LogLevel = "debug"
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	// The node counts the signals itself: the first drains, so ctx must not end with it.
	return node.Up(contextWithoutCancel(cmd), cfg, node.UpOptions{Version: version, Log: a.errOut, Signals: signals,
		Ready: func() { a.progress("ready: omega --dir " + cfg.Dir + " status") }})
}

func newPanicCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "panic",
		Short: "On this host, at once and without the network: release every block, stop enforcing, keep watching",
		Long: `Release every block this node holds in this host's kernel, stop enforcing, and keep watching. It asks nobody and needs
no network. The node enforces again after a restart with --mode enforce.`,
		Example: `  omega panic`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := node.Panic(cmd.Context(), a.stateDir())
			if err != nil {
				return err
			}
			return a.say(map[string]any{"released": n, "mode": config.ModePanic}, "released %d block(s); this host enforces nothing now", n)
		},
	}
}

func newCleanupCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "cleanup",
		Short:   "Remove what a dead node left in the kernel, and what dead testnets left on this machine",
		Example: `  omega cleanup`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := node.Cleanup(a.stateDir())
			if err != nil {
				return err
			}
			nets, err := cleanTestnets()
			if err != nil {
				return err
			}
			return a.say(map[string]any{"pins": n, "testnets": nets}, "removed %d pinned object(s) and %d dead testnet(s)", n, nets)
		},
	}
}

func newConfigCommand(a *app) *cobra.Command {
	var origin bool
	show := &cobra.Command{
		Use:   "show [--origin]",
		Short: "Show every setting, and with --origin where its value came from",
		Example: `  omega config show --origin
  OMEGA_MODE=enforce omega config show --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.settings(nil)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, s := range cfg.Settings() {
				if a.json {
					if err := a.emit(s); err != nil {
						return err
					}
					continue
				}
				row := []string{s.Key, fmt.Sprint(s.Value)}
				if origin {
					row = append(row, s.Origin)
				}
				rows = append(rows, row)
			}
			header := []string{"SETTING", "VALUE"}
			if origin {
				header = append(header, "FROM")
			}
			return a.table(header, rows)
		},
	}
	show.Flags().BoolVar(&origin, "origin", false, "say where each value came from")
	return group("config", "The node's settings", "  omega config show --origin", show)
}
