/* SPDX-License-Identifier: GPL-2.0 */
/* What the module's own bindgen pass sees. */
#include <asm/ioctls.h>
#include <linux/fs.h>
#include <linux/inetdevice.h>
#include <linux/net.h>
#include <linux/pci.h>
#include <linux/poll.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/socket.h>
#include <linux/sockios.h>
#include <linux/sysctl.h>
#include <linux/tracepoint.h>
#include <linux/uio.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#include <linux/io.h>
#include <linux/interrupt.h>
#include <linux/capability.h>
#include <net/addrconf.h>
#include <net/genetlink.h>
#include <net/inet_common.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include <net/tcp.h>
#include <net/tcp_states.h>
#include <net/transp_v6.h>
#include <uapi/linux/fgdp.h>
#include <uapi/linux/virtio_fgdp.h>

#include "helpers.h"
