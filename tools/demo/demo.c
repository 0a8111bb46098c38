/* SPDX-License-Identifier: MIT */
/*
 * What xenidc is for, in a minute: a client and a server in two processes, first over shared memory, then over TCP.
 * client() gets an address and knows nothing else about the transport. It makes small requests, then moves 1 GiB
 * that the server checks byte by byte, then sees how the server's death ends what is in flight.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <xenidc/xenidc.h>

#include "tools/common/clock.h"
#include "tools/common/hist.h"
#include "tools/common/link.h"
#include "tools/common/place.h"
#include "tools/common/text.h"

#define REQUESTS 20000u
#define BLOCK 65536u
#define BLOCKS ((1u << 30) / BLOCK)
#define IN_FLIGHT 8u

/* ------------------------------------------------------------------------------------------------------------------
 * The server: answers the payload, and checks the data of requests that bring some.
 */
static uint64_t expected_word(uint32_t block, uint32_t word)
{
	return ((uint64_t)block << 32 | word) * 0x9e3779b97f4a7c15ull;
}

static void on_request(xenidc_channel *channel, xenidc_incoming request)
{
	struct xenidc_reply reply = { 0 };
	const uint64_t *words;
	uint32_t block = 0, length;
	void *data;

	(void)xenidc_incoming_payload(channel, request, &reply.payload, &reply.payload_len);
	if (xenidc_incoming_refs(channel, request) == 1) {
		/* `block` travels in the payload, the data in a buffer that was lent to us. */
		if (reply.payload_len == sizeof(block))
			memcpy(&block, reply.payload, sizeof(block));
		reply.status = xenidc_view(channel, request, 0, &data, &length);
		words = data;
		for (uint32_t i = 0; !reply.status && i < length / 8; i++)
			if (words[i] != expected_word(block, i))
				reply.status = -EBADMSG;
	}
	(void)xenidc_reply(channel, request, &reply);
}

/* Never returns; says through `ready_fd` where it listens. */
static void server(const char *address, int ready_fd)
{
	struct xenidc_listener_options options = { .size = sizeof(options) };
	struct xenidc_error err = { 0 };
	xenidc_listener *listener;
	xenidc_loop *loop;
	const char *at;

	options.channel.size = sizeof(options.channel);
	options.channel.handlers.request = on_request;
	if (xenidc_loop_new(NULL, &loop) || xenidc_listener_new(loop, address, &options, &listener, &err)) {
		(void)fprintf(stderr, "demo: the server could not listen: %s\n", err.text);
		_exit(1);
	}
	at = xenidc_listener_address(listener);
	if (write(ready_fd, at, strlen(at)) < 0)
		_exit(1);
	(void)close(ready_fd);
	(void)xenidc_loop_run(loop);
	_exit(0);
}

/* ------------------------------------------------------------------------------------------------------------------
 * The client: all it knows of the transport is the address.
 */
struct client {
	struct xi_link link;
	struct place { /* a buffer and the request that it is lent to */
		struct client *client;
		struct xenidc_buffer buffer;
	} places[IN_FLIGHT];
	uint32_t sent, total, in_flight, wrong;
	uint32_t replied, not_executed, unknown; /* how requests ended */
	struct xi_hist rtt;
	double seconds; /* that 1 GiB took */
	double death_ms;
	int error;
};

static void send_block(struct place *p);

static void on_block(xenidc_channel *channel, const struct xenidc_result *result)
{
	struct place *p = result->user;
	struct client *c = p->client;

	c->in_flight--;
	c->replied += result->end == XENIDC_REPLIED;
	c->not_executed += result->end == XENIDC_NOT_EXECUTED;
	c->unknown += result->end == XENIDC_UNKNOWN;
	c->wrong += result->end == XENIDC_REPLIED && result->status;
	if (result->end == XENIDC_REPLIED && c->sent < c->total)
		send_block(p); /* the buffer is ours again */
	if (!c->in_flight)
		xenidc_loop_stop(xenidc_channel_loop(channel));
}

static void send_block(struct place *p)
{
	struct client *c = p->client;
	struct xenidc_ref ref = { p->buffer, 0, BLOCK };
	struct xenidc_request request = { .payload = &c->sent,
					  .payload_len = sizeof(c->sent),
					  .refs = &ref,
					  .ref_count = 1,
					  .done = on_block,
					  .user = p };
	uint64_t *words = p->buffer.data;

	for (uint32_t i = 0; i < BLOCK / 8; i++)
		words[i] = expected_word(c->sent, i);
	c->error = xenidc_submit(c->link.channel, &request, NULL);
	if (!c->error) {
		c->sent++;
		c->in_flight++;
	}
}

/* Send blocks until `total` in all are sent, and wait until they ended. `cut`: between the two, kill this process. */
static int send_blocks(struct client *c, uint32_t total, pid_t cut)
{
	c->total = total;
	if (cut)
		(void)kill(cut, SIGSTOP);
	for (uint32_t i = 0; i < IN_FLIGHT && !c->error && c->sent < total; i++)
		send_block(&c->places[i]);
	if (cut)
		(void)kill(cut, SIGKILL);
	if (c->in_flight)
		(void)xenidc_loop_run(c->link.loop);
	return c->error;
}

static int small_requests(struct client *c)
{
	for (uint64_t number = 0, answer = 0; number < REQUESTS; number++) {
		struct xenidc_request request = { .payload = &number, .payload_len = sizeof(number) };
		struct xenidc_result result = { 0 };
		uint64_t start = xi_now_ns();
		int e = xenidc_call(c->link.channel, &request, &answer, sizeof(answer), NULL, &result);
		if (e || result.end != XENIDC_REPLIED)
			return e ? e : -ECONNRESET;
		xi_hist_add(&c->rtt, xi_now_ns() - start);
		c->wrong += answer != number;
	}
	return 0;
}

static int client(struct client *c, const char *address, pid_t peer)
{
	uint64_t start;
	int e = xi_link_open(&c->link, address, NULL, XENIDC_WAIT_ADAPTIVE);

	if (e) {
		(void)xi_link_report(&c->link, "demo", address, false);
		return e;
	}
	xi_hist_clear(&c->rtt);
	for (uint32_t i = 0; !e && i < IN_FLIGHT; i++) {
		c->places[i].client = c;
		e = xenidc_buffer_get(c->link.channel, XENIDC_OUT, BLOCK, &c->places[i].buffer);
	}
	if (!e)
		e = small_requests(c);
	start = xi_now_ns();
	if (!e)
		e = send_blocks(c, BLOCKS, 0);
	c->seconds = (double)(xi_now_ns() - start) * 1e-9;
	start = xi_now_ns();
	if (!e && c->replied == BLOCKS)
		e = send_blocks(c, BLOCKS + IN_FLIGHT, peer);
	c->death_ms = (double)(xi_now_ns() - start) * 1e-6;
	if (e)
		(void)fprintf(stderr, "demo: %s: the client broke off: %s\n", address, strerror(-e));
	xi_link_close(&c->link);
	return e;
}

/* ------------------------------------------------------------------------------------------------------------------ */

static void print_row(const char *scheme, const struct client *c)
{
	char t[4][XI_HUMAN];

	(void)printf("%-6s %10s %10s %10s %12s  %u of %u right   %u ended %.1f ms after the kill\n", scheme,
		     xi_human_ns(t[0], (double)c->link.connect_ns), xi_human_ns(t[1], xi_hist_quantile(&c->rtt, 0.5)),
		     xi_human_ns(t[2], xi_hist_quantile(&c->rtt, 0.99)),
		     xi_human_bandwidth(t[3], (double)BLOCKS * BLOCK / c->seconds), BLOCKS - c->wrong, BLOCKS,
		     c->not_executed + c->unknown, c->death_ms);
}

static int run(const char *address, const int cpu[2])
{
	static struct client c;
	char at[XENIDC_ADDRESS_MAX] = "";
	pid_t parent = getpid(), pid;
	ssize_t n;
	int fds[2], e;

	if (pipe(fds) || (pid = fork()) < 0) {
		(void)fprintf(stderr, "demo: could not start a process: %s\n", strerror(errno));
		return -errno;
	}
	if (!pid) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)close(fds[0]);
		(void)xi_pin(cpu[1]);
		if (getppid() == parent)
			server(address, fds[1]);
		_exit(1);
	}
	(void)close(fds[1]);
	n = read(fds[0], at, sizeof(at) - 1);
	(void)close(fds[0]);
	memset(&c, 0, sizeof(c));
	e = n > 0 ? client(&c, at, pid) : -ESRCH;
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	if (e)
		return e;
	print_row(address[0] == 's' ? "shm" : "tcp", &c);
	return c.wrong || c.not_executed + c.unknown != IN_FLIGHT ? -EBADMSG : 0;
}

int main(void)
{
	char shm[64];
	int cpu[2];

	/* Each half has a core of its own, if there are two. */
	xi_default_cpus(cpu);
	(void)xi_pin(cpu[0]);
	(void)snprintf(shm, sizeof(shm), "shm:demo-%d", (int)getpid());
	(void)printf(
		"xenidc %s: one client, one server, two processes; %u requests of 8 bytes one at a time, then 1 GiB\n"
		"in buffers of 64 KiB that the server checks byte by byte, then the server is killed with %u requests\n"
		"in flight, each of which has to end exactly once.\n\n"
		"%-6s %10s %10s %10s %12s\n",
		xenidc_version(), REQUESTS, IN_FLIGHT, "over", "connect", "p50", "p99", "1 GiB at");
	if (run(shm, cpu) || run("tcp:127.0.0.1:0", cpu)) {
		(void)puts("\nSomething went wrong, see above.");
		return 1;
	}
	(void)puts("\nThe client's code is the same in both rows; only the address differs.");
	return 0;
}
