/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Fast Guest Data Path: the virtio device, the hypercall table and the
 * layouts of the memory that the members of a group share.
 *
 * All integers are little-endian. Offsets are in bytes. Reserved fields are
 * written as zero and ignored when read.
 */
#ifndef _UAPI_LINUX_VIRTIO_FGDP_H
#define _UAPI_LINUX_VIRTIO_FGDP_H

#include <linux/types.h>

/* The virtio device id; the PCI device id is 0x1040 plus this. */
#define VIRTIO_ID_FGDP			61

/* The version of everything in this file. A mismatch ends the attach. */
#define FGDP_ABI			1

/* Shared memory regions of the device (virtio 1.2, 2.10). */
#define FGDP_SHM_SLOT			0	/* own slot, read-write */
#define FGDP_SHM_GROUP			1	/* whole group, read-only */

/*
 * Virtqueues. The doorbell queue carries struct fgdp_doorbell from driver to
 * device. Lane queue n (FGDP_VQ_LANE0 + n) returns one struct fgdp_doorbell for
 * one or more doorbells that members rang for lane n of this guest.
 */
#define FGDP_VQ_CONTROL			0
#define FGDP_VQ_EVENT			1
#define FGDP_VQ_DOORBELL		2
#define FGDP_VQ_LANE0			3

#define FGDP_FRAME_SHIFT		12
#define FGDP_FRAME_SIZE			(1u << FGDP_FRAME_SHIFT)
/* An extent is a run of frames whose first PFN is a multiple of this. */
#define FGDP_EXTENT_FRAMES		512

#define FGDP_MAX_SLOTS			32	/* slot 0 included */
#define FGDP_MAX_LANES			4
#define FGDP_MAX_ADDRS			8
#define FGDP_ID_LEN			16
#define FGDP_NO_IVSHMEM			0xffffffffu

/* Device configuration space. Read-only for the driver. */
struct virtio_fgdp_config {
	__le32 abi;			/* FGDP_ABI */
	__le32 slot;			/* own slot, 1 .. FGDP_MAX_SLOTS - 1 */
	__le64 group_size;		/* of the group's memory */
	__le64 slot_offset;		/* of the own slot in the group */
	__le64 slot_size;		/* a multiple of 2 MiB */
	__u8 guest_id[FGDP_ID_LEN];
	__le32 generation;		/* of the own slot; changes when it is cleared */
	__le16 max_lanes;		/* 1 .. FGDP_MAX_LANES */
	__le16 reserved;
	__u8 group_id[FGDP_ID_LEN];	/* the same in the doorbell device's memory */
};

/* ------------------------------------------------------------------ slot 0 */

#define FGDP_HOST_MAGIC			0x54534f4850444746ULL	/* "FGDPHOST" */

/* At offset 0 of the group: the root of what the host tells. */
struct fgdp_host_hdr {
	__le64 magic;
	__le32 abi;
	__le32 table_offset;		/* of the hypercall table, from the group's start */
	__le32 table_entries;		/* at most FGDP_MAX_CALLS */
	__le32 dir_offset;		/* of the peer directory, from the group's start */
	__le32 dir_entries;		/* at most FGDP_MAX_SLOTS; entry n is slot n */
	__le32 reserved;
};

#define FGDP_MAX_CALLS			64

/* One line of the hypercall table. */
struct fgdp_call_entry {
	__le16 nr;			/* FGDP_CALL_* */
	__le16 version;			/* 1 for all calls of this file */
	__le32 flags;			/* FGDP_CALL_F_* */
	__le64 quota;			/* what it bounds is said at the call; 0: none */
};

/* The driver must know the call or refuse to start. */
#define FGDP_CALL_F_REQUIRED		(1u << 0)

/* A guest's state in the peer directory. */
#define FGDP_PEER_ABSENT		0
#define FGDP_PEER_ATTACHED		1	/* has the device, said no HELLO yet */
#define FGDP_PEER_READY			2	/* HELLO answered: channels can be opened */

#define FGDP_CLASS_LOCAL		0	/* same host, same memory */
#define FGDP_CLASS_CLUSTER		1	/* behind fgdpd (not in this version) */

/*
 * The peer directory. seq is odd while the host writes the entry; a reader that
 * sees it odd, or changed after it read the rest, reads again (bounded).
 */
struct fgdp_dir_entry {
	__le32 seq;
	__le32 state;			/* FGDP_PEER_* */
	__le32 generation;
	__le16 class;			/* FGDP_CLASS_* */
	__le16 lanes;			/* that the member drains */
	__u8 guest_id[FGDP_ID_LEN];
	__le64 slot_offset;
	__le64 slot_size;
	__le32 ivshmem_id;		/* or FGDP_NO_IVSHMEM */
	__le32 num_addrs;
	__u8 addrs[FGDP_MAX_ADDRS][16];	/* IPv6, or IPv4 as ::ffff:a.b.c.d */
	__u8 name[32];			/* NUL-padded, for people */
	__u8 reserved[32];
};

/* ----------------------------------------------------------- control queue */

/*
 * A request is struct fgdp_call and its payload, all driver-readable; the reply
 * is struct fgdp_reply and its payload in the device-writable part.
 */
struct fgdp_call {
	__le16 nr;
	__le16 version;
	__le32 len;			/* of the payload */
	__le64 cookie;			/* returned in the reply */
};

struct fgdp_reply {
	__le32 status;			/* FGDP_S_* */
	__le32 len;			/* of the payload */
	__le64 cookie;
};

#define FGDP_CALL_HELLO			1	/* fgdp_hello -> fgdp_hello */
#define FGDP_CALL_ADDR_ADD		2	/* fgdp_addr; quota: addresses per guest */
#define FGDP_CALL_ADDR_DEL		3	/* fgdp_addr */
#define FGDP_CALL_CHANNEL_OPEN		4	/* fgdp_channel */
#define FGDP_CALL_CHANNEL_CLOSE		5	/* fgdp_channel */
#define FGDP_CALL_FRAMES		6	/* fgdp_frames; quota: frames offered per peer */
#define FGDP_CALL_STATS			7	/* -> fgdp_host_stats; optional */
#define FGDP_CALL_BYE			8	/* the driver goes; no payload */

#define FGDP_S_OK			0
#define FGDP_S_UNKNOWN_CALL		1
#define FGDP_S_BAD_LENGTH		2
#define FGDP_S_BAD_VALUE		3
#define FGDP_S_NOT_ALLOWED		4	/* identity: the address is not this guest's */
#define FGDP_S_NO_PEER			5	/* absent, or of another generation */
#define FGDP_S_QUOTA			6
#define FGDP_S_OVERLAP			7
#define FGDP_S_STATE			8	/* not in this order */
#define FGDP_S_BAD_ABI			9

struct fgdp_hello {
	__le32 abi;
	__le32 generation;		/* reply: of the own slot */
	__le16 lanes;			/* that this guest drains; reply: granted */
	__le16 reserved;
	__le32 ivshmem_id;		/* own doorbell id, or FGDP_NO_IVSHMEM */
};

struct fgdp_addr {
	__u8 addr[16];			/* IPv6, or IPv4 as ::ffff:a.b.c.d */
};

struct fgdp_channel {
	__le32 peer;			/* slot */
	__le32 peer_generation;
	__le32 reason;			/* FGDP_R_*, for CLOSE */
	__le32 reserved;
};

#define FGDP_FRAMES_OFFER		1	/* owner -> host -> event to peer */
#define FGDP_FRAMES_ACCEPT		2	/* peer -> host -> event to owner */
#define FGDP_FRAMES_RELEASE		3	/* peer gives back -> event to owner */
#define FGDP_FRAMES_REVOKE		4	/* owner takes back -> event to peer */

#define FGDP_MAX_RANGES			64

struct fgdp_range {
	__le32 pfn;			/* in the group */
	__le32 frames;
};

/* For OFFER with its ranges; for the others with the extent id alone. */
struct fgdp_frames {
	__le16 op;			/* FGDP_FRAMES_* */
	__le16 num_ranges;		/* at most FGDP_MAX_RANGES */
	__le32 peer;			/* slot of the other party */
	__le32 peer_generation;
	__le32 extent;			/* id, chosen by the owner, unique per peer */
	struct fgdp_range ranges[];
};

struct fgdp_host_stats {
	__le64 calls;
	__le64 refused;			/* calls not answered with FGDP_S_OK */
	__le64 addr_refused;
	__le64 doorbells;		/* trapped, rung by this guest */
	__le64 frames_offered;		/* now */
	__le64 frames_accepted;		/* now, by this guest */
};

/* ------------------------------------------------------------- event queue */

#define FGDP_EV_PEER			1	/* directory entry `peer` changed */
#define FGDP_EV_CHANNEL			2	/* peer opened (arg 1) or closed (arg 0, reason) */
#define FGDP_EV_FRAMES			3	/* followed by struct fgdp_frames */
#define FGDP_EV_LOST			4	/* events were dropped: read everything anew */

/* A device-writable event buffer holds at least FGDP_EVENT_SIZE bytes. */
#define FGDP_EVENT_SIZE			1024

struct fgdp_event {
	__le16 type;			/* FGDP_EV_* */
	__le16 len;			/* of what follows this structure */
	__le32 peer;			/* slot */
	__le32 peer_generation;
	__le32 arg;
	__le32 reason;
	__le32 reserved;
};

struct fgdp_doorbell {
	__le32 peer;			/* slot to ring; from the device: slot that rang */
	__le32 lane;
};

/*
 * The memory of the ivshmem-doorbell device that accompanies a group's device:
 * it carries no data, but says to which group the doorbell belongs.
 */
#define FGDP_BELL_MAGIC			0x4c4c454250444746ULL	/* "FGDPBELL" */

struct fgdp_bell_hdr {
	__le64 magic;
	__le32 abi;
	__le32 reserved;
	__u8 group_id[FGDP_ID_LEN];
};

/* ------------------------------------------------------------- member slots */

#define FGDP_SLOT_MAGIC			0x544f4c5350444746ULL	/* "FGDPSLOT" */

/* At offset 0 of a member's slot, one frame. Written by the member. */
struct fgdp_slot_hdr {
	__le64 magic;
	__le32 abi;
	__le32 generation;
	__le32 lanes;
	__le32 conns;			/* entries of the connection table */
	__le32 conn_offset;		/* of the connection table, from the slot's start */
	__le32 reserved;
};

/*
 * The channel area for peer p lies at FGDP_CHAN_OFFSET + p * FGDP_CHAN_SIZE in
 * the member's slot: struct fgdp_chan_hdr, and lane n at FGDP_LANE_OFFSET + n *
 * FGDP_LANE_SIZE in it. The connection table follows the last channel area.
 */
#define FGDP_CHAN_OFFSET		4096
#define FGDP_CHAN_SIZE			131072
#define FGDP_LANE_OFFSET		4096
#define FGDP_LANE_SIZE			20480
#define FGDP_LANE_MSGS_OFFSET		4096	/* in the lane */
#define FGDP_LANE_MSGS			256	/* a power of two */
#define FGDP_MSG_SIZE			64
#define FGDP_CONN_OFFSET		(FGDP_CHAN_OFFSET + FGDP_MAX_SLOTS * FGDP_CHAN_SIZE)
#define FGDP_CONN_SIZE			128
#define FGDP_MAX_CONNS			32768
#define FGDP_MIN_SLOT_SIZE		(16u << 20)

#define FGDP_CHAN_CLOSED		0
#define FGDP_CHAN_OPEN			1
#define FGDP_CHAN_BROKEN		2

struct fgdp_chan_hdr {
	__le32 state;			/* FGDP_CHAN_* */
	__le32 peer_generation;		/* of the peer's slot that this channel is to */
	__le32 reason;			/* FGDP_R_* when broken or closed */
	__le32 reserved;
};

/*
 * One direction of a lane and the consumer's half of the other. Indices count
 * messages and wrap at 2^32. An event word holds the index at whose passing
 * the owner wants to be rung.
 */
struct fgdp_lane {
	/* as producer */
	__le32 tail;			/* messages published */
	__le32 space_event;		/* ring me when your head passes this */
	__le32 reserved0[14];
	/* as consumer */
	__le32 head;			/* messages consumed of the peer's lane */
	__le32 msg_event;		/* ring me when your tail passes this */
	__le32 reserved1[14];
};

/* Lane messages. `conn` is always the receiver's connection id. */
#define FGDP_MSG_CONNECT		1
#define FGDP_MSG_ACCEPT			2
#define FGDP_MSG_REFUSE			3
#define FGDP_MSG_READY			4	/* look at the connection's entry */
#define FGDP_MSG_DONE			5	/* I shall not look at your entry again */
#define FGDP_MSG_CARRY			6	/* struct fgdp_msg_carry */

struct fgdp_msg {
	__le16 type;			/* FGDP_MSG_* */
	__le16 flags;
	__le32 conn;			/* receiver's connection id; CONNECT: 0 */
	__le32 peer_conn;		/* sender's connection id */
	__le32 src_port;		/* CONNECT */
	__le32 dst_port;		/* CONNECT */
	__le32 sock_type;		/* CONNECT: SOCK_STREAM or SOCK_SEQPACKET */
	__le32 error;			/* REFUSE: FGDP_E_* */
	__le32 arg[9];			/* zero in this version */
};

/*
 * CARRY proposes that the connection's ring carries a TCP connection, which its
 * sender opened. Addresses are IPv6, or IPv4 as ::ffff:a.b.c.d; the sequence
 * numbers are those of the first byte that each side sent. The answer is ACCEPT
 * or REFUSE.
 */
struct fgdp_msg_carry {
	__le16 type;			/* FGDP_MSG_CARRY */
	__le16 flags;			/* zero */
	__le32 conn;			/* zero */
	__le32 peer_conn;		/* sender's connection id */
	__le32 src_port;		/* sender's TCP port */
	__le32 dst_port;		/* receiver's TCP port */
	__le32 src_isn;			/* of the sender's first byte */
	__le32 dst_isn;			/* of the receiver's first byte */
	__u8 src_addr[16];		/* sender's address */
	__u8 dst_addr[16];		/* receiver's address */
	__le32 reserved;
};

/* READY flags: what there is to look at. */
#define FGDP_READY_DATA			(1u << 0)	/* tail or tx_flags moved */
#define FGDP_READY_SPACE		(1u << 1)	/* head or rx_flags moved */

/* Why a CONNECT or a CARRY was refused. */
#define FGDP_E_REFUSED			1	/* nobody listens: ECONNREFUSED */
#define FGDP_E_TYPE			2	/* other socket type: EPROTOTYPE */
#define FGDP_E_NOMEM			3	/* no frames, ids or memory: ECONNREFUSED */
#define FGDP_E_BACKLOG			4	/* queue full: ECONNREFUSED */
/* After these, and after NOMEM for a CARRY, the connection stays TCP. */
#define FGDP_E_NO_SOCKET		5	/* no such TCP connection of this peer */
#define FGDP_E_SEQUENCE			6	/* other sequence numbers: not its owner */
#define FGDP_E_POLICY			7	/* not wanted */

/*
 * A connection id is index | serial << 16; the serial changes at each reuse of
 * the index, so a late message finds nobody.
 */
#define FGDP_CONN_INDEX_MASK		0xffffu

/*
 * One entry of the connection table: a side's whole shared state. Positions
 * count bytes of the stream and wrap at 2^32; they start at 0.
 *
 * The ring of a direction is [ring_pfn, ring_pfn + ring_frames) for positions
 * from ring_base on; a byte at position p lies at p modulo the ring's size
 * (a power of two). The producer changes ring_* only when the consumer's head
 * has passed ring_base, that is, a byte of the current ring was consumed;
 * ring_serial then counts up, after the other ring_* words and before tail are
 * written. Bytes before ring_base are in the previous ring. A new entry is
 * zero but for id and space_event, which is 0xffffffff.
 *
 * The upper half of ring_serial counts grants: see struct fgdp_grant.
 */
struct fgdp_conn {
	/* as producer */
	__le32 tail;			/* position after the last byte published */
	__le32 tx_flags;		/* FGDP_TX_* */
	__le32 space_event;		/* send READY when your head passes this */
	__le32 ring_serial;		/* rings set, and grants << FGDP_GRANTS_SHIFT */
	__le32 ring_pfn;
	__le32 ring_frames;		/* power of two, 4 .. 1024 */
	__le32 ring_base;
	__le32 id;			/* own connection id, complete */
	__le32 tcp_seq;			/* with FGDP_TX_RING: where the ring begins in TCP */
	__le32 grant_pfn;		/* the frame of struct fgdp_grant[FGDP_GRANTS] */
	__le32 reserved0[6];
	/* as consumer */
	__le32 head;			/* position after the last byte consumed */
	__le32 data_event;		/* send READY when your tail passes this */
	__le32 rx_flags;		/* FGDP_RX_* */
	__le32 released[8];		/* bit n of word n / 32 flips at each release of place n */
	__le32 grant_head;		/* carried TCP: how far grants were read, see below */
	__le32 reserved1[4];
};

#define FGDP_RING_MIN_FRAMES		4
#define FGDP_RING_MAX_FRAMES		1024

#define FGDP_TX_FIN			(1u << 0)	/* no byte after tail will follow */
#define FGDP_TX_RST			(1u << 1)	/* aborted: unread bytes are void */
/*
 * On a connection that carries TCP: from TCP sequence number tcp_seq on the
 * bytes come by the ring, whose positions do not move TCP's numbers.
 */
#define FGDP_TX_RING			(1u << 2)	/* tcp_seq counts */
#define FGDP_TX_BACK			(1u << 3)	/* to TCP: nothing after tail will follow */
#define FGDP_RX_SHUT			(1u << 0)	/* nobody will read any more */
#define FGDP_RX_STOP			(1u << 1)	/* to TCP: head is final */

/*
 * Frames lent to the consumer, whose bytes follow those before `position` in
 * the stream and move no position. Grant n of a direction, from 0, lies at
 * place n % FGDP_GRANTS of the frame grant_pfn, until the consumer releases it.
 */
struct fgdp_grant {
	__le32 position;		/* of the next byte in the ring */
	__le32 pfn;
	__le32 frames;			/* 1 .. FGDP_GRANT_MAX_FRAMES */
	__le32 flags;			/* zero */
};

#define FGDP_GRANTS			256
#define FGDP_GRANTS_SHIFT		16
#define FGDP_GRANT_MAX_FRAMES		1024

/*
 * grant_head of a connection that carries TCP: grants read to their end, modulo
 * 2^10, above the bytes read of the next one.
 */
#define FGDP_GRANT_HEAD_SHIFT		22

/*
 * SOCK_SEQPACKET: a record is struct fgdp_record, its bytes, and padding to a
 * multiple of 8.
 */
struct fgdp_record {
	__le32 len;
	__le32 flags;			/* zero */
};

/* Why a channel was broken or closed, or a connection not accelerated. */
#define FGDP_R_NONE			0
#define FGDP_R_PEER_GONE		1	/* guest shut down, reset or crashed */
#define FGDP_R_PEER_CLOSED		2	/* peer closed the channel in order */
#define FGDP_R_UNLOAD			3	/* own module goes */
#define FGDP_R_BAD_SLOT			4	/* peer's slot header invalid */
#define FGDP_R_BAD_LANE			5	/* peer's lane indices invalid */
#define FGDP_R_BAD_MSG			6	/* peer's lane message invalid */
#define FGDP_R_BAD_RING			7	/* ring outside the accepted extents */
#define FGDP_R_BAD_POSITION		8	/* tail or head outside the window */
#define FGDP_R_BAD_FLAGS		9	/* a flag unknown or taken back */
#define FGDP_R_BAD_RECORD		10	/* record header invalid */
#define FGDP_R_BAD_EXTENT		11	/* offered extent invalid */
#define FGDP_R_GENERATION		12	/* peer's slot was cleared */
#define FGDP_R_HOST			13	/* the host refused a call */
#define FGDP_R_NO_FRAMES		14	/* slot or quota exhausted */
#define FGDP_R_TIMEOUT			15	/* no answer to the channel's opening */
#define FGDP_R_ABI			16	/* other ABI version */
#define FGDP_R_BAD_GRANT		17	/* grant, or release of one, invalid */
#define FGDP_R_MAX			18

#endif /* _UAPI_LINUX_VIRTIO_FGDP_H */
