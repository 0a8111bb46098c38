/* SPDX-License-Identifier: MIT */
#include "raw.h"

#include <string.h>

#include "tests/lib/check.h"
#include "xenidc-core/base/crc32c.h"

#define USUAL_SET                                                                                                      \
	{                                                                                                              \
		{                                                                                                      \
			RAW_SLOT, RAW_SLOTS                                                                            \
		}                                                                                                      \
	}
const struct raw_limits raw_usual = {
	.requests_out = RAW_REQUESTS,
	.requests_in = RAW_REQUESTS,
	.messages_out = RAW_MESSAGES,
	.messages_in = RAW_MESSAGES,
	.payload = RAW_PAYLOAD,
	.refs = RAW_REFS,
	.classes = { USUAL_SET, USUAL_SET, USUAL_SET, USUAL_SET },
};

/* --- Bytes */

void raw_copy(struct raw_bytes *to, const void *from, uint32_t count)
{
	CHECK(count <= RAW_BYTES - to->n);
	if (count)
		memcpy(to->b + to->n, from, count);
	to->n += count;
}

void raw_8(struct raw_bytes *to, uint8_t v)
{
	raw_copy(to, &v, 1);
}

void raw_16(struct raw_bytes *to, uint16_t v)
{
	raw_8(to, (uint8_t)v);
	raw_8(to, (uint8_t)(v >> 8));
}

void raw_32(struct raw_bytes *to, uint32_t v)
{
	raw_16(to, (uint16_t)v);
	raw_16(to, (uint16_t)(v >> 16));
}

void raw_64(struct raw_bytes *to, uint64_t v)
{
	raw_32(to, (uint32_t)v);
	raw_32(to, (uint32_t)(v >> 32));
}

void raw_fill(struct raw_bytes *to, uint8_t v, uint32_t count)
{
	CHECK(count <= RAW_BYTES - to->n);
	memset(to->b + to->n, v, count);
	to->n += count;
}

void raw_set16(struct raw_bytes *to, uint32_t at, uint16_t v)
{
	CHECK(at + 2 <= to->n);
	to->b[at] = (uint8_t)v;
	to->b[at + 1] = (uint8_t)(v >> 8);
}

void raw_set32(struct raw_bytes *to, uint32_t at, uint32_t v)
{
	raw_set16(to, at, (uint16_t)v);
	raw_set16(to, at + 2, (uint16_t)(v >> 16));
}

uint16_t raw_get16(const uint8_t *at)
{
	return (uint16_t)(at[0] | at[1] << 8);
}

uint32_t raw_get32(const uint8_t *at)
{
	return raw_get16(at) | (uint32_t)raw_get16(at + 2) << 16;
}

/* --- Connect messages */

#define HELLO_LENGTH 12
#define HELLO_CRC 24
#define HELLO_HEAD 32

void raw_hello(struct raw_bytes *to, uint8_t kind, uint64_t features)
{
	to->n = 0;
	raw_copy(to, "XIDC", 4);
	raw_8(to, kind);
	raw_8(to, 0);
	raw_16(to, 1); /* smallest and largest major version, minor version */
	raw_16(to, 1);
	raw_16(to, 0);
	raw_32(to, 0);
	raw_64(to, features);
	raw_32(to, 0);
	raw_32(to, 0);
	CHECK_EQ(to->n, HELLO_HEAD);
}

uint32_t raw_section(struct raw_bytes *to, uint16_t type)
{
	raw_16(to, type);
	raw_16(to, 0);
	return to->n;
}

void raw_section_end(struct raw_bytes *to, uint32_t at)
{
	raw_set16(to, at - 2, (uint16_t)(to->n - at));
}

void raw_section_limits(struct raw_bytes *to, const struct raw_limits *l)
{
	uint32_t at = raw_section(to, RAW_LIMITS);

	raw_32(to, l->requests_out);
	raw_32(to, l->requests_in);
	raw_32(to, l->messages_out);
	raw_32(to, l->messages_in);
	raw_32(to, l->payload);
	raw_32(to, l->refs);
	raw_32(to, 4096);
	raw_32(to, 1);
	for (int set = 0; set < 4; set++)
		for (int c = 0; c < 4; c++) {
			raw_32(to, l->classes[set][c][0]);
			raw_32(to, l->classes[set][c][1]);
		}
	CHECK_EQ(to->n - at, 160);
	raw_section_end(to, at);
}

void raw_section_session(struct raw_bytes *to)
{
	uint32_t at = raw_section(to, RAW_SESSION);

	raw_fill(to, 0, 24);
	raw_section_end(to, at);
}

void raw_seal(struct raw_bytes *to)
{
	raw_set32(to, HELLO_LENGTH, to->n);
	raw_set32(to, HELLO_CRC, 0);
	raw_set32(to, HELLO_CRC, xi_crc32c(0, to->b, to->n));
}

void raw_connect(struct raw_bytes *to, const struct raw_limits *limits)
{
	raw_hello(to, RAW_CONNECT, 0);
	raw_section_limits(to, limits);
	raw_section_session(to);
	raw_seal(to);
}

static void put_region(struct raw_bytes *to, const void *region, uint32_t length)
{
	uint32_t at = raw_section(to, RAW_TRANSPORT);

	raw_copy(to, region, length);
	raw_section_end(to, at);
	raw_seal(to);
}

void raw_accept(struct raw_bytes *to, const struct raw_limits *limits, const void *region, uint32_t length)
{
	raw_hello(to, RAW_ACCEPT, 0);
	raw_section_limits(to, limits);
	raw_section_session(to);
	put_region(to, region, length);
}

void raw_ready(struct raw_bytes *to, const void *region, uint32_t length)
{
	raw_hello(to, RAW_READY, 0);
	put_region(to, region, length);
}

const uint8_t *raw_find(const uint8_t *hello, uint32_t length, uint16_t type, uint32_t *ret_length)
{
	uint32_t at = HELLO_HEAD;

	while (at + 4 <= length) {
		uint32_t n = raw_get16(hello + at + 2);
		CHECK(at + 4 + n <= length);
		if (raw_get16(hello + at) == type) {
			*ret_length = n;
			return hello + at + 4;
		}
		at += 4 + n;
	}
	return NULL;
}

/* --- Frames */

static void put_header(struct raw_bytes *to, uint8_t kind, uint8_t flags, uint32_t id, uint16_t credit, uint8_t nrefs)
{
	to->n = 0;
	raw_8(to, kind);
	raw_8(to, flags);
	raw_16(to, 0);
	raw_32(to, id);
	raw_16(to, credit);
	raw_8(to, nrefs);
	raw_8(to, 0);
}

void raw_set_len(struct raw_bytes *frame)
{
	raw_set16(frame, 2, (uint16_t)(frame->n - RAW_HEADER));
}

void raw_request(struct raw_bytes *to, uint32_t id, uint32_t sequence, const struct raw_ref *refs, uint8_t nrefs,
		 uint32_t payload)
{
	put_header(to, RAW_REQUEST, 0, id, 0, nrefs);
	raw_32(to, sequence);
	for (int i = 0; i < nrefs; i++) {
		raw_16(to, refs[i].slot);
		raw_16(to, 1);
		raw_32(to, refs[i].offset);
		raw_32(to, refs[i].length);
	}
	raw_fill(to, 0x5a, payload);
	raw_set_len(to);
}

void raw_reply(struct raw_bytes *to, uint32_t id, const uint32_t *valid, uint8_t nvalid, uint32_t payload)
{
	put_header(to, RAW_REPLY, 0, id, 0, nvalid);
	raw_32(to, 7);
	for (int i = 0; i < nvalid; i++)
		raw_32(to, valid[i]);
	raw_fill(to, 0xa5, payload);
	raw_set_len(to);
}

void raw_not_executed(struct raw_bytes *to, uint32_t id)
{
	put_header(to, RAW_REPLY, RAW_NOT_EXECUTED, id, 0, 0);
	raw_32(to, 0);
	raw_set_len(to);
}

void raw_message(struct raw_bytes *to, uint32_t payload)
{
	put_header(to, RAW_MESSAGE, 0, 0, 0, 0);
	raw_fill(to, 0x3c, payload);
	raw_set_len(to);
}

void raw_cancel(struct raw_bytes *to, uint32_t id)
{
	put_header(to, RAW_CANCEL, 0, id, 0, 0);
}

void raw_credit(struct raw_bytes *to, uint16_t credit)
{
	put_header(to, RAW_CREDIT, 0, 0, credit, 0);
}

void raw_ping(struct raw_bytes *to, uint32_t received)
{
	put_header(to, RAW_PING, 0, 0, 0, 0);
	raw_32(to, received);
	raw_set_len(to);
}

void raw_disconnect(struct raw_bytes *to, uint32_t last, uint16_t reason, const char *text)
{
	uint32_t length = (uint32_t)strlen(text);

	put_header(to, RAW_DISCONNECT, 0, 0, 0, 0);
	raw_32(to, last);
	raw_16(to, reason);
	raw_16(to, (uint16_t)length);
	raw_copy(to, text, length);
	raw_set_len(to);
}

void raw_data(struct raw_bytes *to, uint32_t id, uint32_t slot, uint32_t offset, uint32_t length)
{
	put_header(to, RAW_DATA, 0, id, 0, 0);
	raw_32(to, slot);
	raw_32(to, offset);
	raw_set_len(to);
	/* Each byte tells where it belongs. */
	for (uint32_t i = 0; i < length; i++)
		raw_8(to, (uint8_t)((offset + i) * 7));
}

/* --- Streams */

void raw_wrap_seal(struct raw_bytes *to, uint32_t at)
{
	uint32_t length = to->n - at - RAW_PREFIX, crc;

	CHECK(to->n >= at + RAW_PREFIX);
	if (length > RAW_DATA_HEAD && to->b[at + RAW_PREFIX] == RAW_DATA)
		length = RAW_DATA_HEAD;
	crc = xi_crc32c(0, to->b + at, 4);
	crc = xi_crc32c(crc, to->b + at + 8, 4);
	crc = xi_crc32c(crc, to->b + at + RAW_PREFIX, length);
	raw_set32(to, at + 4, crc);
}

void raw_wrap(struct raw_bytes *to, const struct raw_bytes *frame, bool digest)
{
	uint32_t at = to->n;

	raw_32(to, frame->n);
	raw_32(to, 0);
	raw_32(to, digest && frame->b[0] == RAW_DATA && frame->n > RAW_DATA_HEAD
			   ? xi_crc32c(0, frame->b + RAW_DATA_HEAD, frame->n - RAW_DATA_HEAD)
			   : 0);
	raw_copy(to, frame->b, frame->n);
	raw_wrap_seal(to, at);
}

/* --- Layout */

static uint32_t up_to(uint32_t n, uint32_t multiple)
{
	return (n + multiple - 1) / multiple * multiple;
}

struct raw_layout raw_layout(const struct raw_limits *l)
{
	struct raw_layout r = { .frames = 1 };
	uint32_t request = 4 + 12 * l->refs + l->payload;
	uint32_t need = 3 * l->requests_out + l->requests_in + l->messages_out + 8;

	r.frame_max = 12 + (request > 168 ? request : 168);
	r.stride = up_to(8 + r.frame_max, 64);
	while (r.frames <= need)
		r.frames *= 2;
	r.slots_at = up_to(4096 + r.frames * r.stride, 4096);
	r.slots = l->classes[0][0][1] + l->classes[3][0][1];
	r.bytes = r.slots_at + l->classes[0][0][0] * l->classes[0][0][1] + l->classes[3][0][0] * l->classes[3][0][1];
	return r;
}
