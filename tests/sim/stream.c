/* SPDX-License-Identifier: MIT */
/* sim-stream: the byte-stream engine over a link that cuts and joins bytes in any way. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "sim.h"
#include "transport-net/stream.h"
#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/log.h"

#define SCHEME "sim-stream"
/* After ENOBUFS nothing is said to have changed: the engine has to try again by itself. */
#define NO_MEMORY_ONE_IN 200

static uint64_t starved_at;

struct stream_conn {
	struct xi_stream stream; /* first */
	struct sim_end *end;
	struct xenidc_watch watch;
	bool started;
	bool told; /* that nobody listens there */
};

struct stream_listener {
	struct xi_listener *listener;
	struct sim_name *name;
	struct xenidc_watch watch;
};

uint64_t sim_stream_starved(void)
{
	return starved_at;
}

/* --- The pipe */
static uint32_t chunk(uint32_t most)
{
	switch (sim_options()->chunks) {
	case SIM_CHUNKS_BYTE:
		return 1;
	case SIM_CHUNKS_WHOLE:
		return most;
	default:
		return sim_chance(2) ? most : 1 + sim_below(most);
	}
}

static uint32_t sum(const struct iovec *iov, unsigned n)
{
	size_t bytes = 0;

	for (unsigned i = 0; i < n; i++)
		bytes += iov[i].iov_len;
	XI_ASSERT(n > 0 && bytes > 0);
	return bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)bytes;
}

static ssize_t pipe_send(struct xi_stream *s, const struct iovec *iov, unsigned n)
{
	struct sim_end *end = ((struct stream_conn *)s)->end;
	uint32_t bytes = sum(iov, n), room = sim_end_room(end), done = 0;

	if (end->link->broken)
		return -ECONNRESET;
	/* The first words to somebody who has closed are still taken. */
	if (sim_end_other(end)->closed)
		return sim_chance(2) ? -EPIPE : (ssize_t)bytes;
	if (!room)
		return -EAGAIN;
	bytes = bytes < room ? bytes : room;
	if (!s->closed) { /* the last words are taken as long as there is room */
		if (sim_options()->chunks == SIM_CHUNKS_RANDOM && sim_chance(NO_MEMORY_ONE_IN)) {
			starved_at = sim_now();
			return -ENOBUFS;
		}
		bytes = chunk(bytes);
	}
	for (unsigned i = 0; done < bytes; i++) {
		uint32_t part = bytes - done;
		part = part < iov[i].iov_len ? part : (uint32_t)iov[i].iov_len;
		if (part)
			sim_end_put(end, iov[i].iov_base, part);
		done += part;
	}
	return done;
}

static ssize_t pipe_recv(struct xi_stream *s, const struct iovec *iov, unsigned n)
{
	struct sim_end *end = ((struct stream_conn *)s)->end;
	uint32_t bytes = sum(iov, n), done = 0;

	if (!end->in.visible) {
		if (sim_end_over(end))
			return end->link->broken ? -ECONNRESET : 0;
		return -EAGAIN;
	}
	bytes = bytes < end->in.visible ? bytes : end->in.visible;
	bytes = chunk(bytes);
	for (unsigned i = 0; done < bytes; i++) {
		uint32_t part = bytes - done;
		part = part < iov[i].iov_len ? part : (uint32_t)iov[i].iov_len;
		if (part) {
			sim_end_peek(end, 0, iov[i].iov_base, part);
			sim_end_take(end, part);
		}
		done += part;
	}
	sim_end_refresh(end);
	if (!sim_end_other(end)->closed)
		sim_end_refresh(sim_end_other(end)); /* it has room now */
	return done;
}

static void pipe_wait(struct xi_stream *s, bool for_room)
{
	struct stream_conn *c = (struct stream_conn *)s;

	xenidc_watch_change(&c->watch, for_room ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void pipe_over(struct xi_stream *s, int error)
{
	struct stream_conn *c = (struct stream_conn *)s;

	sim_trace("stream of %s is over: %d", c->end->process->name, error);
	xenidc_watch_change(&c->watch, 0);
	xi_conn_lost(s->conn, XENIDC_REASON_LOST, error ? error : -ECONNRESET,
		     "the simulated stream ended (%s); connect again", error ? strerror(-error) : "in order");
}

static const struct xi_pipe stream_pipe = {
	.send = pipe_send,
	.recv = pipe_recv,
	.wait = pipe_wait,
	.over = pipe_over,
};

/* --- Connecting */
static void watch_fired(struct xenidc_watch *watch, uint32_t events)
{
	struct stream_conn *c = XI_CONTAINER(watch, struct stream_conn, watch);

	if (c->started && (events & (EPOLLOUT | EPOLLERR)))
		xi_stream_writable(&c->stream);
}

static void start(struct stream_conn *c, struct xi_conn *conn)
{
	c->started = true;
	xi_stream_start(&c->stream, conn, &stream_pipe);
}

static void own_end(struct xi_conn *conn, struct sim_end *end)
{
	struct stream_conn *c = xi_conn_priv(conn);

	c->end = end;
	end->user = c;
	int r = xenidc_watch_start(xi_conn_loop(conn), &c->watch, end->fd, EPOLLIN, watch_fired);
	XI_ASSERT(r == 0);
	sim_end_refresh(end);
}

static int stream_dial(struct xi_conn *conn, const char *rest, struct xenidc_error *err)
{
	struct sim_link *link = sim_link_dial(SCHEME, rest, xi_conn_loop(conn), sim_options()->pipe_bytes);

	(void)err;
	link->arrived = sim_end_refresh;
	own_end(conn, &link->end[0]);
	return 0;
}

static void stream_adopt(struct xi_conn *conn, void *arg)
{
	struct sim_link *link = arg;

	own_end(conn, &link->end[1]);
	start(xi_conn_priv(conn), conn);
}

static unsigned stream_process(struct xi_conn *conn, unsigned budget)
{
	struct stream_conn *c = xi_conn_priv(conn);

	if (c->started)
		return xi_stream_process(conn, budget);
	if (!c->end || c->told)
		return 0;
	if (c->end->link->refused) {
		c->told = true;
		xenidc_watch_change(&c->watch, 0);
		xi_conn_lost(conn, XENIDC_REASON_UNREACHABLE, -ECONNREFUSED,
			     "cannot connect to %s:%s: nobody listens there; start the other side", SCHEME,
			     c->end->link->name);
		return 1;
	}
	if (!c->end->link->connected)
		return 0;
	start(c, conn);
	xi_conn_dialled(conn);
	return 1;
}

static int stream_arm(struct xi_conn *conn, bool futex_ok, struct xi_wait *wait)
{
	struct stream_conn *c = xi_conn_priv(conn);

	if (c->started)
		return xi_stream_arm(conn, futex_ok, wait);
	wait->futex = NULL;
	return 0;
}

static void stream_identify(struct xi_conn *conn, struct xenidc_peer *peer)
{
	struct stream_conn *c = xi_conn_priv(conn);
	const struct sim_process *other = sim_end_other(c->end)->process;

	snprintf(peer->transport, sizeof(peer->transport), SCHEME);
	snprintf(peer->address, sizeof(peer->address), SCHEME ":%s (%s)", c->end->link->name,
		 other ? other->name : "?");
}

static int stream_close(struct xi_conn *conn)
{
	struct stream_conn *c = xi_conn_priv(conn);

	if (!c->end)
		return 0;
	if (c->started)
		xi_stream_close(&c->stream);
	xenidc_watch_stop(&c->watch);
	sim_end_close(c->end);
	c->end = NULL;
	return 0;
}

static void stream_fini(struct xi_conn *conn)
{
	struct stream_conn *c = xi_conn_priv(conn);

	XI_ASSERT(!c->end);
	xi_stream_fini(&c->stream);
}

/* --- Listening */
static void somebody_came(struct xenidc_watch *watch, uint32_t events)
{
	struct stream_listener *l = XI_CONTAINER(watch, struct stream_listener, watch);
	struct sim_link *link = sim_name_accept(l->name);

	(void)events;
	if (link && !xi_listener_incoming(l->listener, link))
		sim_end_close(&link->end[1]);
}

static int stream_listen(struct xi_listener *listener, const char *rest, char *name, struct xenidc_error *err)
{
	struct stream_listener *l = xi_listener_priv(listener);

	l->listener = listener;
	l->name = sim_name_new(SCHEME, rest, xi_listener_loop(listener));
	if (!l->name)
		return xi_error(err, -EADDRINUSE, XENIDC_REASON_ADDRESS,
				"cannot listen at %s:%.60s: somebody does already; choose another name", SCHEME, rest);
	int r = xenidc_watch_start(xi_listener_loop(listener), &l->watch, sim_name_fd(l->name), EPOLLIN, somebody_came);
	XI_ASSERT(r == 0);
	snprintf(name, XENIDC_ADDRESS_MAX, SCHEME ":%s", rest);
	return 0;
}

static void stream_unlisten(struct xi_listener *listener)
{
	struct stream_listener *l = xi_listener_priv(listener);

	if (!l->name)
		return;
	xenidc_watch_stop(&l->watch);
	sim_name_free(l->name);
	l->name = NULL;
}

static void stream_diagnose(xenidc_diagnose_line *line, void *user)
{
	line(user, SCHEME, 0, "simulated", NULL);
}

const struct xi_transport sim_transport_stream = {
	.version = XI_TRANSPORT_VERSION,
	.scheme = SCHEME,
	.caps = XI_CAP_STREAM | XI_CAP_DIGEST,
	.conn_size = sizeof(struct stream_conn),
	.listener_size = sizeof(struct stream_listener),
	.check = sim_name_check,
	.listen = stream_listen,
	.unlisten = stream_unlisten,
	.dial = stream_dial,
	.adopt = stream_adopt,
	.identify = stream_identify,
	.hello = xi_stream_hello,
	.reserve = xi_stream_reserve,
	.export_region = xi_stream_export_region,
	.import_region = xi_stream_import_region,
	.tx_begin = xi_stream_tx_begin,
	.tx_commit = xi_stream_tx_commit,
	.flush = xi_stream_flush,
	.tx_unsent = xi_stream_tx_unsent,
	.retract = xi_stream_retract,
	.drop_segs = xi_stream_drop_segs,
	.process = stream_process,
	.arm = stream_arm,
	.disarm = xi_stream_disarm,
	.close = stream_close,
	.fini = stream_fini,
	.stats = xi_stream_stats,
	.diagnose = stream_diagnose,
};
