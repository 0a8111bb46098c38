/* SPDX-License-Identifier: MIT */
/*
 * What is attacked: a channel of the library in this very process, so that a fault, a leak or an assertion is seen at
 * once. Beside it on the same loop a channel between two good ends, which has to go on whatever happens.
 */
#ifndef HOSTILE_TARGET_H
#define HOSTILE_TARGET_H

#include <xenidc/xenidc.h>

#include "raw.h"
#include "xenidc-core/base/counters.h"

#define TARGET_HELD 8
/* Times in force, much shorter than by default. */
#define TARGET_CLOSE_NS 100000000u
#define TARGET_CONNECT_NS 400000000u

/* What the client of the target does whenever it can, besides. */
enum target_eager { EAGER_NOT, EAGER_REQUESTS, EAGER_MESSAGES };

struct target {
	xenidc_loop *loop;
	char address[XENIDC_ADDRESS_MAX]; /* of its listener */
	xenidc_listener *listener, *good_listener;
	xenidc_channel *good[2];
	unsigned good_replies;

	/* The channel under attack: accepted, or dialled with target_dial(). */
	xenidc_channel *channel;
	bool busy;  /* makes a request and a message as soon as it is connected, and holds what it is asked */
	bool empty; /* uses no buffers */
	enum target_eager eager;
	bool hoards;    /* keeps channels that come while one is under attack, until they end */
	bool ascending; /* OUT data have to be what raw_data() makes */
	bool connected, disconnected, idle;
	struct xenidc_error why;
	unsigned requests, messages, ended[4]; /* ended: by enum xenidc_end */
	uint32_t in_valid;                     /* of the reply to its request */
	xenidc_incoming held[TARGET_HELD];
	unsigned nheld;
	unsigned accepted;

	int64_t objects[XI_OBJECT_KINDS]; /* alive when nothing is under attack */
};

/* `scheme`: "tcp" or "shm". `bytes_max`: of its listener; 0: as by default. */
void target_start(struct target *t, const char *scheme);
void target_start_bounded(struct target *t, const char *scheme, uint64_t bytes_max);
void target_stop(struct target *t);
/* One turn of the loop, without waiting. */
void target_turn(struct target *t);
/* Let it dial. */
void target_dial(struct target *t, const char *address);
/* Is it up? Turns the loop until then; fails when it takes too long. */
void target_up(struct target *t);
/* It has ended, or ends soon, by `reason`; by its own word. The channel is gone afterwards, and nothing is left of
 * it. */
void target_ended(struct target *t, enum xenidc_reason reason);
/* As above, whatever the reason was. */
void target_over(struct target *t);
/* Answer what it holds. */
void target_answer(struct target *t);
/* The good channel still works. */
void target_good(struct target *t);
/* Nothing is left of any attack: all objects are those of before. Turns the loop for a while, if it has to. */
void target_clean(struct target *t);

#endif
