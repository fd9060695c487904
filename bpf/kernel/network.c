//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Sensor: TCP connections, and sockets that go past it. inet_sock_set_state fires in the caller's own context for connect
// and listen, so the process is known there; an inbound connection is established in an interrupt, and whose it is turns
// out when accept() returns it. A close may come long after its process: a flow remembers whose it was.
#define SCOPE_CLASS 4001
#include "scope.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_CLOSE 7
#define TCP_LISTEN 10
#define SOCK_DONE 2 // bit 1 of skc_flags

// The network namespace that inbound connections belong to, when scoped.
const volatile __u32 scope_net = 0;

// What the kernel gives a program where a system call ends has a fixed layout.
struct exit_context {
	__u64 common;
	long nr;
	long ret;
};

struct flow {
	__u64 cookie; // the kernel's number of the socket, never used again; 0: the slot is free
	__u64 began;
	__u32 inbound;
	__u32 pad;
	struct record_process process; // zeros until an inbound one is accepted
};

// A connection has a slot until it is closed: one of the few that its socket's number leads to, or, where those are
// taken, an entry of the hash table, which costs several times as much. The numbers are given out one after the other, so
// the next flow's slot lies beside the last one's. Where there is no room in the table either, a close goes untold, and is counted.
#define FLOW_SLOTS 4096 // power of two
#define FLOW_WAYS 4

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FLOW_SLOTS);
	__type(key, __u32);
	__type(value, struct flow);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct flow);
} flows SEC(".maps");

static __always_inline struct flow *slot_of(__u64 cookie, __u32 way)
{
	__u32 slot = (__u32)cookie + way & (FLOW_SLOTS - 1);
	return bpf_map_lookup_elem(&slots, &slot);
}

static __always_inline struct flow *flow_of(__u64 cookie)
{
	for (__u32 way = 0; way < FLOW_WAYS; way++) {
		struct flow *f = slot_of(cookie, way);
		if (f && f->cookie == cookie)
			return f;
	}
	return bpf_map_lookup_elem(&flows, &cookie);
}

// flow_for is a slot for a socket, with what an earlier flow left in it. NULL: there is no room.
static __always_inline struct flow *flow_for(__u64 cookie)
{
	for (__u32 way = 0; way < FLOW_WAYS; way++) {
		struct flow *f = slot_of(cookie, way);
		if (f && (f->cookie == cookie || (!f->cookie && !__sync_val_compare_and_swap(&f->cookie, 0, cookie))))
			return f;
	}
	struct flow empty = { .cookie = cookie };
	if (bpf_map_update_elem(&flows, &cookie, &empty, BPF_ANY)) {
		count_drop(RECORD_CLOSE);
		return NULL;
	}
	return bpf_map_lookup_elem(&flows, &cookie);
}

static __always_inline void forget(__u64 cookie)
{
	for (__u32 way = 0; way < FLOW_WAYS; way++) {
		struct flow *f = slot_of(cookie, way);
		if (f && f->cookie == cookie) {
			f->cookie = 0;
			return;
		}
	}
	bpf_map_delete_elem(&flows, &cookie);
}

// cookie_of asks the kernel only for a socket that has no number yet.
static __always_inline __u64 cookie_of(struct sock *sk)
{
	return sk->__sk_common.skc_cookie.counter ?: bpf_get_socket_cookie(sk);
}

// fill_network reads a socket that the kernel vouches for, so each load is one instruction.
static __always_inline void fill_network(struct record_network *n, struct sock *sk)
{
	if (sk->__sk_common.skc_family == AF_INET) {
		v4_mapped(n->local, sk->__sk_common.skc_rcv_saddr);
		v4_mapped(n->remote, sk->__sk_common.skc_daddr);
	} else {
		bpf_core_read(&n->local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(&n->remote, 16, &sk->__sk_common.skc_v6_daddr);
	}
	n->local_port = sk->__sk_common.skc_num;
	n->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	n->protocol = IPPROTO_TCP;
	n->cookie = cookie_of(sk);
}

static __always_inline struct record_flow *begin(__u16 kind, __u64 now)
{
	struct record_flow *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count_drop(kind);
		return NULL;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->header.kind = kind;
	r->header.size = sizeof(*r);
	r->header.boot = now;
	return r;
}

// muted_ports: does a filter mute either end?
static __always_inline bool muted_ports(struct sock *sk)
{
	return filtering(FILTER_PORT) && (muted_port(sk->__sk_common.skc_num) || muted_port(bpf_ntohs(sk->__sk_common.skc_dport)));
}

static __always_inline int connecting(struct sock *sk)
{
	if (!in_scope() || muted_ports(sk))
		return 0;
	__u64 now = bpf_ktime_get_boot_ns();
	struct record_process who;
	fill_process(&who, bpf_get_current_task_btf());
	struct flow *f = flow_for(cookie_of(sk));
	if (f) {
		f->began = now;
		f->inbound = 0;
		f->process = who;
	}
	struct record_flow *r = begin(RECORD_CONNECT, now);
	if (!r)
		return 0;
	r->process = who;
	fill_network(&r->network, sk);
	bpf_ringbuf_submit(r, WAKE_ASLEEP);
	return 0;
}

static __always_inline int listening(struct sock *sk)
{
	if (!in_scope() || muted_ports(sk))
		return 0;
	struct record_flow *r = begin(RECORD_LISTEN, bpf_ktime_get_boot_ns());
	if (!r)
		return 0;
	fill_process(&r->process, bpf_get_current_task_btf());
	fill_network(&r->network, sk);
	bpf_ringbuf_submit(r, WAKE_ASLEEP);
	return 0;
}

static __always_inline int established(struct sock *sk)
{
	if ((scope_net && sk->__sk_common.skc_net.net->ns.inum != scope_net) || muted_ports(sk))
		return 0;
	__u64 now = bpf_ktime_get_boot_ns();
	struct flow *f = flow_for(cookie_of(sk));
	if (f) {
		f->began = now;
		f->inbound = 1;
		__builtin_memset(&f->process, 0, sizeof(f->process));
	}
	struct record_flow *r = begin(RECORD_ACCEPT, now);
	if (!r)
		return 0;
	fill_network(&r->network, sk);
	r->network.inbound = 1;
	bpf_ringbuf_submit(r, WAKE_ASLEEP);
	return 0;
}

static __always_inline int closed(struct sock *sk, int old)
{
	__u64 cookie = cookie_of(sk);
	struct flow *f = flow_of(cookie);
	if (!f)
		return 0;
	struct record_flow *r = begin(RECORD_CLOSE, bpf_ktime_get_boot_ns());
	if (r) {
		r->process = f->process;
		if (old == TCP_SYN_SENT) // why the connection never was
			r->process.exit_code = sk->sk_err ?: sk->sk_err_soft;
		fill_network(&r->network, sk);
		r->network.inbound = f->inbound;
		r->network.duration = r->header.boot - f->began;
		struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
		if (tcp) {
			r->network.bytes_in = tcp->bytes_received;
			if (r->network.bytes_in && sk->__sk_common.skc_flags & SOCK_DONE)
				r->network.bytes_in--; // the other side's FIN, which has a number of its own
			r->network.bytes_out = tcp->bytes_sent - tcp->bytes_retrans;
			if (!r->network.local_port) // given back already
				r->network.local_port = bpf_ntohs(tcp->inet_conn.icsk_inet.inet_sport);
		}
		bpf_ringbuf_submit(r, WAKE_ASLEEP);
	}
	forget(cookie);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state, struct sock *sk, int old, int new)
{
	bool opens = new == TCP_SYN_SENT || (new == TCP_ESTABLISHED && old == TCP_SYN_RECV);
	if ((!opens && new != TCP_LISTEN && new != TCP_CLOSE) || sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (new == TCP_SYN_SENT)
		return connecting(sk);
	if (new == TCP_ESTABLISHED)
		return established(sk);
	if (new == TCP_LISTEN)
		return listening(sk);
	return closed(sk, old);
}

// accepted_by is the number of the socket behind a descriptor that the current process just got. 0: it has none.
static __always_inline __u64 accepted_by(struct task_struct *task, long fd)
{
	struct fdtable *table = task->files->fdt;
	struct file **files = table->fd, *file = NULL;
	if (fd < 0 || fd >= table->max_fds || bpf_probe_read_kernel(&file, sizeof(file), files + fd))
		return 0;
	struct socket *socket = BPF_CORE_READ(file, private_data);
	struct sock *sk = BPF_CORE_READ(socket, sk);
	__u16 protocol = BPF_CORE_READ(sk, sk_protocol);
	struct mptcp_sock *several = (struct mptcp_sock *)sk;
	if (protocol == IPPROTO_MPTCP && bpf_core_field_exists(several->first))
		sk = BPF_CORE_READ(several, first);
	else if (protocol != IPPROTO_TCP)
		return 0;
	return BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
}

// After accept() and accept4(): who got the connection. Which that is the reader knows by the cookie.
SEC("tracepoint/syscalls/sys_exit_accept4")
int on_accepted(struct exit_context *ctx)
{
	if (ctx->ret < 0)
		return 0;
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 cookie = accepted_by(task, ctx->ret);
	struct flow *f = cookie ? flow_of(cookie) : NULL;
	if (!f || !f->inbound || f->process.pid)
		return 0;
	fill_process(&f->process, task);
	bool quiet = !in_scope();
	struct record_flow *r = begin(RECORD_ACCEPT, bpf_ktime_get_boot_ns());
	if (r) {
		r->header.flags = quiet ? RECORD_FLAG_MUTED : 0;
		r->process = f->process;
		r->network.inbound = 1;
		r->network.protocol = IPPROTO_TCP;
		r->network.cookie = cookie;
		bpf_ringbuf_submit(r, WAKE_ASLEEP);
	}
	if (quiet)
		forget(cookie);
	return 0;
}

// A socket that reads or writes packets past the kernel's own protocols, and so past what we see and refuse of those.
#define SOCKET_ALLOWANCE 500 // records in 100 ms and CPU: whoever may not have one can still ask

// The registers a system call was made with are still there when it ends; the layout is the machine's.
struct pt_regs___amd64 {
	unsigned long di, si, dx;
} __attribute__((preserve_access_index));
struct pt_regs___arm64 {
	__u64 orig_x0, regs[3];
} __attribute__((preserve_access_index));

SEC("tracepoint/syscalls/sys_exit_socket")
int on_socket_opened(struct exit_context *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	void *regs = (void *)bpf_task_pt_regs(task);
	struct pt_regs___amd64 *amd64 = regs;
	struct pt_regs___arm64 *arm64 = regs;
	__u32 family = 0, type = 0, protocol = 0;
	if (bpf_core_field_exists(amd64->di)) {
		family = amd64->di;
		type = amd64->si & 15;
		protocol = amd64->dx;
	} else if (bpf_core_field_exists(arm64->orig_x0)) {
		family = arm64->orig_x0;
		type = arm64->regs[1] & 15;
		protocol = arm64->regs[2];
	}
	bool raw = (family == AF_INET || family == AF_INET6) && (type == SOCK_RAW || type == SOCK_PACKET);
	if ((!raw && family != AF_PACKET) || !in_scope() || !affordable(RECORD_SOCKET, SOCKET_ALLOWANCE))
		return 0;
	struct record_flow *r = begin(RECORD_SOCKET, bpf_ktime_get_boot_ns());
	if (!r)
		return 0;
	fill_process(&r->process, task);
	r->process.exit_code = ctx->ret < 0 ? -ctx->ret : 0;
	r->network.local_port = family;
	r->network.remote_port = type;
	r->network.bytes_out = protocol;
	bpf_ringbuf_submit(r, WAKE_ASLEEP);
	return 0;
}
