// Package yara matches the bytes of a file with YARA rules: those of a host's own files, compiled by libyara. It is the one
// engine here that reads files rather than events, and the one that is C: it is built with the tag yara only, and in other
// builds New says so.
//
// Read finds and bounds the rules; it runs nothing. New compiles and Scan matches in the calling process, and C code that
// parses hostile files is to be expected to fall: node/privileged/scanner calls them in a process that has no rights, and
// nothing else should. An include is refused, and so is the module magic, which reads files of its own.
//
// Sources: YARA 4.2's documentation; hillu/go-yara v4.2.4.
package yara
