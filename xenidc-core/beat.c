/* SPDX-License-Identifier: MIT */
/*
 * Heartbeat: each side sends something at least once a period and expects the same of the other. Periods are aligned to
 * multiples on the clock, so that many channels share one wake-up.
 */
#include <errno.h>
#include <string.h>

#include "base/os.h"
#include "engine.h"

#define PINGS (sizeof(((struct xi_conn *)0)->pings_sent_at) / sizeof(uint32_t))

static void beat(struct xenidc_timer *timer);

static bool alive(const struct xi_conn *conn)
{
	return !conn->failed && (conn->phase == XI_PHASE_UP || conn->phase == XI_PHASE_DRAINING);
}

/*
 * What was said just after one beat is not followed by a PING before the beat after the next: two periods are at most
 * one heartbeat. Silence must be noticed in time, so a period is also at most half of the first bound on it.
 */
static uint64_t period(const struct xi_conn *conn)
{
	uint64_t half = conn->times.stalled_ns / 2;
	uint64_t p = conn->times.heartbeat_ns / 2 < half ? conn->times.heartbeat_ns / 2 : half;

	XI_ASSERT(conn->times.stalled_ns > 0);
	XI_ASSERT(conn->times.heartbeat_ns > 0);
	return p ? p : 1;
}

static void next_beat(struct xi_conn *conn, uint64_t now)
{
	uint64_t p = period(conn);
	uint64_t at = now - now % p + p;
	uint64_t dead = conn->heard_ns + conn->times.dead_ns;

	XI_ASSERT(at > now && conn->times.dead_ns > 0);
	if (dead > now && dead < at)
		at = dead;
	if (xenidc_timer_start(conn->loop, &conn->beat, at - now, beat))
		xi_conn_end(conn, false, XENIDC_REASON_LIMIT, -ENOSPC,
			    "no timer is left for the channel; use fewer timers or channels on one loop");
}

void xi_beat_start(struct xi_conn *conn)
{
	uint64_t now = xi_loop_clock(conn->loop);

	XI_ASSERT(conn->pings_out == 0 && now > 0);
	XI_ASSERT(conn->phase == XI_PHASE_UP);
	conn->heard_ns = now;
	conn->jumps = xi_loop_jumps(conn->loop);
	next_beat(conn, now);
}

static void send_ping(struct xi_conn *conn)
{
	uint8_t *frame;

	XI_ASSERT(conn->pings_out <= PINGS && alive(conn));
	if (conn->pings_out == PINGS)
		return; /* the peer reads nothing: more would only pile up */
	frame = conn->t->tx_begin(conn);
	conn->ping_positions[conn->pings_out] =
		xi_transmit(conn, frame, xi_frame_put_ping(frame, xi_credit(conn), conn->frames_received), NULL, 0, 0);
	conn->pings_sent_at[conn->pings_out++] = conn->frames_sent;
}

bool xi_beat_ping(struct xi_conn *conn, uint32_t received)
{
	unsigned kept = 0;

	XI_DASSERT(conn->pings_out <= PINGS);
	if (received > conn->frames_sent && xi_sequence_after(received, conn->frames_sent))
		return xi_conn_protocol(conn, "a receipt for frames that were never sent");
	for (unsigned i = 0; i < conn->pings_out; i++)
		if (xi_sequence_after(conn->pings_sent_at[i], received) ||
		    !xi_has_left(conn, conn->ping_positions[i])) {
			conn->ping_positions[kept] = conn->ping_positions[i];
			conn->pings_sent_at[kept++] = conn->pings_sent_at[i];
		}
	XI_ASSERT(kept <= conn->pings_out);
	conn->pings_out = kept;
	return true;
}

static void report_stalled(struct xi_conn *conn, bool stalled)
{
	XI_ASSERT(alive(conn));
	if (conn->is_stalled == stalled)
		return;
	conn->is_stalled = stalled;
	if (xi_conn_audible(conn))
		XI_HANDLER(conn->channel, stalled, conn->channel, stalled);
}

/* What the silence since the last beat means. False: the connection has ended. */
static bool listen_for_peer(struct xi_conn *conn, uint64_t now)
{
	uint32_t jumps = xi_loop_jumps(conn->loop);
	uint64_t silence;

	XI_ASSERT(conn->channel && conn->times.stalled_ns <= conn->times.dead_ns);
	if (conn->heard_something || conn->jumps != jumps) { /* we were suspended: not the peer's silence */
		conn->heard_something = false;
		conn->jumps = jumps;
		conn->heard_ns = now;
	}
	silence = now - conn->heard_ns;
	XI_DASSERT(now >= conn->heard_ns);
	if (silence >= conn->times.dead_ns) {
		xi_conn_end(conn, false, XENIDC_REASON_SILENT, -ETIMEDOUT,
			    "nothing was heard from %s for %llu ms; it is stopped, overloaded, or cut off: check it "
			    "and the "
			    "network between, then connect again",
			    conn->limits.peer.address, (unsigned long long)(silence / XI_MS));
		return false;
	}
	report_stalled(conn, silence >= conn->times.stalled_ns);
	return true;
}

static void beat(struct xenidc_timer *timer)
{
	struct xi_conn *conn = XI_CONTAINER(timer, struct xi_conn, beat);
	uint64_t now = xi_loop_clock(conn->loop);

	XI_ASSERT(conn->was_up && now > 0);
	if (!alive(conn))
		return;
	if (!conn->deadlines_due)
		xi_out_check_deadlines(conn);
	if (!listen_for_peer(conn, now) || !alive(conn))
		return;
	if (!conn->said_something)
		send_ping(conn);
	conn->said_something = false;
	next_beat(conn, now);
}
