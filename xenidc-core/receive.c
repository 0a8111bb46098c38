/* SPDX-License-Identifier: MIT */
/* A frame arrives: it is checked here, once, and handed to the file that knows its kind. */
#include <errno.h>

#include "base/log.h"
#include "engine.h"

uint8_t *xi_conn_rx_buffer(struct xi_conn *conn)
{
	XI_ASSERT(conn->rx_free_count > 0);
	return conn->rx_free[conn->rx_free_count - 1];
}

uint8_t *xi_rx_keep(struct xi_conn *conn)
{
	XI_DASSERT(conn->reserved && conn->phase >= XI_PHASE_UP);
	XI_ASSERT(conn->rx_free_count > 1); /* one more must stay for the next frame; the tables bound what is kept */
	return conn->rx_free[--conn->rx_free_count];
}

void xi_rx_put(struct xi_conn *conn, uint8_t *buffer)
{
	XI_DASSERT(conn->reserved);
	XI_DASSERT(buffer && conn->rx_free_count < conn->limits.budget.requests_in + conn->limits.budget.requests_out +
							   conn->limits.budget.messages_in + 1);
	conn->rx_free[conn->rx_free_count++] = buffer;
}

/* CREDIT: its header was the news. */
static bool credit_arrived(struct xi_conn *conn, const struct xi_frame *frame)
{
	(void)conn;
	(void)frame;
	return true;
}

static bool ping_arrived(struct xi_conn *conn, const struct xi_frame *frame)
{
	return xi_beat_ping(conn, frame->number);
}

typedef bool frame_handler(struct xi_conn *conn, const struct xi_frame *frame);

static frame_handler *const handlers[XI_FRAME_KINDS] = {
	[XI_FRAME_REQUEST] = xi_in_request,
	[XI_FRAME_REPLY] = xi_out_reply,
	[XI_FRAME_MESSAGE] = xi_message_arrived,
	[XI_FRAME_CANCEL] = xi_in_cancel,
	[XI_FRAME_CREDIT] = credit_arrived,
	[XI_FRAME_PING] = ping_arrived,
	[XI_FRAME_DISCONNECT] = xi_ending_peer_disconnect,
};

static bool frames_flow(const struct xi_conn *conn)
{
	XI_DASSERT(conn->phase != XI_PHASE_NONE);
	return conn->phase >= XI_PHASE_UP && conn->phase <= XI_PHASE_FAREWELL && !conn->failed;
}

bool xi_conn_frame(struct xi_conn *conn, uint32_t length)
{
	const uint8_t *bytes = xi_conn_rx_buffer(conn);
	struct xi_frame frame;
	const char *why;

	XI_DASSERT(length <= conn->rx.frame_max && conn->rx_free_count > 0);
	XI_DASSERT(conn->reserved);
	if (!frames_flow(conn))
		return conn->phase < XI_PHASE_UP ? xi_conn_protocol(conn, "a frame before the connection was made")
						 : false;
	if (xi_trace_frames())
		xi_frame_trace(conn->limits.peer.address, "<-", bytes, length);
	if (xi_frame_parse(bytes, length, &conn->frame_limits, &frame, &why))
		return xi_conn_protocol(conn, "a frame with %s", why);
	conn->frames_received++;
	conn->heard_something = true;
	conn->channel->stats.frames_in++;
	if (frame.credit != conn->messages_acked && !xi_message_credit(conn, frame.credit))
		return false;
	return handlers[frame.kind](conn, &frame) && frames_flow(conn);
}
