// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * A plugin for QEMU's emulator that counts guest instructions. The count is
 * kept in DIR/insn.PID, which others map and read at any time. With blocks=N
 * follow the instructions of each translated block, of N at most: a block that
 * is translated anew has another entry.
 *
 * Debian has no header for plugins: this declares the few things used here, as
 * version 7 of the interface has them.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info;

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
	void (*cb)(struct qemu_plugin_tb *tb, void *data), void *data);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
	void (*cb)(unsigned int vcpu, void *data),
	enum qemu_plugin_cb_flags flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);

EXPORT int qemu_plugin_version = 7;

struct block {
	uint64_t addr;
	uint64_t insns;
	uint64_t count;
};

struct counts {
	uint64_t insns;
	uint64_t used;
	struct block blocks[];
};

static struct counts *counts;
static size_t max_blocks;

static void tb_exec(unsigned int vcpu, void *data)
{
	(void)vcpu;
	__atomic_fetch_add(&counts->insns, (uint64_t)(uintptr_t)data, __ATOMIC_RELAXED);
}

static void block_exec(unsigned int vcpu, void *data)
{
	struct block *block = data;

	(void)vcpu;
	__atomic_fetch_add(&counts->insns, block->insns, __ATOMIC_RELAXED);
	__atomic_fetch_add(&block->count, block->insns, __ATOMIC_RELAXED);
}

static void tb_trans(struct qemu_plugin_tb *tb, void *data)
{
	size_t insns = qemu_plugin_tb_n_insns(tb);
	size_t at = max_blocks;

	(void)data;
	if (max_blocks)
		at = __atomic_fetch_add(&counts->used, 1, __ATOMIC_RELAXED);
	if (at < max_blocks) {
		struct block *block = &counts->blocks[at];

		block->insns = insns;
		__atomic_store_n(&block->addr, qemu_plugin_tb_vaddr(tb), __ATOMIC_RELEASE);
		qemu_plugin_register_vcpu_tb_exec_cb(tb, block_exec, QEMU_PLUGIN_CB_NO_REGS, block);
	} else {
		qemu_plugin_register_vcpu_tb_exec_cb(tb, tb_exec, QEMU_PLUGIN_CB_NO_REGS,
						     (void *)(uintptr_t)insns);
	}
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info,
			       int argc, char **argv)
{
	const char *dir = ".";
	char path[4096];
	size_t size;
	int fd;

	(void)info;
	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "dir=", 4))
			dir = argv[i] + 4;
		if (!strncmp(argv[i], "blocks=", 7))
			max_blocks = strtoul(argv[i] + 7, NULL, 10);
	}
	size = sizeof(*counts) + max_blocks * sizeof(struct block);
	snprintf(path, sizeof(path), "%s/insn.%d", dir, (int)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || ftruncate(fd, size) < 0) {
		perror(path);
		return 1;
	}
	counts = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (counts == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, tb_trans, NULL);
	return 0;
}
