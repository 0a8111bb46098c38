/* SPDX-License-Identifier: MIT */
/* Requests of the peer's: taken in order, dispatched when their data are complete, answered whenever the client
 * likes. */
#include <errno.h>
#include <string.h>

#include "base/failpoint.h"
#include "engine.h"

static uint16_t in_index(const struct xi_conn *conn, const struct xi_in *in)
{
	XI_DASSERT(in >= conn->in && in < conn->in + conn->limits.budget.requests_in);
	return (uint16_t)(in - conn->in);
}

static uint32_t in_wire_id(const struct xi_conn *conn, const struct xi_in *in)
{
	XI_DASSERT(in->state != XI_IN_FREE && conn->reserved);
	return (uint32_t)in->generation << 16 | in_index(conn, in);
}

static xenidc_incoming in_handle(const struct xi_conn *conn, const struct xi_in *in)
{
	XI_DASSERT(in->state == XI_IN_EXECUTING || in->state == XI_IN_ABANDONED);
	return xi_handle(conn, in->generation, in_index(conn, in));
}

/* The request, its loans included, is over here. */
static void in_free(struct xi_conn *conn, struct xi_in *in)
{
	XI_DASSERT(in->nrefs <= conn->limits.budget.refs);
	XI_ASSERT(in->state != XI_IN_FREE && in->rx);
	for (unsigned i = 0; i < in->nrefs; i++) {
		const struct xi_in_ref *ref = &in->refs[i];
		if (ref->in) {
			conn->answers[ref->slot - conn->tx_own] = false;
			continue;
		}
		xi_landing_forget(conn, ref->slot);
		conn->landing[ref->slot].busy = false;
	}
	if (in->state == XI_IN_EXECUTING || in->state == XI_IN_ABANDONED)
		conn->in_busy--;
	in->state = XI_IN_FREE;
	xi_rx_put(conn, in->rx);
	in->rx = NULL;
}

/* Say that the handler has not seen it and never will. */
static void refuse(struct xi_conn *conn, struct xi_in *in)
{
	uint32_t id = in_wire_id(conn, in);
	uint8_t *frame;

	XI_ASSERT(in->state == XI_IN_QUEUED && conn->phase <= XI_PHASE_DRAINING);
	in_free(conn, in);
	frame = conn->t->tx_begin(conn);
	in->reply_position =
		xi_transmit(conn, frame, xi_frame_put_not_executed(frame, id, xi_credit(conn)), NULL, 0, 0);
}

/* --- Arrival */

/* Check one reference and mark what it names as lent. */
static bool take_ref(struct xi_conn *conn, struct xi_in *in, const struct xi_wire_ref *wire)
{
	const struct xi_layout *layout = wire->in ? &conn->tx : &conn->rx;
	uint32_t count = wire->in ? conn->tx.slots - conn->tx_own : conn->rx_peer;
	struct xi_in_ref *ref = &in->refs[in->nrefs];
	uint32_t slot = wire->in ? conn->tx_own + wire->slot : wire->slot;
	uint32_t size;

	XI_DASSERT(in->state == XI_IN_FREE && in->nrefs < conn->limits.budget.refs);
	if (wire->slot >= count)
		return xi_conn_protocol(conn, "a reference to slot %u of %u", wire->slot, count);
	xi_layout_slot(layout, slot, &size);
	if (wire->offset > size || wire->length > size - wire->offset)
		return xi_conn_protocol(conn, "a reference beyond the end of its slot");
	if (wire->in ? conn->answers[wire->slot] : conn->landing[slot].busy)
		return xi_conn_protocol(conn, "a reference to a slot that is lent already");
	if (wire->in)
		conn->answers[wire->slot] = true;
	else
		conn->landing[slot].busy = true;
	*ref = (struct xi_in_ref){ .offset = wire->offset,
				   .length = wire->length,
				   .slot = (uint16_t)slot,
				   .generation = wire->generation,
				   .in = wire->in };
	in->nrefs++;
	return true;
}

/* OUT data that have to be here before the handler runs: all of them, where looking later might have to wait. */
static bool expect_data(struct xi_conn *conn, struct xi_in *in)
{
	XI_DASSERT(in->state == XI_IN_QUEUED && in->rx);
	in->pending = 0;
	if (conn->limits.map || conn->t->caps & XI_CAP_LAZY)
		return true;
	for (unsigned i = 0; i < in->nrefs; i++) {
		struct xi_in_ref *ref = &in->refs[i];
		int e;
		if (ref->in)
			continue;
		ref->here = true;
		e = xi_landing_expect(conn, ref->slot, in_index(conn, in), ref->offset, ref->length);
		if (e < 0)
			return false;
		in->pending = (uint16_t)(in->pending + e);
	}
	return true;
}

static struct xi_in *new_request(struct xi_conn *conn, const struct xi_frame *frame)
{
	uint16_t index = (uint16_t)frame->id, generation = (uint16_t)(frame->id >> 16);
	struct xi_in *in;

	XI_DASSERT(frame->kind == XI_FRAME_REQUEST && conn->reserved);
	if (index >= conn->limits.budget.requests_in) {
		xi_conn_protocol(conn, "a request beyond its credit");
		return NULL;
	}
	in = &conn->in[index];
	if (in->state != XI_IN_FREE || (int16_t)(uint16_t)(generation - in->generation) <= 0) {
		xi_conn_protocol(conn, "a request whose id is in use or was used before");
		return NULL;
	}
	if (!xi_has_left(conn, in->reply_position)) {
		xi_conn_protocol(conn, "a request whose credit came with a reply that it cannot have read");
		return NULL;
	}
	if (!xi_sequence_after(frame->number, conn->sequence_in)) {
		xi_conn_protocol(conn, "a request out of sequence");
		return NULL;
	}
	conn->sequence_in = frame->number;
	in->generation = generation;
	in->sequence = frame->number;
	in->nrefs = 0;
	return in;
}

static void queue_run(struct xi_conn *conn);

bool xi_in_request(struct xi_conn *conn, const struct xi_frame *frame)
{
	struct xi_in *in = new_request(conn, frame);

	if (!in)
		return false;
	XI_DASSERT(in->state == XI_IN_FREE && !in->rx && frame->nrefs <= conn->limits.budget.refs);
	for (unsigned i = 0; i < frame->nrefs; i++) {
		struct xi_wire_ref wire = xi_frame_ref(frame, i);
		if (!take_ref(conn, in, &wire))
			return false;
	}
	in->payload = frame->payload;
	in->payload_len = frame->payload_len;
	in->rx = xi_rx_keep(conn);
	in->state = XI_IN_QUEUED;
	conn->channel->stats.requests_in++;
	xi_list_append(&conn->queue, &in->queued.link);
	if (!expect_data(conn, in))
		return false;
	queue_run(conn);
	return true;
}

bool xi_in_landed(struct xi_conn *conn, uint16_t index)
{
	struct xi_in *in = &conn->in[index];

	XI_ASSERT(in->state == XI_IN_QUEUED && in->pending > 0);
	in->pending--;
	queue_run(conn);
	return true;
}

/* --- Dispatch */

/* What has come with a request, now that all of it is here. */
static void count_bytes(xenidc_channel *channel, const struct xi_in *in)
{
	XI_DASSERT(in->pending == 0 && in->rx);
	channel->stats.bytes_in += in->payload_len;
	for (unsigned i = 0; i < in->nrefs; i++)
		if (!in->refs[i].in)
			channel->stats.bytes_in += in->refs[i].length;
}

static void dispatch(struct xi_conn *conn, struct xi_in *in)
{
	xenidc_channel *channel = conn->channel;

	XI_DASSERT(in->state == XI_IN_QUEUED && in->rx);
	XI_DASSERT(in->pending == 0);
	count_bytes(channel, in);
	if (!xi_conn_audible(conn) || !channel->handlers.request || conn->phase == XI_PHASE_DRAINING) {
		refuse(conn, in);
		return;
	}
	in->state = XI_IN_EXECUTING;
	conn->in_busy++;
	conn->last_dispatched = in->sequence;
	XI_FAILPOINT(before_dispatch_published);
	if (conn->t->publish_dispatch)
		conn->t->publish_dispatch(conn, in->sequence);
	XI_FAILPOINT(after_dispatch_published);
	XI_HANDLER(channel, request, channel, in_handle(conn, in));
}

/* Dispatch what is at the front of the queue and complete. */
static void queue_run(struct xi_conn *conn)
{
	XI_DASSERT(conn->reserved && conn->phase >= XI_PHASE_UP);
	while (!xi_list_empty(&conn->queue) && !conn->failed && conn->phase < XI_PHASE_FAREWELL) {
		struct xi_queued *q = XI_CONTAINER(conn->queue.next, struct xi_queued, link);
		if (q->message) {
			struct xi_in_message *m = XI_CONTAINER(q, struct xi_in_message, queued);
			xi_list_remove(&q->link);
			xi_message_dispatch(conn, m);
			xi_rx_put(conn, m->rx);
			conn->messages_free[conn->messages_free_count++] = (uint16_t)(m - conn->messages);
			continue;
		}
		struct xi_in *in = XI_CONTAINER(q, struct xi_in, queued);
		if (in->pending)
			return;
		xi_list_remove(&q->link);
		dispatch(conn, in);
	}
}

bool xi_in_cancel(struct xi_conn *conn, const struct xi_frame *frame)
{
	uint16_t index = (uint16_t)frame->id;
	struct xi_in *in = index < conn->limits.budget.requests_in ? &conn->in[index] : NULL;

	XI_DASSERT(frame->kind == XI_FRAME_CANCEL && conn->reserved);
	if (!in || in->generation != frame->id >> 16)
		return xi_conn_protocol(conn, "a cancel of a request that was never made");
	if (conn->phase == XI_PHASE_FAREWELL)
		return true;
	if (in->state == XI_IN_QUEUED) {
		xi_list_remove(&in->queued.link);
		refuse(conn, in);
		queue_run(conn);
	} else if (in->state == XI_IN_EXECUTING && xi_conn_audible(conn)) {
		XI_HANDLER(conn->channel, cancel, conn->channel, in_handle(conn, in));
	}
	return true; /* FREE: its reply crossed the cancel */
}

/* --- What a handler does */

/* The request that a handle names, with its handler still at it; `executing`: and its connection still up. */
static int find(xenidc_channel *channel, xenidc_incoming request, bool executing, struct xi_in **ret)
{
	struct xi_conn *conn = channel->conn;
	uint16_t index = (uint16_t)request;
	struct xi_in *in;

	XI_DASSERT(ret && (!conn || conn->channel == channel));
	if (xi_loop_forked(channel->loop))
		return -ECHILD;
	if (!conn || !conn->in || conn->limits.incarnation != request >> 32 || index >= conn->limits.budget.requests_in)
		return -ESTALE;
	in = &conn->in[index];
	if (in->generation != (uint16_t)(request >> 16) ||
	    (in->state != XI_IN_EXECUTING && (executing || in->state != XI_IN_ABANDONED)))
		return -ESTALE;
	XI_DASSERT(in->rx && in->nrefs <= conn->limits.budget.refs);
	*ret = in;
	return 0;
}

int xenidc_incoming_payload(xenidc_channel *channel, xenidc_incoming request, const void **ret, uint32_t *ret_len)
{
	struct xi_in *in;
	int e = find(channel, request, false, &in);

	XI_ASSERT(ret && ret_len);
	if (e)
		return e;
	*ret = in->payload;
	*ret_len = in->payload_len;
	return 0;
}

int xenidc_incoming_refs(xenidc_channel *channel, xenidc_incoming request)
{
	struct xi_in *in;
	int e = find(channel, request, false, &in);

	return e ? e : in->nrefs;
}

int xenidc_incoming_ref(xenidc_channel *channel, xenidc_incoming request, uint32_t index,
			enum xenidc_direction *ret_direction, uint32_t *ret_length)
{
	struct xi_in *in;
	int e = find(channel, request, false, &in);

	XI_ASSERT(ret_direction && ret_length);
	if (e)
		return e;
	if (index >= in->nrefs)
		return -EINVAL;
	*ret_direction = in->refs[index].in ? XENIDC_IN : XENIDC_OUT;
	*ret_length = in->refs[index].length;
	return 0;
}

static uint8_t *ref_memory(struct xi_conn *conn, const struct xi_in_ref *ref)
{
	uint32_t size;

	XI_DASSERT(conn->tx_base && conn->rx_base && ref->slot < (ref->in ? conn->tx.slots : conn->rx.slots));
	if (ref->in)
		return conn->tx_base + xi_layout_slot(&conn->tx, ref->slot, &size) + ref->offset;
	return conn->rx_base + xi_layout_slot(&conn->rx, ref->slot, &size) + ref->offset;
}

/* Bring OUT data into landing memory, once. */
static int bring(struct xi_conn *conn, struct xi_in_ref *ref)
{
	int e;

	XI_DASSERT(ref->in || ref->slot < conn->rx_peer);
	if (ref->in || ref->here || conn->limits.map)
		return 0;
	XI_ASSERT(conn->t->caps & XI_CAP_LAZY);
	if (ref->length) {
		e = conn->t->fetch(conn, ref->slot, ref->offset, ref->length);
		if (e < 0)
			return e;
		conn->channel->stats.copies++;
		conn->channel->stats.copied_bytes += ref->length;
	}
	ref->here = true;
	return 0;
}

int xenidc_view(xenidc_channel *channel, xenidc_incoming request, uint32_t index, void **ret, uint32_t *ret_len)
{
	struct xi_in *in;
	int e = find(channel, request, true, &in);

	XI_ASSERT(ret && ret_len);
	if (e)
		return e;
	if (index >= in->nrefs)
		return -EINVAL;
	e = bring(channel->conn, &in->refs[index]);
	if (e)
		return e;
	*ret = ref_memory(channel->conn, &in->refs[index]);
	*ret_len = in->refs[index].length;
	return 0;
}

static bool in_range(const struct xi_in_ref *ref, uint32_t offset, uint32_t length)
{
	XI_DASSERT(ref->length <= XI_SLOT_SIZE_MAX && ref->offset <= XI_SLOT_SIZE_MAX);
	return offset <= ref->length && length <= ref->length - offset;
}

int xenidc_read(xenidc_channel *channel, xenidc_incoming request, uint32_t index, uint32_t offset, void *to,
		uint32_t length)
{
	struct xi_conn *conn = channel->conn;
	struct xi_in_ref *ref;
	struct xi_in *in;
	int e = find(channel, request, true, &in);

	if (e)
		return e;
	if (index >= in->nrefs || in->refs[index].in || !in_range(&in->refs[index], offset, length))
		return -EINVAL;
	ref = &in->refs[index];
	if (!length)
		return 0;
	XI_ASSERT(to);
	if (!ref->here && !conn->limits.map && conn->t->read) {
		e = conn->t->read(conn, ref->slot, ref->offset + offset, to, length);
	} else {
		e = bring(conn, ref);
		if (!e)
			memcpy(to, ref_memory(conn, ref) + offset, length);
	}
	if (e)
		return e;
	channel->stats.copies++;
	channel->stats.copied_bytes += length;
	return 0;
}

int xenidc_write(xenidc_channel *channel, xenidc_incoming request, uint32_t index, uint32_t offset, const void *from,
		 uint32_t length)
{
	struct xi_in *in;
	int e = find(channel, request, true, &in);

	if (e)
		return e;
	if (index >= in->nrefs || !in->refs[index].in || !in_range(&in->refs[index], offset, length))
		return -EINVAL;
	if (!length)
		return 0;
	XI_ASSERT(from);
	memcpy(ref_memory(channel->conn, &in->refs[index]) + offset, from, length);
	channel->stats.copies++;
	channel->stats.copied_bytes += length;
	return 0;
}

/* --- Reply */

/* The valid lengths of IN references, checked, to conn->valid; what of them has to travel, to conn->segs. */
static int gather_answer(struct xi_conn *conn, const struct xi_in *in, const uint32_t *valid, uint32_t *ret_valid,
			 uint32_t *ret_segs)
{
	uint32_t n = 0, segs = 0;

	XI_DASSERT(in->state == XI_IN_EXECUTING && conn->valid && conn->segs);
	XI_DASSERT(in->nrefs <= conn->limits.budget.refs);
	for (unsigned i = 0; i < in->nrefs; i++) {
		const struct xi_in_ref *ref = &in->refs[i];
		uint32_t bytes;
		if (!ref->in)
			continue;
		bytes = valid ? valid[i] : ref->length;
		if (bytes > ref->length)
			return -EINVAL;
		conn->valid[n++] = bytes;
		if (bytes)
			conn->segs[segs++] = (struct xi_seg){ ref->slot, ref->offset, bytes };
	}
	*ret_valid = n;
	*ret_segs = segs;
	return 0;
}

int xenidc_reply(xenidc_channel *channel, xenidc_incoming request, const struct xenidc_reply *reply)
{
	struct xi_conn *conn = channel->conn;
	struct xi_in *in;
	uint32_t nvalid, nsegs, id, length;
	uint8_t *frame;
	int e;

	XI_DASSERT(channel && reply && (reply->payload || !reply->payload_len));
	e = find(channel, request, false, &in);
	if (e)
		return e;
	if (in->state == XI_IN_ABANDONED || conn->failed || conn->phase >= XI_PHASE_FAREWELL) {
		in_free(conn, in);
		xi_conn_wake(conn); /* idle may have waited for this */
		return 0;
	}
	if (reply->payload_len > conn->limits.budget.payload)
		return -EMSGSIZE;
	e = gather_answer(conn, in, reply->valid, &nvalid, &nsegs);
	if (e)
		return e;
	id = in_wire_id(conn, in);
	in_free(conn, in);
	channel->stats.replies_out++;
	channel->stats.bytes_out += reply->payload_len;
	for (uint32_t i = 0; i < nsegs; i++)
		channel->stats.bytes_out += conn->segs[i].length;
	frame = conn->t->tx_begin(conn);
	length = xi_frame_put_reply(frame, id, xi_credit(conn), reply->status, conn->valid, nvalid, reply->payload,
				    reply->payload_len);
	/* No tag: our own requests have the same numbers, and what cancels one of them must not drop this. */
	in->reply_position = xi_transmit(conn, frame, length, conn->segs, nsegs, 0);
	xi_ending_check(conn);
	return 0;
}

/* --- The end of the connection */

void xi_in_abandon_all(struct xi_conn *conn)
{
	uint32_t count = conn->limits.budget.requests_in;

	XI_ASSERT(conn->was_up && !conn->processing);
	XI_ASSERT(conn->phase == XI_PHASE_ENDING);
	xi_list_init(&conn->queue); /* what no handler has seen is simply gone */
	for (uint32_t i = 0; i < count; i++)
		if (conn->in[i].state == XI_IN_EXECUTING)
			conn->in[i].state = XI_IN_ABANDONED;
	for (uint32_t i = 0; i < count; i++)
		if (conn->in[i].state == XI_IN_ABANDONED && xi_conn_audible(conn))
			XI_HANDLER(conn->channel, abandoned, conn->channel, in_handle(conn, &conn->in[i]));
}
