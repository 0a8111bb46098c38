/* SPDX-License-Identifier: MIT */
/* Silence and time. */
#include "harness.h"

#include <errno.h>

/* Short times; a slow machine gets longer ones. */
static void short_times(struct pair *p)
{
	uint64_t unit = pair_time(p, MS);

	p->client.options.times = (struct xenidc_times){
		.heartbeat_ns = 30 * unit,
		.stalled_ns = 120 * unit,
		.dead_ns = 400 * unit,
	};
	p->server.options.times = p->client.options.times;
}

void case_heartbeat(struct pair *p)
{
	struct call call;

	short_times(p);
	p->server.on.request = serve_echo;
	pair_open(p);
	pair_pass(p, pair_time(p, 1000 * MS));
	CHECK_EQ(p->client.stalled + p->server.stalled, 0);
	CHECK_EQ(p->client.disconnecting + p->server.disconnecting, 0);
	/* About one frame each heartbeat_ns: not none, and no flood. */
	CHECK_OP(stats_of(&p->client).frames_out, >=, 10);
	CHECK_OP(stats_of(&p->client).frames_out, <=, 200);
	CHECK_EQ(p->client.messages + p->server.messages, 0);
	call_simple(&p->client, &call, "x", 1);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
}

void case_stalled(struct pair *p)
{
	struct call call;

	short_times(p);
	p->server.on.request = serve_echo;
	pair_open(p);
	for (unsigned round = 1; round <= 2; round++) {
		end_freeze(&p->server, true);
		call_simple(&p->client, &call, "x", 1);
		UNTIL(p, p->client.stalled == round);
		CHECK_EQ(p->client.recovered, round - 1);
		CHECK_EQ(call.ends, 0);
		end_freeze(&p->server, false);
		UNTIL(p, p->client.recovered == round);
		CALL_END(&call);
		CHECK_END(&call, XENIDC_REPLIED);
		CHECK_EQ(p->client.stalled, round);
	}
	CHECK_EQ(p->client.disconnecting, 0);
}

void case_silent(struct pair *p)
{
	struct call call;
	uint64_t begin;

	short_times(p);
	pair_open(p);
	call_simple(&p->client, &call, "x", 1);
	UNTIL(p, p->server.held_count);
	begin = pair_now(p);
	end_freeze(&p->server, true);
	UNTIL(p, p->client.idle);
	CHECK_OP(pair_now(p) - begin, >=, pair_time(p, 350 * MS));
	CHECK_REASON(p->client.why.reason, XENIDC_REASON_SILENT);
	CHECK(!p->client.why.by_peer);
	CHECK_EQ(p->client.stalled, 1);
	CHECK_END(&call, XENIDC_UNKNOWN);
	CHECK_REASON(call.result.reason, XENIDC_REASON_SILENT);
	end_freeze(&p->server, false);
	UNTIL(p, p->server.idle);
	p->server.held_count = 0;
}

void case_suspend(struct pair *p)
{
	struct call call;

	short_times(p);
	p->server.on.request = serve_echo;
	pair_open(p);
	pair_suspend(p, 3 * SECOND > p->client.options.times.dead_ns * 2 ? 3 * SECOND
									 : p->client.options.times.dead_ns * 2);
	pair_pass(p, pair_time(p, 100 * MS));
	CHECK_EQ(p->client.disconnecting + p->server.disconnecting, 0);
	call_simple(&p->client, &call, "x", 1);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
}

struct clock {
	struct xenidc_timer timer;
	struct pair *pair;
	uint64_t due;
	unsigned fired, place;
};
static unsigned clocks_fired;

static void fired(struct xenidc_timer *timer)
{
	struct clock *c = (struct clock *)(void *)timer;

	c->fired++;
	c->place = clocks_fired++;
	CHECK_OP(xenidc_loop_now(c->pair->client.loop), >=, c->due);
	CHECK_EQ(xenidc_loop_step(c->pair->client.loop, 0), -EDEADLK);
}

static void start(struct pair *p, struct clock *c, uint64_t ns)
{
	c->pair = p;
	c->due = xenidc_loop_now(p->client.loop) + ns;
	CHECK_EQ(xenidc_timer_start(p->client.loop, &c->timer, ns, fired), 0);
}

void case_timers(struct pair *p)
{
	static struct clock clocks[5];

	pair_loops(p);
	pair_pass(p, MS);
	start(p, &clocks[0], 30 * MS);
	start(p, &clocks[1], 10 * MS);
	start(p, &clocks[2], 20 * MS);
	start(p, &clocks[3], 5 * MS);
	start(p, &clocks[4], 0);
	CHECK_EQ(clocks[4].fired, 0);
	xenidc_timer_stop(&clocks[3].timer);
	xenidc_timer_stop(&clocks[3].timer);
	/* Once more: later than it was. */
	start(p, &clocks[1], 40 * MS);
	UNTIL(p, clocks_fired == 4);
	pair_pass(p, 50 * MS);
	CHECK_EQ(clocks_fired, 4);
	CHECK_EQ(clocks[4].place, 0);
	CHECK_EQ(clocks[2].place, 1);
	CHECK_EQ(clocks[0].place, 2);
	CHECK_EQ(clocks[1].place, 3);
	CHECK_EQ(clocks[3].fired, 0);
}
