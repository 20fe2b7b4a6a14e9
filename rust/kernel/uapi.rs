// SPDX-License-Identifier: GPL-2.0

//! Constants of the module's netlink family, as `include/uapi/linux/fgdp.h` defines them.

use super::ffi;

macro_rules! consts {
    ($($ty:ident: $($name:ident = $value:ident),* ;)*) => {
        $($(pub(crate) const $name: $ty = ffi::$value as $ty;)*)*
    };
}

consts! {
    u32: FGDP_GENL_VERSION = FGDP_GENL_VERSION;
    u8: CMD_GET_CONNECTIONS = fgdp_cmd_FGDP_CMD_GET_CONNECTIONS,
        CMD_GET_PEERS = fgdp_cmd_FGDP_CMD_GET_PEERS,
        CMD_GET_STATS = fgdp_cmd_FGDP_CMD_GET_STATS,
        CMD_GET_TCP = fgdp_cmd_FGDP_CMD_GET_TCP;
    u32: A_CONN_DEVICE = fgdp_conn_attr_FGDP_A_CONN_DEVICE,
        A_CONN_ID = fgdp_conn_attr_FGDP_A_CONN_ID,
        A_CONN_PEER_ID = fgdp_conn_attr_FGDP_A_CONN_PEER_ID,
        A_CONN_STATE = fgdp_conn_attr_FGDP_A_CONN_STATE,
        A_CONN_TYPE = fgdp_conn_attr_FGDP_A_CONN_TYPE,
        A_CONN_LOCAL_GUEST = fgdp_conn_attr_FGDP_A_CONN_LOCAL_GUEST,
        A_CONN_LOCAL_PORT = fgdp_conn_attr_FGDP_A_CONN_LOCAL_PORT,
        A_CONN_REMOTE_GUEST = fgdp_conn_attr_FGDP_A_CONN_REMOTE_GUEST,
        A_CONN_REMOTE_PORT = fgdp_conn_attr_FGDP_A_CONN_REMOTE_PORT,
        A_CONN_RX_BYTES = fgdp_conn_attr_FGDP_A_CONN_RX_BYTES,
        A_CONN_TX_BYTES = fgdp_conn_attr_FGDP_A_CONN_TX_BYTES,
        A_CONN_READABLE = fgdp_conn_attr_FGDP_A_CONN_READABLE,
        A_CONN_UNACKED = fgdp_conn_attr_FGDP_A_CONN_UNACKED,
        A_CONN_TX_RING = fgdp_conn_attr_FGDP_A_CONN_TX_RING,
        A_CONN_RX_WAITS = fgdp_conn_attr_FGDP_A_CONN_RX_WAITS,
        A_CONN_TX_WAITS = fgdp_conn_attr_FGDP_A_CONN_TX_WAITS;
    u32: A_PEER_DEVICE = fgdp_peer_attr_FGDP_A_PEER_DEVICE,
        A_PEER_TRANSPORT = fgdp_peer_attr_FGDP_A_PEER_TRANSPORT,
        A_PEER_SLOT = fgdp_peer_attr_FGDP_A_PEER_SLOT,
        A_PEER_GUEST = fgdp_peer_attr_FGDP_A_PEER_GUEST,
        A_PEER_NAME = fgdp_peer_attr_FGDP_A_PEER_NAME,
        A_PEER_STATE = fgdp_peer_attr_FGDP_A_PEER_STATE,
        A_PEER_GENERATION = fgdp_peer_attr_FGDP_A_PEER_GENERATION,
        A_PEER_CHANNEL_UP = fgdp_peer_attr_FGDP_A_PEER_CHANNEL_UP,
        A_PEER_LANES = fgdp_peer_attr_FGDP_A_PEER_LANES,
        A_PEER_LENT_FRAMES = fgdp_peer_attr_FGDP_A_PEER_LENT_FRAMES,
        A_PEER_USED_FRAMES = fgdp_peer_attr_FGDP_A_PEER_USED_FRAMES,
        A_PEER_ACCEPTED_FRAMES = fgdp_peer_attr_FGDP_A_PEER_ACCEPTED_FRAMES,
        A_PEER_LAST_DOWN = fgdp_peer_attr_FGDP_A_PEER_LAST_DOWN,
        A_PEER_ADDR = fgdp_peer_attr_FGDP_A_PEER_ADDR;
    u32: A_STAT_DEVICE = fgdp_stat_attr_FGDP_A_STAT_DEVICE,
        A_STAT_NAME = fgdp_stat_attr_FGDP_A_STAT_NAME,
        A_STAT_VALUE = fgdp_stat_attr_FGDP_A_STAT_VALUE;
    u32: A_TCP_DEVICE = fgdp_tcp_attr_FGDP_A_TCP_DEVICE,
        A_TCP_SLOT = fgdp_tcp_attr_FGDP_A_TCP_SLOT,
        A_TCP_COOKIE = fgdp_tcp_attr_FGDP_A_TCP_COOKIE,
        A_TCP_LOCAL_ADDR = fgdp_tcp_attr_FGDP_A_TCP_LOCAL_ADDR,
        A_TCP_LOCAL_PORT = fgdp_tcp_attr_FGDP_A_TCP_LOCAL_PORT,
        A_TCP_REMOTE_ADDR = fgdp_tcp_attr_FGDP_A_TCP_REMOTE_ADDR,
        A_TCP_REMOTE_PORT = fgdp_tcp_attr_FGDP_A_TCP_REMOTE_PORT,
        A_TCP_ACTIVE = fgdp_tcp_attr_FGDP_A_TCP_ACTIVE,
        A_TCP_SENDS = fgdp_tcp_attr_FGDP_A_TCP_SENDS,
        A_TCP_RECEIVES = fgdp_tcp_attr_FGDP_A_TCP_RECEIVES,
        A_TCP_RING_RX_BYTES = fgdp_tcp_attr_FGDP_A_TCP_RING_RX_BYTES,
        A_TCP_RING_TX_BYTES = fgdp_tcp_attr_FGDP_A_TCP_RING_TX_BYTES,
        A_TCP_RX_BYTES = fgdp_tcp_attr_FGDP_A_TCP_RX_BYTES,
        A_TCP_TX_BYTES = fgdp_tcp_attr_FGDP_A_TCP_TX_BYTES,
        A_TCP_REASON = fgdp_tcp_attr_FGDP_A_TCP_REASON;
}
