/* SPDX-License-Identifier: MIT */
/* Clocks for measuring. */
#ifndef XI_TOOLS_CLOCK_H
#define XI_TOOLS_CLOCK_H

#include <stdint.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

static inline uint64_t xi_clock_ns(clockid_t clock)
{
	struct timespec t;

	(void)clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t xi_now_ns(void)
{
	return xi_clock_ns(CLOCK_MONOTONIC);
}

/*
 * Ticks: the cheapest clock there is, since a round trip may take less than two looks at the kernel's. Constant and
 * common to all cores (xi_ticks_init() checks), so it is 10 ns a look instead of 25.
 */
extern double xi_ns_per_tick;
void xi_ticks_init(void);

#if defined(__x86_64__)
extern int xi_ticks_by_tsc;
static inline uint64_t xi_ticks(void)
{
	return xi_ticks_by_tsc ? __rdtsc() : xi_now_ns();
}
#else
static inline uint64_t xi_ticks(void)
{
	return xi_now_ns();
}
#endif

#endif
