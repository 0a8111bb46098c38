/* SPDX-License-Identifier: MIT */
/* The serving side, as a process of its own (verb serve) or on a loop beside the client's (probe S). */
#ifndef XI_BENCH_SERVE_H
#define XI_BENCH_SERVE_H

#include "tools/bench/bench.h"

struct xi_server {
	xenidc_loop *loop;
	xenidc_listener *listener;
	bool once; /* stop the loop when the last channel has ended */
	unsigned channels;
};

/* Listen on `loop`. 0 or a negative errno with `err`. */
int xi_server_open(struct xi_server *s, xenidc_loop *loop, const struct xi_bench *b, const char *address,
		   struct xenidc_error *err);
void xi_server_close(struct xi_server *s);

/* An eventfd that nobody ever writes, watched: then the loop cannot sleep on a futex alone. -1 without b->watch. */
int xi_idle_watch(const struct xi_bench *b, xenidc_loop *loop);

/* The budget of the client's side, and its mirror for the server's. */
void xi_bench_budget(const struct xi_bench *b, bool server, struct xenidc_budget *ret);

/* Verb serve: listen, say where, run until ended. Returns an exit code. */
int xi_bench_serve(const struct xi_bench *b);

#endif
