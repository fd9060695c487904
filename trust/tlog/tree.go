package tlog

import (
	"crypto/sha256"
	"fmt"
	"math/bits"
)

// Hash is SHA-256.
type Hash = [32]byte

// MaxSize is the most leaves of a tree: sizes travel as numbers that every reader can hold.
const MaxSize = 1 << 62

// MaxFrontier is the most hashes of a frontier: one for each bit of a size.
const MaxFrontier = 62

// Tree is the compact form of an RFC 6962 Merkle tree: the roots of its perfect subtrees, and no leaf. It is a value:
// appending gives another tree and leaves the old one as it was, so that a state that holds one can be copied and thrown
// away. The zero Tree is empty.
type Tree struct {
	size uint64
	top  *peak
}

// peak is the root of a perfect subtree; the one below is larger and lies to its left.
type peak struct {
	hash  Hash
	size  uint64
	below *peak
}

// LeafHash is SHA-256(0x00 || leaf) (RFC 6962 §2.1); the leaf of an entry is its hash.
func LeafHash(leaf Hash) Hash {
	var b [1 + len(leaf)]byte
	copy(b[1:], leaf[:])
	return sha256.Sum256(b[:])
}

// nodeHash is SHA-256(0x01 || left || right).
func nodeHash(left, right *Hash) Hash {
	var b [1 + 2*len(left)]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+len(left):], right[:])
	return sha256.Sum256(b[:])
}

// Append gives the tree with one more leaf. It costs two hashes on average and one allocation.
func (t Tree) Append(leaf Hash) Tree {
	p := &peak{hash: LeafHash(leaf), size: 1, below: t.top}
	for p.below != nil && p.below.size == p.size {
		p.hash = nodeHash(&p.below.hash, &p.hash)
		p.size *= 2
		p.below = p.below.below
	}
	return Tree{size: t.size + 1, top: p}
}

// Size is the number of leaves.
func (t Tree) Size() uint64 { return t.size }

// Root is the Merkle tree hash: SHA-256 of nothing where the tree is empty.
func (t Tree) Root() Hash {
	if t.top == nil {
		return sha256.Sum256(nil)
	}
	root := t.top.hash
	for p := t.top.below; p != nil; p = p.below {
		root = nodeHash(&p.hash, &root)
	}
	return root
}

// Frontier is what FromFrontier takes to go on with the tree: the roots of its perfect subtrees from left to right.
func (t Tree) Frontier() [][]byte {
	out := make([][]byte, bits.OnesCount64(t.size))
	i := len(out)
	for p := t.top; p != nil; p = p.below {
		i--
		out[i] = append([]byte(nil), p.hash[:]...)
	}
	return out
}

// FromFrontier is the tree of size leaves whose perfect subtrees have these roots. That they are right is for the caller
// to see from the Root of the result.
func FromFrontier(size uint64, frontier [][]byte) (Tree, error) {
	if size > MaxSize || len(frontier) != bits.OnesCount64(size) {
		return Tree{}, fmt.Errorf("tlog: a frontier of %d hashes for %d leaves", len(frontier), size)
	}
	t := Tree{size: size}
	for _, h := range frontier {
		if len(h) != len(Hash{}) {
			return Tree{}, fmt.Errorf("tlog: a hash of %d bytes", len(h))
		}
		left := uint64(1) << (bits.Len64(size) - 1)
		t.top = &peak{hash: Hash(h), size: left, below: t.top}
		size -= left
	}
	return t, nil
}
