/* SPDX-License-Identifier: MIT */
/* The loop by itself: timers, tasks, posted nodes, watches, foreign loops, fork. */
#include "loop_machine.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tests/lib/check.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/limits.h"
#include "xenidc-core/base/times.h"

/* ------------------------------------------------------------------------------------------------------------------
 * Making and freeing
 */
static void test_options(void)
{
	machine_begin(XENIDC_WAIT_BLOCK);
	xenidc_loop *l = NULL;
	struct xenidc_loop_options o = { .size = sizeof(o), .wait = (enum xenidc_wait)7 };
	CHECK_EQ(xi_loop_new(&o, &machine_waiter, &l), -EINVAL);
	o = (struct xenidc_loop_options){ .size = 0 };
	CHECK_EQ(xi_loop_new(&o, &machine_waiter, &l), -EINVAL);
	CHECK(!l);
	/* Of a longer structure the known part holds. */
	o = (struct xenidc_loop_options){ .size = sizeof(o) + 64, .wait = XENIDC_WAIT_BLOCK };
	CHECK_EQ(xi_loop_new(&o, &machine_waiter, &l), 0);
	CHECK_EQ(xi_alive(XI_OBJECT_LOOP), 2);
	xenidc_loop_free(l);
	CHECK_EQ(xi_loop_new(NULL, &machine_waiter, &l), 0);
	CHECK_EQ(xenidc_loop_set_wait(l, (enum xenidc_wait)9), -EINVAL);
	CHECK_EQ(xenidc_loop_set_wait(l, XENIDC_WAIT_SPIN), 0);
	xenidc_loop_free(l);
	xenidc_loop_free(NULL);
	machine_end();
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
	machine_begin(XENIDC_WAIT_BLOCK);
	order[0] = 0;
	for (int i = 0; i < 4; i++) {
		all[i]->m.destroy = member_destroy;
		xi_loop_member_add(loop, &all[i]->m);
	}
	xi_loop_member_remove(&b.m);
	d.also = &c;
	machine_end();
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
	machine_begin(XENIDC_WAIT_BLOCK);
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
	machine_end();
	xenidc_timer_stop(&a.t);
}

static void test_timer_again(void)
{
	struct named_timer a = { .restart = true, .again = 0 }, b = { .restart = true, .again = XI_MS };
	machine_begin(XENIDC_WAIT_BLOCK);
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
	machine_end();
}

/* A timer is never early, though the loop looked at its clock long ago. */
static void test_timer_late_start(void)
{
	struct named_timer a = { .name = 0 };
	machine_begin(XENIDC_WAIT_BLOCK);
	order[0] = 0;
	m.now += XI_SECOND;
	start(&a, 'a', 100 * XI_MS);
	CHECK_EQ(xenidc_loop_step(loop, 99 * XI_MS), 0);
	CHECK_EQ(xenidc_loop_step(loop, 1 * XI_MS), 1);
	CHECK_EQ(xenidc_loop_now(loop), m.now);
	/* The longest time there is. */
	start(&a, 'a', UINT64_MAX);
	CHECK_EQ(xenidc_loop_step(loop, XI_MS), 0);
	machine_end();
}

static void test_timer_room(void)
{
	static struct xenidc_timer many[XI_TIMERS_MAX + 1];
	machine_begin(XENIDC_WAIT_BLOCK);
	order[0] = 0;
	for (int i = 0; i < XI_TIMERS_MAX; i++)
		CHECK_EQ(xenidc_timer_start(loop, &many[i], XI_SECOND, timer_fn), 0);
	CHECK_EQ(xenidc_timer_start(loop, &many[XI_TIMERS_MAX], XI_SECOND, timer_fn), -ENOSPC);
	machine_end();
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
	machine_begin(XENIDC_WAIT_BLOCK);
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
	machine_end();
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
	machine_begin(XENIDC_WAIT_BLOCK);
	xi_task_init(&t, endless_run);
	xi_loop_defer(loop, &t);
	int64_t timeout;
	for (int i = 0; i < 3; i++) {
		CHECK_OP(xenidc_loop_step(loop, -1), >=, XI_PROCESS_BUDGET);
		CHECK_EQ(xenidc_loop_arm(loop, &timeout), XENIDC_BUSY);
	}
	CHECK_EQ(m.sleeps, 0);
	xi_task_cancel(&t);
	machine_end();
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
	machine_begin(XENIDC_WAIT_BLOCK);
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
	machine_end();
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
	machine_begin(XENIDC_WAIT_BLOCK);
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
	machine_end();
}

static void stop_loop(struct xenidc_node *node)
{
	(void)node;
	xenidc_loop_stop(loop);
}

static void test_run_and_handlers(void)
{
	struct xenidc_node n;
	machine_begin(XENIDC_WAIT_BLOCK);
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
	machine_end();
}

/* ------------------------------------------------------------------------------------------------------------------
 * Watches, jumps, foreign loops, fork
 */
static void nobody(struct xenidc_watch *watch, uint32_t events)
{
	(void)watch;
	(void)events;
}

/* What a waiter reports may have been changed since it was fetched. */
static struct xenidc_watch changed;
static void report_changed(struct xenidc_node *node)
{
	(void)node;
	CHECK_EQ(xenidc_watch_change(&changed, EPOLLIN | EPOLLOUT), 0);
	CHECK_EQ(xi_loop_watch_ready(&changed, EPOLLOUT), 1);
	CHECK_EQ(xenidc_watch_change(&changed, EPOLLIN), 0);
	CHECK_EQ(xi_loop_watch_ready(&changed, EPOLLOUT), 0);
	CHECK_EQ(xi_loop_watch_ready(&changed, EPOLLHUP), 1);
}

static void test_watch_calls(void)
{
	struct xenidc_watch b = { .fd = 0 };
	struct xenidc_node node;
	machine_begin(XENIDC_WAIT_BLOCK);
	xenidc_watch_stop(&b);
	CHECK_EQ(xenidc_watch_start(loop, &b, 13, EPOLLIN, nobody), -EBADF);
	CHECK_EQ(xenidc_watch_start(loop, &b, 14, EPOLLIN, nobody), -ENOMEM);
	CHECK_EQ(xenidc_watch_start(loop, &b, 6, EPOLLOUT, nobody), 0);
	CHECK_EQ(xenidc_watch_start(loop, &b, 6, EPOLLOUT, nobody), -EEXIST);
	CHECK_EQ(xenidc_watch_start(loop, &changed, 5, EPOLLIN, nobody), 0);
	xenidc_loop_post(loop, &node, report_changed);
	CHECK_EQ(xenidc_loop_step(loop, 0), 1);
	xenidc_watch_stop(&changed);
	machine_end();
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
	machine_begin(XENIDC_WAIT_BLOCK);
	CHECK_EQ(xenidc_watch_start(loop, &waking, 5, EPOLLIN, see_now), 0);
	m.while_asleep = watch_rings;
	CHECK_EQ(xenidc_loop_step(loop, 1), 0);
	CHECK_EQ(seen_now, m.now);
	xenidc_watch_stop(&waking);
	machine_end();
}

static void pass_time(void)
{
	m.now += XI_SECOND * 3600;
	ring_first();
}

static void test_jumps(void)
{
	struct named_timer a = { .name = 0 };
	machine_begin(XENIDC_WAIT_BLOCK);
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
	machine_end();
}

/* Armed for a foreign loop: whatever happens afterwards makes the descriptor readable, once. */
static void test_foreign(void)
{
	struct named_node n = { .name = 'n' }, n2 = n;
	struct named_timer a = { .name = 0 };
	struct named_task t = { .name = 't' };
	int64_t timeout = 7;
	machine_begin(XENIDC_WAIT_ADAPTIVE);
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
	machine_end();
}

static void test_fork(void)
{
	struct named_member member = { .m.destroy = member_destroy };
	struct xenidc_watch watch = { .fd = 0 };
	struct xenidc_timer timer = { .place = 0 }, timer2 = timer;
	struct xenidc_node node;
	int64_t timeout;
	machine_begin(XENIDC_WAIT_BLOCK);
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
		machine_end();
		CHECK(member.forked);
		_exit(0);
	}
	CHECK_EQ(check_wait(pid), 0);
	machine_end();
	CHECK(!member.forked);
}

CHECK_MAIN(TEST(test_options), TEST(test_members), TEST(test_timers), TEST(test_timer_again),
	   TEST(test_timer_late_start), TEST(test_timer_room), TEST(test_tasks), TEST(test_endless_task),
	   TEST(test_posts), TEST(test_post_wakes), TEST(test_run_and_handlers), TEST(test_watch_calls),
	   TEST(test_time_after_sleep), TEST(test_jumps), TEST(test_foreign), TEST(test_fork))
