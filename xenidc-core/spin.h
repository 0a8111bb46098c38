/* SPDX-License-Identifier: MIT */
/*
 * How long an ADAPTIVE loop looks before it sleeps. To look for about as long as a wake-up takes never costs more than
 * twice the best choice; what is learnt on top is when looking does not pay at all. Pure.
 */
#ifndef XI_CORE_SPIN_H
#define XI_CORE_SPIN_H

#include <stdbool.h>
#include <stdint.h>

struct xi_spin {
	uint64_t max_ns;  /* the longest look; 0: never look */
	uint64_t wake_ns; /* what a short sleep takes, on average */
	uint32_t misses;  /* looks in a row that found nothing */
	uint32_t gap;     /* while looking does not pay: short sleeps from one trial look to the next, */
	uint32_t left;    /* and until the next one */
};

void xi_spin_init(struct xi_spin *spin, uint64_t max_ns);
/* How long to look this time; 0: not at all. */
uint64_t xi_spin_bound(const struct xi_spin *spin);
/* A look has found something, or has not. */
void xi_spin_looked(struct xi_spin *spin, bool found);
/* A sleep was ended by an event (not by a timer) after this long. */
void xi_spin_slept(struct xi_spin *spin, uint64_t ns);

#endif
