// Package scanner matches files with YARA rules in a process that has no rights. libyara is C that parses what attackers write:
// it is to be expected that a file takes it over. So the process that holds it has no capabilities, a user of its own, nothing
// of the file system but the libraries it is linked with, no system call that opens, connects, executes or signals, and one
// line to its parent, over which it is handed rules and files as memory that nobody can change any more. All it can do with
// what it learns is to answer, and its answers are bounded and checked.
//
// Scanner is the parent's end: it starts the process, ends it when it does not answer, and starts it again; a rule file or a
// file that it fell over is not given to it twice. Main is the life of the process.
package scanner
