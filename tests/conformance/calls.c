/* SPDX-License-Identifier: MIT */
/* Requests, buffers and answers, with everything checked that is always true. */
#include "harness.h"

#include <errno.h>

const char *end_name(enum xenidc_end end)
{
	switch (end) {
	case XENIDC_REPLIED:
		return "REPLIED";
	case XENIDC_NOT_EXECUTED:
		return "NOT_EXECUTED";
	case XENIDC_UNKNOWN:
		return "UNKNOWN";
	}
	return "no end";
}

static void done(xenidc_channel *channel, const struct xenidc_result *result)
{
	struct call *call = result->user;
	struct end *end = call->end;

	CHECK(xenidc_channel_user(channel) == end);
	CHECK_EQ(end->depth, 0);
	end->depth++;
	call->ends++;
	CHECK_EQ(call->ends, 1);
	CHECK_OP(end->open, >, 0);
	end->open--;
	CHECK(result->end >= XENIDC_REPLIED && result->end <= XENIDC_UNKNOWN);
	end->ended[result->end]++;
	CHECK_EQ(result->id, call->id);
	if (result->end == XENIDC_REPLIED)
		CHECK_EQ(result->refs, call->request.ref_count);
	call->result = *result;
	CHECK_OP(result->payload_len, <=, sizeof(call->payload));
	if (result->payload_len)
		memcpy(call->payload, result->payload, result->payload_len);
	if (result->end == XENIDC_REPLIED) {
		CHECK_EQ(result->reason, XENIDC_REASON_NONE);
		if (result->refs)
			memcpy(call->valid, result->valid, result->refs * sizeof(call->valid[0]));
	}
	call->result.payload = call->payload;
	call->result.valid = call->valid;
	if (call->then)
		call->then(call);
	CHECK_EQ(end->depth, 1);
	end->depth--;
}

int call_try(struct end *end, struct call *call)
{
	unsigned depth = end->depth;
	int e;

	call->end = end;
	call->ends = 0;
	call->request.done = done;
	call->request.user = call;
	end->depth = 1; /* no handler may run in there */
	end->open++;
	e = xenidc_submit(end->channel, &call->request, &call->id);
	end->depth = depth;
	CHECK_OP(e, <=, 0);
	if (e)
		end->open--;
	else
		CHECK(call->id != 0);
	return e;
}

void call_start(struct end *end, struct call *call)
{
	CHECK_EQ(call_try(end, call), 0);
}

void call_simple(struct end *end, struct call *call, const void *payload, uint32_t length)
{
	*call = (struct call){ .request = { .payload = payload, .payload_len = length } };
	call_start(end, call);
}

struct xenidc_ref ref_new(struct end *end, enum xenidc_direction direction, uint32_t length)
{
	struct xenidc_ref ref = { .length = length };

	CHECK_EQ(xenidc_buffer_get(end->channel, direction, length, &ref.buffer), 0);
	CHECK_OP(ref.buffer.capacity, >=, length);
	CHECK_EQ(ref.buffer.direction, direction);
	CHECK(ref.buffer.data);
	CHECK_EQ((uintptr_t)ref.buffer.data % 4096, 0);
	return ref;
}

void ref_put(struct end *end, const struct xenidc_ref *ref)
{
	CHECK_EQ(xenidc_buffer_put(end->channel, &ref->buffer), 0);
}

void ref_put_all(struct end *end, const struct xenidc_ref *refs, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		ref_put(end, &refs[i]);
}

static uint8_t byte_at(uint32_t i, uint32_t seed)
{
	uint32_t x = (i + 1) * 2654435761u + seed * 40503u;

	return (uint8_t)(x >> 24 ^ x >> 11);
}

void fill(void *to, uint32_t length, uint32_t seed)
{
	uint8_t *bytes = to;

	for (uint32_t i = 0; i < length; i++)
		bytes[i] = byte_at(i, seed);
}

void check_filled(const char *file, int line, const char *what, const void *at, uint32_t length, uint32_t seed)
{
	const uint8_t *bytes = at;

	for (uint32_t i = 0; i < length; i++)
		if (bytes[i] != byte_at(i, seed))
			check_failed(file, line, "%s: byte %u of %u is %#04x, not %#04x (seed %u)", what, i, length,
				     bytes[i], byte_at(i, seed), seed);
}

void serve_echo(struct end *end, xenidc_incoming request)
{
	struct xenidc_reply reply = { 0 };
	const void *payload;

	CHECK_EQ(xenidc_incoming_payload(end->channel, request, &payload, &reply.payload_len), 0);
	reply.payload = payload;
	reply.status = (int32_t)reply.payload_len;
	CHECK_EQ(xenidc_reply(end->channel, request, &reply), 0);
}

void answer(struct end *end, xenidc_incoming request, int32_t status)
{
	struct xenidc_reply reply = { .status = status };

	CHECK_EQ(xenidc_reply(end->channel, request, &reply), 0);
}

void answer_held(struct end *end, int32_t status)
{
	/* What was abandoned meanwhile has been answered by its handler. */
	for (unsigned i = 0; i < end->held_count && end->channel; i++) {
		struct xenidc_reply reply = { .status = status };
		int e = xenidc_reply(end->channel, end->held[i], &reply);
		CHECK(e == 0 || e == -ESTALE);
	}
	end->held_count = 0;
}

void *view(struct end *end, xenidc_incoming request, uint32_t index, uint32_t *ret_length)
{
	void *at = NULL;

	CHECK_EQ(xenidc_view(end->channel, request, index, &at, ret_length), 0);
	CHECK(at);
	return at;
}

struct xenidc_stats stats_of(const struct end *end)
{
	struct xenidc_stats stats = { .size = sizeof(stats) };

	xenidc_channel_stats(end->channel, &stats);
	return stats;
}

/* A message each way, twice: the second follows whatever the first one's predecessors made the other end send. */
void pair_settle(struct pair *p)
{
	for (int i = 0; i < 2; i++) {
		unsigned server = p->server.barrier, client = p->client.barrier;
		CHECK_EQ(xenidc_send(p->server.channel, BARRIER, sizeof(BARRIER)), 0);
		CHECK_EQ(xenidc_send(p->client.channel, BARRIER, sizeof(BARRIER)), 0);
		UNTIL(p, p->server.barrier > server && p->client.barrier > client);
	}
}
