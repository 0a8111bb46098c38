/* SPDX-License-Identifier: MIT */
/*
 * A histogram of times: exact below 256, then 128 buckets for each doubling, so that no value is off by more than 1 in
 * 256 of itself. Fixed memory, O(1) to record, nothing is ever left out.
 */
#ifndef XI_TOOLS_HIST_H
#define XI_TOOLS_HIST_H

#include <stdint.h>

#define XI_HIST_BITS 7
#define XI_HIST_BUCKETS ((65 - XI_HIST_BITS) << XI_HIST_BITS)

struct xi_hist {
	uint64_t count, min, max;
	uint64_t buckets[XI_HIST_BUCKETS];
};

void xi_hist_clear(struct xi_hist *h);

static inline uint32_t xi_hist_bucket(uint64_t value)
{
	uint32_t shift;

	if (value < 2u << XI_HIST_BITS)
		return (uint32_t)value;
	shift = 63 - XI_HIST_BITS - (uint32_t)__builtin_clzll(value);
	return (shift << XI_HIST_BITS) + (uint32_t)(value >> shift);
}

static inline void xi_hist_add(struct xi_hist *h, uint64_t value)
{
	h->count++;
	h->buckets[xi_hist_bucket(value)]++;
	if (value < h->min)
		h->min = value;
	if (value > h->max)
		h->max = value;
}

/* The value below which `share` (0 to 1) of all recorded ones lie; 0 for an empty histogram. */
double xi_hist_quantile(const struct xi_hist *h, double share);

#endif
