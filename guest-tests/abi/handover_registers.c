// SPDX-License-Identifier: GPL-2.0
/* Every register of user space holds after a hand-over what it held before. */
#include "filters.h"
#include "handover.h"
#include "../kselftest_harness.h"

#ifdef __x86_64__

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <sys/auxv.h>

EITHER_THREAD()
PATIENCE()

enum { RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8, R9, R10, R11, R12, R13, R14, R15, GENERAL };

/* What is beyond SSE, as a number in struct registers. */
enum { LEVEL_SSE, LEVEL_AVX, LEVEL_AVX512 };

struct fxsave {
	unsigned short control, status;
	unsigned char tags, reserved;
	unsigned short opcode;
	unsigned long instruction, operand;
	unsigned int mxcsr, mxcsr_mask;
	unsigned char st[8][16];
	unsigned char xmm[16][16];
	unsigned char rest[96];
};

struct registers {
	unsigned long general[GENERAL];
	unsigned long flags;			/* 128 */
	unsigned long fs, gs;			/* 136 144 */
	unsigned long has_bases;		/* 152: may fs and gs be written? */
	unsigned long level;			/* 160 */
	unsigned long next;			/* 168: address after the system call */
	unsigned long reserved[2];
	struct fxsave fxsave;			/* 192 */
	unsigned char ymm[16][32];		/* 704 */
	unsigned char zmm[32][64];		/* 1216 */
	unsigned long k[8];			/* 3264 */
} __attribute__((aligned(64)));

_Static_assert(offsetof(struct registers, flags) == 128, "as the assembler has it");
_Static_assert(offsetof(struct registers, fxsave) == 192, "as the assembler has it");
_Static_assert(sizeof(struct fxsave) == 512, "as the processor has it");
_Static_assert(offsetof(struct registers, ymm) == 704, "as the assembler has it");
_Static_assert(offsetof(struct registers, zmm) == 1216, "as the assembler has it");
_Static_assert(offsetof(struct registers, k) == 3264, "as the assembler has it");

/* A system call with all registers as in @in; what they are afterwards goes to @out. */
void call_with_registers(const struct registers *in, struct registers *out);

asm(
	".text\n"
	".globl call_with_registers\n"
	".type call_with_registers, @function\n"
	"call_with_registers:\n"
	"	push %rbx\n"
	"	push %rbp\n"
	"	push %r12\n"
	"	push %r13\n"
	"	push %r14\n"
	"	push %r15\n"
	"	sub $8, %rsp\n"
	"	fxrstor64 192(%rdi)\n"
	"	cmpq $1, 160(%rdi)\n"
	"	jb 1f\n"
	"	.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"	vmovdqu 704 + 32 * \\n(%rdi), %ymm\\n\n"
	"	.endr\n"
	"	cmpq $2, 160(%rdi)\n"
	"	jb 1f\n"
	"	.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"	vmovdqu64 1216 + 64 * \\n(%rdi), %zmm\\n\n"
	"	.endr\n"
	"	.irp n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
	"	vmovdqu64 1216 + 64 * \\n(%rdi), %zmm\\n\n"
	"	.endr\n"
	"	.irp n, 0,1,2,3,4,5,6,7\n"
	"	kmovq 3264 + 8 * \\n(%rdi), %k\\n\n"
	"	.endr\n"
	"1:\n"
	/* The bases of this thread: it needs them afterwards. */
	"	xor %eax, %eax\n"
	"	xor %ecx, %ecx\n"
	"	mov 152(%rdi), %rdx\n"
	"	test %rdx, %rdx\n"
	"	jz 2f\n"
	"	rdfsbase %rax\n"
	"	rdgsbase %rcx\n"
	"2:	push %rax\n"
	"	push %rcx\n"
	"	push %rdx\n"
	"	test %rdx, %rdx\n"
	"	jz 3f\n"
	"	mov 136(%rdi), %rax\n"
	"	wrfsbase %rax\n"
	"	mov 144(%rdi), %rax\n"
	"	wrgsbase %rax\n"
	"3:	push %rsi\n"
	"	mov %rsp, 56(%rsi)\n"
	"	lea 4f(%rip), %rax\n"
	"	mov %rax, 168(%rsi)\n"
	"	pushq 128(%rdi)\n"
	"	mov 0(%rdi), %rax\n"
	"	mov 8(%rdi), %rbx\n"
	"	mov 16(%rdi), %rcx\n"
	"	mov 24(%rdi), %rdx\n"
	"	mov 32(%rdi), %rsi\n"
	"	mov 48(%rdi), %rbp\n"
	"	mov 64(%rdi), %r8\n"
	"	mov 72(%rdi), %r9\n"
	"	mov 80(%rdi), %r10\n"
	"	mov 88(%rdi), %r11\n"
	"	mov 96(%rdi), %r12\n"
	"	mov 104(%rdi), %r13\n"
	"	mov 112(%rdi), %r14\n"
	"	mov 120(%rdi), %r15\n"
	"	mov 40(%rdi), %rdi\n"
	"	popfq\n"
	"	syscall\n"
	"4:	push %rcx\n"
	"	push %r11\n"
	"	pushfq\n"
	"	pushq $0x202\n"
	"	popfq\n"
	"	mov 24(%rsp), %rcx\n"
	"	popq 128(%rcx)\n"
	"	popq 88(%rcx)\n"
	"	popq 16(%rcx)\n"
	"	mov %rax, 0(%rcx)\n"
	"	mov %rbx, 8(%rcx)\n"
	"	mov %rdx, 24(%rcx)\n"
	"	mov %rsi, 32(%rcx)\n"
	"	mov %rdi, 40(%rcx)\n"
	"	mov %rbp, 48(%rcx)\n"
	"	sub %rsp, 56(%rcx)\n"
	"	mov %r8, 64(%rcx)\n"
	"	mov %r9, 72(%rcx)\n"
	"	mov %r10, 80(%rcx)\n"
	"	mov %r12, 96(%rcx)\n"
	"	mov %r13, 104(%rcx)\n"
	"	mov %r14, 112(%rcx)\n"
	"	mov %r15, 120(%rcx)\n"
	"	pop %rdi\n"
	"	pop %rdx\n"
	"	pop %r9\n"
	"	pop %r8\n"
	"	test %rdx, %rdx\n"
	"	jz 5f\n"
	"	rdfsbase %rax\n"
	"	mov %rax, 136(%rdi)\n"
	"	rdgsbase %rax\n"
	"	mov %rax, 144(%rdi)\n"
	"	wrfsbase %r8\n"
	"	wrgsbase %r9\n"
	"5:	cmpq $1, 160(%rdi)\n"
	"	jb 6f\n"
	"	.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"	vmovdqu %ymm\\n, 704 + 32 * \\n(%rdi)\n"
	"	.endr\n"
	"	cmpq $2, 160(%rdi)\n"
	"	jb 6f\n"
	"	.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"	vmovdqu64 %zmm\\n, 1216 + 64 * \\n(%rdi)\n"
	"	.endr\n"
	"	.irp n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
	"	vmovdqu64 %zmm\\n, 1216 + 64 * \\n(%rdi)\n"
	"	.endr\n"
	"	.irp n, 0,1,2,3,4,5,6,7\n"
	"	kmovq %k\\n, 3264 + 8 * \\n(%rdi)\n"
	"	.endr\n"
	"6:	fxsave64 192(%rdi)\n"
	/* As functions of C expect them. */
	"	fninit\n"
	"	pushq $0x1f80\n"
	"	ldmxcsr (%rsp)\n"
	"	add $8, %rsp\n"
	"	cmpq $1, 160(%rdi)\n"
	"	jb 7f\n"
	"	vzeroupper\n"
	"7:	add $8, %rsp\n"
	"	pop %r15\n"
	"	pop %r14\n"
	"	pop %r13\n"
	"	pop %r12\n"
	"	pop %rbp\n"
	"	pop %rbx\n"
	"	ret\n"
	".size call_with_registers, . - call_with_registers\n"
);

static unsigned long level(void)
{
	unsigned int a, b, c, d, xcr0;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX))
		return LEVEL_SSE;
	asm("xgetbv" : "=a"(xcr0), "=d"(d) : "c"(0));
	if ((xcr0 & 6) != 6)
		return LEVEL_SSE;
	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX512F) ||
	    !(b & bit_AVX512BW) || (xcr0 & 0xe0) != 0xe0)
		return LEVEL_AVX;
	return LEVEL_AVX512;
}

static bool has_bases(void)
{
	return getauxval(AT_HWCAP2) & 2;
}

/* Different in every byte, and for every seed. */
static void fill_bytes(void *memory, size_t size, unsigned int seed)
{
	unsigned char *bytes = memory;
	unsigned long state = seed * 0x9e3779b97f4a7c15UL + 1;

	while (size--) {
		state = state * 6364136223846793005UL + 1442695040888963407UL;
		*bytes++ = state >> 33;
	}
}

#define FLAGS_SET	0x244cd7UL	/* ID, AC, NT, OF, DF, SF, ZF, AF, PF, CF, bit 1, IF */
#define FLAGS_CLEAR	0x000202UL
#define FLAGS_KEPT_BY_C	0xcd7UL		/* all but ID, AC, NT, which are not a handler's to change */

static void fill(struct registers *r, unsigned int seed)
{
	int i;

	fill_bytes(r, sizeof(*r), seed);
	r->flags = (seed & 1 ? FLAGS_SET : FLAGS_CLEAR) | 0x202;
	r->has_bases = has_bases();
	r->level = level();
	r->fs = 0x00007f0000000000UL | (unsigned long)seed << 12;
	r->gs = 0x00006f0000000000UL | (unsigned long)seed << 12;

	/* Rounding, precision and masks unlike the usual ones, nothing unmasked that is pending. */
	r->fxsave.control = 0x0040 | 0x3f | (seed & 3) << 10 | (seed & 2 ? 0x300 : 0);
	r->fxsave.status = (seed & 7) << 11 | 0x4700;
	r->fxsave.tags = seed & 4 ? 0xff : 0x5a;
	r->fxsave.opcode = 0;
	r->fxsave.instruction = r->fxsave.operand = 0;
	r->fxsave.mxcsr = 0x1f80 | (seed & 3) << 13 | (seed & 0x3f);
	r->fxsave.mxcsr_mask = 0;
	for (i = 0; i < 8; i++) {
		/* Normal numbers of 80 bits. */
		memset(r->fxsave.st[i] + 10, 0, 6);
		r->fxsave.st[i][7] |= 0x80;
		r->fxsave.st[i][8] = 0x10 + i;
		r->fxsave.st[i][9] = 0x40;
	}
	/* Smaller registers are parts of larger ones; half of the time their upper parts are 0. */
	if (seed & 8) {
		memset(r->ymm, 0, sizeof(r->ymm));
		memset(r->zmm, 0, sizeof(r->zmm));
	}
	if (r->level >= LEVEL_AVX512)
		for (i = 0; i < 16; i++)
			memcpy(r->ymm[i], r->zmm[i], 32);
	if (r->level >= LEVEL_AVX)
		for (i = 0; i < 16; i++)
			memcpy(r->fxsave.xmm[i], r->ymm[i], 16);
}

/* All but those that carry the call itself, or that the instruction spoils. */
static const char *compare(const struct registers *before, const struct registers *after)
{
	int i;

	for (i = 0; i < GENERAL; i++) {
		if (i == RAX || i == RCX || i == R11 || i == RSP)
			continue;
		if (before->general[i] != after->general[i])
			return trouble("general register %d is %lx, not %lx", i,
				       after->general[i], before->general[i]);
	}
	if (after->general[RSP])
		return trouble("the stack pointer moved by %ld", after->general[RSP]);
	CHECK_EQ(before->flags, after->flags);
	/* As the instruction leaves them. */
	CHECK_EQ(after->next, after->general[RCX]);
	CHECK_EQ(before->flags, after->general[R11]);
	if (before->has_bases) {
		CHECK_EQ(before->fs, after->fs);
		CHECK_EQ(before->gs, after->gs);
	}
	CHECK_EQ(before->fxsave.control, after->fxsave.control);
	CHECK_EQ(before->fxsave.status, after->fxsave.status);
	CHECK_EQ(before->fxsave.tags, after->fxsave.tags);
	CHECK_EQ(before->fxsave.mxcsr, after->fxsave.mxcsr);
	for (i = 0; i < 8; i++)
		if (memcmp(before->fxsave.st[i], after->fxsave.st[i], 10))
			return trouble("x87 register %d differs", i);
	for (i = 0; i < 16; i++)
		if (memcmp(before->fxsave.xmm[i], after->fxsave.xmm[i], 16))
			return trouble("xmm%d differs", i);
	for (i = 0; i < 16 && before->level >= LEVEL_AVX; i++)
		if (memcmp(before->ymm[i], after->ymm[i], 32))
			return trouble("ymm%d differs", i);
	for (i = 0; i < 32 && before->level >= LEVEL_AVX512; i++)
		if (memcmp(before->zmm[i], after->zmm[i], 64))
			return trouble("zmm%d differs", i);
	for (i = 0; i < 8 && before->level >= LEVEL_AVX512; i++)
		if (before->k[i] != after->k[i])
			return trouble("k%d differs", i);
	return NULL;
}

/* A submission with all registers filled; what was not kept. */
static const char *keeps(unsigned int seed, long *result, long nr, const unsigned long *args,
			 long *submitted)
{
	struct registers before, after;

	fill(&before, seed);
	memset(&after, 0, sizeof(after));
	after.level = before.level;
	before.general[RAX] = __NR_async_submit;
	before.general[RDI] = 0;
	before.general[RSI] = P(result);
	before.general[RDX] = nr;
	before.general[R10] = P(args);
	call_with_registers(&before, &after);
	*submitted = after.general[RAX];
	TRY(compare(&before, &after));
	return NULL;
}

/* The test of the test: a call that has nothing to do with it keeps them as well. */
IN_EITHER_THREAD(over_an_inline_call)
{
	long result = UNTOUCHED, submitted;
	int i;

	for (i = 0; i < 16; i++) {
		TRY(keeps(i, &result, __NR_getppid, ARGS(0), &submitted));
		CHECK_EQ(0, submitted);
		CHECK_EQ(getppid(), result);
	}
	return NULL;
}

static const char *keep_over_hand_overs(unsigned int first, int n)
{
	long result, cookie, value;
	int fds[2], i;
	char byte;

	CHECK_EQ(0, pipe(fds));
	for (i = 0; i < n; i++) {
		TRY(keeps(first + i, &result, __NR_read, ARGS(fds[0], P(&byte), 1), &cookie));
		CHECK(is_cookie(cookie));
		CHECK_EQ(cookie, result_of(&result));
		CHECK_EQ(1, write(fds[1], "x", 1));
		value = final_value(cookie, &result);
		CHECK_EQ(1, value);
	}
	close(fds[0]);
	close(fds[1]);
	return NULL;
}

IN_EITHER_THREAD_TIMEOUT(over_hand_overs, 300)
{
	long handed_over = counter("handed_over");
	int n = times(500, 50000);

	TRY(keep_over_hand_overs(0, n));
	CHECK_EQ(handed_over + n, counter("handed_over"));
	return NULL;
}

/* Workers have held the registers of another thread before. */
static unsigned int next_seed;

static const char *keeps_its_own(void)
{
	unsigned int first = __atomic_fetch_add(&next_seed, 1000003, __ATOMIC_RELAXED);

	return keep_over_hand_overs(first, times(150, 10000));
}

PATIENT_TEST(in_threads_at_once, 300)
{
	enum { THREADS = 6 };
	long handed_over = counter("handed_over");
	static body_fn body = keeps_its_own;
	pthread_t threads[THREADS];
	void *found;
	int i;

	for (i = 0; i < THREADS; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, run_body, &body));
	EXPECT_FINE(keeps_its_own());
	for (i = 0; i < THREADS; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], &found));
		EXPECT_FINE(found);
	}
	EXPECT_EQ(handed_over + (THREADS + 1) * times(150, 10000), counter("handed_over"));
}

static bool enough;

static void *spin(void *argument)
{
	double sum = 1;

	while (!__atomic_load_n(&enough, __ATOMIC_RELAXED))
		sum = sum * 1.0000001 + 1;
	return sum > 0 ? NULL : argument;
}

/* Switched out in the middle of the call too, when others want the processor. */
IN_EITHER_THREAD_TIMEOUT(among_others_on_one_processor, 300)
{
	enum { THREADS = 3 };
	pthread_t threads[THREADS];
	const char *found;
	cpu_set_t one, all;
	int i;

	CHECK_EQ(0, sched_getaffinity(0, sizeof(all), &all));
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	CHECK_EQ(0, sched_setaffinity(0, sizeof(one), &one));
	for (i = 0; i < THREADS; i++)
		CHECK_EQ(0, pthread_create(&threads[i], NULL, spin, NULL));
	/* Between others that are as nice, it takes its turn. */
	found = keep_over_hand_overs(77, times(40, 2000));
	__atomic_store_n(&enough, true, __ATOMIC_RELAXED);
	for (i = 0; i < THREADS; i++)
		CHECK_EQ(0, pthread_join(threads[i], NULL));
	sched_setaffinity(0, sizeof(all), &all);
	return found;
}

static const char *handler_found;
static int handler_runs;

static void keeps_in_a_handler(int signal)
{
	handler_found = handler_found ?: keep_over_hand_overs(4711, 1);
	handler_runs++;
}

/* The frame of the signal, FPU state included, was written by one task and is read by another. */
IN_EITHER_THREAD(over_a_handler_that_hands_over)
{
	const struct sigaction action = { .sa_handler = keeps_in_a_handler };
	struct registers before, after;
	int i;

	handler_found = NULL;
	handler_runs = 0;
	CHECK_EQ(0, sigaction(SIGUSR1, &action, NULL));
	for (i = 0; i < 50; i++) {
		fill(&before, 100 + i);
		memset(&after, 0, sizeof(after));
		after.level = before.level;
		/* The handler runs at the end of this call; TLS is needed there. */
		before.has_bases = after.has_bases = 0;
		before.flags &= FLAGS_KEPT_BY_C | 0x202;
		before.general[RAX] = __NR_tgkill;
		before.general[RDI] = getpid();
		before.general[RSI] = gettid();
		before.general[RDX] = SIGUSR1;
		call_with_registers(&before, &after);
		TRY(handler_found);
		CHECK_EQ(0, after.general[RAX]);
		TRY(compare(&before, &after));
	}
	CHECK_EQ(50, handler_runs);
	return NULL;
}

/* --- bases and selectors of segments ----------------------------------------------------- */

static __thread int local = 1;

IN_EITHER_THREAD(thread_local_memory)
{
	void *pointer = __builtin_thread_pointer();
	struct reading r;
	int i;

	local = 4711;
	for (i = 0; i < 50; i++) {
		errno = EDOM;
		r.s.cookie = 0;
		/* What it leaves is a worker that has had the memory of another thread. */
		TRY(run_in(true, hand_over_once));
		TRY(begin_reading(&r));
		CHECK(__builtin_thread_pointer() == pointer);
		CHECK_EQ(4711, local);
		TRY(end_reading(&r));
		CHECK(__builtin_thread_pointer() == pointer);
		CHECK_EQ(4711, local);
	}
	return NULL;
}

IN_EITHER_THREAD(base_of_gs)
{
	unsigned long base;
	struct reading r;
	unsigned long i;

	for (i = 1; i < 20; i++) {
		CHECK_EQ(0, raw_call(__NR_arch_prctl, ARCH_SET_GS, 0x123456789000UL * (i & 3)));
		TRY(begin_reading(&r));
		CHECK_EQ(0, raw_call(__NR_arch_prctl, ARCH_GET_GS, &base));
		CHECK_EQ(0x123456789000UL * (i & 3), base);
		/* Changed while the call is outstanding: it stays changed. */
		CHECK_EQ(0, raw_call(__NR_arch_prctl, ARCH_SET_GS, 0x1000UL * i));
		TRY(end_reading(&r));
		CHECK_EQ(0, raw_call(__NR_arch_prctl, ARCH_GET_GS, &base));
		CHECK_EQ(0x1000UL * i, base);
	}
	return NULL;
}

#define SELECTORS(variable)						\
	asm volatile("mov %%ds, %w0\n\tmov %%es, %w1\n\tmov %%gs, %w2"	\
		     : "=r"((variable)[0]), "=r"((variable)[1]), "=r"((variable)[2]))

IN_EITHER_THREAD(selectors_of_segments)
{
	static int somewhere = 0x5ca1ab1e;
	struct user_desc segment = {
		.entry_number = 3,
		.base_addr = 0,
		.limit = 0xfffff,
		.seg_32bit = 1,
		.limit_in_pages = 1,
		.useable = 1,
	};
	const unsigned short data = 0x2b, local_segment = 3 << 3 | 7;
	unsigned short before[3], after[3];
	int *low, value;
	struct reading r;
	int i;

	low = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	CHECK(low != MAP_FAILED);
	*low = somewhere;
	segment.base_addr = P(low);
	CHECK_EQ(0, raw_call(__NR_modify_ldt, 1, &segment, sizeof(segment)));
	asm volatile("mov %w0, %%ds\n\tmov %w0, %%es" : : "r"(data));
	asm volatile("mov %w0, %%gs" : : "r"(local_segment));
	SELECTORS(before);
	CHECK_EQ(data, before[0]);
	CHECK_EQ(local_segment, before[2]);
	for (i = 0; i < 20; i++) {
		TRY(begin_reading(&r));
		SELECTORS(after);
		CHECK_EQ(before[0], after[0]);
		CHECK_EQ(before[1], after[1]);
		CHECK_EQ(before[2], after[2]);
		asm volatile("mov %%gs:0, %0" : "=r"(value));
		CHECK_EQ(somewhere, value);
		TRY(end_reading(&r));
	}
	asm volatile("mov %w0, %%ds\n\tmov %w0, %%es\n\tmov %w0, %%gs" : : "r"(0));
	return NULL;
}

/* --- protection keys -------------------------------------------------------------------- */

static unsigned int read_pkru(void)
{
	unsigned int value, rest;

	asm volatile(".byte 0x0f, 0x01, 0xee" : "=a"(value), "=d"(rest) : "c"(0));
	return value;
}

static void write_pkru(unsigned int value)
{
	asm volatile(".byte 0x0f, 0x01, 0xef" : : "a"(value), "c"(0), "d"(0) : "memory");
}

static bool has_keys(void)
{
	unsigned int a, b, c, d;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && c & 1 << 4;
}

static const char *keeps_its_rights(void)
{
	struct reading r;
	unsigned int i;

	if (!has_keys())
		return NULL;
	for (i = 0; i < 100; i++) {
		/* Key 0 stays free, all the others get something. */
		unsigned int rights = (i * 0x9e3779b1u) & ~3u;

		write_pkru(rights);
		TRY(begin_reading(&r));
		CHECK_EQ(rights, read_pkru());
		TRY(end_reading(&r));
		CHECK_EQ(rights, read_pkru());
	}
	return NULL;
}

/*
 * The call runs with the rights the thread had when it submitted, which are not those the
 * thread has when the call wakes up.
 */
static const char *call_keeps_its_rights(void)
{
	const int size = getpagesize();
	struct submission s;
	int key, fds[2], i;
	char *page;

	if (!has_keys())
		return NULL;
	key = pkey_alloc(0, 0);
	CHECK(key > 0);
	page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(page != MAP_FAILED);
	page[0] = 0;
	CHECK_EQ(0, pkey_mprotect(page, size, PROT_READ | PROT_WRITE, key));
	CHECK_EQ(0, pipe(fds));
	for (i = 0; i < 20; i++) {
		/* May not when it submits, may when the data comes. */
		pkey_set(key, PKEY_DISABLE_WRITE);
		TRY(submit_sleeping(&s, __NR_read, ARGS(fds[0], P(page), 1)));
		pkey_set(key, 0);
		CHECK_EQ(1, write(fds[1], "x", 1));
		TRY(ends_with(&s, -EFAULT));
		CHECK_EQ(0, page[0]);
		/* What could not be stored is still there. */
		CHECK_EQ(1, read(fds[0], page, 1));

		/* And the other way round. */
		page[0] = 0;
		TRY(submit_sleeping(&s, __NR_read, ARGS(fds[0], P(page), 1)));
		pkey_set(key, PKEY_DISABLE_ACCESS);
		CHECK_EQ(1, write(fds[1], "y", 1));
		TRY(ends_with(&s, 1));
		pkey_set(key, 0);
		CHECK_EQ('y', page[0]);
		page[0] = 0;
	}
	close(fds[0]);
	close(fds[1]);
	return NULL;
}

/* So does the store of a value that a filter gives in place of a call that a worker was to make. */
static const char *filtered_value_has_its_rights(void)
{
	const int size = getpagesize();
	long elsewhere = UNTOUCHED, cookie, *word;
	int key;

	if (!has_keys())
		return NULL;
	key = pkey_alloc(0, 0);
	CHECK(key > 0);
	word = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(word != MAP_FAILED);
	*word = UNTOUCHED;
	CHECK_EQ(0, pkey_mprotect(word, size, PROT_READ | PROT_WRITE, key));
	/* A worker that may not. */
	pkey_set(key, PKEY_DISABLE_ACCESS);
	cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &elsewhere, __NR_getppid, ARGS(0));
	CHECK_EQ(getppid(), final_value(cookie, &elsewhere));
	pkey_set(key, 0);
	CHECK_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | EXDEV, 0));
	cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, word, __NR_getppid, ARGS(0));
	CHECK(is_cookie(cookie));
	CHECK_EQ(-EXDEV, final_value(cookie, word));
	return NULL;
}

TEST_F(thread, filtered_value_has_the_rights_of_its_submission)
{
	if (!has_keys())
		SKIP(return, "the processor has no protection keys");
	EXPECT_FINE(run_in_child(variant->other, filtered_value_has_its_rights));
}

TEST_F(thread, rights_stay)
{
	if (!has_keys())
		SKIP(return, "the processor has no protection keys");
	EXPECT_FINE(run_in(variant->other, keeps_its_rights));
}

TEST_F(thread, call_has_the_rights_of_its_submission)
{
	if (!has_keys())
		SKIP(return, "the processor has no protection keys");
	EXPECT_FINE(run_in(variant->other, call_keeps_its_rights));
}

#endif /* __x86_64__ */

TEST_HARNESS_MAIN
