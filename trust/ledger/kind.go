package ledger

import "fmt"

// Chain is one of an author's two chains.
type Chain uint8

const (
	Authority Chain = 1 // grants, invites, admissions, responses of operators: kept for ever, always with a composite signature
	Activity  Chain = 2 // findings, receipts, summaries
)

// String is the chain's name.
func (c Chain) String() string {
	switch c {
	case Authority:
		return "authority"
	case Activity:
		return "activity"
	}
	return fmt.Sprintf("chain(%d)", uint8(c))
}

// Valid reports whether c is one of the two.
func (c Chain) Valid() bool { return c == Authority || c == Activity }

// Kind says what an entry's body is. Kinds below 0x1000 belong to the authority chain, those from 0x1000 to 0x1fff to
// the activity chain, and the same ranges with KindOptional set. A kind without KindOptional is critical: who does not
// know it must not act on what its author allows afterwards.
type Kind uint16

// KindOptional marks a kind that a reader may skip.
const KindOptional Kind = 0x8000

// Kinds of the authority chain.
const (
	KindMember     Kind = 1  // an operator admits an inception
	KindInvite     Kind = 2  // an operator opens an invite
	KindWithdraw   Kind = 3  // an operator ends an invite
	KindAdmit      Kind = 4  // a member admits a joiner on an invite
	KindGrant      Kind = 5  // an operator grants roles
	KindRevokeRole Kind = 6  // an operator takes roles back
	KindSuspend    Kind = 7  // an operator keeps a peer out for a time
	KindRevoke     Kind = 8  // operators put a peer out for ever
	KindResponse   Kind = 9  // an operator's response, or release of one
	KindAllow      Kind = 10 // what must never be blocked
	KindDisallow   Kind = 11 // the end of an allow
	KindPolicy     Kind = 12 // the response policy
	KindApprove    Kind = 13 // an operator lets a pending response act
	KindReject     Kind = 14 // an operator refuses one
	KindEvidence   Kind = 15 // a proof of equivocation
	KindRoot       Kind = 16 // an entry of the root chain
	KindRotate     Kind = 17 // an author goes on with the key it committed to; signed with that key
	KindContest    Kind = 19 // two rotations of one number: the next key was stolen as well

	KindRevokeCredential Kind = 20 // an operator revokes a credential by its serial

	KindWitness = KindOptional | 18 // a member's ML-DSA-44 key, by which it cosigns checkpoints
	// KindAnonymousKey: the key by which a member hides among others.
	KindAnonymousKey   = KindOptional | 0x15
	KindModuleRelease  = KindOptional | 0x16 // a module's release, or its withdrawal
	KindModuleDeploy   = KindOptional | 0x17 // where a released module runs
	KindModuleUndeploy = KindOptional | 0x18 // the end of that
)

// Kinds of the activity chain.
const (
	KindEpoch   Kind = 0x1001 // an Ed25519 key of the next hour, certified by the composite key
	KindSeal    Kind = 0x1002 // nothing but a composite signature over all before it
	KindFinding Kind = 0x1003 // event.Finding
	KindReceipt Kind = 0x1004 // event.Receipt
	KindSummary Kind = 0x1005 // counts over a time
	// KindJoinRequest: a joiner that waits for an operator's approval, as the member it asked passes it on.
	KindJoinRequest Kind = KindOptional | 0x1010

	KindCheckpoint = KindOptional | 0x1006 // the Merkle roots of the author's chains
	KindCosign     = KindOptional | 0x1007 // a witness's cosignature of a checkpoint
	KindCredential = KindOptional | 0x1011 // an issuer's credential for a member
	KindAnonymous  = KindOptional | 0x1012 // what some member reports, in the feed of another
	KindBaseline   = KindOptional | 0x1020 // event.Baseline: what the author's watched files are to be
	KindCoverage   = KindOptional | 0x1021 // event.Coverage: what the author's host can see and stop
	KindModules    = KindOptional | 0x1022 // event.ModuleReport: what became of deployed modules on the author's host
)

// Chain is the chain that k belongs to.
func (k Kind) Chain() Chain {
	switch k &^ KindOptional >> 12 {
	case 0:
		return Authority
	case 1:
		return Activity
	}
	return 0
}

// Known reports whether this build knows what k means.
func (k Kind) Known() bool { _, ok := kindName(k); return ok }

// Critical reports whether k must be known to be passed over.
func (k Kind) Critical() bool { return k&KindOptional == 0 }

// String is the kind's name as `ledger show --kind` takes it.
func (k Kind) String() string {
	if n, ok := kindName(k); ok {
		return n
	}
	return fmt.Sprintf("kind(%#04x)", uint16(k))
}

func kindName(k Kind) (string, bool) {
	switch k {
	case KindMember:
		return "member", true
	case KindInvite:
		return "invite", true
	case KindWithdraw:
		return "withdraw", true
	case KindAdmit:
		return "admit", true
	case KindGrant:
		return "grant", true
	case KindRevokeRole:
		return "revoke-role", true
	case KindSuspend:
		return "suspend", true
	case KindRevoke:
		return "revoke", true
	case KindResponse:
		return "response", true
	case KindAllow:
		return "allow", true
	case KindDisallow:
		return "disallow", true
	case KindPolicy:
		return "policy", true
	case KindApprove:
		return "approve", true
	case KindReject:
		return "reject", true
	case KindEvidence:
		return "evidence", true
	case KindRotate:
		return "rotate", true
	case KindContest:
		return "contest", true
	case KindWitness:
		return "witness", true
	case KindCheckpoint:
		return "checkpoint", true
	case KindCosign:
		return "cosign", true
	case KindRoot:
		return "root", true
	case KindEpoch:
		return "epoch", true
	case KindSeal:
		return "seal", true
	case KindFinding:
		return "finding", true
	case KindReceipt:
		return "receipt", true
	case KindSummary:
		return "summary", true
	case KindRevokeCredential:
		return "revoke-credential", true
	case KindCredential:
		return "credential", true
	case KindJoinRequest:
		return "join-request", true
	case KindAnonymousKey:
		return "anonymous-key", true
	case KindModuleRelease:
		return "module-release", true
	case KindModuleDeploy:
		return "module-deploy", true
	case KindModuleUndeploy:
		return "module-undeploy", true
	case KindAnonymous:
		return "anonymous", true
	case KindBaseline:
		return "baseline", true
	case KindCoverage:
		return "coverage", true
	case KindModules:
		return "modules", true
	}
	return "", false
}
