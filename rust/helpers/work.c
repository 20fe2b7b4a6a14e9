// SPDX-License-Identifier: GPL-2.0

#include <linux/workqueue.h>

void fgdp_helper_init_work(struct work_struct *work,
			   void (*func)(struct work_struct *work))
{
	INIT_WORK(work, func);
}

bool fgdp_helper_queue_work(struct workqueue_struct *wq,
			    struct work_struct *work)
{
	return queue_work(wq, work);
}

struct workqueue_struct *fgdp_helper_alloc_workqueue(const char *name)
{
	return alloc_workqueue("%s", WQ_UNBOUND | WQ_MEM_RECLAIM, 0, name);
}

void *fgdp_helper_vzalloc(unsigned long size)
{
	return vzalloc(size);
}
