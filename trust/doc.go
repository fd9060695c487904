// Package trust says who may do what in a swarm, and how every peer knows it without asking a server.
//
// It is where the way of the data begins and ends: what a peer finds is signed into its feed here, and what another
// peer says is believed only as far as the packages below allow. The root package holds what they all share: the
// swarm's identifier, the cryptographic suite, and every bound (limits.go). Its parts, each one idea:
//
//   - canonical: the one byte form of a value (CTAP2 CBOR), and the strict reader of it
//   - composite: the signature of every long-lived key: ML-DSA-65 with Ed25519 as one, or ML-DSA-87
//   - identity: who a peer is (DID, inception record, keys at rest)
//   - ledger: what each peer said (feeds of signed, hash-chained entries on disk)
//   - tlog: a feed as a transparency log (Merkle tree, checkpoints, cosignatures)
//   - witness: who cosigns whose feed
//   - audit: everything in one file that verifies anywhere
//   - root: who rules, by a chain of changes that k operators sign
//   - authority: what follows from it (genesis, membership, grants, invites: a fold over the feeds)
//
// It does not talk to the network and does not act on a host: that is swarm's and bpf's.
package trust

import (
	"encoding/hex"
	"fmt"
	"strings"
)

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
	// SuiteCNSA signs with ML-DSA-87 (FIPS 204) alone and agrees on keys with SecP384r1MLKEM1024 (draft-ietf-tls-ecdhe-mlkem):
	// the signature and the key establishment of CNSA 2.0, which knows no composites.
	SuiteCNSA Suite = 2
)

// SuiteDraft is the revision of draft-ietf-lamps-pq-composite-sigs that SuiteDefault follows. The construction has been
// the same on the wire since the domain separator became a text label; the number stands in the genesis record so that
// a peer built on another construction is refused by name rather than by a signature that does not verify.
const SuiteDraft uint16 = 19

// Draft is what stands in a genesis record of s: SuiteDraft where a composite signs, and 0 where FIPS 204 alone does.
func (s Suite) Draft() uint16 {
	if s == SuiteDefault {
		return SuiteDraft
	}
	return 0
}

// String spells out the suite's algorithms, as genesis and init show them.
func (s Suite) String() string {
	switch s {
	case SuiteDefault:
		return "MLDSA65-Ed25519-SHA512+X25519MLKEM768"
	case SuiteCNSA:
		return "ML-DSA-87+SecP384r1MLKEM1024"
	}
	return "unknown"
}

// Name is how a person chooses the suite: "default" or "cnsa".
func (s Suite) Name() string {
	switch s {
	case SuiteDefault:
		return "default"
	case SuiteCNSA:
		return "cnsa"
	}
	return fmt.Sprintf("suite %d", uint16(s))
}

// Known reports whether this build implements s.
func (s Suite) Known() bool { return s == SuiteDefault || s == SuiteCNSA }

// Suites are all that this build implements.
func Suites() []Suite { return []Suite{SuiteDefault, SuiteCNSA} }

// ParseSuite finds a suite by its Name.
func ParseSuite(name string) (Suite, error) {
	var names []string
	for _, s := range Suites() {
		if s.Name() == name {
			return s, nil
		}
		names = append(names, fmt.Sprintf("%s (%s)", s.Name(), s))
	}
	return 0, fmt.Errorf("trust: no suite %q: this build knows %s", name, strings.Join(names, ", "))
}
