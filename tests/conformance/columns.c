/* SPDX-License-Identifier: MIT */
/* The columns of the table: what each needs before it runs, and what it cannot do. */
#define _GNU_SOURCE
#include "harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/sim/world.h"
#include "xenidc-core/transports.h"

#define SIMULATED (NEED_KILL)
#define REAL (NEED_KILL | NEED_KERNEL)

const struct column columns[] = {
	{ .name = "sim-mapped", .scheme = "sim-mapped", .simulated = true, .has = SIMULATED },
	{ .name = "sim-stream", .scheme = "sim-stream", .simulated = true, .has = SIMULATED | NEED_CHUNKS },
	{ .name = "sim-window", .scheme = "sim-window", .simulated = true, .has = SIMULATED },
	{ .name = "shm", .scheme = "shm", .has = REAL | NEED_PATH },
	{ .name = "tcp", .scheme = "tcp", .has = REAL | NEED_HOST | NEED_CHUNKS },
	{ .name = "tcp-no-uring", .scheme = "tcp", .no_uring = true, .has = REAL | NEED_HOST | NEED_CHUNKS },
	{ .name = NULL },
};

/* The one place that says what n/a means. */
static const struct {
	uint32_t need;
	const char *words;
} lacking[] = {
	{ NEED_MAP, "MAP: the peer's memory cannot be mapped" },
	{ NEED_DEATH, "PEER_DEATH: no kernel tells of the peer's death" },
	{ NEED_IDENTITY, "IDENTITY: no kernel says who the peer is" },
	{ NEED_STREAM, "STREAM: it carries no bytes that could be cut" },
	{ NEED_DIGEST, "DIGEST: payloads are not protected by checksums" },
	{ NEED_KILL, "processes: the other end cannot be killed" },
	{ NEED_KERNEL, "kernel: no real descriptors, threads and processes" },
	{ NEED_PATH, "paths: an address is no file" },
	{ NEED_HOST, "hosts: an address names no host" },
	{ NEED_CHUNKS, "sockets: nothing can stand between the ends" },
};

const struct column *column_find(const char *name)
{
	for (const struct column *c = columns; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

uint32_t column_has(const struct column *column)
{
	const struct xi_transport *t = xi_transport_find(column->scheme, strlen(column->scheme));

	return column->has | (t ? t->caps : 0);
}

const char *column_lacks(const struct column *column, uint32_t needs)
{
	uint32_t missing = needs & ~column_has(column);

	for (size_t i = 0; i < sizeof(lacking) / sizeof(lacking[0]); i++)
		if (missing & lacking[i].need)
			return lacking[i].words;
	CHECK_EQ(missing, 0);
	return NULL;
}

/* --- Connect messages that were altered: the column's transport once more, with another hello(). */
static struct xi_transport altered;
static const struct xi_transport *unaltered;
static void (*alter_hello)(uint8_t *bytes, uint32_t length);
const char *const altered_scheme = "altered";

static void hello(struct xi_conn *conn, const void *bytes, uint32_t length)
{
	static uint8_t copy[4096];

	CHECK_OP(length, <=, sizeof(copy));
	memcpy(copy, bytes, length);
	if (alter_hello)
		alter_hello(copy, length);
	unaltered->hello(conn, copy, length);
}

void column_alter(void (*alter)(uint8_t *bytes, uint32_t length))
{
	alter_hello = alter;
}

/* XENIDC_TEST_SEED, for those who look for more; the same seed gives the same run. */
static uint64_t seed(void)
{
	const char *text = getenv("XENIDC_TEST_SEED");

	return text ? strtoull(text, NULL, 0) : 1;
}

void column_enter(const struct column *column)
{
	if (column->simulated)
		sim_begin(seed(), NULL);
	/* Two connections alone would not be served by io_uring otherwise; the other column takes the usual way. */
	CHECK_EQ(setenv(column->no_uring ? "XENIDC_NO_URING" : "XENIDC_URING_ALWAYS", "1", 1), 0);
	unaltered = xi_transport_find(column->scheme, strlen(column->scheme));
	if (!unaltered)
		check_failed(__FILE__, __LINE__, "there is no transport %s", column->scheme);
	altered = *unaltered;
	altered.scheme = altered_scheme;
	altered.hello = hello;
	xi_transport_add(&altered);
}

void column_leave(const struct column *column)
{
	if (column->simulated)
		sim_end();
}

void column_loop(const struct column *column, struct end *end)
{
	if (!column->simulated) {
		CHECK_EQ(xenidc_loop_new(NULL, &end->loop), 0);
		return;
	}
	end->process = sim_process_new(end->name);
	CHECK_EQ(sim_loop_new(end->process, NULL, &end->loop), 0);
}

/*
 * An address of the loopback that depends on the process, and a port of it at which nobody listens: the kernel chooses
 * one, which then is free again. Nobody else looks for ports there.
 */
static void free_port(char *text)
{
	uint32_t pid = (uint32_t)getpid();
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t length = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK_OP(fd, >=, 0);
	a.sin_addr.s_addr =
		htonl(127u << 24 | (1 + (pid >> 14 & 127)) << 16 | (pid >> 7 & 127) << 8 | (1 + (pid & 127)));
	CHECK_EQ(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	CHECK_EQ(getsockname(fd, (struct sockaddr *)&a, &length), 0);
	close(fd);
	CHECK(inet_ntop(AF_INET, &a.sin_addr, text, INET_ADDRSTRLEN));
	snprintf(text + strlen(text), 8, ":%u", ntohs(a.sin_port));
}

void column_address(const struct column *column, char *text)
{
	static unsigned count;

	if (column->has & NEED_HOST) {
		char port[INET_ADDRSTRLEN + 8];
		free_port(port);
		snprintf(text, XENIDC_ADDRESS_MAX, "%s:%s", column->scheme, port);
	} else
		snprintf(text, XENIDC_ADDRESS_MAX, "%s:case-%d-%u", column->scheme, (int)getpid(), count++);
}
