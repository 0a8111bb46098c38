/* SPDX-License-Identifier: MIT */
/* A loop without a machine, for its tests: a clock that stands still unless told otherwise, a waiter that keeps a diary
 * and connections that do as they are told. */
#ifndef TESTS_UNIT_LOOP_MACHINE_H
#define TESTS_UNIT_LOOP_MACHINE_H

#include "xenidc-core/loop.h"

struct machine {
	uint64_t now, tick; /* each look at the clock takes `tick` */
	int cpus;
	unsigned sleeps, looks, wakes;
	unsigned words;     /* of the last sleep */
	int64_t timeout;    /* of the last sleep */
	uint64_t oversleep; /* how much longer a sleep takes than asked for */
	bool foreign;
	void (*while_asleep)(void); /* what ends a sleep, instead of its time */
};
extern struct machine m;
extern xenidc_loop *loop;
extern const struct xi_waiter machine_waiter;

/* A fresh machine, and `loop` on it. */
void machine_begin(enum xenidc_wait wait);
void machine_end(void);

struct link {
	struct xi_pollable p;
	unsigned events; /* waiting */
	unsigned looks, arms, disarms;
	bool futex, busy;
	uint32_t word;
	void (*then)(struct link *link); /* in process() */
};
/* Put it into `loop`, all fields reset; in process() it delivers its events. */
void link_add(struct link *l, bool futex);
void link_remove(struct link *l);
/* Its arm(), for tests that add to it. */
int link_arm(struct xi_pollable *p, bool futex_ok, struct xi_wait *wait);

/* links[0], and what lets time pass and an event come to it while the loop sleeps. */
extern struct link links[100];
void ring_first(void);
/* Steps that end by such an event. */
void busy_steps(unsigned n);

#endif
