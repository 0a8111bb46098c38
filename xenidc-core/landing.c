/* SPDX-License-Identifier: MIT */
/*
 * Where data of the peer's arrive. Slot k of the peer lands in place k here. On byte streams data come by themselves,
 * in order within a slot; elsewhere they are fetched; with MAP they are there.
 */
#include "engine.h"

int xi_landing_expect(struct xi_conn *conn, uint32_t slot, uint16_t owner, uint32_t offset, uint32_t length)
{
	struct xi_place *place = &conn->landing[slot];
	int e;

	XI_DASSERT(length <= XI_SLOT_SIZE_MAX && offset <= XI_SLOT_SIZE_MAX && conn->rx_base);
	XI_ASSERT(slot < conn->rx.slots && !place->pending);
	if (!length || conn->limits.map)
		return 0;
	if (!(conn->t->caps & XI_CAP_STREAM)) {
		conn->channel->stats.copies++;
		conn->channel->stats.copied_bytes += length;
		e = conn->t->fetch(conn, slot, offset, length);
		if (e <= 0)
			return e;
	}
	place->pending = true;
	place->owner = owner;
	place->next = offset;
	place->end = offset + length;
	return 1;
}

void xi_landing_forget(struct xi_conn *conn, uint32_t slot)
{
	struct xi_place *place = &conn->landing[slot];

	XI_DASSERT(!conn->landing[slot].pending || !conn->limits.map);
	XI_ASSERT(slot < conn->rx.slots);
	if (!place->pending)
		return;
	place->pending = false;
	if (conn->t->forget)
		conn->t->forget(conn, slot);
}

static bool landed(struct xi_conn *conn, uint32_t slot)
{
	struct xi_place *place = &conn->landing[slot];

	XI_DASSERT(slot < conn->rx.slots && conn->phase >= XI_PHASE_UP && conn->phase <= XI_PHASE_FAREWELL);
	XI_ASSERT(place->pending);
	place->pending = false;
	return slot < conn->rx_peer ? xi_in_landed(conn, place->owner) : xi_out_landed(conn, place->owner);
}

uint8_t *xi_conn_bulk(struct xi_conn *conn, uint32_t slot, uint32_t offset, uint32_t length)
{
	struct xi_place *place;
	uint32_t size;

	if (conn->failed || conn->phase < XI_PHASE_UP || conn->phase > XI_PHASE_FAREWELL)
		return NULL;
	place = slot < conn->rx.slots ? &conn->landing[slot] : NULL;
	if (!place || !place->pending || offset != place->next || length > place->end - place->next) {
		xi_conn_protocol(conn, "data for slot %u at %u that nobody expects", slot, offset);
		return NULL;
	}
	XI_DASSERT(place->end <= XI_SLOT_SIZE_MAX && !conn->limits.map);
	XI_DASSERT(length > 0);
	return conn->rx_base + xi_layout_slot(&conn->rx, slot, &size) + offset;
}

uint32_t xi_conn_bulk_expected(struct xi_conn *conn, uint32_t slot)
{
	const struct xi_place *place = &conn->landing[slot];

	XI_ASSERT(slot < conn->rx.slots && place->next <= place->end);
	return place->pending ? place->end - place->next : 0;
}

bool xi_conn_bulk_done(struct xi_conn *conn, uint32_t slot, uint32_t length)
{
	struct xi_place *place = &conn->landing[slot];

	XI_ASSERT(slot < conn->rx.slots && place->pending && length <= place->end - place->next);
	conn->heard_something = true;
	conn->channel->stats.copies += place->next + length == place->end; /* one copy a slot, by the kernel's hand */
	conn->channel->stats.copied_bytes += length;
	place->next += length;
	if (place->next < place->end)
		return true;
	return landed(conn, slot) && !conn->failed;
}

bool xi_conn_fetched(struct xi_conn *conn, uint32_t slot)
{
	XI_DASSERT(conn->reserved && !(conn->t->caps & (XI_CAP_STREAM | XI_CAP_LAZY)));
	XI_ASSERT(slot < conn->rx.slots);
	if (conn->failed || conn->phase < XI_PHASE_UP || conn->phase > XI_PHASE_FAREWELL)
		return false;
	if (!conn->landing[slot].pending)
		return true; /* forgotten meanwhile */
	return landed(conn, slot) && !conn->failed;
}
