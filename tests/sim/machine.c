/* SPDX-License-Identifier: MIT */
/* The simulated machine's OS calls. Whatever is not here does not exist: the call ends the test. */
#include "sim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/os.h"

#define START (1000 * (uint64_t)1000000000)
/* Time goes by when somebody looks at the clock: otherwise a loop that waits for it to would wait for ever. */
#define LOOK_NS 700

struct block {
	struct xi_list link;
	struct sim_process *process;
	size_t size;
	uint64_t magic;
};
#define BLOCK_MAGIC 0x626c6f636b5f6d65ull

struct mapping {
	struct xi_list link;
	struct sim_process *process;
	uint8_t *at;
	size_t length;
};

static struct {
	uint64_t now, random[2];
	struct xi_list blocks; /* of nobody */
	struct xi_list mappings;
	uint64_t allocations, allocated;
	int64_t objects[XI_OBJECT_KINDS];
} machine;

/* --- Randomness: xorshift128+ */
void sim_seed(uint64_t seed)
{
	machine.random[0] = seed * 0x9e3779b97f4a7c15ull + 0x6a09e667f3bcc909ull;
	machine.random[1] = (seed ^ seed >> 31) * 0xbf58476d1ce4e5b9ull + 1;
	for (int i = 0; i < 16; i++)
		(void)sim_random();
}

uint64_t sim_random(void)
{
	uint64_t a = machine.random[0], b = machine.random[1];

	machine.random[0] = b;
	a ^= a << 23;
	a ^= a >> 17 ^ b ^ b >> 26;
	machine.random[1] = a;
	return a + b;
}

uint32_t sim_below(uint32_t bound)
{
	XI_ASSERT(bound > 0);
	return (uint32_t)((sim_random() >> 32) * bound >> 32);
}

bool sim_chance(uint32_t one_in)
{
	return one_in && !sim_below(one_in);
}

uint64_t sim_between(uint64_t least, uint64_t most)
{
	XI_ASSERT(least <= most);
	return most - least == UINT64_MAX ? sim_random() : least + sim_random() % (most - least + 1);
}

static void machine_entropy(void *to, size_t length)
{
	uint8_t *p = to;

	for (size_t i = 0; i < length; i++)
		p[i] = (uint8_t)sim_random();
}

/* --- Time */
uint64_t sim_now(void)
{
	return machine.now;
}

void sim_set_now(uint64_t now)
{
	XI_ASSERT(now >= machine.now);
	machine.now = now;
}

static uint64_t machine_clock(void)
{
	machine.now += LOOK_NS;
	if (sim_current() && sim_current()->coroutine && sim_chance(16))
		sim_yield();
	return machine.now;
}

/* --- Memory */
void sim_forbid_allocations(struct sim_process *process, bool forbid)
{
	XI_ASSERT(forbid || process->no_allocations > 0);
	process->no_allocations += forbid ? 1 : -1;
}

bool sim_no_memory(void)
{
	const struct sim_process *p = sim_current();

	return p && p->short_until > machine.now && sim_chance(4);
}

static void count_allocation(size_t size)
{
	struct sim_process *p = sim_current();

	machine.allocations++;
	machine.allocated += size;
	if (!p)
		return;
	p->allocations++;
	XI_ASSERT(!p->no_allocations); /* between connected and idle nothing allocates */
}

static void *machine_alloc(size_t size)
{
	struct sim_process *owner = sim_current();
	struct block *b = sim_no_memory() ? NULL : calloc(1, sizeof(*b) + size);

	if (!b)
		return NULL;
	b->magic = BLOCK_MAGIC;
	b->process = owner;
	b->size = size;
	xi_list_append(owner ? &owner->blocks : &machine.blocks, &b->link);
	count_allocation(size);
	return b + 1;
}

static void free_block(struct block *b)
{
	XI_ASSERT(b->magic == BLOCK_MAGIC);
	b->magic = 0;
	xi_list_remove(&b->link);
	machine.allocated -= b->size;
	free(b);
}

static void machine_free(void *p)
{
	if (p)
		free_block((struct block *)p - 1);
}

static void *machine_mmap(void *at, size_t length, int prot, int flags, int fd, off_t offset, int *ret_err)
{
	struct mapping *m;

	XI_ASSERT((flags & MAP_ANONYMOUS) && fd < 0);
	if (flags & MAP_FIXED)
		return xi_os_linux.mmap(at, length, prot, flags, fd, offset, ret_err);
	if (sim_no_memory()) {
		*ret_err = -ENOMEM;
		return NULL;
	}
	m = calloc(1, sizeof(*m));
	XI_ASSERT(m);
	m->at = xi_os_linux.mmap(at, length, prot, flags, fd, offset, ret_err);
	if (!m->at) {
		free(m);
		return NULL;
	}
	m->length = length;
	m->process = sim_current();
	xi_list_append(&machine.mappings, &m->link);
	count_allocation(length);
	return m->at;
}

static void unmap(struct mapping *m)
{
	int r = xi_os_linux.munmap(m->at, m->length);

	XI_ASSERT(r == 0);
	machine.allocated -= m->length;
	xi_list_remove(&m->link);
	free(m);
}

static int machine_munmap(void *at, size_t length)
{
	for (struct xi_list *l = machine.mappings.next; l != &machine.mappings; l = l->next) {
		struct mapping *m = XI_CONTAINER(l, struct mapping, link);
		if (m->at == at) {
			XI_ASSERT(m->length == length);
			unmap(m);
			return 0;
		}
	}
	return -EINVAL;
}

uint64_t sim_allocations(void)
{
	return machine.allocations;
}

uint64_t sim_allocated(void)
{
	return machine.allocated;
}

/* --- The rest */
static int machine_getpid(void)
{
	return 1;
}

static const char *machine_getenv(const char *name)
{
	return strcmp(name, "XENIDC_TRACE") ? NULL : getenv(name);
}

static uid_t machine_geteuid(void)
{
	return 1000;
}

static int machine_cpus(void)
{
	return 2;
}

static uint64_t machine_memlock_limit(void)
{
	return UINT64_MAX;
}

static const struct xi_os machine_os = {
	.alloc = machine_alloc,
	.free = machine_free,
	.clock = machine_clock,
	.entropy = machine_entropy,
	.getpid = machine_getpid,
	.mmap = machine_mmap,
	.munmap = machine_munmap,
	.getenv = machine_getenv,
	.geteuid = machine_geteuid,
	.cpus = machine_cpus,
	.memlock_limit = machine_memlock_limit,
};

void sim_machine_begin(uint64_t seed)
{
	memset(&machine, 0, sizeof(machine));
	xi_list_init(&machine.blocks);
	xi_list_init(&machine.mappings);
	machine.now = START;
	sim_seed(seed);
	for (int i = 0; i < XI_OBJECT_KINDS; i++)
		machine.objects[i] = xi_alive((enum xi_object)i);
	xi_os = &machine_os;
}

static void drop_all(struct xi_list *blocks, struct sim_process *process)
{
	while (!xi_list_empty(blocks))
		free_block(XI_CONTAINER(blocks->next, struct block, link));
	for (struct xi_list *l = machine.mappings.next, *next; l != &machine.mappings; l = next) {
		struct mapping *m = XI_CONTAINER(l, struct mapping, link);
		next = l->next;
		if (m->process == process)
			unmap(m);
	}
}

void sim_machine_account(struct sim_process *process)
{
	for (int i = 0; i < XI_OBJECT_KINDS; i++) {
		int64_t alive = xi_alive((enum xi_object)i);
		if (process)
			process->objects[i] += alive - machine.objects[i];
		machine.objects[i] = alive;
	}
}

void sim_machine_bury(struct sim_process *process)
{
	drop_all(&process->blocks, process);
	for (int i = 0; i < XI_OBJECT_KINDS; i++) {
		for (; process->objects[i] > 0; process->objects[i]--)
			xi_destroyed((enum xi_object)i);
		process->objects[i] = 0;
	}
	sim_machine_account(NULL);
}

void sim_machine_end(void)
{
	uint64_t left = machine.allocated;

	drop_all(&machine.blocks, NULL);
	if (left) {
		fprintf(stderr, "%llu bytes were not freed at the end of the world\n", (unsigned long long)left);
		abort();
	}
	xi_os = &xi_os_linux;
}
