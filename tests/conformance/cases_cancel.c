/* SPDX-License-Identifier: MIT */
/* Cancelling, deadlines, and what is left behind. */
#include "harness.h"

#include <errno.h>

static void answer_cancelled(struct end *end, xenidc_incoming request)
{
	CHECK_EQ(end->held_count, 1);
	CHECK_EQ(end->held[0], request);
	answer(end, request, 7);
	end->held_count = 0;
}

void case_cancel_dispatched(struct pair *p)
{
	struct call call;

	p->server.on.cancel = answer_cancelled;
	pair_open(p);
	call_simple(&p->client, &call, "x", 1);
	UNTIL(p, p->server.held_count);
	CHECK_EQ(xenidc_cancel(p->client.channel, call.id, 100 * SECOND), 0);
	/* Again, with another deadline: still one CANCEL, one end. */
	CHECK_EQ(xenidc_cancel(p->client.channel, call.id, 50 * SECOND), 0);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
	CHECK_EQ(call.result.status, 7);
	pair_settle(p);
	CHECK_EQ(p->server.cancels, 1);
}

void case_cancel_ignored(struct pair *p)
{
	struct call calls[2];
	uint64_t begin;

	pair_open(p);
	call_simple(&p->client, &calls[0], "x", 1);
	call_simple(&p->client, &calls[1], "y", 1);
	UNTIL(p, p->server.held_count == 2);
	begin = pair_now(p);
	CHECK_EQ(xenidc_cancel(p->client.channel, calls[0].id, 50 * MS), 0);
	CHECK_EQ(xenidc_cancel(p->client.channel, calls[1].id, 0), 0);
	CHECK_EQ(calls[1].ends, 0);
	CALL_END(&calls[1]);
	CHECK_EQ(calls[0].ends, 0);
	CALL_END(&calls[0]);
	CHECK_OP(pair_now(p) - begin, >=, 50 * MS);
	CHECK_OP(pair_now(p) - begin, <, 50 * MS + pair_time(p, SECOND));
	for (int i = 0; i < 2; i++) {
		CHECK_END(&calls[i], XENIDC_UNKNOWN);
		CHECK_REASON(calls[i].result.reason, XENIDC_REASON_CANCELLED);
		CHECK_EQ(xenidc_cancel(p->client.channel, calls[i].id, 0), -ESTALE);
	}
	UNTIL(p, p->server.cancels == 2);
	answer_held(&p->server, 0);
	pair_settle(p);
	CHECK_EQ(stats_of(&p->client).orphans, 0);
	CHECK_EQ(xenidc_channel_request_credit(p->client.channel), 32);
}

/* Lend more than any kernel buffers, so that nothing more can leave. */
static void stuff(struct pair *p, struct xenidc_ref *ref, struct call *call, uint32_t size)
{
	struct xenidc_budget *b = &p->client.options.budget;

	b->out[0] = b->peer_out[0] = (struct xenidc_slot_class){ size, 1 };
	p->server.options.budget = *b;
	pair_open(p);
	*ref = ref_new(&p->client, XENIDC_OUT, size);
	fill(ref_bytes(ref), size, 1);
	end_freeze(&p->server, true);
	*call = (struct call){ .request = { .refs = ref, .ref_count = 1 } };
	call_start(&p->client, call);
	for (int i = 0; i < 50; i++)
		pair_step(p);
}

void case_cancel_unsent(struct pair *p)
{
	struct xenidc_ref ref;
	struct call bulk, call;

	stuff(p, &ref, &bulk, 16u << 20);
	call_simple(&p->client, &call, "never seen", 10);
	CHECK_EQ(xenidc_cancel(p->client.channel, call.id, 0), 0);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_NOT_EXECUTED);
	CHECK_REASON(call.result.reason, XENIDC_REASON_CANCELLED);
	end_freeze(&p->server, false);
	UNTIL(p, p->server.held_count);
	answer_held(&p->server, 0);
	CALL_END(&bulk);
	pair_settle(p);
	CHECK_EQ(p->server.requests, 1);
	CHECK_EQ(xenidc_channel_request_credit(p->client.channel), 32);
}

void case_cancel_undispatched(struct pair *p)
{
	struct call call;

	p->server.on.request = serve_echo;
	pair_open(p);
	for (unsigned round = 0; round < 10; round++) {
		unsigned before = p->server.requests;
		call_simple(&p->client, &call, "x", 1);
		CHECK_EQ(xenidc_cancel(p->client.channel, call.id, round & 1 ? 100 * SECOND : 0), 0);
		CALL_END(&call);
		pair_settle(p);
		CHECK_OP(p->server.requests - before, <=, 1);
		if (call.result.end == XENIDC_NOT_EXECUTED)
			CHECK_EQ(p->server.requests, before);
		if (call.result.end == XENIDC_REPLIED)
			CHECK_EQ(p->server.requests, before + 1);
		else
			CHECK_REASON(call.result.reason, XENIDC_REASON_CANCELLED);
		/* With time to answer, there is an answer. */
		if (round & 1)
			CHECK(call.result.end != XENIDC_UNKNOWN);
	}
	CHECK_EQ(stats_of(&p->client).orphans, 0);
}

void case_cancel_replied(struct pair *p)
{
	struct call call;
	xenidc_request_id old;

	p->server.on.request = serve_echo;
	pair_open(p);
	CHECK_EQ(xenidc_cancel(p->client.channel, 0, 0), -ESTALE);
	call_simple(&p->client, &call, "x", 1);
	CALL_END(&call);
	old = call.id;
	CHECK_EQ(xenidc_cancel(p->client.channel, old, 0), -ESTALE);
	/* The same place in the table again, several times over: an old id never means a new request. */
	p->server.on.request = NULL;
	for (int i = 0; i < 40; i++) {
		call_simple(&p->client, &call, "y", 1);
		CHECK(call.id != old);
		CHECK_EQ(xenidc_cancel(p->client.channel, old, 0), -ESTALE);
		UNTIL(p, p->server.held_count);
		answer_held(&p->server, 0);
		CALL_END(&call);
		CHECK_END(&call, XENIDC_REPLIED);
	}
	CHECK_EQ(p->server.cancels, 0);
}

void case_cancel_crosses(struct pair *p)
{
	struct call call;

	pair_open(p);
	for (int i = 0; i < 10; i++) {
		call_simple(&p->client, &call, "x", 1);
		UNTIL(p, p->server.held_count);
		answer_held(&p->server, 3);
		CHECK_EQ(xenidc_cancel(p->client.channel, call.id, 100 * SECOND), 0);
		CALL_END(&call);
		CHECK_END(&call, XENIDC_REPLIED);
		CHECK_EQ(call.result.status, 3);
	}
	pair_settle(p);
	CHECK_EQ(p->server.cancels, 0);
	CHECK_EQ(p->client.disconnecting + p->server.disconnecting, 0);
}

/* Where data do not come by themselves, the handler has seen the request, and then its cancel, before any of them. */
static void end_of_bulk(struct pair *p, struct call *bulk)
{
	if (!(column_has(p->column) & NEED_STREAM))
		UNTIL(p, bulk->ends || p->server.cancels);
	answer_held(&p->server, 1);
	CALL_END(bulk);
	if (column_has(p->column) & NEED_STREAM)
		CHECK_END(bulk, XENIDC_NOT_EXECUTED);
	CHECK_EQ(bulk->result.end, p->server.requests ? XENIDC_REPLIED : XENIDC_NOT_EXECUTED);
}

void case_cancel_bulk(struct pair *p)
{
	struct xenidc_ref ref;
	struct call bulk;
	uint64_t before;

	stuff(p, &ref, &bulk, 4u << 20);
	before = stats_of(&p->server).bytes_in;
	CHECK_EQ(xenidc_cancel(p->client.channel, bulk.id, 100 * SECOND), 0);
	end_freeze(&p->server, false);
	end_of_bulk(p, &bulk);
	pair_settle(p);
	/* What the kernel had buffered came all the same, but not the rest. */
	if (!p->server.requests)
		CHECK_OP(stats_of(&p->server).bytes_in - before, <, ref.length);
	/* The same slot carries the next one: no old bytes in it. */
	fill(ref_bytes(&ref), ref.length, 2);
	call_start(&p->client, &bulk);
	UNTIL(p, p->server.held_count);
	CHECK_FILLED(view(&p->server, p->server.held[0], 0, &(uint32_t){ 0 }), ref.length, 2);
	answer_held(&p->server, 0);
	CALL_END(&bulk);
	CHECK_END(&bulk, XENIDC_REPLIED);
}

void case_deadline(struct pair *p)
{
	struct call call = { .request = { .payload = "x", .payload_len = 1, .timeout_ns = 50 * MS } };
	uint64_t begin;

	pair_open(p);
	begin = pair_now(p);
	call_start(&p->client, &call);
	CALL_END(&call);
	CHECK_OP(pair_now(p) - begin, >=, 50 * MS);
	CHECK_OP(pair_now(p) - begin, <, 50 * MS + pair_time(p, SECOND));
	CHECK_END(&call, XENIDC_UNKNOWN);
	CHECK_REASON(call.result.reason, XENIDC_REASON_TIMEOUT);
	UNTIL(p, p->server.cancels == 1);
	/* The reply comes late: nobody is told again. */
	answer_held(&p->server, 9);
	pair_settle(p);
	CHECK_EQ(call.ends, 1);
	CHECK_EQ(stats_of(&p->client).ended_unknown, 1);
	CHECK_EQ(xenidc_channel_request_credit(p->client.channel), 32);
}

void case_deadline_met(struct pair *p)
{
	struct call call = { .request = { .payload = "x", .payload_len = 1, .timeout_ns = 300 * MS } };

	p->server.on.request = serve_echo;
	pair_open(p);
	call.request.timeout_ns = pair_time(p, call.request.timeout_ns);
	call_start(&p->client, &call);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
	pair_pass(p, call.request.timeout_ns + 50 * MS);
	CHECK_EQ(call.ends, 1);
	CHECK_EQ(p->server.cancels, 0);
}

void case_orphan(struct pair *p)
{
	struct xenidc_ref refs[2];
	struct xenidc_buffer buffer;
	struct call call = { .request = { .refs = refs, .ref_count = 2, .timeout_ns = 20 * MS } };
	struct call other = { .request = { .refs = refs, .ref_count = 1 } };
	struct xenidc_budget *b = &p->client.options.budget;
	xenidc_channel *c;

	b->out[0] = b->in[0] = (struct xenidc_slot_class){ 4096, 1 };
	b->requests_out = 2;
	pair_open(p);
	c = p->client.channel;
	refs[0] = ref_new(&p->client, XENIDC_OUT, 4096);
	refs[1] = ref_new(&p->client, XENIDC_IN, 4096);
	fill(ref_bytes(&refs[0]), 4096, 1);
	call_start(&p->client, &call);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_UNKNOWN);
	CHECK_EQ(stats_of(&p->client).orphans, 1);
	CHECK_EQ(xenidc_channel_request_credit(p->client.channel), 1);
	/* The holder still has both: nobody else may. */
	CHECK_EQ(call_try(&p->client, &other), -EBUSY);
	CHECK_EQ(xenidc_buffer_put(c, &refs[0].buffer), 0);
	CHECK_EQ(xenidc_buffer_put(c, &refs[1].buffer), 0);
	CHECK_EQ(xenidc_buffer_get(c, XENIDC_OUT, 1, &buffer), -EAGAIN);
	CHECK_EQ(xenidc_buffer_get(c, XENIDC_IN, 1, &buffer), -EAGAIN);
	pair_settle(p);
	CHECK_FILLED(view(&p->server, p->server.held[0], 0, &(uint32_t){ 0 }), 4096, 1);
	fill(view(&p->server, p->server.held[0], 1, &(uint32_t){ 0 }), 4096, 2);
	CHECK_EQ(p->client.writable, 0);
	answer_held(&p->server, 0);
	UNTIL(p, p->client.writable && !stats_of(&p->client).orphans);
	CHECK_EQ(xenidc_channel_request_credit(p->client.channel), 2);
	refs[0] = ref_new(&p->client, XENIDC_OUT, 1);
	refs[1] = ref_new(&p->client, XENIDC_IN, 1);
	call_start(&p->client, &other);
	UNTIL(p, p->server.held_count);
	answer_held(&p->server, 0);
	CALL_END(&other);
	CHECK_EQ(call.ends, 1);
}

void case_orphan_closed(struct pair *p)
{
	struct xenidc_ref ref;
	struct call call = { .request = { .refs = &ref, .ref_count = 1 } };

	for (unsigned round = 1; round <= 2; round++) {
		pair_open(p);
		ref = ref_new(&p->client, XENIDC_OUT, 65536);
		call_start(&p->client, &call);
		UNTIL(p, p->server.held_count);
		CHECK_EQ(xenidc_cancel(p->client.channel, call.id, 0), 0);
		CALL_END(&call);
		CHECK_EQ(stats_of(&p->client).orphans, 1);
		CHECK_EQ(xenidc_channel_close(p->client.channel, 0), 0);
		UNTIL(p, p->client.idle == round && p->server.idle == round);
		CHECK_EQ(stats_of(&p->client).orphans, 0);
		CHECK_EQ(p->server.abandoned, round);
		CHECK_EQ(call.ends, 1);
		p->server.held_count = 0;
	}
}
