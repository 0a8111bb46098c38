/* SPDX-License-Identifier: MIT */
/* What a stream of bytes can do to frames: join them, cut them, break off. */
#include "harness.h"

void case_coalesced(struct pair *p)
{
	static struct call calls[64];
	struct xenidc_budget *b = &p->client.options.budget;

	b->requests_out = 64;
	b->messages_out = 200;
	p->server.options.budget.requests_in = 64;
	p->server.options.budget.messages_in = 200;
	p->server.on.request = serve_echo;
	pair_open(p);
	for (int round = 0; round < 10; round++) {
		end_freeze(&p->server, true);
		for (unsigned i = 0; i < 200; i++)
			CHECK_EQ(xenidc_send(p->client.channel, &i, i % sizeof(i)), 0);
		for (unsigned i = 0; i < 64; i++)
			call_simple(&p->client, &calls[i], &i, sizeof(i));
		for (int i = 0; i < 10; i++)
			pair_step(p);
		end_freeze(&p->server, false);
		UNTIL(p, !p->client.open);
		for (unsigned i = 0; i < 64; i++) {
			CHECK_END(&calls[i], XENIDC_REPLIED);
			CHECK_MEM(calls[i].payload, &i, sizeof(i));
		}
		CHECK_EQ(p->server.messages, 200u * (unsigned)(round + 1));
		UNTIL(p, xenidc_channel_message_credit(p->client.channel) == 200);
	}
}

/* One of everything, with data both ways. */
static void exchange(struct pair *p, uint32_t bytes)
{
	struct xenidc_ref refs[2];
	struct call call = { .request = { .payload = "cut", .payload_len = 3, .refs = refs, .ref_count = 2 } };
	uint32_t length;

	refs[0] = ref_new(&p->client, XENIDC_OUT, bytes);
	refs[1] = ref_new(&p->client, XENIDC_IN, bytes);
	fill(ref_bytes(&refs[0]), bytes, 1);
	CHECK_EQ(xenidc_send(p->client.channel, "message", 7), 0);
	call_start(&p->client, &call);
	UNTIL(p, p->server.held_count && p->server.messages);
	CHECK_FILLED(view(&p->server, p->server.held[0], 0, &length), bytes, 1);
	fill(view(&p->server, p->server.held[0], 1, &length), bytes, 2);
	answer_held(&p->server, 5);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
	CHECK_FILLED(ref_bytes(&refs[1]), bytes, 2);
	ref_put_all(&p->client, refs, 2);
}

void case_byte_by_byte(struct pair *p)
{
	relay_begin(p, true);
	pair_open(p);
	exchange(p, 5000);
	pair_close(p);
	relay_end(p);
	CHECK_REASON(p->server.why.reason, XENIDC_REASON_CLOSED);
}

/* What the client does as long as it can: a request, and a close in order. */
static void ask_and_close(struct pair *p)
{
	static struct call call;

	call = (struct call){ .request = { .payload = "0123456789", .payload_len = 10 } };
	if (call_try(&p->client, &call) == 0) {
		UNTIL(p, call.ends);
		CHECK(call.result.end == XENIDC_REPLIED || p->client.disconnecting);
	}
	/* What was cut is on its way to idle by itself. */
	if (xenidc_channel_state(p->client.channel) == XENIDC_CONNECTED)
		CHECK_EQ(xenidc_channel_close(p->client.channel, SECOND), 0);
	UNTIL(p, p->client.idle);
}

/* A connect, an exchange and a close, with the line cut after `bytes`. False: it went through. */
static bool cut_after_bytes(struct pair *p, uint64_t bytes)
{
	unsigned client = p->client.connected, server = p->server.connected;

	p->client.disconnecting = p->server.disconnecting = 0;
	relay_cut(p, bytes);
	end_connect(&p->client);
	UNTIL(p, p->client.idle || p->client.connected > client);
	if (p->client.connected > client)
		ask_and_close(p);
	if (p->server.channel)
		UNTIL(p, p->server.idle);
	client = p->client.connected - client;
	server = p->server.connected - server;
	end_free(&p->client);
	end_free(&p->server);
	p->client.idle = p->server.idle = 0;
	return !(client && server && p->client.why.reason == XENIDC_REASON_CLOSED &&
		 p->server.why.reason == XENIDC_REASON_CLOSED);
}

void case_cut_anywhere(struct pair *p)
{
	uint64_t bytes = 0;

	pair_allow(p);
	p->server.on.request = serve_echo;
	p->client.options.budget.no_slots = p->server.options.budget.no_slots = true;
	pair_listen(p);
	relay_begin(p, true);
	/* In a simulated world the first steps come before there is anything to cut. */
	while (cut_after_bytes(p, bytes) || (p->column->simulated && bytes < 10))
		CHECK_OP(++bytes, <, 4000);
	/* Three connect messages, a request, its reply, and goodbyes: bytes, or steps. */
	CHECK_OP(bytes, >, p->column->simulated ? 10 : 300);
	relay_end(p);
}

/* The way to the server ends, while the way back stays open: that is the end of the connection all the same. */
void case_half_closed(struct pair *p)
{
	struct call call;

	relay_begin(p, false);
	pair_open(p);
	call_simple(&p->client, &call, "x", 1);
	UNTIL(p, p->server.held_count);
	relay_shut(p);
	UNTIL(p, p->server.idle && p->client.idle);
	CHECK_REASON(p->server.why.reason, XENIDC_REASON_LOST);
	CHECK_END(&call, XENIDC_UNKNOWN);
	p->server.held_count = 0;
	relay_end(p);
}
