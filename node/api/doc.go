// Package api serves the node's API: the Connect service of omega.proto over the Unix socket in the state folder. It
// bounds what it is asked, turns event's types into protobuf, and asks a Backend for everything else.
//
// It grants nothing: whoever may open the socket (mode 0600) has power over this host alone. What reaches other
// hosts comes in by Submit as an entry that an operator signed elsewhere, and is checked by the ledger like any
// other peer's.
package api
