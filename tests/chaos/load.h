/* SPDX-License-Identifier: MIT */
/*
 * Load on a channel, in both directions at once, the same at both ends: requests with buffers both ways, some answered
 * at once, some later, some cancelled, and messages. Everything that arrives is checked.
 */
#ifndef CHAOS_LOAD_H
#define CHAOS_LOAD_H

#include "proc.h"

#define LOAD_HELD_MAX 64

/* How the requests of one round ended, by number. */
struct ends {
	uint8_t end[JOURNAL_MAX];     /* enum xenidc_end; 0: not submitted, 255: in flight */
	uint8_t reason[JOURNAL_MAX];  /* enum xenidc_reason */
	uint8_t channel[JOURNAL_MAX]; /* `id` of the load that submitted it */
	uint32_t next;                /* number of the next request */
	uint32_t in_flight;
};
#define END_IN_FLIGHT 255

struct load {
	xenidc_channel *channel;
	struct journal *journal; /* where dispatches are written down; NULL: nowhere */
	struct ends *ends;       /* of the requests submitted here */
	struct rng rng;
	uint8_t id;
	bool submitting;
	bool quiet; /* submits nothing at all */
	bool cancels;
	bool connected, disconnected, idle;
	struct xenidc_error why;
	uint64_t disconnected_at, idle_at;
	uint32_t replied; /* since the start, of requests submitted here */
	uint32_t message_out, message_in;
	struct load_held {
		xenidc_incoming request;
		uint32_t number;
		uint64_t due; /* 0: free place */
		void *view;   /* of its OUT reference, NULL: none */
		uint32_t view_len;
		bool abandoned;
	} held[LOAD_HELD_MAX];
	struct xenidc_timer tick; /* looks after what is held */
	bool hold_forever;        /* requests that can be held are not answered until they are abandoned */
	void (*on_connected)(struct load *load);
	void (*on_idle)(struct load *load);
	void *user;
};

/* Options for a channel under load; `load` becomes its user. */
void load_options(struct xenidc_channel_options *options, struct load *load);
/* Before each connect. Keeps rng, ends, journal and the settings. */
void load_reset(struct load *load);
/* Submit what fits. */
void load_more(struct load *load);
/* Requests in hand. */
unsigned load_held(const struct load *load);

#endif
