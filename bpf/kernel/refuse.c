//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Actuator: refuses connections by port and by name. A question for a denied name does not leave the host, the answers
// of all others say which name an address was given for, and an address given for a denied name, now or before it was
// denied, is refused where a process connects and where its packets leave. All of it is in the kernel: no answer can be
// used before somebody else has heard of it, and it stands while nobody lives.
#include "packet.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define NAME_MAX 256

// A name backwards, with a dot at its front, so that one prefix stands for a name and all below it: ".evil.example" is
// "elpmaxe.live.", which begins "elpmaxe.live.www." as well.
struct backwards {
	__u32 prefix; // bits
	__u8 name[NAME_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct backwards);
	__type(value, struct until);
} deny_domain SEC(".maps");

struct port_key {
	__u16 port; // host order
	__u8 protocol;
	__u8 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct port_key);
	__type(value, struct until);
} deny_port SEC(".maps");

// How many of each stand, so that a host without any pays nothing: 0 domains, 1 ports.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} name_rules SEC(".maps");

// What is never refused by its name or port: the swarm's members, gateways, resolvers, the allow list.
struct spared_key {
	__u32 prefix;
	__u8 address[16]; // IPv4 as ::ffff:a.b.c.d
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct spared_key);
	__type(value, __u8);
} spared SEC(".maps");

// What an address was given for: the name asked for and each alias on the way to it. An address has a place for each of
// NAMED_SLOTS names, by a hash of the name, so that another answer for it does not wipe out what an earlier one said.
struct given {
	struct backwards name;
	__u32 pad;
	__u64 until; // CLOCK_BOOTTIME, ns
};

#define NAMED_SLOTS 8

struct named_key {
	__u8 address[16];
	__u32 slot;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct named_key);
	__type(value, struct given);
} named SEC(".maps");

// The addresses among them that were given for a name denied then, or since: user space adds to it when it denies one.
// Nothing pushes an entry out: where there is no room for another, the answer does not arrive.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, 16);
	__type(value, struct given);
} suspect SEC(".maps");

#define CHAIN 4 // names of one answer that are kept: the question's, and three aliases

// The names of the answer being read. An answer arrives in a softirq, which no other on its CPU interrupts.
struct chain {
	struct given names[CHAIN];
	__u32 count;
	__u32 denied; // 1 + the place of the name that is denied
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct chain);
} chains SEC(".maps");

static __always_inline bool any(__u32 what)
{
	__u32 *n = bpf_map_lookup_elem(&name_rules, &what);
	return n && *n;
}

static __always_inline bool is_spared(const __u8 address[16])
{
	struct spared_key key = { .prefix = 128 };
	__builtin_memcpy(key.address, address, 16);
	const __u32 *w = (const __u32 *)address;
	if (w[0] == 0 && w[1] == 0 && w[2] == bpf_htonl(0xffff) && address[12] == 127)
		return true;
	if (w[0] == 0 && w[1] == 0 && w[2] == 0 && w[3] == bpf_htonl(1))
		return true;
	return bpf_map_lookup_elem(&spared, &key) != 0;
}

static __always_inline struct until *denied_address(const __u8 address[16])
{
	struct given *g = bpf_map_lookup_elem(&suspect, address);
	if (!g || g->until < bpf_ktime_get_boot_ns())
		return 0;
	struct until *u = bpf_map_lookup_elem(&deny_domain, &g->name);
	return stands(u) ? u : 0;
}

static __always_inline struct until *denied_port(__u8 protocol, __u16 port)
{
	struct port_key key = { .port = port, .protocol = protocol };
	struct until *u = bpf_map_lookup_elem(&deny_port, &key);
	return stands(u) ? u : 0;
}

#define REFUSAL_ALLOWANCE 100 // records in 100 ms and CPU

static __always_inline void note_refusal(const __u8 remote[16], __u16 port, __u8 protocol)
{
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
	r->header.boot = bpf_ktime_get_boot_ns();
	fill_process(&r->process, bpf_get_current_task_btf());
	__builtin_memcpy(r->network.remote, remote, 16);
	r->network.remote_port = port;
	r->network.protocol = protocol;
	bpf_ringbuf_submit(r, urgent());
}

static __always_inline int may_reach(struct bpf_sock_addr *ctx, const __u8 remote[16])
{
	bool domains = any(0), ports = any(1);
	if (!domains && !ports)
		return 1;
	__u16 port = bpf_ntohs((__u16)ctx->user_port);
	__u8 protocol = ctx->protocol;
	struct until *u = ports ? denied_port(protocol, port) : 0;
	if (!u && domains)
		u = denied_address(remote);
	if (!u || is_spared(remote))
		return 1;
	__sync_fetch_and_add(&u->hits, 1);
	note_refusal(remote, port, protocol);
	return 0;
}

static __always_inline int reach4(struct bpf_sock_addr *ctx)
{
	__u8 remote[16] __attribute__((aligned(8)));
	v4_mapped(remote, ctx->user_ip4);
	return may_reach(ctx, remote);
}

static __always_inline int reach6(struct bpf_sock_addr *ctx)
{
	__u8 remote[16] __attribute__((aligned(8)));
	__u32 *w = (__u32 *)remote;
	w[0] = ctx->user_ip6[0];
	w[1] = ctx->user_ip6[1];
	w[2] = ctx->user_ip6[2];
	w[3] = ctx->user_ip6[3];
	return may_reach(ctx, remote);
}

SEC("cgroup/connect4")
int refuse_connect4(struct bpf_sock_addr *ctx) { return reach4(ctx); }

SEC("cgroup/connect6")
int refuse_connect6(struct bpf_sock_addr *ctx) { return reach6(ctx); }

SEC("cgroup/sendmsg4")
int refuse_sendmsg4(struct bpf_sock_addr *ctx) { return reach4(ctx); }

SEC("cgroup/sendmsg6")
int refuse_sendmsg6(struct bpf_sock_addr *ctx) { return reach6(ctx); }

// Zero, which the verifier does not know: a sum with it has no bounds to tell one round of a loop from the next by.
__u32 nought;

// A walk over one DNS message (RFC 1035, 4.1). What does not fit its form ends the walk.
struct walk {
	struct __sk_buff *skb;
	__u32 message; // where it begins: compression pointers count from there
	__u32 at;
	__u32 past;     // the end of a name where it stands, whatever its pointers lead to
	__u32 length;   // of its text, the dot at its front included
	__u32 written;  // bytes of it
	__u32 in_label; // bytes left of the label being written
	__u32 answer;   // where the next answer begins
	__u32 left;     // answers there are
	__u32 full; // no room for an address of a denied name
	bool good;
	struct backwards name;
};

static __always_inline bool pointed(struct walk *w, __u8 high)
{
	__u8 low;
	if (bpf_skb_load_bytes(w->skb, w->at + 1, &low, 1))
		return false;
	w->at = w->message + ((__u32)(high & 63) << 8 | low) + nought;
	return true;
}

// next_label measures a name. Pointers that lead round end with the loop.
static long next_label(__u32 i, struct walk *w)
{
	__u8 n;
	if (bpf_skb_load_bytes(w->skb, w->at, &n, 1))
		return 1;
	if (n >= 192) {
		if (!w->past)
			w->past = w->at + 2 + nought;
		return !pointed(w, n);
	}
	if (n > 63)
		return 1;
	w->at += 1 + nought;
	if (!n) {
		if (!w->past)
			w->past = w->at + nought;
		w->good = true;
		return 1;
	}
	w->at += n + nought;
	w->length += n + 1 + nought;
	return w->length > 254;
}

// turn puts one byte of the name where it stands backwards; a label's length stands for its dot.
static long turn(__u32 i, struct walk *w)
{
	__u8 c;
	if (w->written >= w->length || bpf_skb_load_bytes(w->skb, w->at, &c, 1))
		return 1;
	if (!w->in_label && c >= 192)
		return !pointed(w, c);
	w->at += 1 + nought;
	if (!w->in_label) {
		w->in_label = c + nought;
		c = '.';
	} else {
		w->in_label += nought - 1;
		if (c >= 'A' && c <= 'Z')
			c += 'a' - 'A';
	}
	w->name.name[(w->length - 1 - w->written) & (NAME_MAX - 1)] = c;
	w->written += 1 + nought;
	return 0;
}

#define MOST_LABELS 144 // 127, and some pointers
#define MOST_BYTES 272

// read_name reads the name that begins at at into w->name; false where there is none of a good form. w->past is then
// behind it.
static __always_inline bool read_name(struct walk *w, __u32 at)
{
	w->at = at;
	w->past = 0;
	w->length = 0;
	w->good = false;
	bpf_loop(MOST_LABELS, next_label, w, 0);
	if (!w->good || !w->length)
		return false;
	w->at = at;
	w->written = 0;
	w->in_label = 0;
	__builtin_memset(&w->name, 0, sizeof(w->name));
	bpf_loop(MOST_BYTES, turn, w, 0);
	if (w->written != w->length)
		return false;
	w->name.prefix = w->length * 8;
	return true;
}

// keep adds the name just read to those of the answer. Of too many, one that is denied takes the last one's place.
static __always_inline void keep(struct walk *w)
{
	__u32 zero = 0;
	struct chain *c = bpf_map_lookup_elem(&chains, &zero);
	if (!c)
		return;
	bool denied = stands(bpf_map_lookup_elem(&deny_domain, &w->name));
	__u32 n = c->count;
	if (n >= CHAIN) {
		if (!denied)
			return;
		n = CHAIN - 1;
	} else {
		c->count = n + 1;
	}
	c->names[n & (CHAIN - 1)].name = w->name;
	if (denied)
		c->denied = n + 1;
}

struct resource {
	__be16 type, class, ttl[2], length;
} __attribute__((packed));

// next_resource reads the head of one answer, and moves on to the next. w->at is then where its data begin.
static __always_inline bool next_resource(struct walk *w, struct resource *r)
{
	__u8 n = 0;
	bool good = false;
	w->at = w->answer + nought;
#pragma unroll
	for (int label = 0; label < 8; label++) { // a pointer, as all servers send, or a few labels
		if (good)
			continue;
		if (bpf_skb_load_bytes(w->skb, w->at, &n, 1))
			return false;
		if (n >= 192) {
			w->at += 2 + nought;
			good = true;
		} else {
			w->at += n + 1 + nought;
			good = n == 0;
		}
	}
	if (!good || bpf_skb_load_bytes(w->skb, w->at, r, sizeof(*r)))
		return false;
	w->at += sizeof(*r) + nought;
	w->answer = w->at + bpf_ntohs(r->length) + nought;
	return true;
}

#define DNS_A 1
#define DNS_CNAME 5
#define DNS_AAAA 28

static long next_alias(__u32 i, struct walk *w)
{
	struct resource r;
	if (i >= w->left || !next_resource(w, &r))
		return 1;
	if (r.type == bpf_htons(DNS_CNAME) && read_name(w, w->at))
		keep(w);
	return 0;
}

#define LEAST_LIFE 600 // s: programs keep an address longer than its TTL says
#define MOST_LIFE 86400

static __always_inline __u32 slot_of(const struct backwards *b)
{
	const __u32 *words = (const __u32 *)b;
	__u32 h = 2166136261;
	for (int i = 0; i < sizeof(*b) / 4; i++)
		h = (h ^ words[i]) * 16777619;
	return (h ^ h >> 16) & (NAMED_SLOTS - 1);
}

// next_address notes what one address was given for.
static long next_address(__u32 i, struct walk *w)
{
	struct resource r;
	__u32 zero = 0;
	struct named_key key = {};
	if (i >= w->left || !next_resource(w, &r))
		return 1;
	if (r.type == bpf_htons(DNS_A) && r.length == bpf_htons(4)) {
		__be32 v4;
		if (bpf_skb_load_bytes(w->skb, w->at, &v4, 4))
			return 1;
		v4_mapped(key.address, v4);
	} else if (r.type == bpf_htons(DNS_AAAA) && r.length == bpf_htons(16)) {
		if (bpf_skb_load_bytes(w->skb, w->at, key.address, 16))
			return 1;
	} else {
		return 0;
	}
	struct chain *c = bpf_map_lookup_elem(&chains, &zero);
	if (!c)
		return 1;
	__u64 ttl = (__u64)bpf_ntohs(r.ttl[0]) << 16 | bpf_ntohs(r.ttl[1]);
	if (ttl < LEAST_LIFE)
		ttl = LEAST_LIFE;
	if (ttl > MOST_LIFE)
		ttl = MOST_LIFE;
	__u64 until = bpf_ktime_get_boot_ns() + ttl * 1000000000ULL;
	for (__u32 n = 0; n < CHAIN; n++) {
		if (n >= c->count)
			break;
		struct given *g = &c->names[n];
		g->until = until;
		key.slot = slot_of(&g->name);
		bpf_map_update_elem(&named, &key, g, BPF_ANY);
	}
	if (!c->denied || denied_address(key.address))
		return 0;
	if (bpf_map_update_elem(&suspect, key.address, &c->names[(c->denied - 1) & (CHAIN - 1)], BPF_ANY)) {
		count_drop(RECORD_SUSPECT);
		w->full = 1;
	}
	return 0;
}

struct dns_header {
	__be16 id, flags, questions, answers, authority, additional;
};

SEC("cgroup_skb/egress")
int refuse_out(struct __sk_buff *skb)
{
	bool domains = any(0), ports = any(1);
	if (!domains && !ports)
		return 1;
	struct segment s = {};
	if (!segment_of(skb, false, &s))
		return 1;
	struct until *u = 0;
	// A listener's reply goes to a port of the caller's choosing: over TCP only what opens a connection counts.
	if (ports && (s.protocol == IPPROTO_UDP || (s.tcp_flags & 0x12) == 0x02))
		u = denied_port(s.protocol, s.remote_port);
	if (!u && domains)
		u = denied_address(s.remote);
	if (u && is_spared(s.remote))
		u = 0;
	if (!u && domains && s.remote_port == DNS_PORT) {
		struct walk w = { .skb = skb, .message = dns_at(&s) };
		if (skb->len > w.message + 12 && read_name(&w, w.message + 12)) {
			u = bpf_map_lookup_elem(&deny_domain, &w.name);
			if (!stands(u))
				u = 0;
		}
	}
	if (!u)
		return 1;
	__sync_fetch_and_add(&u->hits, 1);
	return 0;
}

#define MOST_ANSWERS 32

SEC("cgroup_skb/ingress")
int learn_in(struct __sk_buff *skb)
{
	if (bare(skb))
		return 1;
	struct segment s = {};
	if (!segment_of(skb, true, &s) || s.remote_port != DNS_PORT)
		return 1;
	__u32 message = dns_at(&s);
	struct dns_header h;
	if (skb->len <= message + 12 || bpf_skb_load_bytes(skb, message, &h, sizeof(h)))
		return 1;
	if (!(h.flags & bpf_htons(0x8000)) || h.questions != bpf_htons(1) || !h.answers)
		return 1;
	__u32 zero = 0;
	struct chain *c = bpf_map_lookup_elem(&chains, &zero);
	struct walk w = { .skb = skb, .message = message, .left = bpf_ntohs(h.answers) };
	if (!c || !read_name(&w, message + 12))
		return 1;
	__u32 answers = w.past + 4; // type and class
	c->count = c->denied = 0;
	keep(&w);
	w.answer = answers;
	bpf_loop(MOST_ANSWERS, next_alias, &w, 0);
	w.answer = answers;
	bpf_loop(MOST_ANSWERS, next_address, &w, 0);
	return w.full ? 0 : 1;
}
