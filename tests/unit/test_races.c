/* SPDX-License-Identifier: MIT */
/*
 * Two threads, a loop each, and between them a channel over memory that both reach at the same addresses: what one side
 * reads or writes at the wrong time is a data race that ThreadSanitizer sees. Elsewhere these are tests of two loops.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xenidc/xenidc.h>

#include "tests/lib/check.h"
#include "tests/lib/same.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/times.h"

#define BYTES 10000u

struct world {
	char address[64];
	enum xenidc_wait wait;
	unsigned rounds; /* connects */
	unsigned requests, messages;
	bool map;
	pthread_barrier_t listening;
};

/* One end. */
struct end {
	struct world *w;
	xenidc_loop *loop;
	xenidc_channel *channel;
	unsigned connected, idle, done, heard;
};

static void fill(uint8_t *p, uint32_t length, uint32_t seed)
{
	for (uint32_t i = 0; i < length; i++)
		p[i] = (uint8_t)(seed + i * 5);
}

static void check_filled(const uint8_t *p, uint32_t length, uint32_t seed)
{
	for (uint32_t i = 0; i < length; i++)
		CHECK_EQ(p[i], (uint8_t)(seed + i * 5));
}

static struct xenidc_channel_options options(struct end *end)
{
	struct xenidc_channel_options o = { .size = sizeof(o), .user = end, .map = end->w->map };

	o.budget.size = sizeof(o.budget);
	o.budget.requests_out = o.budget.requests_in = 4;
	o.budget.messages_out = o.budget.messages_in = 4;
	o.budget.out[0] = o.budget.in[0] = (struct xenidc_slot_class){ .size = BYTES, .count = 4 };
	o.budget.peer_out[0] = o.budget.peer_in[0] = o.budget.out[0];
	return o;
}

/* --- The serving end: the IN reference gets what the OUT reference has, and the payload says which seed that is. */

static void on_request(xenidc_channel *channel, xenidc_incoming request)
{
	struct xenidc_reply reply = { .status = 0 };
	const void *payload;
	void *out, *in;
	uint32_t seed, length;

	CHECK_EQ(xenidc_incoming_payload(channel, request, &payload, &length), 0);
	CHECK_EQ(length, sizeof(seed));
	memcpy(&seed, payload, sizeof(seed));
	CHECK_EQ(xenidc_view(channel, request, 0, &out, &length), 0);
	check_filled(out, length, seed);
	CHECK_EQ(xenidc_view(channel, request, 1, &in, &length), 0);
	fill(in, length, seed + 1);
	CHECK_EQ(xenidc_reply(channel, request, &reply), 0);
}

static void on_message(xenidc_channel *channel, const void *payload, uint32_t length)
{
	struct end *end = xenidc_channel_user(channel);

	end->heard++;
	if (xenidc_send(channel, payload, length) != 0)
		check_failed(__FILE__, __LINE__, "no credit for an answer");
}

static void on_served_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct end *end = xenidc_channel_user(channel);

	CHECK_EQ(why->reason, XENIDC_REASON_CLOSED);
	end->idle++;
}

static void *serving_thread(void *arg)
{
	struct end end = { .w = arg };
	struct xenidc_loop_options lo = { .size = sizeof(lo), .wait = end.w->wait };
	struct xenidc_listener_options o = { .size = sizeof(o) };
	struct xenidc_error err = { 0 };
	xenidc_listener *listener;

	CHECK_EQ(xenidc_loop_new(&lo, &end.loop), 0);
	o.channel = options(&end);
	o.channel.handlers.request = on_request;
	o.channel.handlers.message = on_message;
	o.channel.handlers.idle = on_served_idle;
	if (xenidc_listener_new(end.loop, end.w->address, &o, &listener, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	pthread_barrier_wait(&end.w->listening);
	while (end.idle < end.w->rounds)
		CHECK_OP(xenidc_loop_step(end.loop, (int64_t)(20 * XI_SECOND * check_factor())), >, 0);
	xenidc_listener_free(listener);
	xenidc_loop_free(end.loop);
	return NULL;
}

/* --- The asking end */

static void on_connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	struct end *end = xenidc_channel_user(channel);

	CHECK_EQ(limits->map, end->w->map);
	end->connected++;
}

static void on_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct end *end = xenidc_channel_user(channel);

	if (why->reason != XENIDC_REASON_CLOSED)
		check_failed(__FILE__, __LINE__, "%s", why->text);
	end->idle++;
}

static void on_answer(xenidc_channel *channel, const void *payload, uint32_t length)
{
	struct end *end = xenidc_channel_user(channel);

	CHECK_EQ(length, 4);
	CHECK_MEM(payload, &end->heard, 4);
	end->heard++;
}

struct call {
	struct end *end;
	struct xenidc_buffer out, in;
	uint32_t seed;
};

static void on_done(xenidc_channel *channel, const struct xenidc_result *result)
{
	struct call *call = result->user;

	CHECK_EQ(result->end, XENIDC_REPLIED);
	check_filled(call->in.data, BYTES, call->seed + 1);
	CHECK_EQ(xenidc_buffer_put(channel, &call->out), 0);
	CHECK_EQ(xenidc_buffer_put(channel, &call->in), 0);
	call->end->done++;
}

static void step(struct end *end)
{
	CHECK_OP(xenidc_loop_step(end->loop, (int64_t)(20 * XI_SECOND * check_factor())), >, 0);
}

/* Up to four calls under way, each with a buffer to and one fro, and messages in between. */
static void ask(struct end *end)
{
	struct call calls[4];
	unsigned asked = 0, sent = 0;

	while (end->done < end->w->requests || end->heard < end->w->messages) {
		if (asked < end->w->requests && asked - end->done < 4) {
			struct call *call = &calls[asked % 4];
			struct xenidc_ref refs[2];
			struct xenidc_request request = { .payload = &call->seed,
							  .payload_len = 4,
							  .refs = refs,
							  .ref_count = 2,
							  .done = on_done,
							  .user = call };
			call->end = end;
			call->seed = asked * 11;
			CHECK_EQ(xenidc_buffer_get(end->channel, XENIDC_OUT, BYTES, &call->out), 0);
			CHECK_EQ(xenidc_buffer_get(end->channel, XENIDC_IN, BYTES, &call->in), 0);
			fill(call->out.data, BYTES, call->seed);
			refs[0] = (struct xenidc_ref){ .buffer = call->out, .length = BYTES };
			refs[1] = (struct xenidc_ref){ .buffer = call->in, .length = BYTES };
			CHECK_EQ(xenidc_submit(end->channel, &request, NULL), 0);
			asked++;
		}
		if (sent < end->w->messages && sent == end->heard) {
			CHECK_EQ(xenidc_send(end->channel, &sent, 4), 0);
			sent++;
		}
		if (asked - end->done == 4 || (asked == end->w->requests && end->done + end->heard < asked + sent))
			step(end);
	}
}

static void run(enum xenidc_wait wait, bool map, unsigned rounds, unsigned requests)
{
	struct world w = { .wait = wait, .map = map, .rounds = rounds, .requests = requests, .messages = requests };
	struct end end = { .w = &w };
	struct xenidc_loop_options lo = { .size = sizeof(lo), .wait = wait };
	struct xenidc_channel_options o = options(&end);
	struct xenidc_error err = { 0 };
	pthread_t thread;

	snprintf(w.address, sizeof(w.address), "same:races-%d", getpid());
	CHECK_EQ(pthread_barrier_init(&w.listening, NULL, 2), 0);
	CHECK_EQ(pthread_create(&thread, NULL, serving_thread, &w), 0);
	pthread_barrier_wait(&w.listening);
	CHECK_EQ(xenidc_loop_new(&lo, &end.loop), 0);
	o.handlers.connected = on_connected;
	o.handlers.message = on_answer;
	o.handlers.idle = on_idle;
	CHECK_EQ(xenidc_channel_new(end.loop, &o, &end.channel, &err), 0);
	for (unsigned round = 1; round <= rounds; round++) {
		end.done = end.heard = 0;
		if (xenidc_channel_connect(end.channel, w.address, &err))
			check_failed(__FILE__, __LINE__, "%s", err.text);
		while (end.connected < round)
			step(&end);
		ask(&end);
		CHECK_EQ(xenidc_channel_close(end.channel, 0), 0);
		while (end.idle < round)
			step(&end);
	}
	xenidc_channel_free(end.channel);
	xenidc_loop_free(end.loop);
	pthread_join(thread, NULL);
	pthread_barrier_destroy(&w.listening);
	for (int i = 0; i < XI_OBJECT_KINDS; i++)
		CHECK_EQ(xi_alive((enum xi_object)i), 0);
}

static void test_spin(void)
{
	same_install();
	run(XENIDC_WAIT_SPIN, false, 3, 300);
}

static void test_block(void)
{
	same_install();
	run(XENIDC_WAIT_BLOCK, false, 3, 200);
}

static void test_adaptive(void)
{
	same_install();
	run(XENIDC_WAIT_ADAPTIVE, false, 3, 200);
}

static void test_mapped(void)
{
	same_install();
	run(XENIDC_WAIT_ADAPTIVE, true, 3, 200);
}

static void test_many_connects(void)
{
	same_install();
	run(XENIDC_WAIT_BLOCK, false, 40, 3);
}

CHECK_MAIN(TEST(test_spin), TEST(test_block), TEST(test_adaptive), TEST(test_mapped), TEST(test_many_connects))
