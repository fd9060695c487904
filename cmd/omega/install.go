package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/node/install"
)

func newInstallCommand(a *app) *cobra.Command {
	var o install.Options
	var noStart bool
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Make this binary a service of the host: systemd unit, user, folders",
		Long: `Put this binary into its place, make the state folder, name the user that the unprivileged half runs as, write a systemd
unit and start it. Installing again, also with a newer binary, is harmless. "omega uninstall" takes all of it away.`,
		Example: `  omega install
  omega install --mode enforce
  omega install --root /mnt/image --no-start   # into an image that is being built`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Dir, o.Start = a.stateDir(), !noStart
			steps, err := install.Install(cmd.Context(), o)
			return a.printSteps(steps, err)
		},
	}
	cmd.Flags().StringVar(&o.Root, "root", "", "install below this folder, and start nothing")
	cmd.Flags().StringVar(&o.Prefix, "prefix", "/usr/local", "the binary goes to PREFIX/bin")
	cmd.Flags().StringVar(&o.Mode, "mode", "", "observe, enforce or read-only (default what omega.yaml says, or observe)")
	cmd.Flags().BoolVar(&noStart, "no-start", false, "do not start the service yet")
	return cmd
}

func newUninstallCommand(a *app) *cobra.Command {
	var o install.Options
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop the service and take away what install made, kernel state included",
		Long: `Stop the service, remove what the node left in the kernel, the unit, the user and the binary. The state folder stays if
it holds this host's identity: --purge wipes it, and the swarm still counts this host as a member until it is revoked.`,
		Example: `  omega uninstall
  omega uninstall --purge`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Dir = a.stateDir()
			steps, err := install.Uninstall(cmd.Context(), o)
			return a.printSteps(steps, err)
		},
	}
	cmd.Flags().StringVar(&o.Root, "root", "", "what was installed below this folder")
	cmd.Flags().StringVar(&o.Prefix, "prefix", "/usr/local", "the binary is in PREFIX/bin")
	cmd.Flags().BoolVar(&o.Purge, "purge", false, "wipe the state folder too, keys included")
	return cmd
}

func (a *app) printSteps(steps []install.Step, failed error) error {
	for _, s := range steps {
		if a.json {
			if err := a.emit(s); err != nil {
				return err
			}
			continue
		}
		mark := "-"
		if s.Done {
			mark = "ok"
		}
		line := fmt.Sprintf("%-3s %-13s %s", mark, s.What, s.Path)
		if s.Detail != "" {
			line += "  (" + s.Detail + ")"
		}
		fmt.Fprintln(a.out, line)
	}
	return failed
}
