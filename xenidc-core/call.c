/* SPDX-License-Identifier: MIT */
/* The blocking call, for tools: submit, and run the loop until the end is there. */
#include <errno.h>
#include <string.h>

#include "engine.h"

struct xi_call {
	xenidc_loop *loop;
	const struct xenidc_request *request;
	void *reply;
	uint32_t reply_cap;
	uint32_t *valid;
	struct xenidc_result *ret;
	bool over, gone;
};

static void call_done(xenidc_channel *channel, const struct xenidc_result *result)
{
	struct xi_call *call = result->user;
	uint32_t length = result->payload_len < call->reply_cap ? result->payload_len : call->reply_cap;

	XI_ASSERT(call->ret && result->end >= XENIDC_REPLIED);
	XI_ASSERT(!call->over && channel);
	if (length)
		memcpy(call->reply, result->payload, length);
	if (call->valid && result->valid)
		memcpy(call->valid, result->valid, result->refs * sizeof(*call->valid));
	*call->ret = *result;
	call->ret->payload = NULL;
	call->ret->valid = NULL;
	call->ret->user = call->request->user;
	call->over = true;
}

void xi_call_over(xenidc_channel *channel)
{
	struct xi_call *call = channel->call;

	XI_ASSERT(!call->gone && call->loop == channel->loop);
	XI_ASSERT(call);
	call->gone = true;
	channel->call = NULL;
}

static int submit_when_possible(xenidc_channel *channel, const struct xenidc_request *request, struct xi_call *call)
{
	XI_ASSERT(call->loop && request->done);
	for (;;) {
		int e = xenidc_submit(channel, request, NULL);
		if (e != -EAGAIN)
			return e;
		e = xenidc_loop_step(call->loop, -1);
		if (e < 0)
			return e;
		if (call->gone)
			return -ECANCELED;
	}
}

int xenidc_call(xenidc_channel *channel, const struct xenidc_request *request, void *reply, uint32_t reply_cap,
		uint32_t *valid, struct xenidc_result *ret)
{
	struct xi_call call = { .loop = channel->loop,
				.request = request,
				.reply = reply,
				.reply_cap = reply_cap,
				.valid = valid,
				.ret = ret };
	struct xenidc_request copy = *request;
	int e;

	XI_ASSERT(channel && request);
	XI_ASSERT(ret && (reply || !reply_cap));
	if (xi_loop_in_handler(channel->loop) || xi_loop_in_step(channel->loop) || channel->call)
		return -EDEADLK;
	copy.done = call_done;
	copy.user = &call;
	channel->call = &call;
	e = submit_when_possible(channel, &copy, &call);
	while (!e && !call.over && !call.gone)
		e = xenidc_loop_step(call.loop, -1) < 0 ? -ECHILD : 0;
	if (call.gone)
		return -ECANCELED;
	channel->call = NULL;
	return e;
}
