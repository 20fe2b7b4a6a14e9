/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Fast Guest Data Path: the socket family AF_FGDP.
 */
#ifndef _UAPI_LINUX_FGDP_H
#define _UAPI_LINUX_FGDP_H

#include <linux/types.h>

/*
 * The family number is not assigned: the module takes the one its parameter
 * `family` names. The line module.family of
 * /proc/net/fgdp/stats tells which that is.
 */
#define FGDP_FAMILY_DEFAULT		18

#define FGDP_GUEST_ID_LEN		16

/*
 * As a guest id all zero means any guest (bind) or this guest (connect). All
 * ones is this guest's name for itself; no host gives it to a guest.
 */

/* Let the kernel choose the port. */
#define FGDP_PORT_ANY			0xffffffffu

/* Binding to a port below this takes CAP_NET_BIND_SERVICE. */
#define FGDP_PORT_RESERVED		1024u

struct sockaddr_fgdp {
	__u16 sfg_family;
	__u16 sfg_reserved;		/* must be zero */
	__u32 sfg_port;			/* host byte order */
	__u8 sfg_guest[FGDP_GUEST_ID_LEN];
};

#endif /* _UAPI_LINUX_FGDP_H */
