// Package procfs sees a host without eBPF, for those that refuse it: processes by the kernel's proc connector where it
// may be heard, else by looking at /proc every so often; programs just written by inotify; TCP connections by sock_diag.
// It gives the same event.Event as the kernel's ring does, to the same detectors, and says in Coverage which way it took
// and what is lost by it.
//
// It acts on nothing: a host that refuses eBPF refuses no address.
package procfs
