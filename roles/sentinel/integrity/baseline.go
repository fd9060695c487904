package integrity

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"lukechampine.com/blake3"
)

// Bounds of a baseline.
const (
	MaxEntries   = 100_000  // files, links and folders
	MaxFile      = 64 << 20 // bytes hashed of one file; a longer one is known by its first part, its size and when it was written
	MaxXattrs    = 64 << 10 // bytes of names and values hashed of one entry
	MaxPath      = 4096     // bytes
	maxDepth     = 32
	maxTarget    = 4096
	maxDirectory = 20_000 // names of one folder
)

// Entry is what is known of one path. Times are not compared: a package's new build of the same bytes is no change.
type Entry struct {
	Path     string
	Mode     uint32 // type and permissions
	UID, GID uint32
	Size     int64
	Inode    uint64
	Device   uint64
	Changed  int64    // ctime, Unix nanoseconds: which no owner can set back
	Modified int64    // mtime, Unix nanoseconds
	Digest   [32]byte // BLAKE3 of a regular file's content; zeros else, and where it could not be read
	Xattrs   [32]byte // BLAKE3 of names and values in order; zeros without any
	Target   string   // of a symbolic link
}

// same says that nothing has happened to the file since: its digest need not be taken again.
func (e *Entry) same(o *Entry) bool {
	return e.Inode == o.Inode && e.Device == o.Device && e.Size == o.Size && e.Changed == o.Changed && e.Modified == o.Modified && e.Mode == o.Mode && !e.unread()
}

// regular says whether it is a file with content.
func (e *Entry) regular() bool { return e.Mode&typeBits == 0o100000 }

// directory says whether it is a folder.
func (e *Entry) directory() bool { return e.Mode&typeBits == 0o040000 }

// unread says that its content could not be read when it was looked at.
func (e *Entry) unread() bool { return e.regular() && e.Digest == [32]byte{} }

// Baseline is what watched paths were at one time, in the order of their paths.
type Baseline struct {
	Entries []Entry
	Skipped uint64 // entries beyond a bound, or not to be read
}

// find gives the entry of a path; nil where there is none.
func (b *Baseline) find(path string) *Entry {
	i, ok := slices.BinarySearchFunc(b.Entries, path, func(e Entry, p string) int { return strings.Compare(e.Path, p) })
	if !ok {
		return nil
	}
	return &b.Entries[i]
}

// Change is one difference. What says in what, by words joined with commas: added, removed, content, mode, owner, xattr,
// target, type.
type Change struct {
	Path string
	What string
	Was  *Entry // nil where it was not there
	Is   *Entry // nil where it is gone
}

// compare gives what became of one path; ok is false where nothing did. Either may be nil.
func compare(path string, was, is *Entry) (c Change, ok bool) {
	c = Change{Path: path, Was: was, Is: is}
	switch {
	case was == nil && is == nil:
	case was == nil:
		c.What = "added"
	case is == nil:
		c.What = "removed"
	default:
		c.What = differs(was, is)
	}
	return c, c.What != ""
}

// Compare lists what became of was in is, in the order of paths.
func Compare(was, is *Baseline) []Change {
	var out []Change
	i, j := 0, 0
	for i < len(was.Entries) || j < len(is.Entries) {
		order := 0
		switch {
		case i == len(was.Entries):
			order = 1
		case j == len(is.Entries):
			order = -1
		default:
			order = strings.Compare(was.Entries[i].Path, is.Entries[j].Path)
		}
		switch {
		case order < 0:
			out = append(out, Change{Path: was.Entries[i].Path, What: "removed", Was: &was.Entries[i]})
			i++
		case order > 0:
			out = append(out, Change{Path: is.Entries[j].Path, What: "added", Is: &is.Entries[j]})
			j++
		default:
			if what := differs(&was.Entries[i], &is.Entries[j]); what != "" {
				out = append(out, Change{Path: was.Entries[i].Path, What: what, Was: &was.Entries[i], Is: &is.Entries[j]})
			}
			i++
			j++
		}
	}
	return out
}

const typeBits = 0o170000

func differs(a, b *Entry) string {
	if a.Mode&typeBits != b.Mode&typeBits {
		return "type"
	}
	var what []string
	if a.regular() && (a.Size != b.Size || a.Digest != b.Digest && !a.unread() && !b.unread() || a.Size > MaxFile && a.Modified != b.Modified) {
		what = append(what, "content")
	}
	if a.Mode != b.Mode {
		what = append(what, "mode")
	}
	if a.UID != b.UID || a.GID != b.GID {
		what = append(what, "owner")
	}
	if a.Xattrs != b.Xattrs {
		what = append(what, "xattr")
	}
	if a.Target != b.Target {
		what = append(what, "target")
	}
	return strings.Join(what, ",")
}

// Domains of the tree's hashes, as RFC 6962 tells a leaf from a node.
const (
	leafPrefix = 0
	nodePrefix = 1
)

// Root is the head of a Merkle tree (RFC 6962, section 2.1, over BLAKE3) whose leaves are the entries in the order of
// their paths. Times, inodes and devices are no part of it: a copy of the host has the same root.
func (b *Baseline) Root() [32]byte {
	level := make([][32]byte, len(b.Entries))
	var leaf bytes.Buffer
	for i := range b.Entries {
		leaf.Reset()
		b.Entries[i].appendLeaf(&leaf)
		level[i] = blake3.Sum256(leaf.Bytes())
	}
	if len(level) == 0 {
		return blake3.Sum256(nil)
	}
	for len(level) > 1 {
		next := level[:0]
		for i := 0; i < len(level); i += 2 {
			if i+1 == len(level) { // an odd one goes up as it is
				next = append(next, level[i])
				break
			}
			var pair [65]byte
			pair[0] = nodePrefix
			copy(pair[1:], level[i][:])
			copy(pair[33:], level[i+1][:])
			next = append(next, blake3.Sum256(pair[:]))
		}
		level = next
	}
	return level[0]
}

func (e *Entry) appendLeaf(b *bytes.Buffer) {
	b.WriteByte(leafPrefix)
	for _, s := range []string{e.Path, e.Target} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(s)))
		b.Write(n[:])
		b.WriteString(s)
	}
	var fixed [20]byte
	binary.BigEndian.PutUint32(fixed[0:], e.Mode)
	binary.BigEndian.PutUint32(fixed[4:], e.UID)
	binary.BigEndian.PutUint32(fixed[8:], e.GID)
	if e.regular() { // a folder's size is the file system's affair
		binary.BigEndian.PutUint64(fixed[12:], uint64(e.Size))
	}
	b.Write(fixed[:])
	b.Write(e.Digest[:])
	b.Write(e.Xattrs[:])
}

// below are the entries under a folder: those whose path begins with its name and a slash. They need not be one stretch of
// the order with the folder itself ("a-b" comes before "a/b"), but they are one by themselves.
func (b *Baseline) below(path string) []Entry {
	prefix := strings.TrimSuffix(path, "/") + "/"
	find := func(p string) int {
		i, _ := slices.BinarySearchFunc(b.Entries, p, func(e Entry, p string) int { return strings.Compare(e.Path, p) })
		return i
	}
	return b.Entries[find(prefix):find(prefix[:len(prefix)-1]+"0")] // '0' follows '/'
}
