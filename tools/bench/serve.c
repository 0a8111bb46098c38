/* SPDX-License-Identifier: MIT */
#include "tools/bench/serve.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tools/bench/pattern.h"
#include "tools/bench/wire.h"
#include "tools/common/clock.h"
#include "tools/common/exits.h"
#include "tools/common/text.h"

/* Check what came, fill what is asked for. Returns a status. */
static int handle_data(xenidc_channel *channel, xenidc_incoming request, const struct xi_bench_head *head)
{
	uint32_t number = le32toh(head->number), length;
	int refs = xenidc_incoming_refs(channel, request), status = XI_BENCH_OK;
	enum xenidc_direction direction;
	void *data;

	if (head->verify == XI_VERIFY_NONE)
		return XI_BENCH_OK;
	for (int i = 0; i < refs; i++) {
		if (xenidc_incoming_ref(channel, request, (uint32_t)i, &direction, &length) ||
		    xenidc_view(channel, request, (uint32_t)i, &data, &length))
			return XI_BENCH_BAD_REQUEST;
		if (direction == XENIDC_IN)
			xi_pattern_fill(data, length, xi_bench_number(number, 1), head->verify);
		else if (!xi_pattern_check(data, length, xi_bench_number(number, 0), head->verify))
			status = XI_BENCH_MISMATCH;
	}
	return status;
}

static void on_request(xenidc_channel *channel, xenidc_incoming request)
{
	struct xi_bench_usage usage;
	struct xenidc_reply reply = { 0 };
	struct xi_bench_head head;

	if (xenidc_incoming_payload(channel, request, &reply.payload, &reply.payload_len))
		return;
	if (reply.payload_len < sizeof(head)) {
		reply.status = XI_BENCH_BAD_REQUEST;
		(void)xenidc_reply(channel, request, &reply);
		return;
	}
	memcpy(&head, reply.payload, sizeof(head));
	switch (head.op) {
	case XI_BENCH_ECHO:
		break;
	case XI_BENCH_DATA:
		reply.status = handle_data(channel, request, &head);
		break;
	case XI_BENCH_USAGE:
		usage.cpu_ns = htole64(xi_clock_ns(CLOCK_PROCESS_CPUTIME_ID));
		usage.sleeps = htole64(xi_sleeps());
		reply.payload = &usage;
		reply.payload_len = sizeof(usage);
		break;
	default:
		reply.status = XI_BENCH_BAD_REQUEST;
	}
	(void)xenidc_reply(channel, request, &reply);
}

static void on_connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	struct xi_server *s = xenidc_channel_user(channel);

	(void)limits;
	s->channels++;
}

static void on_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct xi_server *s = xenidc_channel_user(channel);

	(void)why;
	if (s->channels && !--s->channels && s->once)
		xenidc_loop_stop(s->loop);
}

void xi_bench_budget(const struct xi_bench *b, bool server, struct xenidc_budget *ret)
{
	struct xenidc_slot_class some = { (uint32_t)b->size, b->slots };
	uint32_t depth = b->depth < 8 ? 8 : b->depth;

	memset(ret, 0, sizeof(*ret));
	ret->payload = (uint32_t)b->payload;
	ret->requests_out = ret->requests_in = depth;
	ret->no_slots = true; /* but for these: */
	if (!b->inline_data && b->out)
		*(server ? ret->peer_out : ret->out) = some;
	if (!b->inline_data && b->in)
		*(server ? ret->peer_in : ret->in) = some;
}

int xi_server_open(struct xi_server *s, xenidc_loop *loop, const struct xi_bench *b, const char *address,
		   struct xenidc_error *err)
{
	struct xenidc_listener_options options = { .size = sizeof(options) };

	s->loop = loop;
	options.channel.size = sizeof(options.channel);
	options.channel.user = s;
	options.channel.map = b->map;
	options.channel.digest = b->digest;
	options.channel.handlers.connected = on_connected;
	options.channel.handlers.request = on_request;
	options.channel.handlers.idle = on_idle;
	xi_bench_budget(b, true, &options.channel.budget);
	return xenidc_listener_new(loop, address, &options, &s->listener, err);
}

void xi_server_close(struct xi_server *s)
{
	xenidc_listener_free(s->listener);
	s->listener = NULL;
}

static void on_never(struct xenidc_watch *watch, uint32_t events)
{
	(void)watch;
	(void)events;
}

int xi_idle_watch(const struct xi_bench *b, xenidc_loop *loop)
{
	static struct xenidc_watch watch;
	int fd;

	if (!b->watch)
		return -1;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd >= 0)
		(void)xenidc_watch_start(loop, &watch, fd, POLLIN, on_never);
	return fd;
}

static void say_address(const struct xi_bench *b, const char *address)
{
	if (b->ready_fd < 0) {
		(void)printf("listening on ");
		xi_print_safe(stdout, address);
		(void)putchar('\n');
		(void)fflush(stdout);
		return;
	}
	/* Whoever started us reads until the end of the file. */
	if (write(b->ready_fd, address, strlen(address)) < 0)
		(void)fprintf(stderr, "xenidc-bench: could not report the address to the client's side: %s\n",
			      strerror(errno));
	(void)close(b->ready_fd);
}

int xi_bench_serve(const struct xi_bench *b)
{
	struct xenidc_loop_options how = { .size = sizeof(how), .wait = b->wait };
	struct xi_server server = { .once = b->once };
	struct xenidc_error err = { 0 };
	xenidc_loop *loop = NULL;
	int e, fd;

	xi_pattern_stream(b->fill == XI_FILL_STREAM);
	if (!xi_pin(b->cpu[1]))
		(void)fprintf(stderr, "xenidc-bench: cannot run on CPU %d, running anywhere\n", b->cpu[1]);
	e = xenidc_loop_new(&how, &loop);
	if (!e)
		e = xi_server_open(&server, loop, b, b->address, &err);
	if (e) {
		(void)fputs("xenidc-bench: the serving side could not start: ", stderr);
		xi_print_safe(stderr, err.text[0] ? err.text : strerror(-e));
		(void)putc('\n', stderr);
		xenidc_loop_free(loop);
		return err.text[0] ? (int)xi_exit_of(&err) : XI_EXIT_RESOURCE;
	}
	fd = xi_idle_watch(b, loop);
	say_address(b, xenidc_listener_address(server.listener));
	(void)xenidc_loop_run(loop);
	xi_server_close(&server);
	xenidc_loop_free(loop);
	if (fd >= 0)
		(void)close(fd);
	return XI_EXIT_OK;
}
