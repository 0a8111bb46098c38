/* SPDX-License-Identifier: MIT */
/*
 * Something between the ends of a stream, which cuts it into bytes and breaks it off. On sockets it is a relay that is
 * run by pair_step() like the ends themselves; the simulated world does the same by itself.
 */
#define _GNU_SOURCE
#include "harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/sim/world.h"

#define PIECE 4096

static struct {
	bool on, one_byte;
	uint64_t left; /* bytes (in a simulated world: steps) until the cut */
	int listening;
	struct sockaddr_in server;
	/* [0] leads to the client, [1] to the server; `ended`: nothing more comes from there. */
	int fd[2];
	bool ended[2];
} relay;

static void hang_up(void)
{
	for (int i = 0; i < 2; i++) {
		if (relay.fd[i] > 0)
			close(relay.fd[i]);
		relay.fd[i] = 0;
		relay.ended[i] = false;
	}
}

static void parse(const char *address, struct sockaddr_in *ret)
{
	char host[INET_ADDRSTRLEN];
	const char *at = strchr(address, ':') + 1, *colon = strchr(at, ':');

	CHECK(colon && (size_t)(colon - at) < sizeof(host));
	memcpy(host, at, (size_t)(colon - at));
	host[colon - at] = 0;
	*ret = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1)) };
	CHECK_EQ(inet_pton(AF_INET, host, &ret->sin_addr), 1);
}

void relay_begin(struct pair *p, bool one_byte)
{
	struct sockaddr_in here;

	relay.on = true;
	relay.one_byte = one_byte;
	relay.left = UINT64_MAX;
	if (!p->listener)
		pair_listen(p);
	if (p->column->simulated) {
		sim_set_chunks(one_byte ? SIM_CHUNKS_BYTE : SIM_CHUNKS_WHOLE);
		return;
	}
	parse(p->address, &relay.server);
	column_address(p->column, p->address);
	parse(p->address, &here);
	relay.listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	CHECK_OP(relay.listening, >=, 0);
	CHECK_EQ(bind(relay.listening, (struct sockaddr *)&here, sizeof(here)), 0);
	CHECK_EQ(listen(relay.listening, 8), 0);
}

void relay_cut(struct pair *p, uint64_t left)
{
	(void)p;
	relay.left = left;
	hang_up();
}

void relay_end(struct pair *p)
{
	relay.on = false;
	if (p->column->simulated)
		return;
	hang_up();
	close(relay.listening);
}

void relay_shut(struct pair *p)
{
	(void)p;
	CHECK_EQ(shutdown(relay.fd[1], SHUT_WR), 0);
	relay.ended[0] = true;
}

static bool take_call(void)
{
	int on = 1;

	relay.fd[0] = accept4(relay.listening, NULL, NULL, SOCK_CLOEXEC);
	if (relay.fd[0] < 0) {
		CHECK_EQ(errno, EAGAIN);
		relay.fd[0] = 0;
		return false;
	}
	relay.fd[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_OP(relay.fd[1], >, 0);
	CHECK_EQ(connect(relay.fd[1], (struct sockaddr *)&relay.server, sizeof(relay.server)), 0);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(setsockopt(relay.fd[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
	return true;
}

/* Carry a piece from one side to the other. */
static bool carry(int from)
{
	static uint8_t bytes[PIECE];
	ssize_t n;

	if (relay.ended[from] || !relay.fd[0] || !relay.left)
		return false;
	n = recv(relay.fd[from], bytes, relay.one_byte ? 1 : sizeof(bytes), MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n > 0 && send(relay.fd[!from], bytes, (size_t)n, MSG_NOSIGNAL) == n) {
		relay.left -= (uint64_t)n;
		return true;
	}
	/* An end in order goes on; anything else breaks both sides off. */
	relay.ended[from] = true;
	shutdown(relay.fd[!from], SHUT_WR);
	if (n != 0 || relay.ended[!from])
		hang_up();
	return true;
}

bool relay_pump(struct pair *p)
{
	bool moved = false;

	if (!relay.on)
		return false;
	if (p->column->simulated) {
		if (relay.left != UINT64_MAX && relay.left-- == 0) {
			relay.left = UINT64_MAX;
			sim_cut(p->client.process, p->server.process);
		}
		return false;
	}
	if (!relay.fd[0])
		moved = take_call();
	if (relay.fd[0]) {
		moved = carry(0) || moved;
		moved = carry(1) || moved;
	}
	if (relay.fd[0] && relay.left == 0)
		hang_up();
	return moved;
}

unsigned relay_fds(struct pair *p, struct pollfd *fds)
{
	unsigned n = 0;

	if (!relay.on || p->column->simulated)
		return 0;
	if (!relay.fd[0])
		fds[n++] = (struct pollfd){ .fd = relay.listening, .events = POLLIN };
	for (int i = 0; i < 2; i++)
		if (relay.fd[i] && !relay.ended[i])
			fds[n++] = (struct pollfd){ .fd = relay.fd[i], .events = POLLIN };
	return n;
}
