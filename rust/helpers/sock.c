// SPDX-License-Identifier: GPL-2.0

#include <linux/capability.h>
#include <linux/errqueue.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <net/busy_poll.h>
#include <net/sock.h>

void fgdp_helper_sock_hold(struct sock *sk)
{
	sock_hold(sk);
}

void fgdp_helper_sock_put(struct sock *sk)
{
	sock_put(sk);
}

void fgdp_helper_sock_orphan(struct sock *sk)
{
	sock_orphan(sk);
}

struct wait_queue_head *fgdp_helper_sk_sleep(struct sock *sk)
{
	return sk_sleep(sk);
}

struct net *fgdp_helper_sock_net(const struct sock *sk)
{
	return sock_net(sk);
}

int fgdp_helper_sock_error(struct sock *sk)
{
	return sock_error(sk);
}

bool fgdp_helper_sk_has_sleeper(struct sock *sk)
{
	bool any;

	rcu_read_lock();
	any = skwq_has_sleeper(rcu_dereference(sk->sk_wq));
	rcu_read_unlock();
	return any;
}

int fgdp_helper_sock_intr_errno(long timeo)
{
	return sock_intr_errno(timeo);
}

void fgdp_helper_sock_poll_wait(struct file *filp, struct socket *sock,
				struct poll_table_struct *p)
{
	sock_poll_wait(filp, sock, p);
}

void fgdp_helper_sk_data_ready(struct sock *sk)
{
	void (*data_ready)(struct sock *sk) = READ_ONCE(sk->sk_data_ready);

	data_ready(sk);
}

void fgdp_helper_sk_write_space(struct sock *sk)
{
	void (*write_space)(struct sock *sk) = READ_ONCE(sk->sk_write_space);

	write_space(sk);
}

void fgdp_helper_sk_state_change(struct sock *sk)
{
	void (*state_change)(struct sock *sk) = READ_ONCE(sk->sk_state_change);

	state_change(sk);
}

void fgdp_helper_sk_error_report(struct sock *sk)
{
	sk_error_report(sk);
}

unsigned int fgdp_helper_sk_busy_usec(const struct sock *sk)
{
#ifdef CONFIG_NET_RX_BUSY_POLL
	return READ_ONCE(sk->sk_ll_usec);
#else
	return 0;
#endif
}

void fgdp_helper_init_wait_woken(struct wait_queue_entry *wq_entry)
{
	init_waitqueue_func_entry(wq_entry, woken_wake_function);
	wq_entry->flags = 0;
	wq_entry->private = current;
	INIT_LIST_HEAD(&wq_entry->entry);
}

bool fgdp_helper_signal_pending(void)
{
	return signal_pending(current);
}

bool fgdp_helper_need_resched(void)
{
	return need_resched();
}

unsigned int fgdp_helper_num_online_cpus(void)
{
	return num_online_cpus();
}

void fgdp_helper_cond_resched(void)
{
	cond_resched();
}

/* SO_LINGER in jiffies, or -1 when it is off. */
long fgdp_helper_sock_linger(const struct sock *sk)
{
	return sock_flag(sk, SOCK_LINGER) ? (long)sk->sk_lingertime : -1;
}

/* The value of an option that is set. */
int fgdp_helper_int_from_sockptr(int *value, sockptr_t from, unsigned int len)
{
	return copy_safe_from_sockptr(value, sizeof(*value), from, len);
}

/* The value of an option that is asked for, into what the user has room for. */
int fgdp_helper_put_option_int(int value, char *to, int *len)
{
	int room;

	if (get_user(room, (int __user __force *)len))
		return -EFAULT;
	if (room < 0)
		return -EINVAL;
	room = min_t(unsigned int, room, sizeof(value));
	if (put_user(room, (int __user __force *)len) ||
	    copy_to_user((void __user __force *)to, &value, room))
		return -EFAULT;
	return 0;
}

int fgdp_helper_put_user_int(int value, void *to)
{
	return put_user(value, (int __user __force *)to);
}

/* What TCP's accepted sockets have from their listener, as far as it matters. */
void fgdp_helper_sock_inherit(struct sock *sk, const struct sock *listener)
{
	sk->sk_sndbuf = READ_ONCE(listener->sk_sndbuf);
	sk->sk_rcvbuf = READ_ONCE(listener->sk_rcvbuf);
	sk->sk_rcvlowat = READ_ONCE(listener->sk_rcvlowat);
	sk->sk_rcvtimeo = READ_ONCE(listener->sk_rcvtimeo);
	sk->sk_sndtimeo = READ_ONCE(listener->sk_sndtimeo);
	sk->sk_priority = READ_ONCE(listener->sk_priority);
	sk->sk_mark = READ_ONCE(listener->sk_mark);
	sk->sk_userlocks = listener->sk_userlocks;
	if (sock_flag(listener, SOCK_LINGER)) {
		sk->sk_lingertime = READ_ONCE(listener->sk_lingertime);
		sock_set_flag(sk, SOCK_LINGER);
	}
	if (sock_flag(listener, SOCK_KEEPOPEN))
		sock_set_flag(sk, SOCK_KEEPOPEN);
	if (sock_flag(listener, SOCK_ZEROCOPY))
		sock_set_flag(sk, SOCK_ZEROCOPY);
#ifdef CONFIG_NET_RX_BUSY_POLL
	sk->sk_ll_usec = READ_ONCE(listener->sk_ll_usec);
#endif
}

/* SO_SNDBUF in bytes, or -1 when the user has not set it. */
int fgdp_helper_sk_fixed_sndbuf(const struct sock *sk)
{
	return sk->sk_userlocks & SOCK_SNDBUF_LOCK ? READ_ONCE(sk->sk_sndbuf) : -1;
}

bool fgdp_helper_may_bind_reserved(void)
{
	return ns_capable(init_net.user_ns, CAP_NET_BIND_SERVICE);
}

/*
 * Has setsockopt(SOL_SOCKET) come to the family first: the core knows
 * SO_ZEROCOPY for its own ones only.
 */
void fgdp_helper_sock_own_options(struct socket *sock)
{
	set_bit(SOCK_CUSTOM_SOCKOPT, &sock->flags);
}

int fgdp_helper_sock_setsockopt(struct socket *sock, int level, int name, sockptr_t value,
				unsigned int len)
{
	struct sock *sk = sock->sk;
	int on;

	if (level != SOL_SOCKET)
		return -EOPNOTSUPP;
	if (name != SO_ZEROCOPY || sock->type != SOCK_STREAM)
		return sock_setsockopt(sock, level, name, value, len);
	if (copy_safe_from_sockptr(&on, sizeof(on), value, len))
		return len < sizeof(on) ? -EINVAL : -EFAULT;
	if (on < 0 || on > 1)
		return -EINVAL;
	lock_sock(sk);
	sock_valbool_flag(sk, SOCK_ZEROCOPY, on);
	release_sock(sk);
	return 0;
}

bool fgdp_helper_sock_zerocopy(const struct sock *sk)
{
	return sock_flag(sk, SOCK_ZEROCOPY);
}

int fgdp_helper_copy_from_sockptr(void *to, size_t size, sockptr_t from, size_t len)
{
	return copy_safe_from_sockptr(to, size, from, len);
}

/* Whether the user has room for the value of an option, as 0. */
int fgdp_helper_option_room(size_t size, int *len)
{
	int room;

	if (get_user(room, (int __user __force *)len))
		return -EFAULT;
	return room < 0 || room < size ? -EINVAL : 0;
}

/* The value of an option that is asked for, whole. */
int fgdp_helper_put_option(const void *value, size_t size, char *to, int *len)
{
	if (put_user((int)size, (int __user __force *)len) ||
	    copy_to_user((void __user __force *)to, value, size))
		return -EFAULT;
	return 0;
}

/* Whether @msg asks for memory to be given away, or why not. */
int fgdp_helper_msg_transfer(struct msghdr *msg)
{
	struct cmsghdr *cmsg;
	bool transfer = false;

	for_each_cmsghdr(cmsg, msg) {
		if (!CMSG_OK(msg, cmsg))
			return -EINVAL;
		if (cmsg->cmsg_level != SOL_FGDP)
			continue;
		if (cmsg->cmsg_type != FGDP_TRANSFER || cmsg->cmsg_len != CMSG_LEN(0))
			return -EINVAL;
		transfer = true;
	}
	return transfer;
}

/* Calls @first to @last are complete: as the kernel tells for TCP. */
void fgdp_helper_put_zerocopy(struct msghdr *msg, u32 first, u32 last, bool copied)
{
	struct sock_extended_err err = {
		.ee_origin = SO_EE_ORIGIN_ZEROCOPY,
		.ee_code = copied ? SO_EE_CODE_ZEROCOPY_COPIED : 0,
		.ee_info = first,
		.ee_data = last,
	};

	put_cmsg(msg, SOL_FGDP, FGDP_RECVERR, sizeof(err), &err);
	msg->msg_flags |= MSG_ERRQUEUE;
}
