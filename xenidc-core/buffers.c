/* SPDX-License-Identifier: MIT */
/* Buffers of ours: one slot each, from a stack of free ones for each class. */
#include <errno.h>

#include "engine.h"

static void init_direction(struct xi_conn *conn, enum xenidc_direction direction)
{
	struct xi_buffers *set = &conn->buffers[direction];
	uint32_t n = 0;

	for (uint8_t c = 0; c < XENIDC_CLASSES_MAX; c++) {
		for (uint32_t i = 0; i < set->cls[c].count; i++, n++) {
			struct xi_buffer *b = &set->all[n];
			uint32_t slot = direction == XENIDC_OUT ? n : conn->rx_peer + n;
			uint32_t size;
			if (direction == XENIDC_OUT)
				b->data = conn->tx_base + xi_layout_slot(&conn->tx, slot, &size);
			else
				b->data = conn->rx_base + xi_layout_slot(&conn->rx, slot, &size);
			XI_ASSERT(size == set->cls[c].size);
			b->capacity = size;
			b->cls = c;
			set->cls[c].free[set->cls[c].free_count++] = (uint16_t)n;
		}
	}
	XI_ASSERT(n == set->count);
}

void xi_buffers_init(struct xi_conn *conn)
{
	XI_ASSERT(conn->tx_base && conn->rx_base && conn->was_up == false);
	init_direction(conn, XENIDC_OUT);
	init_direction(conn, XENIDC_IN);
}

static struct xi_buffer *find(struct xi_conn *conn, const struct xenidc_buffer *buffer, int *ret_error)
{
	struct xi_buffers *set;
	struct xi_buffer *b;

	XI_DASSERT(ret_error && (!conn || conn->was_up || !conn->reserved || conn->phase < XI_PHASE_UP));
	*ret_error = -ESTALE;
	if (!conn || buffer->incarnation != conn->limits.incarnation || buffer->direction > XENIDC_IN)
		return NULL;
	set = &conn->buffers[buffer->direction];
	if (buffer->slot >= set->count)
		return NULL;
	b = &set->all[buffer->slot];
	return b->generation == buffer->generation && b->state != XI_BUFFER_FREE ? b : NULL;
}

int xenidc_buffer_get(xenidc_channel *channel, enum xenidc_direction direction, uint32_t size,
		      struct xenidc_buffer *ret)
{
	struct xi_conn *conn = channel->conn;
	struct xi_buffers *set;
	struct xi_buffer *b;
	int c = 0;
	uint16_t n;

	XI_DASSERT(ret && (!conn || conn->channel == channel));
	XI_ASSERT(direction == XENIDC_OUT || direction == XENIDC_IN);
	if (xi_loop_forked(channel->loop))
		return -ECHILD;
	if (!conn || conn->phase != XI_PHASE_UP || conn->failed)
		return -ENOTCONN;
	set = &conn->buffers[direction];
	while (c < XENIDC_CLASSES_MAX && set->cls[c].size < size)
		c++;
	if (c == XENIDC_CLASSES_MAX || !set->cls[c].count)
		return -EMSGSIZE;
	if (!set->cls[c].free_count) { /* not a larger one: those are there for whoever needs their size */
		conn->want_buffer = true;
		return -EAGAIN;
	}
	n = set->cls[c].free[--set->cls[c].free_count];
	b = &set->all[n];
	XI_ASSERT(b->state == XI_BUFFER_FREE);
	b->state = XI_BUFFER_TAKEN;
	b->put_later = false;
	b->generation++;
	*ret = (struct xenidc_buffer){ .data = b->data,
				       .capacity = b->capacity,
				       .slot = n,
				       .generation = b->generation,
				       .direction = (uint8_t)direction,
				       .incarnation = conn->limits.incarnation };
	return 0;
}

static void put_free(struct xi_conn *conn, struct xi_buffers *set, struct xi_buffer *b)
{
	XI_DASSERT(b->state != XI_BUFFER_FREE && b >= set->all && b < set->all + set->count);
	XI_DASSERT(set->cls[b->cls].free_count < set->cls[b->cls].count);
	b->state = XI_BUFFER_FREE;
	set->cls[b->cls].free[set->cls[b->cls].free_count++] = (uint16_t)(b - set->all);
	if (conn->want_buffer)
		xi_conn_wake(conn); /* `writable` is told by the task: never inside the client's own call */
}

int xenidc_buffer_put(xenidc_channel *channel, const struct xenidc_buffer *buffer)
{
	struct xi_conn *conn = channel->conn;
	struct xi_buffer *b;
	int e;

	XI_DASSERT(channel && (!conn || conn->channel == channel));
	XI_ASSERT(buffer);
	if (xi_loop_forked(channel->loop))
		return -ECHILD;
	b = find(conn, buffer, &e);
	if (!b)
		return e;
	if (b->put_later)
		return -ESTALE;
	if (b->state == XI_BUFFER_LENT)
		return -EBUSY;
	if (b->state == XI_BUFFER_ORPHAN)
		b->put_later = true; /* free as soon as the peer has answered */
	else
		put_free(conn, &conn->buffers[buffer->direction], b);
	return 0;
}

int xi_buffers_check(struct xi_conn *conn, const struct xenidc_ref *ref)
{
	struct xi_buffer *b;
	int e;

	XI_DASSERT(conn->phase == XI_PHASE_UP && ref);
	b = find(conn, &ref->buffer, &e);
	if (!b)
		return e;
	if (b->put_later)
		return -ESTALE;
	if (b->state != XI_BUFFER_TAKEN)
		return -EBUSY;
	if (ref->offset > b->capacity || ref->length > b->capacity - ref->offset)
		return -EINVAL;
	return 0;
}

void xi_buffers_release(struct xi_conn *conn, const struct xi_out_ref *ref)
{
	struct xi_buffers *set = &conn->buffers[ref->in ? XENIDC_IN : XENIDC_OUT];
	struct xi_buffer *b = &set->all[ref->buffer];

	XI_DASSERT(ref->buffer < set->count && (b->state == XI_BUFFER_ORPHAN || !b->put_later));
	XI_ASSERT(b->state == XI_BUFFER_LENT || b->state == XI_BUFFER_ORPHAN);
	if (b->put_later)
		put_free(conn, set, b);
	else
		b->state = XI_BUFFER_TAKEN;
}

static bool any_free(const struct xi_buffers *set)
{
	for (int c = 0; c < XENIDC_CLASSES_MAX; c++)
		if (set->cls[c].free_count)
			return true;
	return false;
}

void xi_writable(struct xi_conn *conn)
{
	xenidc_channel *channel = conn->channel;
	bool ready = false;

	XI_ASSERT(channel && conn->was_up);
	if (conn->want_request && conn->out_free_count) {
		conn->want_request = false;
		ready = true;
	}
	if (conn->want_message && xenidc_channel_message_credit(channel)) {
		conn->want_message = false;
		ready = true;
	}
	if (conn->want_buffer && (any_free(&conn->buffers[XENIDC_OUT]) || any_free(&conn->buffers[XENIDC_IN]))) {
		conn->want_buffer = false;
		ready = true;
	}
	if (ready && conn->phase == XI_PHASE_UP && !conn->failed && xi_conn_audible(conn))
		XI_HANDLER(channel, writable, channel);
}
