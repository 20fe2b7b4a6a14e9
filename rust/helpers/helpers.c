// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros that Rust cannot call. One file, one object: the
 * parts are grouped as the wrappers in rust/kernel/ are.
 */
#include "bindings.h"

#include "addr.c"
#include "genl.c"
#include "inet.c"
#include "lock.c"
#include "mm.c"
#include "namespace.c"
#include "proc.c"
#include "shm.c"
#include "sock.c"
#include "trace.c"
#include "virtio.c"
#include "work.c"
