//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Actuator: refuses addresses, and contains a host to its swarm. The same maps are asked at four places: packets in
// (TCX, or XDP where TCX is not there), packets out (TCX), connect() and sendmsg() by cgroup, so that a new connection
// fails at once with EPERM and an established one goes dead in both directions. Every entry carries the CLOCK_BOOTTIME
// at which it ends and is void from then on, whether or not anybody lives to remove it.
#include "scope.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// Keeps the record's layout in this object's type information, where a test compares it with Go's.
const volatile struct record_flow record_flow_layout = {};

struct lpm4 {
	__u32 prefix;
	__u8 address[4];
};

struct lpm6 {
	__u32 prefix;
	__u8 address[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct lpm4);
	__type(value, struct until);
} deny4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct lpm6);
	__type(value, struct until);
} deny6 SEC(".maps");

// Containment: slot 0 says until when. While it stands, only what the two sets below admit passes, and loopback.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct until);
} contain SEC(".maps");

struct endpoint {
	__u8 address[16]; // IPv4 as ::ffff:a.b.c.d
	__u16 port;       // of that peer's swarm listener, host order
	__u16 pad;
};

// Where the swarm's other peers listen: we may call them.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct endpoint);
	__type(value, __u8);
} swarm_peers SEC(".maps");

struct listener {
	__u16 port; // host order
	__u8 protocol;
	__u8 pad;
};

// Our own swarm listeners: they may call us there.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32);
	__type(key, struct listener);
	__type(value, __u8);
} swarm_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} dropped_packets SEC(".maps"); // 0 in, 1 out

// denial is the entry that refuses an address now, or none.
static __always_inline struct until *denial4(__be32 address)
{
	struct lpm4 key = { .prefix = 32 };
	__builtin_memcpy(key.address, &address, 4);
	struct until *u = bpf_map_lookup_elem(&deny4, &key);
	return stands(u) ? u : 0;
}

static __always_inline struct until *denial(const __u8 address[16])
{
	const __u32 *w = (const __u32 *)address;
	if (w[0] == 0 && w[1] == 0 && w[2] == bpf_htonl(0xffff)) // IPv4, or IPv4-mapped: the same host by its other name
		return denial4(w[3]);
	struct lpm6 key = { .prefix = 128 };
	__builtin_memcpy(key.address, address, 16);
	struct until *u = bpf_map_lookup_elem(&deny6, &key);
	return stands(u) ? u : 0;
}

static __always_inline bool contained(void)
{
	__u32 zero = 0;
	return stands(bpf_map_lookup_elem(&contain, &zero));
}

// swarm_port: does the swarm of this host listen here?
static __always_inline bool swarm_port(__u8 protocol, __u16 port)
{
	struct listener l = { .port = port, .protocol = protocol };
	return bpf_map_lookup_elem(&swarm_ports, &l) != 0;
}

// What a decision needs of a packet. What is not a whole IP header, or has no ports to read, says so.
struct packet {
	__u8 remote[16]; // IPv4 as ::ffff:a.b.c.d
	__u16 remote_port, local_port;
	__u8 protocol;
	__u8 tcp_flags;
	bool ip;    // else ARP and the link's own
	bool ports; // TCP or UDP, and their ports were read
	bool vital;
	bool in;
};

// opening: the first packet of a TCP connection.
static __always_inline bool opening(const struct packet *p)
{
	return p->protocol == IPPROTO_TCP && (p->tcp_flags & 0x12) == 0x02;
}

// vital is the ICMPv6 and ICMP without which not even the swarm's own traffic lives: neighbour discovery, and being
// told from outside that a packet is too big. Echo and the rest carry data, and so do not pass a contained host.
static __always_inline bool vital(__u8 protocol, void *at, void *end, bool in)
{
	__u8 *icmp = at;
	if (at + 2 > end)
		return false;
	if (protocol == IPPROTO_ICMPV6)
		return (icmp[0] >= 133 && icmp[0] <= 136) || (in && icmp[0] == 2);
	return in && icmp[0] == 3 && icmp[1] == 4;
}

// dissect reads one packet from its IP header on, the only place that does; in says whose address is the remote one.
static __always_inline void dissect(void *next, void *end, __be16 proto, bool in, struct packet *p)
{
	bool v6 = false;
	p->in = in;
	if (proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = next;
		if ((void *)(ip + 1) > end)
			return;
		v4_mapped(p->remote, in ? ip->saddr : ip->daddr);
		p->protocol = ip->protocol;
		p->ip = true;
		__u32 length = (ip->ihl_version & 15) * 4;
		if (length < sizeof(*ip) || ip->frag_off & bpf_htons(0x1fff)) // a later fragment has no ports
			return;
		next = (void *)ip + length;
	} else if (proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = next;
		if ((void *)(ip + 1) > end)
			return;
		__builtin_memcpy(p->remote, in ? ip->saddr : ip->daddr, 16);
		p->protocol = ip->nexthdr;
		p->ip = true;
		v6 = true;
		next = ip + 1;
	} else {
		return;
	}
	__be16 source, dest;
	if (p->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = next;
		if ((void *)(tcp + 1) > end)
			return;
		source = tcp->source;
		dest = tcp->dest;
		p->tcp_flags = tcp->flags;
	} else if (p->protocol == IPPROTO_UDP) {
		struct udphdr *udp = next;
		if ((void *)(udp + 1) > end)
			return;
		source = udp->source;
		dest = udp->dest;
	} else {
		p->vital = p->protocol == (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP) && vital(p->protocol, next, end, in);
		return;
	}
	p->remote_port = bpf_ntohs(in ? source : dest);
	p->local_port = bpf_ntohs(in ? dest : source);
	p->ports = true;
}

// swarm_traffic: is a packet of this contained host part of the swarm's own talk? Other peers may call our listeners, and
// we theirs: a connection is opened to a listener's port, whatever port it comes from.
static __always_inline bool swarm_traffic(const struct packet *p)
{
	struct endpoint e = { .port = p->remote_port };
	__builtin_memcpy(e.address, p->remote, 16);
	bool theirs = bpf_map_lookup_elem(&swarm_peers, &e) != 0;
	if (theirs && !(p->in && opening(p)))
		return true;
	if (!p->in && opening(p))
		return false;
	if (!swarm_port(p->protocol, p->local_port))
		return false;
	e.port = 0; // port 0 stands for the peer's host: it calls from a port of its choosing
	return bpf_map_lookup_elem(&swarm_peers, &e) != 0;
}

// member_traffic: is a packet between this host and a contained member part of the swarm's own talk? Only the port at our
// side counts, since that at the other is the contained host's to choose.
static __always_inline bool member_traffic(const struct packet *p)
{
	return p->vital || (p->ports && swarm_port(p->protocol, p->local_port));
}

// forbidden decides on one packet.
static __always_inline bool forbidden(const struct packet *p)
{
	if (!p->ip)
		return false;
	struct until *u = denial(p->remote);
	if (u && !((u->flags & UNTIL_SWARM_PASSES) && member_traffic(p))) {
		__sync_fetch_and_add(&u->hits, 1);
		return true;
	}
	if (!contained())
		return false;
	if (p->ports)
		return !swarm_traffic(p);
	return !p->vital; // other protocols, later fragments, TCP behind extension headers
}

static __always_inline bool refused_ip(void *next, void *end, __be16 proto, bool in, struct packet *p)
{
	dissect(next, end, proto, in, p);
	return forbidden(p);
}

// refused decides on one Ethernet frame, below up to two VLAN tags. What is shorter than its headers is no packet: the
// network stack drops it by itself.
static __always_inline bool refused(void *data, void *end, bool in, struct packet *p)
{
	struct ethhdr *eth = data;
	void *next;

	if ((void *)(eth + 1) > end)
		return false;
	__be16 proto = eth->h_proto;
	next = eth + 1;
#pragma unroll
	for (int tag = 0; tag < 2; tag++) {
		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if (next + 4 > end)
			return false;
		proto = *(__be16 *)(next + 2);
		next += 4;
	}
	return refused_ip(next, end, proto, in, p);
}

static __always_inline void count_packet(__u32 direction)
{
	__u64 *n = bpf_map_lookup_elem(&dropped_packets, &direction);
	if (n)
		(*n)++;
}

// Inbound SYNs, counted by source and port, so that a scan of a million packets costs a bounded number of records:
// the first of each (source, port) in a window of a second makes a record, the rest only count.
struct probe_key {
	__u8 source[16];
	__u16 port;
	__u16 pad;
};

struct probe_seen {
	__u64 at;
	__u32 repeats;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct probe_key);
	__type(value, struct probe_seen);
} probes SEC(".maps");

#define PROBE_WINDOW 1000000000ULL
#define PROBE_ALLOWANCE 2000 // records in 100 ms and CPU: sources may be forged, the ring is not to be filled by them

static __always_inline void note_probe(struct packet *p)
{
	if (p->protocol != IPPROTO_TCP || (p->tcp_flags & 0x12) != 0x02) // SYN without ACK
		return;
	__u64 now = bpf_ktime_get_boot_ns();
	struct probe_key key = { .port = p->local_port };
	__builtin_memcpy(key.source, p->remote, 16);
	__u16 repeats = 0;
	struct probe_seen *seen = bpf_map_lookup_elem(&probes, &key);
	if (seen) {
		if (now - seen->at < PROBE_WINDOW) {
			__sync_fetch_and_add(&seen->repeats, 1);
			return;
		}
		repeats = seen->repeats > 65535 ? 65535 : seen->repeats;
		seen->at = now;
		seen->repeats = 0;
	} else {
		struct probe_seen first = { .at = now };
		bpf_map_update_elem(&probes, &key, &first, BPF_ANY);
	}
	if (!affordable(RECORD_PROBE, PROBE_ALLOWANCE))
		return;
	struct record_flow *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count_drop(RECORD_PROBE);
		return;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->header.kind = RECORD_PROBE;
	r->header.size = sizeof(*r);
	r->header.boot = now;
	__builtin_memcpy(r->network.remote, p->remote, 16);
	r->network.remote_port = p->remote_port;
	r->network.local_port = p->local_port;
	r->network.protocol = p->protocol;
	r->network.inbound = 1;
	r->network.repeats = repeats;
	bpf_ringbuf_submit(r, WAKE_ASLEEP);
}

#define HEADERS 142 // Ethernet, two tags, and IPv4 and TCP with all their options

// readable brings a packet's headers to where a program can read them: a driver may leave them in a fragment, and a
// packet that is not read would pass. One that cannot be brought there is not let through.
static __always_inline bool readable(struct __sk_buff *skb)
{
	__u32 want = skb->len;
	if (want > HEADERS)
		want = HEADERS;
	if (skb->data_end - skb->data >= want)
		return true;
	return bpf_skb_pull_data(skb, want) == 0;
}

static __always_inline int decide(struct __sk_buff *skb, bool in, bool ethernet)
{
	struct packet p = {};
	bool no = !readable(skb);
	if (!no) {
		void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
		no = ethernet ? refused(data, end, in, &p) : refused_ip(data, end, (__be16)skb->protocol, in, &p);
	}
	if (no) {
		count_packet(!in);
		return TCX_DROP;
	}
	if (in)
		note_probe(&p);
	return TCX_NEXT;
}

SEC("tcx/ingress")
int packet_in(struct __sk_buff *skb) { return decide(skb, true, true); }

SEC("tcx/egress")
int packet_out(struct __sk_buff *skb) { return decide(skb, false, true); }

// On an interface without Ethernet (tun, WireGuard, PPP) a packet begins with its IP header.
SEC("tcx/ingress")
int packet_in_l3(struct __sk_buff *skb) { return decide(skb, true, false); }

SEC("tcx/egress")
int packet_out_l3(struct __sk_buff *skb) { return decide(skb, false, false); }

#define LOOPBACK 1 // its index in every network namespace

// Where the kernel has no TCX, what the cgroup's own sockets send is refused here.
SEC("cgroup_skb/egress")
int packet_out_cgroup(struct __sk_buff *skb)
{
	struct packet p = {};
	if (skb->ifindex != LOOPBACK &&
	    refused_ip((void *)(long)skb->data, (void *)(long)skb->data_end, (__be16)skb->protocol, false, &p)) {
		count_packet(1);
		return 0;
	}
	return 1;
}

SEC("xdp")
int packet_in_xdp(struct xdp_md *ctx)
{
	struct packet p = {};
	if (refused((void *)(long)ctx->data, (void *)(long)ctx->data_end, true, &p)) {
		count_packet(0);
		return XDP_DROP;
	}
	note_probe(&p);
	return XDP_PASS;
}

// Refusals already told, by process and address: one that tries in a loop makes a record a second.
struct refusal_key {
	__u8 remote[16];
	__u32 tgid;
	__u16 port;
	__u16 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct refusal_key);
	__type(value, struct probe_seen);
} refusals SEC(".maps");

#define REFUSAL_ALLOWANCE 500 // records in 100 ms and CPU

// A local process was told no: the record says which, and wakes the reader at once.
static __always_inline void note_refusal(const __u8 remote[16], __u16 port, __u8 protocol)
{
	__u64 now = bpf_ktime_get_boot_ns();
	__u16 repeats = 0;
	struct refusal_key key = { .tgid = bpf_get_current_pid_tgid() >> 32, .port = port, .protocol = protocol };
	__builtin_memcpy(key.remote, remote, 16);
	struct probe_seen *seen = bpf_map_lookup_elem(&refusals, &key);
	if (seen) {
		if (now - seen->at < PROBE_WINDOW) {
			__sync_fetch_and_add(&seen->repeats, 1);
			return;
		}
		repeats = seen->repeats > 65535 ? 65535 : seen->repeats;
		seen->at = now;
		seen->repeats = 0;
	} else {
		struct probe_seen first = { .at = now };
		bpf_map_update_elem(&refusals, &key, &first, BPF_ANY);
	}
	if (!affordable(RECORD_REFUSE, REFUSAL_ALLOWANCE))
		return;
	struct record_flow *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count_drop(RECORD_REFUSE);
		return;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->header.kind = RECORD_REFUSE;
	r->header.size = sizeof(*r);
	r->header.boot = now;
	fill_process(&r->process, bpf_get_current_task_btf());
	__builtin_memcpy(r->network.remote, remote, 16);
	r->network.remote_port = port;
	r->network.protocol = protocol;
	r->network.repeats = repeats;
	bpf_ringbuf_submit(r, urgent());
}

static __always_inline int may_reach(struct bpf_sock_addr *ctx, const __u8 remote[16], __u16 from)
{
	struct packet p = {
		.remote_port = bpf_ntohs((__u16)ctx->user_port), .local_port = from, .protocol = (__u8)ctx->protocol, .ip = true, .ports = true,
	};
	__builtin_memcpy(p.remote, remote, 16);
	if (p.protocol == IPPROTO_TCP)
		p.tcp_flags = 0x02;
	struct until *u = denial(remote);
	if (u && !((u->flags & UNTIL_SWARM_PASSES) && member_traffic(&p))) {
		__sync_fetch_and_add(&u->hits, 1);
	} else {
		if (!contained())
			return 1;
		if (remote[0] == 0 && remote[12] == 127) // ::ffff:127.0.0.0/8; ::1 is below
			return 1;
		const __u32 *w = (const __u32 *)remote;
		if (w[0] == 0 && w[1] == 0 && w[2] == 0 && w[3] == bpf_htonl(1))
			return 1;
		if (swarm_traffic(&p))
			return 1;
	}
	note_refusal(remote, p.remote_port, p.protocol);
	return 0;
}

// The port a socket was bound to before it connects or sends; 0 for none. A TCP listener's replies do not come through
// here; those of a QUIC one do.
static __always_inline __u16 sent_from(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	return sk ? (__u16)sk->src_port : 0;
}

static __always_inline int reach4(struct bpf_sock_addr *ctx)
{
	__u8 remote[16] __attribute__((aligned(8)));
	v4_mapped(remote, ctx->user_ip4);
	return may_reach(ctx, remote, sent_from(ctx));
}

static __always_inline int reach6(struct bpf_sock_addr *ctx)
{
	__u8 remote[16] __attribute__((aligned(8)));
	__u32 *w = (__u32 *)remote;
	w[0] = ctx->user_ip6[0];
	w[1] = ctx->user_ip6[1];
	w[2] = ctx->user_ip6[2];
	w[3] = ctx->user_ip6[3];
	return may_reach(ctx, remote, sent_from(ctx));
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx) { return reach4(ctx); }

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx) { return reach6(ctx); }

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx) { return reach4(ctx); }

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx) { return reach6(ctx); }
