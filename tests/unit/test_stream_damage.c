/* SPDX-License-Identifier: MIT */
/* The byte-stream engine: what was damaged on the way, cut off, or never valid. */
#include "stream_pair.h"

#include "transport-net/stream_parts.h"

/* What a side sends for some frames and pieces of data. */
static size_t sample(uint8_t *to, uint32_t flags)
{
	struct xi_seg segs[2] = { { .slot = 0, .offset = 3, .length = 40 }, { .slot = 5, .offset = 100, .length = 7 } };
	size_t n;

	open_pair(PIPE_BYTES, flags);
	commit_plain(a, XI_FRAME_PING, 0);
	commit(a, XI_FRAME_REQUEST, 0x10002, segs, 2, 5);
	commit(a, XI_FRAME_MESSAGE, 0, NULL, 0, 30);
	xi_stream_flush(&conn_a);
	commit_plain(a, XI_FRAME_CANCEL, 0x10002);
	xi_stream_flush(&conn_a);
	n = ab.in;
	memcpy(to, ab.bytes, n);
	run();
	CHECK_EQ(b->lost, 0);
	CHECK_EQ(b->logged, 6);
	close_pair();
	return n;
}

/* Let a side of its own receive these bytes, then the end. It is b. */
static void feed(const uint8_t *bytes, size_t n, uint32_t flags)
{
	open_pipe(&ab, PIPE_BYTES);
	open_pipe(&ba, PIPE_BYTES);
	b = open_side(&conn_b, &ba, &ab);
	xi_stream_start(&b->stream, &conn_b, &pipe_ops);
	reserve_side(b, flags);
	import_side(b);
	memcpy(ab.bytes, bytes, n);
	ab.in = n;
	ab.shut = true;
	run();
	CHECK_EQ(b->lost, 1);
}

static void flip_all(uint32_t flags)
{
	static uint8_t good[4096], bad[4096];
	unsigned unnoticed = 0;

	big_slot = 8192;
	size_t n = sample(good, flags);

	for (size_t bit = 0; bit < n * 8; bit++) {
		memcpy(bad, good, n);
		bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
		feed(bad, n, flags);
		if (b->overs) { /* nothing was noticed up to the end: only data without a digest may change */
			unnoticed += b->logged == 6;
			CHECK(b->logged == 6 || b->logged < 6);
		} else {
			CHECK(b->reason == XENIDC_REASON_LOST || b->reason == XENIDC_REASON_PROTOCOL);
			CHECK_OP(b->logged, <, 6);
		}
		close_side(&b);
	}
	CHECK_EQ(unnoticed, flags ? 0 : (40 + 7) * 8);
	big_slot = 1u << 20;
}

static void test_every_bit_flip(void)
{
	flip_all(0);
	flip_all(XI_RESERVE_DIGEST);
}

/* A stream of much data, where several DATA frames are received at a time. */
static size_t sample_bulk(uint8_t *to)
{
	struct xi_seg seg = { .slot = 4, .length = 1u << 20 };
	size_t n;

	open_pair(PIPE_BYTES, XI_RESERVE_DIGEST);
	for (uint32_t i = 1; i <= 2; i++) {
		commit(a, XI_FRAME_REQUEST, i, &seg, 1, 0);
		commit(a, XI_FRAME_MESSAGE, 0, NULL, 0, 30);
		xi_stream_flush(&conn_a);
	}
	n = ab.in;
	memcpy(to, ab.bytes, n);
	close_pair();
	return n;
}

static void test_flips_among_guesses(void)
{
	uint8_t *good = malloc(PIPE_BYTES), *bad = malloc(PIPE_BYTES);

	CHECK(good && bad);
	size_t n = sample_bulk(good);
	for (int i = 0; i < 200; i++) {
		/* Half of them in a head: those lie 65568 bytes apart. */
		size_t at = i % 2 ? rnd((uint32_t)n) : 36 + 54 + (size_t)rnd(16) * (65536 + 32) + rnd(44);
		memcpy(bad, good, n);
		bad[at] ^= (uint8_t)(1u << rnd(8));
		feed(bad, n, XI_RESERVE_DIGEST);
		CHECK_EQ(b->overs, 0);
		close_side(&b);
	}
	free(good);
	free(bad);
}

static void test_every_truncation(void)
{
	static uint8_t good[4096];
	unsigned before = 0;

	big_slot = 8192;
	size_t n = sample(good, 0);

	for (size_t cut = 0; cut < n; cut++) {
		feed(good, cut, 0);
		CHECK_EQ(b->overs, 1);
		CHECK_OP(b->logged, >=, before);
		CHECK_OP(b->logged, <, 6);
		before = b->logged;
		close_side(&b);
	}
	CHECK_EQ(before, 5);
	big_slot = 1u << 20;
}

static void test_digest_says_so(void)
{
	static uint8_t good[4096];
	size_t n = sample(good, XI_RESERVE_DIGEST);
	const uint8_t *at = good;

	/* The first byte of the first piece of data. */
	while (at[XI_STREAM_PREFIX] != XI_FRAME_DATA) {
		uint32_t length;
		memcpy(&length, at, 4);
		at += XI_STREAM_PREFIX + length;
		CHECK(at < good + n);
	}
	good[at - good + XI_STREAM_PREFIX + XI_STREAM_DATA] ^= 1;
	feed(good, n, XI_RESERVE_DIGEST);
	CHECK_EQ(b->reason, XENIDC_REASON_LOST);
	CHECK_EQ(b->code, -EBADMSG);
	CHECK_HAS(b->text, "data were damaged on the way");
	close_side(&b);
}

/* Everything right with a DATA frame but one field, the checksum included. */
static void feed_data(uint8_t flags, uint8_t body, uint32_t slot, uint32_t digest)
{
	uint8_t bytes[XI_STREAM_PREFIX + XI_STREAM_DATA + 4] = { 0 };
	uint8_t *frame = bytes + XI_STREAM_PREFIX;
	uint32_t length = XI_STREAM_DATA + 4, crc;

	frame[0] = XI_FRAME_DATA;
	frame[1] = flags;
	frame[2] = body;
	memcpy(frame + XI_STREAM_HEADER, &slot, 4);
	crc = xi_stream_crc(length, digest, frame, XI_STREAM_DATA);
	memcpy(bytes, &length, 4);
	memcpy(bytes + 4, &crc, 4);
	memcpy(bytes + 8, &digest, 4);
	feed(bytes, sizeof(bytes), 0);
	CHECK_EQ(b->reason, XENIDC_REASON_PROTOCOL);
	CHECK_EQ(b->logged, 0);
}

static void test_impossible_data(void)
{
	static const struct {
		uint32_t flags, body, slot, digest;
		const char *says;
	} cases[] = {
		{ 1, 8, 0, 0, "flags that do not exist" },      { 0, 9, 0, 0, "does not fit its kind" },
		{ 0, 8, SLOTS, 0, "slot that does not exist" }, { 0, 8, UINT32_MAX, 0, "slot that does not exist" },
		{ 0, 8, 0, 1, "none was agreed on" },           { 0, 8, 0, 0, "unexpected data" },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		feed_data((uint8_t)cases[i].flags, (uint8_t)cases[i].body, cases[i].slot, cases[i].digest);
		CHECK_HAS(b->text, cases[i].says);
		close_side(&b);
	}
}

static void test_impossible_lengths(void)
{
	static const uint32_t lengths[] = { 0,     1,     11,    13,         2000,        20480,       65555,
					    65556, 65557, 65568, 0x7fffffff, 0x80000000u, 0xfffffff4u, 0xffffffffu };

	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		uint8_t bytes[64] = { 0 };
		memcpy(bytes, &lengths[i], 4);
		bytes[XI_STREAM_PREFIX] = XI_FRAME_PING;
		feed(bytes, sizeof(bytes), 0);
		CHECK_EQ(b->reason, XENIDC_REASON_PROTOCOL);
		CHECK_EQ(b->logged, 0);
		close_side(&b);
	}
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		TEST(test_every_bit_flip), TEST(test_flips_among_guesses), TEST(test_every_truncation),
		TEST(test_digest_says_so), TEST(test_impossible_data),     TEST(test_impossible_lengths),
	};

	return stream_pair_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
