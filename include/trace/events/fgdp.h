/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM fgdp

#if !defined(_TRACE_FGDP_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_FGDP_H

#include <linux/tracepoint.h>
#include <net/sock.h>
#include <trace/events/net_probe_common.h>
#include <uapi/linux/fgdp.h>

TRACE_DEFINE_ENUM(FGDP_TCP_REASON_NONE);
TRACE_DEFINE_ENUM(FGDP_TCP_REASON_OFF);
TRACE_DEFINE_ENUM(FGDP_TCP_REASON_TAKEN);
TRACE_DEFINE_ENUM(FGDP_TCP_REASON_EARLY);
TRACE_DEFINE_ENUM(FGDP_TCP_REASON_NO_CHANNEL);
TRACE_DEFINE_ENUM(FGDP_TCP_REASON_NO_MEMORY);
TRACE_DEFINE_ENUM(FGDP_TCP_REASON_REFUSED);
TRACE_DEFINE_ENUM(FGDP_TCP_REASON_PROGRAM);
TRACE_DEFINE_ENUM(FGDP_TCP_REASON_PEER);
TRACE_DEFINE_ENUM(FGDP_TCP_REASON_CHANNEL_END);
TRACE_DEFINE_ENUM(FGDP_TCP_REASON_POLICY);

/* A TCP connection to a peer is carried by rings from here on, or is not, or not any more. */
TRACE_EVENT(fgdp_tcp_carry,

	TP_PROTO(const struct sock *sk, u64 cookie, u32 reason),

	TP_ARGS(sk, cookie, reason),

	TP_STRUCT__entry(
		__field(u64, cookie)
		__field(u32, reason)
		__field(u16, family)
		__field(u16, sport)
		__field(u16, dport)
		__array(u8, saddr, sizeof(struct sockaddr_in6))
		__array(u8, daddr, sizeof(struct sockaddr_in6))
	),

	TP_fast_assign(
		const struct inet_sock *inet = inet_sk(sk);

		__entry->cookie = cookie;
		__entry->reason = reason;
		__entry->family = sk->sk_family;
		__entry->sport = ntohs(inet->inet_sport);
		__entry->dport = ntohs(inet->inet_dport);
		memset(__entry->saddr, 0, sizeof(struct sockaddr_in6));
		memset(__entry->daddr, 0, sizeof(struct sockaddr_in6));
		TP_STORE_ADDR_PORTS(__entry, inet, sk);
	),

	TP_printk("family=%u src=%pISpc dest=%pISpc sock_cookie=%llx reason=%s",
		  __entry->family, __entry->saddr, __entry->daddr,
		  __entry->cookie,
		  __print_symbolic(__entry->reason,
				   { FGDP_TCP_REASON_NONE, "carried" },
				   { FGDP_TCP_REASON_OFF, "off" },
				   { FGDP_TCP_REASON_TAKEN, "taken" },
				   { FGDP_TCP_REASON_EARLY, "early" },
				   { FGDP_TCP_REASON_NO_CHANNEL, "no_channel" },
				   { FGDP_TCP_REASON_NO_MEMORY, "no_memory" },
				   { FGDP_TCP_REASON_REFUSED, "refused" },
				   { FGDP_TCP_REASON_PROGRAM, "program" },
				   { FGDP_TCP_REASON_PEER, "peer" },
				   { FGDP_TCP_REASON_CHANNEL_END, "channel_end" },
				   { FGDP_TCP_REASON_POLICY, "policy" }))
);

#endif /* _TRACE_FGDP_H */

/* This part must be outside protection. */
#include <trace/define_trace.h>
