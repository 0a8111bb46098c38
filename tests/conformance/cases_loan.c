/* SPDX-License-Identifier: MIT */
/* Lent buffers, as their holder and their lender see them. */
#include "harness.h"

#include <errno.h>

#define SIZES 7
static const uint32_t sizes[SIZES] = { 1, 100, 4095, 4096, 4097, 40000, 65536 };

/* Checks that OUT references hold the pattern of their number. */
static void serve_out(struct end *end, xenidc_incoming request)
{
	enum xenidc_direction direction;
	uint32_t length, seen;
	int refs = xenidc_incoming_refs(end->channel, request);

	CHECK_OP(refs, >=, 0);
	for (int i = 0; i < refs; i++) {
		const void *at;
		CHECK_EQ(xenidc_incoming_ref(end->channel, request, (uint32_t)i, &direction, &length), 0);
		CHECK_EQ(direction, XENIDC_OUT);
		at = view(end, request, (uint32_t)i, &seen);
		CHECK_EQ(seen, length);
		CHECK_FILLED(at, seen, seen + (uint32_t)i);
	}
	CHECK_EQ(xenidc_incoming_ref(end->channel, request, (uint32_t)refs, &direction, &length), -EINVAL);
	answer(end, request, refs);
}

static void loan_out(struct pair *p)
{
	struct xenidc_ref ref;
	struct call call;

	p->server.on.request = serve_out;
	pair_open(p);
	for (int i = 0; i < SIZES; i++) {
		ref = ref_new(&p->client, XENIDC_OUT, sizes[i]);
		fill(ref_bytes(&ref), ref.buffer.capacity, 77);
		fill(ref_bytes(&ref), ref.length, ref.length);
		call = (struct call){ .request = { .refs = &ref, .ref_count = 1 } };
		call_start(&p->client, &call);
		CALL_END(&call);
		CHECK_END(&call, XENIDC_REPLIED);
		CHECK_EQ(call.result.status, 1);
		CHECK_EQ(call.valid[0], 0);
		/* The lender's copy is its own all the time. */
		CHECK_FILLED(ref_bytes(&ref), ref.length, ref.length);
		ref_put(&p->client, &ref);
	}
}

void case_loan_out(struct pair *p)
{
	loan_out(p);
}

void case_map_out(struct pair *p)
{
	p->server.options.map = p->client.options.map = true;
	loan_out(p);
	CHECK(p->client.limits.map && p->server.limits.map);
}

static void serve_in(struct end *end, xenidc_incoming request)
{
	enum xenidc_direction direction;
	uint32_t length, seen;
	int refs = xenidc_incoming_refs(end->channel, request);

	for (int i = 0; i < refs; i++) {
		CHECK_EQ(xenidc_incoming_ref(end->channel, request, (uint32_t)i, &direction, &length), 0);
		CHECK_EQ(direction, XENIDC_IN);
		fill(view(end, request, (uint32_t)i, &seen), length, length + (uint32_t)i);
		CHECK_EQ(seen, length);
	}
	answer(end, request, refs);
}

static void loan_in(struct pair *p)
{
	struct xenidc_ref ref;
	struct call call;

	p->server.on.request = serve_in;
	pair_open(p);
	for (int i = 0; i < SIZES; i++) {
		ref = ref_new(&p->client, XENIDC_IN, sizes[i]);
		call = (struct call){ .request = { .refs = &ref, .ref_count = 1 } };
		call_start(&p->client, &call);
		CALL_END(&call);
		CHECK_END(&call, XENIDC_REPLIED);
		CHECK_EQ(call.valid[0], sizes[i]);
		CHECK_FILLED(ref_bytes(&ref), ref.length, ref.length);
		ref_put(&p->client, &ref);
	}
}

void case_loan_in(struct pair *p)
{
	loan_in(p);
}

void case_map_in(struct pair *p)
{
	p->server.options.map = p->client.options.map = true;
	loan_in(p);
	CHECK(p->client.limits.map && p->server.limits.map);
}

/* Copies each OUT reference to the IN reference behind it. */
static void serve_copy(struct end *end, xenidc_incoming request)
{
	uint32_t valid[CALL_REFS] = { 0 };
	struct xenidc_reply reply = { .valid = valid };

	reply.status = xenidc_incoming_refs(end->channel, request);
	CHECK_OP(reply.status, >=, 0);
	for (uint32_t i = 0; i + 1 < (uint32_t)reply.status; i += 2) {
		uint32_t from_len, to_len;
		const void *from = view(end, request, i, &from_len);
		void *to = view(end, request, i + 1, &to_len);
		CHECK_EQ(from_len, to_len);
		if (from_len)
			memcpy(to, from, from_len);
		valid[i + 1] = from_len;
	}
	CHECK_EQ(xenidc_reply(end->channel, request, &reply), 0);
}

void case_loan_mixed(struct pair *p)
{
	struct xenidc_ref refs[4];
	struct call call = { .request = { .payload = "mixed", .payload_len = 5, .refs = refs, .ref_count = 4 } };

	p->server.on.request = serve_copy;
	pair_open(p);
	for (uint32_t round = 0; round < 20; round++) {
		for (uint32_t i = 0; i < 4; i++) {
			refs[i] = ref_new(&p->client, i & 1 ? XENIDC_IN : XENIDC_OUT, i < 2 ? 4096 : 65536);
			refs[i].offset = i < 2 ? round : 100 * round + 1;
			refs[i].length = i < 2 ? 50 + round : 60000 + round;
			if (i % 2 == 0)
				fill(refs[i].buffer.data, refs[i].buffer.capacity, 1);
			fill(ref_bytes(&refs[i]), refs[i].length, i & 1 ? 3 : round + i);
		}
		call_start(&p->client, &call);
		CALL_END(&call);
		CHECK_END(&call, XENIDC_REPLIED);
		CHECK_EQ(call.result.status, 4);
		for (uint32_t i = 1; i < 4; i += 2) {
			CHECK_EQ(call.valid[i - 1], 0);
			CHECK_EQ(call.valid[i], refs[i].length);
			CHECK_FILLED(ref_bytes(&refs[i]), refs[i].length, round + i - 1);
		}
		ref_put_all(&p->client, refs, 4);
	}
}

void case_map_same_page(struct pair *p)
{
	struct xenidc_ref ref;
	struct call call = { .request = { .refs = &ref, .ref_count = 1 } };
	const volatile uint8_t *at;
	uint32_t length;

	p->server.options.map = p->client.options.map = true;
	pair_open(p);
	ref = ref_new(&p->client, XENIDC_OUT, 4096);
	memset(ref.buffer.data, 1, 4096);
	call_start(&p->client, &call);
	UNTIL(p, p->server.held_count);
	at = view(&p->server, p->server.held[0], 0, &length);
	CHECK_EQ(at[100], 1);
	ref_bytes(&ref)[100] = 2;
	CHECK_EQ(at[100], 2);
	answer_held(&p->server, 0);
	CALL_END(&call);
}

void case_map_one_side(struct pair *p)
{
	p->client.options.map = true;
	pair_open(p);
	CHECK(!p->client.limits.map && !p->server.limits.map);
}

static void serve_read_write(struct end *end, xenidc_incoming request)
{
	static uint8_t bytes[4096];
	xenidc_channel *c = end->channel;
	uint32_t valid[2] = { 0, 3000 };
	struct xenidc_reply reply = { .status = 1, .valid = valid };

	CHECK_EQ(xenidc_read(c, request, 0, 0, bytes, 3000), 0);
	CHECK_FILLED(bytes, 3000, 9);
	CHECK_EQ(xenidc_read(c, request, 0, 2990, bytes, 10), 0);
	CHECK_EQ(xenidc_read(c, request, 0, 3000, bytes, 0), 0);
	CHECK_EQ(xenidc_read(c, request, 0, 2991, bytes, 10), -EINVAL);
	CHECK_EQ(xenidc_read(c, request, 0, 3001, bytes, 0), -EINVAL);
	CHECK_EQ(xenidc_read(c, request, 0, UINT32_MAX, bytes, 2), -EINVAL);
	CHECK_EQ(xenidc_read(c, request, 1, 0, bytes, 1), -EINVAL);
	CHECK_EQ(xenidc_read(c, request, 2, 0, bytes, 1), -EINVAL);
	CHECK_EQ(xenidc_read(c, request, 0, 100, bytes + 100, 2000), 0);
	CHECK_EQ(xenidc_read(c, request, 0, 0, bytes, 100), 0);
	CHECK_EQ(xenidc_read(c, request, 0, 2100, bytes + 2100, 900), 0);
	CHECK_FILLED(bytes, 3000, 9);
	CHECK_EQ(xenidc_write(c, request, 1, 1000, bytes + 1000, 2000), 0);
	CHECK_EQ(xenidc_write(c, request, 1, 0, bytes, 1000), 0);
	CHECK_EQ(xenidc_write(c, request, 1, 3000, bytes, 0), 0);
	CHECK_EQ(xenidc_write(c, request, 1, 2999, bytes, 2), -EINVAL);
	CHECK_EQ(xenidc_write(c, request, 1, UINT32_MAX, bytes, 2), -EINVAL);
	CHECK_EQ(xenidc_write(c, request, 0, 0, bytes, 1), -EINVAL);
	CHECK_EQ(xenidc_write(c, request, 7, 0, bytes, 1), -EINVAL);
	CHECK_EQ(xenidc_reply(c, request, &reply), 0);
}

void case_read_write(struct pair *p)
{
	struct xenidc_ref refs[2];
	struct call call = { .request = { .refs = refs, .ref_count = 2 } };

	p->server.on.request = serve_read_write;
	pair_open(p);
	refs[0] = ref_new(&p->client, XENIDC_OUT, 4096);
	refs[1] = ref_new(&p->client, XENIDC_IN, 4096);
	refs[0].offset = refs[1].offset = 1000;
	refs[0].length = refs[1].length = 3000;
	fill(ref_bytes(&refs[0]), 3000, 9);
	call_start(&p->client, &call);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
	CHECK_FILLED(ref_bytes(&refs[1]), 3000, 9);
}

static void serve_valid(struct end *end, xenidc_incoming request)
{
	uint32_t valid[4] = { 0, 100, 4097, 1234 }, length;
	struct xenidc_reply reply = { .valid = valid };

	for (uint32_t i = 0; i < 3; i++)
		fill(view(end, request, i, &length), 4096, i);
	/* More than the reference has: refused, and the request can still be answered. */
	CHECK_EQ(xenidc_reply(end->channel, request, &reply), -EINVAL);
	valid[2] = 4096;
	CHECK_EQ(xenidc_reply(end->channel, request, &reply), 0);
}

void case_valid_length(struct pair *p)
{
	struct xenidc_ref refs[4];
	struct call call = { .request = { .refs = refs, .ref_count = 4 } };
	struct xenidc_stats before, after;

	p->server.on.request = serve_valid;
	pair_open(p);
	for (int i = 0; i < 4; i++)
		refs[i] = ref_new(&p->client, i < 3 ? XENIDC_IN : XENIDC_OUT, 4096);
	before = stats_of(&p->client);
	call_start(&p->client, &call);
	CALL_END(&call);
	after = stats_of(&p->client);
	CHECK_END(&call, XENIDC_REPLIED);
	CHECK_EQ(call.valid[0], 0);
	CHECK_EQ(call.valid[1], 100);
	CHECK_EQ(call.valid[2], 4096);
	CHECK_EQ(call.valid[3], 0);
	CHECK_FILLED(ref_bytes(&refs[1]), 100, 1);
	CHECK_FILLED(ref_bytes(&refs[2]), 4096, 2);
	CHECK_EQ(after.bytes_in - before.bytes_in, 4196);
	CHECK_EQ(stats_of(&p->server).bytes_out, 4196);
}

void case_view_twice(struct pair *p)
{
	struct xenidc_ref refs[2];
	struct call call = { .request = { .refs = refs, .ref_count = 2 } };
	uint64_t copies;
	uint32_t length;
	void *out, *in;

	pair_open(p);
	refs[0] = ref_new(&p->client, XENIDC_OUT, 5000);
	refs[1] = ref_new(&p->client, XENIDC_IN, 5000);
	fill(ref_bytes(&refs[0]), 5000, 4);
	call_start(&p->client, &call);
	UNTIL(p, p->server.held_count);
	out = view(&p->server, p->server.held[0], 0, &length);
	in = view(&p->server, p->server.held[0], 1, &length);
	copies = stats_of(&p->server).copies;
	for (int i = 0; i < 3; i++) {
		pair_settle(p);
		CHECK(view(&p->server, p->server.held[0], 0, &length) == out);
		CHECK_EQ(length, 5000);
		CHECK(view(&p->server, p->server.held[0], 1, &length) == in);
		CHECK_FILLED(out, length, 4);
	}
	CHECK_EQ(stats_of(&p->server).copies, copies);
	answer_held(&p->server, 0);
	CALL_END(&call);
}

void case_stale_after_reply(struct pair *p)
{
	struct xenidc_ref refs[2];
	struct call call = { .request = { .refs = refs, .ref_count = 2 } };
	struct xenidc_reply reply = { 0 };
	enum xenidc_direction direction;
	const void *payload;
	xenidc_incoming old;
	xenidc_channel *c;
	uint32_t length;
	uint8_t byte = 0;
	void *at;

	pair_open(p);
	c = p->server.channel;
	refs[0] = ref_new(&p->client, XENIDC_OUT, 100);
	refs[1] = ref_new(&p->client, XENIDC_IN, 100);
	call_start(&p->client, &call);
	UNTIL(p, p->server.held_count);
	old = p->server.held[0];
	answer_held(&p->server, 1);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(xenidc_incoming_payload(c, old, &payload, &length), -ESTALE);
		CHECK_EQ(xenidc_incoming_refs(c, old), -ESTALE);
		CHECK_EQ(xenidc_incoming_ref(c, old, 0, &direction, &length), -ESTALE);
		CHECK_EQ(xenidc_view(c, old, 0, &at, &length), -ESTALE);
		CHECK_EQ(xenidc_read(c, old, 0, 0, &byte, 1), -ESTALE);
		CHECK_EQ(xenidc_write(c, old, 1, 0, &byte, 1), -ESTALE);
		CHECK_EQ(xenidc_reply(c, old, &reply), -ESTALE);
		CHECK_EQ(xenidc_view(c, 0, 0, &at, &length), -ESTALE);
		CHECK_EQ(xenidc_view(c, ~old, 0, &at, &length), -ESTALE);
		if (i == 1)
			break;
		/* The same place of the table again: another generation, so the old handle stays stale. */
		CALL_END(&call);
		call_start(&p->client, &call);
		UNTIL(p, p->server.held_count);
		CHECK(p->server.held[0] != old);
	}
	answer_held(&p->server, 0);
	CALL_END(&call);
}

void case_hostile_lender(struct pair *p)
{
	struct xenidc_ref ref;
	struct call call = { .request = { .payload = "payload", .payload_len = 7, .refs = &ref, .ref_count = 1 } };
	const void *at, *payload;
	uint32_t length, payload_len;

	pair_open(p);
	ref = ref_new(&p->client, XENIDC_OUT, 50000);
	fill(ref_bytes(&ref), ref.length, 2);
	call_start(&p->client, &call);
	UNTIL(p, p->server.held_count);
	CHECK_EQ(xenidc_incoming_payload(p->server.channel, p->server.held[0], &payload, &payload_len), 0);
	at = view(&p->server, p->server.held[0], 0, &length);
	CHECK_FILLED(at, length, 2);
	/* From here on the lender breaks its word. */
	for (uint32_t i = 0; i < 5; i++) {
		fill(ref_bytes(&ref), ref.length, 100 + i);
		pair_settle(p);
		CHECK_FILLED(at, length, 2);
		CHECK(view(&p->server, p->server.held[0], 0, &length) == at);
		CHECK_FILLED(at, length, 2);
		CHECK_MEM(payload, "payload", 7);
	}
	answer_held(&p->server, 0);
	CALL_END(&call);
}

void case_hostile_holder(struct pair *p)
{
	struct xenidc_ref ref;
	struct call call = { .request = { .refs = &ref, .ref_count = 1 } };
	uint32_t length;
	void *at;

	pair_open(p);
	ref = ref_new(&p->client, XENIDC_IN, 50000);
	call_start(&p->client, &call);
	UNTIL(p, p->server.held_count);
	at = view(&p->server, p->server.held[0], 0, &length);
	fill(at, length, 3);
	answer_held(&p->server, 0);
	CALL_END(&call);
	CHECK_FILLED(ref_bytes(&ref), ref.length, 3);
	for (uint32_t i = 0; i < 5; i++) {
		fill(at, length, 100 + i);
		pair_settle(p);
		CHECK_FILLED(ref_bytes(&ref), ref.length, 3);
	}
}

/* Copies made by both ends for `count` loans of a kind. */
static uint64_t copies_of(struct pair *p, enum xenidc_direction direction, int count)
{
	uint64_t before = stats_of(&p->client).copies + stats_of(&p->server).copies;
	uint64_t bytes = stats_of(&p->client).copied_bytes + stats_of(&p->server).copied_bytes;
	struct call call;

	p->server.on.request = direction == XENIDC_OUT ? serve_out : serve_in;
	for (int i = 0; i < count; i++) {
		struct xenidc_ref ref = ref_new(&p->client, direction, 3000);
		fill(ref_bytes(&ref), direction == XENIDC_OUT ? ref.length : 0, ref.length);
		call = (struct call){ .request = { .refs = &ref, .ref_count = 1 } };
		call_start(&p->client, &call);
		CALL_END(&call);
		CHECK_END(&call, XENIDC_REPLIED);
		ref_put(&p->client, &ref);
	}
	bytes = stats_of(&p->client).copied_bytes + stats_of(&p->server).copied_bytes - bytes;
	before = stats_of(&p->client).copies + stats_of(&p->server).copies - before;
	CHECK_EQ(bytes, before * 3000);
	return before;
}

/* One read of a part is one copy as well, straight to where it was asked for. */
static void serve_one_read(struct end *end, xenidc_incoming request)
{
	static uint8_t bytes[3000];

	CHECK_EQ(xenidc_read(end->channel, request, 0, 0, bytes, sizeof(bytes)), 0);
	CHECK_FILLED(bytes, sizeof(bytes), 3000);
	answer(end, request, 0);
}

void case_copies_out(struct pair *p)
{
	struct xenidc_ref ref;
	struct call call = { .request = { .refs = &ref, .ref_count = 1 } };
	uint64_t before;

	pair_open(p);
	CHECK_EQ(copies_of(p, XENIDC_OUT, 5), 5);
	CHECK_EQ(copies_of(p, XENIDC_IN, 5), 5);
	if (!(column_has(p->column) & XI_CAP_LAZY))
		return; /* the data are in landing memory before they are asked for: reading them is a second copy */
	p->server.on.request = serve_one_read;
	ref = ref_new(&p->client, XENIDC_OUT, 3000);
	fill(ref_bytes(&ref), 3000, 3000);
	before = stats_of(&p->server).copies;
	call_start(&p->client, &call);
	CALL_END(&call);
	CHECK_EQ(stats_of(&p->server).copies - before, 1);
}

void case_copies_map(struct pair *p)
{
	p->server.options.map = p->client.options.map = true;
	pair_open(p);
	CHECK_EQ(copies_of(p, XENIDC_OUT, 5), 0);
	CHECK_EQ(copies_of(p, XENIDC_IN, 5), 0);
}

void case_zero_lengths(struct pair *p)
{
	struct xenidc_ref refs[4];
	struct call call = { .request = { .refs = refs, .ref_count = 4 } };

	p->server.on.request = serve_copy;
	pair_open(p);
	for (int i = 0; i < 4; i++) {
		refs[i] = ref_new(&p->client, i & 1 ? XENIDC_IN : XENIDC_OUT, 0);
		refs[i].offset = i < 2 ? 0 : refs[i].buffer.capacity;
	}
	call_start(&p->client, &call);
	CHECK_EQ(xenidc_send(p->client.channel, NULL, 0), 0);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
	CHECK_EQ(call.result.status, 4);
	CHECK_EQ(call.result.payload_len, 0);
	UNTIL(p, p->server.messages);
	call_simple(&p->client, &call, NULL, 0);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
	CHECK_EQ(stats_of(&p->client).bytes_out, 0);
	CHECK_EQ(stats_of(&p->client).bytes_in, 0);
}

#define LARGE (16u << 20)

void case_max_sizes(struct pair *p)
{
	static uint8_t payload[16384 + 1];
	struct xenidc_ref refs[65];
	struct call call = { .request = { .payload = payload, .refs = refs } };
	struct xenidc_budget *b = &p->client.options.budget;

	b->payload = 16384;
	b->refs = 64;
	b->out[0] = b->in[0] = (struct xenidc_slot_class){ 4096, 33 };
	b->out[1] = b->in[1] = (struct xenidc_slot_class){ LARGE, 1 };
	p->server.options.budget = *b;
	memcpy(p->server.options.budget.peer_out, b->out, sizeof(b->out));
	memcpy(p->server.options.budget.peer_in, b->in, sizeof(b->in));
	p->server.on.request = serve_echo;
	pair_open(p);
	fill(payload, sizeof(payload), 8);
	call.request.payload_len = 16385;
	CHECK_EQ(call_try(&p->client, &call), -EMSGSIZE);
	CHECK_EQ(xenidc_send(p->client.channel, payload, 16385), -EMSGSIZE);
	call.request.payload_len = 16384;
	call_start(&p->client, &call);
	CHECK_EQ(xenidc_send(p->client.channel, payload, 16384), 0);
	CALL_END(&call);
	CHECK_EQ(call.result.payload_len, 16384);
	CHECK_MEM(call.payload, payload, 16384);
	p->server.on.request = serve_copy;
	for (uint32_t i = 0; i < 65; i++) {
		refs[i] = ref_new(&p->client, i & 1 ? XENIDC_IN : XENIDC_OUT, i < 2 ? LARGE : 4096);
		if (i % 2 == 0)
			fill(ref_bytes(&refs[i]), refs[i].length, i);
	}
	call.request.ref_count = 65;
	CHECK_EQ(call_try(&p->client, &call), -EMSGSIZE);
	call.request.ref_count = 64;
	call_start(&p->client, &call);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
	for (uint32_t i = 1; i < 64; i += 2) {
		CHECK_EQ(call.valid[i], refs[i].length);
		CHECK_FILLED(ref_bytes(&refs[i]), refs[i].length, i - 1);
	}
}

#define BULK (4u << 20)

static void bulk_classes(struct pair *p, uint32_t size, uint32_t count)
{
	struct xenidc_budget *b = &p->client.options.budget;

	b->out[0] = b->in[0] = b->peer_out[0] = b->peer_in[0] = (struct xenidc_slot_class){ size, count };
	p->server.options.budget = *b;
}

static void bulk(struct pair *p)
{
	struct xenidc_ref refs[2];
	struct call call = { .request = { .refs = refs, .ref_count = 2 } };

	bulk_classes(p, BULK, 1);
	p->server.on.request = serve_copy;
	pair_open(p);
	refs[0] = ref_new(&p->client, XENIDC_OUT, BULK);
	refs[1] = ref_new(&p->client, XENIDC_IN, BULK);
	for (uint32_t round = 0; round < 3; round++) {
		fill(ref_bytes(&refs[0]), BULK, round);
		call_start(&p->client, &call);
		CALL_END(&call);
		CHECK_END(&call, XENIDC_REPLIED);
		CHECK_EQ(call.valid[1], BULK);
		CHECK_FILLED(ref_bytes(&refs[1]), BULK, round);
	}
}

void case_bulk(struct pair *p)
{
	bulk(p);
	CHECK(!p->client.limits.digest && !p->server.limits.digest);
}

void case_bulk_digest(struct pair *p)
{
	p->client.options.digest = true;
	bulk(p);
	CHECK(p->client.limits.digest && p->server.limits.digest);
}

#define FLOWS 8

/* Both ends send FLOWS large loans at once, several times over; each answers with what it got. */
void case_bulk_both(struct pair *p)
{
	static struct call calls[2][FLOWS];
	static struct xenidc_ref refs[2][FLOWS][2];

	bulk_classes(p, 200000, FLOWS);
	p->server.on.request = p->client.on.request = serve_copy;
	pair_open(p);
	for (uint32_t round = 0; round < 4; round++) {
		for (uint32_t i = 0; i < 2 * FLOWS; i++) {
			struct end *end = i & 1 ? &p->server : &p->client;
			struct xenidc_ref *r = refs[i & 1][i / 2];
			r[0] = ref_new(end, XENIDC_OUT, 200000 - i);
			r[1] = ref_new(end, XENIDC_IN, 200000 - i);
			fill(ref_bytes(&r[0]), r[0].length, i + round);
			calls[i & 1][i / 2] = (struct call){ .request = { .refs = r, .ref_count = 2 } };
			call_start(end, &calls[i & 1][i / 2]);
		}
		UNTIL(p, !p->server.open && !p->client.open);
		for (uint32_t i = 0; i < 2 * FLOWS; i++) {
			struct xenidc_ref *r = refs[i & 1][i / 2];
			CHECK_END(&calls[i & 1][i / 2], XENIDC_REPLIED);
			CHECK_FILLED(ref_bytes(&r[1]), r[1].length, i + round);
			ref_put_all(i & 1 ? &p->server : &p->client, r, 2);
		}
	}
}
