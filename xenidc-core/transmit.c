/* SPDX-License-Identifier: MIT */
/* A frame leaves. */
#include "base/log.h"
#include "engine.h"

uint64_t xi_transmit(struct xi_conn *conn, uint8_t *frame, uint32_t length, const struct xi_seg *segs, uint32_t nsegs,
		     uint32_t tag)
{
	XI_DASSERT(conn->phase >= XI_PHASE_UP && conn->phase <= XI_PHASE_FAREWELL && nsegs <= conn->limits.budget.refs);
#ifdef XI_DEBUG /* what we send passes the check that it will meet at the peer */
	struct xi_frame parsed;
	const char *why;
	XI_ASSERT(xi_frame_parse(frame, length, &conn->frame_limits, &parsed, &why) == 0);
#endif
	XI_DASSERT(length <= conn->tx.frame_max);
	if (xi_trace_frames())
		xi_frame_trace(conn->limits.peer.address, "->", frame, length);
	conn->frames_sent++;
	conn->messages_advertised = conn->messages_consumed;
	conn->credit_retracted = false;
	conn->said_something = true;
	if (conn->channel)
		conn->channel->stats.frames_out++;
	if (!conn->dirty) {
		conn->dirty = true;
		/* Outside of a step nobody would come by to flush; inside one, the end of the batch does. */
		if (!conn->processing && xi_loop_in_step(conn->loop))
			xi_conn_wake(conn);
	}
	uint64_t position = conn->t->tx_commit(conn, length, segs, nsegs, tag);
	if (!xi_loop_in_step(conn->loop))
		xi_transmit_flush(conn);
	return position;
}

void xi_transmit_flush(struct xi_conn *conn)
{
	XI_DASSERT(conn->phase < XI_PHASE_OVER);
	if (!conn->dirty)
		return;
	XI_DASSERT(conn->reserved);
	conn->dirty = false;
	conn->t->flush(conn);
}
