/* SPDX-License-Identifier: MIT */
/* How a connection ends: linger, DISCONNECT both ways, take everything back, let go, idle. */
#include <errno.h>
#include <string.h>

#include "base/cursor.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/os.h"
#include "engine.h"

static void send_disconnect(struct xi_conn *conn, enum xenidc_reason reason, const char *text)
{
	uint8_t *frame = conn->t->tx_begin(conn);

	XI_ASSERT(text && conn->tx_base && conn->phase >= XI_PHASE_UP && conn->phase <= XI_PHASE_FAREWELL);
	XI_ASSERT(conn->was_up);
	xi_transmit(conn, frame, xi_frame_put_disconnect(frame, xi_credit(conn), conn->last_dispatched, reason, text),
		    NULL, 0, 0);
	xi_transmit_flush(conn);
}

static void tell_disconnecting(struct xi_conn *conn)
{
	if (conn->told_disconnecting || !conn->was_up)
		return;
	conn->told_disconnecting = true;
	if (xi_conn_audible(conn))
		XI_HANDLER(conn->channel, disconnecting, conn->channel, &conn->why);
}

/* --- Leaving in order */

static void timer_fired(struct xenidc_timer *timer);

static void start_timer(struct xi_conn *conn, uint64_t after_ns)
{
	XI_ASSERT(conn->phase == XI_PHASE_DRAINING || conn->phase == XI_PHASE_FAREWELL ||
		  conn->phase == XI_PHASE_ENDING);
	if (xenidc_timer_start(conn->loop, &conn->timer, after_ns, timer_fired))
		xi_conn_end(conn, false, conn->why.reason, conn->why.code, "%s",
			    conn->why.text); /* do not wait at all */
}

static void leave(struct xi_conn *conn)
{
	uint64_t now = xi_loop_clock(conn->loop);
	uint64_t wait = conn->times.close_ns;

	XI_ASSERT(wait > 0 && conn->was_up);
	if (!xi_conn_event(conn, XI_EVENT_LEAVE))
		return;
	XI_ASSERT(conn->phase == XI_PHASE_FAREWELL);
	XI_FAILPOINT(before_disconnect_sent);
	send_disconnect(conn, XENIDC_REASON_CLOSED, "closed by the peer");
	if (conn->linger_until > now + wait)
		wait = conn->linger_until - now; /* what was accepted may still be consumed */
	start_timer(conn, wait);
}

static void timer_fired(struct xenidc_timer *timer)
{
	struct xi_conn *conn = XI_CONTAINER(timer, struct xi_conn, timer);

	switch (conn->phase) {
	case XI_PHASE_DRAINING:
		leave(conn);
		break;
	case XI_PHASE_FAREWELL: /* the peer does not answer: without it, then */
		xi_conn_end(conn, false, conn->why.reason, conn->why.code, "%s", conn->why.text);
		break;
	case XI_PHASE_ENDING:
		conn->close_done = true;
		xi_conn_wake(conn);
		break;
	default:
		XI_ASSERT(!"a timer in a phase that has none");
	}
}

void xi_ending_farewell(struct xi_conn *conn)
{
	XI_ASSERT(conn->was_up && !conn->failed);
	XI_ASSERT(conn->phase == XI_PHASE_UP);
	send_disconnect(conn, XENIDC_REASON_CLOSED, "closed by the peer");
}

void xi_ending_close(struct xi_conn *conn, uint64_t linger_ns)
{
	bool up = conn->phase == XI_PHASE_UP || conn->phase == XI_PHASE_DRAINING;

	XI_ASSERT(conn->channel && conn->phase != XI_PHASE_NONE);
	if (conn->failed || conn->phase >= XI_PHASE_FAREWELL)
		return;
	if (!up) {
		xi_conn_end(conn, false, XENIDC_REASON_CANCELLED, -ECANCELED, "the connect was given up by this side");
		return;
	}
	if (conn->phase == XI_PHASE_UP)
		xi_error(&conn->why, 0, XENIDC_REASON_CLOSED, "closed by this side");
	conn->linger_until = xi_loop_clock(conn->loop) + linger_ns;
	if (linger_ns && conn->phase == XI_PHASE_UP)
		xi_conn_event(conn, XI_EVENT_CLOSE);
	if (linger_ns)
		start_timer(conn, linger_ns);
	else
		leave(conn);
	xi_conn_wake(conn);
}

/* Everything that was accepted, on both sides, has had its end. */
static bool drained(const struct xi_conn *conn)
{
	XI_DASSERT(conn->was_up && conn->in_busy <= conn->limits.budget.requests_in);
	return xi_out_drained(conn) && conn->in_busy == 0 && xi_list_empty(&conn->queue);
}

void xi_ending_check(struct xi_conn *conn)
{
	XI_DASSERT(conn->channel);
	XI_DASSERT(conn->reserved);
	if (conn->phase == XI_PHASE_DRAINING && drained(conn))
		xi_conn_wake(conn);
}

/* --- The peer leaves */

bool xi_ending_peer_disconnect(struct xi_conn *conn, const struct xi_frame *frame)
{
	enum xenidc_reason reason = (enum xenidc_reason)frame->reason;
	char text[XI_REASON_TEXT_MAX + 1];

	XI_ASSERT(frame->kind == XI_FRAME_DISCONNECT && conn->was_up);
	XI_ASSERT(frame->payload_len <= XI_REASON_TEXT_MAX);
	memcpy(text, frame->payload, frame->payload_len);
	text[frame->payload_len] = '\0';
	xi_text_printable(text);
	conn->peer_said = true;
	conn->peer_last = frame->number;
	if (conn->phase == XI_PHASE_FAREWELL) {
		xi_conn_end(conn, false, conn->why.reason, conn->why.code, "%s", conn->why.text);
		return false;
	}
	if (reason == XENIDC_REASON_CLOSED)
		xi_conn_end(conn, true, reason, -ENOTCONN, "the peer closed the channel");
	else
		xi_conn_end(conn, true, reason, -ECONNABORTED, "the peer ended the channel (%s): \"%s\"",
			    xenidc_reason_name(reason), text);
	return false;
}

/* --- Taking back */

/* May the peer still hear why? Not when it is gone, nor twice. */
static bool can_say_goodbye(const struct xi_conn *conn)
{
	bool gone = !conn->why.by_peer &&
		    (conn->why.reason == XENIDC_REASON_LOST || conn->why.reason == XENIDC_REASON_PEER_DIED);

	XI_ASSERT(conn->failed && conn->phase < XI_PHASE_ENDING);
	return conn->was_up && (conn->phase == XI_PHASE_UP || conn->phase == XI_PHASE_DRAINING) && !gone;
}

/* Whatever the end is called: a peer may also die while its answer to our DISCONNECT is awaited. */
static void ask_the_dead(struct xi_conn *conn)
{
	XI_ASSERT(conn->was_up && conn->phase == XI_PHASE_ENDING);
	if (conn->peer_said || !conn->t->peer_dispatched)
		return;
	conn->peer_said = conn->t->peer_dispatched(conn, &conn->peer_last);
}

static void take_back(struct xi_conn *conn)
{
	bool event;

	XI_ASSERT(conn->failed && !conn->processing);
	if (can_say_goodbye(conn))
		send_disconnect(conn, conn->why.by_peer ? XENIDC_REASON_CLOSED : conn->why.reason,
				conn->why.by_peer ? "answer" : conn->why.text);
	event = xi_conn_event(conn, XI_EVENT_LOST);
	XI_ASSERT(event && conn->phase == XI_PHASE_ENDING);
	if (conn->was_up)
		ask_the_dead(conn);
	xenidc_timer_stop(&conn->timer);
	xenidc_timer_stop(&conn->beat);
	xenidc_timer_stop(&conn->deadlines);
	xi_conn_unpoll(conn);
	XI_FAILPOINT(before_close);
	conn->close_done = conn->t->close(conn) != XI_PENDING;
	if (conn->was_up) /* not before: close() may still send what was committed */
		conn->unsent_at_end = conn->t->tx_unsent(conn);
	if (!conn->close_done)
		start_timer(conn, conn->times.close_ns);
	tell_disconnecting(conn);
	if (conn->was_up) {
		xi_out_end_all(conn);
		xi_in_abandon_all(conn);
	}
}

static void finish(struct xi_conn *conn)
{
	xenidc_channel *channel = conn->channel;
	struct xenidc_error why = conn->why;
	bool event;

	XI_ASSERT(conn->close_done && conn->in_busy == 0 && (!channel || channel->conn == conn));
	event = xi_conn_event(conn, XI_EVENT_DONE);
	XI_ASSERT(event && xi_list_empty(&conn->in_flight));
	if (conn->listener)
		xi_listener_forget(conn);
	if (channel)
		channel->conn = NULL;
	xi_conn_free(conn);
	if (channel)
		xi_channel_idle(channel, &why);
}

void xi_ending_run(struct xi_conn *conn)
{
	XI_ASSERT(!conn->processing && conn->phase != XI_PHASE_OVER);
	if (conn->failed && conn->phase < XI_PHASE_ENDING) {
		take_back(conn);
	} else if (conn->phase == XI_PHASE_DRAINING || conn->phase == XI_PHASE_FAREWELL) {
		tell_disconnecting(conn);
		if (conn->phase == XI_PHASE_DRAINING && drained(conn))
			leave(conn);
	} else if (conn->phase == XI_PHASE_UP) {
		xi_writable(conn);
	}
	if (conn->phase == XI_PHASE_ENDING) {
		if (conn->close_done && conn->in_busy == 0)
			finish(conn);
		return;
	}
	xi_transmit_flush(conn);
}
