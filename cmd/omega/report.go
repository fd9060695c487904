package main

import (
	"fmt"

	"github.com/spf13/cobra"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
)

func newReportCommand(a *app) *cobra.Command {
	var nameless bool
	var address, file, user, note string
	var standing, confidence uint32
	in := &apiv1.ReportRequest{Finding: &apiv1.Finding{}}
	f := in.Finding
	cmd := &cobra.Command{
		Use: "report --anonymous TITLE", Short: "Say something to the swarm without saying who does",
		Long: "Report a finding without a name. The report proves that one of a ring of members made it, and no member makes more\n" +
			"than a few an hour. Another member carries it in its feed: that one may guess, from who handed it over, and\n" +
			"whoever watches the whole network may. So may whoever has a quantum computer one day and has kept the report. What\n" +
			"you write can name you as well: the text, a file that only your host has, the time of day. No anonymous report\n" +
			"makes a host act by itself.",
		Example: "  omega report --anonymous 'the backup job mails its key' --file /etc/cron.d/backup --severity high\n" +
			"  omega report --anonymous 'scan from inside' --address 192.0.2.7 --attack T1046 --standing 24 --role sentinel",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !nameless {
				return fail(exitUsage, "omega report: only anonymous reports are made by hand: add --anonymous; what has a name, a detector finds")
			}
			f.Title, f.Confidence, in.StandingHours = args[0], confidence, standing
			f.Subject = &apiv1.Subject{Address: address, File: file, User: user}
			if note != "" {
				f.Evidence = []*apiv1.Evidence{{Name: "note", Value: note}}
			}
			c := a.client()
			defer c.Close()
			r, err := c.Report(cmd.Context(), in)
			if err != nil {
				return err
			}
			if a.json {
				return a.emit(map[string]any{"id": r.Id, "ring": r.Ring, "report": r.Slot, "reports_an_hour": r.Slots})
			}
			_, err = fmt.Fprintf(a.out, "%s  carried by another member; its author is one of %d; report %d of %d this hour\n", shortID(r.Id), r.Ring, r.Slot, r.Slots)
			return err
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&nameless, "anonymous", false, "as one of a ring of members, carried by another")
	flags.StringVar(&f.RuleId, "rule", "report.manual", "id of the rule that it belongs to")
	flags.StringVar(&f.Rule, "rule-name", "reported by hand", "short name of that rule")
	flags.StringVar(&f.Severity, "severity", "medium", "informational, low, medium, high or critical")
	flags.Uint32Var(&confidence, "confidence", 50, "how sure you are, 0 to 100")
	flags.StringSliceVar(&f.Attack, "attack", nil, "ATT&CK technique ids")
	flags.StringVar(&address, "address", "", "the address it is about")
	flags.StringVar(&file, "file", "", "the file it is about")
	flags.StringVar(&user, "user", "", "the user it is about")
	flags.StringVar(&note, "note", "", "what you saw")
	flags.Uint32Var(&standing, "standing", 0, "prove membership for at least so many hours; the ring is those of whom it is true")
	flags.StringVar(&in.Role, "role", "", "prove to hold this role; the ring is those who do")
	return cmd
}
