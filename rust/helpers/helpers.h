/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Inline functions and macros of the kernel that Rust cannot call. Each helper
 * is the function of the same name without the prefix.
 */
#ifndef FGDP_HELPERS_H
#define FGDP_HELPERS_H

#include <linux/types.h>

struct file;
struct net;
struct poll_table_struct;
struct scatterlist;
struct sock;
struct socket;
struct socket_wq;
struct virtio_device;
struct virtio_shm_region;
struct virtqueue;
struct virtqueue_info;
struct wait_queue_entry;
struct wait_queue_head;
struct work_struct;
struct workqueue_struct;
struct spinlock;
struct lock_class_key;

void fgdp_helper_sock_hold(struct sock *sk);
void fgdp_helper_sock_put(struct sock *sk);
void fgdp_helper_sock_orphan(struct sock *sk);
void fgdp_helper_sock_graft(struct sock *sk, struct socket *parent);
struct wait_queue_head *fgdp_helper_sk_sleep(struct sock *sk);
struct net *fgdp_helper_sock_net(const struct sock *sk);
int fgdp_helper_sock_error(struct sock *sk);
long fgdp_helper_sock_rcvtimeo(const struct sock *sk, bool noblock);
long fgdp_helper_sock_sndtimeo(const struct sock *sk, bool noblock);
int fgdp_helper_sock_rcvlowat(const struct sock *sk, int waitall, int len);
int fgdp_helper_sock_intr_errno(long timeo);
void fgdp_helper_sock_poll_wait(struct file *filp, struct socket *sock,
				struct poll_table_struct *p);
bool fgdp_helper_sock_flag(const struct sock *sk, int flag);
void fgdp_helper_sock_set_flag(struct sock *sk, int flag);
bool fgdp_helper_skwq_has_sleeper(struct socket_wq *wq);
bool fgdp_helper_sk_has_sleeper(struct sock *sk);
void fgdp_helper_sk_data_ready(struct sock *sk);
void fgdp_helper_sk_write_space(struct sock *sk);
void fgdp_helper_sk_state_change(struct sock *sk);
void fgdp_helper_sk_error_report(struct sock *sk);
unsigned int fgdp_helper_sk_busy_usec(const struct sock *sk);
void fgdp_helper_init_wait_woken(struct wait_queue_entry *wq_entry);
bool fgdp_helper_signal_pending(void);
bool fgdp_helper_need_resched(void);
void fgdp_helper_cond_resched(void);
void fgdp_helper_cpu_relax(void);
void fgdp_helper_mb(void);

void fgdp_helper_spin_lock_init(struct spinlock *lock, const char *name,
				struct lock_class_key *key);
void fgdp_helper_spin_lock_bh(struct spinlock *lock);
bool fgdp_helper_spin_trylock_bh(struct spinlock *lock);
void fgdp_helper_spin_unlock_bh(struct spinlock *lock);
void fgdp_helper_lockdep_assert_held(struct spinlock *lock);

void fgdp_helper_init_work(struct work_struct *work,
			   void (*func)(struct work_struct *work));
bool fgdp_helper_queue_work(struct workqueue_struct *wq,
			    struct work_struct *work);
struct workqueue_struct *fgdp_helper_alloc_workqueue(const char *name);

unsigned int fgdp_helper_iov_iter_count(const void *iter);
void *fgdp_helper_vzalloc(unsigned long size);

#endif /* FGDP_HELPERS_H */
