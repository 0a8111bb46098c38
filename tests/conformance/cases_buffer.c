/* SPDX-License-Identifier: MIT */
/* Buffers: taking, lending, giving back. */
#include "harness.h"

#include <errno.h>

static void classes(struct pair *p)
{
	struct xenidc_budget *b = &p->client.options.budget;

	b->out[0] = (struct xenidc_slot_class){ 4096, 3 };
	b->out[1] = (struct xenidc_slot_class){ 16384, 2 };
	b->in[0] = (struct xenidc_slot_class){ 4096, 2 };
}

void case_buffer_errors(struct pair *p)
{
	struct xenidc_ref refs[2], in;
	struct xenidc_buffer buffer;
	struct call call = { .request = { .refs = refs, .ref_count = 1 } }, other = call;
	xenidc_channel *c;

	classes(p);
	pair_open(p);
	c = p->client.channel;
	CHECK_EQ(xenidc_buffer_get(c, XENIDC_OUT, 16385, &buffer), -EMSGSIZE);
	CHECK_EQ(xenidc_buffer_get(c, XENIDC_IN, 4097, &buffer), -EMSGSIZE);
	refs[0] = ref_new(&p->client, XENIDC_OUT, 100);
	/* Beyond the buffer, in every way. */
	refs[0].length = 4097;
	CHECK_EQ(call_try(&p->client, &call), -EINVAL);
	refs[0].offset = 4097;
	refs[0].length = 0;
	CHECK_EQ(call_try(&p->client, &call), -EINVAL);
	refs[0].offset = 2;
	refs[0].length = UINT32_MAX;
	CHECK_EQ(call_try(&p->client, &call), -EINVAL);
	refs[0].offset = 0;
	refs[0].length = 100;
	/* Twice in one request. */
	refs[1] = refs[0];
	call.request.ref_count = 2;
	CHECK_EQ(call_try(&p->client, &call), -EINVAL);
	call.request.ref_count = 1;
	call_start(&p->client, &call);
	/* While it is lent. */
	CHECK_EQ(xenidc_buffer_put(c, &refs[0].buffer), -EBUSY);
	CHECK_EQ(call_try(&p->client, &other), -EBUSY);
	UNTIL(p, p->server.held_count);
	CHECK_EQ(xenidc_buffer_put(c, &refs[0].buffer), -EBUSY);
	answer_held(&p->server, 0);
	CALL_END(&call);
	/* Afterwards it is ours again, once. */
	call_start(&p->client, &call);
	UNTIL(p, p->server.held_count);
	answer_held(&p->server, 0);
	CALL_END(&call);
	ref_put(&p->client, &refs[0]);
	CHECK_EQ(xenidc_buffer_put(c, &refs[0].buffer), -ESTALE);
	CHECK_EQ(call_try(&p->client, &other), -ESTALE);
	/* The same slot, taken again, is another buffer. */
	refs[1] = ref_new(&p->client, XENIDC_OUT, 100);
	CHECK_EQ(xenidc_buffer_put(c, &refs[0].buffer), -ESTALE);
	ref_put(&p->client, &refs[1]);
	in = ref_new(&p->client, XENIDC_IN, 0);
	in.buffer.slot = UINT16_MAX;
	CHECK_EQ(xenidc_buffer_put(c, &in.buffer), -ESTALE);
	/* `done` is mandatory. */
	CHECK_EQ(xenidc_submit(c, &(struct xenidc_request){ 0 }, NULL), -EINVAL);
}

void case_buffer_classes(struct pair *p)
{
	struct xenidc_ref refs[5];
	struct xenidc_buffer buffer;
	xenidc_channel *c;

	classes(p);
	pair_open(p);
	c = p->client.channel;
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 5; i++) {
			refs[i] = ref_new(&p->client, XENIDC_OUT, i < 3 ? 4096 : 4097);
			CHECK_EQ(refs[i].buffer.capacity, i < 3 ? 4096 : 16384);
			/* All of it is ours, and nobody else's. */
			fill(refs[i].buffer.data, refs[i].buffer.capacity, (uint32_t)i);
		}
		for (uint32_t i = 0; i < 5; i++)
			CHECK_FILLED(refs[i].buffer.data, refs[i].buffer.capacity, i);
		/* A class that is empty is not helped out by a larger one: that would take what others count on. */
		CHECK_EQ(xenidc_buffer_get(c, XENIDC_OUT, 10, &buffer), -EAGAIN);
		CHECK_EQ(xenidc_buffer_get(c, XENIDC_OUT, 10000, &buffer), -EAGAIN);
		ref_put_all(&p->client, refs, 5);
	}
	/* The other direction has buffers of its own, and so has the other end. */
	refs[0] = ref_new(&p->client, XENIDC_IN, 1);
	refs[1] = ref_new(&p->client, XENIDC_IN, 1);
	CHECK_EQ(xenidc_buffer_get(c, XENIDC_IN, 1, &buffer), -EAGAIN);
	ref_new(&p->server, XENIDC_OUT, 65536);
	CHECK_EQ(refs[0].buffer.direction, XENIDC_IN);
}

static void try_get(struct end *end)
{
	struct xenidc_buffer buffer;

	if (xenidc_buffer_get(end->channel, XENIDC_OUT, 1, &buffer) == 0)
		*(unsigned *)end->user += 1;
}

void case_buffer_writable(struct pair *p)
{
	struct xenidc_ref refs[3];
	struct xenidc_buffer buffer;
	struct call call = { .request = { .refs = refs, .ref_count = 1 } };
	unsigned got = 0;

	classes(p);
	p->client.on.writable = try_get;
	p->client.user = &got;
	pair_open(p);
	for (int i = 0; i < 3; i++)
		refs[i] = ref_new(&p->client, XENIDC_OUT, 1);
	call_start(&p->client, &call);
	UNTIL(p, p->server.held_count);
	/* Nobody is told who has not asked. */
	ref_put(&p->client, &refs[2]);
	pair_settle(p);
	CHECK_EQ(p->client.writable, 0);
	refs[2] = ref_new(&p->client, XENIDC_OUT, 1);
	CHECK_EQ(xenidc_buffer_get(p->client.channel, XENIDC_OUT, 1, &buffer), -EAGAIN);
	ref_put(&p->client, &refs[2]);
	CHECK_EQ(p->client.writable, 0);
	UNTIL(p, p->client.writable && got);
	pair_settle(p);
	CHECK_EQ(got, 1);
	answer_held(&p->server, 0);
	CALL_END(&call);
}
