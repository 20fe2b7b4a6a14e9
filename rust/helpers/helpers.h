/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Inline functions and macros of the kernel that Rust cannot call. Each helper
 * is the function of the same name without the prefix.
 */
#ifndef FGDP_HELPERS_H
#define FGDP_HELPERS_H

#include <linux/types.h>

/* Constants that bindgen does not evaluate: enumerators and casts. */
enum fgdp_const {
	FGDP_CONST_SOCK_STREAM = SOCK_STREAM,
	FGDP_CONST_SOCK_SEQPACKET = SOCK_SEQPACKET,
	FGDP_CONST_O_NONBLOCK = O_NONBLOCK,
	FGDP_CONST_SEND_SHUTDOWN = SEND_SHUTDOWN,
	FGDP_CONST_EPOLLIN = (__force int)EPOLLIN,
	FGDP_CONST_EPOLLRDNORM = (__force int)EPOLLRDNORM,
	FGDP_CONST_EPOLLOUT = (__force int)EPOLLOUT,
	FGDP_CONST_EPOLLWRNORM = (__force int)EPOLLWRNORM,
	FGDP_CONST_EPOLLERR = (__force int)EPOLLERR,
	FGDP_CONST_EPOLLHUP = (__force int)EPOLLHUP,
	FGDP_CONST_EPOLLRDHUP = (__force int)EPOLLRDHUP,
	FGDP_CONST_TCP_INFO = TCP_INFO,
	FGDP_CONST_TCP_ULP = TCP_ULP,
	FGDP_CONST_TCP_REPAIR = TCP_REPAIR,
	FGDP_CONST_TCP_ZEROCOPY_RECEIVE = TCP_ZEROCOPY_RECEIVE,
	FGDP_CONST_SIOCINQ = SIOCINQ,
	FGDP_CONST_SIOCOUTQ = SIOCOUTQ,
	FGDP_CONST_VM_FAULT_OOM = (__force int)VM_FAULT_OOM,
	FGDP_CONST_VM_FAULT_SIGBUS = (__force int)VM_FAULT_SIGBUS,
	FGDP_CONST_VM_FAULT_NOPAGE = (__force int)VM_FAULT_NOPAGE,
	FGDP_CONST_VM_FAULT_FALLBACK = (__force int)VM_FAULT_FALLBACK,
	/* Pages that an entry of the next level of page tables maps. */
	FGDP_CONST_HUGE_PAGES = PMD_SIZE >> PAGE_SHIFT,
	FGDP_CONST_WINDOW_PAGE = FGDP_MMAP_WINDOW >> PAGE_SHIFT,
};

/* What a TCP connection is, and why it may not be one to carry. */
struct fgdp_tcp_facts {
	u8 addr[16];
	u8 peer_addr[16];
	u16 port;
	u16 peer_port;
	u32 snd_seq;
	u32 rcv_seq;
	u32 flags;
};

/* Where a TCP connection is: the next byte sent, read, and received. */
struct fgdp_tcp_seqs {
	u32 write;
	u32 copied;
	u32 rcv_nxt;
};

#define FGDP_TCP_KERNEL		0x01u
#define FGDP_TCP_ULP		0x02u
#define FGDP_TCP_USER_DATA	0x04u
#define FGDP_TCP_MPTCP		0x08u
#define FGDP_TCP_REPAIR		0x10u
#define FGDP_TCP_SENDER_WAITS	0x20u
#define FGDP_TCP_SENT		0x40u

/* Memory that programs map: the beginning of what Rust knows of it. */
struct fgdp_area {
	const struct fgdp_area_ops *ops;
};

struct fgdp_area_ops {
	void (*open)(struct fgdp_area *area);
	void (*close)(struct fgdp_area *area);
	/* Maps @page, or, if it is @present, lets it be written in place with 0. */
	vm_fault_t (*fault)(struct fgdp_area *area, struct vm_fault *vmf, unsigned long page,
			    bool write, bool present);
	/* Maps a whole entry of the next level from @page on, or says FALLBACK. */
	vm_fault_t (*huge_fault)(struct fgdp_area *area, struct vm_fault *vmf, unsigned long page,
				 bool write);
};

struct completion;
struct file;
struct iov_iter;
struct msghdr;
struct tcp_ulp_ops;
struct genl_family;
struct net;
struct netlink_callback;
struct page;
struct poll_table_struct;
struct proc_dir_entry;
struct scatterlist;
struct seq_file;
struct sk_buff;
struct sock;
struct socket;
struct ubuf_info;
struct vm_area_struct;
struct vm_fault;
struct virtio_device;
struct virtio_shm_region;
struct virtqueue;
struct virtqueue_info;
struct wait_queue_entry;
struct wait_queue_head;
struct workqueue_struct;
struct spinlock;
struct lock_class_key;

void fgdp_helper_sock_hold(struct sock *sk);
void fgdp_helper_sock_put(struct sock *sk);
void fgdp_helper_sock_orphan(struct sock *sk);
long fgdp_helper_sock_linger(const struct sock *sk);
int fgdp_helper_put_user_int(int value, void *to);
int fgdp_helper_int_from_sockptr(int *value, sockptr_t from, unsigned int len);
int fgdp_helper_put_option_int(int value, char *to, int *len);
void fgdp_helper_sock_inherit(struct sock *sk, const struct sock *listener);
int fgdp_helper_sk_fixed_sndbuf(const struct sock *sk);
void fgdp_helper_sock_own_options(struct socket *sock);
int fgdp_helper_copy_from_sockptr(void *to, size_t size, sockptr_t from, size_t len);
int fgdp_helper_option_room(size_t size, int *len);
int fgdp_helper_put_option(const void *value, size_t size, char *to, int *len);
int fgdp_helper_sock_setsockopt(struct socket *sock, int level, int name, sockptr_t value,
				unsigned int len);
bool fgdp_helper_sock_zerocopy(const struct sock *sk);
int fgdp_helper_msg_transfer(struct msghdr *msg);
void fgdp_helper_put_zerocopy(struct msghdr *msg, u32 first, u32 last, bool copied);
bool fgdp_helper_may_bind_reserved(void);

void fgdp_helper_tcp_facts(const struct sock *sk, struct fgdp_tcp_facts *facts);
bool fgdp_helper_sk_is_tcp(const struct sock *sk);
u32 fgdp_helper_tcp_write_seq(const struct sock *sk);
u32 fgdp_helper_tcp_copied_seq(const struct sock *sk);
u32 fgdp_helper_tcp_rcv_nxt(const struct sock *sk);
struct fgdp_tcp_seqs fgdp_helper_tcp_seqs(const struct sock *sk);
struct ubuf_info *fgdp_helper_zerocopy_begin(struct sock *sk);
void fgdp_helper_zerocopy_granted(struct ubuf_info *uarg);
void fgdp_helper_zerocopy_end(struct ubuf_info *uarg, bool sent);
int fgdp_helper_tcp_zerocopy_none(u32 bytes, bool end, char *to, int *len);
bool fgdp_helper_tcp_wants_zerocopy(const struct sock *sk, const struct msghdr *msg);
void fgdp_helper_tcp_set_path(struct sock *sk, const struct tcp_ulp_ops *ops, void *path);
void *fgdp_helper_tcp_path(const struct sock *sk, const struct tcp_ulp_ops *ops);
u64 fgdp_helper_tcp_bytes_received(const struct sock *sk);
u64 fgdp_helper_tcp_bytes_sent(const struct sock *sk);
u64 fgdp_helper_sock_cookie(struct sock *sk);
void fgdp_helper_trace_tcp_carry(struct sock *sk, u32 reason);
int fgdp_helper_add_tcp_info(char *info, int *len, u64 received, u64 acked, u64 sent);
void fgdp_helper_sock_detach(struct sock *sk);
int fgdp_helper_tcp_push(struct sock *sk, const void *from, size_t len);
bool fgdp_helper_tcp_wants_inq(const struct sock *sk, const struct msghdr *msg);
void fgdp_helper_tcp_put_inq(const struct sock *sk, struct msghdr *msg, u32 more, bool end);
bool fgdp_helper_tcp_is_needed(const struct sock *sk);
bool fgdp_helper_tcp_is_quiet(const struct sock *sk);
int fgdp_helper_tcp_check_control(struct sock *sk, struct msghdr *msg);
void fgdp_helper_sock_reset_at_close(struct sock *sk);
void fgdp_helper_sk_wake_writers(struct sock *sk);
void fgdp_helper_tracepoint_synchronize_unregister(void);
void *fgdp_helper_net_generic(const struct net *net, unsigned int id);
void fgdp_helper_walk_nets(void (*f)(struct net *net, void *arg), void *arg);
bool fgdp_helper_net_is_trusted(const struct net *net);
int fgdp_helper_cgroup_id(const char *path, u64 *id);
bool fgdp_helper_sk_in_cgroup(const struct sock *sk, u64 id);
unsigned int fgdp_helper_addresses(const struct net *net, u8 *out, unsigned int max);
struct wait_queue_head *fgdp_helper_sk_sleep(struct sock *sk);
struct net *fgdp_helper_sock_net(const struct sock *sk);
int fgdp_helper_sock_error(struct sock *sk);
bool fgdp_helper_sk_has_sleeper(struct sock *sk);
int fgdp_helper_sock_intr_errno(long timeo);
void fgdp_helper_sock_poll_wait(struct file *filp, struct socket *sock,
				struct poll_table_struct *p);
void fgdp_helper_sk_data_ready(struct sock *sk);
void fgdp_helper_sk_write_space(struct sock *sk);
void fgdp_helper_sk_state_change(struct sock *sk);
void fgdp_helper_sk_error_report(struct sock *sk);
unsigned int fgdp_helper_sk_busy_usec(const struct sock *sk);
void fgdp_helper_init_wait_woken(struct wait_queue_entry *wq_entry);
bool fgdp_helper_signal_pending(void);
bool fgdp_helper_need_resched(void);
unsigned int fgdp_helper_num_online_cpus(void);
void fgdp_helper_cond_resched(void);
void fgdp_helper_cpu_relax(void);
void fgdp_helper_mb(void);

void fgdp_helper_spin_lock_init(struct spinlock *lock, const char *name,
				struct lock_class_key *key);
void fgdp_helper_spin_lock_bh(struct spinlock *lock);
bool fgdp_helper_spin_trylock_bh(struct spinlock *lock);
void fgdp_helper_spin_unlock_bh(struct spinlock *lock);
void fgdp_helper_local_bh_disable(void);
void fgdp_helper_local_bh_enable(void);
unsigned long fgdp_helper_spin_lock_irqsave(struct spinlock *lock);
bool fgdp_helper_spin_trylock_irqsave(struct spinlock *lock, unsigned long *flags);
void fgdp_helper_spin_unlock_irqrestore(struct spinlock *lock, unsigned long flags);
void fgdp_helper_lockdep_assert_held(struct spinlock *lock);

struct proc_dir_entry *fgdp_helper_proc_net_mkdir(const char *name);
void *fgdp_helper_seq_pde_data(const struct seq_file *m);

void *fgdp_helper_genl_dump_put(struct sk_buff *skb, struct netlink_callback *cb);
void fgdp_helper_genlmsg_end(struct sk_buff *skb, void *hdr);
void fgdp_helper_genlmsg_cancel(struct sk_buff *skb, void *hdr);
u8 fgdp_helper_genl_dump_cmd(struct netlink_callback *cb);
const struct genl_family *fgdp_helper_genl_dump_family(struct netlink_callback *cb);
u64 *fgdp_helper_genl_dump_cursor(struct netlink_callback *cb);

struct workqueue_struct *fgdp_helper_alloc_workqueue(const char *name, bool bh);

void *fgdp_helper_vzalloc(unsigned long size);

bool fgdp_helper_module_get(void);
void fgdp_helper_module_put(void);
int fgdp_helper_area_check(struct vm_area_struct *vma);
bool fgdp_helper_area_is_asked(const struct vm_area_struct *vma);
void fgdp_helper_area_start(struct vm_area_struct *vma, struct fgdp_area *area);
unsigned long fgdp_helper_vma_pages(const struct vm_area_struct *vma);
struct file *fgdp_helper_vma_file(const struct vm_area_struct *vma);
struct vm_area_struct *fgdp_helper_lock_area(unsigned long addr);
void fgdp_helper_unlock_area(struct vm_area_struct *vma);
struct fgdp_area *fgdp_helper_area_of(const struct vm_area_struct *vma);
unsigned long fgdp_helper_area_page(const struct vm_area_struct *vma, unsigned long addr,
				    unsigned long *left);
void fgdp_helper_zap_pages(struct file *file, unsigned long first, unsigned long pages);
vm_fault_t fgdp_helper_insert_pfn(struct vm_fault *vmf, unsigned long ahead, unsigned long pfn,
				  bool writable);
vm_fault_t fgdp_helper_insert_huge(struct vm_fault *vmf, const void *addr, bool write);
unsigned long fgdp_helper_pfn(const void *addr);
unsigned long fgdp_helper_page_pfn(const struct page *page);

bool fgdp_helper_is_write_back(void *addr);
size_t fgdp_helper_copy_from_iter_nofault(void *to, size_t len, struct iov_iter *iter);
size_t fgdp_helper_copy_to_iter_nofault(const void *from, size_t len, struct iov_iter *iter);
size_t fgdp_helper_fault_in_readable(const struct iov_iter *iter, size_t len);
size_t fgdp_helper_fault_in_writeable(const struct iov_iter *iter, size_t len);
unsigned long fgdp_helper_iter_segment(const struct iov_iter *iter, size_t *len);
size_t fgdp_helper_iter_hide(struct iov_iter *iter, size_t len);
void fgdp_helper_iter_show(struct iov_iter *iter, size_t hidden);
void fgdp_helper_memcpy(void *to, const void *from, size_t len);
void fgdp_helper_memzero(void *to, size_t len);

int fgdp_helper_virtio_find_vqs(struct virtio_device *vdev, unsigned int nvqs,
				struct virtqueue *vqs[],
				struct virtqueue_info vqs_info[]);
void fgdp_helper_virtio_del_vqs(struct virtio_device *vdev);
bool fgdp_helper_virtio_get_shm_region(struct virtio_device *vdev,
				       struct virtio_shm_region *region, u8 id);
void fgdp_helper_virtio_device_ready(struct virtio_device *vdev);
bool fgdp_helper_virtio_cread_words(struct virtio_device *vdev,
				    unsigned int offset, void *buf, size_t words);
bool fgdp_helper_virtio_has_feature(const struct virtio_device *vdev,
				    unsigned int fbit);
void fgdp_helper_init_completion(struct completion *x);

#endif /* FGDP_HELPERS_H */
