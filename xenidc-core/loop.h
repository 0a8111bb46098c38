/* SPDX-License-Identifier: MIT */
/*
 * The loop as the rest of the library sees it. What is pure stands in loop.c: timers, posted nodes, the list of ready
 * channels. How to look and to sleep stands in os/wait.c behind struct xi_waiter, which the simulator replaces.
 */
#ifndef XI_CORE_LOOP_H
#define XI_CORE_LOOP_H

#include <xenidc/transport.h>
#include <xenidc/xenidc.h>

#include "base/list.h"

/* Something that the loop looks at while it spins, and arms before it sleeps: one for each connection. */
struct xi_pollable {
	struct xi_list link;
	unsigned (*process)(struct xi_pollable *p, unsigned budget);            /* number of events */
	int (*arm)(struct xi_pollable *p, bool futex_ok, struct xi_wait *wait); /* 0 or XI_BUSY */
	void (*disarm)(struct xi_pollable *p);
	/* The loop's: */
	bool armed;
	bool cold;      /* quiet for long while others are not: looked at now and then only */
	bool no_futex;  /* has nothing to sleep on but its descriptor */
	uint32_t quiet; /* looks in a row that found nothing */
};
/* process() may remove any pollable, itself too. A new one is looked at in this step already. */
void xi_loop_poll_add(xenidc_loop *loop, struct xi_pollable *p);
void xi_loop_poll_remove(xenidc_loop *loop, struct xi_pollable *p);
/* Are there so many that looking at each costs more than being told by descriptors? */
bool xi_loop_crowded(const xenidc_loop *loop);
/* Is it the passes that find what has arrived? If not, they come just before and after a look at the descriptors, which
 * tell as well; a pollable whose look costs a system call may leave it out. */
bool xi_loop_looks(const xenidc_loop *loop);

/* Work that the core put off, so that no handler runs inside the call that caused it. Runs at the end of this step, or
 * at the start of the next; a task may queue itself or others again (they run in the same step, at most
 * XI_PROCESS_BUDGET times). It may cancel or free any task, itself too. */
struct xi_task {
	struct xi_list link;
	void (*run)(struct xi_task *task);
};
void xi_task_init(struct xi_task *task, void (*run)(struct xi_task *task));
void xi_loop_defer(xenidc_loop *loop, struct xi_task *task); /* no-op if it is queued already */
void xi_task_cancel(struct xi_task *task);

/* Is a step running (handlers may be on the stack)? Then flush() can wait for the end of the batch. Also true in the
 * callbacks of timers, watches and posted nodes, where xenidc_loop_step() says -EDEADLK as in a handler. */
bool xi_loop_in_step(const xenidc_loop *loop);
/* Inside a handler of the client (set around each by the core). */
void xi_loop_enter_handler(xenidc_loop *loop);
void xi_loop_leave_handler(xenidc_loop *loop);
bool xi_loop_in_handler(const xenidc_loop *loop);
/* Forked child: every call but free is refused. */
bool xi_loop_forked(const xenidc_loop *loop);

/* A fresh look at the clock; xenidc_loop_now() gives the last one. */
uint64_t xi_loop_clock(xenidc_loop *loop);
/* Goes up by one whenever the loop was found to have been away for XI_SUSPEND_JUMP without waiting for that long. */
uint32_t xi_loop_jumps(const xenidc_loop *loop);

/* Objects that live and die with the loop (channels, listeners): freed, newest first, by xenidc_loop_free(). */
struct xi_member {
	struct xi_list link;
	void (*destroy)(struct xi_member *m, bool forked);
};
void xi_loop_member_add(xenidc_loop *loop, struct xi_member *m);
void xi_loop_member_remove(struct xi_member *m);
/* The oldest member with this `destroy`; NULL. */
struct xi_member *xi_loop_member_find(xenidc_loop *loop, void (*destroy)(struct xi_member *m, bool forked));

/*
 * A watch that can wait a little: the descriptor tells of deaths and rings while the loop sleeps, and what it carries
 * is found by process() otherwise. A loop that only has such watches sleeps on futex words while it is busy, and looks
 * at the descriptors at the latest XI_FUTEX_TIER later. A watch is not lazy until this is called.
 */
void xi_loop_watch_lazy(struct xenidc_watch *watch, bool lazy);

/* How a loop looks and sleeps. The one for Linux is os/wait.c; the simulator brings its own. Watches that are ready are
 * run by xi_loop_watch_ready(), which takes a fresh look at the clock first if the loop has slept. */
unsigned xi_loop_watch_ready(struct xenidc_watch *watch, uint32_t events); /* number of events: 0 or 1 */
struct xi_waiter {
	size_t size; /* of the private state, allocated by the loop, zeroed */
	int (*init)(void *priv, xenidc_loop *loop);
	void (*fini)(void *priv);
	int (*fd)(void *priv);
	/* Look once at the descriptors (without waiting) and run the watches that are ready. Number of events. */
	unsigned (*look)(void *priv);
	/* Sleep until a descriptor, one of the futex words or a wake() - at most timeout_ns; then run ready watches. */
	unsigned (*sleep)(void *priv, const struct xi_wait *words, unsigned n, int64_t timeout_ns);
	/* Can sleep() take this many futex words now? False when a foreign loop polls fd(). */
	bool (*futex_ok)(void *priv, unsigned n);
	/* Any thread: end the sleep, or the next one. */
	void (*wake)(void *priv);
	int (*watch)(void *priv, struct xenidc_watch *watch, int op); /* EPOLL_CTL_ADD, MOD, DEL */
};
extern const struct xi_waiter xi_waiter_linux;
/* As xenidc_loop_new(), with another waiter. */
int xi_loop_new(const struct xenidc_loop_options *options, const struct xi_waiter *waiter, xenidc_loop **ret);

#endif
