/* SPDX-License-Identifier: MIT */
/* The heap by itself, against a plain array. */
#include "tests/lib/check.h"
#include "xenidc-core/timers.h"

#include <errno.h>
#include <stdlib.h>

static struct xi_timers timers;
static struct xenidc_timer all[XI_TIMERS_MAX + 1];

static uint32_t next_random(void)
{
	static uint32_t x = 1;
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return x;
}

static void check_heap(void)
{
	for (size_t i = 0; i < timers.count; i++) {
		CHECK_EQ(timers.heap[i]->place, i + 1);
		if (i)
			CHECK(timers.heap[(i - 1) / 2]->due_ns <= timers.heap[i]->due_ns);
	}
}

static void empty(void)
{
	while (timers.count)
		xi_timers_stop(&timers, timers.heap[0]);
}

static void test_room(void)
{
	CHECK_EQ(xi_timers_next(&timers), UINT64_MAX);
	CHECK(!xi_timers_pop(&timers, UINT64_MAX));
	for (int i = 0; i < XI_TIMERS_MAX; i++)
		CHECK_EQ(xi_timers_start(&timers, &all[i], next_random()), 0);
	CHECK_EQ(xi_timers_start(&timers, &all[XI_TIMERS_MAX], 0), -ENOSPC);
	CHECK_EQ(all[XI_TIMERS_MAX].place, 0);
	/* One that runs can be moved all the same. */
	CHECK_EQ(xi_timers_start(&timers, &all[7], 0), 0);
	check_heap();
	CHECK(xi_timers_pop(&timers, 0) == &all[7]);
	CHECK_EQ(xi_timers_start(&timers, &all[XI_TIMERS_MAX], 0), 0);
	check_heap();
	empty();
}

static void test_order(void)
{
	for (int i = 0; i < 1000; i++)
		CHECK_EQ(xi_timers_start(&timers, &all[i], next_random() % 500), 0);
	uint64_t last = 0;
	for (int i = 0; i < 1000; i++) {
		uint64_t next = xi_timers_next(&timers);
		CHECK(next >= last);
		if (next)
			CHECK(!xi_timers_pop(&timers, next - 1));
		struct xenidc_timer *t = xi_timers_pop(&timers, next);
		CHECK(t && t->due_ns == next && t->place == 0);
		last = next;
	}
	CHECK_EQ(timers.count, 0);
}

/* Random starts, moves, stops and pops; the smallest one is always what a plain search finds. */
static void test_random(void)
{
	enum { N = 64 };
	for (int step = 0; step < 50000; step++) {
		struct xenidc_timer *t = &all[next_random() % N];
		unsigned what = next_random() % 8;
		if (what < 4)
			CHECK_EQ(xi_timers_start(&timers, t, next_random() % 1000), 0);
		else if (what < 6 && t->place)
			xi_timers_stop(&timers, t);
		else if (what == 6)
			xi_timers_pop(&timers, next_random() % 300);
		uint64_t smallest = UINT64_MAX;
		size_t running = 0;
		for (int i = 0; i < N; i++) {
			if (!all[i].place)
				continue;
			running++;
			if (all[i].due_ns < smallest)
				smallest = all[i].due_ns;
		}
		CHECK_EQ(timers.count, running);
		CHECK_EQ(xi_timers_next(&timers), smallest);
		check_heap();
	}
	empty();
}

CHECK_MAIN(TEST(test_room), TEST(test_order), TEST(test_random))
