// SPDX-License-Identifier: GPL-2.0

#include <linux/io.h>
#include <linux/pgtable.h>
#include <linux/string.h>

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
