/* SPDX-License-Identifier: MIT */
/* Messages: one way, in order, bounded by credit. */
#include "harness.h"

#include <errno.h>

static void check_message(struct end *end, const void *payload, uint32_t length)
{
	CHECK_EQ(length, end->messages - 1);
	CHECK_FILLED(payload, length, length);
}

void case_messages(struct pair *p)
{
	static uint8_t payload[257];

	p->client.on.message = p->server.on.message = check_message;
	pair_open(p);
	CHECK_EQ(xenidc_send(p->client.channel, payload, 257), -EMSGSIZE);
	for (uint32_t length = 0; length <= 256; length++) {
		fill(payload, length, length);
		CHECK_EQ(xenidc_send(p->client.channel, payload, length), 0);
		CHECK_EQ(xenidc_send(p->server.channel, payload, length), 0);
		memset(payload, 0, sizeof(payload));
		if (length % 20 == 0 || length == 256)
			UNTIL(p, p->server.messages == length + 1 && p->client.messages == length + 1);
		UNTIL(p, xenidc_channel_message_credit(p->client.channel) &&
				 xenidc_channel_message_credit(p->server.channel));
	}
}

void case_message_credit(struct pair *p)
{
	p->client.options.budget.messages_out = 5;
	pair_open(p);
	for (unsigned round = 1; round <= 3; round++) {
		for (unsigned i = 0; i < 5; i++) {
			CHECK_EQ(xenidc_channel_message_credit(p->client.channel), 5 - i);
			CHECK_EQ(xenidc_send(p->client.channel, &i, sizeof(i)), 0);
		}
		CHECK_EQ(xenidc_send(p->client.channel, "x", 1), -EAGAIN);
		CHECK_EQ(xenidc_channel_message_credit(p->client.channel), 0);
		CHECK_EQ(p->client.writable, round - 1);
		UNTIL(p, p->server.messages == 5 * round && p->client.writable == round);
		UNTIL(p, xenidc_channel_message_credit(p->client.channel) == 5);
	}
}

#define FLOW 1000

static void send_more(struct end *end)
{
	unsigned *sent = end->user;

	while (*sent < FLOW) {
		int e = xenidc_send(end->channel, sent, sizeof(*sent));
		CHECK(e == 0 || e == -EAGAIN);
		if (e)
			break;
		(*sent)++;
	}
}

static void check_number(struct end *end, const void *payload, uint32_t length)
{
	unsigned number = end->messages - 1;

	CHECK_EQ(length, sizeof(number));
	CHECK_MEM(payload, &number, sizeof(number));
}

void case_message_flow(struct pair *p)
{
	unsigned sent[2] = { 0, 0 };

	p->client.options.budget.messages_out = p->client.options.budget.messages_in = 3;
	p->client.on.writable = p->server.on.writable = send_more;
	p->client.on.message = p->server.on.message = check_number;
	p->client.user = &sent[0];
	p->server.user = &sent[1];
	pair_open(p);
	send_more(&p->client);
	send_more(&p->server);
	UNTIL(p, p->server.messages == FLOW && p->client.messages == FLOW);
	CHECK_EQ(stats_of(&p->client).messages_out, FLOW);
	CHECK_EQ(stats_of(&p->client).messages_in, FLOW);
}

void case_message_unread(struct pair *p)
{
	struct call call;

	p->server.on.request = p->client.on.request = serve_echo;
	pair_open(p);
	end_freeze(&p->server, true);
	for (unsigned i = 0; i < 32; i++)
		CHECK_EQ(xenidc_send(p->client.channel, &i, sizeof(i)), 0);
	CHECK_EQ(xenidc_send(p->client.channel, "x", 1), -EAGAIN);
	for (unsigned i = 0; i < 10; i++)
		pair_step(p);
	CHECK_EQ(xenidc_channel_message_credit(p->client.channel), 0);
	/* Requests have credit of their own. */
	call_simple(&p->client, &call, "x", 1);
	end_freeze(&p->server, false);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
	CHECK_EQ(p->server.messages, 32);
}
