// load is a busy host: it starts programs, makes files and opens connections, so many rounds a second, and says how many
// rounds there were. "load serve ADDRESS PORT" takes the connections.
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_in at(const char *address, const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	inet_pton(AF_INET, address, &a.sin_addr);
	return a;
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int failed(const char *what)
{
	perror(what);
	return 1;
}

static int serve(struct sockaddr_in a)
{
	int one = 1, l = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(l, (struct sockaddr *)&a, sizeof a) || listen(l, 1024))
		return failed("listen");
	puts("ready");
	fflush(stdout);
	for (;;)
		close(accept(l, 0, 0));
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "serve"))
		return serve(at(argv[2], argv[3]));
	if (argc != 6)
		return 2;
	double begun = now(), seconds = atof(argv[1]), rate = atof(argv[2]);
	struct sockaddr_in to = at(argv[4], argv[5]);
	struct linger reset = {.l_onoff = 1}; // no port waits for a minute after its connection
	char file[256], moved[256];
	long n = 0;
	for (; now() - begun < seconds; n++) {
		double wait = n / rate - (now() - begun);
		if (wait > 0)
			usleep(wait * 1e6);
		pid_t pid = fork();
		if (pid == 0) {
			execl("/bin/true", "true", (char *)0);
			_exit(127);
		}
		int status, fd, s;
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
			return failed("a program");
		snprintf(file, sizeof file, "%s/%ld", argv[3], n);
		snprintf(moved, sizeof moved, "%s/%ld.moved", argv[3], n);
		if ((fd = open(file, O_CREAT | O_EXCL | O_WRONLY, 0600)) < 0 || write(fd, "x", 1) != 1 || close(fd) || rename(file, moved) || unlink(moved))
			return failed(file);
		if ((s = socket(AF_INET, SOCK_STREAM, 0)) < 0 || connect(s, (struct sockaddr *)&to, sizeof to) ||
		    setsockopt(s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) || close(s))
			return failed("a connection");
	}
	printf("%ld\n", n);
	return 0;
}
