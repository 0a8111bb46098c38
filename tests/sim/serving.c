/* SPDX-License-Identifier: MIT */
/* Clients of the general run that serve: what arrives is compared with what was sent, and answered now or later. */
#include <errno.h>
#include <string.h>

#include "model.h"

static struct held *find_held(struct chan *c, xenidc_incoming request)
{
	for (unsigned i = 0; i < c->held_count; i++)
		if (c->held[i].request == request)
			return &c->held[i];
	MUST(false, "a request is named that is not held");
	return NULL;
}

/* --- What arrived */
static void check_refs(struct chan *c, const struct held *h)
{
	const struct item *item = shadow_item(h->item);
	int n = CALL(c->side, xenidc_incoming_refs(c->channel, h->request));

	MUST(n == (int)item->nrefs, "request %u has %u references, but arrived with %d", h->item, item->nrefs, n);
	for (uint32_t i = 0; i < item->nrefs; i++) {
		enum xenidc_direction direction;
		uint32_t length;
		int r = CALL(c->side, xenidc_incoming_ref(c->channel, h->request, i, &direction, &length));
		MUST(r == 0 && (direction == XENIDC_IN) == item->refs[i].in && length == item->refs[i].length,
		     "reference %u of request %u is another: %d", i, h->item, r);
	}
}

static void look_at_view(struct chan *c, struct held *h, uint32_t i)
{
	const struct item *item = shadow_item(h->item);
	const struct item_ref *ref = &item->refs[i];
	uint32_t length;
	void *view;
	int r = CALL(c->side, xenidc_view(c->channel, h->request, i, &view, &length));

	MUST(r == 0 && length == ref->length, "no view of reference %u of request %u: %d", i, h->item, r);
	if (ref->in)
		return;
	MUST(item->dirty || shadow_same(view, length, shadow_key(h->item, 16 + i)),
	     "the data in reference %u of request %u are not what was sent", i, h->item);
	h->views[i].view = view;
	h->views[i].length = length;
	h->views[i].sum = shadow_sum(view, length);
}

static void read_part(struct chan *c, struct held *h, uint32_t i)
{
	static uint8_t bytes[1u << 20];
	const struct item *item = shadow_item(h->item);
	const struct item_ref *ref = &item->refs[i];
	uint32_t length = ref->length < sizeof(bytes) ? ref->length : (uint32_t)sizeof(bytes);
	int r = CALL(c->side, xenidc_read(c->channel, h->request, i, 0, bytes, length));

	MUST(r == (ref->in ? -EINVAL : 0), "reading reference %u of request %u gives %d", i, h->item, r);
	MUST(ref->in || item->dirty || shadow_same(bytes, length, shadow_key(h->item, 16 + i)),
	     "the data read from reference %u of request %u are not what was sent", i, h->item);
}

static void look(struct chan *c, struct held *h)
{
	const struct item *item = shadow_item(h->item);

	for (uint32_t i = 0; i < item->nrefs; i++) {
		if (sim_chance(2))
			read_part(c, h, i);
		if (!h->views[i].view && sim_chance(2))
			look_at_view(c, h, i);
	}
}

/* What a handler was shown never changes; when the connection ends, it may turn into zeros. */
static void check_views(const struct chan *c, const struct held *h)
{
	const struct item *item = shadow_item(h->item);

	for (uint32_t i = 0; i < item->nrefs; i++) {
		const uint8_t *view = h->views[i].view;
		uint32_t length = h->views[i].length;
		if (!view)
			continue;
		if (!h->abandoned)
			MUST(c->map || shadow_sum(view, length) == h->views[i].sum,
			     "the view of reference %u of request %u has changed", i, h->item);
		else
			MUST(item->dirty || shadow_same_or_zero(view, length, shadow_key(h->item, 16 + i)),
			     "an abandoned view of reference %u of request %u shows what was never sent", i, h->item);
	}
}

/* --- Answering */
static void write_answer(struct chan *c, struct held *h, uint32_t i)
{
	struct item *item = shadow_item(h->item);
	struct item_ref *ref = &item->refs[i];
	uint64_t key = shadow_key(h->item, 16 + i);
	static uint8_t bytes[1u << 20];
	uint32_t length;
	void *view;
	int r;

	if (sim_chance(2) && ref->length <= sizeof(bytes)) {
		shadow_fill(bytes, ref->length, key);
		r = CALL(c->side, xenidc_write(c->channel, h->request, i, 0, bytes, ref->length));
	} else {
		r = CALL(c->side, xenidc_view(c->channel, h->request, i, &view, &length));
		if (r == 0)
			shadow_fill(view, ref->length, key);
	}
	/* When a connection ends, all that is held is stale before the first `abandoned` is told. */
	MUST(r == 0 || (r == -ESTALE && c->was_told), "reference %u of request %u cannot be answered into: %d", i,
	     h->item, r);
}

static void make_answer(struct chan *c, struct held *h, uint32_t *valid)
{
	struct item *item = shadow_item(h->item);

	for (uint32_t i = 0; i < item->nrefs; i++) {
		struct item_ref *ref = &item->refs[i];
		valid[i] = 0;
		if (!ref->in)
			continue;
		ref->valid = valid[i] = sim_chance(2) ? ref->length : sim_below(ref->length + 1);
		if (!h->abandoned)
			write_answer(c, h, i);
	}
}

void actor_answer(struct chan *c, unsigned i)
{
	struct held h = c->held[i];
	struct item *item = shadow_item(h.item);
	uint8_t payload[XI_PAYLOAD_MAX];
	uint32_t valid[REFS] = { 0 };
	struct xenidc_reply reply = { .payload = payload, .valid = valid };

	check_views(c, &h);
	reply.status = (int32_t)sim_random();
	reply.payload_len = sim_chance(3) ? 0 : sim_below(c->budget.payload + 1);
	shadow_fill(payload, reply.payload_len, shadow_key(h.item, 2));
	make_answer(c, &h, valid);
	item->status = reply.status;
	item->reply_len = reply.payload_len;
	item->answered = true; /* before the call: the peer may see it before it returns */
	c->held[i] = c->held[--c->held_count];
	if (h.abandoned && !c->held_count)
		c->idle_by = sim_now() + config.times.close_ns + side_slack();
	histogram_count(c, EV_REPLY, 1);
	sim_trace("request %u is answered%s", h.item, h.abandoned ? ", too late" : "");
	int r = CALL(c->side, xenidc_reply(c->channel, h.request, &reply));
	MUST(r == 0, "request %u cannot be replied to: %d", h.item, r);
	r = CALL(c->side, xenidc_reply(c->channel, h.request, &reply));
	MUST(r == -ESTALE, "request %u can be replied to twice: %d", h.item, r);
}

/* --- Handlers */
void actor_request(xenidc_channel *channel, xenidc_incoming request)
{
	struct chan *c = chan_of(channel);
	const void *payload;
	uint32_t length;

	actor_enter(c);
	MUST(c->up, "a request on a channel that is not connected");
	int r = CALL(c->side, xenidc_incoming_payload(channel, request, &payload, &length));
	MUST(r == 0, "a request without payload: %d", r);
	MUST(c->held_count < HELD && c->held_count < c->budget.requests_in, "more requests than were negotiated");
	struct held *h = &c->held[c->held_count++];
	*h = (struct held){ .request = request, .item = shadow_arrived(c, true, payload, length) };
	sim_trace("request %u is seen by %s", h->item, c->side->name);
	histogram_count(c, EV_REQUEST, 1);
	check_refs(c, h);
	look(c, h);
	if (sim_below(100) >= config.hold_percent)
		actor_answer(c, c->held_count - 1);
	actor_leave(c);
}

void actor_cancel_asked(xenidc_channel *channel, xenidc_incoming request)
{
	struct chan *c = chan_of(channel);

	actor_enter(c);
	struct held *h = find_held(c, request);
	MUST(shadow_item(h->item)->cancelled || shadow_item(h->item)->expires, "request %u: nobody asked for its end",
	     h->item);
	histogram_count(c, EV_CANCELLED, 1);
	if (sim_chance(2))
		actor_answer(c, (unsigned)(h - c->held));
	actor_leave(c);
}

void actor_abandoned(xenidc_channel *channel, xenidc_incoming request)
{
	struct chan *c = chan_of(channel);

	actor_enter(c);
	struct held *h = find_held(c, request);
	MUST(!h->abandoned, "request %u is abandoned twice", h->item);
	MUST(c->was_told, "request %u is abandoned on a channel that is up", h->item);
	h->abandoned = true;
	histogram_count(c, EV_ABANDONED, 1);
	if (sim_chance(2))
		actor_answer(c, (unsigned)(h - c->held));
	actor_leave(c);
}
