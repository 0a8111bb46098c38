/* SPDX-License-Identifier: MIT */
/* What must be true of all that is sent, seen, answered and ended. Knows the library's results only. */
#include <stdio.h>
#include <string.h>

#include "model.h"

#define PAYLOAD_MIN 8

static struct {
	struct item items[ITEMS];
	uint32_t count;
	uint32_t serials;
	uint32_t peer[SERIALS];     /* the other side's serial, once known */
	struct chan *chan[SERIALS]; /* while it is connected */
	bool left[SERIALS];         /* ended by its client's or its process's own doing */
} shadow;

void shadow_begin(void)
{
	memset(shadow.items, 0, shadow.count * sizeof(shadow.items[0]));
	memset(shadow.peer, 0, sizeof(shadow.peer));
	memset(shadow.chan, 0, sizeof(shadow.chan));
	memset(shadow.left, 0, sizeof(shadow.left));
	shadow.count = shadow.serials = 0;
}

struct item *shadow_item(uint32_t index)
{
	MUST(index < shadow.count, "item %u does not exist", index);
	return &shadow.items[index];
}

/* --- Bytes that can be told apart */
uint64_t shadow_key(uint32_t index, uint32_t what)
{
	uint64_t x = config.seed * 0x9e3779b97f4a7c15ull + ((uint64_t)index << 8 | what);

	x = (x ^ x >> 31) * 0xbf58476d1ce4e5b9ull;
	return x ^ x >> 29;
}

/* Never zero, so that missing bytes show. */
static uint8_t byte_at(uint64_t key, uint32_t i)
{
	return (uint8_t)((key >> (i & 7) * 8) + i * 11 + (i >> 8)) | 1;
}

void shadow_fill(uint8_t *to, uint32_t length, uint64_t key)
{
	for (uint32_t i = 0; i < length; i++)
		to[i] = byte_at(key, i);
}

bool shadow_same(const uint8_t *bytes, uint32_t length, uint64_t key)
{
	uint8_t differs = 0;

	for (uint32_t i = 0; i < length; i++)
		differs |= bytes[i] ^ byte_at(key, i);
	return !differs;
}

bool shadow_same_or_zero(const uint8_t *bytes, uint32_t length, uint64_t key)
{
	for (uint32_t i = 0; i < length; i++)
		if (bytes[i] && bytes[i] != byte_at(key, i))
			return false;
	return true;
}

uint64_t shadow_sum(const uint8_t *bytes, uint32_t length)
{
	uint64_t sum = length;

	for (uint32_t i = 0; i < length; i++)
		sum = sum * 31 + bytes[i];
	return sum;
}

/* --- Sending */
uint32_t shadow_new(struct chan *c, bool request, uint32_t payload_len)
{
	if (shadow.count == ITEMS)
		return NO_ITEM;
	shadow.items[shadow.count] = (struct item){ .request = request,
						    .message = !request,
						    .from = (uint8_t)c->side->index,
						    .conn = c->serial,
						    .sequence = c->sent + 1,
						    .number = c->messages_sent + 1,
						    .payload_len = payload_len };
	return shadow.count++;
}

void shadow_accepted(struct chan *c, uint32_t index)
{
	struct item *item = shadow_item(index);

	c->sent++;
	c->messages_sent += item->message;
	c->in_flight += item->request;
	MUST(c->open_count < OPEN, "too much is under way");
	c->open[c->open_count++] = index;
	sim_trace("%s %u of connection %u (%s) was accepted", item->request ? "request" : "message", index, c->serial,
		  c->side->name);
}

static void close_item(struct chan *c, uint32_t index)
{
	for (uint32_t i = 0; i < c->open_count; i++) {
		if (c->open[i] != index)
			continue;
		c->open[i] = c->open[--c->open_count];
		return;
	}
}

void shadow_refused(struct chan *c, uint32_t index)
{
	struct item *item = shadow_item(index);

	MUST(!item->seen, "item %u was not accepted, but seen", index);
	c->sent--;
	c->messages_sent -= item->message;
	c->in_flight -= item->request;
	close_item(c, index);
	item->request = item->message = false;
}

void shadow_payload(uint32_t index, uint8_t *to)
{
	const struct item *item = shadow_item(index);
	uint32_t cookie = (uint32_t)shadow_key(index, 0);

	MUST(item->payload_len >= PAYLOAD_MIN, "payload");
	memcpy(to, &index, 4);
	memcpy(to + 4, &cookie, 4);
	shadow_fill(to + PAYLOAD_MIN, item->payload_len - PAYLOAD_MIN, shadow_key(index, 1));
}

/* --- Connections */
void shadow_connected(struct chan *c)
{
	c->serial = ++shadow.serials;
	MUST(c->serial < SERIALS, "too many connections for one run");
	shadow.chan[c->serial] = c;
	c->peer_serial = 0;
}

void shadow_left(struct chan *c)
{
	shadow.left[c->serial] = true;
}

void shadow_gone(struct chan *c)
{
	shadow.left[c->serial] = true;
	shadow.chan[c->serial] = NULL;
}

bool shadow_peer_left(const struct chan *c)
{
	uint32_t peer = c->peer_serial ? c->peer_serial : shadow.peer[c->serial];

	return !peer || shadow.left[peer];
}

static void bind(struct chan *c, uint32_t peer)
{
	if (!c->peer_serial) {
		MUST(!shadow.peer[c->serial] || shadow.peer[c->serial] == peer,
		     "connection %u hears connection %u, but speaks to %u", c->serial, peer, shadow.peer[c->serial]);
		MUST(!shadow.peer[peer] || shadow.peer[peer] == c->serial, "connection %u is heard by %u and %u", peer,
		     shadow.peer[peer], c->serial);
		c->peer_serial = peer;
		shadow.peer[c->serial] = peer;
		shadow.peer[peer] = c->serial;
	}
	MUST(c->peer_serial == peer, "connection %u hears connection %u, but did hear %u before", c->serial, peer,
	     c->peer_serial);
}

/* --- Arriving */
uint32_t shadow_arrived(struct chan *c, bool request, const void *payload, uint32_t length)
{
	const char *what = request ? "request" : "message";
	uint32_t index, cookie;
	struct item *item;

	MUST(length >= PAYLOAD_MIN, "a %s of %u bytes", what, length);
	memcpy(&index, payload, 4);
	memcpy(&cookie, (const uint8_t *)payload + 4, 4);
	MUST(index < shadow.count && cookie == (uint32_t)shadow_key(index, 0), "a %s that nobody sent", what);
	item = shadow_item(index);
	MUST(item->request == request && item->message != request, "%s %u arrived as the other kind", what, index);
	MUST(item->from != c->side->index && sides[item->from].server != c->side->server, "%s %u came back", what,
	     index);
	bind(c, item->conn);
	MUST(!item->seen, "%s %u arrived twice", what, index);
	MUST(!item->never, "%s %u ended as NOT_EXECUTED, but its handler sees it", what, index);
	MUST(!(item->ended && item->end == XENIDC_REPLIED), "%s %u ended before it was seen", what, index);
	MUST(item->sequence > c->last_seen, "%s %u out of order: %u after %u", what, index, item->sequence,
	     c->last_seen);
	MUST(length == item->payload_len &&
		     shadow_same((const uint8_t *)payload + PAYLOAD_MIN, length - PAYLOAD_MIN, shadow_key(index, 1)),
	     "%s %u has another payload than it was sent with", what, index);
	item->seen = true;
	c->last_seen = item->sequence;
	if (request)
		return index;
	MUST(item->number == c->last_message_seen + 1, "message %u is number %u, after %u", index, item->number,
	     c->last_message_seen);
	c->last_message_seen = item->number;
	struct chan *sender = shadow.chan[item->conn];
	if (sender) {
		sender->messages_seen++;
		close_item(sender, index);
	}
	return index;
}

/* --- Ends */
static void check_replied(struct chan *c, uint32_t index, const struct xenidc_result *r)
{
	struct item *item = shadow_item(index);

	MUST(item->seen && item->answered, "request %u was replied to, but nobody did", index);
	MUST(r->status == item->status && r->payload_len == item->reply_len &&
		     shadow_same(r->payload, r->payload_len, shadow_key(index, 2)),
	     "request %u has another reply than it was given", index);
	MUST(r->refs == item->nrefs, "request %u has %u references, its reply %u", index, item->nrefs, r->refs);
	for (uint32_t i = 0; i < item->nrefs; i++) {
		const struct item_ref *ref = &item->refs[i];
		MUST(r->valid[i] == (ref->in ? ref->valid : 0),
		     "request %u: %u bytes of reference %u are valid, not %u", index, ref->valid, i, r->valid[i]);
		MUST(!ref->in || shadow_same((uint8_t *)ref->buffer.data + ref->offset, ref->valid,
					     shadow_key(index, 16 + i)),
		     "request %u: the answer in reference %u is not what was written", index, i);
	}
	(void)c;
}

static void check_unknown(struct chan *c, uint32_t index, const struct xenidc_result *r)
{
	const struct item *item = shadow_item(index);
	bool cancelled = r->reason == XENIDC_REASON_CANCELLED && item->cancelled;
	bool expired = r->reason == XENIDC_REASON_TIMEOUT && item->expires && sim_now() >= item->expires;

	if (cancelled || expired)
		return;
	MUST(c->was_told, "request %u ends as UNKNOWN (%s) on a channel that is up", index,
	     xenidc_reason_name(r->reason));
	if (c->why.by_peer || (c->why.reason == XENIDC_REASON_PEER_DIED && config.personality == MAPPED))
		MUST(item->seen,
		     "request %u ends as UNKNOWN, but the peer's last word (%s) tells that it was not executed", index,
		     c->why.text);
}

void shadow_ended(struct chan *c, const struct xenidc_result *r)
{
	uint32_t index = (uint32_t)(uintptr_t)r->user;
	struct item *item = shadow_item(index);

	MUST(item->request && item->from == c->side->index && item->conn == c->serial,
	     "request %u ends at a channel that did not submit it", index);
	MUST(!item->ended, "request %u ends twice", index);
	MUST(!item->orphaned, "request %u ends after its channel was freed", index);
	MUST(r->id == item->id, "request %u ends with another id", index);
	item->ended = true;
	item->end = r->end;
	sim_trace("request %u ends as %d (%s)", index, (int)r->end, xenidc_reason_name(r->reason));
	if (r->end == XENIDC_REPLIED) {
		check_replied(c, index, r);
	} else if (r->end == XENIDC_NOT_EXECUTED) {
		MUST(!item->seen, "request %u ends as NOT_EXECUTED, but its handler has seen it", index);
		item->never = true;
	} else {
		MUST(r->end == XENIDC_UNKNOWN, "request %u ends as %d", index, (int)r->end);
		check_unknown(c, index, r);
	}
	c->in_flight--;
	close_item(c, index);
}

/* --- The end of a connection */
bool shadow_disturbed_since(uint64_t since)
{
	for (int f = 1; f < FAULTS; f++)
		if (f != FAULT_LATE_WRITE && f != FAULT_LATE_WAKE && f != FAULT_MEMORY &&
		    histogram_fault_since((enum fault)f, since))
			return true;
	return false;
}

void shadow_idle(struct chan *c, const struct xenidc_error *why)
{
	MUST(!c->in_flight, "idle, but %u requests have not ended", c->in_flight);
	MUST(!c->held_count, "idle, but %u requests of the peer's are held", c->held_count);
	shadow.chan[c->serial] = NULL;
	if (!c->closed || why->reason != XENIDC_REASON_CLOSED || sim_now() >= c->linger_until)
		return;
	if (shadow_peer_left(c) || shadow_disturbed_since(c->closed_at))
		return;
	for (uint32_t i = 0; i < shadow.count; i++) {
		const struct item *item = &shadow.items[i];
		if (item->conn != c->serial || !(item->request || item->message))
			continue;
		MUST(item->seen || item->cancelled || item->expires,
		     "%s %u was accepted before close(), lost with time left", item->request ? "request" : "message",
		     i);
		MUST(!item->request || item->end == XENIDC_REPLIED || item->cancelled || item->expires,
		     "request %u was accepted before close(), and ended without a reply with time left", i);
	}
}

static void check_quiet_chan(struct chan *c)
{
	uint32_t credit = xenidc_channel_message_credit(c->channel), n = c->budget.messages_out;
	uint32_t threshold = (n + 1) / 2;

	for (uint32_t i = 0; i < c->open_count; i++) {
		const struct item *item = shadow_item(c->open[i]);
		const char *what = item->request ? "request" : "message";
		MUST(item->seen, "nothing moves, but %s %u of connection %u was not delivered", what, c->open[i],
		     c->serial);
		MUST(!item->answered, "nothing moves, but the reply to request %u was not delivered", c->open[i]);
	}
	MUST(credit + threshold > n, "nothing moves, but connection %u has credit for %u of %u messages", c->serial,
	     credit, n);
	MUST(!c->want_writable || !credit || !xenidc_channel_request_credit(c->channel),
	     "nothing moves and there is credit, but `writable` was not called on connection %u", c->serial);
}

void shadow_check_quiet(void)
{
	for (unsigned s = 0; s < SIDES; s++)
		for (unsigned i = 0; i < CHANNELS; i++)
			if (sides[s].chans[i].channel && sides[s].chans[i].up && !sides[s].chans[i].leaving)
				check_quiet_chan(&sides[s].chans[i]);
}

void shadow_check_over(void)
{
	for (uint32_t i = 0; i < shadow.count; i++) {
		const struct item *item = &shadow.items[i];
		MUST(!item->request || item->ended || item->orphaned, "request %u never ended", i);
	}
}
