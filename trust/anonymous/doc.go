// Package anonymous lets a member say something without saying which member it is: a linkable ring signature over
// ristretto255 proves that the author holds the key of one of a ring of members, and a tag that a key gives only once for
// each slot of an hour keeps it from saying more than its share. A ring made of members above a threshold proves the
// threshold.
//
// It knows keys, rings and tags. Who is a member, who stands above a threshold and how a report travels are the caller's:
// a ring is worth what the caller's check of its keys is worth. Who hides and from whom ends where the discrete logarithm
// does: a quantum computer finds the author of each report that was kept, and can make new ones. So nothing may act on a
// report alone.
package anonymous
