/* SPDX-License-Identifier: MIT */
/*
 * For tests of the byte-stream engine: it stands between two stubs of the core and two pipes in memory that cut and
 * join bytes anyhow.
 *
 * Each frame says in its body which pieces of data it announces, so that the receiving stub knows what to expect; the
 * data of a slot are a function of slot, offset and round.
 */
#ifndef TESTS_UNIT_STREAM_PAIR_H
#define TESTS_UNIT_STREAM_PAIR_H

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/check.h"
#include "transport-net/stream.h"
#include "xenidc-core/base/cursor.h"
#include "xenidc-core/base/list.h"
#include "xenidc-core/budget.h"
#include "xenidc-core/frame.h"
#include "xenidc-core/hello.h"

#define PIPE_BYTES (8u << 20)
#define SLOTS 12u
#define LOG_MAX 4096u

/* One direction of bytes. */
struct pipe_bytes {
	uint8_t *bytes;
	size_t in, out; /* bytes written and read, ever */
	size_t room;    /* bytes that it takes before somebody reads */
	size_t cut;     /* most bytes a call; 0: random, up to 3000 */
	unsigned reads; /* calls that brought something */
	bool shut;
	int send_error;
};

enum logged { LOG_FRAME, LOG_DATA };
struct record {
	enum logged what;
	uint32_t id, length, slot, offset;
};

struct side {
	struct xi_stream stream;
	struct pipe_bytes *to, *from;
	struct xi_conn *conn;
	uint8_t *tx, *rx;
	struct xi_layout tx_layout, rx_layout;
	/* the stub of the core */
	uint8_t buffer[XI_FRAME_MAX];
	uint32_t expect_next[SLOTS], expect_end[SLOTS];
	struct record log[LOG_MAX];
	unsigned logged, hellos, lost, overs, waits;
	bool waiting;
	enum xenidc_reason reason;
	int code;
	char text[200];
	uint8_t hello[XI_HELLO_MAX];
	uint32_t hello_length;
	bool import_at_hello;
	unsigned stop_after; /* frames: then xi_conn_frame() says that it is the end */
};
struct xi_conn {
	struct side *side;
};

static xenidc_loop *loop;
static uint32_t big_slot = 1u << 20; /* bytes of slots 4, 5, 10 and 11; the others have 4096 */
static uint64_t seed = 1;

static uint32_t rnd(uint32_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % below;
}

__attribute__((unused)) static uint8_t pattern(uint32_t slot, uint32_t offset)
{
	return (uint8_t)(slot * 37 + offset * 7 + (offset >> 8) * 13 + 1);
}

/* --- the core, as far as the engine sees it */

void *xi_conn_priv(struct xi_conn *conn)
{
	return &conn->side->stream;
}

xenidc_loop *xi_conn_loop(struct xi_conn *conn)
{
	(void)conn;
	return loop;
}

uint8_t *xi_conn_rx_buffer(struct xi_conn *conn)
{
	return conn->side->buffer;
}

static struct record *record(struct side *d, enum logged what)
{
	CHECK(d->logged < LOG_MAX);
	d->log[d->logged] = (struct record){ .what = what };
	return &d->log[d->logged++];
}

bool xi_conn_frame(struct xi_conn *conn, uint32_t length)
{
	struct side *d = conn->side;
	struct xi_reader r = xi_reader(d->buffer + XI_FRAME_HEADER, length - XI_FRAME_HEADER);
	struct record *e = record(d, LOG_FRAME);

	CHECK(!d->lost);
	memcpy(&e->id, d->buffer + 4, 4);
	e->length = length;
	for (unsigned n = d->buffer[10]; n; n--) {
		uint32_t slot = xi_get_u32(&r), offset = xi_get_u32(&r), bytes = xi_get_u32(&r);
		CHECK(!r.bad && slot < SLOTS && d->expect_next[slot] == d->expect_end[slot]);
		d->expect_next[slot] = offset;
		d->expect_end[slot] = offset + bytes;
	}
	return !(d->stop_after && --d->stop_after == 0);
}

uint8_t *xi_conn_bulk(struct xi_conn *conn, uint32_t slot, uint32_t offset, uint32_t length)
{
	struct side *d = conn->side;
	uint32_t size;

	CHECK(!d->lost && slot < SLOTS && length > 0);
	if (d->expect_next[slot] != offset || length > d->expect_end[slot] - offset) {
		xi_conn_lost(conn, XENIDC_REASON_PROTOCOL, -EPROTO, "unexpected data");
		return NULL;
	}
	return d->rx + xi_layout_slot(&d->rx_layout, slot, &size) + offset;
}

uint32_t xi_conn_bulk_expected(struct xi_conn *conn, uint32_t slot)
{
	return conn->side->expect_end[slot] - conn->side->expect_next[slot];
}

bool xi_conn_bulk_done(struct xi_conn *conn, uint32_t slot, uint32_t length)
{
	struct side *d = conn->side;
	struct record *e = record(d, LOG_DATA);

	e->slot = slot;
	e->offset = d->expect_next[slot];
	e->length = length;
	d->expect_next[slot] += length;
	return true;
}

void xi_conn_hello(struct xi_conn *conn, const void *bytes, uint32_t length)
{
	struct side *d = conn->side;
	struct xi_reader r = xi_reader(NULL, 0);
	uint8_t *rx;

	d->hellos++;
	memcpy(d->hello, bytes, length);
	d->hello_length = length;
	if (d->import_at_hello)
		CHECK_EQ(xi_stream_import_region(conn, &r, &rx, NULL), 0);
}

void xi_conn_lost(struct xi_conn *conn, enum xenidc_reason reason, int code, const char *text, ...)
{
	struct side *d = conn->side;

	d->lost++;
	d->reason = reason;
	d->code = code;
	va_list args;
	va_start(args, text);
	vsnprintf(d->text, sizeof(d->text), text, args);
	va_end(args);
}

/* --- pipes */

static struct side *side_of(struct xi_stream *s)
{
	return XI_CONTAINER(s, struct side, stream);
}

static size_t limit(const struct pipe_bytes *p, size_t n)
{
	size_t cut = p->cut ? p->cut : 1 + rnd(3000);

	return n < cut ? n : cut;
}

static ssize_t pipe_send(struct xi_stream *s, const struct iovec *iov, unsigned n)
{
	struct pipe_bytes *p = side_of(s)->to;
	size_t total = 0, taken = 0, most;

	for (unsigned i = 0; i < n; i++)
		total += iov[i].iov_len;
	CHECK(n > 0 && total > 0);
	if (p->send_error)
		return p->send_error;
	most = limit(p, total);
	if (most > p->room - (p->in - p->out))
		most = p->room - (p->in - p->out);
	CHECK(p->in + most <= PIPE_BYTES);
	for (unsigned i = 0; i < n && taken < most; i++) {
		size_t part = iov[i].iov_len < most - taken ? iov[i].iov_len : most - taken;
		memcpy(p->bytes + p->in + taken, iov[i].iov_base, part);
		taken += part;
	}
	p->in += taken;
	return taken ? (ssize_t)taken : -EAGAIN;
}

static ssize_t pipe_recv(struct xi_stream *s, const struct iovec *iov, unsigned n)
{
	struct pipe_bytes *p = side_of(s)->from;
	size_t total = 0, given = 0, most;

	for (unsigned i = 0; i < n; i++)
		total += iov[i].iov_len;
	CHECK(n > 0 && total > 0);
	most = limit(p, total);
	if (most > p->in - p->out)
		most = p->in - p->out;
	for (unsigned i = 0; i < n && given < most; i++) {
		size_t part = iov[i].iov_len < most - given ? iov[i].iov_len : most - given;
		memcpy(iov[i].iov_base, p->bytes + p->out + given, part);
		given += part;
	}
	p->out += given;
	p->reads += given > 0;
	return given ? (ssize_t)given : p->shut ? 0 : -EAGAIN;
}

static void pipe_wait(struct xi_stream *s, bool for_room)
{
	CHECK(side_of(s)->waiting != for_room);
	side_of(s)->waiting = for_room;
	side_of(s)->waits++;
}

static void pipe_over(struct xi_stream *s, int error)
{
	side_of(s)->overs++;
	xi_conn_lost(side_of(s)->conn, XENIDC_REASON_LOST, error, "over");
}

static const struct xi_pipe pipe_ops = { .send = pipe_send, .recv = pipe_recv, .wait = pipe_wait, .over = pipe_over };

/* --- a pair */

static struct side *a, *b;
static struct xi_conn conn_a, conn_b;
static struct pipe_bytes ab, ba;

static void open_pipe(struct pipe_bytes *p, size_t cut)
{
	uint8_t *bytes = p->bytes ? p->bytes : malloc(PIPE_BYTES);

	CHECK(bytes != NULL);
	*p = (struct pipe_bytes){ .bytes = bytes, .room = PIPE_BYTES, .cut = cut };
}

static struct side *open_side(struct xi_conn *conn, struct pipe_bytes *to, struct pipe_bytes *from)
{
	struct side *d = calloc(1, sizeof(*d));

	CHECK(d != NULL);
	d->conn = conn;
	conn->side = d;
	d->to = to;
	d->from = from;
	return d;
}

static void reserve_side(struct side *d, uint32_t flags)
{
	struct xenidc_budget budget = { .size = sizeof(budget),
					.payload = 2000,
					.out = { { 4096, 4 }, { big_slot, 2 } },
					.in = { { 4096, 4 }, { big_slot, 2 } },
					.peer_out = { { 4096, 4 }, { big_slot, 2 } },
					.peer_in = { { 4096, 4 }, { big_slot, 2 } } };
	struct xenidc_budget mirror;

	CHECK_EQ(xenidc_budget_complete(&budget, NULL), 0);
	mirror = xi_budget_mirror(&budget);
	xi_layout_make(&budget, &d->tx_layout);
	xi_layout_make(&mirror, &d->rx_layout);
	CHECK_EQ(d->tx_layout.slots, SLOTS);
	CHECK_EQ(xi_stream_reserve(d->conn, &d->tx_layout, &d->rx_layout, flags, &d->tx, &d->rx, NULL), 0);
	for (uint32_t slot = 0; slot < SLOTS; slot++) {
		uint32_t size;
		uint8_t *p = d->tx + xi_layout_slot(&d->tx_layout, slot, &size);
		for (uint32_t i = 0; i < size; i++)
			p[i] = pattern(slot, i);
	}
}

static void import_side(struct side *d)
{
	struct xi_reader r = xi_reader(NULL, 0);
	uint8_t *rx = NULL;

	CHECK_EQ(xi_stream_import_region(d->conn, &r, &rx, NULL), 0);
	CHECK(rx == d->rx);
}

/* Both sides, past their connect messages. */
__attribute__((unused)) static void open_pair(size_t cut, uint32_t flags)
{
	open_pipe(&ab, cut);
	open_pipe(&ba, cut);
	a = open_side(&conn_a, &ab, &ba);
	b = open_side(&conn_b, &ba, &ab);
	xi_stream_start(&a->stream, &conn_a, &pipe_ops);
	xi_stream_start(&b->stream, &conn_b, &pipe_ops);
	reserve_side(a, flags);
	reserve_side(b, flags);
	import_side(a);
	import_side(b);
}

static void close_side(struct side **d)
{
	if (!(*d)->stream.closed)
		(void)xi_stream_close(&(*d)->stream);
	xi_stream_fini(&(*d)->stream);
	free(*d);
	*d = NULL;
}

__attribute__((unused)) static void close_pair(void)
{
	close_side(&a);
	close_side(&b);
}

/* A frame of `kind` whose body lists its segs and is padded to `length`. */
__attribute__((unused)) static uint64_t commit(struct side *d, uint8_t kind, uint32_t id, const struct xi_seg *segs,
					       uint32_t nsegs, uint32_t pad)
{
	uint8_t *p = xi_stream_tx_begin(d->conn);
	struct xi_writer w = xi_writer(p + XI_FRAME_HEADER, d->tx_layout.frame_max - XI_FRAME_HEADER);
	uint16_t body;

	for (uint32_t i = 0; i < nsegs; i++) {
		xi_put_u32(&w, segs[i].slot);
		xi_put_u32(&w, segs[i].offset);
		xi_put_u32(&w, segs[i].length);
	}
	for (; pad; pad--)
		xi_put_u8(&w, (uint8_t)pad);
	CHECK(!w.bad);
	body = (uint16_t)xi_writer_used(&w);
	memset(p, 0, XI_FRAME_HEADER);
	p[0] = kind;
	memcpy(p + 2, &body, 2);
	memcpy(p + 4, &id, 4);
	p[10] = (uint8_t)nsegs;
	return xi_stream_tx_commit(d->conn, XI_FRAME_HEADER + body, segs, nsegs, id);
}

__attribute__((unused)) static uint64_t commit_plain(struct side *d, uint8_t kind, uint32_t id)
{
	return commit(d, kind, id, NULL, 0, 0);
}

/* Let both run until nothing moves. */
static void run(void)
{
	for (int quiet = 0; quiet < 3;) {
		size_t before = ab.in + ab.out + ba.in + ba.out;
		unsigned events = 0;
		for (int i = 0; i < 2; i++) {
			struct side *d = i ? b : a;
			if (!d)
				continue;
			if (d->waiting)
				xi_stream_writable(&d->stream);
			events += xi_stream_process(d->conn, XI_PROCESS_BUDGET);
		}
		quiet = !events && before == ab.in + ab.out + ba.in + ba.out ? quiet + 1 : 0;
	}
}

__attribute__((unused)) static void check_landed(const struct side *d, uint32_t slot, uint32_t offset, uint32_t length)
{
	uint32_t size;
	const uint8_t *p = d->rx + xi_layout_slot(&d->rx_layout, slot, &size);

	CHECK(offset + length <= size);
	for (uint32_t i = offset; i < offset + length; i++)
		if (p[i] != pattern(slot, i))
			CHECK_EQ(p[i], pattern(slot, i));
}

__attribute__((unused)) static unsigned frames_logged(const struct side *d)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->logged; i++)
		n += d->log[i].what == LOG_FRAME;
	return n;
}

/* The loop that both sides live in, around all tests of a program. */
static int stream_pair_main(int argc, char **argv, const struct check_test *tests, size_t count)
{
	struct xenidc_loop_options options = { .size = sizeof(options), .wait = XENIDC_WAIT_BLOCK };
	int status;

	CHECK_EQ(xenidc_loop_new(&options, &loop), 0);
	status = check_main(argc, argv, tests, count);
	xenidc_loop_free(loop);
	free(ab.bytes);
	free(ba.bytes);
	return status;
}

#endif
