// Package immutable keeps files and folders as they are, for a response that denies writing to them. The kernel does the
// denying: a file that has the immutable attribute (chattr +i) is neither written, cut, renamed, removed nor given another mode or
// owner, by root neither, and nothing is made in a folder that has it. What is left is a root that takes the attribute off first;
// so each file is copied before, and what was changed in spite of it is put back. Where a file system has no such attribute (vfat, NFS)
// putting back is all there is.
//
// Nothing here goes by a path twice: a path is opened once, without following a link anywhere in it, and from then on the
// descriptors are what is meant, whoever renames the folders above.
package immutable
