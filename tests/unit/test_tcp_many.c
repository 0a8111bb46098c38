/* SPDX-License-Identifier: MIT */
/*
 * Many TCP connections on one loop, which are served together where io_uring is allowed: what arrives is what was sent,
 * also if single calls of a batch, or all, come to nothing; and they may end at any moment.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xenidc/xenidc.h>

#include "tests/lib/check.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/limits.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"

#define PAIRS 40
#define BIG 300000u

struct pair {
	xenidc_channel *client, *server;
	struct xenidc_buffer out, in;
	unsigned seed, rounds, left;
	uint32_t out_length, in_length;
	bool client_up, server_up, client_idle, server_idle;
};

static xenidc_loop *loop;
static xenidc_listener *listener;
static struct pair pairs[PAIRS];
static xenidc_channel *accepted[PAIRS];
static unsigned accepted_count, in_flight;
static bool ending;

/* --- the OS table, with batches that fail in part */

static struct xi_os fake_os;
static const struct xi_os *os_before;
static unsigned batches, calls_made, calls_skipped;
static unsigned skip_one_in; /* so many calls of a batch, one is not made */

static void fake_batch_run(struct xi_batch *batch, struct xi_batch_call *calls, unsigned n)
{
	struct xi_batch_call some[256];
	unsigned kept[256], m = 0;

	CHECK_OP(n, <=, 256);
	batches++;
	for (unsigned i = 0; i < n; i++) {
		calls[i].result = rand() % 2 ? XI_BATCH_NOT_RUN : -EINTR;
		if (skip_one_in && (unsigned)rand() % skip_one_in == 0) {
			calls_skipped++;
			continue;
		}
		kept[m] = i;
		some[m++] = calls[i];
	}
	calls_made += m;
	if (m)
		os_before->batch_run(batch, some, m);
	for (unsigned i = 0; i < m; i++)
		calls[kept[i]].result = some[i].result;
}

static void install(unsigned skip)
{
	os_before = xi_os;
	fake_os = *xi_os;
	fake_os.batch_run = fake_batch_run;
	batches = calls_made = calls_skipped = 0;
	skip_one_in = skip;
	xi_os = &fake_os;
}

static bool can_batch(void)
{
	struct xi_batch *batch;

	if (xi_os->getenv("XENIDC_NO_URING") || xi_os->batch_new(4, &batch) < 0)
		return false;
	xi_os->batch_free(batch);
	return true;
}

/* --- what travels: each side can compute it from the seed in the request */

static uint8_t content(unsigned seed, uint32_t i)
{
	return (uint8_t)(seed * 31 + i * 7 + (i >> 8));
}

static struct pair *pair_of(xenidc_channel *channel)
{
	return xenidc_channel_user(channel);
}

static void submit(struct pair *p);

static void check_result(const struct pair *p, const struct xenidc_result *result)
{
	const uint8_t *in = p->in.data;
	unsigned echoed;

	CHECK_EQ(result->end, XENIDC_REPLIED);
	CHECK_EQ(result->payload_len, sizeof(echoed));
	memcpy(&echoed, result->payload, sizeof(echoed));
	CHECK_EQ(echoed, p->seed);
	CHECK_EQ(result->valid[1], p->in_length);
	for (uint32_t i = 0; i < p->in_length; i++)
		if (in[i] != content(p->seed + 1, i))
			CHECK_EQ(in[i], content(p->seed + 1, i));
}

static void on_done(xenidc_channel *channel, const struct xenidc_result *result)
{
	struct pair *p = result->user;

	(void)channel;
	in_flight--;
	if (ending)
		return;
	check_result(p, result);
	if (--p->left)
		submit(p);
}

static void submit(struct pair *p)
{
	uint8_t *out = p->out.data;
	struct xenidc_ref refs[2] = { { .buffer = p->out }, { .buffer = p->in } };
	struct xenidc_request request = { .payload = &p->seed,
					  .payload_len = sizeof(p->seed),
					  .refs = refs,
					  .ref_count = 2,
					  .done = on_done,
					  .user = p };

	p->seed = (unsigned)rand();
	p->out_length = 1 + (uint32_t)rand() % (rand() % 4 ? 300 : BIG);
	p->in_length = (uint32_t)rand() % (rand() % 4 ? 300 : BIG);
	for (uint32_t i = 0; i < p->out_length; i++)
		out[i] = content(p->seed, i);
	refs[0].length = p->out_length;
	refs[1].length = BIG;
	CHECK_EQ(xenidc_submit(p->client, &request, NULL), 0);
	in_flight++;
}

static void on_request(xenidc_channel *channel, xenidc_incoming request)
{
	const void *payload;
	void *out, *in;
	uint32_t length, out_length, in_length, valid[2] = { 0 };
	unsigned seed;

	CHECK_EQ(xenidc_incoming_payload(channel, request, &payload, &length), 0);
	memcpy(&seed, payload, sizeof(seed));
	CHECK_EQ(xenidc_view(channel, request, 0, &out, &out_length), 0);
	CHECK_EQ(xenidc_view(channel, request, 1, &in, &in_length), 0);
	for (uint32_t i = 0; i < out_length; i++)
		if (((uint8_t *)out)[i] != content(seed, i))
			CHECK_EQ(((uint8_t *)out)[i], content(seed, i));
	valid[1] = 0;
	for (int i = 0; i < PAIRS; i++)
		if (pairs[i].seed == seed)
			valid[1] = pairs[i].in_length;
	for (uint32_t i = 0; i < valid[1]; i++)
		((uint8_t *)in)[i] = content(seed + 1, i);
	struct xenidc_reply reply = { .payload = &seed, .payload_len = sizeof(seed), .valid = valid };
	CHECK_EQ(xenidc_reply(channel, request, &reply), 0);
}

static void on_connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	(void)limits;
	if (pair_of(channel))
		pair_of(channel)->client_up = true;
}

static void on_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	CHECK(ending);
	(void)why;
	if (pair_of(channel))
		pair_of(channel)->client_idle = true;
}

static void on_abandoned(xenidc_channel *channel, xenidc_incoming request)
{
	struct xenidc_reply reply = { .status = 0 };

	CHECK_EQ(xenidc_reply(channel, request, &reply), 0);
}

static void on_accepted(xenidc_listener *l, xenidc_channel *channel)
{
	CHECK(l == listener && accepted_count < PAIRS);
	accepted[accepted_count++] = channel;
}

static struct xenidc_channel_options options_for(struct pair *p)
{
	struct xenidc_slot_class classes[XENIDC_CLASSES_MAX] = { { BIG, 1 } };
	struct xenidc_channel_options o = { .size = sizeof(o), .user = p };

	o.handlers.connected = on_connected;
	o.handlers.request = on_request;
	o.handlers.idle = on_idle;
	o.handlers.abandoned = on_abandoned;
	o.budget.size = sizeof(o.budget);
	memcpy(o.budget.out, classes, sizeof(classes));
	memcpy(o.budget.in, classes, sizeof(classes));
	memcpy(o.budget.peer_out, classes, sizeof(classes));
	memcpy(o.budget.peer_in, classes, sizeof(classes));
	return o;
}

static void connect_all(void)
{
	struct xenidc_loop_options options = { .size = sizeof(options), .wait = XENIDC_WAIT_BLOCK };
	struct xenidc_listener_options listening = { .size = sizeof(listening), .accepted = on_accepted };
	struct xenidc_error err = { 0 };
	unsigned up = 0;

	memset(pairs, 0, sizeof(pairs));
	accepted_count = in_flight = 0;
	ending = false;
	CHECK_EQ(xenidc_loop_new(&options, &loop), 0);
	listening.channel = options_for(NULL);
	CHECK_EQ(xenidc_listener_new(loop, "tcp:127.0.0.1:0", &listening, &listener, &err), 0);
	for (int i = 0; i < PAIRS; i++) {
		struct xenidc_channel_options o = options_for(&pairs[i]);
		CHECK_EQ(xenidc_channel_new(loop, &o, &pairs[i].client, &err), 0);
		CHECK_EQ(xenidc_channel_connect(pairs[i].client, xenidc_listener_address(listener), &err), 0);
	}
	while (up < PAIRS || accepted_count < PAIRS) {
		CHECK_OP(xenidc_loop_step(loop, -1), >=, 0);
		up = 0;
		for (int i = 0; i < PAIRS; i++)
			up += pairs[i].client_up;
	}
	for (int i = 0; i < PAIRS; i++) {
		struct pair *p = &pairs[i];
		CHECK_EQ(xenidc_buffer_get(p->client, XENIDC_OUT, BIG, &p->out), 0);
		CHECK_EQ(xenidc_buffer_get(p->client, XENIDC_IN, BIG, &p->in), 0);
	}
}

static void free_all(void)
{
	ending = true;
	xenidc_listener_free(listener);
	for (int i = 0; i < PAIRS; i++) {
		xenidc_channel_free(pairs[i].client);
		xenidc_channel_free(accepted[i]);
	}
	xenidc_loop_free(loop);
	for (int i = 0; i < XI_OBJECT_KINDS; i++)
		CHECK_EQ(xi_alive((enum xi_object)i), 0);
}

static void start_all(unsigned rounds)
{
	for (int i = 0; i < PAIRS; i++) {
		pairs[i].left = rounds;
		submit(&pairs[i]);
	}
}

static void run_all(unsigned rounds)
{
	start_all(rounds);
	while (in_flight)
		CHECK_OP(xenidc_loop_step(loop, -1), >=, 0);
}

static void test_served_together(void)
{
	bool can = can_batch();

	install(0);
	connect_all();
	run_all(50);
	if (can) {
		CHECK_OP(batches, >, 0);
		CHECK_OP(calls_made, >, 4 * batches);
	} else {
		CHECK_EQ(batches, 0);
	}
	free_all();
	xi_os = os_before;
}

static void test_calls_that_are_not_made(void)
{
	for (unsigned skip = 1; skip <= 4; skip++) {
		install(skip);
		connect_all();
		run_all(20);
		free_all();
		xi_os = os_before;
	}
}

/* The kernel forbids it: everything works without. */
static int forbidden(unsigned most, struct xi_batch **ret)
{
	(void)most;
	(void)ret;
	return -EPERM;
}

static void test_forbidden(void)
{
	install(0);
	fake_os.batch_new = forbidden;
	connect_all();
	run_all(10);
	CHECK_EQ(batches, 0);
	free_all();
	xi_os = os_before;
}

/* Connections end, at both sides, in order and out of it, while the others go on. */
static void test_ends_in_between(void)
{
	install(3);
	connect_all();
	start_all(1000);
	for (int i = 0; i < 50; i++)
		CHECK_OP(xenidc_loop_step(loop, -1), >=, 0);
	ending = true;
	for (int i = 0; i < PAIRS; i++) {
		xenidc_channel **c = i % 4 < 2 ? &pairs[i].client : &accepted[i];
		if (i % 2) {
			(void)xenidc_channel_close(*c, 0); /* it may have ended already */
		} else {
			xenidc_channel_free(*c);
			*c = NULL;
		}
		CHECK_OP(xenidc_loop_step(loop, XI_MS), >=, 0);
	}
	free_all();
	xi_os = os_before;
}

CHECK_MAIN(TEST(test_served_together), TEST(test_calls_that_are_not_made), TEST(test_forbidden),
	   TEST(test_ends_in_between))
