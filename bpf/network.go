package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// networkCalls are the system calls that kernel/network.c looks at when they end: a table, never changed.
var networkCalls = [...]struct{ event, program, check, lost string }{
	{"sys_exit_accept", "on_accepted", "accept", lostAccept},
	{"sys_exit_accept4", "on_accepted", "accept4", lostAccept},
	{"sys_exit_socket", "on_socket_opened", "socket", lostSocket},
}

const (
	lostAccept = "an inbound connection is told as its listener's, not as that process's which took it by this call"
	lostSocket = "raw and packet sockets are not seen"
)

// attachNetwork puts the programs of network.c where they belong. A call that cannot be had is a check of its own.
func (k *Kernel) attachNetwork(c *ebpf.Collection) (string, error) {
	detail, err := k.attachTracing(c, "on_state")
	if err != nil {
		return "", err
	}
	points, err := openTracepoints()
	if err != nil {
		k.checks = append(k.checks, Check{Name: "sensor/network/syscalls", Detail: err.Error(), Lost: lostAccept + "; " + lostSocket})
		return detail, nil
	}
	for _, call := range networkCalls {
		l, err := points.attach(call.event, c.Programs[call.program])
		if err != nil {
			k.checks = append(k.checks, Check{Name: "sensor/network/" + call.check, Detail: err.Error(), Lost: call.lost})
			continue
		}
		k.links = append(k.links, l)
	}
	if err := points.close(); err != nil {
		return "", fmt.Errorf("let go of tracefs: %w", err)
	}
	return detail + ", a tracepoint a system call", nil
}
