// SPDX-License-Identifier: GPL-2.0

#include <linux/sock_diag.h>

#define CREATE_TRACE_POINTS
#include <trace/events/fgdp.h>

#include "helpers.h"

/* As SO_COOKIE. */
u64 fgdp_helper_sock_cookie(struct sock *sk)
{
	u32 cookie[2];

	sock_diag_save_cookie(sk, cookie);
	return cookie[0] | (u64)cookie[1] << 32;
}

void fgdp_helper_trace_tcp_carry(struct sock *sk, u32 reason)
{
	if (trace_fgdp_tcp_carry_enabled())
		trace_fgdp_tcp_carry(sk, fgdp_helper_sock_cookie(sk), reason);
}
