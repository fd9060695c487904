// Package privileged is the line between the two processes of a node. On one side stands the small process that
// keeps root: it has loaded the kernel half, holds the guard rails and acts. On the other stands the process that
// parses what others wrote. What crosses the line is this package's protocol and nothing else: one bounded CBOR frame a
// packet, over an inherited SOCK_SEQPACKET pair.
//
// Host is what stands on the privileged side, Client is the same Service seen from the other, and Serve joins them.
// A node that is one process uses a Host directly. The privileged side trusts nothing it is told: each command is
// held against bounds and guard rails again before the kernel is touched.
//
// Events do not come this way: their ring buffers are handed over as descriptors at the start.
package privileged
