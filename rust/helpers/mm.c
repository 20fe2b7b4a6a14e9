// SPDX-License-Identifier: GPL-2.0

#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/vmalloc.h>

static void area_open(struct vm_area_struct *vma)
{
	struct fgdp_area *area = vma->vm_private_data;

	area->ops->open(area);
}

static void area_close(struct vm_area_struct *vma)
{
	struct fgdp_area *area = vma->vm_private_data;

	area->ops->close(area);
}

static vm_fault_t area_fault(struct vm_fault *vmf)
{
	struct fgdp_area *area = vmf->vma->vm_private_data;

	return area->ops->fault(area, vmf, vmf->pgoff, vmf->flags & FAULT_FLAG_WRITE, false);
}

static vm_fault_t area_mkwrite(struct vm_fault *vmf)
{
	struct fgdp_area *area = vmf->vma->vm_private_data;

	return area->ops->fault(area, vmf, vmf->pgoff, true, true);
}

#ifdef CONFIG_ARCH_SUPPORTS_PMD_PFNMAP
static vm_fault_t area_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	struct vm_area_struct *vma = vmf->vma;
	struct fgdp_area *area = vma->vm_private_data;
	unsigned long address = vmf->address & PMD_MASK;
	unsigned long page;

	if (order != PMD_ORDER || address < vma->vm_start || vma->vm_end - address < PMD_SIZE)
		return VM_FAULT_FALLBACK;
	page = vma->vm_pgoff + ((address - vma->vm_start) >> PAGE_SHIFT);
	return area->ops->huge_fault(area, vmf, page, vmf->flags & FAULT_FLAG_WRITE);
}
#endif

static const struct vm_operations_struct area_vm_ops = {
	.open = area_open,
	.close = area_close,
	.fault = area_fault,
	.pfn_mkwrite = area_mkwrite,
#ifdef CONFIG_ARCH_SUPPORTS_PMD_PFNMAP
	.huge_fault = area_huge_fault,
#endif
};

bool fgdp_helper_module_get(void)
{
	return try_module_get(THIS_MODULE);
}

void fgdp_helper_module_put(void)
{
	module_put(THIS_MODULE);
}

/* Whether @vma of a TCP socket can be nothing else: TCP's own ones are not written to. */
bool fgdp_helper_area_is_asked(const struct vm_area_struct *vma)
{
	bool window = vma->vm_pgoff == FGDP_MMAP_WINDOW >> PAGE_SHIFT;

	return window || (vma->vm_flags & (VM_SHARED | VM_WRITE)) == (VM_SHARED | VM_WRITE);
}

/* Why @vma cannot be an area, 0 if it can, or 1 if it can be a window. */
int fgdp_helper_area_check(struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	if (vma->vm_flags & VM_EXEC)
		return -EPERM;
	if (vma->vm_pgoff == FGDP_MMAP_WINDOW >> PAGE_SHIFT)
		return 1;
	return vma->vm_pgoff ? -EINVAL : 0;
}

/*
 * Makes @vma one of @area, whose frames have no struct page that counts. A child
 * does not inherit it: it would write to what its parent takes for its own.
 */
void fgdp_helper_area_start(struct vm_area_struct *vma, struct fgdp_area *area)
{
	vm_flags_mod(vma, VM_PFNMAP | VM_DONTEXPAND | VM_DONTCOPY | VM_DONTDUMP, VM_MAYEXEC);
	vma->vm_private_data = area;
	vma->vm_ops = &area_vm_ops;
}

unsigned long fgdp_helper_vma_pages(const struct vm_area_struct *vma)
{
	return vma_pages(vma);
}

struct file *fgdp_helper_vma_file(const struct vm_area_struct *vma)
{
	return vma->vm_file;
}

/* The area that the caller's memory at @addr belongs to, with the lock that keeps it, or NULL. */
struct vm_area_struct *fgdp_helper_lock_area(unsigned long addr)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;

	if (!mm || mmap_read_lock_killable(mm))
		return NULL;
	vma = vma_lookup(mm, untagged_addr(addr));
	if (vma && vma->vm_ops == &area_vm_ops)
		return vma;
	mmap_read_unlock(mm);
	return NULL;
}

void fgdp_helper_unlock_area(struct vm_area_struct *vma)
{
	mmap_read_unlock(vma->vm_mm);
}

struct fgdp_area *fgdp_helper_area_of(const struct vm_area_struct *vma)
{
	return vma->vm_private_data;
}

/* The page of the area that @addr is in; how many pages of @vma there are from it on. */
unsigned long fgdp_helper_area_page(const struct vm_area_struct *vma, unsigned long addr,
				    unsigned long *left)
{
	addr = untagged_addr(addr);
	*left = (vma->vm_end - addr) >> PAGE_SHIFT;
	return vma->vm_pgoff + ((addr - vma->vm_start) >> PAGE_SHIFT);
}

/* Takes @pages pages of the area off the page tables; whoever touches them faults. */
void fgdp_helper_zap_pages(struct file *file, unsigned long first, unsigned long pages)
{
	unmap_mapping_range(file->f_mapping, (loff_t)first << PAGE_SHIFT,
			    (loff_t)pages << PAGE_SHIFT, 1);
}

/*
 * Maps a page of the faulting mapping: that of the fault, or one that is @ahead of
 * it in the same page table. What is behind that may be mapped by one entry of the
 * next level, and so may this one be since the fault: under the caller's lock it
 * stays as it is.
 */
vm_fault_t fgdp_helper_insert_pfn(struct vm_fault *vmf, unsigned long ahead, unsigned long pfn,
				  bool writable)
{
	unsigned long address = vmf->address + (ahead << PAGE_SHIFT);
	vm_flags_t flags = vmf->vma->vm_flags;

	if (address >= vmf->vma->vm_end || ((address ^ vmf->address) & PMD_MASK))
		return VM_FAULT_SIGBUS;
	/* The access finds it, or faults once more. */
	if (pmd_leaf(pmdp_get_lockless(vmf->pmd)))
		return VM_FAULT_NOPAGE;

	/* What is not to be written is mapped as if a write had to copy it. */
	if (!writable)
		flags &= ~VM_SHARED;
	return vmf_insert_pfn_prot(vmf->vma, address, pfn, vm_get_page_prot(flags));
}

/*
 * Maps an entry of the next level of page tables: memory without gaps that memremap()
 * mapped at @addr. The caller's lock keeps others from making entries there, and what
 * is there already is that memory.
 */
vm_fault_t fgdp_helper_insert_huge(struct vm_fault *vmf, const void *addr, bool write)
{
#ifdef CONFIG_ARCH_SUPPORTS_PMD_PFNMAP
	unsigned long pfn = vmalloc_to_pfn(addr);
	pmd_t pmd = pmdp_get_lockless(vmf->pmd);

	if (!IS_ALIGNED(pfn, PMD_SIZE >> PAGE_SHIFT))
		return VM_FAULT_FALLBACK;
	/* Small pages stay small: their table would have to go. */
	if (!pmd_none(pmd) && !pmd_leaf(pmd))
		return VM_FAULT_FALLBACK;
	return vmf_insert_pfn_pmd(vmf, pfn, write);
#else
	return VM_FAULT_FALLBACK;
#endif
}

/* The frame number of memory that vmalloc() or memremap() mapped. */
unsigned long fgdp_helper_pfn(const void *addr)
{
	return vmalloc_to_pfn(addr);
}

unsigned long fgdp_helper_page_pfn(const struct page *page)
{
	return page_to_pfn(page);
}
