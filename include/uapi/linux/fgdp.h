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

/*
 * Options of TCP sockets whose connection is to a peer. Others do not know
 * them: ENOPROTOOPT, or EOPNOTSUPP when asked; TCP carries them in any case.
 */
#define SOL_FGDP			0x4647

/*
 * int: 1 while rings carry the connection, else 0. Setting 0 takes it back to
 * TCP for good, and the socket becomes one of the others; setting 1 changes
 * nothing.
 */
#define FGDP_CARRY			1

/*
 * AF_FGDP stream sockets: the type of a control message, of level SOL_FGDP, that
 * recvmsg(MSG_ERRQUEUE) gives with a struct sock_extended_err of origin
 * SO_EE_ORIGIN_ZEROCOPY: calls of send with MSG_ZEROCOPY are complete. The peer
 * reads memory of mmap() on a connected socket in place; other memory is copied,
 * which SO_EE_CODE_ZEROCOPY_COPIED says. TCP sockets that are carried do the same,
 * but for the control message: it is IP_RECVERR or IPV6_RECVERR as ever.
 */
#define FGDP_RECVERR			2

/*
 * Such sockets: the type of a control message, of level SOL_FGDP and without data,
 * of sendmsg(MSG_ZEROCOPY): the call gives the pages that it grants away. The sender
 * has them no more, and finds zeroes where they were; the receiver has them until it
 * gives them back. What had to be copied stays as it is.
 */
#define FGDP_TRANSFER			6

/*
 * AF_FGDP stream sockets, and TCP sockets that are carried: reading what the peer
 * granted where it is. A program maps the first FGDP_WINDOW bytes (a __u64 that
 * getsockopt() gives) of the socket at FGDP_MMAP_WINDOW, MAP_SHARED.
 * getsockopt(FGDP_ZEROCOPY_RECEIVE) takes the grant that is next in the stream; its
 * pages are in the mapping until setsockopt(FGDP_ZEROCOPY_RELEASE) gives them back.
 * Who writes to one has a copy of it from then on.
 */
#define FGDP_WINDOW			3
#define FGDP_ZEROCOPY_RECEIVE		4
#define FGDP_ZEROCOPY_RELEASE		5

#define FGDP_MMAP_WINDOW		(1ULL << 40)

struct fgdp_zerocopy_receive {
	__u64 offset;		/* in the mapping, of the bytes */
	__u32 length;		/* of the bytes; 0 if none are there */
	__u32 recv_skip_hint;	/* bytes that recv() reads and that come first */
};

struct fgdp_zerocopy_release {
	__u64 offset;		/* in the mapping: all that was taken between it... */
	__u64 length;		/* ...and so many bytes on */
};

/*
 * The generic netlink family: every command is a dump that any user of the
 * initial network namespace may ask for. Numbers are in host byte order; a
 * "uint" has 4 or 8 bytes. Guest ids have FGDP_GUEST_ID_LEN bytes. Attributes
 * that a program does not know are to be ignored.
 */
#define FGDP_GENL_NAME			"fgdp"
#define FGDP_GENL_VERSION		1

enum fgdp_cmd {
	FGDP_CMD_UNSPEC,
	/* Connections and sockets that listen: FGDP_A_CONN_*. */
	FGDP_CMD_GET_CONNECTIONS,
	/* Members of the groups, present or past: FGDP_A_PEER_*. */
	FGDP_CMD_GET_PEERS,
	/* Counters, and the settings of the module: FGDP_A_STAT_*. */
	FGDP_CMD_GET_STATS,
	/* TCP connections to peers, carried or not: FGDP_A_TCP_*. */
	FGDP_CMD_GET_TCP,

	__FGDP_CMD_MAX,
	FGDP_CMD_MAX = __FGDP_CMD_MAX - 1
};

enum fgdp_conn_state {
	FGDP_CONN_STATE_LISTEN = 1,
	/* The peer has not answered yet. */
	FGDP_CONN_STATE_OPENING,
	FGDP_CONN_STATE_OPEN,
	/* The socket is closed and the peer has not read everything. */
	FGDP_CONN_STATE_CLOSING,
	/* Refused, reset, or the channel ended. */
	FGDP_CONN_STATE_DEAD,
};

enum fgdp_conn_attr {
	FGDP_A_CONN_UNSPEC,
	/* u32: the device, in the order of attachment; not of listeners. */
	FGDP_A_CONN_DEVICE,
	/* u32: the own id; not of listeners. */
	FGDP_A_CONN_ID,
	/* u32: the peer's id, once it is known. */
	FGDP_A_CONN_PEER_ID,
	/* u32: enum fgdp_conn_state. */
	FGDP_A_CONN_STATE,
	/* u32: SOCK_STREAM, SOCK_SEQPACKET, or 0: it carries a TCP connection. */
	FGDP_A_CONN_TYPE,
	/* Guest id; not of listeners. */
	FGDP_A_CONN_LOCAL_GUEST,
	/* u32. */
	FGDP_A_CONN_LOCAL_PORT,
	/* Guest id; not of listeners. */
	FGDP_A_CONN_REMOTE_GUEST,
	/* u32; not of listeners. */
	FGDP_A_CONN_REMOTE_PORT,
	/* uint: bytes received; not of listeners. */
	FGDP_A_CONN_RX_BYTES,
	/* uint: bytes sent; not of listeners. */
	FGDP_A_CONN_TX_BYTES,
	/* u32: bytes that can be read; of a listener, connections that wait. */
	FGDP_A_CONN_READABLE,
	/* u32: bytes that the peer has not read; of a listener, how many may wait. */
	FGDP_A_CONN_UNACKED,
	/* u32: size in bytes of the ring that is written to; not of listeners. */
	FGDP_A_CONN_TX_RING,
	/* uint: calls that slept for data; not of listeners. */
	FGDP_A_CONN_RX_WAITS,
	/* uint: calls that slept for space; not of listeners. */
	FGDP_A_CONN_TX_WAITS,

	__FGDP_A_CONN_MAX,
	FGDP_A_CONN_MAX = __FGDP_A_CONN_MAX - 1
};

enum fgdp_peer_attr {
	FGDP_A_PEER_UNSPEC,
	/* u32: the device, in the order of attachment. */
	FGDP_A_PEER_DEVICE,
	/* String: "virtio" or "loopback". */
	FGDP_A_PEER_TRANSPORT,
	/* u32. */
	FGDP_A_PEER_SLOT,
	/* Guest id. */
	FGDP_A_PEER_GUEST,
	/* String: the name that the host gave, if it gave one. */
	FGDP_A_PEER_NAME,
	/* u32: as in the peer directory. */
	FGDP_A_PEER_STATE,
	/* u32: generation of the slot. */
	FGDP_A_PEER_GENERATION,
	/* u32: 1 while the channel is up, else 0. */
	FGDP_A_PEER_CHANNEL_UP,
	/* u32: lanes of the channel. */
	FGDP_A_PEER_LANES,
	/* uint: frames lent to the peer. */
	FGDP_A_PEER_LENT_FRAMES,
	/* uint: those of them that are in use. */
	FGDP_A_PEER_USED_FRAMES,
	/* uint: frames that the peer lent. */
	FGDP_A_PEER_ACCEPTED_FRAMES,
	/* u32: the reason for which the last channel ended, 0: none. */
	FGDP_A_PEER_LAST_DOWN,
	/*
	 * Address: one attribute for each that the host says is the peer's. IPv4
	 * ones as ::ffff:a.b.c.d.
	 */
	FGDP_A_PEER_ADDR,

	__FGDP_A_PEER_MAX,
	FGDP_A_PEER_MAX = __FGDP_A_PEER_MAX - 1
};

enum fgdp_stat_attr {
	FGDP_A_STAT_UNSPEC,
	/* u32: the device; a setting of the module has none. */
	FGDP_A_STAT_DEVICE,
	/* String. */
	FGDP_A_STAT_NAME,
	/* uint. */
	FGDP_A_STAT_VALUE,

	__FGDP_A_STAT_MAX,
	FGDP_A_STAT_MAX = __FGDP_A_STAT_MAX - 1
};

/* Which way the next byte of a TCP connection goes, or comes. */
enum fgdp_tcp_way {
	FGDP_TCP_WAY_TCP = 1,
	FGDP_TCP_WAY_RING,
	/* That is just changing. */
	FGDP_TCP_WAY_BETWEEN,
	/* No way: it is being reset. */
	FGDP_TCP_WAY_RESET,
};

/* Why a TCP connection to a peer is not carried by rings, or not any more: the first reason. */
enum fgdp_tcp_reason {
	/* It is carried, or that is being found out. */
	FGDP_TCP_REASON_NONE,
	/* net.fgdp.inet was turned off. */
	FGDP_TCP_REASON_OFF,
	/* The kernel's own, another layer's, or of MPTCP. */
	FGDP_TCP_REASON_TAKEN,
	/* Bytes were on their way before TCP said that it is established. */
	FGDP_TCP_REASON_EARLY,
	/* No channel to the peer was up. */
	FGDP_TCP_REASON_NO_CHANNEL,
	/* Too many connections, or no memory. */
	FGDP_TCP_REASON_NO_MEMORY,
	/* The peer refused. */
	FGDP_TCP_REASON_REFUSED,
	/* The program did what only TCP can do. */
	FGDP_TCP_REASON_PROGRAM,
	/* The peer went back. */
	FGDP_TCP_REASON_PEER,
	/* The channel ended. */
	FGDP_TCP_REASON_CHANNEL_END,
	/* The lists of ports or cgroups (net.fgdp.inet_*) say so. */
	FGDP_TCP_REASON_POLICY,
};

/* Addresses have 16 bytes in network byte order, IPv4 ones as ::ffff:a.b.c.d. */
enum fgdp_tcp_attr {
	FGDP_A_TCP_UNSPEC,
	/* u32: the device, in the order of attachment. */
	FGDP_A_TCP_DEVICE,
	/* u32: the peer's slot. */
	FGDP_A_TCP_SLOT,
	/* uint: the socket's cookie (SO_COOKIE). */
	FGDP_A_TCP_COOKIE,
	/* Address. */
	FGDP_A_TCP_LOCAL_ADDR,
	/* u32. */
	FGDP_A_TCP_LOCAL_PORT,
	/* Address. */
	FGDP_A_TCP_REMOTE_ADDR,
	/* u32. */
	FGDP_A_TCP_REMOTE_PORT,
	/* u32: 1 if it was opened here, else 0. */
	FGDP_A_TCP_ACTIVE,
	/* u32: enum fgdp_tcp_way of what is sent. */
	FGDP_A_TCP_SENDS,
	/* u32: enum fgdp_tcp_way of what is received. */
	FGDP_A_TCP_RECEIVES,
	/* uint: bytes that came by the ring. */
	FGDP_A_TCP_RING_RX_BYTES,
	/* uint: bytes that went by the ring. */
	FGDP_A_TCP_RING_TX_BYTES,
	/* uint: bytes that came by TCP. */
	FGDP_A_TCP_RX_BYTES,
	/* uint: bytes that went by TCP, each counted once. */
	FGDP_A_TCP_TX_BYTES,
	/* u32: enum fgdp_tcp_reason. */
	FGDP_A_TCP_REASON,

	__FGDP_A_TCP_MAX,
	FGDP_A_TCP_MAX = __FGDP_A_TCP_MAX - 1
};

#endif /* _UAPI_LINUX_FGDP_H */
