/* SPDX-License-Identifier: MIT */
/* The client's object: it outlives its connections, and makes new ones if it was told to. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "address.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/os.h"
#include "engine.h"

/* --- Making */

static void complete_retry(struct xenidc_retry *r)
{
	XI_ASSERT(XI_BACKOFF_MIN > 0 && XI_BACKOFF_MIN <= XI_BACKOFF_MAX);
	r->backoff_min_ns = r->backoff_min_ns ? r->backoff_min_ns : XI_BACKOFF_MIN;
	r->backoff_max_ns = r->backoff_max_ns ? r->backoff_max_ns : XI_BACKOFF_MAX;
}

static int check_options(const struct xenidc_channel_options *o, struct xenidc_error *err)
{
	if (o->size != sizeof(*o))
		return xi_error(
			err, -EINVAL, XENIDC_REASON_UNSUPPORTED,
			"the channel options say they have %zu bytes, this library knows %zu; set `size` to their "
			"sizeof, and build against the header of the library that runs",
			o->size, sizeof(*o));
	if (o->auth_len > XI_AUTH_MAX || (o->auth_len && !o->auth))
		return xi_error(err, -EINVAL, XENIDC_REASON_LIMIT,
				"authentication data of %u bytes, at most %d are possible", o->auth_len, XI_AUTH_MAX);
	if (o->service && strlen(o->service) > XENIDC_SERVICE_MAX)
		return xi_error(err, -EINVAL, XENIDC_REASON_LIMIT, "the service name is longer than %d characters",
				XENIDC_SERVICE_MAX);
	if (o->times.dead_ns && o->times.stalled_ns > o->times.dead_ns)
		return xi_error(err, -EINVAL, XENIDC_REASON_UNSUPPORTED,
				"a peer would count as dead before it counts as stalled; let dead_ns be the larger");
	return 0;
}

static void copy_options(xenidc_channel *channel, const struct xenidc_channel_options *o)
{
	XI_ASSERT(o->auth_len <= XI_AUTH_MAX && (!o->service || strlen(o->service) <= XENIDC_SERVICE_MAX));
	channel->options = *o;
	channel->handlers = o->handlers;
	channel->user = o->user;
	if (o->service)
		memcpy(channel->service_given, o->service, strlen(o->service) + 1);
	if (o->auth_len)
		memcpy(channel->auth, o->auth, o->auth_len);
	memcpy(channel->service, channel->service_given, sizeof(channel->service));
	channel->options.service = channel->service_given;
	channel->options.auth = channel->auth;
	xi_times_complete(&channel->options.times);
	complete_retry(&channel->options.retry);
}

static void channel_task(struct xi_task *task);

static void channel_destroy(xenidc_channel *channel, bool tell_peer)
{
	struct xi_conn *conn = channel->conn;

	XI_ASSERT(!conn || (conn->channel == channel && !conn->processing));
	XI_ASSERT(!xi_loop_in_handler(channel->loop));
	if (channel->call)
		xi_call_over(channel);
	xi_loop_member_remove(&channel->member);
	xi_task_cancel(&channel->task);
	xenidc_timer_stop(&channel->retry);
	if (conn) {
		if (tell_peer && conn->phase == XI_PHASE_UP && !conn->failed)
			xi_ending_farewell(conn);
		if (conn->phase < XI_PHASE_ENDING)
			conn->t->close(conn);
		conn->channel = NULL;
		xi_conn_free(conn);
	}
	xi_os->free(channel);
	xi_destroyed(XI_OBJECT_CHANNEL);
}

static void member_destroy(struct xi_member *m, bool forked)
{
	XI_ASSERT(m->destroy == member_destroy);
	(void)forked;
	channel_destroy(XI_CONTAINER(m, xenidc_channel, member), false);
}

int xi_channel_make(xenidc_loop *loop, const struct xenidc_channel_options *options, xenidc_channel **ret,
		    struct xenidc_error *err)
{
	xenidc_channel *channel;
	int e = check_options(options, err);

	XI_ASSERT(loop && options && ret);
	if (e)
		return e;
	channel = xi_os->alloc(sizeof(*channel));
	if (!channel)
		return xi_error(err, -ENOMEM, XENIDC_REASON_RESOURCE, "making a channel: out of memory");
	channel->loop = loop;
	channel->owner = xi_owner_new();
	copy_options(channel, options);
	e = xenidc_budget_complete(&channel->options.budget, err);
	if (e) {
		xi_os->free(channel);
		return e;
	}
	channel->stats.size = sizeof(channel->stats);
	xi_os->entropy(&channel->random, sizeof(channel->random));
	xi_list_init(&channel->member.link);
	channel->member.destroy = member_destroy;
	xi_task_init(&channel->task, channel_task);
	xi_loop_member_add(loop, &channel->member);
	xi_created(XI_OBJECT_CHANNEL);
	*ret = channel;
	return 0;
}

int xenidc_channel_new(xenidc_loop *loop, const struct xenidc_channel_options *options, xenidc_channel **ret,
		       struct xenidc_error *err)
{
	XI_ASSERT(loop && options && ret);
	if (xi_loop_forked(loop))
		return xi_error(err, -ECHILD, XENIDC_REASON_UNSUPPORTED,
				"this process was forked after the loop was made; make a loop of its own");
	return xi_channel_make(loop, options, ret, err);
}

/* --- Connecting */

static int dial(xenidc_channel *channel, const struct xi_transport *t, const char *rest, struct xenidc_error *err)
{
	struct xi_conn *conn;
	int e = xi_conn_new(channel->loop, t, &conn);

	XI_ASSERT(!channel->conn && !channel->accepted && !channel->retry_waits);
	if (e)
		return xi_error(err, e, XENIDC_REASON_RESOURCE, "connecting to %s: out of memory", channel->address);
	conn->channel = channel;
	channel->last_transport = t;
	conn->phase = XI_PHASE_DIALLING;
	conn->times = channel->options.times;
	conn->limits.peer.size = sizeof(conn->limits.peer);
	snprintf(conn->limits.peer.transport, sizeof(conn->limits.peer.transport), "%s", t->scheme);
	snprintf(conn->limits.peer.address, sizeof(conn->limits.peer.address), "%s", channel->address);
	conn->limits.incarnation = ++channel->incarnation;
	channel->conn = conn;
	e = t->dial(conn, rest, err);
	if (e) {
		channel->conn = NULL;
		t->close(conn);
		xi_conn_free(conn);
		return e;
	}
	xi_handshake_start(conn);
	return 0;
}

static int check_quarantine(xenidc_channel *channel, const struct xi_transport *t, struct xenidc_error *err)
{
	uint64_t bytes = 0;
	uint32_t regions = 0;

	XI_ASSERT(t && !channel->conn);
	if (t->quarantine)
		t->quarantine(channel->owner, &bytes, &regions);
	if (regions < XI_QUARANTINE_MAX)
		return 0;
	return xi_error(err, -EBUSY, XENIDC_REASON_LIMIT,
			"connecting to %s: %u memory regions of earlier connections (%llu bytes) may still be seen by "
			"peers that "
			"do not let go; end or continue those processes, then try again",
			channel->address, regions, (unsigned long long)bytes);
}

static int connect_now(xenidc_channel *channel, struct xenidc_error *err)
{
	char service[XENIDC_SERVICE_MAX + 1];
	const struct xi_transport *t;
	const char *rest;
	int e = xi_address_parse(channel->address, &t, &rest, service, err);

	XI_ASSERT(channel->address[0] && !channel->accepted);
	XI_ASSERT(!channel->conn);
	if (e)
		return e;
	if (service[0] && !channel->service[0])
		memcpy(channel->service, service, sizeof(service));
	e = check_quarantine(channel, t, err);
	return e ? e : dial(channel, t, rest, err);
}

static int may_connect(const xenidc_channel *channel, struct xenidc_error *err)
{
	const struct xi_conn *conn = channel->conn;

	XI_ASSERT(!conn || conn->channel == channel);
	if (xi_loop_forked(channel->loop))
		return xi_error(err, -ECHILD, XENIDC_REASON_UNSUPPORTED,
				"this process was forked after the loop was made");
	if (channel->accepted && !conn)
		return xi_error(err, -EINVAL, XENIDC_REASON_UNSUPPORTED,
				"a channel that a listener made cannot connect; make one with xenidc_channel_new()");
	if (!conn)
		return channel->free_asked ? -ECANCELED : 0;
	if (conn->phase >= XI_PHASE_DRAINING || conn->failed)
		return xi_error(err, -EBUSY, XENIDC_REASON_NONE, "the channel is still ending; wait for `idle`");
	if (conn->phase == XI_PHASE_UP)
		return xi_error(err, -EISCONN, XENIDC_REASON_NONE, "the channel is connected to %s", channel->address);
	return xi_error(err, -EALREADY, XENIDC_REASON_NONE, "the channel is connecting to %s", channel->address);
}

int xenidc_channel_connect(xenidc_channel *channel, const char *address, struct xenidc_error *err)
{
	char service[XENIDC_SERVICE_MAX + 1];
	const struct xi_transport *t;
	const char *rest;
	int e = may_connect(channel, err);

	XI_ASSERT(channel && channel->loop);
	XI_ASSERT(address);
	if (e)
		return e;
	e = xi_address_parse(address, &t, &rest, service, err);
	if (e)
		return e;
	xenidc_timer_stop(&channel->retry);
	channel->retry_waits = channel->closing = false;
	channel->backoff_ns = channel->failing_since = 0;
	memcpy(channel->service, channel->service_given, sizeof(channel->service));
	snprintf(channel->address, sizeof(channel->address), "%s", address);
	return connect_now(channel, err);
}

/* --- Retry */

static bool mendable(enum xenidc_reason reason)
{
	switch (reason) {
	case XENIDC_REASON_VERSION:
	case XENIDC_REASON_DENIED:
	case XENIDC_REASON_SERVICE:
	case XENIDC_REASON_BUDGET:
	case XENIDC_REASON_ADDRESS:
	case XENIDC_REASON_UNSUPPORTED:
		return false;
	default:
		return true;
	}
}

/* xorshift64: jitter needs no better. */
static uint64_t random_next(xenidc_channel *channel)
{
	uint64_t x = channel->random ? channel->random : 1;

	XI_ASSERT(channel->loop);
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	channel->random = x;
	return x;
}

static uint64_t next_backoff(xenidc_channel *channel)
{
	const struct xenidc_retry *r = &channel->options.retry;
	uint64_t base = channel->backoff_ns ? channel->backoff_ns * 2 : r->backoff_min_ns;

	XI_ASSERT(r->backoff_min_ns > 0 && r->backoff_max_ns > 0);
	if (base > r->backoff_max_ns)
		base = r->backoff_max_ns;
	channel->backoff_ns = base;
	XI_ASSERT(base > 0);
	return base - base / 4 + random_next(channel) % (base / 2 + 1);
}

static bool wants_retry(xenidc_channel *channel, enum xenidc_reason reason, uint64_t now)
{
	const struct xenidc_retry *r = &channel->options.retry;

	XI_ASSERT(!channel->conn && now > 0);
	if (!r->enabled || channel->closing || channel->accepted || channel->free_asked)
		return false;
	if (r->fail_fast && !mendable(reason))
		return false;
	if (!channel->failing_since)
		channel->failing_since = now;
	return !r->give_up_ns || now - channel->failing_since < r->give_up_ns;
}

static void retry_fired(struct xenidc_timer *timer);

static void schedule_retry(xenidc_channel *channel, enum xenidc_reason reason)
{
	XI_ASSERT(!channel->conn && !channel->retry_waits);
	if (!wants_retry(channel, reason, xi_loop_clock(channel->loop)))
		return;
	if (xenidc_timer_start(channel->loop, &channel->retry, next_backoff(channel), retry_fired) == 0)
		channel->retry_waits = true;
}

static void retry_fired(struct xenidc_timer *timer)
{
	xenidc_channel *channel = XI_CONTAINER(timer, xenidc_channel, retry);
	struct xenidc_error err = { 0 };

	XI_ASSERT(channel->retry_waits && !channel->conn);
	channel->retry_waits = false;
	if (connect_now(channel, &err))
		xi_channel_idle(channel, &err);
}

/* --- Idle, close, free */

void xi_channel_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	XI_ASSERT(why && !xi_loop_in_handler(channel->loop));
	XI_ASSERT(!channel->conn);
	schedule_retry(channel, why->reason);
	if (!channel->free_asked)
		XI_HANDLER(channel, idle, channel, why);
	if (channel->listener_owns && !channel->free_asked)
		channel_destroy(channel, false);
}

static void channel_task(struct xi_task *task)
{
	xenidc_channel *channel = XI_CONTAINER(task, xenidc_channel, task);
	struct xenidc_error why = { 0 };

	XI_ASSERT(!xi_loop_in_handler(channel->loop) && channel->loop);
	if (channel->free_asked) {
		channel_destroy(channel, true);
		return;
	}
	if (channel->conn || !channel->closing)
		return;
	xi_error(&why, -ECANCELED, XENIDC_REASON_CANCELLED, "waiting to connect again was given up by this side");
	xi_channel_idle(channel, &why);
}

int xenidc_channel_close(xenidc_channel *channel, uint64_t linger_ns)
{
	XI_ASSERT(channel && !(channel->retry_waits && channel->conn));
	if (xi_loop_forked(channel->loop))
		return -ECHILD;
	channel->closing = true;
	if (channel->retry_waits) {
		xenidc_timer_stop(&channel->retry);
		channel->retry_waits = false;
		xi_loop_defer(channel->loop, &channel->task);
		return 0;
	}
	if (!channel->conn)
		return -EALREADY;
	XI_ASSERT(channel->conn->channel == channel);
	xi_ending_close(channel->conn, linger_ns);
	return 0;
}

void xenidc_channel_free(xenidc_channel *channel)
{
	if (!channel)
		return;
	XI_ASSERT(channel->loop && !channel->free_asked);
	channel->free_asked = true;
	if (xi_loop_in_step(channel->loop))
		xi_loop_defer(channel->loop, &channel->task);
	else
		channel_destroy(channel, !xi_loop_forked(channel->loop));
}

/* --- Looking */

enum xenidc_state xenidc_channel_state(const xenidc_channel *channel)
{
	XI_ASSERT(channel && (!channel->conn || channel->conn->channel == channel));
	if (channel->free_asked)
		return XENIDC_CLOSED;
	if (!channel->conn)
		return XENIDC_IDLE;
	if (channel->conn->failed)
		return channel->conn->was_up ? XENIDC_DISCONNECTING : XENIDC_CONNECTING;
	return xi_phase_state(channel->conn->phase);
}

void *xenidc_channel_user(const xenidc_channel *channel)
{
	XI_ASSERT(channel);
	return channel->user;
}

void xenidc_channel_set_user(xenidc_channel *channel, void *user)
{
	XI_ASSERT(channel);
	channel->user = user;
}

xenidc_loop *xenidc_channel_loop(const xenidc_channel *channel)
{
	XI_ASSERT(channel);
	return channel->loop;
}

const struct xenidc_limits *xenidc_channel_limits(const xenidc_channel *channel)
{
	const struct xi_conn *conn = channel->conn;

	XI_ASSERT(channel && (!conn || conn->channel == channel));
	return conn && conn->was_up ? &conn->limits : NULL;
}

static void gather_gauges(const struct xi_conn *conn, uint64_t now, struct xenidc_stats *s)
{
	XI_ASSERT(conn->reserved && now > 0);
	s->in_flight_out = conn->limits.budget.requests_out - conn->out_free_count;
	s->in_flight_in = conn->in_busy;
	s->orphans = conn->orphans;
	s->reserved_bytes = xenidc_budget_bytes(&conn->limits.budget);
	if (!xi_list_empty(&conn->in_flight)) {
		const struct xi_out *oldest = XI_CONTAINER(conn->in_flight.next, struct xi_out, link);
		s->oldest_request_ns = now > oldest->submitted_ns ? now - oldest->submitted_ns : 1;
	}
}

void xenidc_channel_stats(const xenidc_channel *channel, struct xenidc_stats *ret)
{
	struct xi_conn *conn = channel->conn;
	struct xenidc_stats s = channel->stats;
	const struct xi_transport *t = channel->last_transport;
	size_t size = ret->size && ret->size < sizeof(s) ? ret->size : sizeof(s);

	XI_ASSERT(channel && ret && (!conn || conn->channel == channel));
	s.size = size;
	s.incarnation = channel->incarnation;
	if (t && t->quarantine)
		t->quarantine(channel->owner, &s.quarantined_bytes, &s.quarantined_regions);
	if (conn && conn->reserved) {
		gather_gauges(conn, xi_loop_clock(channel->loop), &s);
		if (conn->t->stats)
			conn->t->stats(conn, &s);
	}
	memcpy(ret, &s, size); /* an older program knows fewer */
}
