/* SPDX-License-Identifier: MIT */
/*
 * The smallest pair of halves:
 *
 *     echo serve ADDRESS         answers every request with its own payload; ends with its first client
 *     echo ask ADDRESS TEXT      sends TEXT, prints the answer
 *
 * ADDRESS is shm:NAME or tcp:HOST:PORT; nothing else here depends on the transport.
 */
#include <stdio.h>
#include <string.h>

#include <xenidc/xenidc.h>

/* A handler runs from within xenidc_loop_run(). Each request is replied to exactly once, now or later. */
static void on_request(xenidc_channel *channel, xenidc_incoming request)
{
	struct xenidc_reply reply = { .status = 0 };

	if (xenidc_incoming_payload(channel, request, &reply.payload, &reply.payload_len) == 0)
		(void)xenidc_reply(channel, request, &reply);
}

/* The channel of a client has ended: for this example, that is the end. */
static void on_client_gone(xenidc_channel *channel, const struct xenidc_error *why)
{
	(void)why;
	xenidc_loop_stop(xenidc_channel_loop(channel));
}

static int serve(xenidc_loop *loop, const char *address)
{
	struct xenidc_listener_options options = {
		.size = sizeof(options),
		.channel = { .size = sizeof(options.channel),
			     .handlers = { .request = on_request, .idle = on_client_gone } },
	};
	struct xenidc_error err;
	xenidc_listener *listener;

	if (xenidc_listener_new(loop, address, &options, &listener, &err)) {
		(void)fprintf(stderr, "echo: %s\n", err.text);
		return 1;
	}
	(void)printf("listening on %s\n", xenidc_listener_address(listener));
	(void)fflush(stdout);
	(void)xenidc_loop_run(loop);
	xenidc_listener_free(listener);
	return 0;
}

static void on_connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	(void)channel;
	(void)printf("connected to %s\n", limits->peer.address);
}

/* Not usable any more, or never was: `why` is written for people. */
static void on_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	(void)fprintf(stderr, "echo: %s\n", why->text);
	xenidc_loop_stop(xenidc_channel_loop(channel));
}

/* How a request ended: with a reply, or it was never executed, or nobody can know. Called exactly once. */
static void on_done(xenidc_channel *channel, const struct xenidc_result *result)
{
	int *exit_code = result->user;

	if (result->end == XENIDC_REPLIED) {
		(void)printf("%.*s\n", (int)result->payload_len, (const char *)result->payload);
		*exit_code = 0;
	}
	(void)xenidc_channel_close(channel, 1000000000); /* `idle` follows and stops the loop */
}

static int ask(xenidc_loop *loop, const char *address, const char *text)
{
	int exit_code = 1;
	struct xenidc_channel_options options = {
		.size = sizeof(options),
		.handlers = { .connected = on_connected, .idle = on_idle },
	};
	struct xenidc_request request = {
		.payload = text,
		.payload_len = (uint32_t)strlen(text),
		.done = on_done,
		.user = &exit_code,
	};
	struct xenidc_error err = { .text = "out of memory" };
	xenidc_channel *channel = NULL;

	if (xenidc_channel_new(loop, &options, &channel, &err) || xenidc_channel_connect(channel, address, &err)) {
		(void)fprintf(stderr, "echo: %s\n", err.text);
		xenidc_channel_free(channel);
		return 1;
	}
	while (xenidc_channel_state(channel) == XENIDC_CONNECTING)
		(void)xenidc_loop_step(loop, -1);
	if (xenidc_submit(channel, &request, NULL) == 0)
		(void)xenidc_loop_run(loop);
	xenidc_channel_free(channel);
	return exit_code;
}

int main(int argc, char **argv)
{
	xenidc_loop *loop;
	int exit_code = 2;

	if (xenidc_loop_new(NULL, &loop)) {
		(void)fprintf(stderr, "echo: no memory for a loop\n");
		return 1;
	}
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		exit_code = serve(loop, argv[2]);
	else if (argc == 4 && strcmp(argv[1], "ask") == 0)
		exit_code = ask(loop, argv[2], argv[3]);
	else
		(void)fprintf(stderr, "usage: echo serve ADDRESS | echo ask ADDRESS TEXT\n");
	xenidc_loop_free(loop);
	return exit_code;
}
