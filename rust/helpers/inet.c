// SPDX-License-Identifier: GPL-2.0

#include <linux/net.h>
#include <linux/tracepoint.h>
#include <linux/uio.h>
#include <net/ipv6.h>
#include <net/mptcp.h>
#include <net/tcp.h>

#include "helpers.h"

static void fgdp_addr_v4(u8 *to, __be32 addr)
{
	ipv6_addr_set_v4mapped(addr, (struct in6_addr *)to);
}

/* The socket is locked or, for a new child, known to nobody else. */
void fgdp_helper_tcp_facts(const struct sock *sk, struct fgdp_tcp_facts *facts)
{
	const struct tcp_sock *tp = tcp_sk(sk);

	memset(facts, 0, sizeof(*facts));
	facts->port = inet_sk(sk)->inet_num;
	facts->peer_port = ntohs(inet_sk(sk)->inet_dport);
	facts->snd_seq = tp->write_seq;
	facts->rcv_seq = tp->rcv_nxt;
	fgdp_addr_v4(facts->addr, sk->sk_rcv_saddr);
	fgdp_addr_v4(facts->peer_addr, sk->sk_daddr);
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6) {
		memcpy(facts->addr, &sk->sk_v6_rcv_saddr, 16);
		memcpy(facts->peer_addr, &sk->sk_v6_daddr, 16);
	}
#endif
	if (sk->sk_kern_sock)
		facts->flags |= FGDP_TCP_KERNEL;
	if (inet_csk(sk)->icsk_ulp_ops)
		facts->flags |= FGDP_TCP_ULP;
	if (rcu_access_pointer(sk->sk_user_data))
		facts->flags |= FGDP_TCP_USER_DATA;
	if (sk_is_mptcp(sk))
		facts->flags |= FGDP_TCP_MPTCP;
	if (tp->repair)
		facts->flags |= FGDP_TCP_REPAIR;
	if (sk->sk_write_pending)
		facts->flags |= FGDP_TCP_SENDER_WAITS;
	if (tp->snd_una != tp->write_seq)
		facts->flags |= FGDP_TCP_SENT;
}

bool fgdp_helper_sk_is_tcp(const struct sock *sk)
{
	return sk_is_tcp(sk);
}

u32 fgdp_helper_tcp_write_seq(const struct sock *sk)
{
	return READ_ONCE(tcp_sk(sk)->write_seq);
}

u32 fgdp_helper_tcp_copied_seq(const struct sock *sk)
{
	return READ_ONCE(tcp_sk(sk)->copied_seq);
}

/* The next byte that TCP expects, without the place of a FIN that it got. */
u32 fgdp_helper_tcp_rcv_nxt(const struct sock *sk)
{
	u32 nxt = READ_ONCE(tcp_sk(sk)->rcv_nxt);

	return nxt - sock_flag(sk, SOCK_DONE);
}

struct fgdp_tcp_seqs fgdp_helper_tcp_seqs(const struct sock *sk)
{
	return (struct fgdp_tcp_seqs) {
		.write = fgdp_helper_tcp_write_seq(sk),
		.copied = fgdp_helper_tcp_copied_seq(sk),
		.rcv_nxt = fgdp_helper_tcp_rcv_nxt(sk),
	};
}

u64 fgdp_helper_tcp_bytes_received(const struct sock *sk)
{
	return READ_ONCE(tcp_sk(sk)->bytes_received);
}

/* Each byte counted once. */
u64 fgdp_helper_tcp_bytes_sent(const struct sock *sk)
{
	const struct tcp_sock *tp = tcp_sk(sk);

	return READ_ONCE(tp->bytes_sent) - READ_ONCE(tp->bytes_retrans);
}

void fgdp_helper_tcp_set_path(struct sock *sk, const struct tcp_ulp_ops *ops,
			      void *path)
{
	rcu_assign_pointer(inet_csk(sk)->icsk_ulp_data, (__force void __rcu *)path);
	inet_csk(sk)->icsk_ulp_ops = ops;
}

/*
 * What was set with @ops, or NULL if something else is. Under rcu_read_lock(), or
 * with the socket's lock.
 */
void *fgdp_helper_tcp_path(const struct sock *sk, const struct tcp_ulp_ops *ops)
{
	if (READ_ONCE(inet_csk(sk)->icsk_ulp_ops) != ops)
		return NULL;
	return (__force void *)rcu_dereference_check(inet_csk(sk)->icsk_ulp_data, 1);
}

static int fgdp_add_u64(char __user *at, u64 more)
{
	u64 value;

	if (copy_from_user(&value, at, sizeof(value)))
		return -EFAULT;
	value += more;
	return copy_to_user(at, &value, sizeof(value)) ? -EFAULT : 0;
}

/* Adds bytes that TCP has not seen to the struct tcp_info of which the user has got @len bytes. */
int fgdp_helper_add_tcp_info(char *info, int *len, u64 received, u64 acked, u64 sent)
{
	const struct {
		size_t at;
		u64 more;
	} fields[] = {
		{ offsetof(struct tcp_info, tcpi_bytes_acked), acked },
		{ offsetof(struct tcp_info, tcpi_bytes_received), received },
		{ offsetof(struct tcp_info, tcpi_bytes_sent), sent },
	};
	char __user *user = (char __user __force *)info;
	unsigned int n;
	int room;

	if (get_user(room, (int __user __force *)len))
		return -EFAULT;
	for (n = 0; n < ARRAY_SIZE(fields); n++) {
		int ret = 0;

		if (fields[n].at + sizeof(u64) <= max(room, 0))
			ret = fgdp_add_u64(user + fields[n].at, fields[n].more);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * Stands in for the one that a detached socket has lost: without memory TCP
 * marks it, and puts itself on its queue before it finds that it may not sleep.
 */
static struct socket fgdp_no_socket = {
	.wq.wait = __WAIT_QUEUE_HEAD_INITIALIZER(fgdp_no_socket.wq.wait),
};

static void fgdp_set_socket(struct sock *sk, struct socket *sock)
{
	write_lock_bh(&sk->sk_callback_lock);
	sk_set_socket(sk, sock);
	rcu_assign_pointer(sk->sk_wq, sock ? &sock->wq : NULL);
	write_unlock_bh(&sk->sk_callback_lock);
}

/* Takes the user's side away from a socket that lives on. */
void fgdp_helper_sock_detach(struct sock *sk)
{
	fgdp_set_socket(sk, NULL);
}

/*
 * Queues bytes behind what TCP has, whatever bounds the user has set: they were
 * taken from the user before it shut the socket down or closed it, and the ring
 * has bounded them. TCP's FIN has not gone. The socket is locked. Returns how
 * many bytes TCP took, or an error: -EAGAIN without memory.
 */
int fgdp_helper_tcp_push(struct sock *sk, const void *from, size_t len)
{
	struct kvec vec = { .iov_base = (void *)from, .iov_len = len };
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };
	bool detached = !sk->sk_socket;
	u8 shutdown = sk->sk_shutdown;
	int sndbuf = sk->sk_sndbuf;
	int ret;

	iov_iter_kvec(&msg.msg_iter, ITER_SOURCE, &vec, 1, len);
	if (detached)
		fgdp_set_socket(sk, &fgdp_no_socket);
	WRITE_ONCE(sk->sk_sndbuf, INT_MAX / 2);
	WRITE_ONCE(sk->sk_shutdown, shutdown & ~SEND_SHUTDOWN);
	ret = tcp_sendmsg_locked(sk, &msg, len);
	/* What TCP has added meanwhile stays: a reset does. */
	WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | shutdown);
	WRITE_ONCE(sk->sk_sndbuf, sndbuf);
	if (detached)
		fgdp_set_socket(sk, NULL);
	return ret;
}

/* As SO_LINGER with a time of zero. */
void fgdp_helper_sock_reset_at_close(struct sock *sk)
{
	WRITE_ONCE(sk->sk_lingertime, 0);
	sock_set_flag(sk, SOCK_LINGER);
}

/* Wakes who waits for space, whatever TCP's own buffers have. */
void fgdp_helper_sk_wake_writers(struct sock *sk)
{
	struct socket_wq *wq;

	rcu_read_lock();
	wq = rcu_dereference(sk->sk_wq);
	if (skwq_has_sleeper(wq))
		wake_up_interruptible_poll(&wq->wait, EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND);
	sk_wake_async_rcu(sk, SOCK_WAKE_SPACE, POLL_OUT);
	rcu_read_unlock();
}

void fgdp_helper_tracepoint_synchronize_unregister(void)
{
	tracepoint_synchronize_unregister();
}

/* Whether a send would have to be answered on the error queue. */
bool fgdp_helper_tcp_wants_zerocopy(const struct sock *sk, const struct msghdr *msg)
{
	return (msg->msg_flags & MSG_ZEROCOPY) && !msg->msg_ubuf && sock_flag(sk, SOCK_ZEROCOPY);
}

/*
 * The notification of a send with MSG_ZEROCOPY, which says that it was copied unless
 * something is granted; or NULL. No page of the user's is pinned for it.
 */
struct ubuf_info *fgdp_helper_zerocopy_begin(struct sock *sk)
{
	struct ubuf_info *uarg = msg_zerocopy_realloc(sk, 0, NULL, false);

	if (uarg)
		uarg_to_msgzc(uarg)->zerocopy = 0;
	return uarg;
}

/* Pages of the send are the peer's for a while: told when they are back, too. */
void fgdp_helper_zerocopy_granted(struct ubuf_info *uarg)
{
	uarg_to_msgzc(uarg)->zerocopy = 1;
	net_zcopy_get(uarg);
}

/* The send has returned, or pages of it are back: what was @sent is complete. */
void fgdp_helper_zerocopy_end(struct ubuf_info *uarg, bool sent)
{
	if (sent)
		net_zcopy_put(uarg);
	else
		net_zcopy_put_abort(uarg, true);
}

/* Whether the program or the kernel wants to know how many bytes a receive leaves. */
bool fgdp_helper_tcp_wants_inq(const struct sock *sk, const struct msghdr *msg)
{
	return tcp_sk(sk)->recvmsg_inq || msg->msg_get_inq;
}

/*
 * Says so, with @more bytes beside TCP's. An @end that is still to be read
 * counts as a byte if there is no other, as TCP's does.
 */
void fgdp_helper_tcp_put_inq(const struct sock *sk, struct msghdr *msg, u32 more, bool end)
{
	u32 copied = fgdp_helper_tcp_copied_seq(sk);
	int inq = fgdp_helper_tcp_rcv_nxt(sk) - copied;

	inq = max(inq, 0) + more;
	if (!inq && (end || sock_flag(sk, SOCK_DONE)))
		inq = 1;
	msg->msg_inq = inq;
	if (tcp_sk(sk)->recvmsg_inq)
		put_cmsg(msg, SOL_TCP, TCP_CM_INQ, sizeof(inq), &inq);
}

/* Whether the program wants what only TCP has: packets' times, a pace, a place to peek from. */
bool fgdp_helper_tcp_is_needed(const struct sock *sk)
{
	return sock_flag(sk, SOCK_RCVTSTAMP) || READ_ONCE(sk->sk_tsflags) ||
	       READ_ONCE(sk->sk_peek_off) >= 0 || READ_ONCE(sk->sk_max_pacing_rate) != ~0UL;
}

/* True if tcp_poll() could only tell of data and space, called after sock_poll_wait(). */
bool fgdp_helper_tcp_is_quiet(const struct sock *sk)
{
	if (inet_sk_state_load(sk) != TCP_ESTABLISHED || READ_ONCE(sk->sk_shutdown) ||
	    READ_ONCE(tcp_sk(sk)->urg_data))
		return false;
	/* Like there: pairs with smp_wmb() in tcp_done_with_error(). */
	smp_rmb();
	return !READ_ONCE(sk->sk_err) && skb_queue_empty_lockless(&sk->sk_error_queue);
}

/*
 * TCP_ZEROCOPY_RECEIVE where nothing can be mapped: all @bytes that there are, or
 * their @end, are for recv().
 */
int fgdp_helper_tcp_zerocopy_none(u32 bytes, bool end, char *to, int *len)
{
	char __user *user = (char __user __force *)to;
	struct tcp_zerocopy_receive zc = {};
	int room;

	if (get_user(room, (int __user __force *)len))
		return -EFAULT;
	if (room < (int)offsetofend(struct tcp_zerocopy_receive, length))
		return -EINVAL;
	room = min_t(int, room, sizeof(zc));
	if (copy_from_user(&zc, user, room))
		return -EFAULT;
	if (!PAGE_ALIGNED(zc.address) || zc.reserved)
		return -EINVAL;
	if (!bytes && end)
		return -EIO;
	/* Not more than the program asked for, as TCP. */
	zc.recv_skip_hint = zc.length ? min(bytes, zc.length) : bytes;
	zc.length = 0;
	zc.inq = bytes;
	zc.err = 0;
	zc.copybuf_len = 0;
	zc.msg_flags = 0;
	if (put_user(room, (int __user __force *)len) || copy_to_user(user, &zc, room))
		return -EFAULT;
	return 0;
}

/* What TCP says of a message's ancillary data. */
int fgdp_helper_tcp_check_control(struct sock *sk, struct msghdr *msg)
{
	struct sockcm_cookie cookie = {};

	return msg->msg_controllen && sock_cmsg_send(sk, msg, &cookie) ? -EINVAL : 0;
}
