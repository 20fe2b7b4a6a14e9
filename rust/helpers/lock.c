// SPDX-License-Identifier: GPL-2.0

#include <linux/spinlock.h>

void fgdp_helper_spin_lock_init(struct spinlock *lock, const char *name,
				struct lock_class_key *key)
{
#ifdef CONFIG_DEBUG_SPINLOCK
	__raw_spin_lock_init(spinlock_check(lock), name, key, LD_WAIT_CONFIG);
#else
	spin_lock_init(lock);
#endif
}

void fgdp_helper_spin_lock_bh(struct spinlock *lock)
{
	spin_lock_bh(lock);
}

bool fgdp_helper_spin_trylock_bh(struct spinlock *lock)
{
	return spin_trylock_bh(lock);
}

void fgdp_helper_spin_unlock_bh(struct spinlock *lock)
{
	spin_unlock_bh(lock);
}

void fgdp_helper_local_bh_disable(void)
{
	local_bh_disable();
}

void fgdp_helper_local_bh_enable(void)
{
	local_bh_enable();
}

unsigned long fgdp_helper_spin_lock_irqsave(struct spinlock *lock)
{
	unsigned long flags;

	spin_lock_irqsave(lock, flags);
	return flags;
}

bool fgdp_helper_spin_trylock_irqsave(struct spinlock *lock, unsigned long *flags)
{
	return spin_trylock_irqsave(lock, *flags);
}

void fgdp_helper_spin_unlock_irqrestore(struct spinlock *lock, unsigned long flags)
{
	spin_unlock_irqrestore(lock, flags);
}

void fgdp_helper_lockdep_assert_held(struct spinlock *lock)
{
	lockdep_assert_held(lock);
}

/*
 * Orders stores before loads against another guest, too: a locked instruction
 * is not enough where a virtual CPU is emulated without its siblings in mind.
 */
void fgdp_helper_mb(void)
{
	/* Pairs with itself in the other guest. */
	mb();
}

void fgdp_helper_cpu_relax(void)
{
	cpu_relax();
}
