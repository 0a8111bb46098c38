/* SPDX-License-Identifier: MIT */
/* A channel over a byte stream in memory: the stream engine and the core under whatever a peer says. */
#include <errno.h>
#include <string.h>

#include "tests/lib/check.h"
#include "transport-net/stream.h"
#include "world.h"

/* One connection at a time. */
struct conn {
	struct xi_stream stream; /* first */
	struct xi_conn *conn;
};

static struct {
	struct conn *conn;
	struct raw_bytes to, from; /* the target */
	uint32_t to_at, from_at;
	uint32_t cut; /* bytes that the stream moves at a time; 0: any */
	bool ended, framed, full;
	uint8_t said; /* kind of its last connect message */
} pipe_state;

static uint32_t some(uint32_t n)
{
	return pipe_state.cut && n > pipe_state.cut ? pipe_state.cut : n;
}

static ssize_t pipe_send(struct xi_stream *s, const struct iovec *iov, unsigned n)
{
	ssize_t sum = 0;

	(void)s;
	/* Every other time there is no room. */
	pipe_state.full = pipe_state.cut && !pipe_state.full;
	if (pipe_state.full)
		return -EAGAIN;
	for (unsigned i = 0; i < n; i++) {
		uint32_t length = some((uint32_t)iov[i].iov_len);
		if (pipe_state.from.n + length > RAW_BYTES)
			return sum ? sum : -EPIPE; /* more than anybody would read */
		raw_copy(&pipe_state.from, iov[i].iov_base, length);
		sum += length;
		if (length < iov[i].iov_len)
			break;
	}
	return sum;
}

static ssize_t pipe_recv(struct xi_stream *s, const struct iovec *iov, unsigned n)
{
	uint32_t left = some(pipe_state.to.n - pipe_state.to_at), sum = 0;

	(void)s;
	CHECK(n >= 1 && iov[0].iov_len > 0);
	if (!left)
		return pipe_state.ended ? 0 : -EAGAIN;
	for (unsigned i = 0; i < n && left; i++) {
		uint32_t length = left < iov[i].iov_len ? left : (uint32_t)iov[i].iov_len;
		memcpy(iov[i].iov_base, pipe_state.to.b + pipe_state.to_at, length);
		pipe_state.to_at += length;
		left -= length;
		sum += length;
	}
	return sum;
}

static void pipe_wait(struct xi_stream *s, bool for_room)
{
	(void)s;
	(void)for_room;
}

static void pipe_over(struct xi_stream *s, int error)
{
	xi_conn_lost(((struct conn *)(void *)s)->conn, XENIDC_REASON_LOST, -ECONNRESET, "the stream is over (%d)",
		     error);
}

static const struct xi_pipe pipe_ops = { pipe_send, pipe_recv, pipe_wait, pipe_over };

/* --- The transport */

static int check(const char *rest, char *service, struct xenidc_error *err)
{
	(void)rest;
	(void)err;
	service[0] = '\0';
	return 0;
}

static int listen_at(struct xi_listener *listener, const char *rest, char *name, struct xenidc_error *err)
{
	(void)rest;
	(void)err;
	world.listening = listener;
	strcpy(name, "fuzz:");
	return 0;
}

static void unlisten(struct xi_listener *listener)
{
	(void)listener;
}

static int dial(struct xi_conn *conn, const char *rest, struct xenidc_error *err)
{
	(void)conn;
	(void)rest;
	(void)err;
	return -EOPNOTSUPP;
}

static void adopt(struct xi_conn *conn, void *arg)
{
	struct conn *c = xi_conn_priv(conn);

	(void)arg;
	c->conn = conn;
	pipe_state.conn = c;
	xi_stream_start(&c->stream, conn, &pipe_ops);
}

static void identify(struct xi_conn *conn, struct xenidc_peer *peer)
{
	(void)conn;
	strcpy(peer->address, "fuzz");
}

static unsigned process(struct xi_conn *conn, unsigned budget)
{
	struct conn *c = xi_conn_priv(conn);

	if (c->stream.waiting)
		xi_stream_writable(&c->stream);
	return xi_stream_process(conn, budget);
}

static int close_conn(struct xi_conn *conn)
{
	struct conn *c = xi_conn_priv(conn);

	pipe_state.cut = 0; /* the last push gives up at once where there is no room */
	if (c->stream.pipe)
		(void)xi_stream_close(&c->stream);
	return 0;
}

static void fini(struct xi_conn *conn)
{
	struct conn *c = xi_conn_priv(conn);

	xi_stream_fini(&c->stream);
	pipe_state.conn = NULL;
}

static void diagnose(xenidc_diagnose_line *line, void *user)
{
	(void)line;
	(void)user;
}

static const struct xi_transport transport = {
	.version = XI_TRANSPORT_VERSION,
	.scheme = "fuzz",
	.caps = XI_CAP_STREAM | XI_CAP_DIGEST,
	.conn_size = sizeof(struct conn),
	.listener_size = 1,
	.check = check,
	.listen = listen_at,
	.unlisten = unlisten,
	.dial = dial,
	.adopt = adopt,
	.identify = identify,
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
	.process = process,
	.arm = xi_stream_arm,
	.disarm = xi_stream_disarm,
	.close = close_conn,
	.fini = fini,
	.stats = xi_stream_stats,
	.diagnose = diagnose,
};

/* --- The peer */

static void reset(void)
{
	pipe_state.to.n = pipe_state.from.n = pipe_state.to_at = pipe_state.from_at = 0;
	pipe_state.ended = pipe_state.framed = pipe_state.full = false;
	pipe_state.said = 0;
	pipe_state.cut = input_8(world.in);
	if (pipe_state.cut > 200)
		pipe_state.cut = 0;
	else if (pipe_state.cut > 64)
		pipe_state.cut = (pipe_state.cut - 64u) * 32u;
}

static void arrive(void)
{
	CHECK(xi_listener_incoming(world.listening, NULL));
}

static void say(const uint8_t *bytes, uint32_t length)
{
	if (pipe_state.to.n + length <= RAW_BYTES)
		raw_copy(&pipe_state.to, bytes, length);
}

static void say_hello(const struct raw_bytes *bytes)
{
	say(bytes->b, bytes->n);
}

static void say_frame(const struct raw_bytes *bytes)
{
	static struct raw_bytes wrapped;

	wrapped.n = 0;
	/* Both kinds of digests: the one that holds, and the one that does not. */
	raw_wrap(&wrapped, bytes, input_8(world.in) & 1);
	say(wrapped.b, wrapped.n);
}

static void end(void)
{
	pipe_state.ended = true;
	pipe_state.cut = 0;
}

static bool heard_hello(uint8_t kind)
{
	return pipe_state.said == kind;
}

/* Follow what the target says, as far as it is complete. */
static void listen_to(void)
{
	for (;;) {
		const uint8_t *at = pipe_state.from.b + pipe_state.from_at;
		uint32_t left = pipe_state.from.n - pipe_state.from_at, length;

		if (left < 16)
			return;
		length = pipe_state.framed ? RAW_PREFIX + raw_get32(at) : raw_get32(at + 12);
		if (left < length)
			return;
		pipe_state.from_at += length;
		if (pipe_state.framed) {
			world_heard(at + RAW_PREFIX);
			continue;
		}
		CHECK_MEM(at, "XIDC", 4);
		pipe_state.said = at[4];
		pipe_state.framed = at[4] == RAW_ACCEPT;
	}
}

static const struct world_peer peer = {
	.transport = &transport,
	.stream = true,
	.reset = reset,
	.arrive = arrive,
	.hello = say_hello,
	.frame = say_frame,
	.bytes = say,
	.end = end,
	.heard_hello = heard_hello,
	.listen = listen_to,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	world_start(&peer);
	world_run(data, size);
	return 0;
}
