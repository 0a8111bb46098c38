/* SPDX-License-Identifier: MIT */
#include "target.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/check.h"

#define LIMIT_NS 3000000000u

static struct target *of(xenidc_channel *channel)
{
	return xenidc_channel_user(channel);
}

/* Until `*flag`, at most LIMIT_NS times the factor. */
static bool turn_until(struct target *t, const bool *flag)
{
	uint64_t end = check_now() + (uint64_t)LIMIT_NS * check_factor();

	while (!*flag) {
		if (check_now() > end)
			return false;
		xenidc_loop_step(t->loop, 1000000);
	}
	return true;
}

void target_turn(struct target *t)
{
	/* A look that finds nothing may have left out descriptors; the shortest of sleeps does not. */
	if (xenidc_loop_step(t->loop, 0) == 0)
		xenidc_loop_step(t->loop, 1);
}

/* --- The channel under attack */

static void be_eager(struct target *t);

static void request_ended(xenidc_channel *channel, const struct xenidc_result *result)
{
	struct target *t = of(channel);

	CHECK(result->end >= XENIDC_REPLIED && result->end <= XENIDC_UNKNOWN);
	t->ended[result->end]++;
	if (result->end == XENIDC_REPLIED && result->refs == 2)
		t->in_valid = result->valid[1];
	be_eager(t);
}

/* One request at a time, or as many messages as there is credit. */
static void be_eager(struct target *t)
{
	static const uint8_t payload[RAW_PAYLOAD];
	struct xenidc_request request = { .payload = payload, .payload_len = RAW_PAYLOAD, .done = request_ended };

	if (t->eager == EAGER_REQUESTS && !t->disconnected)
		(void)xenidc_submit(t->channel, &request, NULL);
	while (t->eager == EAGER_MESSAGES && xenidc_send(t->channel, payload, RAW_PAYLOAD) == 0)
		;
}

static void on_writable(xenidc_channel *channel)
{
	be_eager(of(channel));
}

/* A request with a buffer of each direction, and a message; as far as what was negotiated allows. */
static void be_busy(struct target *t)
{
	struct xenidc_ref refs[2] = { { .length = 100 }, { .offset = 16, .length = 100 } };
	struct xenidc_request request = { .payload = "ask", .payload_len = 3, .done = request_ended };
	int r = 0;

	if (!t->empty) {
		r = xenidc_buffer_get(t->channel, XENIDC_OUT, RAW_SLOT, &refs[0].buffer);
		if (r == 0)
			memset(refs[0].buffer.data, 0x42, 100);
		if (r == 0)
			r = xenidc_buffer_get(t->channel, XENIDC_IN, RAW_SLOT, &refs[1].buffer);
		request.refs = refs;
		request.ref_count = 2;
	}
	if (r == 0)
		r = xenidc_submit(t->channel, &request, NULL);
	CHECK(r == 0 || r == -EAGAIN || r == -EMSGSIZE);
	r = xenidc_send(t->channel, "news", 4);
	CHECK(r == 0 || r == -EAGAIN || r == -EMSGSIZE);
}

static void on_connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	struct target *t = of(channel);

	CHECK_OP(limits->budget.payload, <=, RAW_PAYLOAD);
	t->connected = true;
	if (t->busy)
		be_busy(t);
	be_eager(t);
}

/* Look at everything that the request says and brings, and keep it. */
static void on_request(xenidc_channel *channel, xenidc_incoming request)
{
	struct target *t = of(channel);
	struct xenidc_reply reply = { .status = 1 };
	enum xenidc_direction direction;
	const void *payload;
	uint32_t length, sum = 0;
	int refs = xenidc_incoming_refs(channel, request);

	t->requests++;
	CHECK_EQ(xenidc_incoming_payload(channel, request, &payload, &length), 0);
	CHECK_OP(length, <=, RAW_PAYLOAD);
	for (uint32_t i = 0; i < length; i++)
		sum += ((const uint8_t *)payload)[i];
	CHECK(refs >= 0 && refs <= (int)RAW_REFS);
	for (uint32_t i = 0; i < (uint32_t)refs; i++) {
		void *view;
		CHECK_EQ(xenidc_incoming_ref(channel, request, i, &direction, &length), 0);
		CHECK_OP(length, <=, RAW_SLOT);
		if (xenidc_view(channel, request, i, &view, &length))
			return; /* the connection has just ended; `abandoned` follows */
		if (direction == XENIDC_IN)
			memset(view, 0x11, length);
		for (uint32_t k = 1; t->ascending && direction == XENIDC_OUT && k < length; k++)
			CHECK_EQ(((const uint8_t *)view)[k], (uint8_t)(((const uint8_t *)view)[k - 1] + 7));
		for (uint32_t k = 0; k < length; k++)
			sum += ((const volatile uint8_t *)view)[k];
	}
	if (t->busy && t->nheld < TARGET_HELD)
		t->held[t->nheld++] = request;
	else
		CHECK_EQ(xenidc_reply(channel, request, &reply), 0);
	CHECK(sum < UINT32_MAX);
}

static void on_message(xenidc_channel *channel, const void *payload, uint32_t length)
{
	uint32_t sum = 0;

	CHECK_OP(length, <=, RAW_PAYLOAD);
	for (uint32_t i = 0; i < length; i++)
		sum += ((const uint8_t *)payload)[i];
	CHECK(sum < UINT32_MAX);
	of(channel)->messages++;
}

static void on_abandoned(xenidc_channel *channel, xenidc_incoming request)
{
	struct xenidc_reply reply = { 0 };
	struct target *t = of(channel);

	CHECK_EQ(xenidc_reply(channel, request, &reply), 0);
	for (unsigned i = 0; i < t->nheld; i++)
		if (t->held[i] == request)
			t->held[i] = t->held[--t->nheld];
}

static void on_disconnecting(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct target *t = of(channel);

	CHECK(t->connected && !t->disconnected);
	t->disconnected = true;
	t->why = *why;
}

static void on_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct target *t = of(channel);

	if (!t) { /* hoarded */
		xenidc_channel_free(channel);
		return;
	}
	CHECK(!t->idle);
	if (!t->disconnected)
		t->why = *why;
	t->idle = true;
}

static void budget(struct xenidc_budget *b, bool empty)
{
	static const struct xenidc_slot_class slots = { RAW_SLOT, RAW_SLOTS };

	*b = (struct xenidc_budget){ .size = sizeof(*b),
				     .requests_out = RAW_REQUESTS,
				     .requests_in = RAW_REQUESTS,
				     .messages_out = RAW_MESSAGES,
				     .messages_in = RAW_MESSAGES,
				     .payload = RAW_PAYLOAD,
				     .refs = RAW_REFS,
				     .no_slots = empty };
	if (!empty)
		b->out[0] = b->in[0] = b->peer_out[0] = b->peer_in[0] = slots;
}

static void channel_options(struct xenidc_channel_options *o, struct target *t)
{
	*o = (struct xenidc_channel_options){
		.size = sizeof(*o),
		.handlers = { .connected = on_connected,
			      .request = on_request,
			      .message = on_message,
			      .writable = on_writable,
			      .abandoned = on_abandoned,
			      .disconnecting = on_disconnecting,
			      .idle = on_idle },
		.user = t,
		.times = { .close_ns = TARGET_CLOSE_NS, .connect_ns = TARGET_CONNECT_NS },
	};
	budget(&o->budget, t->empty);
}

static void reset(struct target *t)
{
	CHECK(!t->channel);
	t->connected = t->disconnected = t->idle = false;
	t->requests = t->messages = t->nheld = t->in_valid = 0;
	memset(t->ended, 0, sizeof(t->ended));
	memset(&t->why, 0, sizeof(t->why));
}

static void on_accepted(xenidc_listener *listener, xenidc_channel *channel)
{
	struct target *t = xenidc_listener_user(listener);

	/* One attack at a time, but for floods: those that come second are nobody's. */
	t->accepted++;
	if (t->channel) {
		xenidc_channel_set_user(channel, NULL);
		if (!t->hoards)
			xenidc_channel_free(channel);
		return;
	}
	reset(t);
	t->channel = channel;
}

void target_dial(struct target *t, const char *address)
{
	struct xenidc_channel_options options;
	struct xenidc_error err;

	reset(t);
	channel_options(&options, t);
	CHECK_EQ(xenidc_channel_new(t->loop, &options, &t->channel, &err), 0);
	if (xenidc_channel_connect(t->channel, address, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
}

void target_up(struct target *t)
{
	if (!turn_until(t, &t->connected))
		check_failed(__FILE__, __LINE__, "not connected; idle: %d, %s", t->idle, t->why.text);
}

void target_over(struct target *t)
{
	if (!turn_until(t, &t->idle))
		check_failed(__FILE__, __LINE__, "the channel does not become idle; disconnecting: %d, %s",
			     t->disconnected, t->why.text);
	CHECK(!t->disconnected || t->connected);
	xenidc_channel_free(t->channel);
	t->channel = NULL;
}

void target_ended(struct target *t, enum xenidc_reason reason)
{
	target_over(t);
	if (t->why.reason != reason || t->why.by_peer)
		check_failed(__FILE__, __LINE__, "it ended as %s, not %s: %s", xenidc_reason_name(t->why.reason),
			     xenidc_reason_name(reason), t->why.text);
}

void target_answer(struct target *t)
{
	struct xenidc_reply reply = { .status = 2 };

	for (unsigned i = 0; i < t->nheld; i++)
		CHECK_EQ(xenidc_reply(t->channel, t->held[i], &reply), 0);
	t->nheld = 0;
}

/* --- The good channel */

static void good_request(xenidc_channel *channel, xenidc_incoming request)
{
	struct xenidc_reply reply = { .status = 3 };

	CHECK_EQ(xenidc_reply(channel, request, &reply), 0);
}

static void good_done(xenidc_channel *channel, const struct xenidc_result *result)
{
	struct target *t = of(channel);

	CHECK_EQ(result->end, XENIDC_REPLIED);
	CHECK_EQ(result->status, 3);
	*(bool *)result->user = true;
	t->good_replies++;
}

static void good_accepted(xenidc_listener *listener, xenidc_channel *channel)
{
	struct target *t = xenidc_listener_user(listener);

	CHECK(!t->good[1]);
	t->good[1] = channel;
}

static void good_over(xenidc_channel *channel, const struct xenidc_error *why)
{
	(void)channel;
	check_failed(__FILE__, __LINE__, "the good channel has ended: %s", why->text);
}

void target_good(struct target *t)
{
	bool done = false;
	struct xenidc_request request = { .done = good_done, .user = &done };

	CHECK_EQ(xenidc_submit(t->good[0], &request, NULL), 0);
	if (!turn_until(t, &done))
		check_failed(__FILE__, __LINE__, "the good channel does not go on");
}

static void good_connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	(void)limits;
	of(channel)->good_replies = 1;
}

static void good_start(struct target *t, const char *address)
{
	struct xenidc_listener_options lo = { .size = sizeof(lo), .accepted = good_accepted, .user = t };
	struct xenidc_channel_options co = { .size = sizeof(co), .user = t };
	uint64_t end = check_now() + (uint64_t)LIMIT_NS * check_factor();
	struct xenidc_error err;

	lo.channel = (struct xenidc_channel_options){
		.size = sizeof(lo.channel),
		.handlers = { .request = good_request, .disconnecting = good_over },
		.user = t,
	};
	budget(&lo.channel.budget, true);
	co.handlers.connected = good_connected;
	co.handlers.disconnecting = good_over;
	budget(&co.budget, true);
	if (xenidc_listener_new(t->loop, address, &lo, &t->good_listener, &err) ||
	    xenidc_channel_new(t->loop, &co, &t->good[0], &err) ||
	    xenidc_channel_connect(t->good[0], xenidc_listener_address(t->good_listener), &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	while (!t->good_replies) {
		CHECK(check_now() < end);
		xenidc_loop_step(t->loop, 1000000);
	}
	target_good(t);
}

/* --- The whole */

static void count_objects(int64_t objects[XI_OBJECT_KINDS])
{
	for (int i = 0; i < XI_OBJECT_KINDS; i++)
		objects[i] = xi_alive(i);
}

void target_clean(struct target *t)
{
	uint64_t end = check_now() + (uint64_t)LIMIT_NS * check_factor();
	int64_t now[XI_OBJECT_KINDS];

	for (;;) {
		target_turn(t);
		if (t->channel && t->idle) { /* it came late, when the attack was over already */
			xenidc_channel_free(t->channel);
			t->channel = NULL;
		}
		count_objects(now);
		if (!memcmp(now, t->objects, sizeof(now)))
			return;
		if (check_now() > end)
			break;
		xenidc_loop_step(t->loop, 1000000);
	}
	for (int i = 0; i < XI_OBJECT_KINDS; i++)
		fprintf(stderr, "%-12s %lld before, %lld now\n", xi_object_name(i), (long long)t->objects[i],
			(long long)now[i]);
	check_failed(__FILE__, __LINE__, "an attack has left something behind");
}

void target_start(struct target *t, const char *scheme)
{
	target_start_bounded(t, scheme, 0);
}

void target_start_bounded(struct target *t, const char *scheme, uint64_t bytes_max)
{
	struct xenidc_listener_options options = {
		.size = sizeof(options), .accepted = on_accepted, .user = t, .bytes_max = bytes_max
	};
	char address[64], good[64];
	struct xenidc_error err;

	memset(t, 0, sizeof(*t));
	t->busy = true;
	if (!strcmp(scheme, "tcp")) {
		snprintf(address, sizeof(address), "tcp:127.0.0.1:0");
		snprintf(good, sizeof(good), "tcp:127.0.0.1:0");
	} else {
		snprintf(address, sizeof(address), "%s:hostile-%d", scheme, (int)getpid());
		snprintf(good, sizeof(good), "%s:hostile-%d-good", scheme, (int)getpid());
	}
	CHECK_EQ(xenidc_loop_new(NULL, &t->loop), 0);
	channel_options(&options.channel, t);
	if (xenidc_listener_new(t->loop, address, &options, &t->listener, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	snprintf(t->address, sizeof(t->address), "%s", xenidc_listener_address(t->listener));
	good_start(t, good);
	for (int i = 0; i < 10; i++)
		target_turn(t);
	count_objects(t->objects);
}

void target_stop(struct target *t)
{
	target_good(t);
	target_clean(t);
	xenidc_listener_free(t->listener);
	xenidc_listener_free(t->good_listener);
	xenidc_channel_free(t->good[0]);
	xenidc_channel_free(t->good[1]);
	xenidc_loop_free(t->loop);
	for (int i = 0; i < XI_OBJECT_KINDS; i++)
		if (xi_alive(i))
			check_failed(__FILE__, __LINE__, "%lld objects of kind %s are left", (long long)xi_alive(i),
				     xi_object_name(i));
}
