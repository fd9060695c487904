// Package testnet is a swarm in small on one machine: real hosts, each in its own network namespace and cgroup, on one
// bridge, with one real node process each, and an outsider, x1, to attack them from. Without root it is processes on
// loopback addresses, and it says what that cannot enforce.
//
// Nothing of the machine's own is touched: the bridge lives in a namespace of its own, every link is made inside it,
// and cgroups are new ones. A reaper process holds the far end of a pipe; when the testnet ends, however it ends, the
// pipe closes and the reaper kills what is in the cgroups and removes namespaces, cgroups, mounts and files.
//
// It does not know what a node does; it starts `omega` as a user would and asks its API as any client would.
package testnet
