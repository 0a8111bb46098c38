/* SPDX-License-Identifier: MIT */
/* A binary heap: the children of heap[i] are heap[2i+1] and heap[2i+2], and never due before it. */
#include "timers.h"

#include <errno.h>

#include "base/assert.h"

static void put(struct xi_timers *timers, size_t i, struct xenidc_timer *timer)
{
	XI_DASSERT(i < timers->count && timer);
	timers->heap[i] = timer;
	timer->place = i + 1;
}

/* Move `timer`, for which place i is free, towards the top as far as it has to. Returns the free place. */
static size_t sift_up(struct xi_timers *timers, size_t i, const struct xenidc_timer *timer)
{
	XI_DASSERT(i < timers->count);
	while (i > 0) {
		size_t parent = (i - 1) / 2;
		if (timers->heap[parent]->due_ns <= timer->due_ns)
			break;
		put(timers, i, timers->heap[parent]);
		i = parent;
	}
	return i;
}

static size_t sift_down(struct xi_timers *timers, size_t i, const struct xenidc_timer *timer)
{
	XI_DASSERT(i < timers->count);
	for (;;) {
		size_t child = 2 * i + 1;
		if (child >= timers->count)
			break;
		if (child + 1 < timers->count && timers->heap[child + 1]->due_ns < timers->heap[child]->due_ns)
			child++;
		if (timers->heap[child]->due_ns >= timer->due_ns)
			break;
		put(timers, i, timers->heap[child]);
		i = child;
	}
	return i;
}

static void settle(struct xi_timers *timers, size_t i, struct xenidc_timer *timer)
{
	i = sift_up(timers, i, timer);
	i = sift_down(timers, i, timer);
	put(timers, i, timer);
	XI_DASSERT(i == 0 || timers->heap[(i - 1) / 2]->due_ns <= timer->due_ns);
	XI_DASSERT(2 * i + 1 >= timers->count || timers->heap[2 * i + 1]->due_ns >= timer->due_ns);
}

int xi_timers_start(struct xi_timers *timers, struct xenidc_timer *timer, uint64_t due_ns)
{
	size_t i = timer->place ? timer->place - 1 : timers->count;
	if (i >= XI_TIMERS_MAX)
		return -ENOSPC;
	if (!timer->place)
		timers->count++;
	else
		XI_ASSERT(i < timers->count && timers->heap[i] == timer);
	timer->due_ns = due_ns;
	settle(timers, i, timer);
	return 0;
}

void xi_timers_stop(struct xi_timers *timers, struct xenidc_timer *timer)
{
	XI_ASSERT(timer->place > 0 && timer->place <= timers->count);
	size_t i = timer->place - 1;
	XI_ASSERT(timers->heap[i] == timer && timers->count <= XI_TIMERS_MAX);
	struct xenidc_timer *last = timers->heap[--timers->count];
	timers->heap[timers->count] = NULL;
	timer->place = 0;
	if (last != timer)
		settle(timers, i, last);
}

struct xenidc_timer *xi_timers_pop(struct xi_timers *timers, uint64_t now)
{
	if (!timers->count || timers->heap[0]->due_ns > now)
		return NULL;
	struct xenidc_timer *timer = timers->heap[0];
	XI_DASSERT(timer->place == 1);
	xi_timers_stop(timers, timer);
	return timer;
}
