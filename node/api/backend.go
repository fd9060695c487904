package api

import (
	"context"
	"errors"
	"io"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/api/where"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/fields"
	"github.com/omega-mesh/omega/trust/anonymous"
)

// Errors a Backend may return; each has its code on the wire. Anything else is Internal, or Canceled with the context.
var (
	ErrNotFound  = errors.New("not found")          // CodeNotFound
	ErrForbidden = errors.New("not permitted")      // CodePermissionDenied
	ErrInvalid   = errors.New("invalid request")    // CodeInvalidArgument
	ErrBusy      = errors.New("not ready yet")      // CodeUnavailable
	ErrDropped   = errors.New("client is too slow") // CodeResourceExhausted
	ErrCannot    = errors.New("this host cannot")   // CodeUnimplemented
	ErrState     = errors.New("not in this state")  // CodeFailedPrecondition
	ErrExists    = errors.New("is there already")   // CodeAlreadyExists
)

// Record is a feed entry as the API shows it.
type Record = apiv1.Entry

// Backend is the node as this package needs it. Methods are called by many goroutines at once. What an Each method
// hands to yield is shared and must not be changed; it stops at yield's first error and returns it.
type Backend interface {
	Status(ctx context.Context) (*apiv1.StatusResponse, error)
	Doctor(ctx context.Context) ([]*apiv1.Check, error)
	// Coverage is what one member (DID or name), or every one, can see and stop.
	Coverage(ctx context.Context, peer string) ([]*apiv1.Coverage, error)
	// Integrity is how this host's watched files stand; the other two look at them again, and take for right what differs.
	Integrity(ctx context.Context) (*apiv1.IntegrityResponse, error)
	IntegrityRescan(ctx context.Context, full bool) error
	IntegrityAccept(ctx context.Context, paths []string, by string) (int, error)
	Peers(ctx context.Context) ([]*apiv1.Peer, error)
	Grants(ctx context.Context) ([]*apiv1.RoleGrant, error)
	Decoys(ctx context.Context) ([]*apiv1.Decoy, error)
	Invites(ctx context.Context) ([]*apiv1.Invite, error)

	// EachFinding gives those of since (Unix nanoseconds) and later, in the order they came, and goes on if follow is set.
	EachFinding(ctx context.Context, since int64, follow bool, yield func(*event.Finding) error) error
	// EachReceipt gives those for one response, or for all when it is empty.
	EachReceipt(ctx context.Context, response string, follow bool, yield func(*event.Receipt) error) error
	EachEvent(ctx context.Context, q EventQuery, yield func(*event.Event) error) error
	// EachEntry gives the entries of one author (DID or name) and kind, where given, of since (Unix nanoseconds) and later.
	EachEntry(ctx context.Context, author, kind string, since int64, follow bool, yield func(*Record) error) error
	// EachEvidence gives the two entries of each proof of equivocation, one after the other.
	EachEvidence(ctx context.Context, yield func(*Record) error) error
	// Export writes everything the node's ledger holds.
	Export(ctx context.Context, w io.Writer) error

	Responses(ctx context.Context, active bool) ([]*apiv1.Response, error)
	Pending(ctx context.Context) ([]*apiv1.Pending, error)
	Joiners(ctx context.Context) ([]*apiv1.Joiner, error)

	Head(ctx context.Context, did string) (*apiv1.HeadResponse, error)
	// Submit takes an entry of at most MaxEntry bytes and returns its id.
	Submit(ctx context.Context, raw []byte) (string, error)
	// Root is the root chain as it stands, or the state after one entry of it, named by its hash.
	Root(ctx context.Context, at string) (*apiv1.RootResponse, error)
	// SubmitRoot takes an entry of the root chain.
	SubmitRoot(ctx context.Context, raw []byte) (*apiv1.SubmitRootResponse, error)

	// Rotate makes the key of seed, which must be the one committed to, the node's own, and gives its number and the id of
	// the entry; next is the hash of the key after.
	Rotate(ctx context.Context, seed []byte, next [32]byte) (number uint32, entry string, err error)
	Identity(ctx context.Context, peer string) (*apiv1.IdentityResponse, error)

	// Authorize says whether the process at the other end of the socket, of that uid, may call a method: nil or ErrForbidden.
	Authorize(ctx context.Context, method string, uid uint32) error
	// Order orders a response of other hosts by this member's credential, and returns its id.
	Order(ctx context.Context, r event.Response) (string, error)
	// OrderModule releases, deploys or undeploys a module by this member's credential, and returns the entry's id.
	OrderModule(ctx context.Context, kind uint32, body []byte) (string, error)
	// Policy is the response policy in force, and what holds of calls in every swarm.
	Policy(ctx context.Context) (*apiv1.ShowPolicyResponse, error)
	// Credentials are those that stand or stood, the latest of each subject.
	Credentials(ctx context.Context) ([]*apiv1.Credential, error)
	// ReportAnonymously signs a finding as one of those who meet a threshold, and returns once another member carried it.
	ReportAnonymously(ctx context.Context, t anonymous.Threshold, f event.Finding) (*apiv1.ReportResponse, error)
	// AddModule reads a bundle and keeps it.
	AddModule(ctx context.Context, bundle io.Reader) (*apiv1.AddModuleResponse, error)
	// Modules are the released ones: all, or the one of a CID, or those of a name.
	Modules(ctx context.Context, module string) ([]*apiv1.Module, error)
	Respond(ctx context.Context, r event.Response) (event.Response, event.Receipt, error)
	Allowed(ctx context.Context) ([]*apiv1.Allowed, error)
	// AddIndicators makes a source; next gives the files that are handed over, io.EOF after the last.
	AddIndicators(ctx context.Context, s *apiv1.IndicatorSource, next func() (io.Reader, error)) (*apiv1.IndicatorSource, error)
	Indicators(ctx context.Context) (*apiv1.ListIndicatorsResponse, error)
	// Sightings are the last of them, at most limit.
	Sightings(ctx context.Context, limit int) ([]*apiv1.IndicatorSighting, error)
	LookupIndicator(ctx context.Context, kind, value string) (*apiv1.LookupIndicatorResponse, error)
	// RemoveIndicators forgets a source and returns how many indicators are left.
	RemoveIndicators(ctx context.Context, id string) (uint64, error)
	RefreshIndicators(ctx context.Context, id string) error
	Allow(ctx context.Context, what string) error
	Disallow(ctx context.Context, what string) error
	Panic(ctx context.Context) (released int, err error)
	Leave(ctx context.Context) error
}

// EventQuery says which of this host's events are asked for.
type EventQuery struct {
	Since  int64 // Unix nanoseconds
	Follow bool
	Match  where.Expr
	Needs  fields.Needs // what Match implies
}
