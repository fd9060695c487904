// What the sensors watch, done for real: each argument names one action. Built and run by rights_test.go.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/capability.h>

static pid_t sleeper(void)
{
	pid_t child = fork();
	if (child == 0) {
		pause();
		_exit(0);
	}
	return child;
}

static int end(pid_t child)
{
	kill(child, SIGKILL);
	return waitpid(child, NULL, 0) == child ? 0 : 1;
}

// One request handed to the kernel by io_uring, and its result.
static int uring(struct io_uring_sqe *want)
{
	struct io_uring_params p = {0};
	int ring = syscall(SYS_io_uring_setup, 4, &p);
	if (ring < 0)
		return 77;
	char *sq = mmap(0, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
	struct io_uring_sqe *sqes = mmap(0, p.sq_entries * sizeof(*sqes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
	if (sq == MAP_FAILED || sqes == MAP_FAILED)
		return 1;
	sqes[0] = *want;
	((unsigned *)(sq + p.sq_off.array))[0] = 0;
	__atomic_store_n((unsigned *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
	return syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) == 1 ? 0 : 1;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	const char *what = argv[1], *name = argc > 2 ? argv[2] : "";
	if (!strcmp(what, "setuid"))
		return setuid(12345);
	if (!strcmp(what, "setresuid-back"))
		return seteuid(12345) || seteuid(0);
	if (!strcmp(what, "setgid"))
		return setgid(12345);
	if (!strcmp(what, "setuid-denied"))
		return setuid(12345) || setuid(0) == 0;
	if (!strcmp(what, "capset")) {
		struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
		struct __user_cap_data_struct d[2];
		if (syscall(SYS_capget, &h, d))
			return 1;
		d[0].effective &= ~(1u << CAP_NET_RAW);
		return syscall(SYS_capset, &h, d);
	}
	if (!strcmp(what, "ptrace")) {
		pid_t child = sleeper();
		if (ptrace(PTRACE_ATTACH, child, 0, 0) || waitpid(child, NULL, 0) != child)
			return 1;
		static long word;
		for (int i = 0; i < 50; i++)
			if (ptrace(PTRACE_POKEDATA, child, &word, 7L))
				return 1;
		ptrace(PTRACE_DETACH, child, 0, 0);
		return end(child);
	}
	if (!strcmp(what, "process_vm_writev")) {
		static char here[8] = "changed", there[8];
		pid_t child = sleeper();
		struct iovec l = {here, 8}, r = {there, 8};
		return process_vm_writev(child, &l, 1, &r, 1, 0) != 8 || end(child);
	}
	if (!strcmp(what, "memfd_create"))
		return memfd_create("hidden payload", MFD_CLOEXEC) < 0;
	if (!strcmp(what, "mmap"))
		return mmap(0, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED;
	if (!strcmp(what, "mprotect")) {
		char *m = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		for (int i = 0; i < 100; i++)
			if (mprotect(m, 4096, i & 1 ? PROT_READ | PROT_WRITE : PROT_READ | PROT_EXEC))
				return 1;
		sleep(1);
		return mprotect(m, 4096, PROT_READ | PROT_EXEC);
	}
	if (!strcmp(what, "unshare"))
		return unshare(CLONE_NEWUTS);
	if (!strcmp(what, "unshare-user"))
		return unshare(CLONE_NEWUSER) || system("/bin/true inside") != 0;
	if (!strcmp(what, "setns")) {
		int fd = open("/proc/self/ns/uts", O_RDONLY);
		return setns(fd, CLONE_NEWUTS);
	}
	if (!strcmp(what, "keyctl"))
		return syscall(SYS_keyctl, 0, -3, 1) == -1 && errno == ENOSYS;
	if (!strcmp(what, "add_key"))
		return syscall(SYS_add_key, "user", "the secret", "x", 1, -2) == -1 && errno == ENOSYS;
	if (!strcmp(what, "bpf")) {
		struct bpf_insn code[] = {{.code = 0xb7}, {.code = 0x95}};
		union bpf_attr a = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insn_cnt = 2, .insns = (uintptr_t)code, .license = (uintptr_t) "GPL"};
		strcpy(a.prog_name, "listener");
		return syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof(a)) < 0;
	}
	if (!strcmp(what, "signal"))
		return kill(atoi(name), SIGCONT);
	if (!strcmp(what, "uring-open"))
		return uring(&(struct io_uring_sqe){.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)name, .open_flags = O_RDWR | O_CREAT, .len = 0600});
	if (!strcmp(what, "uring-unlink"))
		return uring(&(struct io_uring_sqe){.opcode = IORING_OP_UNLINKAT, .fd = AT_FDCWD, .addr = (uintptr_t)name});
	if (!strcmp(what, "uring-rename")) {
		static char to[4096];
		snprintf(to, sizeof(to), "%s.new", name);
		return uring(&(struct io_uring_sqe){.opcode = IORING_OP_RENAMEAT, .fd = AT_FDCWD, .addr = (uintptr_t)name, .len = (uint32_t)AT_FDCWD, .addr2 = (uintptr_t)to});
	}
	if (!strcmp(what, "uring-connect")) {
		static struct sockaddr_in to = {.sin_family = AF_INET};
		to.sin_port = htons(4321);
		to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return uring(&(struct io_uring_sqe){.opcode = IORING_OP_CONNECT, .fd = socket(AF_INET, SOCK_STREAM, 0), .addr = (uintptr_t)&to, .off = sizeof(to)});
	}
	return 2;
}
