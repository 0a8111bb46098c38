/* SPDX-License-Identifier: MIT */
#include "spin.h"

#include "base/assert.h"

#define MISSES_MAX 4             /* in a row: looking does not pay */
#define GAP_MIN 2                /* after which a trial look is made soon, */
#define GAP_MAX 64               /* and seldom if none of them finds anything */
#define BOUND_MIN (uint64_t)5000 /* below this a look cannot even see an answer of the next core */

void xi_spin_init(struct xi_spin *spin, uint64_t max_ns)
{
	XI_ASSERT(spin);
	*spin = (struct xi_spin){ .max_ns = max_ns, .wake_ns = max_ns, .gap = GAP_MIN };
}

uint64_t xi_spin_bound(const struct xi_spin *spin)
{
	XI_DASSERT(spin->misses <= MISSES_MAX && spin->left <= spin->gap);
	XI_DASSERT(spin->wake_ns <= 2 * spin->max_ns);
	uint64_t bound = spin->wake_ns + spin->wake_ns / 2;
	if (spin->misses >= MISSES_MAX && spin->left > 0)
		return 0;
	if (bound < BOUND_MIN)
		bound = BOUND_MIN;
	return bound < spin->max_ns ? bound : spin->max_ns;
}

void xi_spin_looked(struct xi_spin *spin, bool found)
{
	XI_DASSERT(spin->gap >= GAP_MIN && spin->gap <= GAP_MAX);
	if (found) {
		spin->misses = 0;
		spin->gap = GAP_MIN;
		spin->left = 0; /* found out of turn: the loop was set to look always */
		return;
	}
	if (spin->misses < MISSES_MAX)
		spin->misses++;
	else if (spin->gap < GAP_MAX)
		spin->gap *= 2;
	spin->left = spin->gap;
}

void xi_spin_slept(struct xi_spin *spin, uint64_t ns)
{
	/* A long sleep says nothing about wake-ups, and that looking would not have paid is known by now. */
	if (ns > 2 * spin->max_ns)
		return;
	spin->wake_ns = (7 * spin->wake_ns + ns) / 8;
	if (spin->left > 0)
		spin->left--;
	XI_DASSERT(spin->wake_ns <= 2 * spin->max_ns);
}
