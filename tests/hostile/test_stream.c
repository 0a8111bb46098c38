/* SPDX-License-Identifier: MIT */
/*
 * What only byte streams have: prefixes, checksums, DATA frames, and bytes that may be cut and joined anyhow.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "model.h"
#include "tests/lib/check.h"

static struct target target;
static struct link l;
static unsigned attacks;

static void begin(void)
{
	link_open(&l, LINK_TCP, &target, attacks & 1);
	link_up(&l);
	model_prepare(&l);
}

static void over(const char *what, unsigned detail, bool damaged_allowed)
{
	static struct raw_bytes last;
	enum xenidc_reason reason;

	/* What waits for more bytes gets none. */
	shutdown(l.fd, SHUT_WR);
	target_over(&target);
	link_drain(&l, &last);
	reason = target.why.reason;
	if (target.why.by_peer ||
	    (reason != XENIDC_REASON_PROTOCOL && (reason != XENIDC_REASON_LOST || !damaged_allowed)))
		check_failed(__FILE__, __LINE__, "%s %u: it ended as %s (%s)", what, detail, xenidc_reason_name(reason),
			     target.why.text);
	link_close(&l);
	if (++attacks % 64 == 0) {
		target_good(&target);
		target_clean(&target);
	}
}

/* --- Prefixes and checksums */

/* Every bit of every frame on the wire, checksums as they were: none gets through. */
static void flip_bits(void)
{
	static struct raw_bytes frame, wire;
	const char *name;

	l.request_id = RAW_ID(0, 1);
	for (unsigned i = 0; model_base(&l, i, &frame, &name); i++) {
		wire.n = 0;
		raw_wrap(&wire, &frame, false);
		for (unsigned bit = 0; bit < wire.n * 8; bit++) {
			begin();
			wire.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
			link_send_bytes(&l, wire.b, wire.n);
			wire.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
			over(name, bit, true);
		}
	}
}

static const uint32_t lengths[] = {
	0,          RAW_HEADER - 1, RAW_HEADER + 1, RAW_DATA_HEAD,         192,
	193,        65535,          65536,          RAW_DATA_HEAD + 65536, RAW_DATA_HEAD + 65537,
	0x7fffffff, 0x80000000,     0xfffffff3, /* with the prefix it wraps to 0 */
	0xfffffff4, 0xffffffff
};

/* The prefix says any length; its checksum is that of what it says, as far as there are bytes. */
static void prefix_lengths(void)
{
	static struct raw_bytes frame, wire;

	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		begin();
		raw_ping(&frame, 2);
		wire.n = 0;
		raw_wrap(&wire, &frame, false);
		raw_set32(&wire, 0, lengths[i]);
		raw_wrap_seal(&wire, 0);
		link_send_bytes(&l, wire.b, wire.n);
		over("length in the prefix", lengths[i], false);
	}
}

/* A digest where none was agreed on; on a frame without data, and on DATA. */
static void digests(void)
{
	static struct raw_bytes frame, wire;
	static const struct raw_ref out = { 1, 0, 40 };

	for (int data = 0; data < 2; data++) {
		begin();
		raw_request(&frame, RAW_ID(1, 1), 2, &out, 1, 0);
		link_send_frame(&l, &frame);
		if (data)
			raw_data(&frame, RAW_ID(1, 1), 1, 0, 40);
		else
			raw_ping(&frame, 1);
		wire.n = 0;
		raw_wrap(&wire, &frame, false);
		raw_set32(&wire, 8, 0x12345678);
		raw_wrap_seal(&wire, 0);
		link_send_bytes(&l, wire.b, wire.n);
		over("a digest", (unsigned)data, false);
	}
}

/* --- DATA: a request has announced bytes 8 to 47 of slot 1; our slot 0 is lent and complete */

static const struct {
	const char *what;
	uint32_t slot, offset, length;
} bad_data[] = {
	{ "for a slot that is not lent", 2, 0, 40 },
	{ "for a slot that does not exist", 4, 0, 40 },
	{ "for slot 2^31", 0x80000000, 0, 40 },
	{ "for slot 2^32-1", 0xffffffff, 0, 40 },
	{ "for a slot that is complete", 0, 0, 40 },
	{ "behind a complete slot", 0, 64, 1 },
	{ "before the reference", 1, 0, 40 },
	{ "one too early", 1, 7, 40 },
	{ "with a gap", 1, 9, 39 },
	{ "one too many", 1, 8, 41 },
	{ "a whole piece too many", 1, 8, 65536 },
	{ "at offset 2^31", 1, 0x80000000, 1 },
	{ "at an offset that wraps", 1, 0xfffffff8, 48 },
	{ "no data", 1, 8, 0 },
};

static void data_frames(void)
{
	static const struct raw_ref out = { 1, 8, 40 };
	static struct raw_bytes frame;

	for (unsigned i = 0; i < sizeof(bad_data) / sizeof(bad_data[0]); i++) {
		begin();
		raw_request(&frame, RAW_ID(1, 1), 2, &out, 1, 0);
		link_send_frame(&l, &frame);
		raw_data(&frame, RAW_ID(1, 1), bad_data[i].slot, bad_data[i].offset, bad_data[i].length);
		link_send_frame(&l, &frame);
		over(bad_data[i].what, i, false);
		CHECK_EQ(target.requests, 1);
	}
	/* Twice the same; more after the end; and for a request that was cancelled. */
	for (int how = 0; how < 3; how++) {
		begin();
		raw_request(&frame, RAW_ID(1, 1), 2, &out, 1, 0);
		link_send_frame(&l, &frame);
		raw_data(&frame, RAW_ID(1, 1), 1, 8, how == 1 ? 40 : 20);
		link_send_frame(&l, &frame);
		if (how == 2) {
			raw_cancel(&frame, RAW_ID(1, 1));
			link_send_frame(&l, &frame);
		}
		raw_data(&frame, RAW_ID(1, 1), 1, how == 0 ? 8 : how == 1 ? 48 : 28, 20);
		link_send_frame(&l, &frame);
		over("more data", (unsigned)how, false);
	}
	/* Answers that nobody waits for: the reply has not come, or its data have. */
	for (int how = 0; how < 2; how++) {
		begin();
		if (how) {
			raw_reply(&frame, l.request_id, &(uint32_t){ 50 }, 1, 0);
			link_send_frame(&l, &frame);
		}
		for (int twice = 0; twice <= how; twice++) {
			raw_data(&frame, l.request_id, l.answer_slot, 16, 50);
			link_send_frame(&l, &frame);
		}
		over("answers", (unsigned)how, false);
	}
}

/* The header of a DATA frame: every bit, with and without the checksum set right. Kind, flags and `len` are fixed; the
 * tag, and four bytes that mean nothing, are not looked at. */
static void flip_data(bool sealed)
{
	static const struct raw_ref out = { 1, 8, 40 };
	static struct raw_bytes request, frame, wire, goodbye;

	raw_request(&request, RAW_ID(1, 1), 2, &out, 1, 0);
	raw_data(&frame, RAW_ID(1, 1), 1, 8, 40);
	raw_disconnect(&goodbye, 0, XENIDC_REASON_CLOSED, "");
	for (unsigned bit = 0; bit < (RAW_PREFIX + RAW_DATA_HEAD) * 8; bit++) {
		unsigned at = bit / 8 - RAW_PREFIX;
		bool ignored = sealed && bit / 8 >= RAW_PREFIX && at >= 4 && at < 12;
		bool own_seal = sealed && bit / 8 >= 4 && bit / 8 < 8; /* the checksum is made again */

		begin();
		wire.n = 0;
		raw_wrap(&wire, &frame, false);
		wire.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (sealed)
			raw_wrap_seal(&wire, 0);
		link_send_frame(&l, &request);
		link_send_bytes(&l, wire.b, wire.n);
		if (!ignored && !own_seal) {
			over(sealed ? "a bit of DATA, sealed" : "a bit of DATA", bit, true);
			continue;
		}
		link_send_frame(&l, &goodbye);
		target_over(&target);
		if (!target.why.by_peer)
			check_failed(__FILE__, __LINE__, "bit %u: %s", bit, target.why.text);
		CHECK_EQ(target.requests, 2);
		link_close(&l);
	}
}

/* --- Cut and joined */

/* A slot in pieces, some of them alike, some not, others' frames between. */
static void put_pieces(struct raw_bytes *to)
{
	static const uint32_t pieces[] = { 200, 200, 200, 200, 0, 300, 300, 1, 1, 1, 0, 1000, 1597 };
	static struct raw_bytes f;
	uint32_t at = 0;

	for (unsigned i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		if (pieces[i])
			raw_data(&f, RAW_ID(1, 1), 1, 8 + at, pieces[i]);
		else
			raw_ping(&f, 1);
		raw_wrap(to, &f, false);
		at += pieces[i];
	}
	CHECK_EQ(at, 4000);
}

/* A conversation in which everything occurs, as bytes; sent after the connect. */
static void conversation(struct raw_bytes *to)
{
	static const struct raw_ref refs[2] = { { 1, 8, 4000 }, { RAW_IN | 1, 0, 50 } };
	static struct raw_bytes f;

	to->n = 0;
	raw_message(&f, 9);
	raw_wrap(to, &f, false);
	raw_request(&f, RAW_ID(1, 1), 2, refs, 2, 16);
	raw_wrap(to, &f, false);
	raw_reply(&f, l.request_id, &(uint32_t){ 100 }, 1, 5);
	raw_wrap(to, &f, false);
	put_pieces(to);
	raw_data(&f, l.request_id, l.answer_slot, 16, 100);
	raw_wrap(to, &f, false);
	raw_message(&f, 0);
	raw_wrap(to, &f, false);
	raw_disconnect(&f, 0, XENIDC_REASON_CLOSED, "");
	raw_wrap(to, &f, false);
}

static void check_conversation(void)
{
	target_over(&target);
	if (!target.why.by_peer)
		check_failed(__FILE__, __LINE__, "%s", target.why.text);
	CHECK_EQ(target.messages, 2);
	CHECK_EQ(target.requests, 2);
	CHECK_EQ(target.ended[XENIDC_REPLIED], 1);
	CHECK_EQ(target.in_valid, 100);
	link_close(&l);
	attacks++;
}

/* Every byte, but in the middle of long data. */
static uint32_t next_cut(uint32_t cut)
{
	return cut < 1500 ? cut + 1 : cut + 7;
}

/* Two pieces, cut at every byte; then byte by byte; then at once. */
static void cuts(void)
{
	static struct raw_bytes bytes;
	uint32_t whole = 1;

	for (uint32_t cut = 0; cut <= whole; cut = next_cut(cut)) {
		begin();
		conversation(&bytes);
		whole = bytes.n;
		link_send_bytes(&l, bytes.b, cut);
		for (int i = 0; i < 3; i++)
			target_turn(&target);
		link_send_bytes(&l, bytes.b + cut, whole - cut);
		check_conversation();
	}
	begin();
	for (uint32_t i = 0; i < whole; i++) {
		link_send_bytes(&l, bytes.b + i, 1);
		target_turn(&target);
	}
	check_conversation();
}

/* The stream ends at every byte: LOST, and nothing is left. */
static void truncations(void)
{
	static struct raw_bytes bytes, last;
	uint32_t whole = 2;

	for (uint32_t cut = 0; cut + 1 < whole; cut = next_cut(cut)) {
		begin();
		conversation(&bytes);
		whole = bytes.n;
		link_send_bytes(&l, bytes.b, cut);
		shutdown(l.fd, SHUT_WR);
		target_ended(&target, XENIDC_REASON_LOST);
		CHECK(target.messages <= 2 && target.requests <= 2);
		link_drain(&l, &last);
		link_close(&l);
		if (++attacks % 64 == 0)
			target_clean(&target);
	}
}

/* Ten thousand frames in one go. */
static void coalesced(void)
{
	static struct raw_bytes frame, bytes, goodbye;

	begin();
	raw_ping(&frame, 1);
	bytes.n = 0;
	for (int i = 0; i < 1000; i++)
		raw_wrap(&bytes, &frame, false);
	for (int i = 0; i < 10; i++)
		link_send_bytes(&l, bytes.b, bytes.n);
	raw_disconnect(&goodbye, 0, XENIDC_REASON_CLOSED, "");
	link_send_frame(&l, &goodbye);
	target_over(&target);
	CHECK(target.why.by_peer);
	link_close(&l);
}

/* --- */

static void run(void (*what)(void), const char *name)
{
	attacks = 0;
	target_start(&target, "tcp");
	target.ascending = true;
	what();
	target_stop(&target);
	printf("%s: %u\n", name, attacks);
}

static void flip_data_plain(void)
{
	flip_data(false);
}

static void flip_data_sealed(void)
{
	flip_data(true);
}

static void test_flipped_bits(void)
{
	run(flip_bits, "bits of frames on the wire");
	run(flip_data_plain, "bits of DATA on the wire");
	run(flip_data_sealed, "bits of DATA with the right checksum");
}

static void test_prefixes(void)
{
	run(prefix_lengths, "lengths in the prefix");
	run(digests, "digests");
}

static void test_data(void)
{
	run(data_frames, "DATA that nobody expects");
}

static void test_cuts(void)
{
	run(cuts, "pieces");
	run(truncations, "ends of the stream");
	run(coalesced, "ten thousand frames at once");
}

CHECK_MAIN(TEST(test_flipped_bits), TEST(test_prefixes), TEST(test_data), TEST(test_cuts))
