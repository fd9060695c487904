// crowd is many processes, and pids that are used again.
//
//	crowd N FOREMEN   as pid 1 of a namespace: so many that wait, evenly each foreman's; all end with its input
//	crowd reuse DIR   DIR/first has a child and ends; DIR/second is started with first's pid; then the child has one, too
#define _GNU_SOURCE
#include <linux/sched.h> // clone_args
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int failed(const char *what)
{
	perror(what);
	return 1;
}

static void until_closed(int fd)
{
	char c;
	while (read(fd, &c, 1) > 0)
		;
}

static int waiter(void *unused)
{
	for (;;)
		pause();
	return 0;
}

static int crowd(int n, int foremen)
{
	int made[2];
	if (pipe(made))
		return failed("pipe");
	for (int f = 0; f < foremen; f++) {
		int share = n / foremen + (f < n % foremen);
		pid_t pid = fork();
		if (pid < 0)
			return failed("fork a foreman");
		if (pid)
			continue;
		// Processes that share their memory: else each costs the machine more than what is tried does.
		enum { STACK = 1024 };
		char *stacks = malloc((share + 1) * STACK);
		for (int i = 0; i < share; i++) {
			pid_t child = clone(waiter, stacks + (i + 1) * STACK, CLONE_VM | SIGCHLD, NULL);
			char ok = child > 0;
			if (write(made[1], &ok, 1) != 1 || !ok)
				return failed("fork");
		}
		for (;;)
			pause();
	}
	int done = 0;
	char ok = 1;
	while (done < n && ok && read(made[0], &ok, 1) == 1)
		done += ok;
	printf("%d\n", done);
	fflush(stdout);
	until_closed(0);
	return 0; // the kernel ends all the others with pid 1
}

static int true_of(const char *whose)
{
	pid_t pid = fork();
	if (!pid) {
		execl("/bin/true", "/bin/true", whose, NULL);
		_exit(127);
	}
	return pid < 0 || waitpid(pid, NULL, 0) < 0;
}

static int reuse(const char *dir)
{
	char first[4096], second[4096], in[16];
	snprintf(first, sizeof first, "%s/first", dir);
	snprintf(second, sizeof second, "%s/second", dir);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (int attempt = 0; attempt < 20; attempt++) { // another may have taken the pid meanwhile
		int go[2], end[2];
		if (pipe(go) || pipe(end))
			return failed("pipe");
		snprintf(in, sizeof in, "%d", go[0]);
		pid_t a = fork();
		if (!a) {
			close(go[1]);
			close(end[1]);
			execl(first, first, "parent", in, NULL);
			_exit(127);
		}
		int status;
		if (a < 0 || waitpid(a, &status, 0) < 0 || status)
			return failed("first");
		struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&a, .set_tid_size = 1};
		pid_t b = syscall(SYS_clone3, &args, sizeof args);
		if (!b) {
			char out[16];
			snprintf(in, sizeof in, "%d", end[0]);
			snprintf(out, sizeof out, "%d", go[1]);
			close(end[1]);
			execl(second, second, "usurper", in, out, NULL);
			_exit(127);
		}
		close(go[1]); // first's child goes on once second has closed it too
		while (wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) != 3)
			;
		close(end[1]);
		while (wait(NULL) > 0)
			;
		if (b > 0) {
			printf("%d\n", b);
			return 0;
		}
	}
	return failed("clone3 with the same pid");
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	if (!strcmp(argv[1], "reuse"))
		return reuse(argv[2]);
	if (!strcmp(argv[1], "parent")) {
		pid_t pid = fork();
		if (pid)
			return pid < 0;
		until_closed(atoi(argv[2]));
		return true_of("of-firsts-child") ? 4 : 3;
	}
	if (!strcmp(argv[1], "usurper")) {
		int lost = true_of("of-second");
		close(atoi(argv[3]));
		until_closed(atoi(argv[2]));
		return lost;
	}
	return crowd(atoi(argv[1]), atoi(argv[2]));
}
