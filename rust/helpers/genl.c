// SPDX-License-Identifier: GPL-2.0

#include <net/genetlink.h>

void *fgdp_helper_genl_dump_put(struct sk_buff *skb, struct netlink_callback *cb)
{
	const struct genl_dumpit_info *info = genl_dumpit_info(cb);

	return genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
			   info->info.family, NLM_F_MULTI, info->op.cmd);
}

void fgdp_helper_genlmsg_end(struct sk_buff *skb, void *hdr)
{
	genlmsg_end(skb, hdr);
}

void fgdp_helper_genlmsg_cancel(struct sk_buff *skb, void *hdr)
{
	genlmsg_cancel(skb, hdr);
}

u8 fgdp_helper_genl_dump_cmd(struct netlink_callback *cb)
{
	return genl_dumpit_info(cb)->op.cmd;
}

const struct genl_family *fgdp_helper_genl_dump_family(struct netlink_callback *cb)
{
	return genl_dumpit_info(cb)->info.family;
}

/* What a dump remembers from one buffer to the next; zero at its beginning. */
u64 *fgdp_helper_genl_dump_cursor(struct netlink_callback *cb)
{
	BUILD_BUG_ON(sizeof(cb->ctx) < sizeof(u64));
	return (u64 *)cb->ctx;
}
