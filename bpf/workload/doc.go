// Package workload says what a process belongs to: its container, that one's image and pod, and its systemd unit, from the
// process's cgroup and what container runtimes say of themselves. It stands between the sensors and the detectors: a
// Table completes each event, from what it keeps by cgroup, without a wait and without an allocation.
//
// The path of a cgroup is read once, by whoever may read /proc; image and pod lie in files and behind sockets that are
// root's, so that a Runtime is asked for them on the privileged side, and later events have them. It decides nothing by
// them: a name in a cgroup's path is what whoever made the cgroup wrote there.
package workload
