/* SPDX-License-Identifier: MIT */
#include "tests/lib/check.h"
#include "xenidc-core/base/cursor.h"

static void test_integers(void)
{
	static const uint8_t want[15] = { 1, 3, 2, 7, 6, 5, 4, 15, 14, 13, 12, 11, 10, 9, 8 };
	uint8_t bytes[15];
	struct xi_writer w = xi_writer(bytes, sizeof(bytes));
	xi_put_u8(&w, 1);
	xi_put_u16(&w, 0x0203);
	xi_put_u32(&w, 0x04050607);
	xi_put_u64(&w, 0x08090a0b0c0d0e0f);
	CHECK(!w.bad);
	CHECK_EQ(xi_writer_used(&w), 15);
	CHECK_MEM(bytes, want, 15);
	struct xi_reader r = xi_reader(bytes, sizeof(bytes));
	CHECK_EQ(xi_get_u8(&r), 1);
	CHECK_EQ(xi_get_u16(&r), 0x0203);
	CHECK_EQ(xi_get_u32(&r), 0x04050607);
	CHECK_EQ(xi_get_u64(&r), 0x08090a0b0c0d0e0f);
	CHECK(!r.bad);
	CHECK_EQ(xi_reader_left(&r), 0);
}

/* What does not fit is not written or read in part, and from then on nothing is. */
static void test_bounds(void)
{
	uint8_t bytes[4] = { 0xaa, 0xaa, 0xaa, 0xaa };
	struct xi_writer w = xi_writer(bytes, 3);
	xi_put_u16(&w, 0x0102);
	xi_put_u16(&w, 0x0304);
	CHECK(w.bad);
	xi_put_u8(&w, 5);
	CHECK_EQ(xi_writer_used(&w), 2);
	CHECK_EQ(bytes[2], 0xaa);
	CHECK_EQ(bytes[3], 0xaa);

	struct xi_reader r = xi_reader(bytes, 3);
	CHECK_EQ(xi_get_u32(&r), 0);
	CHECK(r.bad);
	CHECK_EQ(xi_get_u8(&r), 0);
	CHECK(!xi_get_bytes(&r, 0));
	r = xi_reader(bytes, 0);
	CHECK(!r.bad);
	CHECK_EQ(xi_get_u8(&r), 0);
	CHECK(r.bad);
}

static void test_bytes(void)
{
	uint8_t bytes[8];
	struct xi_writer w = xi_writer(bytes, sizeof(bytes));
	xi_put_bytes(&w, NULL, 0);
	xi_put_bytes(&w, "abcdefgh", 8);
	CHECK(!w.bad);
	xi_put_bytes(&w, NULL, 0);
	CHECK(!w.bad);
	struct xi_reader r = xi_reader(bytes, sizeof(bytes));
	CHECK_MEM(xi_get_bytes(&r, 8), "abcdefgh", 8);
	CHECK(!xi_get_bytes(&r, SIZE_MAX));
	CHECK(r.bad);
}

static void round_trip(const char *text, size_t max, const char *want)
{
	uint8_t bytes[64];
	char back[64];
	struct xi_writer w = xi_writer(bytes, sizeof(bytes));
	xi_put_text(&w, text, max);
	CHECK(!w.bad);
	CHECK_EQ(xi_writer_used(&w), 2 + strlen(want));
	struct xi_reader r = xi_reader(bytes, xi_writer_used(&w));
	memset(back, 0x55, sizeof(back));
	xi_get_text(&r, back, max);
	CHECK(!r.bad);
	CHECK_STR(back, want);
	CHECK_EQ(back[strlen(want) + 1], 0x55);
}

static void test_text(void)
{
	round_trip("", 5, "");
	round_trip("four", 5, "four");
	round_trip("fives", 5, "fives");
	round_trip("sixsix", 5, "sixsi");
	round_trip("any", 0, "");
}

/* Text from a peer: too long, longer than what is there, cut in its length, or with a NUL inside. */
static void test_bad_text(void)
{
	static const struct {
		uint8_t bytes[8];
		size_t length;
	} rows[] = {
		{ { 6, 0, 'a', 'b', 'c', 'd', 'e', 'f' }, 8 },
		{ { 5, 0, 'a', 'b' }, 4 },
		{ { 1 }, 1 },
		{ { 3, 0, 'a', 0, 'b' }, 5 },
		{ { 0xff, 0xff, 'a' }, 3 },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char text[8] = "#######";
		struct xi_reader r = xi_reader(rows[i].bytes, rows[i].length);
		xi_get_text(&r, text, 5);
		CHECK(r.bad);
		CHECK_STR(text, "");
		CHECK_EQ(text[1], '#');
	}
}

static void test_printable(void)
{
	char all[256];
	for (int i = 0; i < 255; i++)
		all[i] = (char)(i + 1);
	all[255] = 0;
	xi_text_printable(all);
	for (int i = 0; i < 255; i++)
		CHECK_EQ(all[i], i + 1 >= 32 && i + 1 <= 126 ? i + 1 : '?');
}

CHECK_MAIN(TEST(test_integers), TEST(test_bounds), TEST(test_bytes), TEST(test_text), TEST(test_bad_text),
	   TEST(test_printable))
