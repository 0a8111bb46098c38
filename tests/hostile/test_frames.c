/* SPDX-License-Identifier: MIT */
/*
 * Frames with one thing wrong, in a state that is known: every bit flipped, every truncation, every length field at its
 * limits. What has to come of each is told by a model made from PROTOCOL.md. Over both kinds of transport, and with the
 * target as acceptor and as dialler.
 */
#include <stdio.h>
#include <string.h>

#include "model.h"
#include "tests/lib/check.h"

static struct target target;
static struct link l;
static unsigned attacks, refused, tolerated;

/* What came of an attack that was followed by a DISCONNECT in order. */
static enum verdict outcome(void)
{
	static struct raw_bytes last;

	target_over(&target);
	if (target.why.by_peer)
		return target.why.reason == XENIDC_REASON_CLOSED ? LEGAL : ENDS;
	link_drain(&l, &last);
	if (target.why.reason == XENIDC_REASON_LOST)
		return DAMAGED;
	CHECK_EQ(target.why.reason, XENIDC_REASON_PROTOCOL);
	/* The peer is told so, in the last frame. */
	CHECK_EQ(last.b[0], RAW_DISCONNECT);
	CHECK_EQ(raw_get16(last.b + RAW_HEADER + 4), XENIDC_REASON_PROTOCOL);
	return PROTOCOL;
}

static void begin(enum link_kind kind, bool accepts)
{
	link_open(&l, kind, &target, accepts);
	link_up(&l);
	model_prepare(&l);
}

/* `credit`: what the frame under test has confirmed; it is cumulative and never goes back. */
static void end(const char *what, unsigned detail, enum verdict wanted, uint16_t credit)
{
	static struct raw_bytes goodbye;
	enum verdict got;

	raw_disconnect(&goodbye, 0, XENIDC_REASON_CLOSED, "");
	raw_set16(&goodbye, 8, credit);
	link_send_frame(&l, &goodbye);
	got = outcome();
	/* A DISCONNECT that was tampered with may have said any reason, CLOSED included. */
	if (wanted == ENDS && got == LEGAL)
		got = ENDS;
	if (got != wanted)
		check_failed(__FILE__, __LINE__, "%s %u: %s, not %s (%s)", what, detail, verdict_name(got),
			     verdict_name(wanted), target.why.text);
	link_close(&l);
	attacks++;
	if (wanted == PROTOCOL || wanted == DAMAGED)
		refused++;
	else
		tolerated++;
	if (attacks % 64 == 0) {
		target_good(&target);
		target_clean(&target);
	}
}

/* --- The frame itself; on streams its checksum is right */

static void attack(const char *what, unsigned detail, const struct raw_bytes *frame, enum link_kind kind, bool accepts)
{
	static struct raw_bytes seen;

	begin(kind, accepts);
	link_send_frame(&l, frame);
	seen = *frame;
	/* In a ring a frame is as long as its header says; behind what we wrote stands what was there before: zeros. */
	if (kind == LINK_SHM) {
		uint32_t length = RAW_HEADER + raw_get16(frame->b + 2);
		if (length > seen.n)
			raw_fill(&seen, 0, length - seen.n);
		seen.n = length;
	}
	end(what, detail, model_judge(&l, &seen), seen.n >= RAW_HEADER ? raw_get16(seen.b + 8) : 0);
}

static bool base(unsigned i, enum link_kind kind, bool accepts, struct raw_bytes *frame, const char **ret_name)
{
	/* The id of the target's request is the same on each connection. */
	l.request_id = RAW_ID(0, 1);
	l.limits = raw_usual;
	(void)kind;
	(void)accepts;
	return model_base(&l, i, frame, ret_name);
}

static void unharmed(enum link_kind kind, bool accepts)
{
	static struct raw_bytes frame;
	const char *name;

	for (unsigned i = 0; base(i, kind, accepts, &frame, &name); i++) {
		CHECK(model_judge(&l, &frame) != PROTOCOL);
		attack(name, 0, &frame, kind, accepts);
		CHECK_EQ(l.request_id, RAW_ID(0, 1));
	}
}

static void flip_bits(enum link_kind kind, bool accepts)
{
	static struct raw_bytes frame;
	const char *name;

	for (unsigned i = 0; base(i, kind, accepts, &frame, &name); i++)
		for (unsigned bit = 0; bit < frame.n * 8; bit++) {
			frame.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
			attack(name, bit, &frame, kind, accepts);
			frame.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
}

/* Cut at every byte; with `len` of the header as it was, and set to what is left. */
static void truncate_frames(enum link_kind kind, bool accepts)
{
	static struct raw_bytes frame;
	const char *name;

	for (unsigned i = 0; base(i, kind, accepts, &frame, &name); i++) {
		unsigned whole = frame.n;
		for (unsigned n = RAW_HEADER; n < whole; n++) {
			frame.n = n;
			raw_set_len(&frame);
			attack(name, n, &frame, kind, accepts);
		}
	}
}

static const uint32_t limits_of_lengths[] = { 0,        RAW_HEADER - 1, RAW_PAYLOAD, RAW_PAYLOAD + 1,
					      RAW_SLOT, RAW_SLOT + 1,   0x7fff,      0x8000,
					      0xffff,   0x7fffffff,     0x80000000,  0xffffffff };
#define LENGTHS (sizeof(limits_of_lengths) / sizeof(limits_of_lengths[0]))

/* Where lengths, counts and indices stand in the frames of model_base(): offset and width. */
static const struct {
	unsigned base, at, width;
} length_fields[] = {
	{ 0, 2, 2 },  { 0, 4, 2 },  { 0, 6, 2 },  { 0, 10, 1 }, { 0, 12, 4 }, /* REQUEST: len, id, nrefs, sequence */
	{ 0, 16, 2 }, { 0, 20, 4 }, { 0, 24, 4 },               /* its first reference: slot, offset, length */
	{ 0, 28, 2 }, { 0, 32, 4 }, { 0, 36, 4 },               /* its second */
	{ 1, 2, 2 },  { 1, 4, 4 },  { 1, 10, 1 }, { 1, 16, 4 }, /* REPLY: len, id, nrefs, valid */
	{ 2, 2, 2 },  { 2, 10, 1 },                             /* NOT_EXECUTED */
	{ 3, 2, 2 },  { 3, 8, 2 },                              /* MESSAGE: len, credit */
	{ 4, 2, 2 },  { 4, 4, 4 },                              /* CANCEL: len, id */
	{ 5, 8, 2 },                                            /* CREDIT */
	{ 6, 12, 4 },                                           /* PING */
	{ 7, 2, 2 },  { 7, 18, 2 },                             /* DISCONNECT: len, length of the text */
};

static void set_field(struct raw_bytes *frame, unsigned at, unsigned width, uint32_t value)
{
	for (unsigned i = 0; i < width; i++)
		frame->b[at + i] = (uint8_t)(value >> 8 * i);
}

static void set_lengths(enum link_kind kind, bool accepts)
{
	static struct raw_bytes frame;
	const char *name;

	for (unsigned f = 0; f < sizeof(length_fields) / sizeof(length_fields[0]); f++)
		for (unsigned v = 0; v < LENGTHS; v++) {
			CHECK(base(length_fields[f].base, kind, accepts, &frame, &name));
			set_field(&frame, length_fields[f].at, length_fields[f].width, limits_of_lengths[v]);
			attack(name, f * 100 + v, &frame, kind, accepts);
		}
}

/* Frames that are as large as they say, around what was negotiated. */
static void set_sizes(enum link_kind kind, bool accepts)
{
	uint32_t most = raw_layout(&raw_usual).frame_max - RAW_HEADER;
	static struct raw_bytes frame;

	l.limits = raw_usual;
	l.request_id = RAW_ID(0, 1);
	for (uint32_t n = RAW_PAYLOAD - 1; n <= RAW_PAYLOAD + 1; n++) {
		raw_request(&frame, RAW_ID(1, 1), 2, NULL, 0, n);
		attack("payload of a REQUEST", n, &frame, kind, accepts);
		raw_reply(&frame, l.request_id, &(uint32_t){ 0 }, 1, n);
		attack("payload of a REPLY", n, &frame, kind, accepts);
		raw_message(&frame, n);
		attack("payload of a MESSAGE", n, &frame, kind, accepts);
	}
	for (uint32_t n = most - 1; n <= most + 1; n++) {
		raw_message(&frame, n);
		attack("a MESSAGE about as large as the largest frame", n, &frame, kind, accepts);
	}
}

static void all(enum link_kind kind, bool accepts)
{
	unharmed(kind, accepts);
	set_lengths(kind, accepts);
	set_sizes(kind, accepts);
	truncate_frames(kind, accepts);
	flip_bits(kind, accepts);
}

static void run(enum link_kind kind, bool accepts)
{
	attacks = refused = tolerated = 0;
	target_start(&target, kind == LINK_TCP ? "tcp" : "shm");
	all(kind, accepts);
	target_stop(&target);
	printf("%s, the target %s: %u frames, %u refused, %u legal all the same\n", kind == LINK_TCP ? "tcp" : "shm",
	       accepts ? "dialled" : "listened", attacks, refused, tolerated);
}

static void test_tcp_listening(void)
{
	run(LINK_TCP, false);
}

static void test_tcp_dialling(void)
{
	run(LINK_TCP, true);
}

static void test_shm_listening(void)
{
	run(LINK_SHM, false);
}

static void test_shm_dialling(void)
{
	run(LINK_SHM, true);
}

CHECK_MAIN(TEST(test_tcp_listening), TEST(test_tcp_dialling), TEST(test_shm_listening), TEST(test_shm_dialling))
