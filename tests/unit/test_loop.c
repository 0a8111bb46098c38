/* SPDX-License-Identifier: MIT */
/* The loop without a machine: a clock that stands still unless told otherwise, and a waiter that keeps a diary. */
#include "tests/lib/check.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/limits.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"
#include "xenidc-core/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------------------------------
 * The machine
 */
static struct {
	uint64_t now, tick; /* each look at the clock takes `tick` */
	int cpus;
	unsigned sleeps, looks, wakes;
	unsigned words;     /* of the last sleep */
	int64_t timeout;    /* of the last sleep */
	uint64_t oversleep; /* how much longer a sleep takes than asked for */
	bool foreign;
	void (*while_asleep)(void); /* what ends a sleep, instead of its time */
	void (*at_look)(void);
} m;

static uint64_t fake_clock(void)
{
	return m.now += m.tick;
}

static int fake_cpus(void)
{
	return m.cpus;
}

static int w_init(void *priv, xenidc_loop *loop)
{
	(void)priv;
	(void)loop;
	return 0;
}

static void w_fini(void *priv)
{
	(void)priv;
}

static int w_fd(void *priv)
{
	(void)priv;
	m.foreign = true;
	return 77;
}

static unsigned w_look(void *priv)
{
	(void)priv;
	m.looks++;
	if (m.at_look)
		m.at_look();
	return 0;
}

static unsigned w_sleep(void *priv, const struct xi_wait *words, unsigned n, int64_t timeout_ns)
{
	(void)priv;
	m.sleeps++;
	m.words = n;
	m.timeout = timeout_ns;
	CHECK(timeout_ns != 0);
	for (unsigned i = 0; i < n; i++)
		CHECK(words[i].futex);
	CHECK(timeout_ns > 0 || m.while_asleep);
	if (m.while_asleep)
		m.while_asleep();
	else
		m.now += (uint64_t)timeout_ns + m.oversleep;
	return 0;
}

static bool w_futex_ok(void *priv, unsigned n)
{
	(void)priv;
	return !m.foreign && n <= 20;
}

static void w_wake(void *priv)
{
	(void)priv;
	m.wakes++;
}

static int w_watch(void *priv, struct xenidc_watch *watch, int op)
{
	(void)priv;
	(void)op;
	return watch->fd == 13 ? -EBADF : watch->fd == 14 ? -ENOSPC : 0;
}

static const struct xi_waiter fake_waiter = { 8, w_init, w_fini, w_fd, w_look, w_sleep, w_futex_ok, w_wake, w_watch };

static struct xi_os fake_os;
static xenidc_loop *loop;

static void begin(enum xenidc_wait wait)
{
	struct xenidc_loop_options options = { .size = sizeof(options), .wait = wait };
	memset(&m, 0, sizeof(m));
	m.now = 1000 * XI_SECOND;
	m.cpus = 2;
	fake_os = xi_os_linux;
	fake_os.clock = fake_clock;
	fake_os.cpus = fake_cpus;
	xi_os = &fake_os;
	CHECK_EQ(xi_loop_new(&options, &fake_waiter, &loop), 0);
}

static void end(void)
{
	xenidc_loop_free(loop);
	CHECK_EQ(xi_alive(XI_OBJECT_LOOP), 0);
}

/* ------------------------------------------------------------------------------------------------------------------
 * A connection: what it has to deliver, and what it says when it is armed
 */
struct link {
	struct xi_pollable p;
	unsigned events; /* waiting */
	unsigned looks, arms, disarms;
	bool futex, busy;
	uint32_t word;
	void (*then)(struct link *link); /* in process() */
};

static unsigned link_process(struct xi_pollable *p, unsigned budget)
{
	struct link *l = XI_CONTAINER(p, struct link, p);
	unsigned n = l->events < budget ? l->events : budget;
	l->looks++;
	l->events -= n;
	if (l->then)
		l->then(l);
	return n;
}

static int link_arm(struct xi_pollable *p, bool futex_ok, struct xi_wait *wait)
{
	struct link *l = XI_CONTAINER(p, struct link, p);
	l->arms++;
	if (l->events || l->busy)
		return XI_BUSY;
	if (futex_ok && l->futex)
		*wait = (struct xi_wait){ .futex = &l->word, .value = 0 };
	return 0;
}

static void link_disarm(struct xi_pollable *p)
{
	XI_CONTAINER(p, struct link, p)->disarms++;
}

static void link_add(struct link *l, bool futex)
{
	*l = (struct link){ .p = { .process = link_process, .arm = link_arm, .disarm = link_disarm }, .futex = futex };
	xi_loop_poll_add(loop, &l->p);
}

static void link_remove(struct link *l)
{
	xi_loop_poll_remove(loop, &l->p);
}

/* ------------------------------------------------------------------------------------------------------------------
 * Making and freeing
 */
static void test_options(void)
{
	begin(XENIDC_WAIT_BLOCK);
	xenidc_loop *l = NULL;
	struct xenidc_loop_options o = { .size = sizeof(o), .wait = (enum xenidc_wait)7 };
	CHECK_EQ(xi_loop_new(&o, &fake_waiter, &l), -EINVAL);
	o = (struct xenidc_loop_options){ .size = 0 };
	CHECK_EQ(xi_loop_new(&o, &fake_waiter, &l), -EINVAL);
	CHECK(!l);
	/* Of a longer structure the known part holds. */
	o = (struct xenidc_loop_options){ .size = sizeof(o) + 64, .wait = XENIDC_WAIT_BLOCK };
	CHECK_EQ(xi_loop_new(&o, &fake_waiter, &l), 0);
	CHECK_EQ(xi_alive(XI_OBJECT_LOOP), 2);
	xenidc_loop_free(l);
	CHECK_EQ(xi_loop_new(NULL, &fake_waiter, &l), 0);
	CHECK_EQ(xenidc_loop_set_wait(l, (enum xenidc_wait)9), -EINVAL);
	CHECK_EQ(xenidc_loop_set_wait(l, XENIDC_WAIT_SPIN), 0);
	xenidc_loop_free(l);
	xenidc_loop_free(NULL);
	end();
}

static char order[64];
static void note(char c)
{
	size_t n = strlen(order);
	CHECK(n + 1 < sizeof(order));
	order[n] = c;
	order[n + 1] = 0;
}

struct named_member {
	struct xi_member m;
	char name;
	struct named_member *also; /* destroyed together with it */
	bool forked;
};
static void member_destroy(struct xi_member *member, bool forked)
{
	struct named_member *n = XI_CONTAINER(member, struct named_member, m);
	note(n->name);
	n->forked = forked;
	if (n->also)
		xi_loop_member_remove(&n->also->m);
}

static void test_members(void)
{
	struct named_member a = { .name = 'a' }, b = { .name = 'b' }, c = { .name = 'c' }, d = { .name = 'd' };
	struct named_member *all[] = { &a, &b, &c, &d };
	begin(XENIDC_WAIT_BLOCK);
	order[0] = 0;
	for (int i = 0; i < 4; i++) {
		all[i]->m.destroy = member_destroy;
		xi_loop_member_add(loop, &all[i]->m);
	}
	xi_loop_member_remove(&b.m);
	d.also = &c;
	end();
	CHECK_STR(order, "da");
	CHECK(!a.forked);
}

/* ------------------------------------------------------------------------------------------------------------------
 * Timers
 */
struct named_timer {
	struct xenidc_timer t;
	char name;
	uint64_t again;
	bool restart;
	struct named_timer *stops;
};
static void timer_fn(struct xenidc_timer *t)
{
	struct named_timer *n = XI_CONTAINER(t, struct named_timer, t);
	note(n->name);
	CHECK_EQ(t->place, 0);
	CHECK_EQ(xenidc_loop_step(loop, 0), -EDEADLK);
	CHECK_EQ(xenidc_loop_run(loop), -EDEADLK);
	if (n->restart)
		CHECK_EQ(xenidc_timer_start(loop, t, n->again, timer_fn), 0);
	if (n->stops)
		xenidc_timer_stop(&n->stops->t);
}

static void start(struct named_timer *n, char name, uint64_t after)
{
	n->name = name;
	CHECK_EQ(xenidc_timer_start(loop, &n->t, after, timer_fn), 0);
}

static void test_timers(void)
{
	struct named_timer a = { .name = 0 }, b = a, c = a, d = a;
	begin(XENIDC_WAIT_BLOCK);
	order[0] = 0;
	start(&a, 'a', 30 * XI_MS);
	start(&b, 'b', 10 * XI_MS);
	start(&c, 'c', 20 * XI_MS);
	start(&d, 'd', 20 * XI_MS);
	start(&d, 'd', 40 * XI_MS);
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	CHECK_EQ(m.sleeps, 0);
	CHECK_EQ(xenidc_loop_step(loop, -1), 1);
	CHECK_STR(order, "b");
	CHECK_EQ(m.timeout, 10 * XI_MS);
	b.stops = &a;
	start(&b, 'b', 15 * XI_MS);
	CHECK_EQ(xenidc_loop_step(loop, 5 * XI_MS), 0);
	CHECK_STR(order, "b");
	CHECK_EQ(xenidc_loop_step(loop, 500 * XI_MS), 1);
	CHECK_EQ(xenidc_loop_step(loop, 500 * XI_MS), 1);
	CHECK_STR(order, "bcb");
	CHECK_EQ(xenidc_loop_step(loop, -1), 1);
	CHECK_STR(order, "bcbd");
	xenidc_timer_stop(&d.t);
	/* Stopped by the loop's end, and once more by its owner. */
	start(&a, 'a', 1);
	end();
	xenidc_timer_stop(&a.t);
}

static void test_timer_again(void)
{
	struct named_timer a = { .restart = true, .again = 0 }, b = { .restart = true, .again = XI_MS };
	begin(XENIDC_WAIT_BLOCK);
	order[0] = 0;
	start(&a, 'a', 0);
	/* Once a step, however often it is due at once. */
	for (int i = 0; i < 5; i++)
		CHECK_EQ(xenidc_loop_step(loop, -1), 1);
	CHECK_STR(order, "aaaaa");
	xenidc_timer_stop(&a.t);
	order[0] = 0;
	start(&b, 'b', 0);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(xenidc_loop_step(loop, -1), 1);
	CHECK_STR(order, "bbb");
	CHECK_EQ(m.now, 1000 * XI_SECOND + 2 * XI_MS);
	end();
}

/* A timer is never early, though the loop looked at its clock long ago. */
static void test_timer_late_start(void)
{
	struct named_timer a = { .name = 0 };
	begin(XENIDC_WAIT_BLOCK);
	order[0] = 0;
	m.now += XI_SECOND;
	start(&a, 'a', 100 * XI_MS);
	CHECK_EQ(xenidc_loop_step(loop, 99 * XI_MS), 0);
	CHECK_EQ(xenidc_loop_step(loop, 1 * XI_MS), 1);
	CHECK_EQ(xenidc_loop_now(loop), m.now);
	/* The longest time there is. */
	start(&a, 'a', UINT64_MAX);
	CHECK_EQ(xenidc_loop_step(loop, XI_MS), 0);
	end();
}

static void test_timer_room(void)
{
	static struct xenidc_timer many[XI_TIMERS_MAX + 1];
	begin(XENIDC_WAIT_BLOCK);
	order[0] = 0;
	for (int i = 0; i < XI_TIMERS_MAX; i++)
		CHECK_EQ(xenidc_timer_start(loop, &many[i], XI_SECOND, timer_fn), 0);
	CHECK_EQ(xenidc_timer_start(loop, &many[XI_TIMERS_MAX], XI_SECOND, timer_fn), -ENOSPC);
	end();
	xenidc_timer_stop(&many[0]);
	xenidc_timer_stop(&many[XI_TIMERS_MAX]);
}

/* ------------------------------------------------------------------------------------------------------------------
 * Tasks, posted nodes, handlers
 */
struct named_task {
	struct xi_task t;
	char name;
	unsigned again;
	struct named_task *queues, *cancels;
};
static void task_run(struct xi_task *t)
{
	struct named_task *n = XI_CONTAINER(t, struct named_task, t);
	note(n->name);
	CHECK(xi_loop_in_step(loop));
	if (n->again && n->again--)
		xi_loop_defer(loop, t);
	if (n->queues)
		xi_loop_defer(loop, &n->queues->t);
	if (n->cancels)
		xi_task_cancel(&n->cancels->t);
}

static void test_tasks(void)
{
	struct named_task a = { .name = 'a' }, b = { .name = 'b' }, c = { .name = 'c' }, d = { .name = 'd' };
	begin(XENIDC_WAIT_BLOCK);
	xi_task_init(&a.t, task_run);
	xi_task_init(&b.t, task_run);
	xi_task_init(&c.t, task_run);
	xi_task_init(&d.t, task_run);
	order[0] = 0;
	a.queues = &d;
	b.cancels = &c;
	xi_loop_defer(loop, &a.t);
	xi_loop_defer(loop, &b.t);
	xi_loop_defer(loop, &a.t);
	xi_loop_defer(loop, &c.t);
	CHECK_EQ(xenidc_loop_step(loop, -1), 3);
	CHECK_STR(order, "abd");
	/* The last of a round and the first of the next one may be cancelled, or cancel themselves. */
	order[0] = 0;
	a.queues = NULL;
	b.cancels = &b;
	c.queues = &b;
	xi_loop_defer(loop, &c.t);
	xi_loop_defer(loop, &a.t);
	CHECK_EQ(xenidc_loop_step(loop, 0), 3);
	CHECK_STR(order, "cab");
	xi_task_cancel(&a.t);
	end();
}

/* A task that never stops queueing itself does not keep a step from ending, nor lets the loop sleep. */
static unsigned endless_runs;
static void endless_run(struct xi_task *t)
{
	endless_runs++;
	xi_loop_defer(loop, t);
}

static void test_endless_task(void)
{
	struct xi_task t;
	begin(XENIDC_WAIT_BLOCK);
	xi_task_init(&t, endless_run);
	xi_loop_defer(loop, &t);
	int64_t timeout;
	for (int i = 0; i < 3; i++) {
		CHECK_OP(xenidc_loop_step(loop, -1), >=, XI_PROCESS_BUDGET);
		CHECK_EQ(xenidc_loop_arm(loop, &timeout), XENIDC_BUSY);
	}
	CHECK_EQ(m.sleeps, 0);
	xi_task_cancel(&t);
	end();
}

struct named_node {
	struct xenidc_node n;
	char name;
	struct named_node *posts;
};
static void node_fn(struct xenidc_node *node)
{
	struct named_node *n = XI_CONTAINER(node, struct named_node, n);
	note(n->name);
	CHECK_EQ(xenidc_loop_step(loop, 0), -EDEADLK);
	if (n->posts)
		xenidc_loop_post(loop, &n->posts->n, node_fn);
}

static void test_posts(void)
{
	struct named_node a = { .name = 'a' }, b = { .name = 'b' }, c = { .name = 'c' };
	begin(XENIDC_WAIT_BLOCK);
	order[0] = 0;
	b.posts = &b;
	xenidc_loop_post(loop, &a.n, node_fn);
	xenidc_loop_post(loop, &b.n, node_fn);
	xenidc_loop_post(loop, &c.n, node_fn);
	CHECK_EQ(m.wakes, 0);
	CHECK_EQ(xenidc_loop_step(loop, -1), 3);
	CHECK_STR(order, "abc");
	b.posts = NULL;
	CHECK_EQ(xenidc_loop_step(loop, -1), 1);
	CHECK_STR(order, "abcb");
	CHECK_EQ(m.sleeps, 0);
	/* One that nobody runs any more. */
	xenidc_loop_post(loop, &a.n, node_fn);
	end();
	CHECK_STR(order, "abcb");
}

static struct named_node late = { .name = 'p' };
static void post_late(void)
{
	xenidc_loop_post(loop, &late.n, node_fn);
}
static void post_late_from_arm(struct link *l)
{
	(void)l;
	xenidc_loop_post(loop, &late.n, node_fn);
}

/* A post while the loop sleeps wakes it; one while it arms keeps it from sleeping. */
static int arm_and_post(struct xi_pollable *p, bool futex_ok, struct xi_wait *wait)
{
	int r = link_arm(p, futex_ok, wait);
	post_late_from_arm(NULL);
	return r;
}

static void test_post_wakes(void)
{
	struct link l;
	begin(XENIDC_WAIT_BLOCK);
	order[0] = 0;
	m.while_asleep = post_late;
	CHECK_EQ(xenidc_loop_step(loop, -1), 1);
	CHECK_EQ(m.sleeps, 1);
	CHECK_EQ(m.wakes, 1);
	CHECK_STR(order, "p");
	link_add(&l, true);
	l.p.arm = arm_and_post;
	CHECK_EQ(xenidc_loop_step(loop, -1), 1);
	CHECK_STR(order, "pp");
	CHECK_EQ(m.sleeps, 1);
	CHECK_EQ(m.wakes, 1);
	CHECK_EQ(l.arms, 1);
	CHECK_EQ(l.disarms, 1);
	link_remove(&l);
	end();
}

static void stop_loop(struct xenidc_node *node)
{
	(void)node;
	xenidc_loop_stop(loop);
}

static void test_run_and_handlers(void)
{
	struct xenidc_node n;
	begin(XENIDC_WAIT_BLOCK);
	CHECK(!xi_loop_in_step(loop));
	xenidc_loop_post(loop, &n, stop_loop);
	CHECK_EQ(xenidc_loop_run(loop), 0);
	/* Each stop ends one run. */
	xenidc_loop_post(loop, &n, stop_loop);
	CHECK_EQ(xenidc_loop_run(loop), 0);
	xenidc_loop_stop(loop);
	CHECK_EQ(xenidc_loop_run(loop), 0);

	CHECK(!xi_loop_in_handler(loop));
	xi_loop_enter_handler(loop);
	xi_loop_enter_handler(loop);
	xi_loop_leave_handler(loop);
	CHECK(xi_loop_in_handler(loop));
	int64_t timeout = 5;
	CHECK_EQ(xenidc_loop_step(loop, 0), -EDEADLK);
	CHECK_EQ(xenidc_loop_arm(loop, &timeout), -EDEADLK);
	CHECK_EQ(timeout, 5);
	xi_loop_leave_handler(loop);
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	end();
}

/* ------------------------------------------------------------------------------------------------------------------
 * Connections
 */
static struct link links[100];

static void remove_self(struct link *l)
{
	link_remove(l);
	memset(l, 0, sizeof(*l));
}
static void remove_neighbours(struct link *l)
{
	l->then = NULL;
	link_remove(l - 1);
	memset(l - 1, 0xee, sizeof(*l));
	link_remove(l + 1);
	memset(l + 1, 0xee, sizeof(*l));
}
static void remove_all(struct link *l)
{
	(void)l;
	for (int i = 0; i < 5; i++) {
		link_remove(&links[i]);
		memset(&links[i], 0xee, sizeof(links[i]));
	}
}
static void add_one(struct link *l)
{
	l->then = NULL;
	link_add(&links[50], true);
}

static void test_remove_while_looking(void)
{
	static const uint8_t gone[sizeof(struct link)];
	begin(XENIDC_WAIT_BLOCK);
	for (int i = 0; i < 5; i++)
		link_add(&links[i], true);
	links[2].then = remove_self;
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	CHECK_MEM(&links[2], gone, sizeof(gone));
	link_add(&links[2], true);
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	CHECK_EQ(links[4].looks, 2);
	CHECK_EQ(links[2].looks, 1);
	/* In the list: 0 1 3 4 2. */
	links[3].then = remove_neighbours;
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	CHECK_EQ(links[1].looks, 3);
	CHECK_EQ(links[3].looks, 3);
	link_add(&links[2], true);
	link_add(&links[4], true);
	links[0].then = add_one;
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	CHECK_OP(links[50].looks, >=, 1u);
	link_remove(&links[50]);
	links[3].then = remove_all;
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	end();
}

/* While a few are busy the quiet ones are looked at in turn; an event makes one of the busy again. */
static void test_cold(void)
{
	enum { N = 100, LONG = 5000 };
	begin(XENIDC_WAIT_SPIN);
	for (int i = 0; i < N; i++)
		link_add(&links[i], true);
	for (int i = 0; i < LONG; i++) {
		links[7].events = 1;
		CHECK_EQ(xenidc_loop_step(loop, 0), 1);
	}
	CHECK_EQ(links[7].looks, LONG);
	unsigned looks = 0;
	for (int i = 0; i < N; i++)
		looks += links[i].looks;
	CHECK_OP(looks, <=, LONG * 8u + N * 1100u);
	/* Each has its turn. */
	for (int i = 0; i < N; i++)
		links[i].looks = 0;
	for (int i = 0; i < N; i++)
		CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	for (int i = 0; i < N; i++)
		CHECK_OP(links[i].looks, >=, 1u);
	links[99].events = 1;
	for (int i = 0; i < N && links[99].events; i++)
		xenidc_loop_step(loop, 0);
	CHECK_EQ(links[99].events, 0);
	links[99].events = 1;
	CHECK_EQ(xenidc_loop_step(loop, 0), 1);
	/* Removing cold and hot ones keeps the books right. */
	for (int i = 0; i < N; i++)
		link_remove(&links[i]);
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	end();
}

/* After a sleep every one is looked at, cold ones too. */
static void ring_all(void)
{
	for (int i = 0; i < 61; i++)
		links[i].events = 1;
}

static void test_look_after_sleep(void)
{
	begin(XENIDC_WAIT_BLOCK);
	for (int i = 0; i < 61; i++)
		link_add(&links[i], true);
	for (int i = 0; i < 3000; i++)
		CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	m.while_asleep = ring_all;
	CHECK_EQ(xenidc_loop_step(loop, -1), 61);
	CHECK_EQ(m.sleeps, 1);
	for (int i = 0; i < 61; i++) {
		CHECK_EQ(links[i].arms, 1);
		CHECK_EQ(links[i].disarms, 1);
		link_remove(&links[i]);
	}
	end();
}

static void test_busy_arm(void)
{
	begin(XENIDC_WAIT_BLOCK);
	for (int i = 0; i < 3; i++)
		link_add(&links[i], true);
	links[1].busy = true;
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	m.tick = XI_MS; /* as nothing else lets time pass */
	CHECK_EQ(xenidc_loop_step(loop, 10 * XI_MS), 0);
	CHECK_EQ(m.sleeps, 0);
	CHECK_OP(links[0].arms, >, 0u);
	CHECK_EQ(links[0].arms, links[0].disarms);
	CHECK_EQ(links[1].disarms, 0);
	CHECK_EQ(links[2].arms, 0);
	m.tick = 0;
	links[1].busy = false;
	CHECK_EQ(xenidc_loop_step(loop, 10 * XI_MS), 0);
	CHECK_EQ(m.sleeps, 1);
	CHECK_EQ(links[1].disarms, 1);
	for (int i = 0; i < 3; i++)
		link_remove(&links[i]);
	end();
}

/* ------------------------------------------------------------------------------------------------------------------
 * How to sleep
 */
static void ring_first(void)
{
	links[0].events = 1;
	m.now += 20000;
}

static void busy_steps(unsigned n)
{
	m.while_asleep = ring_first;
	while (n--)
		CHECK_EQ(xenidc_loop_step(loop, -1), 1);
}

static void nobody(struct xenidc_watch *watch, uint32_t events)
{
	(void)watch;
	(void)events;
}

static void test_tiers(void)
{
	struct xenidc_watch watch = { .fd = 0 };
	begin(XENIDC_WAIT_BLOCK);
	link_add(&links[0], true);
	link_add(&links[1], true);
	busy_steps(1);
	CHECK_EQ(m.words, 0);
	busy_steps(10);
	CHECK_EQ(m.words, 2);
	CHECK_EQ(m.timeout, XI_FUTEX_TIER);
	/* Nothing more comes: the futex sleep ends in time, then one without end on descriptors. */
	m.while_asleep = NULL;
	m.sleeps = 0;
	CHECK_EQ(xenidc_loop_step(loop, 100 * XI_MS), 0);
	CHECK_EQ(m.sleeps, 2);
	CHECK_EQ(m.words, 0);
	CHECK_EQ(m.timeout, 100 * XI_MS - XI_FUTEX_TIER);
	/* One event alone does not bring the futex back. */
	busy_steps(1);
	m.while_asleep = NULL;
	m.sleeps = 0;
	CHECK_EQ(xenidc_loop_step(loop, XI_SECOND), 0);
	CHECK_EQ(m.sleeps, 1);
	/* A watch does not wait, unless it is lazy. */
	CHECK_EQ(xenidc_watch_start(loop, &watch, 5, EPOLLIN, nobody), 0);
	busy_steps(5);
	CHECK_EQ(m.words, 0);
	xi_loop_watch_lazy(&watch, true);
	busy_steps(2);
	CHECK_EQ(m.words, 2);
	xi_loop_watch_lazy(&watch, false);
	busy_steps(2);
	CHECK_EQ(m.words, 0);
	xi_loop_watch_lazy(&watch, true);
	xenidc_watch_stop(&watch);
	busy_steps(2);
	CHECK_EQ(m.words, 2);
	link_remove(&links[1]);
	link_remove(&links[0]);
	end();
}

/* One that has no futex word: all are armed for descriptors, and it is asked again now and then only. */
static void test_no_futex(void)
{
	begin(XENIDC_WAIT_BLOCK);
	link_add(&links[0], true);
	link_add(&links[1], false);
	busy_steps(3);
	links[0].arms = links[1].arms = links[0].disarms = 0;
	busy_steps(32);
	CHECK_EQ(m.words, 0);
	CHECK_OP(links[1].arms, <=, 33u);
	CHECK_EQ(links[0].arms, links[0].disarms);
	links[1].futex = true;
	busy_steps(64);
	CHECK_EQ(m.words, 2);
	/* It goes, and the books are right. */
	links[1].futex = false;
	busy_steps(1);
	CHECK_EQ(m.words, 0);
	link_remove(&links[1]);
	busy_steps(1);
	CHECK_EQ(m.words, 1);
	/* More than the waiter takes. */
	for (int i = 1; i < 21; i++)
		link_add(&links[i], true);
	busy_steps(2);
	CHECK_EQ(m.words, 0);
	for (int i = 0; i < 21; i++)
		link_remove(&links[i]);
	end();
}

static void test_modes(void)
{
	begin(XENIDC_WAIT_SPIN);
	m.tick = 1000;
	link_add(&links[0], true);
	CHECK_EQ(xenidc_loop_step(loop, XI_MS), 0);
	CHECK_EQ(m.sleeps, 0);
	CHECK_EQ(links[0].arms, 0);
	CHECK_OP(links[0].looks, >, 900u);
	struct named_timer a = { .name = 0 };
	order[0] = 0;
	start(&a, 'a', XI_MS);
	CHECK_EQ(xenidc_loop_step(loop, -1), 1);
	CHECK_EQ(m.sleeps, 0);
	CHECK_STR(order, "a");
	/* From the next step on: at once to sleep. */
	CHECK_EQ(xenidc_loop_set_wait(loop, XENIDC_WAIT_BLOCK), 0);
	links[0].looks = 0;
	CHECK_EQ(xenidc_loop_step(loop, XI_MS), 0);
	CHECK_EQ(m.sleeps, 1);
	CHECK_EQ(links[0].looks, 2);
	link_remove(&links[0]);
	end();
}

static void test_adaptive(void)
{
	begin(XENIDC_WAIT_ADAPTIVE);
	m.tick = 1000;
	link_add(&links[0], true);
	/* Looks for the longest time first (16 looks a microsecond), then sleeps; after some time it sleeps at once. */
	CHECK_EQ(xenidc_loop_step(loop, 20 * XI_MS), 0);
	CHECK_OP(links[0].looks, >=, 45u * 16);
	CHECK_OP(links[0].looks, <=, 60u * 16);
	CHECK_EQ(m.sleeps, 1);
	for (int i = 0; i < 10; i++)
		CHECK_EQ(xenidc_loop_step(loop, 20 * XI_MS), 0);
	links[0].looks = 0;
	CHECK_EQ(xenidc_loop_step(loop, 20 * XI_MS), 0);
	CHECK_OP(links[0].looks, <=, 3u);
	link_remove(&links[0]);
	end();

	/* With one processor there is nobody to look for. */
	begin(XENIDC_WAIT_ADAPTIVE);
	xenidc_loop *other = loop;
	m.cpus = 1;
	CHECK_EQ(xi_loop_new(NULL, &fake_waiter, &loop), 0);
	link_add(&links[0], true);
	CHECK_EQ(xenidc_loop_step(loop, XI_MS), 0);
	CHECK_EQ(links[0].looks, 2);
	link_remove(&links[0]);
	xenidc_loop_free(loop);
	loop = other;
	end();
}

/* Descriptors are looked at while the loop does not sleep: seldom, and at once by a step that may not wait. */
static void test_looks(void)
{
	struct xenidc_watch watch = { .fd = 0 };
	begin(XENIDC_WAIT_SPIN);
	m.tick = 1000;
	CHECK_EQ(xenidc_loop_step(loop, XI_MS), 0);
	CHECK_EQ(m.looks, 0);
	CHECK_EQ(xenidc_watch_start(loop, &watch, 5, EPOLLIN, nobody), 0);
	CHECK_EQ(xenidc_loop_step(loop, XI_MS), 0);
	CHECK_OP(m.looks, >=, 150u);
	CHECK_OP(m.looks, <=, 210u);
	m.looks = 0;
	for (int i = 0; i < 10; i++)
		CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	CHECK_EQ(m.looks, 10);
	xi_loop_watch_lazy(&watch, true);
	m.looks = 0;
	CHECK_EQ(xenidc_loop_step(loop, XI_MS), 0);
	CHECK_OP(m.looks, >=, 3u);
	CHECK_OP(m.looks, <=, 6u);
	xenidc_watch_stop(&watch);
	end();
}

/* ------------------------------------------------------------------------------------------------------------------
 * Watches, jumps, foreign loops, fork
 */
static void test_watch_calls(void)
{
	struct xenidc_watch a = { .fd = 0 }, b = a;
	begin(XENIDC_WAIT_BLOCK);
	xenidc_watch_stop(&a);
	CHECK_EQ(xenidc_watch_start(loop, &a, 13, EPOLLIN, nobody), -EBADF);
	CHECK_EQ(xenidc_watch_start(loop, &a, 14, EPOLLIN, nobody), -ENOMEM);
	CHECK_EQ(xenidc_watch_start(loop, &a, 5, EPOLLIN, nobody), 0);
	CHECK_EQ(xenidc_watch_start(loop, &a, 5, EPOLLIN, nobody), -EEXIST);
	CHECK_EQ(xenidc_watch_start(loop, &b, 6, EPOLLOUT, nobody), 0);
	CHECK_EQ(xenidc_watch_change(&a, EPOLLIN | EPOLLOUT), 0);
	CHECK_EQ(xi_loop_watch_ready(&a, EPOLLOUT), 1);
	CHECK_EQ(xenidc_watch_change(&a, EPOLLIN), 0);
	/* Fetched before the change. */
	CHECK_EQ(xi_loop_watch_ready(&a, EPOLLOUT), 0);
	CHECK_EQ(xi_loop_watch_ready(&a, EPOLLHUP), 1);
	xenidc_watch_stop(&a);
	end();
	/* The end of the loop has stopped it. */
	CHECK(!b.loop);
	xenidc_watch_stop(&b);
}

static uint64_t seen_now;
static struct xenidc_watch waking;
static void see_now(struct xenidc_watch *watch, uint32_t events)
{
	(void)watch;
	(void)events;
	seen_now = xenidc_loop_now(loop);
}
static void watch_rings(void)
{
	m.now += 3 * XI_SECOND;
	CHECK_EQ(xi_loop_watch_ready(&waking, EPOLLIN), 1);
}

/* What runs after a sleep sees the time after it. */
static void test_time_after_sleep(void)
{
	begin(XENIDC_WAIT_BLOCK);
	CHECK_EQ(xenidc_watch_start(loop, &waking, 5, EPOLLIN, see_now), 0);
	m.while_asleep = watch_rings;
	CHECK_EQ(xenidc_loop_step(loop, 1), 0);
	CHECK_EQ(seen_now, m.now);
	xenidc_watch_stop(&waking);
	end();
}

static void pass_time(void)
{
	m.now += XI_SECOND * 3600;
	ring_first();
}

static void test_jumps(void)
{
	struct named_timer a = { .name = 0 };
	begin(XENIDC_WAIT_BLOCK);
	CHECK_EQ(xi_loop_jumps(loop), 0);
	/* The caller was away. */
	m.now += XI_SUSPEND_JUMP + 2;
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	CHECK_EQ(xi_loop_jumps(loop), 1);
	m.now += XI_SUSPEND_JUMP;
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	CHECK_EQ(xi_loop_jumps(loop), 1);
	/* It slept as long as it had meant to. */
	CHECK_EQ(xenidc_loop_step(loop, 100 * XI_SECOND), 0);
	CHECK_EQ(xi_loop_jumps(loop), 1);
	/* It slept longer. */
	m.oversleep = XI_SUSPEND_JUMP + 1;
	CHECK_EQ(xenidc_loop_step(loop, 100 * XI_SECOND), 0);
	CHECK_EQ(xi_loop_jumps(loop), 2);
	m.oversleep = 0;
	/* It slept without an end. */
	link_add(&links[0], true);
	m.while_asleep = pass_time;
	CHECK_EQ(xenidc_loop_step(loop, -1), 1);
	CHECK_EQ(xi_loop_jumps(loop), 2);
	/* A foreign loop: the same. */
	int64_t timeout;
	CHECK_EQ(xenidc_loop_arm(loop, &timeout), XENIDC_ARMED);
	CHECK_EQ(timeout, -1);
	m.now += 3600 * XI_SECOND;
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	CHECK_EQ(xi_loop_jumps(loop), 2);
	start(&a, 'a', 5 * XI_SECOND);
	CHECK_EQ(xenidc_loop_arm(loop, &timeout), XENIDC_ARMED);
	CHECK_EQ(timeout, 5 * XI_SECOND);
	m.now += 8 * XI_SECOND;
	CHECK_EQ(xenidc_loop_step(loop, 0), 1);
	CHECK_EQ(xi_loop_jumps(loop), 3);
	link_remove(&links[0]);
	end();
}

/* Armed for a foreign loop: whatever happens afterwards makes the descriptor readable, once. */
static void test_foreign(void)
{
	struct named_node n = { .name = 'n' }, n2 = n;
	struct named_timer a = { .name = 0 };
	struct named_task t = { .name = 't' };
	int64_t timeout = 7;
	begin(XENIDC_WAIT_ADAPTIVE);
	order[0] = 0;
	xi_task_init(&t.t, task_run);
	CHECK_EQ(xenidc_loop_fd(loop), 77);
	link_add(&links[0], true);
	links[0].events = 1;
	CHECK_EQ(xenidc_loop_arm(loop, &timeout), XENIDC_BUSY);
	CHECK_EQ(timeout, 7);
	CHECK_EQ(xenidc_loop_step(loop, 0), 1);
	CHECK_EQ(xenidc_loop_arm(loop, &timeout), XENIDC_ARMED);
	CHECK_EQ(xenidc_loop_arm(loop, &timeout), XENIDC_ARMED);
	CHECK_EQ(links[0].disarms, 1);
	xenidc_loop_post(loop, &n.n, node_fn);
	xenidc_loop_post(loop, &n2.n, node_fn);
	CHECK_EQ(m.wakes, 1);
	CHECK_EQ(xenidc_loop_arm(loop, &timeout), XENIDC_BUSY);
	CHECK_EQ(xenidc_loop_step(loop, 0), 2);
	CHECK_EQ(links[0].arms, links[0].disarms + 1); /* the BUSY one */

	CHECK_EQ(xenidc_loop_arm(loop, &timeout), XENIDC_ARMED);
	xi_loop_defer(loop, &t.t);
	CHECK_EQ(m.wakes, 2);
	CHECK_EQ(xenidc_loop_step(loop, 0), 1);
	CHECK_EQ(xenidc_loop_arm(loop, &timeout), XENIDC_ARMED);
	start(&a, 'a', XI_MS);
	CHECK_EQ(m.wakes, 3);
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	CHECK_EQ(xenidc_loop_arm(loop, &timeout), XENIDC_ARMED);
	CHECK_EQ(timeout, XI_MS);
	link_add(&links[1], true);
	CHECK_EQ(m.wakes, 4);
	/* The timer is due: no sleep at all. */
	m.now += XI_MS;
	CHECK_EQ(xenidc_loop_arm(loop, &timeout), XENIDC_BUSY);
	CHECK_EQ(xenidc_loop_step(loop, 0), 1);
	CHECK_EQ(m.sleeps, 0);
	/* A loop that a foreign one polls does not sleep on futex words by itself. */
	CHECK_EQ(xenidc_loop_set_wait(loop, XENIDC_WAIT_BLOCK), 0);
	busy_steps(5);
	CHECK_EQ(m.words, 0);
	link_remove(&links[0]);
	link_remove(&links[1]);
	end();
}

static void test_fork(void)
{
	struct named_member member = { .m.destroy = member_destroy };
	struct xenidc_watch watch = { .fd = 0 };
	struct xenidc_timer timer = { .place = 0 }, timer2 = timer;
	struct xenidc_node node;
	int64_t timeout;
	begin(XENIDC_WAIT_BLOCK);
	xi_loop_member_add(loop, &member.m);
	CHECK_EQ(xenidc_timer_start(loop, &timer, XI_MS, timer_fn), 0);
	CHECK_EQ(xenidc_watch_start(loop, &watch, 5, EPOLLIN, nobody), 0);
	CHECK(!xi_loop_forked(loop));
	pid_t pid = check_fork();
	if (!pid) {
		CHECK(xi_loop_forked(loop));
		CHECK_EQ(xenidc_loop_step(loop, 0), -ECHILD);
		CHECK_EQ(xenidc_loop_run(loop), -ECHILD);
		CHECK_EQ(xenidc_loop_fd(loop), -ECHILD);
		CHECK_EQ(xenidc_loop_arm(loop, &timeout), -ECHILD);
		CHECK_EQ(xenidc_loop_set_wait(loop, XENIDC_WAIT_SPIN), -ECHILD);
		CHECK_EQ(xenidc_timer_start(loop, &timer2, 1, timer_fn), -ECHILD);
		CHECK_EQ(xenidc_watch_change(&watch, EPOLLOUT), -ECHILD);
		struct xenidc_watch watch2 = { .fd = 0 };
		CHECK_EQ(xenidc_watch_start(loop, &watch2, 6, EPOLLIN, nobody), -ECHILD);
		xenidc_loop_post(loop, &node, stop_loop);
		xenidc_watch_stop(&watch);
		xenidc_timer_stop(&timer);
		CHECK_EQ(m.wakes, 0);
		end();
		CHECK(member.forked);
		_exit(0);
	}
	CHECK_EQ(check_wait(pid), 0);
	end();
	CHECK(!member.forked);
}

CHECK_MAIN(TEST(test_options), TEST(test_members), TEST(test_timers), TEST(test_timer_again),
	   TEST(test_timer_late_start), TEST(test_timer_room), TEST(test_tasks), TEST(test_endless_task),
	   TEST(test_posts), TEST(test_post_wakes), TEST(test_run_and_handlers), TEST(test_remove_while_looking),
	   TEST(test_cold), TEST(test_look_after_sleep), TEST(test_busy_arm), TEST(test_tiers), TEST(test_no_futex),
	   TEST(test_modes), TEST(test_adaptive), TEST(test_looks), TEST(test_watch_calls), TEST(test_time_after_sleep),
	   TEST(test_jumps), TEST(test_foreign), TEST(test_fork))
