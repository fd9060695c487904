//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// A source of records for measurement alone: emit writes as many exec records of 256 bytes into the ring as it is
// asked for, each by another process, and where it is asked to that process's exit. No node loads it.
#include "scope.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define BENCH_SIZE 256
#define BENCH_EXE 12
#define BENCH_CWD 7

struct bench_record {
	struct record_header header;
	struct record_process process;
	struct record_strings strings;
	char data[BENCH_SIZE - sizeof(struct record_header) - sizeof(struct record_process) - sizeof(struct record_strings)];
};

struct emit_order {
	__u32 count; // of processes
	__u32 first; // their first pid
	__u32 ends;
};

static long emit_one(__u32 i, struct emit_order *order)
{
	struct bench_record *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count_drop(RECORD_EXEC);
		return 0;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->header.kind = RECORD_EXEC;
	r->header.size = sizeof(*r);
	r->header.boot = bpf_ktime_get_boot_ns();
	r->process.pid = order->first + i;
	r->process.start = r->header.boot;
	r->process.parent_pid = 1;
	r->strings.exe_len = BENCH_EXE;
	r->strings.args_len = sizeof(r->data) - BENCH_EXE - BENCH_CWD;
	r->strings.cwd_len = BENCH_CWD;
	__builtin_memcpy(r->data, "/usr/bin/gcc", BENCH_EXE);
	static const char args[] = "gcc\0-O2\0-Wall\0-Iinclude\0-I/usr/include/x86_64-linux-gnu\0-c\0src/parts/of/the.c\0-o\0a.o"; // of a build, as most are
	_Static_assert(BENCH_EXE + sizeof(args) + BENCH_CWD == sizeof(r->data), "the strings fill the record");
	__builtin_memcpy(r->data + BENCH_EXE, args, sizeof(args));
	__builtin_memcpy(r->data + sizeof(r->data) - BENCH_CWD, "/var/me", BENCH_CWD);
	__u64 start = r->header.boot;
	bpf_ringbuf_submit(r, WAKE_ASLEEP);
	if (!order->ends)
		return 0;
	struct record_fork *end = bpf_ringbuf_reserve(&ring, sizeof(*end), 0);
	if (!end) {
		count_drop(RECORD_EXIT);
		return 0;
	}
	__builtin_memset(end, 0, sizeof(*end));
	end->header.kind = RECORD_EXIT;
	end->header.size = sizeof(*end);
	end->header.boot = start;
	end->process.pid = order->first + i;
	end->process.start = start;
	end->process.parent_pid = 1;
	bpf_ringbuf_submit(end, WAKE_ASLEEP);
	return 0;
}

SEC("syscall")
int emit(struct emit_order *ctx)
{
	struct emit_order order = *ctx;
	bpf_loop(order.count, emit_one, &order, 0);
	return 0;
}
