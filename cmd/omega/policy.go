package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/policy"
)

func newPolicyCommand(a *app) *cobra.Command {
	show := &cobra.Command{
		Use: "show", Short: "The response policy in force, and who may call what", Args: cobra.NoArgs,
		Example: "  omega policy show\n  omega policy show --json | jq -r .text > policy.cedar",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			p, err := c.ShowPolicy(cmd.Context(), &apiv1.ShowPolicyRequest{})
			if err != nil {
				return err
			}
			if a.json {
				return a.emit(map[string]any{"text": p.Text, "by": p.By, "entry": p.Entry, "time": stamp(p.Time), "access": p.Access})
			}
			by := "built in"
			if p.By != "" {
				by = "by " + short(p.By)
			} else if p.Time != nil {
				by = "by the root"
			}
			fmt.Fprintf(a.out, "// %s\n%s\n%s", by, p.Text, p.Access)
			return nil
		},
	}
	set := &cobra.Command{
		Use: "set FILE", Short: "Put a policy in force, for every host of the swarm", Args: cobra.ExactArgs(1),
		Example: "  omega policy test policy.cedar --findings last-week.jsonl && omega policy set policy.cedar",
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readPolicy(args[0])
			if err != nil {
				return err
			}
			return a.asOperator(cmd.Context(), func(c *client.Client, op *client.Operator) error {
				p, err := c.ShowPolicy(cmd.Context(), &apiv1.ShowPolicyRequest{})
				if err != nil {
					return err
				}
				if p.By == "" && p.Time != nil {
					return fail(exitNotPermitted, "the root names the policy, so no operator alone can change it: `omega root propose policy %s --sign`", args[0])
				}
				id, err := op.Submit(cmd.Context(), &authority.PolicyBody{Text: text})
				if err != nil {
					return err
				}
				return a.say(map[string]any{"id": id}, "the policy is in force: %s", shortID(id))
			})
		},
	}
	var findings, call, as string
	var ttl time.Duration
	var lent bool
	test := &cobra.Command{
		Use:   "test FILE --findings FILE|-",
		Short: "Say what a policy would make of recorded findings, or of a call, and why; offline",
		Long: `Say, offline, what a policy would do. With --findings, a file of omega findings --json lines: what follows from each, and by
which statements. With --call, whether an operator, a delegate (a member with a credential) or the local socket may do that.`,
		Example: `  omega findings --json > week.jsonl; omega policy test policy.cedar --findings week.jsonl
  omega policy test policy.cedar --call respond-deny --as delegate --ttl 1h
  omega policy test default --call Events --as local`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readPolicy(args[0])
			if err != nil {
				return err
			}
			if call != "" {
				return a.testCall(text, call, as, ttl, lent)
			}
			if findings == "" {
				return fail(exitUsage, "say what to try it on: --findings FILE, or --call ACTION")
			}
			in := a.in
			if findings != "-" {
				f, err := os.Open(findings)
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			list, err := readFindings(cmd.Context(), in)
			if err != nil {
				return err
			}
			return a.testFindings(text, list)
		},
	}
	test.Flags().StringVar(&findings, "findings", "", "findings as omega findings --json prints them; - is standard input")
	test.Flags().StringVar(&call, "call", "", "a method of the API, or what is ordered of a host, such as respond-deny")
	test.Flags().StringVar(&as, "as", "operator", "who calls: operator, delegate or local")
	test.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long what is ordered would stand")
	test.Flags().BoolVar(&lent, "capable", true, "whether a delegate's credential allows it")
	return group("policy", "What may act without asking, and who may call what", "  omega policy show\n  omega policy test policy.cedar --findings week.jsonl", show, set, test)
}

// readPolicy reads and checks a policy; "default" is the built-in one.
func readPolicy(path string) (string, error) {
	if path == "default" {
		return policy.DefaultText(), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, policy.MaxText+1))
	if err != nil {
		return "", err
	}
	if _, err := policy.Parse(string(raw)); err != nil {
		return "", fail(exitUsage, "%s: %w", path, err)
	}
	return string(raw), nil
}

func (a *app) testCall(text, call, as string, ttl time.Duration, lent bool) error {
	access, err := policy.NewAccess(text)
	if err != nil {
		return err
	}
	c := policy.Call{Action: call, TTL: ttl, Active: true, Swarm: true, ID: "did:omega:example"}
	switch as {
	case "operator":
		c.Caller = policy.Operator
	case "delegate":
		c.Caller, c.Capable = policy.Delegate, lent
	case "local":
		c.Caller, c.Swarm, c.ID = policy.Socket, false, "0"
	default:
		return fail(exitUsage, "--as %q: want operator, delegate or local", as)
	}
	d := access.Decide(c)
	return a.say(map[string]any{"call": call, "as": as, "allowed": d.Allowed, "reasons": list(d.Reasons), "why": d.String()}, "%s as %s: %s", call, as, d)
}

func (a *app) testFindings(text string, findings []event.Finding) error {
	engine, err := policy.Parse(text)
	if err != nil {
		return err
	}
	count := map[policy.Verdict]int{}
	for _, x := range policy.Explain(engine, findings) {
		count[x.Verdict]++
		if a.json {
			v := map[string]any{"finding": x.Finding.ID, "verdict": x.Verdict.String(), "reasons": list(x.Reasons), "over_quota": x.OverQuota}
			if x.Verdict != policy.None {
				v["response"] = map[string]any{"id": x.Response.ID, "action": string(x.Response.Action), "address": prefixText(x.Response.Target.Address), "ttl_ms": float64(x.Response.TTL) / 1e6}
			}
			if err := a.emit(v); err != nil {
				return err
			}
			continue
		}
		why := strings.Join(x.Reasons, ", ")
		switch {
		case x.OverQuota:
			why = "its author had named enough addresses that hour"
		case x.Verdict == policy.None:
			why = "no statement permits more, or the same response was given before"
		}
		fmt.Fprintf(a.out, "%-10s  %s  %s  (%s)\n", x.Verdict, shortID(x.Finding.ID), printable(x.Finding.Title), why)
	}
	a.progress(fmt.Sprintf("%d findings: %d everywhere, %d local, %d ask a person, %d nothing", len(findings), count[policy.Everywhere], count[policy.Local], count[policy.Ask], count[policy.None]))
	return nil
}

// maxFindingLine bounds one line, maxFindingLines their number.
const (
	maxFindingLine  = 4 * trust.MaxActivityBody
	maxFindingLines = 1_000_000
)

// readFindings reads findings as omega findings --json prints them.
func readFindings(ctx context.Context, r io.Reader) ([]event.Finding, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxFindingLine)
	var out []event.Finding
	for n := 1; lines.Scan(); n++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if len(out) == maxFindingLines {
			return nil, fail(exitUsage, "more than %d findings", maxFindingLines)
		}
		f, err := parseFinding(lines.Bytes())
		if err != nil {
			return nil, fail(exitUsage, "line %d: %w", n, err)
		}
		out = append(out, f)
	}
	if err := lines.Err(); err != nil {
		return nil, fail(exitUsage, "line %d: %w", len(out)+1, err)
	}
	return out, nil
}

func parseFinding(line []byte) (event.Finding, error) {
	var j struct {
		ID         string    `json:"id"`
		Time       time.Time `json:"time"`
		Peer       string    `json:"peer"`
		Host       string    `json:"host"`
		Rule       string    `json:"rule"`
		RuleID     string    `json:"rule_id"`
		Title      string    `json:"title"`
		Attack     []string  `json:"attack"`
		Severity   string    `json:"severity"`
		Confidence uint8     `json:"confidence"`
		Handshake  bool      `json:"handshake"`
		Decoy      string    `json:"decoy"`
		Subject    struct {
			Address string `json:"address"`
			Port    uint16 `json:"port"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(line, &j); err != nil {
		return event.Finding{}, err
	}
	severity, err := event.ParseSeverity(j.Severity)
	if err != nil {
		return event.Finding{}, err
	}
	f := event.Finding{ID: j.ID, Time: j.Time.UnixNano(), Peer: j.Peer, Host: j.Host, Rule: j.Rule, RuleID: j.RuleID, Title: j.Title, Attack: j.Attack,
		Severity: severity, Confidence: j.Confidence, Handshake: j.Handshake, Decoy: j.Decoy}
	if j.ID == "" || j.Peer == "" || j.Confidence > 100 {
		return f, fmt.Errorf("not a finding: id, peer and a confidence up to 100 are needed")
	}
	f.Subject.Port = j.Subject.Port
	if j.Subject.Address != "" {
		if f.Subject.Address, err = netip.ParseAddr(j.Subject.Address); err != nil {
			return f, err
		}
	}
	return f, nil
}
