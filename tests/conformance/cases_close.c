/* SPDX-License-Identifier: MIT */
/* How channels end. */
#include "harness.h"

#include <errno.h>

#define SOME 8

static void check_order(struct end *end, const void *payload, uint32_t length)
{
	unsigned *next = end->user;

	CHECK_EQ(length, sizeof(*next));
	CHECK_MEM(payload, next, sizeof(*next));
	(*next)++;
}

/* Answers with the sum of what the OUT reference holds. */
static void serve_sum(struct end *end, xenidc_incoming request)
{
	uint32_t length, sum = 0;
	const uint8_t *bytes = view(end, request, 0, &length);

	for (uint32_t i = 0; i < length; i++)
		sum += bytes[i];
	answer(end, request, (int32_t)sum);
}

static uint32_t sum_of(const struct xenidc_ref *ref)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < ref->length; i++)
		sum += ref_bytes(ref)[i];
	return sum;
}

void case_close_linger(struct pair *p)
{
	static struct call calls[SOME];
	struct xenidc_ref refs[SOME];
	uint32_t sums[SOME];
	unsigned next = 0;

	p->server.on.request = serve_sum;
	p->server.on.message = check_order;
	p->server.user = &next;
	pair_open(p);
	for (unsigned i = 0; i < SOME; i++) {
		refs[i] = ref_new(&p->client, XENIDC_OUT, 50000);
		fill(ref_bytes(&refs[i]), refs[i].length, i);
		sums[i] = sum_of(&refs[i]);
		CHECK_EQ(xenidc_send(p->client.channel, &i, sizeof(i)), 0);
		calls[i] = (struct call){ .request = { .refs = &refs[i], .ref_count = 1 } };
		call_start(&p->client, &calls[i]);
	}
	CHECK_EQ(xenidc_channel_close(p->client.channel, pair_time(p, 5 * SECOND)), 0);
	CHECK_EQ(p->client.idle, 0);
	UNTIL(p, p->client.idle && p->server.idle);
	for (unsigned i = 0; i < SOME; i++) {
		CHECK_END(&calls[i], XENIDC_REPLIED);
		CHECK_EQ(calls[i].result.status, (int32_t)sums[i]);
	}
	CHECK_EQ(p->server.requests, SOME);
	CHECK_EQ(next, SOME);
	CHECK_REASON(p->client.why.reason, XENIDC_REASON_CLOSED);
	CHECK_REASON(p->server.why.reason, XENIDC_REASON_CLOSED);
	CHECK_REASON(p->client.idle_why.reason, XENIDC_REASON_CLOSED);
	CHECK(p->server.why.by_peer);
}

static void reply_and_close(struct end *end, xenidc_incoming request)
{
	serve_echo(end, request);
	if (end->requests == SOME)
		CHECK_EQ(xenidc_channel_close(end->channel, pair_time(end->pair, 5 * SECOND)), 0);
}

void case_close_linger_reply(struct pair *p)
{
	static struct call calls[SOME];

	p->server.on.request = reply_and_close;
	pair_open(p);
	for (unsigned i = 0; i < SOME; i++)
		call_simple(&p->client, &calls[i], &i, sizeof(i));
	UNTIL(p, p->client.idle && p->server.idle);
	for (unsigned i = 0; i < SOME; i++) {
		CHECK_END(&calls[i], XENIDC_REPLIED);
		CHECK_MEM(calls[i].payload, &i, sizeof(i));
	}
}

void case_linger_expires(struct pair *p)
{
	struct call call;
	uint64_t begin;

	p->client.options.times.close_ns = 100 * MS;
	pair_open(p);
	call_simple(&p->client, &call, "x", 1);
	UNTIL(p, p->server.held_count);
	begin = pair_now(p);
	CHECK_EQ(xenidc_channel_close(p->client.channel, 50 * MS), 0);
	UNTIL(p, p->client.idle);
	CHECK_OP(pair_now(p) - begin, >=, 50 * MS);
	CHECK_OP(pair_now(p) - begin, <=, 150 * MS + pair_time(p, SECOND));
	CHECK_EQ(call.ends, 1);
	CHECK_END(&call, XENIDC_UNKNOWN);
	UNTIL(p, p->server.idle);
	CHECK_EQ(p->server.abandoned, 1);
	p->server.held_count = 0;
}

void case_close_unhelped(struct pair *p)
{
	static struct call calls[SOME];
	struct xenidc_ref ref;
	const uint8_t *at;
	uint32_t length;
	uint64_t begin;

	p->client.options.times.close_ns = 100 * MS;
	pair_open(p);
	ref = ref_new(&p->client, XENIDC_OUT, 4000);
	fill(ref_bytes(&ref), ref.length, 1);
	calls[0] = (struct call){ .request = { .refs = &ref, .ref_count = 1 } };
	call_start(&p->client, &calls[0]);
	UNTIL(p, p->server.held_count);
	at = view(&p->server, p->server.held[0], 0, &length);
	end_freeze(&p->server, true);
	for (unsigned i = 1; i < SOME; i++)
		call_simple(&p->client, &calls[i], &i, sizeof(i));
	begin = pair_now(p);
	CHECK_EQ(xenidc_channel_close(p->client.channel, 0), 0);
	for (unsigned i = 0; i < SOME; i++)
		CHECK_EQ(calls[i].ends, 0);
	UNTIL(p, p->client.idle);
	CHECK_OP(pair_now(p) - begin, <=, 100 * MS + pair_time(p, SECOND));
	for (unsigned i = 0; i < SOME; i++)
		CHECK(calls[i].ends == 1 && calls[i].result.end != XENIDC_REPLIED);
	CHECK_END(&calls[0], XENIDC_UNKNOWN);
	/* The peer holds a view into what was taken back; that must not hurt it. */
	CHECK_FILLED(at, length, 1);
	end_freeze(&p->server, false);
	UNTIL(p, p->server.idle);
	CHECK_EQ(p->server.abandoned, p->server.requests);
	p->server.held_count = 0;
}

void case_close_both(struct pair *p)
{
	struct call calls[2];

	pair_open(p);
	call_simple(&p->client, &calls[0], "x", 1);
	call_simple(&p->server, &calls[1], "y", 1);
	CHECK_EQ(xenidc_channel_close(p->client.channel, SECOND), 0);
	CHECK_EQ(xenidc_channel_close(p->server.channel, SECOND), 0);
	UNTIL(p, p->client.idle && p->server.idle);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(calls[i].ends, 1);
	CHECK_EQ(p->client.disconnecting, 1);
	CHECK_EQ(p->server.disconnecting, 1);
	p->client.held_count = p->server.held_count = 0;
}

static void end_order(struct end *end)
{
	/* All ends of requests come between disconnecting and idle. */
	CHECK_EQ(end->disconnecting, 1);
	CHECK_EQ(end->open, 0);
}

void case_one_end_each(struct pair *p)
{
	static struct call replied, held, cancelled, orphan, waiting[SOME];
	struct xenidc_ref refs[4];

	p->client.on.idle = end_order;
	pair_open(p);
	for (int i = 0; i < 4; i++)
		refs[i] = ref_new(&p->client, i & 1 ? XENIDC_IN : XENIDC_OUT, 3000);
	replied = (struct call){ .request = { .refs = &refs[0], .ref_count = 1 } };
	held = (struct call){ .request = { .refs = &refs[1], .ref_count = 1 } };
	cancelled = (struct call){ .request = { .refs = &refs[2], .ref_count = 1 } };
	orphan = (struct call){ .request = { .refs = &refs[3], .ref_count = 1 } };
	call_start(&p->client, &replied);
	call_start(&p->client, &held);
	call_start(&p->client, &cancelled);
	call_start(&p->client, &orphan);
	UNTIL(p, p->server.held_count == 4);
	answer(&p->server, p->server.held[0], 3);
	CHECK_EQ(xenidc_cancel(p->client.channel, orphan.id, 0), 0);
	CALL_END(&replied);
	CALL_END(&orphan);
	CHECK_EQ(xenidc_cancel(p->client.channel, cancelled.id, 100 * SECOND), 0);
	end_freeze(&p->server, true);
	for (unsigned i = 0; i < SOME; i++)
		call_simple(&p->client, &waiting[i], &i, sizeof(i));
	CHECK_EQ(xenidc_channel_close(p->client.channel, 0), 0);
	end_freeze(&p->server, false);
	UNTIL(p, p->client.idle && p->server.idle);
	CHECK_END(&replied, XENIDC_REPLIED);
	CHECK_END(&held, XENIDC_UNKNOWN);
	CHECK_END(&cancelled, XENIDC_UNKNOWN);
	CHECK_REASON(held.result.reason, XENIDC_REASON_CLOSED);
	for (unsigned i = 0; i < SOME; i++)
		CHECK(waiting[i].ends == 1 && waiting[i].result.end != XENIDC_REPLIED);
	CHECK_EQ(stats_of(&p->client).in_flight_out, 0);
	CHECK_EQ(stats_of(&p->client).orphans, 0);
	p->server.held_count = 0;
}

void case_undispatched(struct pair *p)
{
	static struct call calls[5];

	pair_open(p);
	for (unsigned i = 0; i < 2; i++)
		call_simple(&p->client, &calls[i], &i, sizeof(i));
	UNTIL(p, p->server.held_count == 2);
	/* The server closes before it looks at the other three. */
	end_freeze(&p->server, true);
	for (unsigned i = 2; i < 5; i++)
		call_simple(&p->client, &calls[i], &i, sizeof(i));
	for (unsigned i = 0; i < 10; i++)
		pair_step(p);
	CHECK_EQ(xenidc_channel_close(p->server.channel, 0), 0);
	end_freeze(&p->server, false);
	UNTIL(p, p->client.idle && p->server.idle);
	CHECK_EQ(p->server.requests, 2);
	for (unsigned i = 0; i < 5; i++) {
		CHECK_EQ(calls[i].ends, 1);
		CHECK_END(&calls[i], i < 2 ? XENIDC_UNKNOWN : XENIDC_NOT_EXECUTED);
		CHECK_REASON(calls[i].result.reason, XENIDC_REASON_CLOSED);
	}
	CHECK_EQ(p->server.abandoned, 2);
	CHECK_EQ(stats_of(&p->client).ended_not_executed, 3);
	CHECK_EQ(stats_of(&p->client).ended_unknown, 2);
	p->server.held_count = 0;
}

static void keep_abandoned(struct end *end, xenidc_incoming request)
{
	CHECK_EQ(end->disconnecting, 1);
	CHECK(request == end->held[0] || request == end->held[1]);
}

void case_abandoned(struct pair *p)
{
	struct call calls[2];
	const void *payload;
	uint32_t length;

	p->server.on.abandoned = keep_abandoned;
	p->server.options.times.close_ns = 50 * MS;
	pair_open(p);
	call_simple(&p->client, &calls[0], "ab", 2);
	call_simple(&p->client, &calls[1], "cd", 2);
	UNTIL(p, p->server.held_count == 2);
	CHECK_EQ(xenidc_channel_close(p->client.channel, 0), 0);
	UNTIL(p, p->client.idle && p->server.abandoned == 2);
	pair_pass(p, pair_time(p, 200 * MS));
	CHECK_EQ(p->server.idle, 0);
	CHECK_EQ(xenidc_channel_state(p->server.channel), XENIDC_DISCONNECTING);
	/* What came with the request is still there. */
	CHECK_EQ(xenidc_incoming_payload(p->server.channel, p->server.held[1], &payload, &length), 0);
	CHECK_EQ(length, 2);
	CHECK_MEM(payload, "cd", 2);
	answer(&p->server, p->server.held[0], 0);
	pair_pass(p, 100 * MS);
	CHECK_EQ(p->server.idle, 0);
	answer(&p->server, p->server.held[1], 0);
	CHECK_EQ(p->server.idle, 0);
	UNTIL(p, p->server.idle);
	CHECK_EQ(xenidc_reply(p->server.channel, p->server.held[0], &(struct xenidc_reply){ 0 }), -ESTALE);
	p->server.held_count = 0;
}

/* --- Freeing */
static void free_on_event(struct end *end)
{
	end_free(end);
}

static void free_on_incoming(struct end *end, xenidc_incoming request)
{
	(void)request;
	end_free(end);
}

static void free_on_message(struct end *end, const void *payload, uint32_t length)
{
	end_free(end);
	/* What the handler was given is there until it returns. */
	CHECK_EQ(length, 1);
	CHECK_MEM(payload, "m", 1);
}

static void free_on_done(struct call *call)
{
	end_free(call->end);
	CHECK_END(call, XENIDC_REPLIED);
}

enum { CONNECTED, REQUEST, CANCEL, MESSAGE, WRITABLE, ABANDONED, DISCONNECTING, IDLE, DONE, HANDLERS };

static void hook(struct end *end, int which)
{
	end->on = (struct hooks){
		.connected = which == CONNECTED ? free_on_event : NULL,
		.request = which == REQUEST ? free_on_incoming
			   : which == DONE  ? serve_echo
					    : NULL,
		.cancel = which == CANCEL ? free_on_incoming : NULL,
		.message = which == MESSAGE ? free_on_message : NULL,
		.writable = which == WRITABLE ? free_on_event : NULL,
		.abandoned = which == ABANDONED ? free_on_incoming : NULL,
		.disconnecting = which == DISCONNECTING ? free_on_event : NULL,
		.idle = which == IDLE ? free_on_event : NULL,
	};
}

/* The server frees itself in its handler `which` (DONE: the client does). */
static void free_in(struct pair *p, int which)
{
	static struct call call;

	end_init(&p->server, p, "server", &p->server);
	end_init(&p->client, p, "client", &p->client);
	hook(&p->server, which);
	pair_listen(p);
	end_connect(&p->client);
	UNTIL(p, p->client.connected || p->client.idle);
	if (which != CONNECTED) {
		UNTIL(p, p->server.connected);
		CHECK_EQ(xenidc_send(p->client.channel, "m", 1), 0);
		call = (struct call){ .then = which == DONE ? free_on_done : NULL };
		call_start(&p->client, &call);
	}
	if (which == WRITABLE)
		while (xenidc_send(p->server.channel, "m", 1) == 0)
			;
	if (which == CANCEL || which == ABANDONED || which == DISCONNECTING || which == IDLE)
		UNTIL(p, p->server.held_count);
	if (which == CANCEL)
		CHECK_EQ(xenidc_cancel(p->client.channel, call.id, 100 * SECOND), 0);
	if (which == ABANDONED || which == DISCONNECTING || which == IDLE)
		CHECK_EQ(xenidc_channel_close(p->client.channel, 0), 0);
	UNTIL(p, which == DONE ? !p->client.channel && p->server.idle : !p->server.channel && p->client.idle);
	p->server.held_count = 0;
	end_free(&p->client);
	end_free(&p->server);
	xenidc_listener_free(p->listener);
	p->listener = NULL;
}

void case_free_in_handlers(struct pair *p)
{
	pair_allow(p);
	pair_loops(p);
	for (int which = 0; which < HANDLERS; which++)
		free_in(p, which);
}

/* Requests both ways, held and not dispatched, with buffers, and messages. */
static void busy(struct pair *p)
{
	static struct call calls[2][SOME];
	static struct xenidc_ref refs[2][SOME];

	for (unsigned i = 0; i < SOME; i++) {
		for (int k = 0; k < 2; k++) {
			struct end *end = k ? &p->server : &p->client;
			refs[k][i] = ref_new(end, i & 1 ? XENIDC_IN : XENIDC_OUT, 40000);
			calls[k][i] = (struct call){ .request = { .refs = &refs[k][i], .ref_count = 1 } };
			call_start(end, &calls[k][i]);
			CHECK_EQ(xenidc_send(end->channel, &i, sizeof(i)), 0);
		}
		if (i == SOME / 2)
			UNTIL(p, p->server.held_count > 2 && p->client.held_count > 2);
	}
}

void case_free_busy(struct pair *p)
{
	uint64_t begin;

	for (unsigned round = 0; round < 2; round++) {
		pair_open(p);
		busy(p);
		begin = pair_now(p);
		p->client.open = 0; /* they will not end: checked by nothing being called any more */
		end_free(&p->client);
		p->client.held_count = 0;
		UNTIL(p, p->server.idle == round + 1);
		CHECK_OP(pair_now(p) - begin, <, pair_time(p, 2 * SECOND));
		CHECK_EQ(p->server.open, 0);
		p->server.held_count = 0;
		pair_allow(p);
		p->may_allocate = false;
	}
}

void case_loop_free(struct pair *p)
{
	pair_open(p);
	busy(p);
	/* What the freed loop's channels had is not called back any more. */
	p->client.dropped = true;
	p->client.open = 0;
	xenidc_loop_free(p->client.loop);
	p->client.loop = NULL;
	p->client.channel = NULL;
	p->client.held_count = 0;
	UNTIL(p, p->server.idle);
	CHECK_EQ(p->server.open, 0);
	p->server.held_count = 0;
	/* And with the listener and a channel that waits to connect. */
	pair_allow(p);
	column_loop(p->column, &p->client);
	end_connect(&p->client);
	pair_step(p);
	xenidc_loop_free(p->server.loop);
	p->server.loop = NULL;
	p->server.channel = NULL;
	p->listener = NULL;
	UNTIL(p, p->client.idle || p->client.connected);
	if (p->client.connected)
		UNTIL(p, p->client.idle);
}
