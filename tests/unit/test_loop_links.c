/* SPDX-License-Identifier: MIT */
/* The loop and its connections: who is looked at, and how the loop sleeps. */
#include "loop_machine.h"

#include <string.h>
#include <sys/epoll.h>

#include "tests/lib/check.h"
#include "xenidc-core/base/times.h"

/* ------------------------------------------------------------------------------------------------------------------
 * Connections
 */
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
	machine_begin(XENIDC_WAIT_BLOCK);
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
	machine_end();
}

/* While a few are busy the quiet ones are looked at in turn; an event makes one of the busy again. */
static void test_cold(void)
{
	enum { N = 100, LONG = 5000 };
	machine_begin(XENIDC_WAIT_SPIN);
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
	machine_end();
}

/* After a sleep every one is looked at, cold ones too. */
static void ring_all(void)
{
	for (int i = 0; i < 61; i++)
		links[i].events = 1;
}

static void test_look_after_sleep(void)
{
	machine_begin(XENIDC_WAIT_BLOCK);
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
	machine_end();
}

static void test_busy_arm(void)
{
	machine_begin(XENIDC_WAIT_BLOCK);
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
	machine_end();
}

/* ------------------------------------------------------------------------------------------------------------------
 * How to sleep
 */
static void nobody(struct xenidc_watch *watch, uint32_t events)
{
	(void)watch;
	(void)events;
}

static void test_tiers(void)
{
	struct xenidc_watch watch = { .fd = 0 };
	machine_begin(XENIDC_WAIT_BLOCK);
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
	machine_end();
}

/* One that has no futex word: all are armed for descriptors, and it is asked again now and then only. */
static void test_no_futex(void)
{
	machine_begin(XENIDC_WAIT_BLOCK);
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
	machine_end();
}

static void on_timer(struct xenidc_timer *timer)
{
	CHECK_EQ(timer->place, 0);
}

static void test_modes(void)
{
	machine_begin(XENIDC_WAIT_SPIN);
	m.tick = 1000;
	link_add(&links[0], true);
	CHECK_EQ(xenidc_loop_step(loop, XI_MS), 0);
	CHECK_EQ(m.sleeps, 0);
	CHECK_EQ(links[0].arms, 0);
	CHECK_OP(links[0].looks, >, 900u);
	struct xenidc_timer timer = { .place = 0 };
	CHECK_EQ(xenidc_timer_start(loop, &timer, XI_MS, on_timer), 0);
	CHECK_EQ(xenidc_loop_step(loop, -1), 1);
	CHECK_EQ(m.sleeps, 0);
	CHECK_EQ(timer.place, 0);
	/* From the next step on: at once to sleep. */
	CHECK_EQ(xenidc_loop_set_wait(loop, XENIDC_WAIT_BLOCK), 0);
	links[0].looks = 0;
	CHECK_EQ(xenidc_loop_step(loop, XI_MS), 0);
	CHECK_EQ(m.sleeps, 1);
	CHECK_EQ(links[0].looks, 2);
	link_remove(&links[0]);
	machine_end();
}

static void test_adaptive(void)
{
	machine_begin(XENIDC_WAIT_ADAPTIVE);
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
	machine_end();

	/* With one processor there is nobody to look for. */
	machine_begin(XENIDC_WAIT_ADAPTIVE);
	xenidc_loop *other = loop;
	m.cpus = 1;
	CHECK_EQ(xi_loop_new(NULL, &machine_waiter, &loop), 0);
	link_add(&links[0], true);
	CHECK_EQ(xenidc_loop_step(loop, XI_MS), 0);
	CHECK_EQ(links[0].looks, 2);
	link_remove(&links[0]);
	xenidc_loop_free(loop);
	loop = other;
	machine_end();
}

/* Descriptors are looked at while the loop does not sleep: seldom, and at once by a step that may not wait. */
static void test_looks(void)
{
	struct xenidc_watch watch = { .fd = 0 };
	machine_begin(XENIDC_WAIT_SPIN);
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
	machine_end();
}

CHECK_MAIN(TEST(test_remove_while_looking), TEST(test_cold), TEST(test_look_after_sleep), TEST(test_busy_arm),
	   TEST(test_tiers), TEST(test_no_futex), TEST(test_modes), TEST(test_adaptive), TEST(test_looks))
