/* SPDX-License-Identifier: MIT */
#include "tools/common/link.h"

#include <errno.h>
#include <string.h>

#include "tools/common/clock.h"
#include "tools/common/exits.h"
#include "tools/common/json.h"
#include "tools/common/text.h"

static struct xi_link *link_of(xenidc_channel *channel)
{
	return xenidc_channel_user(channel);
}

static void on_connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	(void)limits;
	link_of(channel)->connected = true;
}

static void on_disconnecting(xenidc_channel *channel, const struct xenidc_error *why)
{
	link_of(channel)->lost = true;
	link_of(channel)->why = *why;
}

static void on_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct xi_link *link = link_of(channel);

	link->connected = false;
	link->idle = true;
	if (!link->lost)
		link->why = *why;
}

static int failed(struct xi_link *link, int e)
{
	if (!link->why.code)
		link->why.code = e;
	if (!link->why.text[0])
		(void)snprintf(link->why.text, sizeof(link->why.text), "could not prepare a channel: %s", strerror(-e));
	return e;
}

int xi_link_open_on(struct xi_link *link, xenidc_loop *loop, const char *address,
		    const struct xenidc_channel_options *options)
{
	struct xenidc_channel_options mine = { 0 };
	uint64_t start;
	int e;

	memset(link, 0, sizeof(*link));
	if (options)
		mine = *options;
	mine.size = sizeof(mine);
	mine.handlers.connected = on_connected;
	mine.handlers.disconnecting = on_disconnecting;
	mine.handlers.idle = on_idle;
	mine.user = link;
	e = xenidc_channel_new(loop, &mine, &link->channel, &link->why);
	if (e)
		return failed(link, e);
	start = xi_now_ns();
	e = xenidc_channel_connect(link->channel, address, &link->why);
	while (!e && !link->connected && !link->idle)
		(void)xenidc_loop_step(loop, -1);
	link->connect_ns = xi_now_ns() - start;
	if (!e && link->connected)
		return 0;
	xenidc_channel_free(link->channel);
	link->channel = NULL;
	return failed(link, e ? e : -ENOTCONN);
}

int xi_link_open(struct xi_link *link, const char *address, const struct xenidc_channel_options *options,
		 enum xenidc_wait wait)
{
	struct xenidc_loop_options how = { .size = sizeof(how), .wait = wait };
	xenidc_loop *loop;
	int e;

	memset(link, 0, sizeof(*link));
	e = xenidc_loop_new(&how, &loop);
	if (e)
		return failed(link, e);
	e = xi_link_open_on(link, loop, address, options);
	if (e)
		xenidc_loop_free(loop);
	else
		link->loop = loop;
	return e;
}

void xi_link_close(struct xi_link *link)
{
	if (!link->channel)
		return;
	if (!link->idle)
		(void)xenidc_channel_close(link->channel, 1000000000);
	while (!link->idle)
		(void)xenidc_loop_step(xenidc_channel_loop(link->channel), -1);
	xenidc_channel_free(link->channel);
	link->channel = NULL;
	xenidc_loop_free(link->loop);
	link->loop = NULL;
}

int xi_link_report(const struct xi_link *link, const char *program, const char *address, bool json)
{
	struct xi_json j = { .to = stdout };
	int code = link->lost ? XI_EXIT_LOST : (int)xi_exit_of(&link->why);

	if (json) {
		xi_json_open(&j, NULL);
		xi_json_text(&j, "address", address);
		xi_json_bool(&j, "connected", false);
		xi_json_open(&j, "error");
		xi_json_text(&j, "reason", xenidc_reason_name(link->why.reason));
		xi_json_int(&j, "errno", -link->why.code);
		xi_json_bool(&j, "by_peer", link->why.by_peer);
		xi_json_text(&j, "text", link->why.text);
		xi_json_close(&j);
		xi_json_close(&j);
		return code;
	}
	(void)fprintf(stderr, "%s: ", program);
	xi_print_safe(stderr, link->why.text);
	if (link->why.reason != XENIDC_REASON_NONE)
		(void)fprintf(stderr, " [%s]", xenidc_reason_name(link->why.reason));
	(void)putc('\n', stderr);
	return code;
}
