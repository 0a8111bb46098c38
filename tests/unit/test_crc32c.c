/* SPDX-License-Identifier: MIT */
#include "tests/lib/check.h"
#include "xenidc-core/base/crc32c.h"

#include <string.h>

/* The examples of RFC 3720, B.4, and the check value of the catalogues. */
static void test_known(void)
{
	uint8_t bytes[32];
	CHECK_EQ(xi_crc32c(0, "123456789", 9), 0xe3069283u);
	CHECK_EQ(xi_crc32c(0, "", 0), 0);
	memset(bytes, 0, 32);
	CHECK_EQ(xi_crc32c(0, bytes, 32), 0x8a9136aau);
	memset(bytes, 0xff, 32);
	CHECK_EQ(xi_crc32c(0, bytes, 32), 0x62a8ab43u);
	for (int i = 0; i < 32; i++)
		bytes[i] = (uint8_t)i;
	CHECK_EQ(xi_crc32c(0, bytes, 32), 0x46dd794eu);
	for (int i = 0; i < 32; i++)
		bytes[i] = (uint8_t)(31 - i);
	CHECK_EQ(xi_crc32c(0, bytes, 32), 0x113fdb5cu);
}

/* Bit by bit, as the definition has it. */
static uint32_t slowly(uint32_t crc, const uint8_t *p, size_t length)
{
	crc = ~crc;
	for (; length; p++, length--) {
		crc ^= *p;
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static uint8_t noise[40000];

static void fill_noise(void)
{
	uint32_t x = 12345;
	for (size_t i = 0; i < sizeof(noise); i++) {
		x = x * 1103515245 + 12345;
		noise[i] = (uint8_t)(x >> 16);
	}
}

/* All lengths around the steps of each way, at all alignments. */
static void test_same(void)
{
	static const size_t long_ones[] = { 1023, 1024, 1025, 3071, 3072, 3073, 4096, 12287, 12288, 24577, 39000 };
	fill_noise();
	for (size_t length = 0; length < 300; length++)
		for (size_t at = 0; at < 9; at++) {
			uint32_t want = slowly(0xdeadbeef, noise + at, length);
			CHECK_EQ(xi_crc32c(0xdeadbeef, noise + at, length), want);
			CHECK_EQ(xi_crc32c_by_table(0xdeadbeef, noise + at, length), want);
		}
	for (size_t i = 0; i < sizeof(long_ones) / sizeof(long_ones[0]); i++)
		for (size_t at = 0; at < 9; at++) {
			uint32_t want = slowly(7, noise + at, long_ones[i]);
			CHECK_EQ(xi_crc32c(7, noise + at, long_ones[i]), want);
			CHECK_EQ(xi_crc32c_by_table(7, noise + at, long_ones[i]), want);
		}
}

/* In pieces it is the same as in one. */
static void test_pieces(void)
{
	fill_noise();
	uint32_t whole = xi_crc32c(0, noise, sizeof(noise));
	for (size_t cut = 0; cut <= sizeof(noise); cut += 997) {
		uint32_t crc = xi_crc32c(0, noise, cut);
		CHECK_EQ(xi_crc32c(crc, noise + cut, sizeof(noise) - cut), whole);
	}
}

CHECK_MAIN(TEST(test_known), TEST(test_same), TEST(test_pieces))
