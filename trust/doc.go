// Package trust says who may do what in a swarm, and how every peer knows it without asking a server.
//
// It is where the way of the data begins and ends: what a peer finds is signed into its feed here, and what another
// peer says is believed only as far as the packages below allow. The root package holds what they all share: the
// swarm's identifier, the cryptographic suite, and every bound (limits.go). Its parts, each one idea:
//
//   - canonical: the one byte form of a value (CTAP2 CBOR), and the strict reader of it
//   - composite: ML-DSA-65 with Ed25519 as one signature
//   - identity: who a peer is (DID, inception record, keys at rest)
//   - ledger: what each peer said (feeds of signed, hash-chained entries on disk)
//   - authority: what follows from it (genesis, membership, grants, invites: a fold over the feeds)
//
// It does not talk to the network and does not act on a host: that is swarm's and bpf's.
package trust

import "encoding/hex"

// SwarmID names a swarm: SHA-256("omega/genesis/1" || 0x00 || genesis record).
type SwarmID [32]byte

// String is the identifier in lower-case hex, 64 digits.
func (id SwarmID) String() string { return hex.EncodeToString(id[:]) }

// Short is the first 8 hex digits: for protocol names and for people, never for a decision of trust.
func (id SwarmID) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero reports whether id is unset.
func (id SwarmID) IsZero() bool { return id == SwarmID{} }

// Suite is a fixed set of algorithms. It is chosen once, in the genesis record, and never negotiated.
type Suite uint16

const (
	// SuiteDefault signs with MLDSA65-Ed25519-SHA512 (draft-ietf-lamps-pq-composite-sigs) and agrees on keys with
	// X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem).
	SuiteDefault Suite = 1
)

// SuiteDraft is the revision of draft-ietf-lamps-pq-composite-sigs that SuiteDefault follows. The construction has been
// the same on the wire since the domain separator became a text label; the number stands in the genesis record so that
// a peer built on another construction is refused by name rather than by a signature that does not verify.
const SuiteDraft uint16 = 19

// String names the suite as genesis, status and doctor show it.
func (s Suite) String() string {
	if s == SuiteDefault {
		return "MLDSA65-Ed25519-SHA512+X25519MLKEM768"
	}
	return "unknown"
}

// Known reports whether this build implements s.
func (s Suite) Known() bool { return s == SuiteDefault }
