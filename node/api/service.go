package api

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/omega-mesh/omega/node/api/where"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/anonymous"
)

// EventEncoder turns an event into one line of OCSF JSON.
type EventEncoder func(*event.Event) ([]byte, error)

// service implements the generated handler: bound, ask, convert.
type service struct {
	b      Backend
	encode EventEncoder
}

func (s *service) Status(ctx context.Context, _ *apiv1.StatusRequest) (*apiv1.StatusResponse, error) {
	out, err := s.b.Status(ctx)
	return out, code(err)
}

func (s *service) Coverage(ctx context.Context, in *apiv1.CoverageRequest) (*apiv1.CoverageResponse, error) {
	rows, err := s.b.Coverage(ctx, in.Peer)
	return &apiv1.CoverageResponse{Coverages: rows}, code(err)
}

func (s *service) Integrity(ctx context.Context, _ *apiv1.IntegrityRequest) (*apiv1.IntegrityResponse, error) {
	out, err := s.b.Integrity(ctx)
	return out, code(err)
}

func (s *service) IntegrityRescan(ctx context.Context, in *apiv1.IntegrityRescanRequest) (*apiv1.IntegrityRescanResponse, error) {
	return &apiv1.IntegrityRescanResponse{}, code(s.b.IntegrityRescan(ctx, in.Full))
}

// maxAccepted bounds the paths of one acceptance.
const maxAccepted = 256

func (s *service) IntegrityAccept(ctx context.Context, in *apiv1.IntegrityAcceptRequest) (*apiv1.IntegrityAcceptResponse, error) {
	if len(in.Paths) > maxAccepted {
		return nil, code(fmt.Errorf("%w: %d paths, more than %d", ErrInvalid, len(in.Paths), maxAccepted))
	}
	var paths []string
	for _, p := range in.Paths {
		if len(p) == 0 || p[0] != '/' || len(p) > 4096 {
			return nil, code(fmt.Errorf("%w: %.80q is no absolute path", ErrInvalid, p))
		}
		paths = append(paths, string(p))
	}
	uid, _ := ctx.Value(callerKey{}).(uint32)
	k, err := s.b.IntegrityAccept(ctx, paths, fmt.Sprintf("uid %d", uid))
	return &apiv1.IntegrityAcceptResponse{Accepted: uint64(k)}, code(err)
}

func (s *service) Doctor(ctx context.Context, _ *apiv1.DoctorRequest) (*apiv1.DoctorResponse, error) {
	rows, err := s.b.Doctor(ctx)
	return &apiv1.DoctorResponse{Checks: rows}, code(err)
}

func (s *service) ListPeers(ctx context.Context, _ *apiv1.ListPeersRequest) (*apiv1.ListPeersResponse, error) {
	rows, err := s.b.Peers(ctx)
	return &apiv1.ListPeersResponse{Peers: rows}, code(err)
}

func (s *service) ListRoles(ctx context.Context, _ *apiv1.ListRolesRequest) (*apiv1.ListRolesResponse, error) {
	rows, err := s.b.Grants(ctx)
	return &apiv1.ListRolesResponse{Grants: rows}, code(err)
}

// begin sends a stream's headers: a client that follows waits for them, not for the first message, which may be hours away.
func begin[T any](out *connect.ServerStream[T]) error { return out.Send(nil) }

func (s *service) Findings(ctx context.Context, in *apiv1.FindingsRequest, out *connect.ServerStream[apiv1.Finding]) error {
	since, err := parseSince(in.Since)
	if err != nil {
		return code(err)
	}
	if err := begin(out); err != nil {
		return err
	}
	return code(s.b.EachFinding(ctx, since, in.Follow, func(f *event.Finding) error { return out.Send(Finding(f)) }))
}

func (s *service) Receipts(ctx context.Context, in *apiv1.ReceiptsRequest, out *connect.ServerStream[apiv1.Receipt]) error {
	if len(in.Response) > 64 {
		return code(fmt.Errorf("%w: response id of %d bytes", ErrInvalid, len(in.Response)))
	}
	if err := begin(out); err != nil {
		return err
	}
	return code(s.b.EachReceipt(ctx, in.Response, in.Follow, func(r *event.Receipt) error { return out.Send(Receipt(r)) }))
}

// eventsBack is how far back events go where nobody said: the journal may hold days.
const eventsBack = 10 * time.Minute

func (s *service) Events(ctx context.Context, in *apiv1.EventsRequest, out *connect.ServerStream[apiv1.Event]) error {
	since, err := parseSince(in.Since)
	if err != nil {
		return code(err)
	}
	match, needs, err := where.Plan(in.Where)
	if err != nil {
		return code(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	if in.Since == "" {
		since = time.Now().Add(-eventsBack).UnixNano()
		if in.Follow {
			since = time.Now().UnixNano()
		}
	}
	if err := begin(out); err != nil {
		return err
	}
	return code(s.b.EachEvent(ctx, EventQuery{Since: since, Follow: in.Follow, Match: match, Needs: needs}, func(e *event.Event) error {
		line, err := s.encode(e)
		if err != nil {
			return err
		}
		return out.Send(&apiv1.Event{OcsfJson: string(line)})
	}))
}

func (s *service) Entries(ctx context.Context, in *apiv1.EntriesRequest, out *connect.ServerStream[apiv1.Entry]) error {
	if len(in.Peer) > 128 || len(in.Kind) > 64 {
		return code(fmt.Errorf("%w: peer or kind is too long", ErrInvalid))
	}
	since, err := parseSince(in.Since)
	if err != nil {
		return code(err)
	}
	if err := begin(out); err != nil {
		return err
	}
	if in.Evidence {
		return code(s.b.EachEvidence(ctx, out.Send))
	}
	return code(s.b.EachEntry(ctx, in.Peer, in.Kind, since, in.Follow, out.Send))
}

// exportPart is the most bytes of one message of an export.
const exportPart = 64 << 10

func (s *service) ExportLedger(ctx context.Context, _ *apiv1.ExportLedgerRequest, out *connect.ServerStream[apiv1.ExportLedgerResponse]) error {
	if err := begin(out); err != nil {
		return err
	}
	return code(s.b.Export(ctx, parts(func(b []byte) error { return out.Send(&apiv1.ExportLedgerResponse{Part: b}) })))
}

// parts is a writer that sends what is written in messages of bounded size.
type parts func([]byte) error

// Write implements io.Writer.
func (p parts) Write(b []byte) (n int, err error) {
	for n < len(b) {
		end := min(n+exportPart, len(b))
		if err := p(b[n:end]); err != nil {
			return n, err
		}
		n = end
	}
	return n, nil
}

func (s *service) ListResponses(ctx context.Context, in *apiv1.ListResponsesRequest) (*apiv1.ListResponsesResponse, error) {
	rows, err := s.b.Responses(ctx, in.Active)
	return &apiv1.ListResponsesResponse{Responses: rows}, code(err)
}

func (s *service) ListPending(ctx context.Context, _ *apiv1.ListPendingRequest) (*apiv1.ListPendingResponse, error) {
	rows, err := s.b.Pending(ctx)
	if err != nil {
		return nil, code(err)
	}
	joiners, err := s.b.Joiners(ctx)
	return &apiv1.ListPendingResponse{Pending: rows, Joiners: joiners}, code(err)
}

func (s *service) Order(ctx context.Context, in *apiv1.OrderRequest) (*apiv1.OrderResponse, error) {
	r, err := ParseResponse(in.Response)
	if err != nil {
		return nil, code(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	if len(in.Response.Scope) > maxScope {
		return nil, code(fmt.Errorf("%w: more than %d peers in scope", ErrInvalid, maxScope))
	}
	r.Scope = in.Response.Scope
	id, err := s.b.Order(ctx, r)
	return &apiv1.OrderResponse{Id: id}, code(err)
}

func (s *service) OrderModule(ctx context.Context, in *apiv1.OrderModuleRequest) (*apiv1.OrderModuleResponse, error) {
	id, err := s.b.OrderModule(ctx, in.Kind, in.Body)
	return &apiv1.OrderModuleResponse{Id: id}, code(err)
}

// maxScope bounds the peers that an order names.
const maxScope = 64

func (s *service) ShowPolicy(ctx context.Context, _ *apiv1.ShowPolicyRequest) (*apiv1.ShowPolicyResponse, error) {
	out, err := s.b.Policy(ctx)
	return out, code(err)
}

func (s *service) ListCredentials(ctx context.Context, _ *apiv1.ListCredentialsRequest) (*apiv1.ListCredentialsResponse, error) {
	rows, err := s.b.Credentials(ctx)
	return &apiv1.ListCredentialsResponse{Credentials: rows}, code(err)
}

func (s *service) ListDecoys(ctx context.Context, _ *apiv1.ListDecoysRequest) (*apiv1.ListDecoysResponse, error) {
	rows, err := s.b.Decoys(ctx)
	return &apiv1.ListDecoysResponse{Decoys: rows}, code(err)
}

func (s *service) ListInvites(ctx context.Context, _ *apiv1.ListInvitesRequest) (*apiv1.ListInvitesResponse, error) {
	rows, err := s.b.Invites(ctx)
	return &apiv1.ListInvitesResponse{Invites: rows}, code(err)
}

func (s *service) Head(ctx context.Context, in *apiv1.HeadRequest) (*apiv1.HeadResponse, error) {
	if len(in.Did) > 128 {
		return nil, code(fmt.Errorf("%w: DID of %d bytes", ErrInvalid, len(in.Did)))
	}
	out, err := s.b.Head(ctx, in.Did)
	return out, code(err)
}

func (s *service) Rotate(ctx context.Context, in *apiv1.RotateRequest) (*apiv1.RotateResponse, error) {
	defer clear(in.Seed)
	if len(in.Seed) > 64 || len(in.Next) != 32 {
		return nil, code(fmt.Errorf("%w: seed of %d bytes, hash of %d", ErrInvalid, len(in.Seed), len(in.Next)))
	}
	number, entry, err := s.b.Rotate(ctx, in.Seed, [32]byte(in.Next))
	return &apiv1.RotateResponse{Number: number, Entry: entry}, code(err)
}

func (s *service) Identity(ctx context.Context, in *apiv1.IdentityRequest) (*apiv1.IdentityResponse, error) {
	if len(in.Peer) > 128 {
		return nil, code(fmt.Errorf("%w: peer of %d bytes", ErrInvalid, len(in.Peer)))
	}
	out, err := s.b.Identity(ctx, in.Peer)
	return out, code(err)
}

func (s *service) Submit(ctx context.Context, in *apiv1.SubmitRequest) (*apiv1.SubmitResponse, error) {
	if len(in.Entry) == 0 || len(in.Entry) > MaxEntry {
		return nil, code(fmt.Errorf("%w: an entry of %d bytes", ErrInvalid, len(in.Entry)))
	}
	id, err := s.b.Submit(ctx, in.Entry)
	return &apiv1.SubmitResponse{Id: id}, code(err)
}

func (s *service) Root(ctx context.Context, in *apiv1.RootRequest) (*apiv1.RootResponse, error) {
	out, err := s.b.Root(ctx, in.At)
	return out, code(err)
}

func (s *service) SubmitRoot(ctx context.Context, in *apiv1.SubmitRootRequest) (*apiv1.SubmitRootResponse, error) {
	if len(in.Entry) == 0 || len(in.Entry) > MaxEntry {
		return nil, code(fmt.Errorf("%w: a root entry of %d bytes", ErrInvalid, len(in.Entry)))
	}
	out, err := s.b.SubmitRoot(ctx, in.Entry)
	return out, code(err)
}

func (s *service) Report(ctx context.Context, in *apiv1.ReportRequest) (*apiv1.ReportResponse, error) {
	f, err := ParseReport(in.Finding)
	if err != nil {
		return nil, code(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	out, err := s.b.ReportAnonymously(ctx, anonymous.Threshold{Standing: in.StandingHours, Role: in.Role}, f)
	return out, code(err)
}

func (s *service) AddModule(ctx context.Context, in *connect.ClientStream[apiv1.AddModuleRequest]) (*apiv1.AddModuleResponse, error) {
	out, err := s.b.AddModule(ctx, &partReader{in: in})
	if err == nil {
		err = in.Err()
	}
	return out, code(err)
}

// partReader reads what a client sends in messages.
type partReader struct {
	in   *connect.ClientStream[apiv1.AddModuleRequest]
	rest []byte
}

// Read implements io.Reader.
func (p *partReader) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if !p.in.Receive() {
			if err := p.in.Err(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		p.rest = p.in.Msg().Part
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

func (s *service) ListModules(ctx context.Context, in *apiv1.ListModulesRequest) (*apiv1.ListModulesResponse, error) {
	if len(in.Module) > 128 {
		return nil, code(fmt.Errorf("%w: a module's name of %d bytes", ErrInvalid, len(in.Module)))
	}
	rows, err := s.b.Modules(ctx, in.Module)
	return &apiv1.ListModulesResponse{Modules: rows}, code(err)
}

func (s *service) RespondLocal(ctx context.Context, in *apiv1.RespondLocalRequest) (*apiv1.RespondLocalResponse, error) {
	r, err := ParseResponse(in.Response)
	if err != nil {
		return nil, code(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	done, receipt, err := s.b.Respond(ctx, r)
	if err != nil {
		return nil, code(err)
	}
	return &apiv1.RespondLocalResponse{Response: Response(&done, stateOf(receipt.Outcome), done.TTL), Receipt: Receipt(&receipt)}, nil
}

func (s *service) ListAllowed(ctx context.Context, _ *apiv1.ListAllowedRequest) (*apiv1.ListAllowedResponse, error) {
	rows, err := s.b.Allowed(ctx)
	return &apiv1.ListAllowedResponse{Allowed: rows}, code(err)
}

func (s *service) Allow(ctx context.Context, in *apiv1.AllowRequest) (*apiv1.AllowResponse, error) {
	return &apiv1.AllowResponse{}, code(s.b.Allow(ctx, in.What))
}

func (s *service) Disallow(ctx context.Context, in *apiv1.DisallowRequest) (*apiv1.DisallowResponse, error) {
	return &apiv1.DisallowResponse{}, code(s.b.Disallow(ctx, in.What))
}

func (s *service) Panic(ctx context.Context, _ *apiv1.PanicRequest) (*apiv1.PanicResponse, error) {
	n, err := s.b.Panic(ctx)
	return &apiv1.PanicResponse{Released: uint32(max(n, 0))}, code(err)
}

func (s *service) Leave(ctx context.Context, _ *apiv1.LeaveRequest) (*apiv1.LeaveResponse, error) {
	return &apiv1.LeaveResponse{}, code(s.b.Leave(ctx))
}

// parseSince reads "10m" as an age, or an RFC 3339 time; empty means everything.
func parseSince(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	if len(s) > 64 {
		return 0, fmt.Errorf("%w: since: %d bytes", ErrInvalid, len(s))
	}
	if d, err := time.ParseDuration(strings.TrimSpace(s)); err == nil && d >= 0 && d <= MaxSince {
		return time.Now().Add(-d).UnixNano(), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return 0, fmt.Errorf("%w: since: %q is neither an age such as 10m nor a time such as 2026-01-02T15:04:05Z", ErrInvalid, s)
	}
	return t.UnixNano(), nil
}

// stateOf is a response's state after its first receipt.
func stateOf(o event.Outcome) string {
	switch o {
	case event.OutcomeDone, event.OutcomeAdopted:
		return "active"
	case event.OutcomeFailed:
		return string(event.OutcomeRefused)
	}
	return string(o)
}
