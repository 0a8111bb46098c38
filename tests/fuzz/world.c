/* SPDX-License-Identifier: MIT */
#include "world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/check.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/transports.h"

/* Nothing takes longer than this, in turns of the loop. */
#define TURNS_MAX 2000
#define STEPS_MAX 200

struct world world;
static struct raw_bytes frame;

/* --- The target's handlers: what they do is told by what arrives */

static void ended(xenidc_channel *channel, const struct xenidc_result *result)
{
	uint32_t sum = 0;

	(void)channel;
	CHECK(result->end >= XENIDC_REPLIED && result->end <= XENIDC_UNKNOWN);
	for (uint32_t i = 0; i < result->payload_len; i++)
		sum += ((const uint8_t *)result->payload)[i];
	for (uint32_t i = 0; i < result->refs; i++)
		CHECK(!result->valid || result->valid[i] <= RAW_SLOT);
	CHECK(sum < UINT32_MAX);
}

static void submit(uint8_t how)
{
	struct xenidc_ref refs[2] = { { .length = 16u * how }, { .offset = how, .length = 64u * (how & 63) } };
	struct xenidc_request request = { .done = ended, .refs = refs, .payload = "payload", .payload_len = how & 7 };
	const enum xenidc_direction directions[2] = { how & 8 ? XENIDC_IN : XENIDC_OUT,
						      how & 16 ? XENIDC_IN : XENIDC_OUT };

	while (request.ref_count < how % 3u && !xenidc_buffer_get(world.channel, directions[request.ref_count],
								  RAW_SLOT, &refs[request.ref_count].buffer)) {
		if (directions[request.ref_count] == XENIDC_OUT)
			memset(refs[request.ref_count].buffer.data, how, RAW_SLOT);
		request.ref_count++;
	}
	if (how & 32)
		request.timeout_ns = 1;
	if (xenidc_submit(world.channel, &request, NULL) == 0)
		world.submitted++;
}

static void connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	(void)channel;
	CHECK(limits->budget.payload <= RAW_PAYLOAD && limits->budget.requests_in <= RAW_REQUESTS);
	world.connected = true;
	submit(2 + 16);
}

static void reply(xenidc_channel *channel, xenidc_incoming request, uint8_t how)
{
	uint32_t valid[RAW_REFS] = { 0 }, length;
	struct xenidc_reply r = { .status = how, .payload = "answer", .payload_len = how & 3, .valid = valid };
	enum xenidc_direction direction;

	for (int i = 0; i < xenidc_incoming_refs(channel, request); i++)
		if (xenidc_incoming_ref(channel, request, (uint32_t)i, &direction, &length) == 0)
			valid[i] = how & 4 ? length : length / 2;
	CHECK_EQ(xenidc_reply(channel, request, how & 8 ? &(struct xenidc_reply){ 0 } : &r), 0);
}

static void look_at_ref(xenidc_channel *channel, xenidc_incoming request, uint32_t i, uint8_t how)
{
	static uint8_t copy[RAW_SLOT];
	enum xenidc_direction direction;
	uint32_t length, again;
	void *view;

	CHECK_EQ(xenidc_incoming_ref(channel, request, i, &direction, &length), 0);
	CHECK(length <= RAW_SLOT);
	memset(copy, how, sizeof(copy));
	if (how & 16 && direction == XENIDC_OUT)
		(void)xenidc_read(channel, request, i, length / 2, copy, length - length / 2);
	else if (how & 16)
		CHECK_EQ(xenidc_write(channel, request, i, length / 2, copy, length - length / 2), 0);
	if (how & 32 || xenidc_view(channel, request, i, &view, &again))
		return;
	CHECK_EQ(again, length);
	if (direction == XENIDC_IN) {
		memset(view, how, length);
		return;
	}
	memcpy(copy, view, length);
}

static void requested(xenidc_channel *channel, xenidc_incoming request)
{
	const void *payload;
	uint32_t length;
	uint8_t how;

	CHECK_EQ(xenidc_incoming_payload(channel, request, &payload, &length), 0);
	CHECK(length <= RAW_PAYLOAD);
	how = length ? *(const uint8_t *)payload : 0;
	for (int i = 0; i < xenidc_incoming_refs(channel, request); i++)
		look_at_ref(channel, request, (uint32_t)i, how);
	if (how & 1 && world.nheld < WORLD_HELD)
		world.held[world.nheld++] = request;
	else
		reply(channel, request, how);
}

static void let_go(uint8_t how)
{
	while (world.nheld)
		reply(world.channel, world.held[--world.nheld], how);
}

static void message(xenidc_channel *channel, const void *payload, uint32_t length)
{
	CHECK(length <= RAW_PAYLOAD);
	if (length && *(const uint8_t *)payload & 1)
		(void)xenidc_send(channel, payload, length);
	if (length && *(const uint8_t *)payload & 2)
		let_go(*(const uint8_t *)payload);
}

static void abandoned(xenidc_channel *channel, xenidc_incoming request)
{
	for (unsigned i = 0; i < world.nheld; i++)
		if (world.held[i] == request) {
			world.held[i] = world.held[--world.nheld];
			reply(channel, request, 0);
			return;
		}
	check_failed(__FILE__, __LINE__, "abandoned: what is not held");
}

static void disconnecting(xenidc_channel *channel, const struct xenidc_error *why)
{
	(void)channel;
	CHECK(world.connected && !world.disconnected && why->text[0]);
	world.disconnected = true;
}

static void idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	(void)channel;
	CHECK(!world.idle && why->text[0]);
	CHECK_EQ(world.nheld, 0);
	world.idle = true;
}

static void channel_options(struct xenidc_channel_options *o)
{
	static const struct xenidc_slot_class slots = { RAW_SLOT, RAW_SLOTS };

	*o = (struct xenidc_channel_options){
		.size = sizeof(*o),
		.handlers = { connected, requested, NULL, message, NULL, abandoned, NULL, disconnecting, idle },
		.budget = { .size = sizeof(o->budget),
			    .requests_out = RAW_REQUESTS,
			    .requests_in = RAW_REQUESTS,
			    .messages_out = RAW_MESSAGES,
			    .messages_in = RAW_MESSAGES,
			    .payload = RAW_PAYLOAD,
			    .refs = RAW_REFS },
		.map = true,
	};
	o->budget.out[0] = o->budget.in[0] = o->budget.peer_out[0] = o->budget.peer_in[0] = slots;
}

static void accepted(xenidc_listener *listener, xenidc_channel *channel)
{
	(void)listener;
	CHECK(!world.channel);
	world.channel = channel;
}

static int64_t objects(void)
{
	int64_t n = 0;

	for (int i = 0; i < XI_OBJECT_KINDS; i++)
		n += xi_alive(i);
	return n;
}

void world_start(const struct world_peer *peer)
{
	struct xenidc_listener_options options = { .size = sizeof(options), .accepted = accepted };
	char address[64];
	struct xenidc_error err;

	if (world.loop)
		return;
	world.peer = peer;
	xi_transport_add(peer->transport);
	CHECK_EQ(xenidc_loop_new(NULL, &world.loop), 0);
	channel_options(&options.channel);
	strcpy(address, peer->transport->scheme);
	strcat(address, ":");
	if (xenidc_listener_new(world.loop, address, &options, &world.listener, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	world.objects = objects();
}

/* --- The program */

static void turn(void)
{
	xenidc_loop_step(world.loop, 0);
	world.peer->listen();
}

void world_heard(const uint8_t *f)
{
	if (f[0] == RAW_REQUEST)
		world.asked[world.nasked++ % WORLD_REQUESTS] = raw_get32(f + 4);
	if (f[0] == RAW_MESSAGE)
		world.credit++;
}

/* A frame whatever it is; its length is right. */
static void say_frame(void)
{
	size_t n;
	uint8_t *bytes = input_bytes(world.in, input_8(world.in), &n);

	frame.n = 0;
	raw_copy(&frame, bytes, (uint32_t)n);
	free(bytes);
	if (frame.n < RAW_HEADER)
		raw_fill(&frame, 0, RAW_HEADER - frame.n);
	raw_set_len(&frame);
	world.peer->frame(&frame);
}

/* A request that is right, but for what it refers to. */
static void say_request(void)
{
	uint8_t index = input_8(world.in) % RAW_REQUESTS, nrefs = input_8(world.in) % (RAW_REFS + 1);
	struct raw_ref refs[RAW_REFS];

	for (int i = 0; i < nrefs; i++) {
		refs[i].slot = input_8(world.in);
		refs[i].slot = (uint16_t)((refs[i].slot & 7) | (refs[i].slot & 0x80 ? RAW_IN : 0));
		refs[i].offset = input_16(world.in) % (RAW_SLOT + 2);
		refs[i].length = input_16(world.in) % (RAW_SLOT + 2);
		/* Often all of a slot from there on. */
		if (refs[i].length & 1 && refs[i].offset <= RAW_SLOT)
			refs[i].length = RAW_SLOT - refs[i].offset;
	}
	raw_request(&frame, RAW_ID(index, ++world.generation[index]), ++world.sequence, refs, nrefs, 1);
	frame.b[frame.n - 1] = input_8(world.in);
	raw_set16(&frame, 8, world.credit);
	world.peer->frame(&frame);
}

static void say_reply(void)
{
	uint8_t which = input_8(world.in) % WORLD_REQUESTS, nvalid = input_8(world.in) % (RAW_REFS + 1);
	uint32_t valid[RAW_REFS] = { 0 };

	for (int i = 0; i < nvalid; i++)
		valid[i] = input_16(world.in);
	if (input_8(world.in) % 4)
		raw_reply(&frame, world.asked[which], valid, nvalid, 3);
	else
		raw_not_executed(&frame, world.asked[which]);
	raw_set16(&frame, 8, world.credit);
	world.peer->frame(&frame);
}

static void say_small(void)
{
	uint8_t what = input_8(world.in);

	switch (what % 5) {
	case 0:
		raw_message(&frame, 1);
		frame.b[frame.n - 1] = what;
		break;
	case 1:
		raw_cancel(&frame, RAW_ID(what / 8 % RAW_REQUESTS, world.generation[what / 8 % RAW_REQUESTS]));
		break;
	case 2:
		raw_credit(&frame, world.credit);
		break;
	case 3:
		raw_ping(&frame, what / 5 % 4);
		break;
	default:
		raw_disconnect(&frame, what, what, "text");
	}
	if (what % 5 != 2)
		raw_set16(&frame, 8, what & 0x40 ? world.credit : 0);
	world.peer->frame(&frame);
}

/* DATA on streams; whatever bytes, wherever, in a region. */
static void say_data(void)
{
	uint8_t slot = input_8(world.in);
	uint16_t offset = input_16(world.in), length = input_16(world.in);
	uint8_t bytes[7];

	if (world.peer->stream && slot & 0x80) {
		/* A slot in pieces, as it should be; the first few, or all of them. */
		uint16_t at = offset % RAW_SLOT, piece = length % 1024 + 1, count = length / 1024 % 16;
		for (int i = 0; i < count && at < RAW_SLOT; i++, at += piece) {
			raw_data(&frame, 0, slot & 3, at, at + piece < RAW_SLOT ? piece : RAW_SLOT - at);
			world.peer->frame(&frame);
		}
		return;
	}
	if (world.peer->stream) {
		raw_data(&frame, input_8(world.in), slot, offset, length % (RAW_SLOT + 1));
		world.peer->frame(&frame);
		return;
	}
	memcpy(bytes, &offset, 2);
	bytes[2] = slot & 1; /* where: 17 bits */
	for (int i = 3; i < 7; i++)
		bytes[i] = input_8(world.in);
	world.peer->bytes(bytes, sizeof(bytes));
}

static void say_bytes(void)
{
	size_t n;
	uint8_t *bytes = input_bytes(world.in, input_8(world.in), &n);

	world.peer->bytes(bytes, (uint32_t)n);
	free(bytes);
}

/* What the target's own client does. */
static void act(void)
{
	uint8_t what = input_8(world.in);

	if (!world.connected || world.disconnected)
		return;
	switch (what % 4) {
	case 0:
		submit(what / 4);
		break;
	case 1:
		(void)xenidc_send(world.channel, "a message", what / 4 % 10);
		break;
	case 2:
		let_go(what / 4);
		break;
	default:
		if (what > 240)
			(void)xenidc_channel_close(world.channel, what & 8 ? 1000000 : 0);
	}
}

static void run_program(void)
{
	for (int i = 0; i < STEPS_MAX && !input_over(world.in) && !world.idle; i++) {
		switch (input_8(world.in) % 9) {
		case 0:
			say_frame();
			break;
		case 1:
		case 2:
			say_request();
			break;
		case 3:
			say_reply();
			break;
		case 4:
			say_small();
			break;
		case 5:
			say_data();
			break;
		case 6:
			say_bytes();
			break;
		case 7:
			act();
			break;
		default:
			turn();
		}
	}
}

static void turn_until(bool (*done)(void))
{
	for (int i = 0; !done(); i++) {
		if (i == TURNS_MAX)
			check_failed(__FILE__, __LINE__, "it does not come to its end");
		turn();
	}
}

static bool said_accept(void)
{
	return world.peer->heard_hello(RAW_ACCEPT);
}

static bool is_over(void)
{
	return world.channel ? world.idle : objects() == world.objects;
}

/* Connect the target, by a connect message of the input's or by a good one. `map`: ask for it. */
static void connect(uint8_t how)
{
	static struct raw_bytes hello;
	size_t n;

	world.peer->arrive();
	raw_connect(&hello, &world.limits);
	hello.b[16] = how >> 2 & 3; /* features */
	if (how & 1) {
		uint8_t *bytes = input_bytes(world.in, 1500, &n);
		/* What it says after the head, or instead of all. */
		hello.n = how & 2 ? 0 : 32;
		raw_copy(&hello, bytes, (uint32_t)n);
		free(bytes);
	}
	if (hello.n >= 32)
		raw_seal(&hello);
	world.peer->hello(&hello);
	if (how & 1) {
		for (int i = 0; i < 3; i++)
			turn();
		return;
	}
	turn_until(said_accept);
	raw_ready(&hello, NULL, 0);
	world.peer->hello(&hello);
	turn();
}

void world_run(const uint8_t *data, size_t size)
{
	struct input in = input(data, size);

	world.in = &in;
	world.limits = raw_usual;
	world.channel = NULL;
	world.connected = world.disconnected = world.idle = false;
	memset(world.generation, 0, sizeof(world.generation));
	world.sequence = world.nasked = world.nheld = world.submitted = world.credit = 0;
	world.peer->reset();
	connect(input_8(&in));
	run_program();
	world.peer->end();
	let_go(0);
	turn_until(is_over);
	if (world.channel)
		xenidc_channel_free(world.channel);
	turn();
	CHECK_EQ(objects(), world.objects);
}
