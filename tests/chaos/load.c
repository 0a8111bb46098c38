/* SPDX-License-Identifier: MIT */
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The payload of a request. Its reply carries the same bytes. */
struct order {
	uint32_t number;
	uint32_t busy_us; /* work before anything else happens */
	uint32_t hold_us; /* answer after this long; 0: at once */
	uint32_t out, in; /* bytes of the references, 0: none */
	uint32_t pad;     /* bytes of the payload behind this */
};
#define PAD_MAX 200u

#define TICK_NS 500000u

static uint32_t pattern(uint32_t number, uint32_t i)
{
	return (number + i) * 2654435761u;
}

static void fill(void *to, uint32_t length, uint32_t number)
{
	uint32_t *words = to;

	for (uint32_t i = 0; i < length / 4; i++)
		words[i] = pattern(number, i);
}

static bool filled(const void *at, uint32_t length, uint32_t number)
{
	const uint32_t *words = at;

	for (uint32_t i = 0; i < length / 4; i++)
		if (words[i] != pattern(number, i))
			return false;
	return true;
}

/* --- The side that submits */

static uint32_t some_length(struct load *load)
{
	switch (rng_below(&load->rng, 8)) {
	case 0:
		return 65536;
	case 1:
		return 4 * (1 + rng_below(&load->rng, 16384));
	default:
		return 4 * (1 + rng_below(&load->rng, 1024));
	}
}

/* The buffers of a request in flight; `user` of its result. */
struct flight {
	struct load *load;
	struct order order;
	uint8_t pad[PAD_MAX]; /* right behind it */
	struct xenidc_ref refs[2];
	uint32_t nrefs;
};
_Static_assert(offsetof(struct flight, pad) == offsetof(struct flight, order) + sizeof(struct order), "one payload");

static void put_back(xenidc_channel *channel, struct flight *f)
{
	for (uint32_t i = 0; i < f->nrefs; i++) {
		int r = xenidc_buffer_put(channel, &f->refs[i].buffer);
		/* Out of use until the peer has answered what was cancelled; void once the channel has ended. */
		if (r && r != -EBUSY && r != -ESTALE && r != -ENOTCONN)
			check_failed(__FILE__, __LINE__, "xenidc_buffer_put: %s", strerror(-r));
	}
}

static void check_reply(struct flight *f, const struct xenidc_result *result)
{
	uint32_t in = f->order.out ? 1 : 0;

	CHECK(result->status == (int32_t)f->order.number);
	CHECK(result->payload_len == sizeof(f->order) + f->order.pad);
	CHECK(!memcmp(result->payload, &f->order, sizeof(f->order)));
	CHECK(!memcmp((const uint8_t *)result->payload + sizeof(f->order), f->pad, f->order.pad));
	CHECK(result->refs == f->nrefs);
	if (f->order.in) {
		CHECK(result->valid[in] == f->order.in);
		CHECK(filled(f->refs[in].buffer.data, f->order.in, ~f->order.number));
	}
}

static void ended(xenidc_channel *channel, const struct xenidc_result *result)
{
	struct flight *f = result->user;
	struct load *load = f->load;
	uint32_t number = f->order.number;

	CHECK(load->channel == channel);
	if (load->ends->end[number] != END_IN_FLIGHT)
		check_failed(__FILE__, __LINE__, "request %u ended twice, as %u and %u", number,
			     load->ends->end[number], result->end);
	CHECK(result->end >= XENIDC_REPLIED && result->end <= XENIDC_UNKNOWN);
	load->ends->end[number] = (uint8_t)result->end;
	load->ends->reason[number] = (uint8_t)result->reason;
	load->ends->in_flight--;
	if (result->end == XENIDC_REPLIED) {
		check_reply(f, result);
		load->replied++;
	}
	put_back(channel, f);
	free(f);
	if (load->connected)
		load_more(load);
}

/* Buffers as the order says; false: there is none now. */
static bool take_buffers(struct load *load, struct flight *f)
{
	const uint32_t lengths[2] = { f->order.out, f->order.in };

	for (int d = 0; d < 2; d++) {
		struct xenidc_ref *ref = &f->refs[f->nrefs];
		int r;

		if (!lengths[d])
			continue;
		r = xenidc_buffer_get(load->channel, d ? XENIDC_IN : XENIDC_OUT, lengths[d], &ref->buffer);
		if (r) {
			if (r != -EAGAIN)
				check_failed(__FILE__, __LINE__, "xenidc_buffer_get(%u): %s", lengths[d], strerror(-r));
			put_back(load->channel, f);
			return false;
		}
		ref->offset = 0;
		ref->length = lengths[d];
		f->nrefs++;
		if (d == 0)
			fill(ref->buffer.data, lengths[d], f->order.number);
	}
	return true;
}

static struct order some_order(struct load *load)
{
	struct order o = { .number = load->ends->next };

	if (rng_below(&load->rng, 2) == 0)
		o.pad = rng_below(&load->rng, PAD_MAX + 1);
	if (rng_below(&load->rng, 16) == 0)
		o.busy_us = 1 + rng_below(&load->rng, 300);
	if (rng_below(&load->rng, 4) == 0)
		o.hold_us = 1 + rng_below(&load->rng, 5000);
	if (rng_below(&load->rng, 2) == 0)
		o.out = some_length(load);
	if (rng_below(&load->rng, 2) == 0)
		o.in = some_length(load);
	return o;
}

static bool submit_one(struct load *load)
{
	struct flight *f = calloc(1, sizeof(*f));
	struct xenidc_request request = { .done = ended, .user = f };
	xenidc_request_id id;
	int r;

	CHECK(f);
	f->load = load;
	f->order = some_order(load);
	if (!take_buffers(load, f)) {
		free(f);
		return false;
	}
	request.payload = &f->order;
	request.payload_len = sizeof(f->order) + f->order.pad;
	memset(f->pad, (int)f->order.number, f->order.pad);
	request.refs = f->refs;
	request.ref_count = f->nrefs;
	if (load->cancels && rng_below(&load->rng, 32) == 0)
		request.timeout_ns = 1 + rng_below(&load->rng, 2000000);
	r = xenidc_submit(load->channel, &request, &id);
	if (r) {
		if (r != -EAGAIN && r != -ENOTCONN)
			check_failed(__FILE__, __LINE__, "xenidc_submit: %s", strerror(-r));
		put_back(load->channel, f);
		free(f);
		return false;
	}
	load->ends->channel[load->ends->next] = load->id;
	load->ends->end[load->ends->next++] = END_IN_FLIGHT;
	load->ends->in_flight++;
	if (load->cancels && rng_below(&load->rng, 64) == 0)
		CHECK(xenidc_cancel(load->channel, id, rng_below(&load->rng, 3) * 500000u) == 0);
	return true;
}

void load_more(struct load *load)
{
	if (!load->submitting || !load->connected || load->quiet)
		return;
	for (int i = 0; i < 64 && load->ends->next < JOURNAL_MAX; i++) {
		if (!submit_one(load))
			break;
		if (rng_below(&load->rng, 8) == 0) {
			uint32_t number = load->message_out + 1;
			if (xenidc_send(load->channel, &number, sizeof(number)) == 0)
				load->message_out = number;
		}
	}
}

/* --- The side that serves */

static void busy(uint32_t us)
{
	uint64_t end = check_now() + us * 1000u;

	while (check_now() < end)
		;
}

/* The reply has the payload of the request, and what is asked for by its IN reference. */
static void answer(struct load *load, xenidc_incoming request, uint32_t in_index, const struct order *order)
{
	struct xenidc_reply reply = { .status = (int32_t)order->number };
	uint32_t valid[2] = { 0, 0 }, length;
	void *to;

	CHECK_EQ(xenidc_incoming_payload(load->channel, request, &reply.payload, &reply.payload_len), 0);
	if (order->in) {
		int r = xenidc_view(load->channel, request, in_index, &to, &length);
		if (r)
			check_failed(__FILE__, __LINE__, "xenidc_view of an IN reference: %s", strerror(-r));
		CHECK(length == order->in);
		fill(to, length, ~order->number);
		valid[in_index] = length;
	}
	reply.valid = valid;
	int r = xenidc_reply(load->channel, request, &reply);
	if (r)
		check_failed(__FILE__, __LINE__, "xenidc_reply: %s", strerror(-r));
}

static void tick(struct xenidc_timer *timer);

static bool hold(struct load *load, xenidc_incoming request, const struct order *order, void *view, uint32_t view_len)
{
	for (int i = 0; i < LOAD_HELD_MAX; i++) {
		struct load_held *h = &load->held[i];
		if (h->due)
			continue;
		*h = (struct load_held){ .request = request,
					 .number = order->number,
					 .due = load->hold_forever ? UINT64_MAX : check_now() + order->hold_us * 1000u,
					 .view = view,
					 .view_len = view_len };
		if (load->journal)
			load->journal->held++;
		return true;
	}
	return false;
}

static void let_go(struct load *load, struct load_held *h)
{
	const void *payload;
	uint32_t length;

	/* A view may have become zeros by now, but can always be read. */
	if (h->view && h->view_len) {
		const volatile uint8_t *bytes = h->view;
		(void)bytes[0];
		(void)bytes[h->view_len - 1];
	}
	if (h->abandoned) {
		struct xenidc_reply nothing = { 0 };
		CHECK(xenidc_reply(load->channel, h->request, &nothing) == 0);
	} else {
		struct order order;
		CHECK(xenidc_incoming_payload(load->channel, h->request, &payload, &length) == 0);
		CHECK(length >= sizeof(order));
		memcpy(&order, payload, sizeof(order));
		CHECK(order.number == h->number);
		if (h->view)
			CHECK(filled(h->view, h->view_len, h->number));
		answer(load, h->request, order.out ? 1 : 0, &order);
	}
	h->due = 0;
	if (load->journal)
		load->journal->held--;
}

static void tick(struct xenidc_timer *timer)
{
	struct load *load = (struct load *)(void *)((char *)timer - offsetof(struct load, tick));
	uint64_t now = check_now();

	for (int i = 0; i < LOAD_HELD_MAX; i++)
		if (load->held[i].due && load->held[i].due <= now)
			let_go(load, &load->held[i]);
	if (!load->idle)
		CHECK(xenidc_timer_start(xenidc_channel_loop(load->channel), timer, TICK_NS, tick) == 0);
}

static void on_request(xenidc_channel *channel, xenidc_incoming request)
{
	struct load *load = xenidc_channel_user(channel);
	const void *payload;
	uint32_t length = 0;
	void *view = NULL;
	struct order order;

	CHECK(xenidc_incoming_payload(channel, request, &payload, &length) == 0);
	CHECK(length >= sizeof(order));
	memcpy(&order, payload, sizeof(order));
	CHECK(order.number < JOURNAL_MAX && length == sizeof(order) + order.pad);
	/* First of all: from here on this request counts as executed. */
	if (load->journal && atomic_fetch_add(&load->journal->dispatched[order.number], 1) != 0)
		check_failed(__FILE__, __LINE__, "request %u was dispatched twice", order.number);
	CHECK(xenidc_incoming_refs(channel, request) == !!order.out + !!order.in);
	if (order.busy_us)
		busy(order.busy_us);
	length = 0;
	if (order.out) {
		int r = xenidc_view(channel, request, 0, &view, &length);
		if (r)
			check_failed(__FILE__, __LINE__, "xenidc_view of an OUT reference: %s", strerror(-r));
		CHECK(length == order.out);
		CHECK(filled(view, length, order.number));
	}
	if (order.hold_us && hold(load, request, &order, view, length))
		return;
	answer(load, request, order.out ? 1 : 0, &order);
}

static void on_message(xenidc_channel *channel, const void *payload, uint32_t length)
{
	struct load *load = xenidc_channel_user(channel);
	uint32_t number;

	CHECK(length == sizeof(number));
	memcpy(&number, payload, sizeof(number));
	if (number != load->message_in + 1)
		check_failed(__FILE__, __LINE__, "message %u came after %u", number, load->message_in);
	load->message_in = number;
}

static void on_writable(xenidc_channel *channel)
{
	load_more(xenidc_channel_user(channel));
}

static void on_abandoned(xenidc_channel *channel, xenidc_incoming request)
{
	struct load *load = xenidc_channel_user(channel);

	for (int i = 0; i < LOAD_HELD_MAX; i++) {
		struct load_held *h = &load->held[i];
		if (!h->due || h->request != request)
			continue;
		h->abandoned = true;
		/* Some let go at once, some only when their time has come: idle has to wait for those. */
		if (load->hold_forever)
			h->due = check_now() + 1000000u;
		else if (rng_below(&load->rng, 2))
			let_go(load, h);
		return;
	}
	check_failed(__FILE__, __LINE__, "abandoned: a request that is not in hand");
}

/* --- The life of a channel */

static void on_connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	struct load *load = xenidc_channel_user(channel);

	CHECK(limits->budget.requests_out > 0 && limits->budget.payload >= sizeof(struct order));
	load->connected = true;
	if (load->journal)
		load->journal->connects++;
	CHECK(xenidc_timer_start(xenidc_channel_loop(channel), &load->tick, TICK_NS, tick) == 0);
	load_more(load);
	if (load->on_connected)
		load->on_connected(load);
}

static void on_disconnecting(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct load *load = xenidc_channel_user(channel);

	CHECK(load->connected && !load->disconnected);
	load->connected = false;
	load->disconnected = true;
	load->disconnected_at = check_now();
	load->why = *why;
	if (load->journal) {
		memcpy(load->journal->text, why->text, sizeof(why->text));
		load->journal->reason = why->reason;
		load->journal->by_peer = why->by_peer;
		load->journal->disconnects++;
	}
}

static void on_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct load *load = xenidc_channel_user(channel);

	CHECK(!load->idle && load_held(load) == 0);
	if (!load->disconnected)
		load->why = *why;
	load->connected = false;
	load->idle = true;
	load->idle_at = check_now();
	xenidc_timer_stop(&load->tick);
	if (load->journal)
		load->journal->idles++;
	if (load->on_idle)
		load->on_idle(load);
}

void load_options(struct xenidc_channel_options *options, struct load *load)
{
	*options = (struct xenidc_channel_options){ .size = sizeof(*options) };
	options->handlers = (struct xenidc_handlers){
		.connected = on_connected,
		.request = on_request,
		.message = on_message,
		.writable = on_writable,
		.abandoned = on_abandoned,
		.disconnecting = on_disconnecting,
		.idle = on_idle,
	};
	options->user = load;
}

void load_reset(struct load *load)
{
	CHECK(load_held(load) == 0);
	load->connected = load->disconnected = load->idle = false;
	load->message_in = load->message_out = 0;
	memset(&load->why, 0, sizeof(load->why));
}

unsigned load_held(const struct load *load)
{
	unsigned n = 0;

	for (int i = 0; i < LOAD_HELD_MAX; i++)
		n += load->held[i].due != 0;
	return n;
}
