/* SPDX-License-Identifier: MIT */
/* Connecting again. */
#include "harness.h"

#include <errno.h>

static void check_works(struct pair *p)
{
	struct call call;

	call_simple(&p->client, &call, "still there?", 12);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
	CHECK_MEM(call.payload, "still there?", 12);
}

/* Handles of the first incarnation, which the second one has to refuse. */
struct stale {
	xenidc_request_id id;
	struct xenidc_ref out, in;
	xenidc_incoming incoming;
};

static void check_stale(struct pair *p, struct stale *s)
{
	struct call call = { .request = { .refs = &s->out, .ref_count = 1 } };
	struct xenidc_reply reply = { 0 };
	xenidc_channel *c = p->client.channel;
	const void *payload;
	uint32_t length;
	uint8_t byte;
	void *at;

	CHECK_EQ(xenidc_cancel(c, s->id, 0), -ESTALE);
	CHECK_EQ(call_try(&p->client, &call), -ESTALE);
	CHECK_EQ(xenidc_buffer_put(c, &s->out.buffer), -ESTALE);
	CHECK_EQ(xenidc_buffer_put(c, &s->in.buffer), -ESTALE);
	CHECK_EQ(xenidc_incoming_payload(c, s->incoming, &payload, &length), -ESTALE);
	CHECK_EQ(xenidc_incoming_refs(c, s->incoming), -ESTALE);
	CHECK_EQ(xenidc_view(c, s->incoming, 0, &at, &length), -ESTALE);
	CHECK_EQ(xenidc_read(c, s->incoming, 0, 0, &byte, 1), -ESTALE);
	CHECK_EQ(xenidc_reply(c, s->incoming, &reply), -ESTALE);
}

void case_reconnect(struct pair *p)
{
	struct call ours, theirs;
	struct stale stale;
	struct xenidc_ref ref;
	uint32_t incarnation = 0;

	for (unsigned round = 0; round < 4; round++) {
		p->server.on.request = NULL;
		p->client.on = (struct hooks){ 0 };
		pair_open(p);
		CHECK_OP(p->client.limits.incarnation, >, incarnation);
		CHECK_EQ(stats_of(&p->client).incarnation, p->client.limits.incarnation);
		incarnation = p->client.limits.incarnation;
		if (round)
			check_stale(p, &stale);
		/* Something of everything is under way when it ends. */
		stale.out = ref_new(&p->client, XENIDC_OUT, 100);
		stale.in = ref_new(&p->client, XENIDC_IN, 100);
		call_simple(&p->client, &ours, "x", 1);
		stale.id = ours.id;
		ref = ref_new(&p->server, XENIDC_OUT, 50);
		theirs = (struct call){ .request = { .refs = &ref, .ref_count = 1 } };
		call_start(&p->server, &theirs);
		UNTIL(p, p->client.held_count && p->server.held_count);
		stale.incoming = p->client.held[0];
		CHECK_EQ(xenidc_channel_close(round & 1 ? p->client.channel : p->server.channel, 0), 0);
		UNTIL(p, p->client.idle == round + 1 && p->server.idle == round + 1);
		CHECK(ours.ends && theirs.ends);
		CHECK_EQ(p->client.abandoned, round + 1);
		p->client.held_count = p->server.held_count = 0;
	}
	p->server.on.request = serve_echo;
	pair_open(p);
	check_works(p);
}

static void policy(struct pair *p)
{
	pair_allow(p);
	p->server.on.request = serve_echo;
	p->client.options.retry = (struct xenidc_retry){
		.enabled = true,
		.backoff_min_ns = 20 * MS,
		.backoff_max_ns = 80 * MS,
	};
}

void case_retry(struct pair *p)
{
	policy(p);
	pair_open(p);
	for (unsigned round = 1; round <= 3; round++) {
		CHECK_EQ(xenidc_channel_close(p->server.channel, 0), 0);
		UNTIL(p, p->client.connected == round + 1 && p->server.connected == round + 1);
		CHECK_EQ(p->client.idle, round);
		CHECK_EQ(p->client.disconnecting, round);
		check_works(p);
	}
	/* A close of our own ends it. */
	CHECK_EQ(xenidc_channel_close(p->client.channel, 0), 0);
	UNTIL(p, p->client.idle == 4);
	pair_pass(p, 300 * MS);
	CHECK_EQ(p->client.connected, 4);
	CHECK_EQ(xenidc_channel_state(p->client.channel), XENIDC_IDLE);
}

#define ATTEMPTS 6

static void note_time(struct end *end)
{
	uint64_t *times = end->user;

	if (end->idle <= ATTEMPTS)
		times[end->idle - 1] = pair_now(end->pair);
}

void case_retry_backoff(struct pair *p)
{
	static uint64_t times[ATTEMPTS];

	policy(p);
	p->client.user = times;
	p->client.on.idle = note_time;
	end_connect(&p->client);
	UNTIL(p, p->client.idle == ATTEMPTS);
	for (unsigned i = 1; i < ATTEMPTS; i++) {
		uint64_t nominal = 20 * MS << (i - 1), gap = times[i] - times[i - 1];
		if (nominal > 80 * MS)
			nominal = 80 * MS;
		CHECK_OP(gap, >=, nominal * 3 / 4);
		/* An attempt itself takes time as well: none in a simulated world. */
		if (p->column->simulated)
			CHECK_OP(gap, <=, nominal * 5 / 4 + 10 * MS);
	}
	CHECK_EQ(p->client.connected, 0);
	CHECK_EQ(p->client.disconnecting, 0);
	p->client.on.idle = NULL;
	pair_listen(p);
	UNTIL(p, p->client.connected && p->server.connected);
	check_works(p);
}

void case_retry_give_up(struct pair *p)
{
	unsigned idle;

	policy(p);
	p->client.options.retry.give_up_ns = 200 * MS;
	end_connect(&p->client);
	pair_pass(p, pair_time(p, 400 * MS));
	idle = p->client.idle;
	CHECK_OP(idle, >=, 2);
	pair_pass(p, pair_time(p, 400 * MS));
	CHECK_EQ(p->client.idle, idle);
	/* It can be made to try again. */
	pair_open(p);
	check_works(p);
}

static int deny(xenidc_listener *listener, const struct xenidc_peer *peer, struct xenidc_accept *accept)
{
	(void)listener;
	(void)peer;
	(void)accept;
	return -EACCES;
}

void case_retry_fail_fast(struct pair *p)
{
	policy(p);
	p->listening.accept = deny;
	pair_listen(p);
	p->client.options.retry.fail_fast = true;
	end_connect(&p->client);
	UNTIL(p, p->client.idle);
	CHECK_REASON(p->client.idle_why.reason, XENIDC_REASON_DENIED);
	pair_pass(p, 300 * MS);
	CHECK_EQ(p->client.idle, 1);
	end_free(&p->client);
	p->client.idle = 0;
	/* Without it a denial is like any other failure. */
	p->client.options.retry.fail_fast = false;
	end_connect(&p->client);
	UNTIL(p, p->client.idle >= 3);
}

void case_retry_closed(struct pair *p)
{
	unsigned idle;
	int e;

	policy(p);
	end_connect(&p->client);
	UNTIL(p, p->client.idle == 2);
	e = xenidc_channel_close(p->client.channel, 0);
	CHECK(e == 0 || e == -EALREADY);
	pair_pass(p, 50 * MS);
	idle = p->client.idle;
	CHECK_OP(idle, <=, 3);
	pair_listen(p);
	pair_pass(p, 500 * MS);
	CHECK_EQ(p->client.idle, idle);
	CHECK_EQ(p->client.connected, 0);
	CHECK_EQ(xenidc_channel_state(p->client.channel), XENIDC_IDLE);
}
