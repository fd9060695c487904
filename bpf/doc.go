// Package bpf is the kernel half of a peer: programs that see what happens on a host (sensors) and programs that refuse
// what must not happen (actuators), each domain in an object of its own so that one the kernel does not take costs no
// other. Load runs in the privileged process; OpenRing reads what the programs saw in an unprivileged one, from the
// ring's file descriptor alone. Data goes: kernel record → ring → event.Event, without a copy and without an allocation;
// and back: event.Response → a map entry that carries its own end, so that no block outlives its time even if nobody
// lives to lift it.
//
// It does not decide: which response is allowed is trust/guard's question and trust/policy's.
package bpf
