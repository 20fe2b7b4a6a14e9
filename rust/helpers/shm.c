// SPDX-License-Identifier: GPL-2.0

#include <linux/io.h>
#include <linux/iov_iter.h>
#include <linux/pgtable.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/uio.h>

/*
 * memremap(MEMREMAP_WB) succeeds with uncached pages where a firmware range
 * register or another reservation says so: every access would then leave the guest.
 */
bool fgdp_helper_is_write_back(void *addr)
{
#ifdef CONFIG_X86
	unsigned int level;
	pte_t *pte = lookup_address((unsigned long)addr, &level);
	pteval_t mask = _PAGE_PCD | _PAGE_PWT;

	if (!pte || level == PG_LEVEL_NONE)
		return false;
	mask |= level == PG_LEVEL_4K ? _PAGE_PAT : _PAGE_PAT_LARGE;
	return !(pte_val(*pte) & mask);
#else
	return true;
#endif
}

/* The compiler must not assume that memory which another guest writes is still. */
void fgdp_helper_memcpy(void *to, const void *from, size_t len)
{
	barrier();
	memcpy(to, from, len);
	barrier();
}

void fgdp_helper_memzero(void *to, size_t len)
{
	memset(to, 0, len);
	barrier();
}

/*
 * Whether the processor moves strings word by word: emulated ones do. There a
 * loop of moves is faster, in both directions, and the kernel has one that also
 * leaves the cache alone. Real processors move strings a cache line at a time,
 * and what is read next had better be in the cache.
 */
static bool fgdp_string_moves_are_slow(void)
{
#ifdef CONFIG_X86_64
	return !cpu_feature_enabled(X86_FEATURE_REP_GOOD) &&
	       !cpu_feature_enabled(X86_FEATURE_ERMS);
#else
	return false;
#endif
}

#ifdef copy_to_nontemporal
/* It minds the faults of its stores as well as those of its loads. */
static size_t fgdp_move_to_user(void __user *to, size_t progress, size_t len, void *from,
				void *unused)
{
	if (!user_access_begin(to, len))
		return len;
	len = copy_to_nontemporal((__force void *)to, from + progress, len);
	user_access_end();
	return len;
}

static size_t fgdp_move(void *to, size_t progress, size_t len, void *from, void *unused)
{
	memcpy(to, from + progress, len);
	return 0;
}

static size_t fgdp_move_to_iter(const void *from, size_t len, struct iov_iter *iter)
{
	return iterate_and_advance(iter, len, (void *)from, fgdp_move_to_user, fgdp_move);
}
#else
#define fgdp_move_to_iter _copy_to_iter
#endif

/*
 * Copies that do not wait for user memory: whoever holds a ring's frames must
 * let them go in bounded time, and a page fault may take for ever.
 */
size_t fgdp_helper_copy_from_iter_nofault(void *to, size_t len, struct iov_iter *iter)
{
	size_t copied;

	pagefault_disable();
	if (len >= PAGE_SIZE && fgdp_string_moves_are_slow())
		copied = _copy_from_iter_nocache(to, len, iter);
	else
		copied = _copy_from_iter(to, len, iter);
	pagefault_enable();
	return copied;
}

size_t fgdp_helper_copy_to_iter_nofault(const void *from, size_t len, struct iov_iter *iter)
{
	size_t copied;

	pagefault_disable();
	if (len >= PAGE_SIZE && fgdp_string_moves_are_slow())
		copied = fgdp_move_to_iter(from, len, iter);
	else
		copied = _copy_to_iter(from, len, iter);
	pagefault_enable();
	return copied;
}

/* How many of @len bytes user memory cannot give; brings the others in. */
size_t fgdp_helper_fault_in_readable(const struct iov_iter *iter, size_t len)
{
	return fault_in_iov_iter_readable(iter, len);
}

/* How many of @len bytes user memory cannot take; brings the others in. */
size_t fgdp_helper_fault_in_writeable(const struct iov_iter *iter, size_t len)
{
	return fault_in_iov_iter_writeable(iter, len);
}

/* The caller's memory that is next in @iter: its address and length, or 0 if it is other memory. */
unsigned long fgdp_helper_iter_segment(const struct iov_iter *iter, size_t *len)
{
	if (!user_backed_iter(iter) || !iov_iter_count(iter))
		return 0;
	*len = min(iter_iov_len(iter), iov_iter_count(iter));
	return (unsigned long)iter_iov_addr(iter);
}

/* Leaves @len bytes of @iter to be seen; returns how many are not. */
size_t fgdp_helper_iter_hide(struct iov_iter *iter, size_t len)
{
	size_t count = iov_iter_count(iter);

	iov_iter_truncate(iter, len);
	return count - iov_iter_count(iter);
}

void fgdp_helper_iter_show(struct iov_iter *iter, size_t hidden)
{
	iov_iter_reexpand(iter, iov_iter_count(iter) + hidden);
}
