/* SPDX-License-Identifier: MIT */
/*
 * A channel that has nothing to do with what a test breaks: to a process of its own, which answers. It has to go on
 * whatever happens to the others.
 */
#ifndef CHAOS_BYSTANDER_H
#define CHAOS_BYSTANDER_H

#include <xenidc/xenidc.h>

struct bystander;

/* Listen at `address` on this loop, start the process, and wait until both are connected. */
struct bystander *bystander_start(xenidc_loop *loop, const char *address);
/* From here on it is watched... */
void bystander_mark(struct bystander *b);
/* ...until here: it has to have gone on meanwhile. Returns the longest round trip, ns. */
uint64_t bystander_check(struct bystander *b);
/* Close in order; its process has to end well. */
void bystander_stop(struct bystander *b);

/* To be called first of all in main(): is this the process of a bystander? Then it does not return. */
void bystander_main(int argc, char **argv);

#endif
