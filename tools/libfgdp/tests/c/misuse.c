// SPDX-License-Identifier: Apache-2.0 OR MIT
// Calls every function as it must not be called, and looks at what it says: also without the module.
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fgdp.h>

static int wrong;

#define FAILS(call, failure, ...)							\
	do {										\
		const int any[] = { __VA_ARGS__ };					\
		errno = 0;								\
		check((call) == (failure), any, sizeof(any) / sizeof(any[0]), #call);	\
	} while (0)

static void check(int failed, const int *any, size_t n, const char *call)
{
	int error = errno;

	for (size_t i = 0; failed && i < n; i++) {
		if (error == any[i])
			return;
	}
	printf("%s: %s, errno %d\n", call, failed ? "failed" : "did not fail", error);
	wrong = 1;
}

// A TCP connection that nobody carries: it is refused what it cannot do, and copies.
static void tcp(void)
{
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(name);
	int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), server;
	struct fgdp_completion done;
	char bytes[2] = "xy";

	FAILS(fgdp_enable(client), -1, EOPNOTSUPP);
	if (bind(listener, (struct sockaddr *)&name, len) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&name, &len) || connect(client, (struct sockaddr *)&name, len) ||
	    (server = accept(listener, NULL, NULL)) < 0) {
		perror("TCP");
		wrong = 1;
		return;
	}
	FAILS(fgdp_enable(client), -1, EOPNOTSUPP);
	FAILS(fgdp_memory_map(client, 1), NULL, EOPNOTSUPP);
	FAILS(fgdp_window_open(server), NULL, EOPNOTSUPP);
	if (fgdp_send(client, bytes, 1) != 1 || fgdp_give(client, bytes + 1, 1) != 1 ||
	    recv(server, bytes, 2, MSG_WAITALL) != 2 || bytes[0] != 'x' || bytes[1] != 'y') {
		printf("two bytes do not come by TCP: errno %d\n", errno);
		wrong = 1;
	}
	if (fgdp_completion(client, &done) != 0) {
		printf("TCP has completions of what was copied\n");
		wrong = 1;
	}
}

int main(void)
{
	const void *bytes = &wrong;
	size_t len = 0;
	struct fgdp_completion done;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) {
		perror("socketpair");
		return 1;
	}
	// No descriptor.
	for (int fd = -2; fd < 0; fd++) {
		FAILS(fgdp_enable(fd), -1, EBADF);
		FAILS(fgdp_memory_map(fd, 1), NULL, EBADF);
		FAILS(fgdp_send(fd, &wrong, 1), -1, EBADF);
		FAILS(fgdp_give(fd, &wrong, 1), -1, EBADF);
		FAILS(fgdp_completion(fd, &done), -1, EBADF);
		FAILS(fgdp_window_open(fd), NULL, EBADF);
	}
	// One that is not open.
	FAILS(fgdp_enable(1000000), -1, EBADF);
	FAILS(fgdp_window_open(1000000), NULL, EBADF);
	// A socket of another kind.
	FAILS(fgdp_memory_map(fds[0], 1), NULL, ENODEV, EOPNOTSUPP);
	FAILS(fgdp_memory_map(fds[0], 0), NULL, EINVAL, ENODEV);
	FAILS(fgdp_memory_map(fds[0], (size_t)-1), NULL, ENOMEM);
	FAILS(fgdp_memory_map(fds[0], (size_t)-FGDP_PAGE_SIZE), NULL, ENOMEM, ENODEV);
	FAILS(fgdp_window_open(fds[0]), NULL, EOPNOTSUPP, ENOPROTOOPT);
	if (fgdp_completion(fds[0], &done) == 1) {
		printf("a socket of AF_UNIX has completions\n");
		wrong = 1;
	}
	// Pointers that lead nowhere.
	FAILS(fgdp_send(fds[0], NULL, 1), -1, EFAULT);
	FAILS(fgdp_send(fds[0], (void *)1, 1), -1, EFAULT);
	FAILS(fgdp_give(fds[0], NULL, 1), -1, EFAULT, EINVAL);
	FAILS(fgdp_completion(fds[0], NULL), -1, EFAULT);
	FAILS(fgdp_memory_unmap(NULL, FGDP_PAGE_SIZE), -1, EINVAL);
	FAILS(fgdp_memory_unmap((void *)1, FGDP_PAGE_SIZE), -1, EINVAL);
	FAILS(fgdp_window_close(NULL), -1, EINVAL);
	FAILS(fgdp_window_next(NULL, &bytes, &len), -1, EINVAL);
	FAILS(fgdp_window_next(NULL, NULL, &len), -1, EFAULT);
	FAILS(fgdp_window_next(NULL, &bytes, NULL), -1, EFAULT);
	FAILS(fgdp_window_release(NULL, &wrong, 1), -1, EINVAL);
	// Ordinary memory is copied, by whatever socket.
	if (fgdp_send(fds[0], "x", 1) != 1 || read(fds[1], &len, 1) != 1) {
		printf("a byte does not come: errno %d\n", errno);
		wrong = 1;
	}
	tcp();
	// No SIGPIPE.
	close(fds[1]);
	FAILS(fgdp_send(fds[0], "x", 1), -1, EPIPE);
	errno = 0;
	if (fgdp_family() == -1 && errno != ENOENT) {
		printf("fgdp_family: errno %d\n", errno);
		wrong = 1;
	}
	if (!wrong)
		printf("all as the header says\n");
	return wrong;
}
