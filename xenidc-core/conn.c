/* SPDX-License-Identifier: MIT */
/* One incarnation: its memory, its way along the lifecycle table, and the transport's upcalls that are no frames. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "base/counters.h"
#include "base/cursor.h"
#include "base/log.h"
#include "base/os.h"
#include "engine.h"

static unsigned conn_process(struct xi_pollable *p, unsigned budget)
{
	struct xi_conn *conn = XI_CONTAINER(p, struct xi_conn, poll);
	unsigned n;

	XI_DASSERT(budget > 0 && conn->polled);
	XI_DASSERT(!conn->processing);
	if (conn->failed || conn->phase >= XI_PHASE_ENDING)
		return 0;
	conn->processing = true;
	n = conn->t->process(conn, budget);
	if (!conn->failed) /* also when only the last CREDIT has left meanwhile */
		xi_message_return_credit(conn);
	conn->processing = false;
	xi_transmit_flush(conn);
	return n;
}

static int conn_arm(struct xi_pollable *p, bool futex_ok, struct xi_wait *wait)
{
	struct xi_conn *conn = XI_CONTAINER(p, struct xi_conn, poll);

	XI_DASSERT(wait && !conn->dirty);
	if (conn->failed)
		return XI_BUSY;
	return conn->t->arm(conn, futex_ok, wait);
}

static void conn_disarm(struct xi_pollable *p)
{
	struct xi_conn *conn = XI_CONTAINER(p, struct xi_conn, poll);

	XI_DASSERT(!conn->processing && conn->phase != XI_PHASE_NONE);
	if (!conn->failed)
		conn->t->disarm(conn);
}

static void conn_task(struct xi_task *task)
{
	XI_DASSERT(task->run == conn_task);
	xi_ending_run(XI_CONTAINER(task, struct xi_conn, task));
}

int xi_conn_new(xenidc_loop *loop, const struct xi_transport *t, struct xi_conn **ret)
{
	struct xi_conn *conn = xi_os->alloc(sizeof(*conn));

	XI_ASSERT(loop && t);
	if (!conn)
		return -ENOMEM;
	conn->priv = xi_os->alloc(t->conn_size);
	if (!conn->priv) {
		xi_os->free(conn);
		return -ENOMEM;
	}
	conn->t = t;
	conn->loop = loop;
	conn->poll.process = conn_process;
	conn->poll.arm = conn_arm;
	conn->poll.disarm = conn_disarm;
	xi_list_init(&conn->poll.link);
	xi_list_init(&conn->half_open);
	xi_list_init(&conn->in_flight);
	xi_list_init(&conn->queue);
	xi_task_init(&conn->task, conn_task);
	xi_loop_poll_add(loop, &conn->poll);
	conn->polled = true;
	xi_created(XI_OBJECT_CONN);
	*ret = conn;
	return 0;
}

void xi_conn_unpoll(struct xi_conn *conn)
{
	XI_ASSERT(conn->phase != XI_PHASE_NONE && conn->loop);
	XI_ASSERT(!conn->processing);
	if (conn->polled)
		xi_loop_poll_remove(conn->loop, &conn->poll);
	conn->polled = false;
}

void xi_conn_free(struct xi_conn *conn)
{
	XI_ASSERT(!conn->listener && xi_list_empty(&conn->half_open));
	XI_ASSERT(!conn->processing);
	xi_conn_unpoll(conn);
	xi_task_cancel(&conn->task);
	xenidc_timer_stop(&conn->timer);
	xenidc_timer_stop(&conn->beat);
	xenidc_timer_stop(&conn->deadlines);
	conn->t->fini(conn);
	xi_accounts_release(conn);
	xi_os->free(conn->arena);
	xi_os->free(conn->priv);
	xi_os->free(conn);
	xi_destroyed(XI_OBJECT_CONN);
}

bool xi_conn_event(struct xi_conn *conn, enum xi_event event)
{
	enum xi_phase to = xi_lifecycle_next(conn->phase, event);

	XI_ASSERT(conn->phase != XI_PHASE_NONE && conn->phase != XI_PHASE_OVER);
	if (to == XI_PHASE_NONE)
		return false;
	if (xi_trace_frames())
		xi_trace("conn %p: %s, %s -> %s", (void *)conn, xi_event_name(event), xi_phase_name(conn->phase),
			 xi_phase_name(to));
	conn->phase = to;
	return true;
}

void xi_conn_wake(struct xi_conn *conn)
{
	XI_DASSERT(conn->loop && conn->phase != XI_PHASE_OVER);
	xi_loop_defer(conn->loop, &conn->task);
}

__attribute__((format(printf, 5, 0))) static void
conn_vend(struct xi_conn *conn, bool by_peer, enum xenidc_reason reason, int code, const char *text, va_list args)
{
	char line[XENIDC_ERROR_TEXT_MAX];

	XI_ASSERT(text && code <= 0);
	if (conn->failed || conn->phase >= XI_PHASE_ENDING)
		return;
	vsnprintf(line, sizeof(line), text, args);
	conn->failed = true;
	if (!conn->told_disconnecting) { /* once the client was told why, later trouble is not the reason any more */
		xi_error(&conn->why, code, reason, "%s", line);
		conn->why.by_peer = by_peer;
	}
	xi_conn_wake(conn);
}

void xi_conn_end(struct xi_conn *conn, bool by_peer, enum xenidc_reason reason, int code, const char *text, ...)
{
	va_list args;

	XI_ASSERT(code <= 0);
	va_start(args, text);
	conn_vend(conn, by_peer, reason, code, text, args);
	va_end(args);
}

void xi_conn_lost(struct xi_conn *conn, enum xenidc_reason reason, int code, const char *text, ...)
{
	va_list args;

	if (reason == XENIDC_REASON_PROTOCOL && conn->channel)
		conn->channel->stats.protocol_errors++;
	va_start(args, text);
	conn_vend(conn, false, reason, code, text, args);
	va_end(args);
}

bool xi_conn_protocol(struct xi_conn *conn, const char *text, ...)
{
	char line[160];
	va_list args;

	va_start(args, text);
	vsnprintf(line, sizeof(line), text, args);
	va_end(args);
	if (conn->channel)
		conn->channel->stats.protocol_errors++;
	xi_log(LOG_WARNING, "peer %s broke the protocol: %s", conn->limits.peer.address, line);
	xi_conn_end(conn, false, XENIDC_REASON_PROTOCOL, -EPROTO,
		    "the peer sent %s; the connection was ended; if both sides run current versions, report this",
		    line);
	return false;
}

/* --- Memory: one arena, carved twice, first to measure it */

struct carver {
	uint8_t *base; /* NULL: measuring */
	size_t at;
};

static void *carve(struct carver *c, size_t each, size_t count)
{
	size_t at = c->at;

	XI_ASSERT(each > 0 && count <= XI_SLOTS_MAX * (size_t)XI_REFS_MAX);
	XI_ASSERT(at % 64 == 0);
	c->at += (each * count + 63) & ~(size_t)63;
	return c->base ? c->base + at : NULL;
}

static uint32_t rx_buffer_count(const struct xenidc_budget *b)
{
	XI_ASSERT(b->requests_in <= XI_REQUESTS_MAX && b->requests_out <= XI_REQUESTS_MAX &&
		  b->messages_in <= XI_MESSAGES_MAX);
	return b->requests_in + b->requests_out + b->messages_in + 1;
}

static void carve_buffers(struct carver *c, struct xi_buffers *set, const struct xenidc_slot_class *classes)
{
	XI_ASSERT(set && classes && set->cls[0].free_count == 0);
	set->count = xi_classes_slots(classes);
	set->all = carve(c, sizeof(*set->all), set->count);
	for (int i = 0; i < XENIDC_CLASSES_MAX; i++) {
		set->cls[i].size = classes[i].size;
		set->cls[i].count = classes[i].count;
		set->cls[i].free = carve(c, sizeof(uint16_t), classes[i].count);
	}
}

static size_t carve_all(struct xi_conn *conn, uint8_t *base)
{
	const struct xenidc_budget *b = &conn->limits.budget;
	struct carver c = { .base = base };
	uint32_t buffers = rx_buffer_count(b);
	uint32_t buffer_size = (conn->rx.frame_max + 63) & ~63u;
	struct xi_out_ref *out_refs;
	struct xi_in_ref *in_refs;
	uint8_t *rx;

	XI_ASSERT(conn->rx.frame_max >= XI_FRAME_HEADER && b->refs <= XI_REFS_MAX && conn->rx_free_count == 0);
	conn->rx_free = carve(&c, sizeof(uint8_t *), buffers);
	rx = carve(&c, buffer_size, buffers);
	conn->out = carve(&c, sizeof(*conn->out), b->requests_out);
	conn->out_free = carve(&c, sizeof(uint16_t), b->requests_out);
	out_refs = carve(&c, sizeof(*out_refs), (size_t)b->requests_out * b->refs);
	conn->in = carve(&c, sizeof(*conn->in), b->requests_in);
	in_refs = carve(&c, sizeof(*in_refs), (size_t)b->requests_in * b->refs);
	conn->message_positions = carve(&c, sizeof(*conn->message_positions), b->messages_out);
	conn->messages = carve(&c, sizeof(*conn->messages), b->messages_in);
	conn->messages_free = carve(&c, sizeof(uint16_t), b->messages_in);
	carve_buffers(&c, &conn->buffers[XENIDC_OUT], b->out);
	carve_buffers(&c, &conn->buffers[XENIDC_IN], b->in);
	conn->landing = carve(&c, sizeof(*conn->landing), conn->rx.slots);
	conn->answers = carve(&c, sizeof(bool), conn->tx.slots);
	conn->valid = carve(&c, sizeof(uint32_t), b->refs);
	conn->segs = carve(&c, sizeof(*conn->segs), b->refs);
	if (!base)
		return c.at;
	for (uint32_t i = 0; i < buffers; i++)
		conn->rx_free[conn->rx_free_count++] = rx + (size_t)i * buffer_size;
	for (uint32_t i = 0; i < b->requests_out; i++)
		conn->out[i].refs = out_refs + (size_t)i * b->refs;
	for (uint32_t i = 0; i < b->requests_in; i++)
		conn->in[i].refs = in_refs + (size_t)i * b->refs;
	return c.at;
}

int xi_conn_reserve(struct xi_conn *conn, const struct xenidc_budget *budget, bool map, bool digest,
		    struct xenidc_error *err)
{
	struct xenidc_budget mirror = xi_budget_mirror(budget);
	uint32_t flags = (map ? XI_RESERVE_MAP : 0) | (digest ? XI_RESERVE_DIGEST : 0);
	size_t size;

	XI_ASSERT(!conn->reserved && !conn->arena);
	conn->limits.size = sizeof(conn->limits);
	conn->limits.budget = *budget;
	conn->limits.map = map;
	conn->limits.digest = digest;
	conn->frame_limits.payload = budget->payload;
	conn->frame_limits.refs = budget->refs;
	xi_layout_make(budget, &conn->tx);
	xi_layout_make(&mirror, &conn->rx);
	conn->tx_own = xi_classes_slots(budget->out);
	conn->rx_peer = xi_classes_slots(budget->peer_out);
	size = carve_all(conn, NULL);
	conn->arena = xi_os->alloc(size);
	if (!conn->arena)
		return xi_error(
			err, -ENOMEM, XENIDC_REASON_RESOURCE,
			"reserving %zu bytes for the tables of a channel: out of memory; ask for a smaller budget",
			size);
	/* The allocator gives 16-byte alignment; the first line may be shared with its neighbour, no more. */
	carve_all(conn, conn->arena);
	xi_out_init(conn);
	xi_message_init(conn);
	conn->reserved = true;
	return conn->t->reserve(conn, &conn->tx, &conn->rx, flags, &conn->tx_base, &conn->rx_base, err);
}

void xi_conn_up(struct xi_conn *conn)
{
	xenidc_channel *channel = conn->channel;

	XI_ASSERT(conn->phase == XI_PHASE_UP && conn->tx_base && conn->rx_base);
	xi_buffers_init(conn);
	xenidc_timer_stop(&conn->timer);
	conn->was_up = true;
	xi_accounts_connected(conn);
	channel->failing_since = 0;
	channel->backoff_ns = 0;
	xi_beat_start(conn);
	if (!channel->free_asked)
		XI_HANDLER(channel, connected, channel, &conn->limits);
}

void xi_times_complete(struct xenidc_times *t)
{
	XI_ASSERT(t);
	t->heartbeat_ns = t->heartbeat_ns ? t->heartbeat_ns : XI_HEARTBEAT;
	t->stalled_ns = t->stalled_ns ? t->stalled_ns : XI_STALLED;
	t->dead_ns = t->dead_ns ? t->dead_ns : XI_DEAD;
	t->close_ns = t->close_ns ? t->close_ns : XI_CLOSE;
	t->connect_ns = t->connect_ns ? t->connect_ns : XI_CONNECT;
}

/* --- Upcalls */

const struct xenidc_times *xi_conn_times(struct xi_conn *conn)
{
	XI_ASSERT(conn->times.connect_ns && conn->times.dead_ns);
	return &conn->times;
}

void *xi_conn_priv(struct xi_conn *conn)
{
	XI_DASSERT(conn && conn->priv);
	return conn->priv;
}

xenidc_loop *xi_conn_loop(struct xi_conn *conn)
{
	XI_DASSERT(conn && conn->loop);
	return conn->loop;
}

const void *xi_conn_owner(struct xi_conn *conn)
{
	XI_ASSERT(conn && conn->t);
	XI_ASSERT(conn->accounts || conn->channel);
	return conn->accounts ? conn->accounts->owner : conn->channel->owner;
}

const void *xi_owner_new(void)
{
	uintptr_t n = 0;

	xi_os->entropy(&n, sizeof(n)); /* a number that never comes again, with no state that threads would share */
	n |= 1;
	XI_ASSERT(n != 0);
	return (const void *)n;
}

void xi_conn_dialled(struct xi_conn *conn)
{
	bool known = !conn->failed && xi_conn_event(conn, XI_EVENT_DIALLED);

	XI_ASSERT(!known || (conn->channel && conn->phase == XI_PHASE_OFFERED));
	if (!known)
		return; /* given up meanwhile */
	conn->t->identify(conn, &conn->limits.peer);
	xi_handshake_offer(conn);
}

void xi_conn_closed(struct xi_conn *conn)
{
	XI_ASSERT(conn->phase == XI_PHASE_ENDING);
	if (conn->close_done)
		return; /* T_close has passed meanwhile, and a handler still holds a request */
	conn->close_done = true;
	xi_conn_wake(conn);
}
