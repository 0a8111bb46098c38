/* SPDX-License-Identifier: MIT */
#include "tools/common/hist.h"

#include <string.h>

void xi_hist_clear(struct xi_hist *h)
{
	memset(h, 0, sizeof(*h));
	h->min = UINT64_MAX;
}

/* The middle of a bucket. */
static double middle(uint32_t bucket)
{
	uint32_t shift;
	double low;

	if (bucket < 2u << XI_HIST_BITS)
		return bucket;
	shift = (bucket >> XI_HIST_BITS) - 1;
	low = (double)((uint64_t)(bucket - (shift << XI_HIST_BITS)) << shift);
	return low + (double)((1ull << shift) - 1) / 2;
}

double xi_hist_quantile(const struct xi_hist *h, double share)
{
	uint64_t seen = 0;
	double value, wanted = share * (double)h->count;

	if (!h->count)
		return 0;
	for (uint32_t i = 0; i < XI_HIST_BUCKETS; i++) {
		seen += h->buckets[i];
		if (h->buckets[i] && (double)seen >= wanted) {
			value = middle(i);
			value = value < (double)h->min ? (double)h->min : value;
			return value > (double)h->max ? (double)h->max : value;
		}
	}
	return (double)h->max;
}
