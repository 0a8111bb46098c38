/* SPDX-License-Identifier: MIT */
/* Connect messages: every kind there and back, every bit flip and truncation refused, unknown sections skipped. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/check.h"
#include "xenidc-core/hello.h"

static struct xi_hello connect_hello(void)
{
	struct xi_hello h = { .kind = XI_HELLO_CONNECT,
			      .major_min = XI_PROTOCOL_MAJOR_MIN,
			      .major_max = XI_PROTOCOL_MAJOR,
			      .minor = XI_PROTOCOL_MINOR,
			      .features = XI_FEATURE_MAP,
			      .incarnation = 5,
			      .session = { .id = 1, .secret = 2, .last_received = 3, .last_consumed = 4 },
			      .service = "disk",
			      .auth = { 9, 8, 7 },
			      .auth_len = 3 };

	CHECK_EQ(xenidc_budget_complete(&h.budget, NULL), 0);
	return h;
}

static int parse(const uint8_t *bytes, uint32_t length, struct xi_hello *h)
{
	const char *why = NULL;
	uint8_t *exact = malloc(length ? length : 1);
	int e;

	memcpy(exact, bytes, length);
	e = xi_hello_parse(exact, length, h, &why);
	h->transport = NULL; /* leads into the copy */
	free(exact);
	CHECK(e == 0 || (e == -EPROTO && why && why[0]));
	return e;
}

static void test_connect(void)
{
	struct xi_hello h = connect_hello(), got;
	uint8_t bytes[XI_HELLO_MAX];
	uint32_t length = xi_hello_put(bytes, &h);

	CHECK_EQ(xi_hello_length(bytes, length), (int)length);
	CHECK_EQ(parse(bytes, length, &got), 0);
	CHECK_EQ(got.kind, XI_HELLO_CONNECT);
	CHECK_EQ(got.features, XI_FEATURE_MAP);
	CHECK_EQ(got.incarnation, 5);
	CHECK_EQ(got.session.secret, 2);
	CHECK_STR(got.service, "disk");
	CHECK_EQ(got.auth_len, 3);
	CHECK_EQ(got.budget.requests_out, h.budget.requests_out);
	CHECK_MEM(got.budget.out, h.budget.out, sizeof(h.budget.out));
	CHECK_MEM(got.budget.peer_in, h.budget.peer_in, sizeof(h.budget.peer_in));
}

static void test_other_kinds(void)
{
	struct xi_hello h = connect_hello(), got;
	uint8_t bytes[XI_HELLO_MAX];

	h.kind = XI_HELLO_ACCEPT;
	h.transport = (const uint8_t *)"region";
	h.transport_len = 6;
	CHECK_EQ(parse(bytes, xi_hello_put(bytes, &h), &got), 0);
	CHECK_EQ(got.transport_len, 6);
	h.kind = XI_HELLO_READY;
	CHECK_EQ(parse(bytes, xi_hello_put(bytes, &h), &got), 0);
	h.kind = XI_HELLO_REFUSE;
	h.reason = XENIDC_REASON_DENIED;
	strcpy(h.text, "not you");
	CHECK_EQ(parse(bytes, xi_hello_put(bytes, &h), &got), 0);
	CHECK_EQ(got.reason, XENIDC_REASON_DENIED);
	CHECK_STR(got.text, "not you");
}

/* The checksum covers every bit; a length in the head that changes leads elsewhere, but never to success. */
static void test_every_bit_flip(void)
{
	struct xi_hello h = connect_hello(), got;
	uint8_t bytes[XI_HELLO_MAX];
	uint32_t length = xi_hello_put(bytes, &h);

	for (uint32_t bit = 0; bit < length * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		CHECK_EQ(parse(bytes, length, &got), -EPROTO);
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	CHECK_EQ(parse(bytes, length, &got), 0);
}

static void test_every_truncation(void)
{
	struct xi_hello h = connect_hello(), got;
	uint8_t bytes[XI_HELLO_MAX];
	uint32_t length = xi_hello_put(bytes, &h);

	for (uint32_t cut = 0; cut < length; cut++) {
		CHECK_EQ(parse(bytes, cut, &got), -EPROTO);
		if (cut < XI_HELLO_HEAD)
			continue;
		uint8_t sealed[XI_HELLO_MAX];
		memcpy(sealed, bytes, cut);
		xi_hello_seal(sealed, cut); /* a liar computes the checksum too: some section is missing or cut */
		if (cut < length - 7)       /* without the last section's bytes; AUTH itself may be absent */
			CHECK(parse(sealed, cut, &got) == -EPROTO || got.auth_len == 0);
	}
}

static void test_unknown_section_is_skipped(void)
{
	struct xi_hello h = connect_hello(), got;
	uint8_t bytes[XI_HELLO_MAX];
	uint32_t length = xi_hello_put(bytes, &h);
	static const uint8_t more[] = { 0x21, 0x43, 3, 0, 'n', 'e', 'w' };

	memcpy(bytes + length, more, sizeof(more));
	xi_hello_seal(bytes, length + sizeof(more));
	CHECK_EQ(parse(bytes, length + sizeof(more), &got), 0);
	CHECK_STR(got.service, "disk");
}

static void test_section_twice(void)
{
	struct xi_hello h = connect_hello(), got;
	uint8_t bytes[XI_HELLO_MAX];
	uint32_t length = xi_hello_put(bytes, &h);
	static const uint8_t again[] = { XI_SECTION_SERVICE, 0, 1, 0, 'x' };

	memcpy(bytes + length, again, sizeof(again));
	xi_hello_seal(bytes, length + sizeof(again));
	CHECK_EQ(parse(bytes, length + sizeof(again), &got), -EPROTO);
}

/* A budget that no honest side would send. */
static void test_impossible_limits(void)
{
	struct xi_hello got;

	for (int i = 0; i < 6; i++) {
		struct xi_hello h = connect_hello();
		uint8_t bytes[XI_HELLO_MAX];
		switch (i) {
		case 0:
			h.budget.requests_in = XI_REQUESTS_MAX + 1;
			break;
		case 1:
			h.budget.payload = XI_PAYLOAD_MAX + 1;
			break;
		case 2:
			h.budget.refs = 0xffffffff;
			break;
		case 3:
			h.budget.out[0].size = XI_SLOT_SIZE_MAX + XI_PAGE;
			break;
		case 4:
			h.budget.in[0].size = 5000;
			break;
		default:
			h.budget.peer_out[1].size = h.budget.peer_out[0].size;
			break;
		}
		CHECK_EQ(parse(bytes, xi_hello_put(bytes, &h), &got), -EPROTO);
	}
}

static void test_other_major(void)
{
	struct xi_hello h = connect_hello(), got;
	uint8_t bytes[XI_HELLO_MAX];
	uint32_t length;

	h.major_min = h.major_max = XI_PROTOCOL_MAJOR + 1;
	length = xi_hello_put(bytes, &h);
	memset(bytes + XI_HELLO_HEAD, 0xee, length - XI_HELLO_HEAD); /* its sections may mean anything */
	xi_hello_seal(bytes, length);
	CHECK_EQ(parse(bytes, length, &got), 0);
	CHECK_EQ(got.major_min, XI_PROTOCOL_MAJOR + 1);
	h.major_min = XI_PROTOCOL_MAJOR + 2;
	CHECK_EQ(parse(bytes, xi_hello_put(bytes, &h), &got), -EPROTO);
}

static void test_length_from_head(void)
{
	struct xi_hello h = connect_hello();
	uint8_t bytes[XI_HELLO_MAX];
	uint32_t huge = XI_HELLO_MAX + 1;

	xi_hello_put(bytes, &h);
	for (size_t have = 0; have < 16; have++)
		CHECK_EQ(xi_hello_length(bytes, have), 0);
	memcpy(bytes + 12, &huge, 4);
	CHECK_EQ(xi_hello_length(bytes, 16), -EPROTO);
	CHECK_EQ(xi_hello_length((const uint8_t *)"GET / HTTP/1.1\r\n", 16), -EPROTO);
}

CHECK_MAIN(TEST(test_connect), TEST(test_other_kinds), TEST(test_every_bit_flip), TEST(test_every_truncation),
	   TEST(test_unknown_section_is_skipped), TEST(test_section_twice), TEST(test_impossible_limits),
	   TEST(test_other_major), TEST(test_length_from_head))
