package main

import (
	"context"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/api/v1/apiv1connect"
	"github.com/omega-mesh/omega/node/client"
)

// hostile is what a peer that lies may put wherever text goes.
const hostile = "x\x1b]0;owned\x07\r\n\u009b2J\u202e"

// talker is a node with one of everything in it, every text of which another peer chose.
type talker struct {
	apiv1connect.UnimplementedNodeHandler
}

var at = timestamppb.New(time.Date(2026, 11, 23, 1, 2, 3, 4, time.UTC))

func (talker) Status(context.Context, *apiv1.StatusRequest) (*apiv1.StatusResponse, error) {
	return &apiv1.StatusResponse{Peer: "12D3", Did: "did:omega:aaaa", Name: "n1", Swarm: strings.Repeat("ab", 32), SwarmName: hostile, Mode: "observe", UptimeMs: 1500,
		Sensors: map[string]string{"process": "ok"}, Queues: map[string]*apiv1.Queue{"gossip": {Len: 1, Cap: 2, Dropped: 3}},
		Problems: []*apiv1.Problem{{Code: "key", Severity: "info", Text: hostile, Fix: "none"}}, Rejected: map[string]uint64{"signature": 1}}, nil
}

func (talker) Doctor(context.Context, *apiv1.DoctorRequest) (*apiv1.DoctorResponse, error) {
	return &apiv1.DoctorResponse{Checks: []*apiv1.Check{{Name: "ebpf", Ok: true, Detail: hostile}}}, nil
}

func (talker) Coverage(context.Context, *apiv1.CoverageRequest) (*apiv1.CoverageResponse, error) {
	return &apiv1.CoverageResponse{Coverages: []*apiv1.Coverage{{Peer: "did:omega:bbbb", Host: hostile, Time: at, Mode: "observe", Blind: []string{hostile}, Drops: map[string]uint64{hostile: 1},
		Components: []*apiv1.Component{{Name: hostile, Proof: "seen", Lost: hostile}}, Gaps: []*apiv1.Check{{Name: hostile, Lost: hostile}}}}}, nil
}

func (talker) Integrity(context.Context, *apiv1.IntegrityRequest) (*apiv1.IntegrityResponse, error) {
	return &apiv1.IntegrityResponse{Phase: "watching", Why: hostile, Fault: hostile, Looked: at, Entries: 3, Differ: 1, Differences: []*apiv1.Difference{{Path: []byte("/etc/" + hostile + "\xff"), What: hostile, Was: []byte(hostile)}},
		Words: []*apiv1.BaselineWord{{Peer: "did:omega:bbbb", Host: hostile, Time: at, Why: hostile, By: hostile, Root: hostile}}}, nil
}

func (talker) ListPeers(context.Context, *apiv1.ListPeersRequest) (*apiv1.ListPeersResponse, error) {
	return &apiv1.ListPeersResponse{Peers: []*apiv1.Peer{{Peer: "12D4", Did: "did:omega:bbbb", Name: "n2" + hostile, Addrs: []string{hostile}, Since: at, Connected: true}}}, nil
}

func (talker) ListRoles(context.Context, *apiv1.ListRolesRequest) (*apiv1.ListRolesResponse, error) {
	return &apiv1.ListRolesResponse{Grants: []*apiv1.RoleGrant{{Did: "did:omega:bbbb", Name: hostile, Role: "decoy", By: "did:omega:cccc"}}}, nil
}

func (talker) ListModules(context.Context, *apiv1.ListModulesRequest) (*apiv1.ListModulesResponse, error) {
	m := &apiv1.Module{Cid: "bafymodule1", Digest: make([]byte, 32), Name: "watch", Version: "1.0.0", Title: hostile, Author: hostile, State: "stopped", Why: hostile, Released: at, ReleasedBy: []string{hostile}}
	m.Deployments = []*apiv1.Deployment{{Entry: "e1", Why: hostile, Labels: []string{hostile}, Peers: []string{hostile}, By: "did:omega:cccc", Time: at}}
	m.Hosts = []*apiv1.ModuleHost{{Peer: "did:omega:bbbb", Host: hostile, State: hostile, Why: hostile, Time: at}}
	m.Shadow = &apiv1.ShadowDifference{Both: 1, Examples: []string{hostile}}
	return &apiv1.ListModulesResponse{Modules: []*apiv1.Module{m}}, nil
}

func (talker) Findings(_ context.Context, _ *apiv1.FindingsRequest, s *connect.ServerStream[apiv1.Finding]) error {
	return s.Send(finding())
}

func finding() *apiv1.Finding {
	return &apiv1.Finding{Id: "f1", Time: at, Peer: "did:omega:bbbb", Host: hostile, Rule: hostile, RuleId: "r1", Title: hostile, Attack: []string{"T1046"}, Severity: "high", Confidence: 60,
		Subject: &apiv1.Subject{Address: "192.0.2.1", Exe: hostile, Process: true}, Evidence: []*apiv1.Evidence{{Name: "n", Value: hostile}}}
}

func (talker) Receipts(_ context.Context, _ *apiv1.ReceiptsRequest, s *connect.ServerStream[apiv1.Receipt]) error {
	return s.Send(&apiv1.Receipt{Id: "c1", Peer: "did:omega:bbbb", Host: hostile, Response: "e1", Outcome: "applied", Detail: hostile, Time: at, Heard: 1_000_000, Acted: 3_500_000})
}

func (talker) Events(_ context.Context, _ *apiv1.EventsRequest, s *connect.ServerStream[apiv1.Event]) error {
	return s.Send(&apiv1.Event{OcsfJson: `{"time":1,"class_name":"Process Activity","process":{"pid":7,"cmd_line":"a\u001b[2J"}}`})
}

func (talker) Entries(_ context.Context, _ *apiv1.EntriesRequest, s *connect.ServerStream[apiv1.Entry]) error {
	return s.Send(&apiv1.Entry{Raw: []byte{1}, Hash: strings.Repeat("ab", 32), Author: "did:omega:bbbb", Chain: "activity", Seq: 3, Kind: "finding", Time: at, BodyJson: `{"title":"` + "\u009b" + `"}`})
}

func response() *apiv1.Response {
	return &apiv1.Response{Id: "e1", Action: "deny", Target: &apiv1.Target{Address: "192.0.2.1/32"}, Reason: hostile, Issued: at, TtlMs: 1000, State: "active", RemainingMs: 500}
}

func (talker) ListResponses(context.Context, *apiv1.ListResponsesRequest) (*apiv1.ListResponsesResponse, error) {
	return &apiv1.ListResponsesResponse{Responses: []*apiv1.Response{response()}}, nil
}

func (talker) ListPending(context.Context, *apiv1.ListPendingRequest) (*apiv1.ListPendingResponse, error) {
	return &apiv1.ListPendingResponse{Pending: []*apiv1.Pending{{Proposal: response(), Guard: hostile, Suggested: "contain", Evidence: []*apiv1.Finding{finding()}}}}, nil
}

func (talker) ListDecoys(context.Context, *apiv1.ListDecoysRequest) (*apiv1.ListDecoysResponse, error) {
	return &apiv1.ListDecoysResponse{Decoys: []*apiv1.Decoy{{Peer: "did:omega:bbbb", Host: hostile, Service: "tcp", Port: 2323, State: "open"}}}, nil
}

func (talker) ListInvites(context.Context, *apiv1.ListInvitesRequest) (*apiv1.ListInvitesResponse, error) {
	return &apiv1.ListInvitesResponse{Invites: []*apiv1.Invite{{Id: "0a0b", Roles: []string{hostile}, Uses: 1, Expires: at, By: "did:omega:cccc"}}}, nil
}

func (talker) ListAllowed(context.Context, *apiv1.ListAllowedRequest) (*apiv1.ListAllowedResponse, error) {
	return &apiv1.ListAllowedResponse{Allowed: []*apiv1.Allowed{{What: "192.0.2.0/24", By: hostile, Why: hostile}}}, nil
}

func (talker) RespondLocal(_ context.Context, r *apiv1.RespondLocalRequest) (*apiv1.RespondLocalResponse, error) {
	return &apiv1.RespondLocalResponse{Response: &apiv1.Response{Id: "e2"},
		Receipt: &apiv1.Receipt{Id: "c2", Response: "e2", Outcome: "refused", Guard: "gateway", Time: at}}, nil
}

// talking serves talker in a folder and returns the folder.
func talking(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, client.Socket))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(apiv1connect.NewNodeHandler(talker{}))
	s := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return dir
}

// Scripts read these names: one may be added, none may change or go.
func TestJSONFieldNames(t *testing.T) {
	dir := talking(t)
	const findingKeys = "attack confidence decoy evidence handshake host id peer rule rule_id severity subject time title"
	const moduleKeys = "attack author builder bytes capabilities cid deployments dropped events findings hosts kind mean_ms name p99_ms released released_by reproducible root shadow size source_sha256 state title traps version why"
	const responseKeys = "action authority by findings id issued reason releases remaining_ms scope state target ttl_ms"
	for line, want := range map[string]string{
		"version":                  "commit date go platform version",
		"status":                   "addrs did members mode name peer peers problems queues rejected roles sensors swarm swarm_name synced uptime_ms version",
		"doctor":                   "checks",
		"coverage":                 "blind components drops ended gaps host mode peer time",
		"integrity status":         "differ differences dropped entries exclude fault file live looked paths phase scan scans skipped unsigned why",
		"integrity status --peers": "by differ entries file host peer root skipped time why",
		"peers":                    "addrs connected did head name peer reputation roles rtt_ms since",
		"role list":                "by did name not_after role running",
		"findings":                 findingKeys,
		"receipts":                 "act_ms acted detail guard heard host id means outcome peer response stopped_before_first_instruction time",
		"responses":                responseKeys,
		"pending":                  responseKeys + " evidence guard suggested",
		"decoy list":               "host peer port service state touches",
		"module list":              moduleKeys,
		"module show watch":        moduleKeys,
		"invite list":              "by expires id roles state used uses",
		"allow list":               "by what why",
		"ledger show":              "author body bytes chain hash id kind seq time",
		"events":                   "class_name process time",
		"config show":              "key origin value",
		"allow list -q --v":        "",
	} {
		out, errOut, code := omega(t, "", append(strings.Fields(line), "--json", "--dir", dir)...)
		if want == "" {
			if code != exitUsage {
				t.Errorf("omega %s: exit %d, want %d", line, code, exitUsage)
			}
			continue
		}
		first, _, _ := strings.Cut(out, "\n")
		var v map[string]any
		if err := json.Unmarshal([]byte(first), &v); err != nil || code != exitDone {
			t.Errorf("omega %s --json: exit %d, %v: %q %q", line, code, err, out, errOut)
			continue
		}
		have := slices.Sorted(maps.Keys(v))
		wanted := strings.Fields(want)
		slices.Sort(wanted)
		if !slices.Equal(have, wanted) {
			t.Errorf("omega %s --json has the fields\n  %s\nwant\n  %s", line, strings.Join(have, " "), strings.Join(wanted, " "))
		}
		for k, x := range v {
			if s, ok := x.(string); ok && (k == "time" || k == "since" || k == "issued" || k == "expires") && line != "events" && s != "2026-11-23T01:02:03.000000004Z" {
				t.Errorf("omega %s: %s is %q: want RFC 3339 with nanoseconds", line, k, s)
			}
		}
	}
}

// A peer that lies must not drive the terminal of the person who looks.
func TestNoPeerDrivesTheTerminal(t *testing.T) {
	dir := talking(t)
	for _, line := range []string{"status", "doctor", "coverage", "coverage n2", "integrity status", "integrity status --json", "integrity status --peers", "peers", "role list", "findings", "receipts", "responses", "pending", "module list", "module show bafymodule", "decoy list", "invite list", "allow list", "events", "ledger show", "ledger show --json",
		"role list --json", "findings --json"} {
		out, errOut, code := omega(t, "", append(strings.Fields(line), "--dir", dir)...)
		if code != exitDone || out == "" {
			t.Errorf("omega %s: exit %d %q", line, code, errOut)
		}
		for _, r := range out + errOut {
			if r < 0x20 && r != '\n' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0xfffd {
				t.Errorf("omega %s prints the raw character %#x: %q", line, r, out)
				break
			}
		}
		// A line break within a peer's text would let it write lines of its own.
		if strings.Contains(out, "\n\\u009b2J") || strings.Contains(out, "\u202e") {
			t.Errorf("omega %s lets a peer forge a line, or turn one round: %q", line, out)
		}
	}
}

// What a guard rail refuses exits with 4 and names the rail, and the socket alone needs no operator's key.
func TestRefusedByAGuardRail(t *testing.T) {
	out, errOut, code := omega(t, "", "respond", "deny", "ip", "192.0.2.1", "--scope", "self", "--dir", talking(t))
	if code != exitNotPermitted || !strings.Contains(errOut, "gateway") || !strings.HasPrefix(out, "response e2\n") {
		t.Errorf("exit %d, %q, %q", code, out, errOut)
	}
	if _, errOut, code := omega(t, "", "respond", "release", "ffff", "--dir", talking(t)); code != exitNotFound {
		t.Errorf("an unknown response: exit %d, %q", code, errOut)
	}
}

func TestCompletionKnowsPeersAndRoles(t *testing.T) {
	dir := talking(t)
	for args, want := range map[string]string{"role grant": "n2", "role grant n2": "decoy", "respond contain": "n2", "integrity accept": "/etc/x", "module deploy": "watch@1.0.0", "module deploy watch --role": "sentinel"} {
		out, _, _ := omega(t, "", append(append([]string{"__complete", "--dir", dir}, strings.Fields(args)...), "")...)
		if !strings.Contains(out, want) {
			t.Errorf("completing %q gives %q, want %q in it", args, out, want)
		}
		if strings.Contains(out, "\x1b") {
			t.Errorf("completing %q hands the shell a control character", args)
		}
	}
}
