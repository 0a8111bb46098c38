/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shm_side.h"
#include "tests/lib/check.h"

#define LIMIT_NS 3000000000u

static uint64_t limit(void)
{
	return check_now() + (uint64_t)LIMIT_NS * check_factor();
}

/* --- Below the protocol: tcp */

bool link_little_room;

static int tcp_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	CHECK(fd >= 0);
	CHECK_EQ(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
	/* Before the connect: a window that shrinks later upsets TCP. */
	if (link_little_room)
		CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){ 16384 }, sizeof(int)), 0);
	return fd;
}

static void tcp_dial(struct link *l)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const char *port = strrchr(l->target->address, ':');

	CHECK(port);
	to.sin_port = htons((uint16_t)atoi(port + 1));
	l->fd = tcp_socket();
	if (connect(l->fd, (struct sockaddr *)&to, sizeof(to)) && errno != EINPROGRESS)
		check_failed(__FILE__, __LINE__, "connect: %s", strerror(errno));
}

static void tcp_accept(struct link *l)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(at);
	char address[64];
	uint64_t end = limit();

	l->listen_fd = tcp_socket();
	CHECK_EQ(bind(l->listen_fd, (struct sockaddr *)&at, sizeof(at)), 0);
	CHECK_EQ(listen(l->listen_fd, 1), 0);
	CHECK_EQ(getsockname(l->listen_fd, (struct sockaddr *)&at, &length), 0);
	snprintf(address, sizeof(address), "tcp:127.0.0.1:%u", ntohs(at.sin_port));
	target_dial(l->target, address);
	while ((l->fd = accept4(l->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) < 0) {
		CHECK(check_now() < end);
		target_turn(l->target);
	}
}

void link_open(struct link *l, enum link_kind kind, struct target *target, bool accepts)
{
	memset(l, 0, sizeof(*l));
	l->kind = kind;
	l->target = target;
	l->accepts = accepts;
	l->listen_fd = l->fd = -1;
	l->limits = raw_usual;
	if (kind == LINK_SHM)
		shm_open_link(l);
	else if (accepts)
		tcp_accept(l);
	else
		tcp_dial(l);
}

void link_close(struct link *l)
{
	if (l->kind == LINK_SHM)
		shm_close_link(l);
	if (l->fd >= 0)
		close(l->fd);
	if (l->listen_fd >= 0)
		close(l->listen_fd);
	l->fd = l->listen_fd = -1;
}

void link_send_bytes(struct link *l, const void *bytes, uint32_t length)
{
	const uint8_t *at = bytes;
	uint64_t end = limit();

	while (length) {
		ssize_t n = send(l->fd, at, length, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return; /* the target has hung up: what that means is looked at elsewhere */
		if (n > 0) {
			at += n;
			length -= (uint32_t)n;
			continue;
		}
		CHECK(check_now() < end);
		target_turn(l->target);
	}
}

/* At least `wanted` unread bytes in l->in; false: the stream has ended before. */
static bool tcp_want(struct link *l, uint32_t wanted)
{
	uint64_t end = limit();

	if (l->in_at) {
		memmove(l->in.b, l->in.b + l->in_at, l->in.n - l->in_at);
		l->in.n -= l->in_at;
		l->in_at = 0;
	}
	while (l->in.n < wanted) {
		ssize_t n = l->eof ? 0 : recv(l->fd, l->in.b + l->in.n, RAW_BYTES - l->in.n, 0);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			l->eof = true;
			return false;
		}
		if (n > 0) {
			l->in.n += (uint32_t)n;
			continue;
		}
		if (check_now() > end)
			check_failed(__FILE__, __LINE__, "the target neither says anything nor hangs up");
		target_turn(l->target);
	}
	return true;
}

static void tcp_take(struct link *l, struct raw_bytes *to, uint32_t length)
{
	to->n = 0;
	raw_copy(to, l->in.b + l->in_at, length);
	l->in_at += length;
}

static bool tcp_recv_hello(struct link *l, struct raw_bytes *hello)
{
	uint32_t length;

	if (!tcp_want(l, 32))
		return false;
	CHECK_MEM(l->in.b, "XIDC", 4);
	length = raw_get32(l->in.b + 12);
	CHECK(length >= 32 && length <= 2048);
	if (!tcp_want(l, length))
		return false;
	tcp_take(l, hello, length);
	return true;
}

static bool tcp_recv_frame(struct link *l, struct raw_bytes *frame)
{
	struct raw_bytes *again;
	uint32_t length;

	if (!tcp_want(l, RAW_PREFIX))
		return false;
	length = raw_get32(l->in.b);
	CHECK(length >= RAW_HEADER && length <= RAW_DATA_HEAD + 65536);
	if (!tcp_want(l, RAW_PREFIX + length))
		return false;
	l->in_at = RAW_PREFIX;
	tcp_take(l, frame, length);
	/* Ours makes the same prefix of it. */
	again = calloc(1, sizeof(*again));
	CHECK(again);
	raw_wrap(again, frame, false);
	CHECK_MEM(l->in.b, again->b, RAW_PREFIX);
	free(again);
	return true;
}

/* --- Connect messages and frames */

void link_send_hello(struct link *l, const struct raw_bytes *hello)
{
	if (l->kind == LINK_SHM)
		shm_send_hello(l, hello);
	else
		link_send_bytes(l, hello->b, hello->n);
}

bool link_recv_hello(struct link *l, struct raw_bytes *hello)
{
	return l->kind == LINK_SHM ? shm_recv_hello(l, hello) : tcp_recv_hello(l, hello);
}

void link_send_frame(struct link *l, const struct raw_bytes *frame)
{
	static struct raw_bytes wrapped;

	if (l->kind == LINK_SHM) {
		shm_send_frame(l, frame);
		return;
	}
	wrapped.n = 0;
	raw_wrap(&wrapped, frame, false);
	link_send_bytes(l, wrapped.b, wrapped.n);
}

bool link_recv_frame(struct link *l, struct raw_bytes *frame)
{
	return l->kind == LINK_SHM ? shm_recv_frame(l, frame) : tcp_recv_frame(l, frame);
}

/* What the target says as soon as it is up: its request, the data of it, its message. */
static void hear_target(struct link *l)
{
	static struct raw_bytes frame;
	unsigned wanted = l->target->empty || l->kind == LINK_SHM ? 2 : 3;

	for (unsigned n = 0; n < wanted; n++) {
		CHECK(link_recv_frame(l, &frame));
		switch (frame.b[0]) {
		case RAW_REQUEST:
			l->request_id = raw_get32(frame.b + 4);
			CHECK_EQ(raw_get32(frame.b + RAW_HEADER), 1); /* sequence */
			if (frame.b[10] == 2)                         /* the second reference is IN */
				l->answer_slot = RAW_SLOTS + (raw_get16(frame.b + RAW_HEADER + 16) & 0x7fff);
			break;
		case RAW_DATA:
			CHECK_EQ(frame.n, RAW_DATA_HEAD + 100);
			break;
		default:
			CHECK_EQ(frame.b[0], RAW_MESSAGE);
		}
		l->frames_received += frame.b[0] != RAW_DATA;
	}
	CHECK(l->request_id >> 16);
}

void link_up(struct link *l)
{
	static struct raw_bytes hello, theirs;
	uint8_t region[512];
	uint32_t length = 0;

	if (l->accepts) {
		CHECK(link_recv_hello(l, &theirs));
		CHECK_EQ(theirs.b[4], RAW_CONNECT);
		if (l->kind == LINK_SHM)
			length = shm_export(l, region);
		raw_accept(&hello, &l->limits, region, length);
		link_send_hello(l, &hello);
		CHECK(link_recv_hello(l, &theirs));
		CHECK_EQ(theirs.b[4], RAW_READY);
	} else {
		raw_connect(&hello, &l->limits);
		link_send_hello(l, &hello);
		CHECK(link_recv_hello(l, &theirs));
		CHECK_EQ(theirs.b[4], RAW_ACCEPT);
		if (l->kind == LINK_SHM)
			length = shm_export(l, region);
		raw_ready(&hello, region, length);
		link_send_hello(l, &hello);
	}
	if (l->kind == LINK_SHM)
		shm_import(l, &theirs);
	target_up(l->target);
	l->up = true;
	if (l->target->busy)
		hear_target(l);
}

void link_drain(struct link *l, struct raw_bytes *last)
{
	static struct raw_bytes frame;

	last->n = 0;
	while (l->up && link_recv_frame(l, &frame)) {
		if (last->n)
			check_failed(__FILE__, __LINE__, "the target goes on after its DISCONNECT, with kind %u",
				     frame.b[0]);
		if (frame.b[0] == RAW_DISCONNECT)
			*last = frame;
	}
}
