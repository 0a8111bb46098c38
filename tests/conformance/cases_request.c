/* SPDX-License-Identifier: MIT */
/* Requests and replies. */
#include "harness.h"

#include <errno.h>
#include <signal.h>

void case_echo(struct pair *p)
{
	static uint8_t payload[256];
	struct call call;

	p->server.on.request = p->client.on.request = serve_echo;
	pair_open(p);
	for (uint32_t length = 0; length <= 256; length++) {
		struct end *end = length & 1 ? &p->server : &p->client;
		fill(payload, sizeof(payload), length);
		call_simple(end, &call, payload, length);
		CALL_END(&call);
		CHECK_END(&call, XENIDC_REPLIED);
		CHECK_EQ(call.result.status, (int32_t)length);
		CHECK_EQ(call.result.payload_len, length);
		CHECK_MEM(call.payload, payload, length);
	}
	CHECK_EQ(p->client.disconnecting, 0);
}

void case_submit_errors(struct pair *p)
{
	static uint8_t payload[300];
	struct xenidc_ref refs[5];
	struct call call = { .request = { .payload = payload, .payload_len = 257 } };

	pair_open(p);
	CHECK_EQ(call_try(&p->client, &call), -EMSGSIZE);
	call.request.payload_len = 256;
	for (int i = 0; i < 5; i++)
		refs[i] = ref_new(&p->client, XENIDC_OUT, 10);
	call.request.refs = refs;
	call.request.ref_count = 5;
	CHECK_EQ(call_try(&p->client, &call), -EMSGSIZE);
	call.request.ref_count = 4;
	refs[3].offset = refs[3].buffer.capacity;
	CHECK_EQ(call_try(&p->client, &call), -EINVAL);
	refs[3].offset = 0;
	/* A buffer of the other direction under false colours. */
	refs[3].buffer.direction = XENIDC_IN;
	CHECK_OP(call_try(&p->client, &call), <, 0);
	refs[3].buffer.direction = XENIDC_OUT;
	refs[3].buffer.incarnation++;
	CHECK_EQ(call_try(&p->client, &call), -ESTALE);
	refs[3].buffer.incarnation--;
	CHECK_EQ(xenidc_channel_request_credit(p->client.channel), 32);
	CHECK_EQ(p->client.open, 0);
	/* Nothing of all this was sent, nothing was kept. */
	call_start(&p->client, &call);
	UNTIL(p, p->server.held_count);
	answer_held(&p->server, 0);
	CALL_END(&call);
	CHECK_EQ(p->server.requests, 1);
	ref_put_all(&p->client, refs, 5);
}

void case_credit(struct pair *p)
{
	static struct call calls[4], more;

	p->client.options.budget.requests_out = 4;
	pair_open(p);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 4; i++) {
			CHECK_EQ(xenidc_channel_request_credit(p->client.channel), 4 - i);
			call_simple(&p->client, &calls[i], &i, sizeof(i));
		}
		CHECK_EQ(xenidc_channel_request_credit(p->client.channel), 0);
		CHECK_EQ(call_try(&p->client, &more), -EAGAIN);
		UNTIL(p, p->server.held_count == 4);
		CHECK_EQ(call_try(&p->client, &more), -EAGAIN);
		CHECK_EQ(p->client.writable, round);
		answer_held(&p->server, 0);
		UNTIL(p, p->client.writable == round + 1 && !p->client.open);
		CHECK_EQ(xenidc_channel_request_credit(p->client.channel), 4);
		pair_settle(p);
		CHECK_EQ(p->client.writable, round + 1);
	}
}

#define FULL 16

void case_credit_both_full(struct pair *p)
{
	static struct call calls[2][FULL];
	struct xenidc_budget *b = &p->client.options.budget;

	b->requests_out = b->requests_in = b->messages_out = b->messages_in = FULL;
	p->server.options.budget = *b;
	pair_open(p);
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < FULL; i++) {
			call_simple(&p->client, &calls[0][i], &i, sizeof(i));
			call_simple(&p->server, &calls[1][i], &i, sizeof(i));
			CHECK_EQ(xenidc_send(p->client.channel, &i, sizeof(i)), 0);
			CHECK_EQ(xenidc_send(p->server.channel, &i, sizeof(i)), 0);
		}
		CHECK_EQ(xenidc_send(p->client.channel, "x", 1), -EAGAIN);
		UNTIL(p, p->server.held_count == FULL && p->client.held_count == FULL);
		/* Cancels have room of their own. */
		for (unsigned i = 0; i < FULL; i++) {
			CHECK_EQ(xenidc_cancel(p->client.channel, calls[0][i].id, 100 * SECOND), 0);
			CHECK_EQ(xenidc_cancel(p->server.channel, calls[1][i].id, 100 * SECOND), 0);
		}
		UNTIL(p, p->server.cancels == FULL * (round + 1) && p->client.cancels == FULL * (round + 1));
		answer_held(&p->server, 1);
		answer_held(&p->client, 2);
		UNTIL(p, !p->client.open && !p->server.open);
		for (unsigned i = 0; i < FULL; i++) {
			CHECK_END(&calls[0][i], XENIDC_REPLIED);
			CHECK_EQ(calls[0][i].result.status, 1);
			CHECK_EQ(calls[1][i].result.status, 2);
		}
		UNTIL(p, p->server.messages == (round + 1) * FULL && p->client.messages == (round + 1) * FULL);
		UNTIL(p, xenidc_channel_message_credit(p->client.channel) == FULL &&
				 xenidc_channel_message_credit(p->server.channel) == FULL);
	}
}

/* --- Order */
static void next_number(struct end *end, const void *payload, uint32_t length)
{
	unsigned *next = end->user;

	CHECK_EQ(length, sizeof(*next));
	CHECK_MEM(payload, next, sizeof(*next));
	(*next)++;
}

static void serve_number(struct end *end, xenidc_incoming request)
{
	const void *payload;
	uint32_t length;

	CHECK_EQ(xenidc_incoming_payload(end->channel, request, &payload, &length), 0);
	next_number(end, payload, length);
	answer(end, request, 0);
}

void case_order(struct pair *p)
{
	static struct call calls[32];
	static struct xenidc_ref refs[32];
	unsigned next = 0, sent = 0, started = 0;

	p->server.user = &next;
	p->server.on.request = serve_number;
	p->server.on.message = next_number;
	pair_open(p);
	/* Messages, requests, and requests with data that take longer, in a row. */
	for (unsigned i = 0; i < 40; i++, sent++) {
		struct call *call = &calls[started];
		if (i % 3 == 0) {
			CHECK_EQ(xenidc_send(p->client.channel, &sent, sizeof(sent)), 0);
			continue;
		}
		*call = (struct call){ .request = { .payload = &sent, .payload_len = sizeof(sent) } };
		if (i % 9 == 1) {
			refs[started] = ref_new(&p->client, XENIDC_OUT, 65536);
			call->request.refs = &refs[started];
			call->request.ref_count = 1;
		}
		call_start(&p->client, call);
		started++;
	}
	UNTIL(p, !p->client.open && next == sent);
	CHECK_EQ(p->server.messages + p->server.requests, sent);
}

void case_reply_later(struct pair *p)
{
	static struct call calls[32];
	static const unsigned char order[] = { 7, 3, 31, 0, 12, 30, 1, 2 };

	pair_open(p);
	for (unsigned i = 0; i < 32; i++)
		call_simple(&p->client, &calls[i], &i, sizeof(i));
	UNTIL(p, p->server.held_count == 32);
	for (unsigned i = 0; i < sizeof(order); i++) {
		unsigned k = order[i];
		answer(&p->server, p->server.held[k], (int32_t)k);
		CALL_END(&calls[k]);
		CHECK_EQ(calls[k].result.status, (int32_t)k);
		CHECK_EQ(p->client.ended[XENIDC_REPLIED], i + 1);
	}
	for (unsigned k = 32; k-- > 0;) {
		bool replied = memchr(order, (int)k, sizeof(order));
		struct xenidc_reply reply = { .status = (int32_t)k };
		CHECK_EQ(xenidc_reply(p->server.channel, p->server.held[k], &reply), replied ? -ESTALE : 0);
	}
	p->server.held_count = 0;
	UNTIL(p, !p->client.open);
	for (unsigned k = 0; k < 32; k++)
		CHECK_EQ(calls[k].result.status, (int32_t)k);
}

void case_reply_errors(struct pair *p)
{
	static uint8_t payload[300];
	struct xenidc_ref refs[2];
	struct call call = { .request = { .refs = refs, .ref_count = 2 } };
	uint32_t valid[2] = { 4000, 101 };
	struct xenidc_reply reply = { .status = INT32_MIN, .payload = payload, .payload_len = 257, .valid = valid };

	pair_open(p);
	refs[0] = ref_new(&p->client, XENIDC_OUT, 4000);
	refs[1] = ref_new(&p->client, XENIDC_IN, 100);
	call_start(&p->client, &call);
	UNTIL(p, p->server.held_count);
	CHECK_EQ(xenidc_reply(p->server.channel, p->server.held[0], &reply), -EMSGSIZE);
	reply.payload_len = 256;
	CHECK_EQ(xenidc_reply(p->server.channel, p->server.held[0], &reply), -EINVAL);
	valid[1] = 100;
	/* What is said of OUT references does not count. */
	valid[0] = UINT32_MAX;
	CHECK_EQ(xenidc_reply(p->server.channel, p->server.held[0], &reply), 0);
	CHECK_EQ(xenidc_reply(p->server.channel, p->server.held[0], &reply), -ESTALE);
	p->server.held_count = 0;
	CALL_END(&call);
	CHECK_EQ(call.result.status, INT32_MIN);
	CHECK_EQ(call.result.payload_len, 256);
	CHECK_EQ(call.valid[0], 0);
	CHECK_EQ(call.valid[1], 100);
}

void case_payload_private(struct pair *p)
{
	static struct call calls[32];
	static uint8_t payloads[32][256];
	const void *at[32];
	uint32_t length;

	pair_open(p);
	for (uint32_t i = 0; i < 32; i++) {
		fill(payloads[i], 256, i);
		call_simple(&p->client, &calls[i], payloads[i], 256);
		memset(payloads[i], 0, 256); /* it was copied by the call */
	}
	UNTIL(p, p->server.held_count == 32);
	for (int i = 0; i < 32; i++)
		CHECK_EQ(xenidc_incoming_payload(p->server.channel, p->server.held[i], &at[i], &length), 0);
	for (int i = 0; i < 10; i++)
		pair_settle(p);
	for (uint32_t i = 0; i < 32; i++)
		CHECK_FILLED(at[i], 256, i);
	answer_held(&p->server, 0);
	UNTIL(p, !p->client.open);
}

void case_null_handler(struct pair *p)
{
	struct xenidc_ref refs[2];
	struct call call = { .request = { .payload = "x", .payload_len = 1, .refs = refs, .ref_count = 2 } };

	p->server.options.handlers.request = NULL;
	pair_open(p);
	for (int i = 0; i < 40; i++) {
		refs[0] = ref_new(&p->client, XENIDC_OUT, 4096);
		refs[1] = ref_new(&p->client, XENIDC_IN, 4096);
		call_start(&p->client, &call);
		CALL_END(&call);
		CHECK_END(&call, XENIDC_NOT_EXECUTED);
		CHECK_EQ(call.result.payload_len, 0);
		/* Everything is ours again. */
		ref_put_all(&p->client, refs, 2);
	}
	CHECK_EQ(stats_of(&p->client).ended_not_executed, 40);
	CHECK_EQ(xenidc_channel_request_credit(p->client.channel), 32);
}

/* --- Handlers */
void case_not_inside(struct pair *p)
{
	static struct call calls[3];
	unsigned before;

	p->server.on.request = serve_echo;
	pair_open(p);
	/* The harness marks the ends as inside a handler, so that one that runs now is noticed. */
	p->client.depth = p->server.depth = 1;
	for (unsigned i = 0; i < 3; i++)
		call_simple(&p->client, &calls[i], &i, sizeof(i));
	CHECK_EQ(xenidc_send(p->client.channel, "x", 1), 0);
	CHECK_EQ(xenidc_cancel(p->client.channel, calls[0].id, 0), 0);
	before = calls[0].ends + calls[1].ends + calls[2].ends;
	CHECK_EQ(before, 0);
	CHECK_EQ(xenidc_channel_close(p->client.channel, SECOND), 0);
	CHECK_EQ(xenidc_channel_close(p->client.channel, 0), 0);
	CHECK_EQ(xenidc_channel_close(p->server.channel, 0), 0);
	p->client.depth = p->server.depth = 0;
	UNTIL(p, p->client.idle && p->server.idle);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(calls[i].ends, 1);
}

static void try_to_wait(struct end *end)
{
	struct xenidc_result result;
	struct xenidc_request request = { 0 };

	CHECK_EQ(xenidc_call(end->channel, &request, NULL, 0, NULL, &result), -EDEADLK);
	CHECK_EQ(xenidc_loop_step(end->loop ? end->loop : xenidc_channel_loop(end->channel), 0), -EDEADLK);
	CHECK_EQ(xenidc_loop_step(xenidc_channel_loop(end->channel), -1), -EDEADLK);
	CHECK_EQ(xenidc_loop_run(xenidc_channel_loop(end->channel)), -EDEADLK);
}

static void wait_in_request(struct end *end, xenidc_incoming request)
{
	try_to_wait(end);
	end->held[end->held_count++] = request;
}

static void wait_in_cancel(struct end *end, xenidc_incoming request)
{
	try_to_wait(end);
	answer(end, request, 0);
	end->held_count = 0;
}

static void wait_in_message(struct end *end, const void *payload, uint32_t length)
{
	try_to_wait(end);
	CHECK_EQ(length, 1);
	CHECK_MEM(payload, "m", 1);
}

static void wait_in_done(struct call *call)
{
	try_to_wait(call->end);
}

void case_deadlock(struct pair *p)
{
	struct call call = { .then = wait_in_done };

	p->client.on = p->server.on = (struct hooks){
		.connected = try_to_wait,
		.request = wait_in_request,
		.cancel = wait_in_cancel,
		.message = wait_in_message,
		.disconnecting = try_to_wait,
		.idle = try_to_wait,
	};
	pair_open(p);
	call_start(&p->client, &call);
	CHECK_EQ(xenidc_send(p->client.channel, "m", 1), 0);
	UNTIL(p, p->server.held_count && p->server.messages);
	CHECK_EQ(xenidc_cancel(p->client.channel, call.id, 100 * SECOND), 0);
	CALL_END(&call);
	CHECK_EQ(xenidc_channel_close(p->client.channel, 0), 0);
	UNTIL(p, p->client.idle && p->server.idle);
	CHECK_EQ(p->server.cancels, 1);
}

/* Each reply makes the next request, each request also a message and a request back. */
static struct call chain, back;

static void chain_on(struct call *call)
{
	unsigned *left = call->end->user;

	CHECK_END(call, XENIDC_REPLIED);
	if (--*left)
		call_start(call->end, call);
}

static void serve_and_ask(struct end *end, xenidc_incoming request)
{
	serve_echo(end, request);
	if (!end->open)
		call_simple(end, &back, "back", 4);
	if (xenidc_channel_message_credit(end->channel))
		CHECK_EQ(xenidc_send(end->channel, "m", 1), 0);
}

void case_submit_in_handlers(struct pair *p)
{
	unsigned left = 500;

	p->client.user = &left;
	p->client.on.request = serve_echo;
	p->server.on.request = serve_and_ask;
	pair_open(p);
	chain = (struct call){ .request = { .payload = "on", .payload_len = 2 }, .then = chain_on };
	call_start(&p->client, &chain);
	UNTIL(p, left == 0 && !p->server.open);
	CHECK_EQ(p->server.requests, 500);
	CHECK_OP(p->client.requests, >, 0);
	CHECK_OP(p->client.messages, >, 0);
}

/* --- Statistics */
void case_stats(struct pair *p)
{
	static uint8_t payload[200];
	struct xenidc_ref refs[2];
	struct call call = { .request = { .payload = payload, .payload_len = 200, .refs = refs, .ref_count = 2 } };
	struct xenidc_reply reply = { .payload = payload, .payload_len = 50, .valid = (uint32_t[]){ 0, 700 } };
	struct xenidc_stats c, s;
	uint32_t length;

	pair_open(p);
	c = stats_of(&p->client);
	CHECK_OP(c.reserved_bytes, >, 0);
	CHECK_EQ(c.reserved_bytes, stats_of(&p->server).reserved_bytes);
	CHECK_EQ(c.reserved_bytes, xenidc_budget_bytes(&p->client.limits.budget));
	refs[0] = ref_new(&p->client, XENIDC_OUT, 1000);
	refs[1] = ref_new(&p->client, XENIDC_IN, 2000);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(xenidc_send(p->client.channel, payload, 10), 0);
	call_start(&p->client, &call);
	c = stats_of(&p->client);
	CHECK_EQ(c.in_flight_out, 1);
	CHECK_EQ(c.requests_out, 1);
	UNTIL(p, p->server.held_count);
	view(&p->server, p->server.held[0], 0, &length);
	s = stats_of(&p->server);
	CHECK_EQ(s.in_flight_in, 1);
	CHECK_EQ(s.requests_in, 1);
	CHECK_EQ(s.messages_in, 3);
	CHECK_EQ(s.bytes_in, 200 + 1000 + 30);
	CHECK_EQ(xenidc_reply(p->server.channel, p->server.held[0], &reply), 0);
	p->server.held_count = 0;
	CALL_END(&call);
	c = stats_of(&p->client);
	s = stats_of(&p->server);
	CHECK_EQ(c.bytes_out, 200 + 1000 + 30);
	CHECK_EQ(c.bytes_in, 50 + 700);
	CHECK_EQ(s.bytes_out, 50 + 700);
	CHECK_EQ(c.messages_out, 3);
	CHECK_EQ(c.replies_in, 1);
	CHECK_EQ(s.replies_out, 1);
	CHECK_EQ(c.in_flight_out, 0);
	CHECK_EQ(s.in_flight_in, 0);
	CHECK_OP(c.frames_out, >=, 4);
	CHECK_OP(s.frames_in, >=, 4);
	CHECK_OP(s.frames_in, <=, c.frames_out);
	CHECK_EQ(c.protocol_errors + s.protocol_errors + c.orphans, 0);
	CHECK_EQ(c.ended_unknown + c.ended_not_executed, 0);
	CHECK_EQ(c.quarantined_bytes, 0);
	/* An older program asks for less. */
	c = (struct xenidc_stats){ .size = 2 * sizeof(uint64_t) };
	xenidc_channel_stats(p->client.channel, &c);
	CHECK_EQ(c.requests_out, 1);
	CHECK_EQ(c.replies_in, 0);
}

void case_oldest_request(struct pair *p)
{
	struct call calls[2];
	uint64_t begin, age;

	pair_open(p);
	CHECK_EQ(stats_of(&p->client).oldest_request_ns, 0);
	begin = pair_now(p);
	call_simple(&p->client, &calls[0], "a", 1);
	pair_pass(p, 30 * MS);
	call_simple(&p->client, &calls[1], "b", 1);
	pair_pass(p, 20 * MS);
	age = stats_of(&p->client).oldest_request_ns;
	CHECK_OP(age, >=, 30 * MS); /* as of the loop's last look at its clock */
	CHECK_OP(age, <=, pair_now(p) - begin);
	CHECK_EQ(p->server.held_count, 2);
	answer(&p->server, p->server.held[0], 0);
	CALL_END(&calls[0]);
	CHECK_OP(stats_of(&p->client).oldest_request_ns, >, 0);
	CHECK_OP(stats_of(&p->client).oldest_request_ns, <=, pair_now(p) - begin - 30 * MS);
	answer(&p->server, p->server.held[1], 0);
	p->server.held_count = 0;
	CALL_END(&calls[1]);
	CHECK_EQ(stats_of(&p->client).oldest_request_ns, 0);
}

/* --- The call that waits: the other end is a process of its own */
static void serve_for_calls(struct end *end, xenidc_incoming request)
{
	static xenidc_incoming first;
	const void *payload;
	uint32_t length, valid[2] = { 0, 77 };
	struct xenidc_reply reply = { .status = 5, .valid = valid };

	CHECK_EQ(xenidc_incoming_payload(end->channel, request, &payload, &length), 0);
	reply.payload = payload;
	reply.payload_len = length;
	if (length && !memcmp(payload, "hold", 4)) {
		first = request;
		return;
	}
	if (length && !memcmp(payload, "die!", 4))
		raise(SIGKILL);
	if (first)
		answer(end, first, 1);
	first = 0;
	CHECK_EQ(xenidc_reply(end->channel, request, &reply), 0);
}

void case_call(struct pair *p)
{
	struct xenidc_ref refs[2];
	struct xenidc_request request = { .payload = "0123456789", .payload_len = 10 };
	struct xenidc_result result;
	uint32_t valid[2] = { 9, 9 };
	char reply[16];

	p->server.on.request = serve_for_calls;
	pair_open_apart(p);
	refs[0] = ref_new(&p->client, XENIDC_OUT, 100);
	refs[1] = ref_new(&p->client, XENIDC_IN, 100);
	CHECK_EQ(xenidc_call(p->client.channel, &request, reply, sizeof(reply), NULL, &result), 0);
	CHECK_STR(end_name(result.end), "REPLIED");
	CHECK_EQ(result.status, 5);
	CHECK_EQ(result.payload_len, 10);
	CHECK(!result.payload && !result.valid);
	CHECK_MEM(reply, "0123456789", 10);
	/* Cut to what there is room for. */
	memset(reply, 'x', sizeof(reply));
	CHECK_EQ(xenidc_call(p->client.channel, &request, reply, 4, NULL, &result), 0);
	CHECK_MEM(reply, "0123xxx", 7);
	request.refs = refs;
	request.ref_count = 2;
	CHECK_EQ(xenidc_call(p->client.channel, &request, NULL, 0, valid, &result), 0);
	CHECK_EQ(valid[0], 0);
	CHECK_EQ(valid[1], 77);
	request.payload_len = 257;
	CHECK_EQ(xenidc_call(p->client.channel, &request, NULL, 0, NULL, &result), -EMSGSIZE);
	request = (struct xenidc_request){ .payload = "hold", .payload_len = 4, .timeout_ns = 20 * MS };
	CHECK_EQ(xenidc_call(p->client.channel, &request, reply, sizeof(reply), NULL, &result), 0);
	CHECK_STR(end_name(result.end), "UNKNOWN");
	CHECK_REASON(result.reason, XENIDC_REASON_TIMEOUT);
	ref_put_all(&p->client, refs, 2);
	pair_close(p);
	CHECK_EQ(xenidc_call(p->client.channel, &request, NULL, 0, NULL, &result), -ENOTCONN);
}

void case_call_credit(struct pair *p)
{
	struct xenidc_request request = { .payload = "now!", .payload_len = 4 };
	struct xenidc_result result;
	struct call calls[2];

	p->client.options.budget.requests_out = 2;
	p->server.on.request = serve_for_calls;
	pair_open_apart(p);
	call_simple(&p->client, &calls[0], "hold", 4);
	call_simple(&p->client, &calls[1], "now!", 4);
	CHECK_EQ(xenidc_channel_request_credit(p->client.channel), 0);
	CHECK_EQ(xenidc_call(p->client.channel, &request, NULL, 0, NULL, &result), 0);
	CHECK_STR(end_name(result.end), "REPLIED");
	UNTIL(p, calls[0].ends && calls[1].ends);
}

void case_call_death(struct pair *p)
{
	struct xenidc_request request = { .payload = "die!", .payload_len = 4 };
	struct xenidc_result result;

	p->server.on.request = serve_for_calls;
	pair_open_apart(p);
	CHECK_EQ(xenidc_call(p->client.channel, &request, NULL, 0, NULL, &result), 0);
	CHECK_STR(end_name(result.end), "UNKNOWN");
	UNTIL(p, p->client.idle);
	CHECK_EQ(result.reason, p->client.why.reason);
	CHECK_EQ(check_wait(p->process), -SIGKILL);
	p->killed = true;
}
