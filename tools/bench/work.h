/* SPDX-License-Identifier: MIT */
/* The client's side: keeps `depth` requests in flight, fills, checks and times them. */
#ifndef XI_BENCH_WORK_H
#define XI_BENCH_WORK_H

#include "tools/bench/bench.h"
#include "tools/common/link.h"

#define XI_BENCH_DEPTH_MAX 1024

struct xi_work;
struct xi_place { /* one request in flight, with its buffers */
	struct xi_work *work;
	struct xenidc_ref refs[2];
	unsigned nrefs;
	struct xenidc_buffer *out, *in; /* NULL: none */
	uint64_t start;
	uint32_t number;
};

struct xi_work {
	const struct xi_bench *bench;
	xenidc_channel *channel;
	xenidc_loop *loop;
	struct xi_place places[XI_BENCH_DEPTH_MAX];
	uint16_t free[XI_BENCH_DEPTH_MAX]; /* first in, first out: so buffers are used in turn */
	unsigned nplaces, free_head, free_count, in_flight;
	uint64_t submitted, completed, limit; /* of this phase */
	uint64_t deadline;                    /* ticks */
	uint32_t number;
	struct xi_hist *hist, *rate; /* NULL: not recorded */
	uint64_t window_start;       /* ticks */
	uint64_t window_ops;
	uint64_t mismatches;
	int error; /* the first one; nothing more is submitted then */
	struct xenidc_error why;
	uint8_t payload[16384];
	struct xenidc_buffer buffers[2][XI_BENCH_DEPTH_MAX];
};

/* Get ready on a connected channel. 0 or a negative errno, with `why`. */
int xi_work_prepare(struct xi_work *w, const struct xi_bench *b, xenidc_channel *channel);
/* Start a phase: until `limit` requests or `seconds` are through, whichever is first (0: no such bound). */
void xi_work_start(struct xi_work *w, uint64_t limit, double seconds);
/* Start, and run the channel's loop until the phase is through. */
int xi_work_run(struct xi_work *w, uint64_t limit, double seconds);

#endif
