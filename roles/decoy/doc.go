// Package decoy serves what nobody has a reason to touch, so that any touch of it is a finding.
//
// A connection whose TCP handshake was completed proves that its source address is not forged; that alone, signed by a
// holder of the role, has every host of the swarm refuse the source. So the finding goes out first, before a byte is
// read. Then the visitor is talked to, in few words and within tight bounds, and what it typed follows as evidence in a
// second finding.
//
// It decides nothing about the visitor: a member that touches a decoy is a finding like any other, and what happens to
// it is the policy's and the guard rails' matter.
package decoy
