/* SPDX-License-Identifier: MIT */
/*
 * Processes under a test that kills them: how they start, what they share with the test, and what is left of them.
 * A child is this program again with other arguments, so that nothing of the library's state is inherited.
 */
#ifndef CHAOS_PROC_H
#define CHAOS_PROC_H

#include <stdbool.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include <xenidc/xenidc.h>

#include "tests/lib/check.h"

/* Requests of one round, at most; numbered from 1. */
#define JOURNAL_MAX (1u << 20)

/*
 * A file that a child and the test both map. What a process has stored there stays after a SIGKILL, in the order in
 * which it was stored: that makes it a witness.
 */
struct journal {
	int fd;                           /* of the test that made it */
	char address[XENIDC_ADDRESS_MAX]; /* where the child listens */
	_Atomic uint32_t listening;
	_Atomic uint32_t connects;    /* how often the child was connected */
	_Atomic uint32_t disconnects; /* how often it was told of an end, and what was told last */
	_Atomic uint32_t reason, by_peer;
	char text[XENIDC_ERROR_TEXT_MAX];
	_Atomic uint32_t idles;
	_Atomic uint32_t held;    /* requests that the child has in hand now */
	_Atomic uint32_t command; /* of the test to the child */
	_Atomic uint32_t error;   /* line in which the child found something wrong; its output says more */
	/* By number: how often a handler of the child has seen that request. Stored before anything is executed. */
	_Atomic uint8_t dispatched[JOURNAL_MAX];
};

/* Make a journal (the test), or map the one that was handed over (a child: `name` stood in its arguments). */
struct journal *journal_new(char name[32]);
struct journal *journal_open(const char *name);
/* All zeros again. */
void journal_clear(struct journal *journal);
void journal_close(struct journal *journal);

/* Start this program with arguments (argv[0] is filled in) and, if not NULL, a failpoint. */
pid_t proc_start(const char *argv[], const char *failpoint);
/* Has it ended? Then it is reaped, and how it ended stands in `*status`. */
bool proc_ended(pid_t pid, int *status);
/* Kill, if it is not dead already, and reap. How it ended. */
int proc_kill(pid_t pid);

/* What a process holds that could be left over from a peer. */
struct census {
	unsigned fds;      /* open descriptors */
	unsigned memfds;   /* memfds among them, and mapped ones */
	unsigned shared;   /* shared mappings */
	unsigned children; /* processes, dead ones that wait to be reaped among them */
	long objects;      /* objects of the library alive, all kinds together */
};
void census_take(struct census *ret);
bool census_equal(const struct census *a, const struct census *b);
/* Print both, for a person who has to find out what was left. */
void census_print(const char *what, const struct census *c);

/* Step the loop until `done` says so (true), or this many ms times check_factor() have passed (false). */
bool pump_until(xenidc_loop *loop, bool (*done)(void *), void *arg, unsigned ms);

/* xorshift: the same seed gives the same round. */
struct rng {
	uint64_t state;
};
uint64_t rng_next(struct rng *rng);
uint32_t rng_below(struct rng *rng, uint32_t bound);

#endif
