/* SPDX-License-Identifier: MIT */
/*
 * The loop: looks at connections, runs what is due, decides how long to look and how to sleep. Pure: the clock is one
 * of the OS calls, looking at descriptors and sleeping is the waiter's.
 *
 * One look at everything is a *pass*. A pass makes no system call and reads no clock but every TICK of them, and then
 * looks at the descriptors if that is due. A *doze* arms everything, sleeps, and disarms everything.
 */
#include "loop.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/assert.h"
#include "base/counters.h"
#include "base/failpoint.h"
#include "base/limits.h"
#include "base/os.h"
#include "base/times.h"
#include "spin.h"
#include "timers.h"

/* Passes (or events) from one look at the clock to the next: together less than a microsecond. */
#define TICK 16
/* How often a loop that does not sleep looks at its descriptors: a look costs a third of a microsecond. */
#define LOOK_GAP ((uint64_t)5000)
#define LOOK_GAP_BUSY ((uint64_t)50000)
#define LOOK_GAP_LAZY ((uint64_t)200000)
/* A connection is cold after so many empty looks, if there are more than a few; so many cold ones have a turn a
 * pass. */
#define COLD_LOOKS 1024
#define HOT_FEW 4
#define COLD_TURN 2
/* Futex words collected for one sleep; the waiter may take fewer. */
#define WORDS 32
/* Sleeps after which connections are asked for a futex word again that had none. */
#define ASK_AGAIN 64
/* Handlers do not run inside one another, but for what the core itself does in one. */
#define HANDLERS_MAX 16

struct xenidc_loop {
	/* Written by other threads, so these have a line of their own. */
	char space_before[XI_LINE];
	_Atomic(struct xenidc_node *) posted; /* newest first */
	_Atomic uint32_t sleeping;            /* whoever posts takes this and wakes the loop */
	char space_after[XI_LINE];

	const struct xi_waiter *waiter;
	void *waiting; /* the waiter's state */
	enum xenidc_wait wait;
	int pid;
	bool in_step, stop;
	bool looks;          /* the passes of this step find what has arrived, not the descriptors */
	bool foreign, armed; /* a foreign loop polls our descriptor; it was told that everything is armed */
	bool slept;          /* a sleep may have passed since `now` */
	unsigned handlers;   /* of the client, on the stack */

	uint64_t now;
	uint64_t back_by; /* when the present sleep ends at the latest: to be away until then is no jump */
	uint64_t reads;   /* of the clock */
	uint32_t jumps, ticks;

	struct xi_list hot, cold;
	unsigned count, hot_count, no_futex_count; /* of pollables */
	unsigned dozes;
	struct xi_list *next;        /* pollable after the present one, while walking through a list */
	struct xi_pollable *present; /* being processed; NULL when it was removed by that */
	bool look_at_all;            /* after a sleep: the cold ones too */

	struct xi_list tasks, members;
	struct xenidc_watch *watches;
	unsigned urgent, lazy; /* watches */
	uint64_t last_look;

	uint64_t last_event, busy_until; /* until when to sleep on futex words */
	struct xi_spin spin;
	struct xi_wait words[WORDS];
	struct xi_timers timers;
};

static bool wait_known(enum xenidc_wait wait)
{
	return wait == XENIDC_WAIT_ADAPTIVE || wait == XENIDC_WAIT_BLOCK || wait == XENIDC_WAIT_SPIN;
}

/* ------------------------------------------------------------------------------------------------------------------
 * Time
 */
uint64_t xi_loop_clock(xenidc_loop *loop)
{
	XI_DASSERT(loop);
	uint64_t now = xi_os->clock();
	XI_DASSERT(now >= loop->now);
	uint64_t expected = loop->back_by > loop->now ? loop->back_by : loop->now;
	if (now > expected && now - expected > XI_SUSPEND_JUMP)
		loop->jumps++;
	loop->now = now;
	loop->reads++;
	loop->ticks = 0;
	return now;
}

uint64_t xenidc_loop_now(xenidc_loop *loop)
{
	XI_ASSERT(loop);
	return loop->now;
}

uint32_t xi_loop_jumps(const xenidc_loop *loop)
{
	XI_DASSERT(loop);
	return loop->jumps;
}

/* Until the next timer or `until`; -1: for ever. */
static int64_t time_left(const xenidc_loop *loop, uint64_t until)
{
	XI_DASSERT(loop->timers.count <= XI_TIMERS_MAX);
	uint64_t next = xi_timers_next(&loop->timers);
	if (next > until)
		next = until;
	if (next == UINT64_MAX)
		return -1;
	if (next <= loop->now)
		return 0;
	return next - loop->now > INT64_MAX ? INT64_MAX : (int64_t)(next - loop->now);
}

/* ------------------------------------------------------------------------------------------------------------------
 * Waking
 */
bool xi_loop_forked(const xenidc_loop *loop)
{
	XI_DASSERT(loop && loop->pid > 0);
	return xi_os->getpid() != loop->pid;
}

/* End a sleep, once for each. */
static void wake(xenidc_loop *loop)
{
	XI_DASSERT(loop->waiter && loop->waiting);
	if (atomic_load(&loop->sleeping) && atomic_exchange(&loop->sleeping, 0))
		loop->waiter->wake(loop->waiting);
}

/* The loop's own thread has changed something after it had told a foreign loop to sleep. */
static void kick(xenidc_loop *loop)
{
	XI_DASSERT(!loop->armed || loop->foreign);
	if (loop->armed && !loop->in_step)
		wake(loop);
}

void xenidc_loop_post(xenidc_loop *loop, struct xenidc_node *node, void (*fn)(struct xenidc_node *node))
{
	XI_ASSERT(loop && node && fn);
	if (xi_loop_forked(loop))
		return;
	node->fn = fn;
	struct xenidc_node *head = atomic_load_explicit(&loop->posted, memory_order_relaxed);
	do
		node->next = head;
	while (!atomic_compare_exchange_weak(&loop->posted, &head, node));
	/* Here push, then look at `sleeping`; in arm_loop() the other way round: one of both sees the other. */
	wake(loop);
}

static unsigned run_posted(xenidc_loop *loop)
{
	struct xenidc_node *newest = atomic_exchange_explicit(&loop->posted, NULL, memory_order_acquire);
	struct xenidc_node *oldest = NULL;
	unsigned events = 0;
	XI_DASSERT(loop->in_step);
	while (newest) {
		struct xenidc_node *node = newest;
		newest = node->next;
		node->next = oldest;
		oldest = node;
	}
	for (; oldest; events++) {
		struct xenidc_node *node = oldest;
		oldest = node->next;
		XI_DASSERT(node->fn);
		node->fn(node);
	}
	return events;
}

/* ------------------------------------------------------------------------------------------------------------------
 * Tasks, handlers, members
 */
void xi_task_init(struct xi_task *task, void (*run)(struct xi_task *task))
{
	XI_ASSERT(task && run);
	xi_list_init(&task->link);
	task->run = run;
}

void xi_loop_defer(xenidc_loop *loop, struct xi_task *task)
{
	XI_ASSERT(loop && task->run);
	XI_DASSERT(task->link.prev && task->link.next);
	if (!xi_list_empty(&task->link))
		return;
	xi_list_append(&loop->tasks, &task->link);
	kick(loop);
}

void xi_task_cancel(struct xi_task *task)
{
	XI_ASSERT(task->run);
	XI_DASSERT(task->link.prev && task->link.next);
	xi_list_remove(&task->link);
}

static unsigned run_tasks(xenidc_loop *loop)
{
	unsigned events = 0;
	/* A mark behind those of this round; it may be found anywhere, since tasks come and go meanwhile. */
	struct xi_list mark;
	XI_DASSERT(loop->in_step);
	for (unsigned round = 0; round < XI_PROCESS_BUDGET && !xi_list_empty(&loop->tasks); round++) {
		xi_list_append(&loop->tasks, &mark);
		while (loop->tasks.next != &mark) {
			struct xi_task *task = XI_CONTAINER(loop->tasks.next, struct xi_task, link);
			xi_list_remove(&task->link);
			XI_DASSERT(task->run);
			task->run(task);
			events++;
		}
		xi_list_remove(&mark);
	}
	return events;
}

bool xi_loop_in_step(const xenidc_loop *loop)
{
	XI_DASSERT(loop);
	return loop->in_step;
}

void xi_loop_enter_handler(xenidc_loop *loop)
{
	XI_DASSERT(loop && loop->handlers < HANDLERS_MAX);
	loop->handlers++;
}

void xi_loop_leave_handler(xenidc_loop *loop)
{
	XI_ASSERT(loop->handlers > 0);
	loop->handlers--;
}

bool xi_loop_in_handler(const xenidc_loop *loop)
{
	XI_DASSERT(loop);
	return loop->handlers > 0;
}

void xi_loop_member_add(xenidc_loop *loop, struct xi_member *m)
{
	XI_ASSERT(loop && m && m->destroy);
	xi_list_append(&loop->members, &m->link);
}

void xi_loop_member_remove(struct xi_member *m)
{
	XI_ASSERT(m->destroy && m->link.next);
	xi_list_remove(&m->link);
}

struct xi_member *xi_loop_member_find(xenidc_loop *loop, void (*destroy)(struct xi_member *m, bool forked))
{
	XI_ASSERT(destroy);
	for (struct xi_list *at = loop->members.next; at != &loop->members; at = at->next)
		if (XI_CONTAINER(at, struct xi_member, link)->destroy == destroy)
			return XI_CONTAINER(at, struct xi_member, link);
	return NULL;
}

/* ------------------------------------------------------------------------------------------------------------------
 * Timers
 */
int xenidc_timer_start(xenidc_loop *loop, struct xenidc_timer *timer, uint64_t after_ns,
		       void (*fn)(struct xenidc_timer *timer))
{
	XI_ASSERT(loop && timer && fn);
	if (xi_loop_forked(loop))
		return -ECHILD;
	if (timer->place && timer->loop != loop)
		xenidc_timer_stop(timer);
	/* A fresh look: a timer that fires early breaks promises, and a handler may have taken long. */
	uint64_t now = xi_loop_clock(loop);
	uint64_t due = after_ns < UINT64_MAX - now ? now + after_ns : UINT64_MAX - 1;
	uint64_t before = xi_timers_next(&loop->timers);
	int r = xi_timers_start(&loop->timers, timer, due);
	if (r < 0)
		return r;
	timer->fn = fn;
	timer->loop = loop;
	if (due < before)
		kick(loop);
	return 0;
}

void xenidc_timer_stop(struct xenidc_timer *timer)
{
	XI_ASSERT(timer);
	if (!timer->place)
		return;
	XI_ASSERT(timer->loop && timer->fn);
	xi_timers_stop(&timer->loop->timers, timer);
}

/* At most as many as there are: one that starts itself again with 0 has its next turn in the next pass. */
static unsigned run_timers(xenidc_loop *loop)
{
	unsigned events = 0;
	XI_DASSERT(loop->in_step);
	for (size_t most = loop->timers.count; most > 0; most--) {
		struct xenidc_timer *timer = xi_timers_pop(&loop->timers, loop->now);
		if (!timer)
			break;
		XI_DASSERT(timer->loop == loop && timer->place == 0);
		timer->fn(timer);
		events++;
	}
	return events;
}

/* ------------------------------------------------------------------------------------------------------------------
 * Watches
 */
int xenidc_watch_start(xenidc_loop *loop, struct xenidc_watch *watch, int fd, uint32_t events,
		       void (*fn)(struct xenidc_watch *watch, uint32_t events))
{
	XI_ASSERT(loop && watch && fn);
	if (xi_loop_forked(loop))
		return -ECHILD;
	if (watch->loop)
		return -EEXIST;
	*watch = (struct xenidc_watch){ .fd = fd, .events = events, .fn = fn, .loop = loop };
	int r = loop->waiter->watch(loop->waiting, watch, EPOLL_CTL_ADD);
	if (r < 0) {
		watch->loop = NULL;
		return r == -ENOSPC ? -ENOMEM : r;
	}
	watch->next = loop->watches;
	if (watch->next)
		watch->next->prev = watch;
	loop->watches = watch;
	loop->urgent++;
	return 0;
}

int xenidc_watch_change(struct xenidc_watch *watch, uint32_t events)
{
	XI_ASSERT(watch && watch->loop);
	if (xi_loop_forked(watch->loop))
		return -ECHILD;
	if (watch->events == events)
		return 0;
	uint32_t before = watch->events;
	watch->events = events;
	int r = watch->loop->waiter->watch(watch->loop->waiting, watch, EPOLL_CTL_MOD);
	if (r < 0)
		watch->events = before;
	return r;
}

void xenidc_watch_stop(struct xenidc_watch *watch)
{
	XI_ASSERT(watch);
	xenidc_loop *loop = watch->loop;
	if (!loop)
		return;
	XI_ASSERT(watch->prev ? watch->prev->next == watch : loop->watches == watch);
	xi_loop_watch_lazy(watch, false);
	XI_ASSERT(loop->urgent > 0);
	loop->urgent--;
	/* A child shares the epoll set with its parent and must leave it alone. */
	if (!xi_loop_forked(loop))
		loop->waiter->watch(loop->waiting, watch, EPOLL_CTL_DEL);
	if (watch->next)
		watch->next->prev = watch->prev;
	if (watch->prev)
		watch->prev->next = watch->next;
	else
		loop->watches = watch->next;
	watch->loop = NULL;
	watch->prev = watch->next = NULL;
}

void xi_loop_watch_lazy(struct xenidc_watch *watch, bool lazy)
{
	XI_ASSERT(watch && watch->loop);
	if (watch->lazy == lazy)
		return;
	XI_ASSERT(lazy ? watch->loop->urgent > 0 : watch->loop->lazy > 0);
	watch->lazy = lazy;
	watch->loop->lazy += lazy ? 1 : -1;
	watch->loop->urgent += lazy ? -1 : 1;
}

/* The loop is awake: nobody has to wake it, and its time is not the old one. */
static void after_sleep(xenidc_loop *loop)
{
	if (!loop->slept)
		return;
	XI_DASSERT(loop->in_step || loop->armed || loop->foreign);
	loop->slept = false;
	atomic_store(&loop->sleeping, 0);
	xi_loop_clock(loop);
	loop->back_by = 0;
}

unsigned xi_loop_watch_ready(struct xenidc_watch *watch, uint32_t events)
{
	XI_ASSERT(watch && watch->loop && watch->fn);
	XI_DASSERT(watch->loop->in_step);
	after_sleep(watch->loop);
	/* It may have been changed since the kernel was asked. */
	events &= watch->events | EPOLLERR | EPOLLHUP;
	if (!events)
		return 0;
	watch->fn(watch, events);
	return 1;
}

static unsigned look(xenidc_loop *loop)
{
	XI_DASSERT(loop->in_step && !loop->armed);
	XI_DASSERT(!loop->next && !loop->present);
	unsigned events = loop->waiter->look(loop->waiting);
	loop->last_look = loop->now;
	/* A descriptor may be how a connection rings. */
	if (events)
		loop->look_at_all = true;
	return events;
}

static unsigned look_if_due(xenidc_loop *loop, bool busy)
{
	XI_DASSERT(loop->now >= loop->last_look);
	uint64_t gap = !loop->urgent ? LOOK_GAP_LAZY : busy ? LOOK_GAP_BUSY : LOOK_GAP;
	if (loop->urgent + loop->lazy == 0 || loop->now - loop->last_look < gap)
		return 0;
	return look(loop);
}

/* ------------------------------------------------------------------------------------------------------------------
 * Pollables
 */
void xi_loop_poll_add(xenidc_loop *loop, struct xi_pollable *p)
{
	XI_ASSERT(loop && p && p->process && p->arm && p->disarm);
	p->armed = p->cold = p->no_futex = false;
	p->quiet = 0;
	xi_list_append(&loop->hot, &p->link);
	loop->count++;
	loop->hot_count++;
	kick(loop);
}

void xi_loop_poll_remove(xenidc_loop *loop, struct xi_pollable *p)
{
	XI_ASSERT(loop && p && loop->count > 0);
	XI_ASSERT(p->cold || loop->hot_count > 0);
	XI_ASSERT(!p->no_futex || loop->no_futex_count > 0);
	if (loop->next == &p->link)
		loop->next = p->link.next;
	if (loop->present == p)
		loop->present = NULL;
	xi_list_remove(&p->link);
	loop->count--;
	loop->hot_count -= !p->cold;
	loop->no_futex_count -= p->no_futex;
	p->armed = false;
}

bool xi_loop_crowded(const xenidc_loop *loop)
{
	XI_DASSERT(loop->hot_count <= loop->count);
	return loop->count > HOT_FEW;
}

bool xi_loop_looks(const xenidc_loop *loop)
{
	XI_DASSERT(loop->in_step);
	return loop->looks;
}

static void move(xenidc_loop *loop, struct xi_pollable *p, bool cold)
{
	XI_DASSERT(p->cold != cold && !p->armed);
	XI_DASSERT(loop->hot_count <= loop->count);
	XI_DASSERT(!cold || loop->hot_count > 0);
	xi_list_remove(&p->link);
	xi_list_append(cold ? &loop->cold : &loop->hot, &p->link);
	p->cold = cold;
	loop->hot_count += cold ? -1 : 1;
}

static inline unsigned process(xenidc_loop *loop, struct xi_pollable *p)
{
	XI_DASSERT(!p->armed && !loop->present);
	XI_DASSERT(loop->in_step);
	loop->present = p;
	unsigned events = p->process(p, XI_PROCESS_BUDGET);
	if (loop->present != p) /* and perhaps freed */
		return events;
	loop->present = NULL;
	if (events) {
		p->quiet = 0;
		if (p->cold)
			move(loop, p, false);
	} else if (p->quiet < COLD_LOOKS) {
		p->quiet++;
	} else if (!p->cold && loop->hot_count > HOT_FEW) {
		move(loop, p, true);
	}
	return events;
}

static unsigned process_list(xenidc_loop *loop, struct xi_list *list)
{
	unsigned events = 0;
	XI_DASSERT(!loop->next);
	for (struct xi_list *at = list->next; at != list; at = loop->next) {
		loop->next = at->next;
		events += process(loop, XI_CONTAINER(at, struct xi_pollable, link));
	}
	loop->next = NULL;
	return events;
}

static unsigned process_some_cold(xenidc_loop *loop)
{
	unsigned events = 0;
	XI_DASSERT(loop->hot_count < loop->count);
	for (int i = 0; i < COLD_TURN && !xi_list_empty(&loop->cold); i++) {
		struct xi_list *first = loop->cold.next;
		xi_list_remove(first);
		xi_list_append(&loop->cold, first);
		events += process(loop, XI_CONTAINER(first, struct xi_pollable, link));
	}
	return events;
}

static void disarm_list(xenidc_loop *loop, struct xi_list *list)
{
	XI_DASSERT(!loop->next && !loop->present);
	for (struct xi_list *at = list->next; at != list; at = loop->next) {
		struct xi_pollable *p = XI_CONTAINER(at, struct xi_pollable, link);
		loop->next = at->next;
		if (p->armed) {
			p->armed = false;
			p->disarm(p);
		}
	}
	loop->next = NULL;
}

static void disarm_all(xenidc_loop *loop)
{
	disarm_list(loop, &loop->hot);
	disarm_list(loop, &loop->cold);
}

/* False: something is there already, or (only with `futex`) a connection has no futex word. */
static bool arm_list(xenidc_loop *loop, struct xi_list *list, bool futex, unsigned *words)
{
	bool ok = true;
	XI_DASSERT(!loop->next && !loop->present);
	for (struct xi_list *at = list->next; at != list && ok; at = loop->next) {
		struct xi_pollable *p = XI_CONTAINER(at, struct xi_pollable, link);
		struct xi_wait wait = { .futex = NULL };
		loop->next = at->next;
		XI_DASSERT(!p->armed);
		p->armed = p->arm(p, futex, &wait) != XI_BUSY;
		ok = p->armed;
		if (!ok || !futex)
			continue;
		if (wait.futex) {
			XI_ASSERT(*words < WORDS && (uintptr_t)wait.futex % sizeof(uint32_t) == 0);
			loop->words[(*words)++] = wait;
		} else {
			XI_DASSERT(!p->no_futex);
			p->no_futex = true;
			loop->no_futex_count++;
			ok = false;
		}
	}
	loop->next = NULL;
	return ok;
}

static bool arm_all(xenidc_loop *loop, bool futex, unsigned *words)
{
	*words = 0;
	if (arm_list(loop, &loop->hot, futex, words) && arm_list(loop, &loop->cold, futex, words))
		return true;
	disarm_all(loop);
	return false;
}

/* ------------------------------------------------------------------------------------------------------------------
 * Steps
 */
static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* All of a pass but the timers. */
static inline unsigned look_around(xenidc_loop *loop)
{
	unsigned events = 0;
	XI_DASSERT(loop->in_step && !loop->armed);
	XI_DASSERT(!loop->slept);
	if (!xi_list_empty(&loop->tasks))
		events += run_tasks(loop);
	if (atomic_load_explicit(&loop->posted, memory_order_relaxed))
		events += run_posted(loop);
	events += process_list(loop, &loop->hot);
	if (!xi_list_empty(&loop->cold))
		events += loop->look_at_all ? process_list(loop, &loop->cold) : process_some_cold(loop);
	loop->look_at_all = false;
	loop->ticks += 1 + events;
	if (loop->ticks >= TICK) {
		xi_loop_clock(loop);
		events += look_if_due(loop, events > 0);
	}
	if (events) {
		/* Two in a row make the loop busy: one alone (a heartbeat) is not worth a second wake-up later on. */
		if (loop->now - loop->last_event < XI_FUTEX_TIER)
			loop->busy_until = loop->now + XI_FUTEX_TIER;
		loop->last_event = loop->now;
	}
	return events;
}

/* The rest of a pass: timers, and what the handlers put off. */
static inline unsigned finish(xenidc_loop *loop)
{
	unsigned events = 0;
	XI_DASSERT(loop->in_step && !loop->present);
	if (xi_timers_next(&loop->timers) <= loop->now)
		events += run_timers(loop);
	if (!xi_list_empty(&loop->tasks))
		events += run_tasks(loop);
	return events;
}

static unsigned pass(xenidc_loop *loop)
{
	unsigned events = look_around(loop);
	return events + finish(loop);
}

/* Look for a while. 0: that is over, or it is `until`. */
static unsigned spin(xenidc_loop *loop, uint64_t until)
{
	uint64_t bound = loop->wait == XENIDC_WAIT_SPIN    ? UINT64_MAX
			 : loop->wait == XENIDC_WAIT_BLOCK ? 0
							   : xi_spin_bound(&loop->spin);
	uint64_t first_read = loop->reads + 1, start = 0;
	XI_DASSERT(bound == UINT64_MAX || bound <= loop->spin.max_ns);
	while (bound) {
		relax();
		unsigned found = look_around(loop);
		unsigned events = found + finish(loop);
		if (found)
			xi_spin_looked(&loop->spin, true);
		if (events)
			return events;
		if (loop->reads < first_read)
			continue;
		/* `now` was old before; from the first read on it is not. */
		if (!start)
			start = loop->now;
		if (loop->now >= until)
			return 0;
		if (loop->now - start >= bound) {
			xi_spin_looked(&loop->spin, false);
			break;
		}
	}
	return 0;
}

/* Arm everything, connections and xenidc_loop_post(), for a sleep of up to `timeout`. False: there is something to do
 * first; nothing is armed. */
static bool arm_loop(xenidc_loop *loop, bool futex, int64_t timeout, unsigned *words)
{
	XI_DASSERT(!loop->armed && !loop->slept);
	XI_DASSERT(!atomic_load(&loop->sleeping));
	if (timeout == 0 || !xi_list_empty(&loop->tasks))
		return false;
	if (!arm_all(loop, futex, words)) {
		loop->look_at_all = true;
		return false;
	}
	atomic_store(&loop->sleeping, 1);
	if (atomic_load(&loop->posted)) {
		atomic_store(&loop->sleeping, 0);
		disarm_all(loop);
		return false;
	}
	loop->slept = true;
	loop->back_by = timeout < 0 ? UINT64_MAX : loop->now + (uint64_t)timeout;
	return true;
}

static void ask_again(struct xi_list *list)
{
	for (struct xi_list *at = list->next; at != list; at = at->next)
		XI_CONTAINER(at, struct xi_pollable, link)->no_futex = false;
}

/* On futex words a loop sleeps only shortly after it was busy, and if no descriptor needs more attention than that. */
static bool want_futex(xenidc_loop *loop)
{
	XI_DASSERT(loop->no_futex_count <= loop->count);
	if (++loop->dozes % ASK_AGAIN == 0 && loop->no_futex_count) {
		ask_again(&loop->hot);
		ask_again(&loop->cold);
		loop->no_futex_count = 0;
	}
	return loop->now < loop->busy_until && !loop->urgent && !loop->no_futex_count && loop->count > 0 &&
	       loop->count <= WORDS && loop->waiter->futex_ok(loop->waiting, loop->count);
}

/* Sleep once, at the longest until `until`, and run what is ready then. */
static unsigned doze(xenidc_loop *loop, uint64_t until)
{
	unsigned words = 0;
	uint64_t start = xi_loop_clock(loop);
	bool futex = want_futex(loop);
	int64_t timeout = time_left(loop, futex && loop->busy_until < until ? loop->busy_until : until);
	if (!arm_loop(loop, futex, timeout, &words))
		return pass(loop);
	XI_DASSERT(words == 0 || (futex && words == loop->count));
	XI_FAILPOINT(loop_armed);
	unsigned events = loop->waiter->sleep(loop->waiting, loop->words, words, timeout);
	XI_FAILPOINT(loop_woken);
	after_sleep(loop);
	disarm_all(loop);
	loop->look_at_all = true;
	if (!words)
		loop->last_look = loop->now;
	events += look_around(loop);
	if (events)
		xi_spin_slept(&loop->spin, loop->now - start);
	return events + finish(loop);
}

static unsigned wait_for_events(xenidc_loop *loop, int64_t timeout_ns)
{
	uint64_t until = timeout_ns < 0 ? UINT64_MAX : xi_loop_clock(loop) + (uint64_t)timeout_ns;
	XI_DASSERT(timeout_ns != 0 && loop->in_step);
	unsigned events = spin(loop, until);
	while (!events && loop->now < until)
		events = doze(loop, until);
	return events;
}

/* Back from a foreign loop's sleep, or about to arm anew. */
static void disarm_loop(xenidc_loop *loop)
{
	if (!loop->armed)
		return;
	XI_DASSERT(loop->foreign && loop->slept);
	loop->armed = false;
	after_sleep(loop);
	disarm_all(loop);
	loop->look_at_all = true;
}

int xenidc_loop_step(xenidc_loop *loop, int64_t timeout_ns)
{
	XI_ASSERT(loop);
	unsigned events = 0;
	if (loop->in_step || loop->handlers)
		return -EDEADLK;
	if (xi_loop_forked(loop))
		return -ECHILD;
	loop->in_step = true;
	disarm_loop(loop);
	loop->looks = !loop->foreign && (timeout_ns == 0 || loop->wait != XENIDC_WAIT_BLOCK);
	if (timeout_ns == 0 || loop->foreign) {
		/* The caller has a rhythm of its own: what is due now must not wait for a tick. */
		xi_loop_clock(loop);
		events = loop->foreign || loop->urgent ? look(loop) : look_if_due(loop, false);
	}
	events += pass(loop);
	if (!events && timeout_ns)
		events = wait_for_events(loop, timeout_ns);
	loop->in_step = false;
	return events > INT_MAX ? INT_MAX : (int)events;
}

int xenidc_loop_run(xenidc_loop *loop)
{
	XI_ASSERT(loop && wait_known(loop->wait));
	int r = 0;
	while (!loop->stop && r >= 0)
		r = xenidc_loop_step(loop, -1);
	if (r >= 0)
		loop->stop = false;
	return r < 0 ? r : 0;
}

void xenidc_loop_stop(xenidc_loop *loop)
{
	XI_ASSERT(loop);
	loop->stop = true;
}

int xenidc_loop_fd(xenidc_loop *loop)
{
	XI_ASSERT(loop);
	if (xi_loop_forked(loop))
		return -ECHILD;
	loop->foreign = true;
	return loop->waiter->fd(loop->waiting);
}

int xenidc_loop_arm(xenidc_loop *loop, int64_t *timeout_ns)
{
	XI_ASSERT(loop && timeout_ns);
	unsigned words;
	if (loop->in_step || loop->handlers)
		return -EDEADLK;
	int r = xenidc_loop_fd(loop);
	if (r < 0)
		return r;
	disarm_loop(loop);
	xi_loop_clock(loop);
	int64_t timeout = time_left(loop, UINT64_MAX);
	if (!arm_loop(loop, false, timeout, &words))
		return XENIDC_BUSY;
	loop->armed = true;
	*timeout_ns = timeout;
	return XENIDC_ARMED;
}

/* ------------------------------------------------------------------------------------------------------------------
 * Making and freeing
 */
int xi_loop_new(const struct xenidc_loop_options *options, const struct xi_waiter *waiter, xenidc_loop **ret)
{
	struct xenidc_loop_options o = { .size = sizeof(o) };
	XI_ASSERT(ret && waiter);
	XI_ASSERT(waiter->size > 0 && waiter->init && waiter->fini && waiter->fd && waiter->look);
	XI_ASSERT(waiter->sleep && waiter->futex_ok && waiter->wake && waiter->watch);
	if (options && options->size < sizeof(options->size))
		return -EINVAL;
	if (options)
		memcpy(&o, options, options->size < sizeof(o) ? options->size : sizeof(o));
	if (!wait_known(o.wait))
		return -EINVAL;
	xenidc_loop *loop = xi_os->alloc(sizeof(*loop));
	if (!loop)
		return -ENOMEM;
	loop->waiting = xi_os->alloc(waiter->size);
	int r = loop->waiting ? waiter->init(loop->waiting, loop) : -ENOMEM;
	if (r < 0) {
		xi_os->free(loop->waiting);
		xi_os->free(loop);
		return r;
	}
	loop->waiter = waiter;
	loop->wait = o.wait;
	loop->pid = xi_os->getpid();
	loop->now = xi_os->clock();
	xi_list_init(&loop->hot);
	xi_list_init(&loop->cold);
	xi_list_init(&loop->tasks);
	xi_list_init(&loop->members);
	/* Whoever could make something ready needs a processor to do it. */
	xi_spin_init(&loop->spin, xi_os->cpus() < 2 ? 0 : o.spin_max_ns ? o.spin_max_ns : XI_SPIN_MAX);
	xi_created(XI_OBJECT_LOOP);
	*ret = loop;
	return 0;
}

int xenidc_loop_new(const struct xenidc_loop_options *options, xenidc_loop **ret)
{
	return xi_loop_new(options, &xi_waiter_linux, ret);
}

int xenidc_loop_set_wait(xenidc_loop *loop, enum xenidc_wait wait)
{
	XI_ASSERT(loop);
	if (xi_loop_forked(loop))
		return -ECHILD;
	if (!wait_known(wait))
		return -EINVAL;
	loop->wait = wait;
	return 0;
}

void xenidc_loop_free(xenidc_loop *loop)
{
	if (!loop)
		return;
	bool forked = xi_loop_forked(loop);
	XI_ASSERT(forked || (!loop->in_step && !loop->handlers));
	while (!xi_list_empty(&loop->members)) {
		struct xi_member *m = XI_CONTAINER(loop->members.prev, struct xi_member, link);
		xi_list_remove(&m->link);
		m->destroy(m, forked);
	}
	XI_ASSERT(forked || (loop->count == 0 && loop->hot_count == 0 && loop->no_futex_count == 0));
	XI_ASSERT(forked || xi_list_empty(&loop->tasks));
	/* What is left is the client's: it may still be stopped after this. */
	while (loop->timers.count)
		xi_timers_stop(&loop->timers, loop->timers.heap[loop->timers.count - 1]);
	while (loop->watches)
		xenidc_watch_stop(loop->watches);
	XI_ASSERT(loop->urgent + loop->lazy == 0 && loop->timers.count == 0);
	loop->waiter->fini(loop->waiting);
	xi_os->free(loop->waiting);
	xi_os->free(loop);
	xi_destroyed(XI_OBJECT_LOOP);
}
