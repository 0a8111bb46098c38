/* SPDX-License-Identifier: MIT */
/* Messages: one way, in order with requests, bounded by a credit that every frame's header returns. */
#include <errno.h>

#include "engine.h"

void xi_message_init(struct xi_conn *conn)
{
	uint32_t count = conn->limits.budget.messages_in;

	XI_ASSERT(count <= XI_MESSAGES_MAX);
	XI_ASSERT(conn->messages_free_count == 0);
	for (uint32_t i = 0; i < count; i++) {
		conn->messages[i].queued.message = true;
		conn->messages_free[conn->messages_free_count++] = (uint16_t)(count - 1 - i);
	}
}

static uint32_t messages_outstanding(const struct xi_conn *conn)
{
	XI_DASSERT((uint16_t)(conn->messages_sent - conn->messages_acked) <= conn->limits.budget.messages_out);
	return (uint16_t)(conn->messages_sent - conn->messages_acked);
}

int xenidc_send(xenidc_channel *channel, const void *payload, uint32_t payload_len)
{
	struct xi_conn *conn = channel->conn;
	uint8_t *frame;

	XI_DASSERT(channel && (!conn || conn->channel == channel));
	XI_ASSERT(payload || !payload_len);
	if (xi_loop_forked(channel->loop))
		return -ECHILD;
	if (!conn || conn->phase != XI_PHASE_UP || conn->failed)
		return -ENOTCONN;
	if (payload_len > conn->limits.budget.payload)
		return -EMSGSIZE;
	if (messages_outstanding(conn) >= conn->limits.budget.messages_out) {
		conn->want_message = true;
		return -EAGAIN;
	}
	conn->messages_sent++;
	channel->stats.messages_out++;
	channel->stats.bytes_out += payload_len;
	frame = conn->t->tx_begin(conn);
	conn->message_positions[conn->message_next] = xi_transmit(
		conn, frame, xi_frame_put_message(frame, xi_credit(conn), payload, payload_len), NULL, 0, 0);
	conn->message_next = (conn->message_next + 1) % conn->limits.budget.messages_out;
	return 0;
}

uint32_t xenidc_channel_message_credit(const xenidc_channel *channel)
{
	const struct xi_conn *conn = channel->conn;

	XI_ASSERT(channel && (!conn || conn->channel == channel));
	if (!conn || conn->phase != XI_PHASE_UP)
		return 0;
	return conn->limits.budget.messages_out - messages_outstanding(conn);
}

void xi_message_dispatch(struct xi_conn *conn, struct xi_in_message *m)
{
	xenidc_channel *channel = conn->channel;

	XI_DASSERT(channel && (uint16_t)(conn->messages_received - conn->messages_consumed) > 0);
	XI_DASSERT(conn->phase == XI_PHASE_UP || conn->phase == XI_PHASE_DRAINING);
	channel->stats.messages_in++;
	channel->stats.bytes_in += m->payload_len;
	if (xi_conn_audible(conn))
		XI_HANDLER(channel, message, channel, m->payload, m->payload_len);
	conn->messages_consumed++;
}

bool xi_message_arrived(struct xi_conn *conn, const struct xi_frame *frame)
{
	struct xi_in_message direct = { .payload = frame->payload, .payload_len = frame->payload_len };
	struct xi_in_message *m;

	/* What the peer may know of: not what was consumed meanwhile, but what some frame has told. */
	if ((uint16_t)(conn->messages_received - conn->messages_advertised) >= conn->limits.budget.messages_in)
		return xi_conn_protocol(conn, "a message without credit");
	conn->messages_received++;
	if (conn->phase == XI_PHASE_FAREWELL)
		return true; /* nothing new is accepted any more */
	if (xi_list_empty(&conn->queue)) {
		xi_message_dispatch(conn, &direct);
		return true;
	}
	XI_ASSERT(conn->messages_free_count > 0);
	m = &conn->messages[conn->messages_free[--conn->messages_free_count]];
	m->payload = frame->payload;
	m->payload_len = frame->payload_len;
	m->rx = xi_rx_keep(conn);
	xi_list_append(&conn->queue, &m->queued.link);
	return true;
}

/* Has the last message that this credit is for left? */
static bool credit_can_be(struct xi_conn *conn, uint16_t credit)
{
	uint32_t left = (uint16_t)(conn->messages_sent - credit), max = conn->limits.budget.messages_out;

	XI_DASSERT(left < max && conn->message_next < max);
	return xi_has_left(conn, conn->message_positions[(conn->message_next + max - 1 - left) % max]);
}

bool xi_message_credit(struct xi_conn *conn, uint16_t credit)
{
	XI_DASSERT(conn->reserved && conn->channel && credit != conn->messages_acked);
	if ((uint16_t)(credit - conn->messages_acked) > messages_outstanding(conn) || !credit_can_be(conn, credit))
		return xi_conn_protocol(conn, "credit for messages that were never sent");
	conn->messages_acked = credit;
	if (conn->want_message)
		xi_conn_wake(conn); /* not now: the frame that brought it stands in the buffer and is not handled yet */
	return true;
}

/* Half of the peer's messages: so at most two such frames are ever under way. */
void xi_message_return_credit(struct xi_conn *conn)
{
	uint32_t threshold = (conn->limits.budget.messages_in + 1) / 2;
	uint32_t news = (uint16_t)(conn->messages_consumed - conn->messages_advertised);
	bool enough = (news && news >= threshold) || conn->credit_retracted;
	uint8_t *frame;

	XI_DASSERT(news <= conn->limits.budget.messages_in && threshold <= XI_MESSAGES_MAX);
	if (!enough || (conn->phase != XI_PHASE_UP && conn->phase != XI_PHASE_DRAINING))
		return;
	if (conn->credit_position >= conn->t->tx_unsent(conn))
		return; /* the last one has not even left */
	frame = conn->t->tx_begin(conn);
	conn->credit_position = xi_transmit(conn, frame, xi_frame_put_credit(frame, xi_credit(conn)), NULL, 0, 0);
}
