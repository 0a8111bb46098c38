/* SPDX-License-Identifier: MIT */
/*
 * For tests of transport-local: stubs of the core around a transport over shared memory, so that a test can drive each
 * op by itself. Frames are numbered; the body of frame n has a length and a content that follow from n.
 */
#ifndef TESTS_UNIT_LOCAL_PAIR_H
#define TESTS_UNIT_LOCAL_PAIR_H

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/check.h"
#include "transport-local/shm/shm.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/cursor.h"
#include "xenidc-core/base/limits.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"
#include "xenidc-core/frame.h"
#include "xenidc-core/loop.h"

#define SLOT_SIZE 5000u
#define HELLOS 4

extern const struct xi_transport xi_transport_shm;

/* One end: what the core would have. */
struct xi_conn {
	xenidc_loop *loop;
	struct xi_shm *priv;
	struct xi_pollable poll;
	uint8_t *buffer;
	struct xi_layout tx, rx;
	uint8_t *tx_base, *rx_base;
	bool dialled, polled;
	unsigned hellos;
	uint8_t hello[HELLOS][XI_HELLO_MAX];
	uint32_t hello_length[HELLOS];
	uint32_t sent, received; /* frames */
	uint32_t last_kind;
	unsigned lost;
	enum xenidc_reason reason;
	char text[XENIDC_ERROR_TEXT_MAX];
};
struct xi_listener {
	xenidc_loop *loop;
	void *priv;
	struct xi_conn *accepted; /* the last one, not yet taken by the test */
	bool refuse;
};

static const struct xi_transport *shm = &xi_transport_shm;
static xenidc_loop *loop;
static char owner; /* of all connections */
static char name[XENIDC_ADDRESS_MAX];

/* --- the core, as far as the transport sees it */

void *xi_conn_priv(struct xi_conn *conn)
{
	return conn->priv;
}

xenidc_loop *xi_conn_loop(struct xi_conn *conn)
{
	return conn->loop;
}

const void *xi_conn_owner(struct xi_conn *conn)
{
	(void)conn;
	return &owner;
}

void *xi_listener_priv(struct xi_listener *listener)
{
	return listener->priv;
}

xenidc_loop *xi_listener_loop(struct xi_listener *listener)
{
	return listener->loop;
}

uint8_t *xi_conn_rx_buffer(struct xi_conn *conn)
{
	return conn->buffer;
}

void xi_conn_dialled(struct xi_conn *conn)
{
	CHECK(!conn->dialled);
	conn->dialled = true;
}

void xi_conn_hello(struct xi_conn *conn, const void *bytes, uint32_t length)
{
	CHECK(conn->hellos < HELLOS && length <= XI_HELLO_MAX);
	memcpy(conn->hello[conn->hellos], bytes, length);
	conn->hello_length[conn->hellos++] = length;
}

void xi_conn_lost(struct xi_conn *conn, enum xenidc_reason reason, int code, const char *text, ...)
{
	va_list args;

	CHECK(code < 0);
	if (conn->lost++)
		return;
	conn->reason = reason;
	va_start(args, text);
	vsnprintf(conn->text, sizeof(conn->text), text, args);
	va_end(args);
}

static uint32_t frame_length(uint32_t n, uint32_t frame_max)
{
	return XI_FRAME_HEADER + n * 37 % (frame_max - XI_FRAME_HEADER + 1);
}

static void make_frame(uint8_t *frame, uint32_t n, uint32_t length, uint8_t kind)
{
	uint16_t body = (uint16_t)(length - XI_FRAME_HEADER);

	memset(frame, 0, XI_FRAME_HEADER);
	frame[0] = kind;
	memcpy(frame + 2, &body, sizeof(body));
	memcpy(frame + 4, &n, sizeof(n));
	for (uint32_t i = XI_FRAME_HEADER; i < length; i++)
		frame[i] = (uint8_t)(n * 31 + i * 7);
}

bool xi_conn_frame(struct xi_conn *conn, uint32_t length)
{
	uint8_t want[XI_FRAME_MAX];
	uint32_t n = conn->received++;

	CHECK(!conn->lost);
	CHECK_EQ(length, frame_length(n, conn->rx.frame_max));
	make_frame(want, n, length, conn->buffer[0]);
	CHECK_MEM(conn->buffer, want, length);
	conn->last_kind = conn->buffer[0];
	return true;
}

/* --- driving */

static unsigned process(struct xi_pollable *p, unsigned budget)
{
	struct xi_conn *conn = XI_CONTAINER(p, struct xi_conn, poll);

	return conn->lost ? 0 : shm->process(conn, budget);
}

static int arm(struct xi_pollable *p, bool futex_ok, struct xi_wait *wait)
{
	struct xi_conn *conn = XI_CONTAINER(p, struct xi_conn, poll);

	return conn->lost ? XI_BUSY : shm->arm(conn, futex_ok, wait);
}

static void disarm(struct xi_pollable *p)
{
	struct xi_conn *conn = XI_CONTAINER(p, struct xi_conn, poll);

	if (!conn->lost)
		shm->disarm(conn);
}

static struct xi_conn *conn_new(void)
{
	struct xi_conn *conn = calloc(1, sizeof(*conn));

	CHECK(conn);
	conn->loop = loop;
	conn->priv = calloc(1, shm->conn_size);
	CHECK(conn->priv);
	conn->poll = (struct xi_pollable){ .process = process, .arm = arm, .disarm = disarm };
	xi_list_init(&conn->poll.link);
	xi_loop_poll_add(loop, &conn->poll);
	conn->polled = true;
	return conn;
}

__attribute__((unused)) static void conn_close(struct xi_conn *conn)
{
	if (conn->polled)
		xi_loop_poll_remove(loop, &conn->poll);
	conn->polled = false;
	CHECK_EQ(shm->close(conn), 0);
}

__attribute__((unused)) static void conn_free(struct xi_conn *conn)
{
	conn_close(conn);
	shm->fini(conn);
	free(conn->buffer);
	free(conn->priv);
	free(conn);
}

bool xi_listener_incoming(struct xi_listener *listener, void *arg)
{
	struct xi_conn *conn;

	if (listener->refuse)
		return false;
	CHECK(!listener->accepted);
	conn = conn_new();
	shm->adopt(conn, arg);
	listener->accepted = conn;
	return true;
}

/* Step until the condition holds. */
#define STEP_UNTIL(condition)                                                                                          \
	do {                                                                                                           \
		uint64_t start_ = check_now();                                                                         \
		while (!(condition)) {                                                                                 \
			CHECK(check_now() - start_ < 5 * XI_SECOND * check_factor());                                  \
			xenidc_loop_step(loop, (int64_t)(10 * XI_MS));                                                 \
		}                                                                                                      \
	} while (0)

/* Steps enough for everything that is under way. */
__attribute__((unused)) static void settle(void)
{
	for (int i = 0; i < 20; i++)
		xenidc_loop_step(loop, 0);
}

static void setup(void)
{
	struct xenidc_loop_options options = { .size = sizeof(options), .wait = XENIDC_WAIT_BLOCK };

	CHECK_EQ(xenidc_loop_new(&options, &loop), 0);
	snprintf(name, sizeof(name), "unit-%d", getpid());
}

/* Nothing of any kind is left. */
static void teardown(void)
{
	xenidc_loop_free(loop);
	loop = NULL;
	for (int i = 0; i < XI_OBJECT_KINDS; i++)
		if (xi_alive((enum xi_object)i))
			check_failed(__FILE__, __LINE__, "%s left: %jd", xi_object_name((enum xi_object)i),
				     (intmax_t)xi_alive((enum xi_object)i));
}

__attribute__((unused)) static struct xi_listener *listener_new(void)
{
	struct xi_listener *listener = calloc(1, sizeof(*listener));
	char address[XENIDC_ADDRESS_MAX];
	struct xenidc_error err = { 0 };

	CHECK(listener);
	listener->loop = loop;
	listener->priv = calloc(1, shm->listener_size);
	CHECK(listener->priv);
	if (shm->listen(listener, name, address, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	CHECK_STR(address + 4, name);
	return listener;
}

__attribute__((unused)) static void listener_free(struct xi_listener *listener)
{
	shm->unlisten(listener);
	free(listener->priv);
	free(listener);
}

__attribute__((unused)) static struct xi_conn *dial(void)
{
	struct xi_conn *conn = conn_new();
	struct xenidc_error err = { 0 };

	if (shm->dial(conn, name, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	return conn;
}

/* --- the handshake, a step at a time */

static void make_layout(struct xi_layout *l, uint32_t frames, uint32_t frame_max)
{
	*l = (struct xi_layout){ .frames = frames,
				 .frame_max = frame_max,
				 .frame_stride = (8 + frame_max + XI_LINE - 1) / XI_LINE * XI_LINE,
				 .ring_offset = XI_PAGE,
				 .classes = 1,
				 .slots = 4 };
	l->slots_offset = XI_PAGE + ((uint64_t)frames * l->frame_stride + XI_PAGE - 1) / XI_PAGE * XI_PAGE;
	l->cls[0] = (struct xi_layout_class){
		.first = 0, .count = 4, .size = SLOT_SIZE, .stride = 2 * XI_PAGE, .offset = l->slots_offset
	};
	l->bytes = l->slots_offset + 8ull * XI_PAGE;
}

static void send_hello(struct xi_conn *conn, bool with_region)
{
	uint8_t bytes[XI_EXPORT_MAX] = { 'h', 'i' };
	struct xi_writer w = xi_writer(bytes + 2, sizeof(bytes) - 2);

	if (with_region)
		shm->export_region(conn, &w);
	CHECK(!w.bad);
	shm->hello(conn, bytes, (uint32_t)xi_writer_used(&w) + 2);
}

static int reserve(struct xi_conn *conn, bool map, struct xenidc_error *err)
{
	make_layout(&conn->tx, 64, 200);
	make_layout(&conn->rx, 64, 200);
	conn->buffer = calloc(1, 256);
	CHECK(conn->buffer);
	return shm->reserve(conn, &conn->tx, &conn->rx, map ? XI_RESERVE_MAP : 0, &conn->tx_base, &conn->rx_base, err);
}

/* With what the last connect message described. */
static int import(struct xi_conn *conn, struct xenidc_error *err)
{
	struct xi_reader r;

	CHECK(conn->hellos > 0);
	r = xi_reader(conn->hello[conn->hellos - 1] + 2, conn->hello_length[conn->hellos - 1] - 2);
	return shm->import_region(conn, &r, &conn->rx_base, err);
}

static void must(int e, const struct xenidc_error *err)
{
	if (e)
		check_failed(__FILE__, __LINE__, "%s", err->text);
}

/* As the dialler: up to the point where frames flow. */
__attribute__((unused)) static struct xi_conn *connect_up(bool map)
{
	struct xi_conn *conn = dial();
	struct xenidc_error err = { 0 };

	STEP_UNTIL(conn->dialled);
	send_hello(conn, false);
	STEP_UNTIL(conn->hellos == 1);
	must(reserve(conn, map, &err), &err);
	must(import(conn, &err), &err);
	send_hello(conn, true);
	return conn;
}

/* As the acceptor, in two halves, so that one process can be both. */
__attribute__((unused)) static struct xi_conn *accept_half(struct xi_listener *listener, bool map)
{
	struct xenidc_error err = { 0 };
	struct xi_conn *conn;

	STEP_UNTIL(listener->accepted);
	conn = listener->accepted;
	listener->accepted = NULL;
	STEP_UNTIL(conn->hellos == 1);
	must(reserve(conn, map, &err), &err);
	send_hello(conn, true);
	return conn;
}

__attribute__((unused)) static void accept_rest(struct xi_conn *conn)
{
	struct xenidc_error err = { 0 };

	STEP_UNTIL(conn->hellos == 2);
	must(import(conn, &err), &err);
}

/* Both ends in this process. */
__attribute__((unused)) static void pair_up(struct xi_listener *listener, bool map, struct xi_conn **ret_dialler,
					    struct xi_conn **ret_acceptor)
{
	struct xi_conn *a = dial(), *b;
	struct xenidc_error err = { 0 };

	STEP_UNTIL(a->dialled);
	send_hello(a, false);
	b = accept_half(listener, map);
	STEP_UNTIL(a->hellos == 1);
	must(reserve(a, map, &err), &err);
	must(import(a, &err), &err);
	send_hello(a, true);
	accept_rest(b);
	*ret_dialler = a;
	*ret_acceptor = b;
}

/* Commit the next frame, of this kind. */
static void send_frame(struct xi_conn *conn, uint8_t kind)
{
	uint32_t n = conn->sent++, length = frame_length(n, conn->tx.frame_max);

	make_frame(shm->tx_begin(conn), n, length, kind);
	CHECK_EQ(shm->tx_commit(conn, length, NULL, 0, 0), n + 1);
	CHECK_EQ(shm->tx_unsent(conn), n + 2);
}

__attribute__((unused)) static void send_frames(struct xi_conn *conn, unsigned count)
{
	while (count--)
		send_frame(conn, XI_FRAME_MESSAGE);
	shm->flush(conn);
}

#endif
