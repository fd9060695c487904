package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
)

// stream hands each message to f until the stream ends.
func stream[T any](s *connect.ServerStreamForClient[T], err error, f func(*T) error) error {
	if err != nil {
		return err
	}
	defer s.Close()
	for s.Receive() {
		if err := f(s.Msg()); err != nil {
			return err
		}
	}
	return s.Err()
}

// since checks a --since: a duration back from now.
func since(s string) error {
	if s == "" {
		return nil
	}
	if d, err := time.ParseDuration(s); err != nil || d <= 0 {
		return fail(exitUsage, "--since %q: want a duration such as 10m or 24h", s)
	}
	return nil
}

func findingJSON(f *apiv1.Finding) map[string]any {
	subject := map[string]any{}
	if s := f.Subject; s != nil {
		set := func(k string, v any, there bool) {
			if there {
				subject[k] = v
			}
		}
		set("address", s.Address, s.Address != "")
		set("port", s.Port, s.Port != 0)
		set("pid", s.Pid, s.Process)
		set("exe", s.Exe, s.Exe != "")
		set("args", s.Args, s.Args != "")
		set("uid", s.Uid, s.Process)
		set("parent_exe", s.ParentExe, s.ParentExe != "")
		set("user", s.User, s.User != "")
		set("file", s.File, s.File != "")
		set("member", s.Member, s.Member != "")
	}
	evidence := []any{}
	for _, e := range f.Evidence {
		evidence = append(evidence, map[string]any{"name": e.Name, "value": e.Value})
	}
	out := map[string]any{"id": f.Id, "time": stamp(f.Time), "peer": f.Peer, "host": f.Host, "rule": f.Rule, "rule_id": f.RuleId, "title": f.Title,
		"attack": list(f.Attack), "severity": f.Severity, "confidence": f.Confidence, "subject": subject, "evidence": evidence,
		"handshake": f.Handshake, "decoy": f.Decoy}
	if n := f.Anonymous; n != nil {
		out["anonymous"] = map[string]any{"ring": n.Ring, "standing_ms": n.StandingMs, "role": n.Role, "carrier": n.Carrier}
	}
	return out
}

// finder is who found it, as a column of text.
func finder(f *apiv1.Finding) string {
	if n := f.Anonymous; n != nil {
		return fmt.Sprintf("(one of %d)", n.Ring)
	}
	return printable(f.Host)
}

func subjectText(s *apiv1.Subject) string {
	var parts []string
	if s.GetAddress() != "" {
		parts = append(parts, s.Address)
	}
	if s.GetPort() != 0 {
		parts = append(parts, fmt.Sprintf("port %d", s.Port))
	}
	if s.GetExe() != "" {
		parts = append(parts, fmt.Sprintf("%s[%d]", s.Exe, s.Pid))
	}
	for _, t := range []string{s.GetUser(), s.GetFile()} {
		if t != "" {
			parts = append(parts, t)
		}
	}
	return strings.Join(parts, " ")
}

func newFindingsCommand(a *app) *cobra.Command {
	var follow bool
	var back string
	cmd := &cobra.Command{
		Use: "findings [--follow]", Short: "What the swarm's detectors claim",
		Example: "  omega findings --since 1h\n  omega findings --follow --json | jq -r '[.host,.rule,.subject.address] | @tsv'", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := since(back); err != nil {
				return err
			}
			c := a.client()
			defer c.Close()
			s, err := c.Findings(cmd.Context(), &apiv1.FindingsRequest{Follow: follow, Since: back})
			return stream(s, err, func(f *apiv1.Finding) error {
				if a.json {
					return a.emit(findingJSON(f))
				}
				_, err := fmt.Fprintf(a.out, "%s  %-12s %-8s %3d%%  %s  %s  [%s]  %s\n", clock(f.Time), finder(f), f.Severity, f.Confidence,
					printable(f.Title), printable(subjectText(f.Subject)), printable(strings.Join(f.Attack, " ")), shortID(f.Id))
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as new ones come")
	cmd.Flags().StringVar(&back, "since", "", "how far back, e.g. 10m (default all this node keeps)")
	return cmd
}

func receiptJSON(r *apiv1.Receipt) map[string]any {
	return map[string]any{"id": r.Id, "peer": r.Peer, "host": r.Host, "response": r.Response, "outcome": r.Outcome, "guard": r.Guard, "detail": r.Detail,
		"time": stamp(r.Time), "heard": fmt.Sprint(r.Heard), "acted": fmt.Sprint(r.Acted), "act_ms": float64(int64(r.Acted-r.Heard)) / 1e6, "means": list(r.Means),
		"stopped_before_first_instruction": r.StoppedBeforeFirstInstruction}
}

func (a *app) printReceipt(r *apiv1.Receipt) error {
	if a.json {
		return a.emit(receiptJSON(r))
	}
	text := strings.Join(r.Means, " ")
	if r.Guard != "" {
		text = "guard rail " + r.Guard
	}
	if r.Detail != "" {
		text = strings.TrimSpace(text + " " + r.Detail)
	}
	_, err := fmt.Fprintf(a.out, "%s  %-12s %-9s %s  %s\n", clock(r.Time), printable(r.Host), r.Outcome, shortID(r.Response), printable(text))
	return err
}

func newReceiptsCommand(a *app) *cobra.Command {
	var follow bool
	var response string
	cmd := &cobra.Command{
		Use: "receipts [--follow]", Short: "What each peer did for each response, in its own signed word",
		Example: "  omega receipts\n  omega receipts --response 3f9c2a1b --json", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			if response != "" {
				id, err := findResponse(cmd.Context(), c, response)
				if err != nil {
					return err
				}
				response = id
			}
			s, err := c.Receipts(cmd.Context(), &apiv1.ReceiptsRequest{Follow: follow, Response: response})
			return stream(s, err, a.printReceipt)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as new ones come")
	cmd.Flags().StringVar(&response, "response", "", "only those of this response")
	return cmd
}

func newEventsCommand(a *app) *cobra.Command {
	var follow bool
	var back, where, record string
	cmd := &cobra.Command{
		Use: "events [--follow] [--where EXPR]", Short: "This host's telemetry: it never leaves the host",
		Long: "This host's telemetry as OCSF events, from its journal: of the last ten minutes, or as far back as --since says; with --follow from now on. It never\n" +
			"leaves the host. Fields and their names are in the field reference, roles/sentinel/FIELDS.md. A recording is gzip where its name ends in .gz;\n" +
			"`omega up --sensor replay:FILE` and `omega detect` read it.",
		Example: "  omega events --follow --where 'class == \"process\"'\n  omega events --since 10m --json\n  omega events --since 2h --where 'exe startswith /tmp/ or remote in (203.0.113.0/24)'\n  omega events --follow --record incident.jsonl.gz", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := since(back); err != nil {
				return err
			}
			write := a.printEvent
			if record != "" {
				r, err := newRecording(record)
				if err != nil {
					return err
				}
				defer func() {
					err = errors.Join(err, r.Close())
					a.progress(fmt.Sprintf("%d events in %s", r.events, record))
				}()
				write = r.write
			}
			c := a.client()
			defer c.Close()
			s, err := c.Events(cmd.Context(), &apiv1.EventsRequest{Follow: follow, Where: where, Since: back})
			err = stream(s, err, func(e *apiv1.Event) error { return write(e.OcsfJson) })
			if record != "" && cmd.Context().Err() != nil {
				return nil // Ctrl-C ends a recording in good order
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as new ones come")
	cmd.Flags().StringVar(&back, "since", "", "how far back, e.g. 2h (default 10m; with --follow from now on)")
	cmd.Flags().StringVar(&where, "where", "", "only those for which this expression holds")
	cmd.Flags().StringVar(&record, "record", "", "write them to this new file, as JSON Lines; gzip if it ends in .gz")
	return cmd
}

// printEvent shows the parts of an OCSF event that a person looks for.
func (a *app) printEvent(line string) error {
	if a.json {
		return a.emitLine(line)
	}
	var e ocsfEvent
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		return fmt.Errorf("the node sent an event that is no JSON: %w", err)
	}
	p := e.Process
	if p.PID == 0 {
		p = e.Actor.Process
	}
	text := cmp.Or(p.Cmdline, p.File.Path, p.Name, e.User.Name)
	for _, object := range []string{e.File.Path, e.Query.Hostname, e.Unmapped.Access.Operation} {
		if object != "" {
			text = strings.TrimSpace(object + "  " + text)
		}
	}
	if e.Dst.IP != "" {
		text = strings.TrimSpace(fmt.Sprintf("%s:%d → %s:%d %s", e.Src.IP, e.Src.Port, e.Dst.IP, e.Dst.Port, text))
	}
	_, err := fmt.Fprintf(a.out, "%s  %-18s %-10s %7d  %s\n", time.UnixMilli(e.Time).Format("15:04:05.000"), printable(e.Class), printable(e.Activity), p.PID, printable(text))
	return err
}

// ocsfEvent is what a person looks for in an event.
type ocsfEvent struct {
	Time     int64       `json:"time"`
	Class    string      `json:"class_name"`
	Activity string      `json:"activity_name"`
	Process  ocsfProcess `json:"process"`
	Actor    struct {
		Process ocsfProcess `json:"process"`
	} `json:"actor"`
	User struct {
		Name string `json:"name"`
	} `json:"user"`
	Query struct {
		Hostname string `json:"hostname"`
	} `json:"query"`
	Unmapped struct {
		Access struct {
			Operation string `json:"operation"`
		} `json:"access"`
	} `json:"unmapped"`
	File ocsfFile     `json:"file"`
	Src  ocsfEndpoint `json:"src_endpoint"`
	Dst  ocsfEndpoint `json:"dst_endpoint"`
}

type ocsfProcess struct {
	PID     uint32   `json:"pid"`
	Cmdline string   `json:"cmd_line"`
	Name    string   `json:"name"`
	File    ocsfFile `json:"file"`
}

type ocsfFile struct {
	Path string `json:"path"`
}

type ocsfEndpoint struct {
	IP   string `json:"ip"`
	Port int    `json:"port"`
}
