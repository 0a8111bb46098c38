/* SPDX-License-Identifier: MIT */
/* The frame codec: what is written can be read; what is impossible is refused. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/check.h"
#include "xenidc-core/base/limits.h"
#include "xenidc-core/frame.h"

static const struct xi_frame_limits limits = { .payload = 256, .refs = 4 };

static struct xi_frame parsed(const uint8_t *bytes, uint32_t length)
{
	struct xi_frame f;
	const char *why = "";

	if (xi_frame_parse(bytes, length, &limits, &f, &why))
		check_failed(__FILE__, __LINE__, "refused: %s", why);
	return f;
}

static bool refused(const uint8_t *bytes, uint32_t length)
{
	struct xi_frame f;
	const char *why = NULL;
	uint8_t *exact = malloc(length ? length : 1); /* so that a sanitizer sees each byte too far */
	int e;

	memcpy(exact, bytes, length);
	e = xi_frame_parse(exact, length, &limits, &f, &why);
	free(exact);
	CHECK(e == 0 || (e == -EPROTO && why && why[0]));
	return e != 0;
}

static uint32_t put_request(uint8_t *to)
{
	struct xi_wire_ref refs[2] = {
		{ .slot = 3, .generation = 7, .offset = 16, .length = 512 },
		{ .slot = 0x7fff, .generation = 0xffff, .in = true, .offset = 0, .length = 0xffffffff },
	};

	return xi_frame_put_request(to, 0x00050002, 0xfff0, 0x12345678, refs, 2, "abcde", 5);
}

static void test_request(void)
{
	uint8_t bytes[XI_FRAME_MAX];
	uint32_t length = put_request(bytes);
	struct xi_frame f = parsed(bytes, length);
	struct xi_wire_ref ref;

	CHECK_EQ(length, 12 + 4 + 2 * 12 + 5);
	CHECK_EQ(f.kind, XI_FRAME_REQUEST);
	CHECK_EQ(f.id, 0x00050002);
	CHECK_EQ(f.credit, 0xfff0);
	CHECK_EQ(f.number, 0x12345678);
	CHECK_EQ(f.nrefs, 2);
	ref = xi_frame_ref(&f, 0);
	CHECK(ref.slot == 3 && ref.generation == 7 && !ref.in && ref.offset == 16 && ref.length == 512);
	ref = xi_frame_ref(&f, 1);
	CHECK(ref.slot == 0x7fff && ref.generation == 0xffff && ref.in && ref.length == 0xffffffff);
	CHECK_EQ(f.payload_len, 5);
	CHECK_MEM(f.payload, "abcde", 5);
}

static void test_reply(void)
{
	uint32_t valid[2] = { 1, 0xfffffffe };
	uint8_t bytes[XI_FRAME_MAX];
	struct xi_frame f = parsed(bytes, xi_frame_put_reply(bytes, 9, 1, -5, valid, 2, "xy", 2));

	CHECK_EQ(f.kind, XI_FRAME_REPLY);
	CHECK_EQ(f.status, -5);
	CHECK_EQ(xi_frame_valid(&f, 0), 1);
	CHECK_EQ(xi_frame_valid(&f, 1), 0xfffffffe);
	CHECK_MEM(f.payload, "xy", 2);
	f = parsed(bytes, xi_frame_put_not_executed(bytes, 9, 1));
	CHECK_EQ(f.flags, XI_FRAME_NOT_EXECUTED);
	bytes[12] = 1; /* a refusal with a status is none */
	CHECK(refused(bytes, 16));
}

static void test_small_kinds(void)
{
	uint8_t bytes[XI_FRAME_MAX];
	struct xi_frame f = parsed(bytes, xi_frame_put_message(bytes, 2, NULL, 0));

	CHECK(f.kind == XI_FRAME_MESSAGE && f.payload_len == 0 && f.credit == 2);
	f = parsed(bytes, xi_frame_put_cancel(bytes, 77, 3));
	CHECK(f.kind == XI_FRAME_CANCEL && f.id == 77);
	f = parsed(bytes, xi_frame_put_credit(bytes, 4));
	CHECK(f.kind == XI_FRAME_CREDIT && f.credit == 4);
	f = parsed(bytes, xi_frame_put_ping(bytes, 5, 99));
	CHECK(f.kind == XI_FRAME_PING && f.number == 99);
	f = parsed(bytes, xi_frame_put_disconnect(bytes, 6, 41, XENIDC_REASON_SILENT, "gone"));
	CHECK(f.kind == XI_FRAME_DISCONNECT && f.number == 41 && f.reason == XENIDC_REASON_SILENT);
	CHECK_EQ(f.payload_len, 4);
	CHECK_MEM(f.payload, "gone", 4);
}

static void test_long_reason_is_cut(void)
{
	char text[400];
	uint8_t bytes[XI_FRAME_MAX];
	struct xi_frame f;

	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	f = parsed(bytes, xi_frame_put_disconnect(bytes, 0, 0, XENIDC_REASON_LOST, text));
	CHECK_EQ(f.payload_len, XI_REASON_TEXT_MAX);
}

static void test_every_truncation(void)
{
	uint8_t bytes[XI_FRAME_MAX];
	uint32_t length = put_request(bytes);

	for (uint32_t cut = 0; cut < length; cut++)
		CHECK(refused(bytes, cut));
	CHECK(refused(bytes, length + 1));
}

static void test_limits(void)
{
	uint8_t bytes[XI_FRAME_MAX] = { 0 };
	uint8_t payload[257] = { 0 };
	struct xi_wire_ref refs[5] = { { .slot = 0 } };

	CHECK(!refused(bytes, xi_frame_put_message(bytes, 0, payload, 256)));
	CHECK(refused(bytes, xi_frame_put_message(bytes, 0, payload, 257)));
	CHECK(!refused(bytes, xi_frame_put_request(bytes, 0, 0, 1, refs, 4, payload, 256)));
	CHECK(refused(bytes, xi_frame_put_request(bytes, 0, 0, 1, refs, 5, payload, 0)));
	CHECK_OP(xi_frame_max(&limits), >=, 12u + 4 + 4 * 12 + 256);
}

static void test_what_no_kind_may_have(void)
{
	static const uint8_t kinds[] = { 0, XI_FRAME_DATA, XI_FRAME_KINDS, 0x7f, 0xff };
	uint8_t bytes[XI_FRAME_MAX];
	uint32_t length;

	for (size_t i = 0; i < sizeof(kinds); i++) {
		length = xi_frame_put_credit(bytes, 0);
		bytes[0] = kinds[i];
		CHECK(refused(bytes, length));
	}
	length = xi_frame_put_credit(bytes, 0);
	bytes[11] = 1; /* the zero byte */
	CHECK(refused(bytes, length));
	length = xi_frame_put_credit(bytes, 0);
	bytes[4] = 1; /* an id where none belongs */
	CHECK(refused(bytes, length));
	length = xi_frame_put_credit(bytes, 0);
	bytes[1] = 2; /* an unknown flag */
	CHECK(refused(bytes, length));
	length = xi_frame_put_cancel(bytes, 1, 0);
	bytes[10] = 1; /* references where none belong */
	CHECK(refused(bytes, length));
	length = xi_frame_put_disconnect(bytes, 0, 0, XENIDC_REASON_CLOSED, "abc");
	bytes[18]++; /* the text's own length */
	CHECK(refused(bytes, length));
}

static void test_names(void)
{
	CHECK_STR(xi_frame_name(XI_FRAME_REQUEST), "REQUEST");
	CHECK_STR(xi_frame_name(XI_FRAME_DATA), "DATA");
	CHECK_STR(xi_frame_name(0), "?");
	CHECK_STR(xi_frame_name(255), "?");
}

CHECK_MAIN(TEST(test_request), TEST(test_reply), TEST(test_small_kinds), TEST(test_long_reason_is_cut),
	   TEST(test_every_truncation), TEST(test_limits), TEST(test_what_no_kind_may_have), TEST(test_names))
