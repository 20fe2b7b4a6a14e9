/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Sending and receiving without a copy, by connected stream sockets: of AF_FGDP, or
 * of TCP where FGDP carries the connection. Sockets are opened, connected and read by
 * the ordinary calls; AF_FGDP has the struct sockaddr_fgdp of <linux/fgdp.h>. The
 * manual is fgdp(3).
 *
 * Of a TCP connection that is not carried fgdp_enable(), fgdp_memory_map() and
 * fgdp_window_open() say EOPNOTSUPP, fgdp_send() and fgdp_give() are send(2),
 * fgdp_completion() has nothing to tell, and the program sends and receives as ever.
 * The first three wait up to two seconds until both guests have agreed. A connection
 * that was carried can go back to TCP at any time: what was granted arrives, what is
 * sent from memory that it lends is copied, and fgdp_window_next() says FGDP_COPIED.
 *
 * Functions that fail say so by -1, or by NULL where they return a pointer, and
 * leave the reason in errno. Among the reasons is always EBADF: the descriptor is
 * none; and EOPNOTSUPP, ENOPROTOOPT, ENOTSOCK or ENODEV: it is none of such a socket.
 * All can be called by several threads at once, also for one socket or one window.
 */
#ifndef FGDP_H
#define FGDP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/fgdp.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of a page: what is granted, or given, are whole ones. */
#define FGDP_PAGE_SIZE		4096

/*
 * Returns the number of the family AF_FGDP, which the module chooses and which
 * socket(2) wants. ENOENT: the module is not loaded, or this is another network
 * namespace than the first.
 */
int fgdp_family(void);

/*
 * Lets the socket `fd` send without a copy; to be called before fgdp_send(), of a TCP
 * socket when it is connected. It returns 0. EOPNOTSUPP: it is a TCP connection that is
 * not carried. Further errors are those of setsockopt(2).
 */
int fgdp_enable(int fd);

/*
 * Maps `len` bytes of memory that the socket `fd` lends to its peer: zeroed, in
 * whole pages, to be read and written at any time. A child of fork(2) does not have
 * it. The connection ends when it is unmapped, by fgdp_memory_unmap() and not by
 * munmap(2), and the descriptor is closed. EINVAL:
 * `len` is 0. ENOMEM: this guest has no more frames for that peer, and memory of
 * malloc(3) serves instead. ENOTCONN: there is no connection. EOPNOTSUPP: it is a TCP
 * connection that is not carried, for which that memory serves, too.
 */
void *fgdp_memory_map(int fd, size_t len);

/*
 * Unmaps what fgdp_memory_map() returned, all of it or whole pages of it: `len` bytes
 * from `memory` on. It returns 0. Frames come back when all is unmapped and the peer
 * has given back what it was granted. EINVAL: `memory` is NULL or begins in the
 * middle of a page, or `len` is 0.
 */
int fgdp_memory_unmap(void *memory, size_t len);

/*
 * Sends up to `len` bytes from `bytes` on and returns how many are on their way.
 * Whole pages of memory that the socket lends are granted: the peer reads them where
 * they are. All else is copied. The memory may be written at once; a page that the
 * peer has not given back is copied then. Calls of fgdp_send() and fgdp_give() that
 * sent something have numbers from 0 on, one after the other, which fgdp_completion()
 * tells. The errors are those of send(2), without SIGPIPE. ENOBUFS: 128 calls are not
 * complete, or their completion was not asked for; by TCP it may be fewer.
 *
 * By a TCP socket only calls with bytes of one fgdp_memory_map() of that very socket
 * have numbers. All others are send(2), whether or not the connection is carried: so
 * all memory may be written at once, which MSG_ZEROCOPY of TCP alone does not allow.
 */
ssize_t fgdp_send(int fd, const void *bytes, size_t len);

/*
 * Sends as fgdp_send() does, but gives the granted pages away: they are the peer's
 * until it gives them back, and who touches them here finds fresh ones, of zeros.
 * That saves the copy of a page that is written again. What was copied stays as it
 * is, so after the call the bytes are for writing only. The errors are those of
 * fgdp_send(). EINVAL: the module does not give pages away.
 */
ssize_t fgdp_give(int fd, void *bytes, size_t len);

/* Calls of fgdp_send() and fgdp_give() that are complete. */
struct fgdp_completion {
	uint32_t first;		/* the number of the first of them... */
	uint32_t last;		/* ...and of the last; numbers begin anew after 2^32 - 1 */
	uint32_t copied;	/* 1 if nothing of them (by TCP: of the first) was granted, else 0 */
};

/*
 * Fills `out` with calls that are complete, as the peer has given back what they
 * granted or the connection is over, and that were not told before, and returns 1; or
 * returns 0 when there are none. It does not wait: poll(2) says POLLERR when there
 * are some. EFAULT: `out` is NULL. EPROTO: the error queue has something else.
 * Further errors are those of recvmsg(2).
 */
int fgdp_completion(int fd, struct fgdp_completion *out);

/* The place where the pages are shown that the peer of a socket granted. */
struct fgdp_window;

/*
 * Maps the window of the socket `fd`, of which there can be one, to be read only. It
 * keeps the connection as memory that is lent does. EBUSY: there is one. ENOTCONN:
 * there is no connection. ENOMEM and EMFILE: there is no room for the mapping, or for
 * one descriptor. EOPNOTSUPP: it is a TCP connection that is not carried, of which
 * recv(2) reads all.
 */
struct fgdp_window *fgdp_window_open(int fd);

/*
 * Unmaps the window, gives back all that was taken, and returns 0. EINVAL: `window`
 * is NULL.
 */
int fgdp_window_close(struct fgdp_window *window);

/* What fgdp_window_next() has found: nothing yet, or nothing any more. */
#define FGDP_NOTHING		0
/* What fgdp_window_next() has found: bytes that are read where they are. */
#define FGDP_GRANTED		1
/* What fgdp_window_next() has found: bytes that are for recv(2). */
#define FGDP_COPIED		2

/*
 * Takes what is next in the stream and returns what it is, without waiting.
 * FGDP_GRANTED: `*len` bytes at `*bytes` are read there until they are given back.
 * FGDP_COPIED: the next `*len` bytes of the stream are for recv(2). FGDP_NOTHING:
 * poll(2) waits for more, and recv(2) says how the stream ends. Bytes that are shown
 * go with the channel to the peer: who touches them then gets SIGBUS. A peer whose
 * kernel breaks the rules can change them: who must not see that copies before it
 * looks. EINVAL: `window` is NULL. EFAULT: `bytes` or `len` is NULL. Further errors
 * are those of getsockopt(2).
 */
int fgdp_window_next(struct fgdp_window *window, const void **bytes, size_t *len);

/*
 * Gives back what fgdp_window_next() found, by the same `bytes` and `len`, in whatever
 * order, and returns 0. EINVAL: `window` is NULL, or nothing was taken there.
 */
int fgdp_window_release(struct fgdp_window *window, const void *bytes, size_t len);

#ifdef __cplusplus
}
#endif

#endif /* FGDP_H */
