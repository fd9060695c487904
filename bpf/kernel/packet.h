// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// One packet of a socket, read from its IP header on: where its payload lies and between whom it goes. It is read by copy,
// since the cgroup's hooks may not bring a packet's later parts to where they could be read directly.
#ifndef OMEGA_PACKET_H
#define OMEGA_PACKET_H

#include "scope.h"

#define DNS_PORT 53

struct segment {
	__u8 remote[16]; // IPv4 as ::ffff:a.b.c.d
	__u8 local[16];
	__u16 remote_port;
	__u16 local_port;
	__u32 payload; // offset from the IP header
	__u8 protocol;
	__u8 tcp_flags;
	__u32 seq;
	__u32 offset; // of this payload in what is told of it in several records
};

// segment_of reads a TCP or UDP packet; false for any other, for a later fragment, and behind IPv6 extension headers.
static __always_inline bool segment_of(struct __sk_buff *skb, bool in, struct segment *s)
{
	__u32 at;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;
		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.frag_off & bpf_htons(0x1fff))
			return false;
		v4_mapped(s->remote, in ? ip.saddr : ip.daddr);
		v4_mapped(s->local, in ? ip.daddr : ip.saddr);
		s->protocol = ip.protocol;
		at = (ip.ihl_version & 15) * 4;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;
		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
			return false;
		__builtin_memcpy(s->remote, in ? ip.saddr : ip.daddr, 16);
		__builtin_memcpy(s->local, in ? ip.daddr : ip.saddr, 16);
		s->protocol = ip.nexthdr;
		at = sizeof(ip);
	} else {
		return false;
	}
	__be16 source, dest;
	if (s->protocol == IPPROTO_TCP) {
		struct tcphdr tcp;
		if (bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)))
			return false;
		source = tcp.source;
		dest = tcp.dest;
		s->tcp_flags = tcp.flags;
		s->seq = bpf_ntohl(tcp.seq);
		s->payload = at + (tcp.doff_res >> 4) * 4;
	} else if (s->protocol == IPPROTO_UDP) {
		struct udphdr udp;
		if (bpf_skb_load_bytes(skb, at, &udp, sizeof(udp)))
			return false;
		source = udp.source;
		dest = udp.dest;
		s->payload = at + sizeof(udp);
	} else {
		return false;
	}
	s->remote_port = bpf_ntohs(in ? source : dest);
	s->local_port = bpf_ntohs(in ? dest : source);
	return true;
}

// bare says of a TCP segment that carries nothing, as most do, that it does: by looking at it where it lies. Of one whose
// headers do not lie together it does not know.
static __always_inline bool bare(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 at;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data;
		if ((void *)(ip + 1) > end || ip->protocol != IPPROTO_TCP || ip->frag_off & bpf_htons(0x1fff))
			return false;
		at = (ip->ihl_version & 15) * 4;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data;
		if ((void *)(ip + 1) > end || ip->nexthdr != IPPROTO_TCP)
			return false;
		at = sizeof(*ip);
	} else {
		return false;
	}
	struct tcphdr *tcp = data + at;
	return (void *)(tcp + 1) <= end && skb->len <= at + (tcp->doff_res >> 4) * 4;
}

// dns_at is where the DNS message of a packet begins: over TCP two bytes of length come first (RFC 1035, 4.2.2).
static __always_inline __u32 dns_at(const struct segment *s)
{
	return s->protocol == IPPROTO_TCP ? s->payload + 2 : s->payload;
}

#endif
