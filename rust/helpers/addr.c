// SPDX-License-Identifier: GPL-2.0

#include <linux/inetdevice.h>
#include <linux/netdevice.h>
#include <net/addrconf.h>
#include <net/if_inet6.h>
#include <net/ipv6.h>

/*
 * Writes the addresses of the namespace's devices to @out, 16 bytes each, IPv4
 * ones as ::ffff:a.b.c.d; not those of loopback devices, nor link-local ones.
 * Returns how many there are, which may be more than @max.
 */
unsigned int fgdp_helper_addresses(const struct net *net, u8 *out, unsigned int max)
{
	struct net_device *dev;
	unsigned int n = 0;

	rcu_read_lock();
	for_each_netdev_rcu(net, dev) {
		struct in_device *in_dev = __in_dev_get_rcu(dev);
		const struct in_ifaddr *ifa;
#if IS_ENABLED(CONFIG_IPV6)
		struct inet6_dev *idev = __in6_dev_get(dev);
		struct inet6_ifaddr *ifp;
#endif

		if (dev->flags & IFF_LOOPBACK)
			continue;
		if (in_dev) {
			in_dev_for_each_ifa_rcu(ifa, in_dev) {
				struct in6_addr mapped;

				ipv6_addr_set_v4mapped(ifa->ifa_local, &mapped);
				if (n < max)
					memcpy(out + n * sizeof(mapped), &mapped, sizeof(mapped));
				n++;
			}
		}
#if IS_ENABLED(CONFIG_IPV6)
		if (!idev)
			continue;
		list_for_each_entry_rcu(ifp, &idev->addr_list, if_list) {
			if (ipv6_addr_type(&ifp->addr) & IPV6_ADDR_LINKLOCAL)
				continue;
			if (n < max)
				memcpy(out + n * sizeof(ifp->addr), &ifp->addr, sizeof(ifp->addr));
			n++;
		}
#endif
	}
	rcu_read_unlock();
	return n;
}
