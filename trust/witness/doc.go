// Package witness has peers vouch for each other's feeds: for each feed a few members, chosen by its name so that nobody
// picks his own, cosign its checkpoints, and never one that does not extend what they cosigned before. A history that
// enough of them cosigned can be thrown away behind its checkpoint, and be believed by who never saw it.
//
// It says who cosigns, when, and how many it takes. The trees and signatures are tlog's, the entries ledger's.
package witness
