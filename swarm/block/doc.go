// Package block brings what is named by its content from whoever has it: a list of names goes one way over a stream of a
// proved connection, the blocks come the other, each held against its name before anything else is done with it. So it
// does not matter who gives a block, and a module outlives its publisher.
//
// README.md is the protocol. Where blocks are kept is the caller's: modules/store, wired by node.
package block
