/* SPDX-License-Identifier: MIT */
/* Clients of the general run that ask: buffers, requests, messages, cancels. */
#include <errno.h>
#include <string.h>

#include "model.h"

#define PAYLOAD_MIN 8

static bool usable(const struct chan *c)
{
	return c->up && !c->leaving && !c->closed;
}

/* --- Buffers */
static void put_buffer(struct chan *c, const struct xenidc_buffer *b)
{
	int r = CALL(c->side, xenidc_buffer_put(c->channel, b));

	histogram_count(c, EV_PUT, 1);
	MUST(r == 0, "a buffer cannot be given back: %d", r);
}

static void keep_or_put(struct chan *c, const struct xenidc_buffer *b)
{
	if (usable(c) && c->taken_count < TAKEN && sim_chance(3))
		c->taken[c->taken_count++] = *b;
	else
		put_buffer(c, b);
}

static uint32_t largest(const struct xenidc_slot_class cls[XENIDC_CLASSES_MAX])
{
	uint32_t size = 0;

	for (int i = 0; i < XENIDC_CLASSES_MAX; i++)
		if (cls[i].count && cls[i].size > size)
			size = cls[i].size;
	return size;
}

static bool take_buffer(struct chan *c, enum xenidc_direction direction, struct xenidc_buffer *ret)
{
	uint32_t most = largest(direction == XENIDC_OUT ? c->budget.out : c->budget.in);
	uint32_t size = sim_chance(4) && most ? 1 + sim_below(most) : 1;

	for (unsigned i = 0; i < c->taken_count; i++) {
		if (c->taken[i].direction != direction || sim_chance(2))
			continue;
		*ret = c->taken[i];
		c->taken[i] = c->taken[--c->taken_count];
		return true;
	}
	int r = CALL(c->side, xenidc_buffer_get(c->channel, direction, size, ret));
	histogram_count(c, EV_GET, 1);
	MUST(r == 0 || r == -EAGAIN || r == (most ? -ENOTCONN : -EMSGSIZE) || r == -ENOTCONN,
	     "a buffer of %u bytes, of at most %u, cannot be had: %d", size, most, r);
	MUST(r != -ENOTCONN || xenidc_channel_state(c->channel) != XENIDC_CONNECTED, "not connected, but connected");
	MUST(r || (ret->capacity >= size && ret->data && ret->direction == direction),
	     "a buffer is not what was asked for");
	return r == 0;
}

static uint32_t in_use(const struct chan *c, enum xenidc_direction direction, uint32_t size)
{
	uint32_t used = 0;

	for (unsigned i = 0; i < c->taken_count; i++)
		used += c->taken[i].direction == direction && c->taken[i].capacity == size;
	for (unsigned i = 0; i < c->open_count; i++) {
		const struct item *item = shadow_item(c->open[i]);
		for (unsigned k = 0; k < item->nrefs; k++)
			used += item->refs[k].in == (direction == XENIDC_IN) && item->refs[k].buffer.capacity == size;
	}
	return used;
}

/* All buffers of a class that are not in use can be had, and no more. */
static void count_class(struct chan *c, enum xenidc_direction direction, const struct xenidc_slot_class *cls)
{
	struct xenidc_buffer got[64];
	uint32_t used = in_use(c, direction, cls->size), n = 0;

	while (n < 64 && CALL(c->side, xenidc_buffer_get(c->channel, direction, cls->size, &got[n])) == 0)
		n++;
	MUST(n + used == cls->count, "of %u buffers of %u bytes %u are in use, but %u can be had", cls->count,
	     cls->size, used, n);
	while (n > 0)
		put_buffer(c, &got[--n]);
}

void actor_count_buffers(struct chan *c)
{
	struct xenidc_stats stats = { .size = sizeof(stats) };

	xenidc_channel_stats(c->channel, &stats);
	if (!usable(c) || stats.orphans || xenidc_channel_state(c->channel) != XENIDC_CONNECTED)
		return;
	for (int i = 0; i < XENIDC_CLASSES_MAX; i++) {
		if (c->budget.out[i].count)
			count_class(c, XENIDC_OUT, &c->budget.out[i]);
		if (c->budget.in[i].count)
			count_class(c, XENIDC_IN, &c->budget.in[i]);
	}
}

/* --- Requests of ours */
static void done(xenidc_channel *channel, const struct xenidc_result *r)
{
	struct chan *c = chan_of(channel);
	struct item *item = shadow_item((uint32_t)(uintptr_t)r->user);

	actor_enter(c);
	shadow_ended(c, r);
	histogram_count(c,
			r->end == XENIDC_REPLIED   ? EV_REPLIED
			: r->end == XENIDC_UNKNOWN ? EV_UNKNOWN
						   : EV_NOT_EXECUTED,
			1);
	if (r->reason == XENIDC_REASON_TIMEOUT || r->reason == XENIDC_REASON_CANCELLED)
		histogram_count(c, EV_EXPIRED, 1);
	MUST(CALL(c->side, xenidc_cancel(channel, r->id, 0)) == -ESTALE, "a request that has ended can be cancelled");
	for (uint32_t i = 0; i < item->nrefs; i++) {
		/* Of an orphan nothing may be used before the peer has answered. */
		if (r->end == XENIDC_UNKNOWN)
			put_buffer(c, &item->refs[i].buffer);
		else
			keep_or_put(c, &item->refs[i].buffer);
	}
	actor_leave(c);
}

static uint32_t make_refs(struct chan *c, uint32_t index, struct xenidc_ref *refs)
{
	struct item *item = shadow_item(index);
	uint32_t most = sim_chance(2) ? 0 : 1 + sim_below(REFS);

	for (uint32_t i = 0; i < most && i < c->budget.refs; i++) {
		struct item_ref *ref = &item->refs[item->nrefs];
		enum xenidc_direction direction = sim_chance(2) ? XENIDC_IN : XENIDC_OUT;
		if (!take_buffer(c, direction, &ref->buffer))
			continue;
		uint32_t capacity = ref->buffer.capacity;
		ref->in = direction == XENIDC_IN;
		ref->offset = sim_chance(3) ? sim_below(capacity) : 0;
		ref->length = sim_chance(4) ? capacity - ref->offset : sim_below(capacity - ref->offset + 1);
		if (!ref->in)
			shadow_fill((uint8_t *)ref->buffer.data + ref->offset, ref->length,
				    shadow_key(index, 16 + item->nrefs));
		refs[item->nrefs++] = (struct xenidc_ref){ ref->buffer, ref->offset, ref->length };
	}
	return item->nrefs;
}

/* What must be refused, and change nothing. */
static void misuse(struct chan *c, const struct xenidc_request *request, const struct item *item)
{
	struct xenidc_request again = *request;
	int r;

	if (xenidc_channel_state(c->channel) != XENIDC_CONNECTED || !xenidc_channel_request_credit(c->channel))
		return;
	histogram_count(c, EV_PROBE, 1);
	if (item->nrefs) {
		r = CALL(c->side, xenidc_submit(c->channel, &again, NULL));
		MUST(r == -EBUSY, "buffers that are lent can be lent again: %d", r);
		r = CALL(c->side, xenidc_buffer_put(c->channel, &item->refs[0].buffer));
		MUST(r == -EBUSY, "a buffer that is lent can be given back: %d", r);
	}
	again.payload_len = c->budget.payload + 1;
	again.ref_count = 0;
	r = CALL(c->side, xenidc_submit(c->channel, &again, NULL));
	MUST(r == -EMSGSIZE, "a payload can be too long: %d", r);
	r = CALL(c->side, xenidc_cancel(c->channel, item->id ^ 1ull << 40, 0));
	MUST(r == -ESTALE, "a request of another incarnation can be cancelled: %d", r);
}

static void not_accepted(struct chan *c, uint32_t index, int r, uint32_t credit)
{
	const struct item *item = shadow_item(index);

	MUST(r == -EAGAIN || r == -ENOTCONN, "%s %u is not accepted: %d", item->request ? "request" : "message", index,
	     r);
	MUST(r != -EAGAIN || !credit, "there is credit, but nothing can be sent");
	MUST(r != -ENOTCONN || xenidc_channel_state(c->channel) != XENIDC_CONNECTED, "connected, but not connected");
	c->want_writable = c->want_writable || r == -EAGAIN;
	sim_trace("it was not: %d", r);
	for (uint32_t i = 0; i < item->nrefs; i++)
		put_buffer(c, &item->refs[i].buffer);
	shadow_refused(c, index);
}

void actor_submit(struct chan *c)
{
	uint8_t payload[XI_PAYLOAD_MAX];
	struct xenidc_ref refs[REFS];
	uint32_t length = PAYLOAD_MIN + sim_below(c->budget.payload - PAYLOAD_MIN + 1);
	uint32_t index = c->open_count < OPEN - 1 ? shadow_new(c, true, length) : NO_ITEM;

	if (index == NO_ITEM)
		return;
	struct item *item = shadow_item(index);
	struct xenidc_request request = { .payload = payload,
					  .payload_len = length,
					  .refs = refs,
					  .ref_count = make_refs(c, index, refs),
					  .done = done,
					  .user = (void *)(uintptr_t)index };
	shadow_payload(index, payload);
	if (sim_below(100) < config.timeout_percent) {
		request.timeout_ns = sim_chance(4) ? 1 : sim_between(1000, 40 * SIM_MS);
		item->expires = sim_now() + request.timeout_ns;
	}
	histogram_count(c, EV_SUBMIT, 1);
	shadow_accepted(c, index);
	int r = CALL(c->side, xenidc_submit(c->channel, &request, &item->id));
	if (r)
		not_accepted(c, index, r, xenidc_channel_request_credit(c->channel));
	else if (sim_chance(16))
		misuse(c, &request, item);
}

void actor_send(struct chan *c)
{
	uint8_t payload[XI_PAYLOAD_MAX];
	uint32_t length = PAYLOAD_MIN + sim_below(c->budget.payload - PAYLOAD_MIN + 1);
	uint32_t index = c->open_count < OPEN - 1 ? shadow_new(c, false, length) : NO_ITEM;

	if (index == NO_ITEM)
		return;
	shadow_payload(index, payload);
	histogram_count(c, EV_SEND, 1);
	shadow_accepted(c, index);
	int r = CALL(c->side, xenidc_send(c->channel, payload, length));
	if (r)
		not_accepted(c, index, r, xenidc_channel_message_credit(c->channel));
}

static struct item *random_open(struct chan *c, bool (*fits)(const struct item *))
{
	for (int tries = 0; tries < 4 && c->open_count; tries++) {
		struct item *item = shadow_item(c->open[sim_below(c->open_count)]);
		if (fits(item))
			return item;
	}
	return NULL;
}

static bool is_request(const struct item *item)
{
	return item->request;
}

void actor_cancel(struct chan *c)
{
	struct item *item = random_open(c, is_request);
	uint64_t timeout = sim_chance(2) ? 0 : sim_between(1, 30 * SIM_MS);

	if (!item)
		return;
	histogram_count(c, EV_CANCEL, 1);
	item->cancelled = true;
	int r = CALL(c->side, xenidc_cancel(c->channel, item->id, timeout));
	MUST(r == 0, "a request in flight cannot be cancelled: %d", r);
}

static bool has_loan(const struct item *item)
{
	return item->request && item->nrefs && !item->refs[0].in && item->refs[0].length;
}

/* A client that does not keep the rules: what it lent it may not touch. The peer may get anything, but it must not
 * change under its eyes. */
void actor_scribble(struct chan *c)
{
	/* With digests it would rightly be found out, and the connection be lost. */
	struct item *item = c->map || config.digest ? NULL : random_open(c, has_loan);

	if (!item)
		return;
	histogram_count(c, EV_SCRIBBLE, 1);
	item->dirty = true;
	memset((uint8_t *)item->refs[0].buffer.data + item->refs[0].offset, (int)(1 + sim_below(255)),
	       item->refs[0].length);
}

void actor_get(struct chan *c)
{
	struct xenidc_buffer b;

	if (c->taken_count < TAKEN / 2 && take_buffer(c, sim_chance(2) ? XENIDC_IN : XENIDC_OUT, &b))
		c->taken[c->taken_count++] = b;
	else if (c->taken_count)
		put_buffer(c, &c->taken[--c->taken_count]);
}
