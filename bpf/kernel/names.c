//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Sensor: the names behind addresses, and UDP. What goes to port 53 and comes from it, and the first bytes of a TLS
// ClientHello, are copied as they are and read in user space. Packets may be handled in an interrupt, so each socket
// remembers who connected it or sent by it.
#define SCOPE_CLASS 4001
#include "packet.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile struct record_name record_name_layout = {};

struct owner {
	struct record_process process; // of a UDP socket; of any other the key alone
	__u64 began; // of a UDP socket: its first datagram
	__u64 bytes_in;
	__u64 bytes_out;
	__u8 remote[16];
	__u16 remote_port;
	__u16 local_port;
	__u8 hello;    // HELLO_*
	__u8 hello_in; // it comes from the other side
	__u8 inbound;  // the other side began
	__u8 muted;
	__u32 hello_from; // the sequence number that it begins at
	__u16 hello_size; // of what is to be told
	__u16 hello_segments;
};

#define HELLO_PART 1 // more of it is to come
#define HELLO_TOLD 2
#define HELLO_SIZE 4096
#define HELLO_SEGMENTS 16

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct owner);
} owners SEC(".maps");

// Datagrams already told, by socket, process and address: a record each, however many packets.
struct told {
	__u64 cookie;
	__u8 remote[16];
	__u32 tgid;
	__u16 port;
	__u16 inbound;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct told);
	__type(value, __u64);
} datagrams SEC(".maps");

#define NAME_ALLOWANCE 4000 // records of a kind in 100 ms and CPU: senders choose how many there are

static __always_inline void fill_segment(struct record_network *n, const struct segment *s, bool inbound)
{
	__builtin_memcpy(n->local, s->local, 16);
	__builtin_memcpy(n->remote, s->remote, 16);
	n->local_port = s->local_port;
	n->remote_port = s->remote_port;
	n->protocol = s->protocol;
	n->inbound = inbound;
}

// One function for each size of record: the ring's reserve wants a constant.
#define COPY(SIZE)                                                                                                     \
	struct record_name_##SIZE {                                                                                    \
		struct record_name name;                                                                               \
		__u8 data[SIZE];                                                                                       \
	};                                                                                                             \
	static __noinline int copy_##SIZE(struct __sk_buff *skb, const struct segment *s, const struct owner *o, __u32 at,   \
					  __u32 kind)                                                                  \
	{                                                                                                              \
		if (!s)                                                                                                \
			return 0;                                                                                      \
		struct record_name_##SIZE *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);                              \
		if (!r) {                                                                                              \
			count_drop(kind);                                                                              \
			return 0;                                                                                      \
		}                                                                                                      \
		__builtin_memset(&r->name, 0, sizeof(r->name));                                                        \
		r->name.header.kind = kind;                                                                            \
		r->name.header.size = sizeof(*r);                                                                      \
		r->name.header.boot = bpf_ktime_get_boot_ns();                                                         \
		if (o) {                                                                                               \
			r->name.process.pid = o->process.pid;                                                          \
			r->name.process.start = o->process.start;                                                      \
		}                                                                                                      \
		fill_segment(&r->name.network, s, kind == RECORD_HELLO && o && o->hello_in);                            \
		r->name.network.cookie = bpf_get_socket_cookie(skb);                                                   \
		r->name.offset = s->offset;                                                                            \
		__u32 n = skb->len - at;                                                                               \
		r->name.whole = n;                                                                                     \
		if (n > SIZE)                                                                                          \
			n = SIZE;                                                                                      \
		r->name.length = n;                                                                                    \
		if (n < 1 || bpf_skb_load_bytes(skb, at, r->data, n)) {                                                \
			bpf_ringbuf_discard(r, WAKE_ASLEEP);                                                      \
			return 0;                                                                                      \
		}                                                                                                      \
		bpf_ringbuf_submit(r, WAKE_ASLEEP);                                                     \
		return 0;                                                                                              \
	}

COPY(128)
COPY(512)
COPY(2048)

static __always_inline void copy(struct __sk_buff *skb, const struct segment *s, const struct owner *o, __u32 at, __u32 kind)
{
	if (skb->len <= at || !affordable(kind, NAME_ALLOWANCE))
		return;
	__u32 n = skb->len - at;
	if (n <= NAME_SMALL)
		copy_128(skb, s, o, at, kind);
	else if (n <= NAME_MEDIUM)
		copy_512(skb, s, o, at, kind);
	else
		copy_2048(skb, s, o, at, kind);
}

static __always_inline void count_bytes(struct owner *o, const struct segment *s, __u64 n, bool in)
{
	o->local_port = s->local_port;
	if (in)
		__sync_fetch_and_add(&o->bytes_in, n);
	else
		__sync_fetch_and_add(&o->bytes_out, n);
}

// hello tells of a ClientHello, whichever side sends it, in as many segments as it comes. A socket has one told.
static __always_inline void hello(struct __sk_buff *skb, struct segment *s, struct bpf_sock *sk, bool in)
{
	struct owner *o = bpf_sk_storage_get(&owners, sk, 0, 0);
	__u32 n = skb->len - s->payload, offset = 0;
	if (o && (o->hello == HELLO_TOLD || o->muted))
		return;
	if (o && o->hello == HELLO_PART) {
		if (o->hello_in != in)
			return;
		offset = s->seq - o->hello_from;
		if (offset >= HELLO_SIZE) // long past it, or sent again from before it
			return;
	} else {
		__u8 b[9] = {};
		__u32 size = HELLO_SIZE;
		if (bpf_skb_load_bytes(skb, s->payload, b, 1) || b[0] != 22) // a handshake record
			return;
		if (n >= sizeof(b)) {
			if (bpf_skb_load_bytes(skb, s->payload, b, sizeof(b)) || b[1] != 3 || b[5] != 1) // and in it a ClientHello
				return;
			__u32 record = (__u32)b[3] << 8 | b[4], whole = (__u32)b[6] << 16 | (__u32)b[7] << 8 | b[8];
			if (whole + 4 <= record && whole + 9 < size) // else it goes on in another record
				size = whole + 9;
		}
		o = bpf_sk_storage_get(&owners, sk, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (!o)
			return;
		o->hello = HELLO_PART;
		o->hello_in = in;
		o->hello_from = s->seq;
		o->hello_size = size;
	}
	if (muted_port(s->remote_port) || muted_port(s->local_port)) {
		o->muted = 1;
	} else {
		s->offset = offset;
		copy(skb, s, o, s->payload, RECORD_HELLO);
	}
	if (offset + n >= o->hello_size || ++o->hello_segments >= HELLO_SEGMENTS)
		o->hello = HELLO_TOLD;
}

static __always_inline int look(struct __sk_buff *skb, bool in)
{
	if (bare(skb))
		return 1;
	struct segment s = {};
	if (!segment_of(skb, in, &s) || skb->len <= s.payload)
		return 1;
	struct bpf_sock *sk = skb->sk;
	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (s.remote_port != DNS_PORT && s.protocol == IPPROTO_TCP) {
		if (sk)
			hello(skb, &s, sk, in);
		return 1;
	}
	struct owner *o = sk ? bpf_sk_storage_get(&owners, sk, 0, 0) : 0;
	if (s.remote_port == DNS_PORT && !(o && o->muted) && !muted_port(DNS_PORT))
		copy(skb, &s, o, dns_at(&s), in ? RECORD_ANSWER : RECORD_QUERY);
	if (o && s.protocol == IPPROTO_UDP)
		count_bytes(o, &s, skb->len - s.payload, in);
	return 1;
}

SEC("cgroup_skb/egress")
int names_out(struct __sk_buff *skb) { return look(skb, false); }

SEC("cgroup_skb/ingress")
int names_in(struct __sk_buff *skb) { return look(skb, true); }

static __always_inline struct record_flow *flow(__u16 kind)
{
	struct record_flow *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count_drop(kind);
		return 0;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->header.kind = kind;
	r->header.size = sizeof(*r);
	r->header.boot = bpf_ktime_get_boot_ns();
	return r;
}

// note remembers who uses the socket now, and tells of the first datagram between a process and an address.
static __always_inline int note(struct bpf_sock_addr *ctx, const __u8 remote[16], bool inbound)
{
	struct bpf_sock *sk = ctx->sk;
	// Of TCP only the names asked for need to know by whom: its flows are told elsewhere.
	if (!sk || (ctx->protocol != IPPROTO_UDP && ctx->user_port != bpf_htons(DNS_PORT)))
		return 1;
	struct owner *o = bpf_sk_storage_get(&owners, sk, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!o)
		return 1;
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct task_struct *task = bpf_get_current_task_btf();
	__u16 port = bpf_ntohs((__u16)ctx->user_port);
	if (o->process.pid != tgid) { // also a socket handed to another process by fork or SCM_RIGHTS
		o->process.pid = tgid;
		o->process.start = task->group_leader->start_boottime;
		o->process.cgroup = 0;
		if (port == DNS_PORT)
			o->muted = muted();
	}
	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	struct told key = { .cookie = bpf_get_socket_cookie(ctx), .tgid = tgid, .port = port };
	__builtin_memcpy(key.remote, remote, 16);
	if (bpf_map_lookup_elem(&datagrams, &key))
		return 1;
	__u64 now = bpf_ktime_get_boot_ns();
	bpf_map_update_elem(&datagrams, &key, &now, BPF_ANY);
	if (muted_port(port) || muted_port(sk->src_port) || !in_scope())
		return 1;
	if (!o->process.cgroup)
		fill_process(&o->process, task);
	if (!o->began) {
		o->began = now;
		o->inbound = inbound;
	}
	__builtin_memcpy(o->remote, remote, 16);
	o->remote_port = key.port;
	if (!affordable(RECORD_DATAGRAMS, NAME_ALLOWANCE))
		return 1;
	struct record_flow *r = flow(RECORD_DATAGRAMS);
	if (!r)
		return 1;
	r->process = o->process;
	__builtin_memcpy(r->network.remote, remote, 16);
	r->network.remote_port = key.port;
	r->network.local_port = sk->src_port;
	r->network.protocol = IPPROTO_UDP;
	r->network.inbound = inbound;
	r->network.cookie = key.cookie;
	bpf_ringbuf_submit(r, WAKE_ASLEEP);
	return 1;
}

static __always_inline int note4(struct bpf_sock_addr *ctx, bool inbound)
{
	__u8 remote[16] __attribute__((aligned(8)));
	v4_mapped(remote, ctx->user_ip4);
	return note(ctx, remote, inbound);
}

static __always_inline int note6(struct bpf_sock_addr *ctx, bool inbound)
{
	__u8 remote[16] __attribute__((aligned(8)));
	__u32 *w = (__u32 *)remote;
	w[0] = ctx->user_ip6[0];
	w[1] = ctx->user_ip6[1];
	w[2] = ctx->user_ip6[2];
	w[3] = ctx->user_ip6[3];
	return note(ctx, remote, inbound);
}

SEC("cgroup/connect4")
int note_connect4(struct bpf_sock_addr *ctx) { return note4(ctx, false); }

SEC("cgroup/connect6")
int note_connect6(struct bpf_sock_addr *ctx) { return note6(ctx, false); }

SEC("cgroup/sendmsg4")
int note_sendmsg4(struct bpf_sock_addr *ctx) { return note4(ctx, false); }

SEC("cgroup/sendmsg6")
int note_sendmsg6(struct bpf_sock_addr *ctx) { return note6(ctx, false); }

SEC("cgroup/recvmsg4")
int note_recvmsg4(struct bpf_sock_addr *ctx) { return note4(ctx, true); }

SEC("cgroup/recvmsg6")
int note_recvmsg6(struct bpf_sock_addr *ctx) { return note6(ctx, true); }

static __always_inline int bound(struct bpf_sock *sk, bool v6)
{
	if (muted_port(sk->src_port) || !in_scope())
		return 1;
	struct record_flow *r = flow(RECORD_BIND);
	if (!r)
		return 1;
	fill_process(&r->process, bpf_get_current_task_btf());
	if (v6) {
		__u32 *w = (__u32 *)r->network.local;
		w[0] = sk->src_ip6[0];
		w[1] = sk->src_ip6[1];
		w[2] = sk->src_ip6[2];
		w[3] = sk->src_ip6[3];
	} else {
		v4_mapped(r->network.local, sk->src_ip4);
	}
	r->network.local_port = sk->src_port;
	r->network.protocol = sk->protocol;
	bpf_ringbuf_submit(r, WAKE_ASLEEP);
	return 1;
}

SEC("cgroup/post_bind4")
int note_bind4(struct bpf_sock *sk) { return bound(sk, false); }

SEC("cgroup/post_bind6")
int note_bind6(struct bpf_sock *sk) { return bound(sk, true); }

SEC("cgroup/sock_release")
int note_release(struct bpf_sock *sk)
{
	if (sk->protocol != IPPROTO_UDP)
		return 1;
	struct owner *o = bpf_sk_storage_get(&owners, sk, 0, 0);
	if (!o || !o->began || !affordable(RECORD_DATAGRAMS_END, NAME_ALLOWANCE))
		return 1;
	struct record_flow *r = flow(RECORD_DATAGRAMS_END);
	if (!r)
		return 1;
	r->process = o->process;
	__builtin_memcpy(r->network.remote, o->remote, 16);
	r->network.remote_port = o->remote_port;
	r->network.local_port = o->local_port;
	r->network.protocol = IPPROTO_UDP;
	r->network.inbound = o->inbound;
	r->network.bytes_in = o->bytes_in;
	r->network.bytes_out = o->bytes_out;
	r->network.duration = r->header.boot - o->began;
	bpf_ringbuf_submit(r, WAKE_ASLEEP);
	return 1;
}
