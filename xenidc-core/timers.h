/* SPDX-License-Identifier: MIT */
/* The timers of a loop: a binary heap of fixed size, the next one on top. Knows no clock. */
#ifndef XI_CORE_TIMERS_H
#define XI_CORE_TIMERS_H

#include <xenidc/xenidc.h>

#include "base/limits.h"

struct xi_timers {
	size_t count;
	struct xenidc_timer *heap[XI_TIMERS_MAX]; /* timer->place is the index here plus one; 0: does not run */
};

/* Put in, or move. -ENOSPC. */
int xi_timers_start(struct xi_timers *timers, struct xenidc_timer *timer, uint64_t due_ns);
/* Take out; it is in there (asserted). */
void xi_timers_stop(struct xi_timers *timers, struct xenidc_timer *timer);

/* When the next one is due; UINT64_MAX: never. */
static inline uint64_t xi_timers_next(const struct xi_timers *timers)
{
	return timers->count ? timers->heap[0]->due_ns : UINT64_MAX;
}

/* Take out the next one if it is due, or NULL. */
struct xenidc_timer *xi_timers_pop(struct xi_timers *timers, uint64_t now);

#endif
