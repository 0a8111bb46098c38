/* SPDX-License-Identifier: MIT */
/*
 * Probe S: both ends of the channel in one thread, their loops stepped in turn. No core waits for another, so what is
 * left is what our own software (and for tcp the kernel's) costs.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench/bench.h"
#include "tools/bench/serve.h"
#include "tools/bench/work.h"
#include "tools/common/clock.h"

struct ends {
	xenidc_loop *server_loop, *loop;
	struct xi_server server;
	struct xi_link link;
	struct xi_work *work;
};

static void step_both(struct ends *s)
{
	(void)xenidc_loop_step(s->server_loop, 0);
	(void)xenidc_loop_step(s->loop, 0);
}

static void on_connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	struct xi_link *link = xenidc_channel_user(channel);

	(void)limits;
	link->connected = true;
}

static void on_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct xi_link *link = xenidc_channel_user(channel);

	(void)why;
	link->connected = false;
	link->idle = true;
}

static int connect_ends(struct ends *s, const struct xi_bench *b, const char *address)
{
	struct xenidc_loop_options how = { .size = sizeof(how), .wait = XENIDC_WAIT_SPIN };
	struct xenidc_channel_options options = {
		.size = sizeof(options), .user = &s->link, .map = b->map, .digest = b->digest
	};
	int e = xenidc_loop_new(&how, &s->server_loop);

	if (!e)
		e = xenidc_loop_new(&how, &s->loop);
	if (!e)
		e = xi_server_open(&s->server, s->server_loop, b, address, NULL);
	options.handlers.connected = on_connected;
	options.handlers.idle = on_idle;
	xi_bench_budget(b, false, &options.budget);
	if (!e)
		e = xenidc_channel_new(s->loop, &options, &s->link.channel, NULL);
	if (!e)
		e = xenidc_channel_connect(s->link.channel, xenidc_listener_address(s->server.listener), NULL);
	while (!e && !s->link.connected && !s->link.idle)
		step_both(s);
	return e ? e : s->link.connected ? 0 : -ENOTCONN;
}

static void run_phase(struct ends *s, double seconds)
{
	xi_work_start(s->work, 0, seconds);
	while (s->work->in_flight)
		step_both(s);
}

double xi_probe_self(const struct xi_bench *b)
{
	static struct xi_hist h, rate;
	struct xi_bench one = *b;
	struct ends s = { .work = calloc(1, sizeof(*s.work)) };
	char address[XENIDC_ADDRESS_MAX];
	double result = 0;

	one.depth = 1;
	one.watch = false;
	if (!strncmp(b->address, "shm:", 4))
		(void)snprintf(address, sizeof(address), "shm:bench-self-%d", (int)getpid());
	else
		(void)snprintf(address, sizeof(address), "tcp:127.0.0.1:0");
	if (s.work && !connect_ends(&s, &one, address) && !xi_work_prepare(s.work, &one, s.link.channel)) {
		run_phase(&s, b->probe_ms * 0.2e-3);
		xi_hist_clear(&h);
		s.work->hist = &h;
		s.work->rate = &rate;
		run_phase(&s, b->probe_ms * 1e-3);
		if (!s.work->error && !s.work->mismatches)
			result = xi_hist_quantile(&h, 0.5) * xi_ns_per_tick;
	}
	if (s.server.listener)
		xi_server_close(&s.server);
	xenidc_loop_free(s.loop);
	xenidc_loop_free(s.server_loop);
	free(s.work);
	return result;
}
