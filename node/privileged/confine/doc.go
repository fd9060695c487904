// Package confine takes from a process what it will not need again, so that whoever takes the process over does not have it
// either: system calls by seccomp, places to write and to execute from by Landlock. Both are for life, for every thread, and
// for whatever the process executes. What the kernel refuses to set up is an error, which a node says in its doctor and
// lives with; nothing is half set up.
//
// Unprivileged is for the half that parses what others wrote: it may make the calls that a Go program with sockets and
// files makes, and no other. Privileged is for the half that keeps root: it may make all but those that nothing here makes.
package confine
