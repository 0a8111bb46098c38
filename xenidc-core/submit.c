/* SPDX-License-Identifier: MIT */
/* Requests of ours: submit, and the one way of several in which each of them ends. */
#include <errno.h>
#include <string.h>

#include "engine.h"

void xi_out_init(struct xi_conn *conn)
{
	uint32_t count = conn->limits.budget.requests_out;

	XI_ASSERT(count <= XI_REQUESTS_MAX && xi_list_empty(&conn->in_flight));
	XI_ASSERT(conn->out_free_count == 0);
	for (uint32_t i = 0; i < count; i++) {
		xi_list_init(&conn->out[i].link);
		conn->out_free[conn->out_free_count++] = (uint16_t)(count - 1 - i);
	}
}

static uint16_t out_index(const struct xi_conn *conn, const struct xi_out *out)
{
	XI_DASSERT(out >= conn->out && out < conn->out + conn->limits.budget.requests_out);
	return (uint16_t)(out - conn->out);
}

static uint32_t out_wire_id(const struct xi_conn *conn, const struct xi_out *out)
{
	XI_DASSERT(out->state != XI_OUT_FREE && conn->reserved);
	return (uint32_t)out->generation << 16 | out_index(conn, out);
}

static struct xi_buffer *out_buffer(struct xi_conn *conn, const struct xi_out_ref *ref)
{
	XI_DASSERT(ref->buffer < conn->buffers[ref->in ? XENIDC_IN : XENIDC_OUT].count && conn->was_up);
	return &conn->buffers[ref->in ? XENIDC_IN : XENIDC_OUT].all[ref->buffer];
}

/* --- Submit */

static bool same_buffer(const struct xenidc_buffer *a, const struct xenidc_buffer *b)
{
	XI_DASSERT(a != b && a->direction <= XENIDC_IN && b->direction <= XENIDC_IN);
	return a->direction == b->direction && a->slot == b->slot;
}

/* Lend the buffers of a request, all or none. */
static int lend_all(struct xi_conn *conn, struct xi_out *out, const struct xenidc_request *r)
{
	XI_DASSERT(out->state == XI_OUT_FREE && r->ref_count <= conn->limits.budget.refs && (r->refs || !r->ref_count));
	for (uint32_t i = 0; i < r->ref_count; i++) {
		const struct xenidc_ref *ref = &r->refs[i];
		int e = xi_buffers_check(conn, ref);
		if (e == -EBUSY)
			for (uint32_t k = 0; k < i; k++)
				if (same_buffer(&r->refs[k].buffer, &ref->buffer))
					e = -EINVAL;
		if (e) {
			while (i-- > 0)
				out_buffer(conn, &out->refs[i])->state = XI_BUFFER_TAKEN;
			return e;
		}
		out->refs[i] = (struct xi_out_ref){ .offset = ref->offset,
						    .length = ref->length,
						    .buffer = ref->buffer.slot,
						    .in = ref->buffer.direction == XENIDC_IN };
		out_buffer(conn, &out->refs[i])->state = XI_BUFFER_LENT;
	}
	out->nrefs = (uint8_t)r->ref_count;
	return 0;
}

static void send_request(struct xi_conn *conn, struct xi_out *out, const struct xenidc_request *r)
{
	struct xi_wire_ref refs[XI_REFS_MAX];
	uint8_t *frame = conn->t->tx_begin(conn);
	uint32_t id = out_wire_id(conn, out);
	uint32_t nsegs = 0, length;

	XI_DASSERT(out->state == XI_OUT_SENT && out->nrefs == r->ref_count && out->nrefs <= XI_REFS_MAX);
	for (unsigned i = 0; i < out->nrefs; i++) {
		const struct xi_out_ref *ref = &out->refs[i];
		refs[i] = (struct xi_wire_ref){ .slot = ref->buffer,
						.in = ref->in,
						.generation = out_buffer(conn, ref)->generation,
						.offset = ref->offset,
						.length = ref->length };
		if (ref->in || !ref->length)
			continue;
		conn->segs[nsegs++] = (struct xi_seg){ ref->buffer, ref->offset, ref->length };
		conn->channel->stats.bytes_out += ref->length;
	}
	length = xi_frame_put_request(frame, id, xi_credit(conn), out->sequence, refs, out->nrefs, r->payload,
				      r->payload_len);
	out->position = xi_transmit(conn, frame, length, conn->segs, nsegs, id);
}

static void deadlines_fired(struct xenidc_timer *timer);

static void deadlines_want(struct xi_conn *conn, uint64_t due)
{
	uint64_t now = xenidc_loop_now(conn->loop);

	XI_DASSERT(due > 0 && conn->was_up);
	if (conn->deadlines_due && conn->deadlines_due <= due)
		return;
	conn->deadlines_due = due;
	if (xenidc_timer_start(conn->loop, &conn->deadlines, due > now ? due - now : 0, deadlines_fired))
		conn->deadlines_due = 0; /* no timer left: the heartbeat looks as well */
}

static int may_submit(struct xi_conn *conn, const struct xenidc_request *r)
{
	XI_DASSERT(r && (r->payload || !r->payload_len));
	if (!conn || conn->phase != XI_PHASE_UP || conn->failed)
		return -ENOTCONN;
	if (!r->done)
		return -EINVAL;
	if (r->payload_len > conn->limits.budget.payload || r->ref_count > conn->limits.budget.refs)
		return -EMSGSIZE;
	if (!conn->out_free_count) {
		conn->want_request = true;
		return -EAGAIN;
	}
	return 0;
}

/* Within a step the loop's last look at the clock will do; outside of one it may be old. */
static uint64_t submit_time(xenidc_loop *loop)
{
	XI_DASSERT(loop);
	return xi_loop_in_step(loop) ? xenidc_loop_now(loop) : xi_loop_clock(loop);
}

int xenidc_submit(xenidc_channel *channel, const struct xenidc_request *request, xenidc_request_id *ret_id)
{
	struct xi_conn *conn = channel->conn;
	struct xi_out *out;
	int e;

	XI_DASSERT(channel && request);
	if (xi_loop_forked(channel->loop))
		return -ECHILD;
	e = may_submit(conn, request);
	if (e)
		return e;
	out = &conn->out[conn->out_free[conn->out_free_count - 1]];
	XI_ASSERT(out->state == XI_OUT_FREE);
	e = lend_all(conn, out, request);
	if (e)
		return e;
	conn->out_free_count--;
	out->state = XI_OUT_SENT;
	out->generation++;
	out->sequence = ++conn->sequence_out;
	out->pending = 0;
	out->cancel_sent = out->cancelled = out->retracted = false;
	out->done = request->done;
	out->user = request->user;
	out->submitted_ns = submit_time(conn->loop);
	out->deadline_ns = request->timeout_ns ? xi_loop_clock(conn->loop) + request->timeout_ns : 0;
	xi_list_append(&conn->in_flight, &out->link);
	channel->stats.requests_out++;
	channel->stats.bytes_out += request->payload_len;
	if (out->deadline_ns)
		deadlines_want(conn, out->deadline_ns);
	if (ret_id)
		*ret_id = xi_handle(conn, out->generation, out_index(conn, out));
	send_request(conn, out, request);
	return 0;
}

uint32_t xenidc_channel_request_credit(const xenidc_channel *channel)
{
	const struct xi_conn *conn = channel->conn;

	XI_ASSERT(channel && (!conn || conn->channel == channel));
	return conn && conn->phase == XI_PHASE_UP ? conn->out_free_count : 0;
}

/* --- Ends */

/* Nothing of it is under way any more: its place and its buffers are free. */
static void out_free(struct xi_conn *conn, struct xi_out *out)
{
	XI_ASSERT(out->state != XI_OUT_FREE && !out->rx);
	if (out->state == XI_OUT_ORPHAN) {
		conn->orphans--;
		if (conn->want_request || conn->want_buffer)
			xi_conn_wake(conn); /* no `done` follows, at whose end `writable` would be told */
	}
	out->state = XI_OUT_FREE;
	xi_list_remove(&out->link);
	for (unsigned i = 0; i < out->nrefs; i++)
		xi_buffers_release(conn, &out->refs[i]);
	conn->out_free[conn->out_free_count++] = out_index(conn, out);
}

static void count_end(xenidc_channel *channel, enum xenidc_end end)
{
	XI_DASSERT(end >= XENIDC_REPLIED && end <= XENIDC_UNKNOWN);
	if (end == XENIDC_REPLIED)
		channel->stats.replies_in++;
	else if (end == XENIDC_NOT_EXECUTED)
		channel->stats.ended_not_executed++;
	else
		channel->stats.ended_unknown++;
}

/* Tell the client. The request's place may be in use again by the time that `done` returns. */
static void tell_done(struct xi_conn *conn, xenidc_done *done, const struct xenidc_result *result)
{
	XI_DASSERT(result->id && conn->channel && conn->channel->conn == conn);
	XI_ASSERT(done);
	count_end(conn->channel, result->end);
	if (!xi_conn_audible(conn))
		return;
	xi_loop_enter_handler(conn->loop);
	done(conn->channel, result);
	xi_loop_leave_handler(conn->loop);
	if (conn->want_request || conn->want_buffer)
		xi_writable(conn);
}

/* The result without a reply's part: no payload, and valid lengths of zero. */
static struct xenidc_result result_of(struct xi_conn *conn, const struct xi_out *out, enum xenidc_end end,
				      enum xenidc_reason reason)
{
	XI_DASSERT(out->state != XI_OUT_FREE && end >= XENIDC_REPLIED && end <= XENIDC_UNKNOWN);
	memset(conn->valid, 0, out->nrefs * sizeof(*conn->valid));
	return (struct xenidc_result){
		.end = end,
		.reason = reason,
		.valid = conn->valid,
		.refs = out->nrefs,
		.id = xi_handle(conn, out->generation, out_index(conn, out)),
		.user = out->user,
	};
}

/* It ended without a reply, and the peer owes none. */
static void end_without(struct xi_conn *conn, struct xi_out *out, enum xenidc_end end, enum xenidc_reason reason)
{
	struct xenidc_result result = result_of(conn, out, end, reason);
	xenidc_done *done = out->done;

	XI_ASSERT(out->state == XI_OUT_SENT || out->state == XI_OUT_REPLIED);
	XI_ASSERT(end == XENIDC_NOT_EXECUTED || end == XENIDC_UNKNOWN);
	if (out->rx)
		xi_rx_put(conn, out->rx);
	out->rx = NULL;
	out_free(conn, out);
	tell_done(conn, done, &result);
}

/* The reply and all its data are here. */
static void end_replied(struct xi_conn *conn, struct xi_out *out, const struct xi_frame *reply)
{
	struct xenidc_result result = result_of(conn, out, XENIDC_REPLIED, XENIDC_REASON_NONE);
	xenidc_done *done = out->done;
	uint8_t *rx = out->rx;

	XI_DASSERT(out->pending == 0 && (out->state == XI_OUT_SENT || out->state == XI_OUT_REPLIED));
	XI_DASSERT(reply->kind == XI_FRAME_REPLY);
	result.status = reply->status;
	result.payload = reply->payload;
	result.payload_len = reply->payload_len;
	conn->channel->stats.bytes_in += reply->payload_len;
	for (unsigned i = 0; i < out->nrefs; i++) {
		conn->valid[i] = out->refs[i].valid;
		conn->channel->stats.bytes_in += out->refs[i].valid;
	}
	out->rx = NULL;
	out_free(conn, out);
	tell_done(conn, done, &result);
	if (rx)
		xi_rx_put(conn, rx);
}

/* The client is told now; the peer may still write an answer, so the buffers stay out of use until it has. */
static void end_orphan(struct xi_conn *conn, struct xi_out *out, enum xenidc_reason reason)
{
	struct xenidc_result result = result_of(conn, out, XENIDC_UNKNOWN, reason);

	XI_ASSERT(reason != XENIDC_REASON_NONE && conn->orphans < conn->limits.budget.requests_out);
	XI_ASSERT(out->state == XI_OUT_SENT || out->state == XI_OUT_REPLIED);
	out->state = XI_OUT_ORPHAN;
	conn->orphans++;
	for (unsigned i = 0; i < out->nrefs; i++)
		out_buffer(conn, &out->refs[i])->state = XI_BUFFER_ORPHAN;
	tell_done(conn, out->done, &result);
	xi_ending_check(conn);
}

/* --- Reply */

/* Note the valid lengths; ask for, or expect, the data. Number of pieces that are still to come, or -1 (ended). */
static int expect_data(struct xi_conn *conn, struct xi_out *out, const struct xi_frame *frame)
{
	unsigned in = 0;
	int pending = 0;

	XI_DASSERT(frame->kind == XI_FRAME_REPLY && out->pending == 0 && !out->rx);
	for (unsigned i = 0; i < out->nrefs; i++) {
		struct xi_out_ref *ref = &out->refs[i];
		int e;
		ref->valid = 0;
		if (!ref->in)
			continue;
		if (in >= frame->nrefs || xi_frame_valid(frame, in) > ref->length) {
			xi_conn_protocol(conn, "a reply with more data than were asked for");
			return -1;
		}
		ref->valid = xi_frame_valid(frame, in++);
		if (out->state == XI_OUT_ORPHAN && !(conn->t->caps & XI_CAP_STREAM))
			continue; /* nobody will look at it */
		e = xi_landing_expect(conn, conn->rx_peer + ref->buffer, out_index(conn, out), ref->offset, ref->valid);
		if (e < 0)
			return -1;
		pending += e;
	}
	if (in == frame->nrefs)
		return pending;
	xi_conn_protocol(conn, "a reply with data that were not asked for");
	return -1;
}

static struct xi_out *find_wire(struct xi_conn *conn, uint32_t id)
{
	uint16_t index = (uint16_t)id;
	struct xi_out *out = index < conn->limits.budget.requests_out ? &conn->out[index] : NULL;

	XI_DASSERT(conn->reserved && conn->out);
	if (!out || out->state == XI_OUT_FREE || out->generation != id >> 16)
		return NULL;
	/* One that has its reply already gets no second one. */
	return out->pending || out->state == XI_OUT_REPLIED ? NULL : out;
}

bool xi_out_reply(struct xi_conn *conn, const struct xi_frame *frame)
{
	struct xi_out *out = find_wire(conn, frame->id);
	int pending;

	XI_DASSERT(frame->kind == XI_FRAME_REPLY && conn->phase >= XI_PHASE_UP);
	if (!out || out->retracted || !xi_has_left(conn, out->position))
		return xi_conn_protocol(conn, "a reply to a request that is not in flight");
	if (frame->flags & XI_FRAME_NOT_EXECUTED) {
		if (out->state == XI_OUT_ORPHAN)
			out_free(conn, out);
		else
			end_without(conn, out, XENIDC_NOT_EXECUTED,
				    out->cancelled ? XENIDC_REASON_CANCELLED : XENIDC_REASON_DENIED);
		xi_ending_check(conn);
		return true;
	}
	pending = expect_data(conn, out, frame);
	if (pending < 0)
		return false;
	out->pending = (uint16_t)pending;
	if (pending && out->state == XI_OUT_SENT) {
		out->state = XI_OUT_REPLIED;
		out->reply = *frame;
		out->rx = xi_rx_keep(conn);
		return true;
	}
	if (pending)
		return true; /* an orphan, whose data have to be let in */
	if (out->state == XI_OUT_ORPHAN)
		out_free(conn, out);
	else
		end_replied(conn, out, frame);
	xi_ending_check(conn);
	return true;
}

bool xi_out_landed(struct xi_conn *conn, uint16_t index)
{
	struct xi_out *out = &conn->out[index];

	XI_ASSERT(index < conn->limits.budget.requests_out && out->pending > 0);
	if (--out->pending)
		return true;
	if (out->state == XI_OUT_ORPHAN) {
		if (out->rx)
			xi_rx_put(conn, out->rx);
		out->rx = NULL;
		out_free(conn, out);
	} else {
		struct xi_frame reply = out->reply;
		end_replied(conn, out, &reply);
	}
	xi_ending_check(conn);
	return true;
}

/* --- Cancel and deadlines */

/* Ask the peer to give up, or take the request back before it leaves. */
static void send_cancel(struct xi_conn *conn, struct xi_out *out)
{
	uint32_t id = out_wire_id(conn, out);
	uint8_t *frame;

	XI_DASSERT(out->state != XI_OUT_FREE && out->position > 0);
	if (out->cancel_sent || out->retracted || out->state != XI_OUT_SENT || conn->phase > XI_PHASE_DRAINING)
		return;
	if (conn->t->retract && conn->t->retract(conn, out->position)) {
		out->retracted = true;
		conn->credit_retracted = true; /* it has to travel with something else */
		conn->said_something = false;
		conn->frames_sent--;
		for (unsigned i = 0; i < conn->pings_out; i++)
			if (conn->ping_positions[i] > out->position)
				conn->pings_sent_at[i]--;
		return;
	}
	out->cancel_sent = true;
	if (conn->t->drop_segs)
		conn->t->drop_segs(conn, id);
	frame = conn->t->tx_begin(conn);
	xi_transmit(conn, frame, xi_frame_put_cancel(frame, id, xi_credit(conn)), NULL, 0, 0);
}

/* Its time is over. */
static void expire(struct xi_conn *conn, struct xi_out *out)
{
	enum xenidc_reason reason = out->cancelled ? XENIDC_REASON_CANCELLED : XENIDC_REASON_TIMEOUT;

	XI_DASSERT(out->state == XI_OUT_SENT || out->state == XI_OUT_REPLIED);
	XI_DASSERT(out->deadline_ns);
	send_cancel(conn, out);
	out->deadline_ns = 0;
	if (out->retracted)
		end_without(conn, out, XENIDC_NOT_EXECUTED, reason);
	else
		end_orphan(conn, out, reason);
}

/*
 * End those whose time is over. `done` may submit and cancel, so the list is walked again from its start after each;
 * all that expire are expired by one look at the clock, so that this ends.
 */
void xi_out_check_deadlines(struct xi_conn *conn)
{
	uint64_t now = xi_loop_clock(conn->loop);
	uint64_t earliest = 0;
	struct xi_list *l = conn->in_flight.next;

	XI_DASSERT(conn->was_up && !conn->processing);
	conn->deadlines_due = 0;
	while (l != &conn->in_flight && !conn->failed) {
		struct xi_out *out = XI_CONTAINER(l, struct xi_out, link);
		l = l->next;
		if (!out->deadline_ns || out->state == XI_OUT_ORPHAN)
			continue;
		if (out->deadline_ns <= now) {
			expire(conn, out);
			l = conn->in_flight.next;
			earliest = 0;
		} else if (!earliest || out->deadline_ns < earliest) {
			earliest = out->deadline_ns;
		}
	}
	if (earliest)
		deadlines_want(conn, earliest);
}

static void deadlines_fired(struct xenidc_timer *timer)
{
	xi_out_check_deadlines(XI_CONTAINER(timer, struct xi_conn, deadlines));
}

static struct xi_out *find_handle(struct xi_conn *conn, xenidc_request_id id)
{
	uint16_t index = (uint16_t)id;
	struct xi_out *out;

	XI_DASSERT(!conn || conn->channel);
	if (!conn || !conn->out || conn->limits.incarnation != id >> 32 || index >= conn->limits.budget.requests_out)
		return NULL;
	out = &conn->out[index];
	if (out->generation != (uint16_t)(id >> 16) || out->state == XI_OUT_FREE || out->state == XI_OUT_ORPHAN)
		return NULL;
	return out;
}

int xenidc_cancel(xenidc_channel *channel, xenidc_request_id id, uint64_t timeout_ns)
{
	struct xi_conn *conn = channel->conn;
	struct xi_out *out;
	uint64_t due;

	if (xi_loop_forked(channel->loop))
		return -ECHILD;
	out = find_handle(conn, id);
	if (!out)
		return -ESTALE;
	if (conn->failed || conn->phase >= XI_PHASE_FAREWELL)
		return 0; /* it is ending anyway */
	XI_DASSERT(out->done && channel->conn == conn);
	XI_ASSERT(conn->phase >= XI_PHASE_UP);
	send_cancel(conn, out);
	out->cancelled = true;
	due = xi_loop_clock(conn->loop) + (out->retracted ? 0 : timeout_ns);
	if (!out->deadline_ns || due < out->deadline_ns)
		out->deadline_ns = due;
	deadlines_want(conn, out->deadline_ns);
	return 0;
}

/* --- The end of the connection */

bool xi_out_drained(const struct xi_conn *conn)
{
	uint32_t in_flight = conn->limits.budget.requests_out - conn->out_free_count;

	XI_DASSERT(conn->out_free_count <= conn->limits.budget.requests_out && conn->reserved);
	XI_ASSERT(in_flight >= conn->orphans);
	return in_flight == conn->orphans;
}

void xi_out_end_all(struct xi_conn *conn)
{
	XI_ASSERT(conn->was_up && !conn->processing);
	XI_ASSERT(conn->phase == XI_PHASE_ENDING);
	while (!xi_list_empty(&conn->in_flight)) {
		struct xi_out *out = XI_CONTAINER(conn->in_flight.next, struct xi_out, link);
		bool replied = out->state == XI_OUT_REPLIED;
		bool never_sent = out->position >= conn->unsent_at_end || out->retracted;
		bool never_seen = conn->peer_said && xi_sequence_after(out->sequence, conn->peer_last);

		if (out->state == XI_OUT_ORPHAN) {
			if (out->rx)
				xi_rx_put(conn, out->rx);
			out->rx = NULL;
			out_free(conn, out);
			continue;
		}
		end_without(conn, out, !replied && (never_sent || never_seen) ? XENIDC_NOT_EXECUTED : XENIDC_UNKNOWN,
			    conn->why.reason);
	}
}
