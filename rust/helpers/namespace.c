// SPDX-License-Identifier: GPL-2.0

#include <linux/cgroup.h>
#include <linux/user_namespace.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>

#include "helpers.h"

void *fgdp_helper_net_generic(const struct net *net, unsigned int id)
{
	return net_generic(net, id);
}

void fgdp_helper_walk_nets(void (*f)(struct net *net, void *arg), void *arg)
{
	struct net *net;

	down_read(&net_rwsem);
	for_each_net(net)
		f(net, arg);
	up_read(&net_rwsem);
}

/* Whether the namespace's administrator is the machine's. */
bool fgdp_helper_net_is_trusted(const struct net *net)
{
	return net->user_ns == &init_user_ns;
}

/* The id of the cgroup at @path, which is 0 for nobody. */
int fgdp_helper_cgroup_id(const char *path, u64 *id)
{
	struct cgroup *cgrp = cgroup_get_from_path(path);

	if (IS_ERR(cgrp))
		return PTR_ERR(cgrp);
	*id = cgroup_id(cgrp);
	cgroup_put(cgrp);
	return 0;
}

/* Whether the socket belongs to the cgroup with the id, or to one below it. */
bool fgdp_helper_sk_in_cgroup(const struct sock *sk, u64 id)
{
#ifdef CONFIG_SOCK_CGROUP_DATA
	struct cgroup *cgrp = sock_cgroup_ptr((struct sock_cgroup_data *)&sk->sk_cgrp_data);
	int level;

	for (level = 0; cgrp && level <= cgrp->level; level++) {
		struct cgroup *above = cgroup_ancestor(cgrp, level);

		if (above && cgroup_id(above) == id)
			return true;
	}
#endif
	return false;
}
