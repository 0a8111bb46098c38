/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <xenidc/xenidc.h>

#include "tools/cli/cli.h"
#include "tools/common/json.h"
#include "tools/common/text.h"

struct echo {
	const char *address;
	bool json, once;
	xenidc_loop *loop;
	unsigned channels;
	uint64_t served, answered;
};

static struct echo echo;

/* Say what happened to a channel, for the log of whoever runs this. */
static void say(const char *event, const struct xenidc_peer *peer, const char *text)
{
	struct xi_json j = { .to = stdout };

	if (echo.json) {
		xi_json_open(&j, NULL);
		xi_json_text(&j, "event", event);
		xi_json_text(&j, "peer", peer ? peer->address : NULL);
		if (text)
			xi_json_text(&j, "text", text);
		xi_json_uint(&j, "channels", echo.channels);
		xi_json_uint(&j, "answered", echo.answered);
		xi_json_close(&j);
		return;
	}
	(void)fputs(event, stdout);
	if (peer) {
		(void)fputs(" from ", stdout);
		xi_print_safe(stdout, peer->address);
	}
	if (text) {
		(void)fputs(": ", stdout);
		xi_print_safe(stdout, text);
	}
	(void)putchar('\n');
	(void)fflush(stdout);
}

static void on_connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	xenidc_channel_set_user(channel, &echo);
	echo.channels++;
	echo.served++;
	say("connected", &limits->peer, NULL);
}

/* Fill each IN reference from the OUT reference that stands at the same place among the OUT ones. */
static int echo_data(xenidc_channel *channel, xenidc_incoming request, uint32_t *valid)
{
	int refs = xenidc_incoming_refs(channel, request);
	enum xenidc_direction direction;
	uint32_t length, out_length;
	void *from, *to;
	int out = 0;

	for (int i = 0; i < refs; i++) {
		valid[i] = 0;
		if (xenidc_incoming_ref(channel, request, (uint32_t)i, &direction, &length))
			return -EINVAL;
		if (direction != XENIDC_IN)
			continue;
		for (; out < refs; out++) {
			if (xenidc_incoming_ref(channel, request, (uint32_t)out, &direction, &out_length))
				return -EINVAL;
			if (direction == XENIDC_OUT)
				break;
		}
		if (out == refs)
			continue;
		if (xenidc_view(channel, request, (uint32_t)out++, &from, &out_length) ||
		    xenidc_view(channel, request, (uint32_t)i, &to, &length))
			return -EIO;
		valid[i] = length < out_length ? length : out_length;
		memcpy(to, from, valid[i]);
	}
	return 0;
}

static void on_request(xenidc_channel *channel, xenidc_incoming request)
{
	uint32_t valid[64] = { 0 };
	struct xenidc_reply reply = { .valid = valid };

	if (xenidc_incoming_payload(channel, request, &reply.payload, &reply.payload_len))
		return;
	reply.status = echo_data(channel, request, valid);
	echo.answered++;
	(void)xenidc_reply(channel, request, &reply);
}

static void on_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	/* One that never was connected ends here, too. */
	if (!xenidc_channel_user(channel))
		return;
	echo.channels--;
	say("ended", NULL, why->text);
	if (echo.once && echo.served)
		xenidc_loop_stop(echo.loop);
}

static void on_signal(struct xenidc_watch *watch, uint32_t events)
{
	(void)watch;
	(void)events;
	xenidc_loop_stop(echo.loop);
}

static int parse(int argc, char **argv)
{
	static const struct option options[] = {
		{ "once", no_argument, NULL, 'o' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	int o;

	opterr = 0;
	while ((o = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (o == 'o')
			echo.once = true;
		else if (o == 'j')
			echo.json = true;
		else
			return xi_usage("echo", "cannot use '%.40s'", argv[optind - 1]);
	}
	if (optind + 1 != argc)
		return xi_usage("echo", optind == argc ? "an address is missing" : "one address is enough");
	echo.address = argv[optind];
	return 0;
}

static int serve(struct xenidc_error *err)
{
	struct xenidc_listener_options options = { .size = sizeof(options) };
	static struct xenidc_watch watch;
	xenidc_listener *listener;
	sigset_t set;
	int fd, e;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	e = fd < 0 ? -errno : xenidc_watch_start(echo.loop, &watch, fd, POLLIN, on_signal);
	if (!e) {
		options.channel.size = sizeof(options.channel);
		options.channel.handlers.connected = on_connected;
		options.channel.handlers.request = on_request;
		options.channel.handlers.idle = on_idle;
		options.channel.budget.payload = 16384;
		e = xenidc_listener_new(echo.loop, echo.address, &options, &listener, err);
	}
	if (!e) {
		say("listening", NULL, xenidc_listener_address(listener));
		(void)xenidc_loop_run(echo.loop);
		xenidc_listener_free(listener);
		xenidc_watch_stop(&watch);
	}
	if (fd >= 0)
		(void)close(fd);
	return e;
}

static int run(int argc, char **argv)
{
	struct xenidc_error err = { 0 };
	int e = parse(argc, argv);

	if (e)
		return e;
	e = xenidc_loop_new(NULL, &echo.loop);
	if (!e) {
		e = serve(&err);
		xenidc_loop_free(echo.loop);
	}
	if (!e)
		return XI_EXIT_OK;
	if (!err.text[0]) {
		err.code = e;
		(void)snprintf(err.text, sizeof(err.text), "could not prepare to listen: %s", strerror(-e));
	}
	(void)fputs("xenidc echo: ", stderr);
	xi_print_safe(stderr, err.text);
	(void)putc('\n', stderr);
	return xi_exit_of(&err);
}

const struct xi_verb xi_verb_echo = {
	.name = "echo",
	.arguments = "ADDRESS [--once] [--json]",
	.summary = "Listen, and answer every request with the same bytes: what `xenidc ping` talks to",
	.help = "Replies with the payload of the request; the n-th IN buffer of a request gets the contents of its "
		"n-th\n"
		"OUT buffer. Prints one line when it listens, and one for each channel that comes and goes.\n"
		"SIGINT or SIGTERM ends it, with exit code 0.\n"
		"\n"
		"  --once   end when the first channel has ended\n"
		"  --json   one JSON object a line instead of text\n",
	.run = run,
};
