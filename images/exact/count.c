// SPDX-License-Identifier: GPL-2.0
/*
 * A passive QEMU plugin: how often each kernel instruction ran between two marks of exact.h.
 *
 * It only adds to counters and writes to QEMU's log, so the machine runs as it does without it.
 * Debian ships no qemu-plugin.h; what is used of the documented interface (version 1) is declared
 * here. Lines in the log, all numbers hexadecimal:
 *
 *	rig begin KIND
 *	rig end KIND
 *	rig count ADDRESS TIMES		one for each address; 0 stands for all of user space
 *	rig halts TIMES			how often a CPU went to sleep
 *	rig done KIND
 *
 * KIND is the mark's: 1 and 2 for a window of the program, 3 and 4 for the whole program. An
 * instruction that faults counts here each time it starts, and in QEMU's clock only when it ends;
 * the log of -d int, in the same stream, says which those are.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef uint64_t plugin_id;

struct qemu_plugin_tb;
struct qemu_plugin_insn;

enum plugin_op { ADD_U64 };
enum plugin_regs { NO_REGS };

#define EXPORT __attribute__((visibility("default")))

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, enum plugin_op op,
						void *counter, uint64_t add);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
					    void (*call)(unsigned int vcpu, void *data),
					    enum plugin_regs regs, void *data);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
					   void (*call)(plugin_id id, struct qemu_plugin_tb *tb));
void qemu_plugin_outs(const char *text);

EXPORT int qemu_plugin_version = 1;

/* Kernels have less than a million instructions; what is not touched costs no memory. */
#define SLOTS		(1u << 22)
#define KERNEL_SPACE	0x8000000000000000ull

/* The key all of user space shares; 0 marks a free slot. */
#define USER		1

#define BEGIN		1
#define WHOLE		3

static uint64_t *address, *count;
/* The counters at the start of the window that is open, and at that of the whole program. */
static uint64_t *before[2];
static uint64_t halts, halts_before[2];
static unsigned int slots_used;

static uint64_t *lasting_zeros(void)
{
	void *place = mmap(NULL, SLOTS * sizeof(uint64_t), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return place == MAP_FAILED ? NULL : place;
}

/* The counter of an instruction. Open addressing; they never move, for translated code has them. */
static uint64_t *counter_of(uint64_t at)
{
	uint64_t key = at >= KERNEL_SPACE ? at : USER;
	uint32_t slot = (key * 0x9e3779b97f4a7c15ull) >> 42;

	while (address[slot] && address[slot] != key)
		slot = (slot + 1) % SLOTS;
	if (!address[slot]) {
		if (++slots_used > SLOTS / 2) {
			qemu_plugin_outs("rig full\n");
			abort();
		}
		address[slot] = key;
	}
	return count + slot;
}

static void say(const char *what, uint64_t number)
{
	char line[80];

	snprintf(line, sizeof(line), "rig %s %" PRIx64 "\n", what, number);
	qemu_plugin_outs(line);
}

static void say_count(uint64_t at, uint64_t times)
{
	char line[80];

	snprintf(line, sizeof(line), "rig count %" PRIx64 " %" PRIx64 "\n", at, times);
	qemu_plugin_outs(line);
}

static void open_window(uint64_t kind)
{
	bool whole = kind == WHOLE;

	memcpy(before[whole], count, SLOTS * sizeof(*count));
	halts_before[whole] = halts;
	say("begin", kind);
}

static void close_window(uint64_t kind)
{
	bool whole = kind == WHOLE + 1;
	const uint64_t *start = before[whole];
	uint32_t slot;

	say("end", kind);
	for (slot = 0; slot < SLOTS; slot++)
		if (count[slot] != start[slot])
			say_count(address[slot] == USER ? 0 : address[slot],
				  count[slot] - start[slot]);
	say("halts", halts - halts_before[whole]);
	say("done", kind);
}

static void marked(unsigned int vcpu, void *data)
{
	uint64_t kind = (uintptr_t)data;

	(void)vcpu;
	if (kind == BEGIN || kind == WHOLE)
		open_window(kind);
	else
		close_window(kind);
}

/* The kind of a mark, or 0. */
static unsigned int mark_of(const struct qemu_plugin_insn *insn)
{
	static const unsigned char mark[] = { 0x0f, 0x1f, 0x84, 0x00 };
	static const unsigned char name[] = { 'G', 'I', 'R' };
	const unsigned char *bytes = qemu_plugin_insn_data(insn);

	if (qemu_plugin_insn_size(insn) != 8 || memcmp(bytes, mark, sizeof(mark)))
		return 0;
	return memcmp(bytes + 5, name, sizeof(name)) || bytes[4] > WHOLE + 1 ? 0 : bytes[4];
}

static bool is_halt(const struct qemu_plugin_insn *insn)
{
	const unsigned char *bytes = qemu_plugin_insn_data(insn);

	return qemu_plugin_insn_size(insn) == 1 && bytes[0] == 0xf4;
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb)
{
	size_t index, length = qemu_plugin_tb_n_insns(tb);
	struct qemu_plugin_insn *insn;
	unsigned int kind;

	(void)id;
	for (index = 0; index < length; index++) {
		insn = qemu_plugin_tb_get_insn(tb, index);
		kind = mark_of(insn);
		if (kind)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, NO_REGS,
							       (void *)(uintptr_t)kind);
		qemu_plugin_register_vcpu_insn_exec_inline(
			insn, ADD_U64, counter_of(qemu_plugin_insn_vaddr(insn)), 1);
		if (is_halt(insn))
			qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64, &halts, 1);
	}
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
	(void)info;
	(void)argc;
	(void)argv;
	address = lasting_zeros();
	count = lasting_zeros();
	before[0] = lasting_zeros();
	before[1] = lasting_zeros();
	if (!address || !count || !before[0] || !before[1])
		return 1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
