// act does one thing that a sensor watches for, by the plain system call, and ends with 42.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int failed(const char *what)
{
	perror(what);
	return 1;
}

// child is one that waits until it is killed.
static pid_t child(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return pid;
}

static int end(pid_t pid)
{
	kill(pid, SIGKILL);
	return waitpid(pid, 0, 0) == pid;
}

static int inet(const char *address, int port, int (*f)(int, const struct sockaddr *, socklen_t))
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	inet_pton(AF_INET, address, &to.sin_addr);
	int s = socket(AF_INET, SOCK_STREAM, 0);
	return f(s, (struct sockaddr *)&to, sizeof to) ? -1 : s;
}

// ring hands the kernel one request, and waits until it is done.
static int ring(struct io_uring_sqe *request)
{
	struct io_uring_params p = {0};
	int fd = syscall(SYS_io_uring_setup, 1, &p);
	if (fd < 0)
		return -1;
	char *sq = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQ_RING);
	struct io_uring_sqe *entries = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES);
	if (sq == MAP_FAILED || entries == MAP_FAILED)
		return -1;
	entries[0] = *request;
	*(unsigned *)(sq + p.sq_off.array) = 0;
	__atomic_add_fetch((unsigned *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
	return syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) == 1 ? 0 : -1;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "", *file = argc > 2 ? argv[2] : "";
	int ok = 0;
	if (!strcmp(what, "exit")) {
		ok = 1;
	} else if (!strcmp(what, "fork")) {
		ok = end(child());
	} else if (!strcmp(what, "exec")) {
		execl("/bin/true", "true", "self", (char *)0);
	} else if (!strcmp(what, "connect")) {
		int s = inet(file, atoi(argv[3]), connect);
		ok = s >= 0 && close(s) == 0;
		usleep(200000); // the connection ends before the process does
	} else if (!strcmp(what, "listen")) {
		ok = listen(inet("0.0.0.0", 4711, bind), 1) == 0;
	} else if (!strcmp(what, "bind")) {
		ok = inet("0.0.0.0", 4712, bind) >= 0;
	} else if (!strcmp(what, "raw_socket")) {
		ok = socket(AF_PACKET, SOCK_RAW, htons(3)) >= 0;
	} else if (!strcmp(what, "dns")) {
		static const char question[] = "\0\7\1\0\0\1\0\0\0\0\0\0\3act\7example\0\0\1\0\1";
		int s = socket(AF_INET, SOCK_DGRAM, 0);
		struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(53)};
		inet_pton(AF_INET, file, &to.sin_addr);
		ok = sendto(s, question, sizeof question - 1, 0, (struct sockaddr *)&to, sizeof to) == sizeof question - 1;
	} else if (!strcmp(what, "tls")) {
		// A ClientHello (RFC 8446, 4.1.2) that calls act.example, and no more.
		static const char hello[] = "\x16\3\1\0\x43\1\0\0\x3f\3\3"
			"0123456789abcdef0123456789abcdef"
			"\0\0\2\x13\1\1\0\0\x14\0\0\0\x10\0\x0e\0\0\x0b" "act.example";
		int s = inet(file, atoi(argv[3]), connect);
		ok = s >= 0 && write(s, hello, sizeof hello - 1) == sizeof hello - 1 && close(s) == 0;
		usleep(200000);
	} else if (!strcmp(what, "setuid")) {
		ok = setresuid(65534, 65534, 65534) == 0;
	} else if (!strcmp(what, "setgid")) {
		ok = setresgid(65534, 65534, 65534) == 0;
	} else if (!strcmp(what, "ptrace")) {
		pid_t pid = child();
		ok = ptrace(PTRACE_ATTACH, pid, 0, 0) == 0;
		end(pid);
	} else if (!strcmp(what, "process_vm_writev")) {
		static char here[8];
		struct iovec v = {here, 8};
		pid_t pid = child();
		ok = process_vm_writev(pid, &v, 1, &v, 1, 0) == 8;
		end(pid);
	} else if (!strcmp(what, "memfd_create")) {
		ok = memfd_create("act", 0) >= 0;
	} else if (!strcmp(what, "memory_executable")) {
		void *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		ok = mprotect(p, 4096, PROT_READ | PROT_EXEC) == 0;
	} else if (!strcmp(what, "unshare")) {
		ok = unshare(CLONE_NEWUTS) == 0;
	} else if (!strcmp(what, "setns")) {
		ok = setns(open("/proc/self/ns/uts", O_RDONLY), CLONE_NEWUTS) == 0;
	} else if (!strcmp(what, "keyctl")) {
		ok = syscall(SYS_keyctl, 0, -3, 0) >= 0 || errno == ENOKEY;
	} else if (!strcmp(what, "bpf")) {
		struct bpf_insn program[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0}, {.code = BPF_JMP | BPF_EXIT}};
		union bpf_attr load = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insn_cnt = 2, .insns = (uintptr_t)program, .license = (uintptr_t)"GPL"};
		ok = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load) >= 0;
	} else if (!strcmp(what, "io_uring_file")) {
		struct io_uring_sqe e = {.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)file, .open_flags = O_CREAT | O_WRONLY, .len = 0600};
		ok = ring(&e) == 0;
	} else if (!strcmp(what, "io_uring_connect")) {
		struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
		inet_pton(AF_INET, file, &to.sin_addr);
		struct io_uring_sqe e = {.opcode = IORING_OP_CONNECT, .fd = socket(AF_INET, SOCK_STREAM, 0), .addr = (uintptr_t)&to, .off = sizeof to};
		ok = ring(&e) == 0;
	} else if (!strcmp(what, "create")) {
		ok = open(file, O_CREAT | O_EXCL | O_WRONLY, 0600) >= 0;
	} else if (!strcmp(what, "write")) {
		ok = write(open(file, O_WRONLY | O_APPEND), "x", 1) == 1;
	} else if (!strcmp(what, "chmod")) {
		ok = chmod(file, 04755) == 0;
	} else if (!strcmp(what, "chown")) {
		ok = chown(file, 65534, 65534) == 0;
	} else if (!strcmp(what, "setxattr")) {
		ok = setxattr(file, "user.act", "1", 1, 0) == 0 || errno == EOPNOTSUPP;
	} else if (!strcmp(what, "rename") || !strcmp(what, "link")) {
		ok = (*what == 'r' ? rename : link)(file, argv[3]) == 0;
	} else if (!strcmp(what, "unlink")) {
		ok = unlink(file) == 0;
	}
	return ok ? 42 : failed(what);
}
