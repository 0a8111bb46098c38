/* SPDX-License-Identifier: MIT */
/*
 * Connecting. The addresses of a name are tried in the order in which the resolver gave them; when one fails, or has
 * not answered for TCP_STAGGER, the next one is tried besides. The first that answers wins.
 */
#define _GNU_SOURCE
#include "tcp.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/failpoint.h"
#include "xenidc-core/base/list.h"
#include "xenidc-core/base/log.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"
#include "xenidc-core/loop.h"

static void stop_attempt(struct tcp_attempt *a)
{
	if (!a->sock)
		return;
	xenidc_watch_stop(&a->watch);
	xi_tcp_close(&a->sock);
	XI_ASSERT(a->conn->dial.open > 0);
	a->conn->dial.open--;
}

void xi_tcp_dial_stop(struct tcp_dial *dial)
{
	xenidc_timer_stop(&dial->timer);
	for (unsigned i = 0; i < dial->count; i++)
		stop_attempt(&dial->attempts[i]);
	dial->next = dial->count;
	XI_ASSERT(dial->open == 0);
}

/* How much an error tells: one that somebody answered with tells most. */
static int telling(int error)
{
	static const int order[] = { ENETUNREACH, EHOSTUNREACH, ETIMEDOUT, EACCES, ECONNREFUSED };

	for (int i = 0; i < (int)(sizeof(order) / sizeof(order[0])); i++)
		if (order[i] == -error)
			return i + 1;
	return 0;
}

static void blame(struct tcp_dial *d, unsigned target, int error)
{
	XI_ASSERT(error < 0);
	if (d->error && telling(error) < telling(d->error))
		return;
	d->error = error;
	d->blamed = target;
}

/* What happened, for a person. */
static enum xenidc_reason explain(const struct tcp_dial *d, char *text, size_t size)
{
	char where[160], number[TCP_TEXT_MAX];
	size_t used;

	XI_ASSERT(d->error);
	xi_tcp_name_text(&d->name, d->name.port, where, 100);
	used = strlen(where);
	xi_tcp_text(&d->targets[d->blamed].address, number);
	if (!d->name.numeric)
		snprintf(where + used, sizeof(where) - used, " (%s)", number);
	return xi_tcp_connect_words(d->error, where, text, size);
}

/*
 * A port of the kernel's choice may be the very port that is connected to; then TCP connects a socket to itself, and
 * nobody else is there.
 */
static bool is_own_echo(int fd)
{
	union tcp_socket_address here = { 0 }, there = { 0 };
	socklen_t here_length = sizeof(here), there_length = sizeof(there);

	if (xi_os->getsockname(fd, &here.any, &here_length) < 0 ||
	    xi_os->getpeername(fd, &there.any, &there_length) < 0)
		return false;
	return here_length == there_length && memcmp(&here, &there, here_length) == 0;
}

static int outcome(int fd)
{
	int error = 0;
	socklen_t length = sizeof(error);
	int r = xi_os->getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);

	if (r < 0)
		return r;
	if (error)
		return -error;
	return is_own_echo(fd) ? -ECONNREFUSED : 0;
}

static bool try_next(struct tcp_conn *tcp);

static void give_up(struct tcp_conn *tcp)
{
	char text[XENIDC_ERROR_TEXT_MAX];
	enum xenidc_reason reason = explain(&tcp->dial, text, sizeof(text));

	xi_tcp_dial_stop(&tcp->dial);
	xi_conn_lost(tcp->conn, reason, tcp->dial.error, "%s", text);
}

static void attempt_ready(struct xenidc_watch *watch, uint32_t events)
{
	struct tcp_attempt *a = XI_CONTAINER(watch, struct tcp_attempt, watch);
	struct tcp_conn *tcp = a->conn;
	int fd = a->sock - 1, error = outcome(fd);

	(void)events;
	if (error) {
		blame(&tcp->dial, a->target, error);
		stop_attempt(a);
		if (!try_next(tcp))
			give_up(tcp);
		return;
	}
	xenidc_watch_stop(&a->watch);
	a->sock = 0;
	tcp->dial.open--;
	xi_tcp_dial_stop(&tcp->dial);
	XI_FAILPOINT(tcp_dialled);
	xi_tcp_take(tcp, fd);
	xi_conn_dialled(tcp->conn);
}

static int start_attempt(struct tcp_conn *tcp, unsigned target)
{
	const struct tcp_target *t = &tcp->dial.targets[target];
	struct tcp_attempt *a = &tcp->dial.attempts[target];
	int fd = xi_tcp_socket(t->address.any.sa_family), r;

	XI_ASSERT(!a->sock);
	if (fd < 0)
		return fd;
	*a = (struct tcp_attempt){ .conn = tcp, .sock = fd + 1, .target = target };
	r = xi_os->connect(fd, &t->address.any, t->length);
	if (r == 0 || r == -EINPROGRESS)
		r = xenidc_watch_start(xi_conn_loop(tcp->conn), &a->watch, fd, POLLOUT, attempt_ready);
	if (r < 0) {
		xi_tcp_close(&a->sock);
		return r;
	}
	tcp->dial.open++;
	return 0;
}

/* Start the next attempt that can be started. False: none is under way. */
static bool try_next(struct tcp_conn *tcp)
{
	struct tcp_dial *d = &tcp->dial;

	while (d->next < d->count) {
		unsigned target = d->next++;
		int r = start_attempt(tcp, target);
		if (r == 0)
			return true;
		blame(d, target, r);
	}
	return d->open > 0;
}

static void start_timer(struct tcp_conn *tcp);

static void timer_fired(struct xenidc_timer *timer)
{
	struct tcp_dial *d = XI_CONTAINER(timer, struct tcp_dial, timer);
	struct tcp_conn *tcp = XI_CONTAINER(d, struct tcp_conn, dial);

	if (xenidc_loop_now(xi_conn_loop(tcp->conn)) >= d->give_up) {
		blame(d, d->next - 1, -ETIMEDOUT);
		give_up(tcp);
		return;
	}
	if (try_next(tcp))
		start_timer(tcp);
	else
		give_up(tcp);
}

static void start_timer(struct tcp_conn *tcp)
{
	struct tcp_dial *d = &tcp->dial;
	xenidc_loop *loop = xi_conn_loop(tcp->conn);
	uint64_t now = xenidc_loop_now(loop);
	uint64_t after = d->give_up > now ? d->give_up - now : 0;

	if (d->next < d->count && after > TCP_STAGGER)
		after = TCP_STAGGER;
	/* Without a timer the attempts go on, and the connect's own time limit ends them. */
	(void)xenidc_timer_start(loop, &d->timer, after, timer_fired);
}

static int check_target(const char *rest, struct tcp_name *ret, struct xenidc_error *err)
{
	int r = xi_tcp_parse(rest, ret, err);

	if (r)
		return r;
	if (!ret->host[0] || ret->host[0] == '*')
		return xi_error(
			err, -EINVAL, XENIDC_REASON_ADDRESS,
			"the address \"tcp:%.80s\" names no host to connect to; put a name or an address there, "
			"tcp:localhost for this machine",
			rest);
	if (!ret->port)
		return xi_error(err, -EINVAL, XENIDC_REASON_ADDRESS,
				"the address \"tcp:%.80s\" has port 0, which only a listener can use; give the port at "
				"which the other side listens",
				rest);
	return 0;
}

int xi_tcp_dial(struct xi_conn *conn, const char *rest, struct xenidc_error *err)
{
	struct tcp_conn *tcp = xi_conn_priv(conn);
	struct tcp_dial *d = &tcp->dial;
	uint64_t limit = xi_conn_times(conn)->connect_ns;
	char text[XENIDC_ERROR_TEXT_MAX];
	int r = check_target(rest, &d->name, err);

	tcp->conn = conn;
	if (r)
		return r;
	r = xi_tcp_resolve(&d->name, false, d->targets, err);
	if (r < 0)
		return r;
	XI_ASSERT(r > 0);
	d->count = (unsigned)r;
	/* A little before the time limit of the whole connect, since here is known what did not answer. */
	d->give_up = xi_loop_clock(xi_conn_loop(conn)) + limit - limit / 16;
	if (try_next(tcp)) {
		start_timer(tcp);
		return 0;
	}
	enum xenidc_reason reason = explain(d, text, sizeof(text));
	return xi_error(err, d->error, reason, "%s", text);
}
