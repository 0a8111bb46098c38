/* SPDX-License-Identifier: MIT */
/* Processes and who of them runs next; events that are due; descriptors. */
#include "sim.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "transport-local/ring.h"
#include "xenidc-core/base/assert.h"
#include "xenidc-core/transports.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#endif

#define WAKE_DELAY_MAX (3 * SIM_MS)

static struct {
	bool begun;
	struct sim_options options;
	struct sim_process processes[SIM_PROCESSES];
	unsigned count;
	struct sim_process *current, *making;
	struct sim_event *heap[SIM_EVENTS];
	size_t events;
	uint64_t order, hash;
	uint32_t lose_one_in, delay_one_in;
	struct {
		bool used;
		uint32_t ready;
	} fds[SIM_FDS];
	unsigned fd_next;
	ucontext_t scheduler;
	void *stacks[SIM_PROCESSES]; /* kept from world to world */
#ifdef WITH_ASAN
	const void *stack_bottom;
	size_t stack_size;
#endif
} world;

/* --- What happened */
void sim_note(uint64_t what)
{
	world.hash = (world.hash ^ what) * 0x100000001b3ull;
	world.hash ^= world.hash >> 29;
}

uint64_t sim_hash(void)
{
	return world.hash;
}

bool sim_tracing(void)
{
	return world.options.trace;
}

void sim_trace(const char *format, ...)
{
	va_list args;

	if (!world.options.trace)
		return;
	fprintf(stderr, "%12.6f ms  %-8s ", (double)(sim_now() % 10000000000000ull) / 1e6,
		world.current ? world.current->name : "-");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

const struct sim_options *sim_options(void)
{
	return &world.options;
}

void sim_set_chunks(enum sim_chunks chunks)
{
	world.options.chunks = chunks;
}

void sim_set_races(uint32_t lose_one_in, uint32_t delay_one_in)
{
	world.lose_one_in = lose_one_in;
	world.delay_one_in = delay_one_in;
}

/* --- Events: a binary heap, by time and then by the order in which they were started */
static bool before(const struct sim_event *a, const struct sim_event *b)
{
	return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void put_at(size_t i, struct sim_event *e)
{
	world.heap[i] = e;
	e->place = i + 1;
}

static void settle(size_t i, struct sim_event *e)
{
	while (i > 0 && before(e, world.heap[(i - 1) / 2])) {
		put_at(i, world.heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	for (;;) {
		size_t child = 2 * i + 1;
		if (child + 1 < world.events && before(world.heap[child + 1], world.heap[child]))
			child++;
		if (child >= world.events || !before(world.heap[child], e))
			break;
		put_at(i, world.heap[child]);
		i = child;
	}
	put_at(i, e);
}

void sim_event_stop(struct sim_event *event)
{
	size_t i = event->place;

	if (!i--)
		return;
	XI_ASSERT(world.heap[i] == event);
	event->place = 0;
	struct sim_event *last = world.heap[--world.events];
	if (last != event)
		settle(i, last);
}

void sim_event_start(struct sim_event *event, uint64_t due, void (*fn)(struct sim_event *event))
{
	sim_event_stop(event);
	XI_ASSERT(world.events < SIM_EVENTS);
	event->due = due;
	event->order = ++world.order;
	event->fn = fn;
	settle(world.events++, event);
}

uint64_t sim_events_next(void)
{
	return world.events ? world.heap[0]->due : UINT64_MAX;
}

unsigned sim_events_run(void)
{
	unsigned n = 0;

	while (world.events && world.heap[0]->due <= sim_now()) {
		struct sim_event *e = world.heap[0];
		sim_event_stop(e);
		e->fn(e);
		n++;
	}
	return n;
}

/* --- Descriptors */
static unsigned fd_index(int fd)
{
	XI_ASSERT(sim_fd_exists(fd));
	return (unsigned)(fd - SIM_FD_FIRST);
}

bool sim_fd_exists(int fd)
{
	return fd >= SIM_FD_FIRST && fd < SIM_FD_FIRST + SIM_FDS && world.fds[fd - SIM_FD_FIRST].used;
}

int sim_fd_new(void)
{
	for (unsigned i = 0; i < SIM_FDS; i++) {
		unsigned at = world.fd_next++ % SIM_FDS;
		if (world.fds[at].used)
			continue;
		world.fds[at].used = true;
		world.fds[at].ready = 0;
		return SIM_FD_FIRST + (int)at;
	}
	XI_ASSERT(!"descriptors are left");
}

void sim_fd_free(int fd)
{
	world.fds[fd_index(fd)].used = false;
}

void sim_fd_set(int fd, uint32_t events, bool on)
{
	uint32_t *ready = &world.fds[fd_index(fd)].ready;

	*ready = on ? *ready | events : *ready & ~events;
}

uint32_t sim_fd_ready(int fd)
{
	return world.fds[fd_index(fd)].ready;
}

/* --- Processes */
struct sim_process *sim_current(void)
{
	return world.current;
}

struct sim_process *sim_as(struct sim_process *process)
{
	struct sim_process *was = world.current;

	sim_machine_account(was);
	world.current = process;
	return was;
}

struct sim_process *sim_process_at(unsigned i)
{
	return i < world.count ? &world.processes[i] : NULL;
}

struct sim_process *sim_process_of(xenidc_loop *loop)
{
	for (unsigned i = 0; i < world.count; i++)
		if (world.processes[i].loop == loop && loop)
			return &world.processes[i];
	XI_ASSERT(world.making); /* a loop that is being made */
	return world.making;
}

struct sim_process *sim_process_new(const char *name)
{
	unsigned i = 0;

	XI_ASSERT(world.begun);
	while (i < world.count && world.processes[i].alive)
		i++; /* the places of the dead are used again */
	XI_ASSERT(i < SIM_PROCESSES);
	if (i == world.count)
		world.count++;
	struct sim_process *p = &world.processes[i];
	*p = (struct sim_process){ .name = name, .index = i, .alive = true };
	xi_list_init(&p->blocks);
	return p;
}

int sim_loop_new(struct sim_process *process, const struct xenidc_loop_options *options, xenidc_loop **ret)
{
	struct sim_process *was = sim_as(process);

	XI_ASSERT(process->alive && !process->loop);
	world.making = process;
	int r = xi_loop_new(options, &sim_waiter, ret);
	world.making = NULL;
	sim_as(was);
	return r;
}

void sim_kill(struct sim_process *process)
{
	XI_ASSERT(process->alive && world.current != process);
	sim_trace("%s is killed", process->name);
	sim_note(0x6b696c6c + process->index);
	process->alive = false;
	sim_net_died(process);
	sim_mapped_died(process);
	sim_machine_bury(process);
	process->loop = NULL;
	process->waiter = NULL;
}

void sim_pause(struct sim_process *process, bool paused)
{
	sim_trace("%s is %s", process->name, paused ? "stopped" : "continued");
	process->paused = paused;
}

void sim_jump(uint64_t ns)
{
	sim_trace("the clock jumps by %llu ms", (unsigned long long)(ns / SIM_MS));
	sim_set_now(sim_now() + ns);
}

/* --- Loops that the test steps */
static bool steppable(const struct sim_process *p)
{
	return p->alive && !p->paused && p->loop && !p->coroutine && !p->asleep;
}

static unsigned step_all(void)
{
	unsigned events = 0, n = world.count, first = n ? sim_below(n) : 0;
	bool backwards = sim_chance(2);

	for (unsigned i = 0; i < n; i++) {
		struct sim_process *p = &world.processes[(first + (backwards ? n - i : i)) % n];
		if (!steppable(p))
			continue;
		struct sim_process *was = sim_as(p);
		int r = xenidc_loop_step(p->loop, 0);
		sim_as(was);
		XI_ASSERT(r >= 0);
		events += (unsigned)r;
	}
	return events;
}

unsigned sim_step(void)
{
	unsigned events = sim_events_run();

	return events + step_all();
}

/* When this process has to run again; 0: now. */
static uint64_t due_of(struct sim_process *p)
{
	int64_t timeout = -1;

	if (!p->alive || p->paused || p->finished || !(p->loop || p->coroutine))
		return UINT64_MAX;
	if (p->asleep) {
		uint64_t until = sim_waiter_ready(p->waiter) ? 0 : sim_waiter_until(p->waiter);
		return until > p->ready_at ? until : p->ready_at;
	}
	if (p->coroutine)
		return 0;
	struct sim_process *was = sim_as(p);
	int r = xenidc_loop_arm(p->loop, &timeout);
	sim_as(was);
	XI_ASSERT(r >= 0);
	/* A lazy watch waits until somebody looks, which a step does from now on. */
	if (r == XENIDC_BUSY || sim_waiter_ready(p->waiter))
		return 0;
	return timeout < 0 ? UINT64_MAX : sim_now() + (uint64_t)timeout;
}

/* Move the clock, at most to `limit`. */
static bool advance_to(uint64_t limit)
{
	uint64_t next = sim_events_next();

	for (unsigned i = 0; i < world.count; i++) {
		uint64_t due = due_of(&world.processes[i]);
		next = due < next ? due : next;
	}
	if (next == UINT64_MAX && limit == UINT64_MAX)
		return false;
	next = next < limit ? next : limit;
	if (next > sim_now())
		sim_set_now(next);
	return true;
}

bool sim_advance(void)
{
	return advance_to(UINT64_MAX);
}

void sim_pass(uint64_t ns)
{
	uint64_t until = sim_now() + ns;

	while (sim_now() < until)
		if (!sim_step())
			advance_to(until);
}

void sim_wait_plain(struct sim_process *process)
{
	uint64_t until = sim_waiter_until(process->waiter);

	XI_ASSERT(!process->coroutine);
	process->asleep = true;
	struct sim_process *was = sim_as(NULL);
	while (!sim_waiter_ready(process->waiter) && sim_now() < until) {
		if (sim_events_run() + step_all())
			continue;
		bool moved = advance_to(until);
		XI_ASSERT(moved); /* else everybody waits for ever */
	}
	sim_as(was);
	process->asleep = false;
}

/* --- Coroutines */
static void switch_to(ucontext_t *from, ucontext_t *to, struct sim_process *process)
{
#ifdef WITH_ASAN
	static void *scheduler_fake;
	if (process) {
		__sanitizer_start_switch_fiber(&scheduler_fake, process->stack, SIM_STACK);
		swapcontext(from, to);
		__sanitizer_finish_switch_fiber(scheduler_fake, NULL, NULL);
	} else {
		struct sim_process *self = world.current;
		__sanitizer_start_switch_fiber(self->finished ? NULL : &self->fiber, world.stack_bottom,
					       world.stack_size);
		swapcontext(from, to);
		__sanitizer_finish_switch_fiber(self->fiber, &world.stack_bottom, &world.stack_size);
	}
#else
	(void)process;
	swapcontext(from, to);
#endif
}

static void enter(void)
{
	struct sim_process *self = world.current;

#ifdef WITH_ASAN
	__sanitizer_finish_switch_fiber(NULL, &world.stack_bottom, &world.stack_size);
#endif
	self->body(self, self->arg);
	self->finished = true;
	switch_to(&self->context, &world.scheduler, NULL);
	XI_ASSERT(!"a process that has finished runs again");
}

void sim_start(struct sim_process *process, void (*body)(struct sim_process *process, void *arg), void *arg)
{
	void **stack = &world.stacks[process->index];

	XI_ASSERT(!process->coroutine && !process->loop);
	if (!*stack)
		*stack = malloc(SIM_STACK);
	XI_ASSERT(*stack);
#ifdef WITH_ASAN
	ASAN_UNPOISON_MEMORY_REGION(*stack, SIM_STACK);
#endif
	process->coroutine = true;
	process->body = body;
	process->arg = arg;
	process->stack = *stack;
	getcontext(&process->context);
	process->context.uc_stack.ss_sp = *stack;
	process->context.uc_stack.ss_size = SIM_STACK;
	process->context.uc_link = NULL;
	makecontext(&process->context, enter, 0);
}

bool sim_finished(const struct sim_process *process)
{
	return process->finished;
}

void sim_yield(void)
{
	struct sim_process *self = world.current;

	if (!self || !self->coroutine)
		return;
	switch_to(&self->context, &world.scheduler, NULL);
}

void sim_wait_coroutine(struct sim_process *process)
{
	XI_ASSERT(process == world.current);
	process->asleep = true;
	process->ready_at = 0;
	sim_yield();
	XI_ASSERT(!process->asleep);
}

/* A sleeper with a reason to wake up may get the processor only later. */
static bool runnable(struct sim_process *p)
{
	if (!p->coroutine || !p->alive || p->paused || p->finished)
		return false;
	if (!p->asleep)
		return true;
	if (!sim_waiter_ready(p->waiter) && sim_waiter_until(p->waiter) > sim_now())
		return false;
	if (!p->ready_at)
		p->ready_at = sim_now() + (sim_chance(world.delay_one_in) ? sim_between(0, WAKE_DELAY_MAX) : 0);
	return p->ready_at <= sim_now();
}

bool sim_run(void)
{
	struct sim_process *ready[SIM_PROCESSES];
	unsigned n = 0;

	XI_ASSERT(!world.current);
	sim_events_run();
	for (unsigned i = 0; i < world.count; i++)
		if (runnable(&world.processes[i]))
			ready[n++] = &world.processes[i];
	if (!n)
		return false;
	struct sim_process *p = ready[n > 1 ? sim_below(n) : 0];
	sim_note(sim_now() << 4 | p->index);
	p->asleep = false;
	sim_as(p);
	switch_to(&world.scheduler, &p->context, p);
	sim_as(NULL);
	return true;
}

bool sim_quiet(void)
{
	if (world.events)
		return false;
	for (unsigned i = 0; i < world.count; i++) {
		struct sim_process *p = &world.processes[i];
		if (!p->alive || p->finished)
			continue;
		if (p->paused || !p->asleep || sim_waiter_ready(p->waiter) || sim_waiter_has_news(p->waiter))
			return false;
		if (sim_waiter_until(p->waiter) <= sim_now())
			return false;
	}
	return true;
}

static void sched_point(void)
{
	if (world.lose_one_in && world.current && world.current->coroutine && sim_chance(world.lose_one_in))
		sim_yield();
}

/* --- The world */
void sim_begin(uint64_t seed, const struct sim_options *options)
{
	static bool added;

	XI_ASSERT(!world.begun);
	world.begun = true;
	world.options = options ? *options : (struct sim_options){ 0 };
	if (!world.options.pipe_bytes)
		world.options.pipe_bytes = 65536;
	if (!world.options.queue_depth)
		world.options.queue_depth = 8;
	world.count = 0;
	world.current = NULL;
	world.events = 0;
	world.order = 0;
	world.hash = seed;
	world.lose_one_in = world.delay_one_in = 0;
	sim_machine_begin(seed);
	sim_net_begin();
	xi_sched_point = sched_point;
	if (added)
		return;
	added = true;
	xi_transport_add(&sim_transport_mapped);
	xi_transport_add(&sim_transport_stream);
	xi_transport_add(&sim_transport_window);
}

void sim_end(void)
{
	XI_ASSERT(world.begun && !world.current);
	for (unsigned i = 0; i < world.count; i++)
		XI_ASSERT(!world.processes[i].loop);
	sim_net_end();
	sim_mapped_end();
	for (unsigned i = 0; i < SIM_FDS; i++)
		XI_ASSERT(!world.fds[i].used);
	sim_machine_end();
	xi_sched_point = NULL;
	world.begun = false;
}
