/* SPDX-License-Identifier: MIT */
/* CONNECT -> ACCEPT or REFUSE -> READY, on both sides. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "base/cursor.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/os.h"
#include "engine.h"

static void send_hello(struct xi_conn *conn, const struct xi_hello *hello)
{
	uint8_t bytes[XI_HELLO_MAX];
	uint32_t length = xi_hello_put(bytes, hello);

	XI_ASSERT(conn->phase < XI_PHASE_ENDING && length >= XI_HELLO_HEAD);
	XI_ASSERT(length <= XI_HELLO_MAX);
	conn->t->hello(conn, bytes, length);
}

static void set_version(struct xi_hello *h, const struct xi_conn *conn)
{
	XI_ASSERT(conn->major >= XI_PROTOCOL_MAJOR_MIN && conn->major <= XI_PROTOCOL_MAJOR);
	h->major_min = h->major_max = conn->major;
	h->minor = conn->minor;
}

/* Add what the peer's transport needs to reach our region. */
static void add_export(struct xi_conn *conn, struct xi_hello *h, uint8_t bytes[XI_EXPORT_MAX])
{
	struct xi_writer w = xi_writer(bytes, XI_EXPORT_MAX);

	XI_ASSERT(conn->reserved && !h->transport);
	conn->t->export_region(conn, &w);
	XI_ASSERT(!w.bad);
	h->transport = bytes;
	h->transport_len = (uint32_t)xi_writer_used(&w);
}

static void too_late(struct xenidc_timer *timer)
{
	struct xi_conn *conn = XI_CONTAINER(timer, struct xi_conn, timer);
	unsigned long long ms = conn->times.connect_ns / XI_MS;

	if (conn->failed)
		return; /* it is ending already, its task has not run yet */
	XI_ASSERT(conn->phase < XI_PHASE_UP && (conn->channel || conn->listener));
	if (conn->phase == XI_PHASE_DIALLING)
		xi_conn_end(
			conn, false, XENIDC_REASON_TIMEOUT, -ETIMEDOUT,
			"no answer from %s within %llu ms; is that machine up, and does a firewall between drop the "
			"connection?",
			conn->channel->address, ms);
	else if (conn->phase == XI_PHASE_OFFERED)
		xi_conn_end(conn, false, XENIDC_REASON_TIMEOUT, -ETIMEDOUT,
			    "%s took the connection but did not answer within %llu ms; the program there is stopped or "
			    "busy, "
			    "or is no xenidc listener",
			    conn->channel->address, ms);
	else
		xi_conn_end(conn, false, XENIDC_REASON_TIMEOUT, -ETIMEDOUT,
			    "%s did not complete its connect within %llu ms", conn->limits.peer.address, ms);
}

void xi_handshake_start(struct xi_conn *conn)
{
	XI_ASSERT(conn->times.connect_ns && conn->polled);
	XI_ASSERT(conn->phase == XI_PHASE_DIALLING || conn->phase == XI_PHASE_WAITING);
	if (xenidc_timer_start(conn->loop, &conn->timer, conn->times.connect_ns, too_late))
		xi_conn_end(conn, false, XENIDC_REASON_LIMIT, -ENOSPC,
			    "no timer is left for the channel; use fewer timers or channels on one loop");
}

void xi_handshake_offer(struct xi_conn *conn)
{
	const struct xenidc_channel_options *o = &conn->channel->options;
	struct xi_hello h = { .kind = XI_HELLO_CONNECT,
			      .major_min = XI_PROTOCOL_MAJOR_MIN,
			      .major_max = XI_PROTOCOL_MAJOR,
			      .minor = XI_PROTOCOL_MINOR,
			      .budget = o->budget,
			      .incarnation = conn->limits.incarnation,
			      .auth_len = o->auth_len };

	XI_ASSERT(conn->channel && o->auth_len <= XI_AUTH_MAX);
	XI_ASSERT(conn->phase == XI_PHASE_OFFERED);
	if (o->map && conn->t->caps & XI_CAP_MAP)
		h.features |= XI_FEATURE_MAP;
	if (o->digest && conn->t->caps & XI_CAP_DIGEST)
		h.features |= XI_FEATURE_DIGEST;
	memcpy(h.service, conn->channel->service, sizeof(h.service));
	memcpy(h.auth, conn->channel->auth, o->auth_len);
	send_hello(conn, &h);
}

/* --- Versions */

/* The largest major that both speak, and the smaller minor. False: there is none. */
static bool agree_on_version(struct xi_conn *conn, const struct xi_hello *h)
{
	uint16_t major = h->major_max < XI_PROTOCOL_MAJOR ? h->major_max : XI_PROTOCOL_MAJOR;
	uint16_t minor = XI_PROTOCOL_MINOR;

	XI_ASSERT(h->major_min <= h->major_max);
	if (major < h->major_min || major < XI_PROTOCOL_MAJOR_MIN)
		return false;
	conn->major = major;
	if (major == h->major_max && h->minor < minor)
		minor = h->minor;
	conn->minor = minor;
	conn->limits.peer.version_major = h->major_max;
	conn->limits.peer.version_minor = h->minor;
	return true;
}

static void version_text(const struct xi_hello *h, char *text, size_t size)
{
	bool they_are_older = h->major_max < XI_PROTOCOL_MAJOR_MIN;

	XI_ASSERT(h->major_max < XI_PROTOCOL_MAJOR_MIN || h->major_min > XI_PROTOCOL_MAJOR);
	snprintf(text, size, "this side speaks protocol %u to %u, the other %u to %u; upgrade the %s side",
		 XI_PROTOCOL_MAJOR_MIN, XI_PROTOCOL_MAJOR, h->major_min, h->major_max,
		 they_are_older ? "connecting" : "listening");
}

/* --- The acceptor */

static void refuse(struct xi_conn *conn, enum xenidc_reason reason, const char *text)
{
	struct xi_hello h = { .kind = XI_HELLO_REFUSE,
			      .major_min = XI_PROTOCOL_MAJOR_MIN,
			      .major_max = XI_PROTOCOL_MAJOR,
			      .minor = XI_PROTOCOL_MINOR,
			      .reason = (uint16_t)reason };

	XI_ASSERT(!conn->channel && reason != XENIDC_REASON_NONE);
	XI_ASSERT(conn->phase == XI_PHASE_ANSWERED);
	snprintf(h.text, sizeof(h.text), "%s", text);
	xi_log(LOG_INFO, "refused %s (%s): %s", conn->limits.peer.address, xenidc_reason_name(reason), h.text);
	send_hello(conn, &h);
	xi_conn_end(conn, false, reason, -ECONNREFUSED, "refused by this side: %s", h.text);
}

/* Make the channel that the listener's client gets. */
static int make_channel(struct xi_conn *conn, struct xenidc_accept *accept, struct xenidc_error *err)
{
	xenidc_listener *listener = conn->listener;
	xenidc_channel *channel;
	int e = xi_channel_make(conn->loop, &accept->channel, &channel, err);

	XI_ASSERT(listener && conn->phase == XI_PHASE_ANSWERED && conn->reserved);
	if (e)
		return e;
	XI_ASSERT(!conn->channel);
	channel->accepted = true;
	channel->listener_owns = !listener->options.accepted;
	channel->conn = conn;
	channel->owner = xi_conn_owner(conn);
	channel->last_transport = conn->t;
	channel->incarnation = conn->limits.incarnation;
	snprintf(channel->address, sizeof(channel->address), "%s", conn->limits.peer.address);
	conn->channel = channel;
	conn->times = channel->options.times;
	xi_listener_forget(conn);
	if (listener->options.accepted) {
		xi_loop_enter_handler(conn->loop);
		listener->options.accepted(listener, channel);
		xi_loop_leave_handler(conn->loop);
	}
	return 0;
}

static void send_accept(struct xi_conn *conn)
{
	uint8_t bytes[XI_EXPORT_MAX];
	struct xi_hello h = { .kind = XI_HELLO_ACCEPT, .budget = conn->limits.budget };

	XI_ASSERT(conn->channel && conn->phase == XI_PHASE_ANSWERED);
	set_version(&h, conn);
	h.features = (conn->limits.map ? XI_FEATURE_MAP : 0) | (conn->limits.digest ? XI_FEATURE_DIGEST : 0);
	h.incarnation = conn->limits.incarnation;
	xi_os->entropy(&h.session.id, sizeof(h.session.id));
	xi_os->entropy(&h.session.secret, sizeof(h.session.secret));
	add_export(conn, &h, bytes);
	XI_FAILPOINT(before_accept_sent);
	send_hello(conn, &h);
	XI_FAILPOINT(after_accept_sent);
}

static void on_connect(struct xi_conn *conn, const struct xi_hello *h)
{
	struct xenidc_accept accept = { .refuse_reason = XENIDC_REASON_DENIED };
	struct xenidc_error err = { 0 };
	struct xenidc_budget theirs, budget;
	bool map, digest;
	int reason;

	XI_ASSERT(conn->listener && !conn->channel && conn->phase == XI_PHASE_ANSWERED);
	conn->t->identify(conn, &conn->limits.peer);
	if (!agree_on_version(conn, h)) {
		version_text(h, accept.refuse_text, sizeof(accept.refuse_text));
		refuse(conn, XENIDC_REASON_VERSION, accept.refuse_text);
		return;
	}
	reason = xi_listener_admit(conn, h, &accept);
	if (reason) {
		refuse(conn, (enum xenidc_reason)reason, accept.refuse_text);
		return;
	}
	theirs = xi_budget_mirror(&h->budget);
	budget = xi_budget_meet(&accept.channel.budget, &theirs);
	map = accept.channel.map && h->features & XI_FEATURE_MAP && conn->t->caps & XI_CAP_MAP;
	digest = (accept.channel.digest || h->features & XI_FEATURE_DIGEST) && conn->t->caps & XI_CAP_DIGEST;
	if (xi_conn_reserve(conn, &budget, map, digest, &err)) {
		snprintf(accept.refuse_text, sizeof(accept.refuse_text), "%.*s", (int)sizeof(accept.refuse_text) - 1,
			 err.text);
		refuse(conn, XENIDC_REASON_BUDGET, accept.refuse_text);
		return;
	}
	if (make_channel(conn, &accept, &err)) {
		refuse(conn, XENIDC_REASON_RESOURCE, "out of memory for one more channel");
		return;
	}
	if (!conn->failed)
		send_accept(conn);
}

static void on_ready(struct xi_conn *conn, const struct xi_hello *h)
{
	struct xi_reader r = xi_reader(h->transport, h->transport_len);
	struct xenidc_error err = { 0 };
	int e;

	XI_ASSERT(conn->channel && conn->reserved && conn->phase == XI_PHASE_UP);
	if (h->major_min != h->major_max || h->major_max != conn->major || h->minor != conn->minor) {
		xi_conn_protocol(conn, "a READY of another version than was chosen");
		return;
	}
	e = conn->t->import_region(conn, &r, &conn->rx_base, &err);
	if (e) {
		xi_conn_end(conn, false, err.reason ? err.reason : XENIDC_REASON_PROTOCOL, e, "%s", err.text);
		return;
	}
	xi_conn_up(conn);
}

/* --- The dialler */

static const char *refusal_advice(enum xenidc_reason reason)
{
	switch (reason) {
	case XENIDC_REASON_VERSION:
		return "see which side is older";
	case XENIDC_REASON_SERVICE:
		return "check the service name behind the / of the address";
	case XENIDC_REASON_DENIED:
		return "ask whoever runs it for access";
	case XENIDC_REASON_LIMIT:
		return "try later, or raise its limits";
	case XENIDC_REASON_BUDGET:
		return "ask for a smaller budget, or raise its limits";
	default:
		return "see its log";
	}
}

static void on_refuse(struct xi_conn *conn, struct xi_hello *h)
{
	enum xenidc_reason reason = (enum xenidc_reason)h->reason;

	XI_ASSERT(conn->channel && conn->phase == XI_PHASE_OFFERED);
	/* One that shares no version with us wrote its reason as that version does; but there is only one that it can
	 * be. */
	if (!agree_on_version(conn, h)) {
		reason = XENIDC_REASON_VERSION;
		snprintf(h->text, sizeof(h->text), "this side speaks protocol %u to %u, the other %u to %u",
			 XI_PROTOCOL_MAJOR_MIN, XI_PROTOCOL_MAJOR, h->major_min, h->major_max);
	}
	xi_text_printable(h->text);
	xi_conn_end(conn, true, reason, -ECONNREFUSED, "%s refused the connection (%s): \"%s\"; %s",
		    conn->channel->address, xenidc_reason_name(reason), h->text, refusal_advice(reason));
}

/* Is what the acceptor says within what we offered? It is if meeting ours with it changes nothing. */
static bool within_offer(struct xi_conn *conn, const struct xenidc_budget *budget)
{
	struct xenidc_budget met = xi_budget_meet(&conn->channel->options.budget, budget);

	XI_ASSERT(conn->channel && budget->size == sizeof(*budget));
	return xi_budget_equal(&met, budget);
}

static void send_ready(struct xi_conn *conn)
{
	uint8_t bytes[XI_EXPORT_MAX];
	struct xi_hello h = { .kind = XI_HELLO_READY };

	XI_ASSERT(conn->channel && conn->rx_base && conn->phase == XI_PHASE_UP);
	set_version(&h, conn);
	add_export(conn, &h, bytes);
	XI_FAILPOINT(before_ready_sent);
	send_hello(conn, &h);
	XI_FAILPOINT(after_ready_sent);
}

static void on_accept(struct xi_conn *conn, const struct xi_hello *h)
{
	const struct xenidc_channel_options *o = &conn->channel->options;
	struct xenidc_budget budget = xi_budget_mirror(&h->budget);
	bool map = h->features & XI_FEATURE_MAP, digest = h->features & XI_FEATURE_DIGEST;
	struct xi_reader r = xi_reader(h->transport, h->transport_len);
	struct xenidc_error err = { 0 };
	int e;

	XI_ASSERT(conn->channel && !conn->reserved && conn->phase == XI_PHASE_UP);
	budget.size = sizeof(budget);
	if (!agree_on_version(conn, h) || h->major_min != h->major_max || !within_offer(conn, &budget) ||
	    (map && !(o->map && conn->t->caps & XI_CAP_MAP)) || (digest && !(conn->t->caps & XI_CAP_DIGEST))) {
		xi_conn_protocol(conn, "an ACCEPT of more than was offered");
		return;
	}
	e = xi_conn_reserve(conn, &budget, map, digest, &err);
	if (!e)
		e = conn->t->import_region(conn, &r, &conn->rx_base, &err);
	if (e) {
		xi_conn_end(conn, false, err.reason ? err.reason : XENIDC_REASON_RESOURCE, e, "%s", err.text);
		return;
	}
	send_ready(conn);
	if (!conn->failed)
		xi_conn_up(conn);
}

/* --- Both */

void xi_conn_hello(struct xi_conn *conn, const void *bytes, uint32_t length)
{
	static const enum xi_event events[] = {
		[XI_HELLO_CONNECT] = XI_EVENT_CONNECT,
		[XI_HELLO_ACCEPT] = XI_EVENT_ACCEPT,
		[XI_HELLO_REFUSE] = XI_EVENT_REFUSE,
		[XI_HELLO_READY] = XI_EVENT_READY,
	};
	struct xi_hello h;
	const char *why;

	if (conn->failed || conn->phase >= XI_PHASE_ENDING)
		return;
	if (xi_hello_parse(bytes, length, &h, &why)) {
		xi_conn_protocol(conn, "a connect message with %s", why);
		return;
	}
	XI_ASSERT(h.kind >= XI_HELLO_CONNECT && h.kind <= XI_HELLO_READY);
	if (xi_lifecycle_next(conn->phase, events[h.kind]) == XI_PHASE_NONE) {
		xi_conn_protocol(conn, "connect message %u while %s", h.kind, xi_phase_name(conn->phase));
		return;
	}
	if (h.kind == XI_HELLO_REFUSE) { /* its phase changes when the end is carried out */
		on_refuse(conn, &h);
		return;
	}
	xi_conn_event(conn, events[h.kind]);
	if (h.kind == XI_HELLO_CONNECT)
		on_connect(conn, &h);
	else if (h.kind == XI_HELLO_ACCEPT)
		on_accept(conn, &h);
	else
		on_ready(conn, &h);
}
