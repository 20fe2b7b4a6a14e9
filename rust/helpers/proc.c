// SPDX-License-Identifier: GPL-2.0

#include <linux/fs.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <net/net_namespace.h>

struct proc_dir_entry *fgdp_helper_proc_net_mkdir(const char *name)
{
	return proc_net_mkdir(&init_net, name, init_net.proc_net);
}

/* What the file that is being read was created with. */
void *fgdp_helper_seq_pde_data(const struct seq_file *m)
{
	return pde_data(file_inode(m->file));
}
