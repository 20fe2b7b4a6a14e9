// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Sends some MiB to another guest and has them looked at where they are.
 *
 *   zerocopy listen PORT                  in one guest: serves one client
 *   zerocopy connect GUEST-ID PORT MIB    in the other
 *
 *   zerocopy listen HOST PORT             the same by TCP: without a copy if FGDP carries it
 *   zerocopy connect HOST PORT MIB
 *
 * cc zerocopy.c $(pkg-config --cflags --libs fgdp)
 */
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fgdp.h>

#define PIECE	(256 * 1024)
#define PIECES	8

static void die(const char *what)
{
	fprintf(stderr, "zerocopy: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Where a socket is. */
struct place {
	struct sockaddr_storage name;
	socklen_t len;
};

static void in_guest(struct place *place, const char *guest, const char *port)
{
	struct sockaddr_fgdp *name = (struct sockaddr_fgdp *)&place->name;
	int family = fgdp_family();

	if (family < 0)
		die("the module fgdp is not loaded");
	place->len = sizeof(*name);
	name->sfg_family = family;
	name->sfg_port = strtoul(port, NULL, 0);
	for (size_t i = 0; i < sizeof(name->sfg_guest) && *guest; i++) {
		unsigned int byte;

		guest += *guest == '-';
		if (sscanf(guest, "%2x", &byte) != 1 || !guest[1]) {
			errno = EINVAL;
			die("GUEST-ID");
		}
		name->sfg_guest[i] = byte;
		guest += 2;
	}
}

static void at_host(struct place *place, const char *host, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
	int error = getaddrinfo(host, port, &hints, &found);

	if (error) {
		fprintf(stderr, "zerocopy: %s: %s\n", host, gai_strerror(error));
		exit(1);
	}
	memcpy(&place->name, found->ai_addr, found->ai_addrlen);
	place->len = found->ai_addrlen;
	freeaddrinfo(found);
}

/* A socket, and its own or the other's place: an id has 32 digits and nothing else but dashes; none is any guest. */
static int open_socket(const char *where, const char *port, struct place *place)
{
	int fd;

	memset(place, 0, sizeof(*place));
	if (!*where || (strlen(where) >= 32 && !where[strspn(where, "0123456789abcdefABCDEF-")]))
		in_guest(place, where, port);
	else
		at_host(place, where, port);
	fd = socket(place->name.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("socket");
	return fd;
}

/* A checksum that depends on the order of the bytes (Fletcher's), as far as it has come. */
struct sum {
	uint64_t a, b, bytes;
};

static void add(struct sum *sum, const void *bytes, size_t len)
{
	const unsigned char *p = bytes;

	for (size_t i = 0; i < len; i++) {
		sum->a += p[i];
		sum->b += sum->a;
	}
	sum->bytes += len;
}

static void serve(int fd)
{
	static char buffer[PIECE];
	struct sum sum = { 0 };
	uint64_t in_place = 0;
	struct fgdp_window *window = fgdp_window_open(fd);
	int waited = 0;

	/* Without a window all is copied. */
	if (!window)
		fprintf(stderr, "zerocopy: no window: %s\n", strerror(errno));
	for (;;) {
		const void *bytes;
		size_t len = sizeof(buffer);
		ssize_t got;
		int what = window ? fgdp_window_next(window, &bytes, &len) : FGDP_COPIED;

		if (what < 0)
			die("fgdp_window_next");
		if (what == FGDP_GRANTED) {
			add(&sum, bytes, len);
			in_place += len;
			if (fgdp_window_release(window, bytes, len) < 0)
				die("fgdp_window_release");
			waited = 0;
			continue;
		}
		if (what == FGDP_NOTHING && !waited) {
			struct pollfd pollfd = { .fd = fd, .events = POLLIN };

			if (poll(&pollfd, 1, -1) < 0)
				die("poll");
			waited = 1;
			continue;
		}
		/* Still nothing after that: the end, as recv() says. */
		if (what == FGDP_NOTHING || len > sizeof(buffer))
			len = sizeof(buffer);
		got = recv(fd, buffer, len, 0);
		if (got < 0)
			die("recv");
		if (got == 0)
			break;
		add(&sum, buffer, got);
		waited = 0;
	}
	if (window)
		fgdp_window_close(window);
	if (send(fd, &sum, sizeof(sum), MSG_NOSIGNAL) != sizeof(sum))
		die("send");
	printf("received %" PRIu64 " bytes, %" PRIu64 " in place\n", sum.bytes, in_place);
}

/* Reads what is complete, after waiting for something to be so; how many calls. */
static unsigned int complete(int fd, unsigned int *granted)
{
	struct pollfd pollfd = { .fd = fd };
	struct fgdp_completion done;
	unsigned int calls = 0;
	int any;

	if (poll(&pollfd, 1, -1) < 0)
		die("poll");
	while ((any = fgdp_completion(fd, &done)) == 1) {
		calls += done.last - done.first + 1;
		if (!done.copied)
			*granted += done.last - done.first + 1;
	}
	if (any < 0)
		die("fgdp_completion");
	if (!calls) {
		/* It was the end of the connection that woke us. */
		errno = EPIPE;
		die("the peer is gone");
	}
	return calls;
}

static void load(int fd, uint64_t mib)
{
	unsigned int calls = 0, done = 0, granted = 0;
	struct sum sum = { 0 }, answer;
	unsigned char *memory = NULL;
	int lent;

	if (fgdp_enable(fd) == 0)
		memory = fgdp_memory_map(fd, PIECE * PIECES);
	lent = memory != NULL;
	if (!lent) {
		/* Other memory is copied: by TCP it is not carried, or no frames are left. */
		fprintf(stderr, "zerocopy: no memory is lent: %s\n", strerror(errno));
		memory = malloc(PIECE * PIECES);
		if (!memory)
			die("malloc");
	}
	for (uint64_t n = 0; n < (mib << 20) / PIECE; n++) {
		unsigned char *piece = memory + n % PIECES * PIECE;
		size_t at = 0;

		/* A piece that the peer has not given back would be copied when it is written. */
		if (n >= PIECES && n % PIECES == 0) {
			while (done < calls)
				done += complete(fd, &granted);
		}
		for (size_t i = 0; i < PIECE; i += 64)
			memset(piece + i, (int)(n * 31 + i / 64), 64);
		add(&sum, piece, PIECE);
		while (at < PIECE) {
			ssize_t sent = lent ? fgdp_send(fd, piece + at, PIECE - at) :
					      send(fd, piece + at, PIECE - at, MSG_NOSIGNAL);

			if (sent >= 0) {
				at += sent;
				calls += lent;
			} else if (errno == ENOBUFS) {
				done += complete(fd, &granted);
			} else {
				die("send");
			}
		}
	}
	while (done < calls)
		done += complete(fd, &granted);
	if (shutdown(fd, SHUT_WR) < 0)
		die("shutdown");
	if (recv(fd, &answer, sizeof(answer), MSG_WAITALL) != sizeof(answer))
		die("recv");
	if (memcmp(&sum, &answer, sizeof(sum)) != 0) {
		fprintf(stderr, "zerocopy: the peer has seen other bytes\n");
		exit(1);
	}
	printf("sent %" PRIu64 " bytes, %u of %u calls without a copy\n", sum.bytes, granted, calls);
	if (lent)
		fgdp_memory_unmap(memory, PIECE * PIECES);
	else
		free(memory);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	struct place place;
	int fd;

	if ((argc == 3 || argc == 4) && strcmp(what, "listen") == 0) {
		int listener = open_socket(argc == 4 ? argv[2] : "", argv[argc - 1], &place);

		if (bind(listener, (struct sockaddr *)&place.name, place.len) < 0 || listen(listener, 1) < 0)
			die("listen");
		puts("listening");
		fflush(stdout);
		fd = accept(listener, NULL, NULL);
		if (fd < 0)
			die("accept");
		serve(fd);
	} else if (argc == 5 && strcmp(what, "connect") == 0) {
		fd = open_socket(argv[2], argv[3], &place);
		if (connect(fd, (struct sockaddr *)&place.name, place.len) < 0)
			die("connect");
		load(fd, strtoull(argv[4], NULL, 0));
	} else {
		fprintf(stderr, "usage: zerocopy listen [HOST] PORT | zerocopy connect GUEST-ID|HOST PORT MIB\n");
		return 2;
	}
	close(fd);
	return 0;
}
