/* SPDX-License-Identifier: MIT */
/*
 * The process that is killed: dials or listens, carries load both ways, and on demand closes and connects again all the
 * time, so that there is no phase of a channel's life in which it does not die once.
 */
#ifndef CHAOS_VICTIM_H
#define CHAOS_VICTIM_H

#include "proc.h"

struct victim_plan {
	bool listens;
	bool cycles;         /* closes and connects again */
	const char *address; /* to dial, or to listen at */
	const char *journal; /* name of it */
	uint32_t seed;
	const char *failpoint; /* as XENIDC_FAILPOINT; NULL: none */
};

pid_t victim_start(const struct victim_plan *plan);

/* To be called first of all in main(): is this the process of a victim? Then it does not return. */
void victim_main(int argc, char **argv);

#endif
