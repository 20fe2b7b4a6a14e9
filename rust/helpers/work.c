// SPDX-License-Identifier: GPL-2.0

#include <linux/workqueue.h>

struct workqueue_struct *fgdp_helper_alloc_workqueue(const char *name, bool bh)
{
	if (bh)
		return alloc_workqueue("%s", WQ_BH | WQ_PERCPU, 0, name);
	return alloc_workqueue("%s", WQ_UNBOUND | WQ_MEM_RECLAIM, 0, name);
}

void *fgdp_helper_vzalloc(unsigned long size)
{
	return vzalloc(size);
}
