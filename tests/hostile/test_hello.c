/* SPDX-License-Identifier: MIT */
/*
 * Connect messages with something wrong. What their checksum does not cover does not exist, so that damage is always
 * noticed; what somebody made wrong on purpose, checksum included, has to be refused by its meaning, or be harmless.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "link.h"
#include "shm_side.h"
#include "tests/lib/check.h"

static struct target target;
static struct link l;
static enum link_kind kind;
static unsigned attacks, connected, refused;

/* Which message is tampered with: that decides who the target is. */
enum stage { STAGE_CONNECT, STAGE_READY, STAGE_ACCEPT, STAGES };
static const char *const stage_names[STAGES] = { "CONNECT", "READY", "ACCEPT" };

enum fate {
	REFUSED,      /* never connected */
	REFUSED_SAID, /* and the target said so, with REFUSE */
	CONNECTED,
	ANY,
};

/* Come to where the message of this stage is due; `hello` gets a good one. */
static void begin(enum stage stage, struct raw_bytes *hello)
{
	static struct raw_bytes theirs;
	uint8_t region[512];
	uint32_t length = 0;

	link_open(&l, kind, &target, stage == STAGE_ACCEPT);
	if (stage == STAGE_READY) {
		raw_connect(hello, &l.limits);
		link_send_hello(&l, hello);
	}
	if (stage != STAGE_CONNECT)
		CHECK(link_recv_hello(&l, &theirs));
	if (kind == LINK_SHM && stage != STAGE_CONNECT)
		length = shm_export(&l, region);
	if (stage == STAGE_CONNECT)
		raw_connect(hello, &l.limits);
	else if (stage == STAGE_READY)
		raw_ready(hello, region, length);
	else
		raw_accept(hello, &l.limits, region, length);
}

/* Turn until the target has hung up, or is connected. What it says meanwhile: was it a REFUSE? */
static bool wait_for_fate(enum stage stage)
{
	static struct raw_bytes theirs;
	bool said = false;

	if (kind == LINK_TCP)
		shutdown(l.fd, SHUT_WR);
	if (stage != STAGE_READY)
		while (link_recv_hello(&l, &theirs)) {
			said = said || theirs.b[4] == RAW_REFUSE;
			/* ACCEPT: now it waits for READY; READY: it is connected. */
			if (theirs.b[4] != RAW_REFUSE)
				return false;
		}
	return said;
}

static void end(enum stage stage, const char *what, unsigned detail, enum fate wanted)
{
	uint64_t limit = check_now() + (uint64_t)3000000000u * check_factor();
	bool said = wait_for_fate(stage);
	enum fate got;

	/* Whatever it is waiting for, it gets the end of the connection. */
	link_close(&l);
	/* Half-open ones have no channel; their objects are gone in time. */
	while (target.channel && !target.idle) {
		CHECK(check_now() < limit);
		target_turn(&target);
	}
	got = target.channel && target.connected ? CONNECTED : said ? REFUSED_SAID : REFUSED;
	if (target.channel)
		target_over(&target);
	else
		target_clean(&target);
	if (wanted == REFUSED && got == REFUSED_SAID)
		got = REFUSED;
	if (wanted != ANY && got != wanted)
		check_failed(__FILE__, __LINE__, "%s: %s %u: fate %d, not %d (%s)", stage_names[stage], what, detail,
			     got, wanted, target.why.text);
	attacks++;
	connected += got == CONNECTED;
	refused += got != CONNECTED;
	target.connected = false;
	if (attacks % 64 == 0) {
		target_good(&target);
		target_clean(&target);
	}
}

/* --- Damage: the checksum is as it was */

static void flip_bits(enum stage stage)
{
	static struct raw_bytes hello;
	unsigned bits = 8;

	for (unsigned bit = 0; bit < bits; bit++) {
		begin(stage, &hello);
		bits = hello.n * 8;
		hello.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		link_send_hello(&l, &hello);
		end(stage, "a bit flipped", bit, REFUSED);
	}
}

static void truncate(enum stage stage)
{
	static struct raw_bytes hello;
	unsigned whole = 1;

	for (unsigned n = 0; n < whole; n++) {
		begin(stage, &hello);
		whole = hello.n;
		hello.n = n;
		if (n || kind == LINK_TCP)
			link_send_hello(&l, &hello);
		end(stage, "cut", n, REFUSED);
	}
}

/* --- Malice: the checksum is right */

/* A bit anywhere but in magic, length and checksum: anything may come of it, but nothing bad. */
static void flip_sealed(enum stage stage)
{
	static struct raw_bytes hello;
	unsigned bits = 8;

	for (unsigned bit = 0; bit < bits; bit++) {
		begin(stage, &hello);
		bits = hello.n * 8;
		hello.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		raw_seal(&hello);
		link_send_hello(&l, &hello);
		end(stage, "a bit flipped and sealed", bit, bit < 32 ? REFUSED : ANY);
	}
}

/* Cut, with the length and the checksum of what is left: sections are missing, or do not end in the message. */
static void truncate_sealed(enum stage stage)
{
	static struct raw_bytes hello;
	unsigned whole = 33;

	for (unsigned n = 32; n < whole; n++) {
		begin(stage, &hello);
		whole = hello.n;
		hello.n = n;
		raw_seal(&hello);
		link_send_hello(&l, &hello);
		end(stage, "cut and sealed", n, REFUSED);
	}
}

/* Each word of the LIMITS section at its limits. All but what is beyond the protocol may be accepted. */
static void set_limits(enum stage stage)
{
	static const uint32_t values[] = { 0,
					   1,
					   4095,
					   4096,
					   4097,
					   8192,
					   16384,
					   16385,
					   65536,
					   16u << 20,
					   (16u << 20) + 4096,
					   0x7fffffff,
					   0x80000000,
					   0xfffff000,
					   0xffffffff };
	static struct raw_bytes hello;

	for (unsigned word = 0; word < 40; word++)
		for (unsigned v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
			uint32_t length;
			const uint8_t *at;
			begin(stage, &hello);
			at = raw_find(hello.b, hello.n, RAW_LIMITS, &length);
			CHECK(at && length == 160);
			raw_set32(&hello, (uint32_t)(at - hello.b) + 4 * word, values[v]);
			raw_seal(&hello);
			link_send_hello(&l, &hello);
			end(stage, "limits", word * 100 + v, values[v] > (16u << 20) && word != 7 ? REFUSED : ANY);
		}
}

/* Messages that only somebody makes who means it: versions... */
static enum fate odd_version(unsigned how, struct raw_bytes *hello)
{
	switch (how) {
	case 0: /* only versions that nobody speaks; what follows the head is not for us to judge */
	case 1:
		raw_hello(hello, RAW_CONNECT, 0);
		raw_set16(hello, 6, how ? 2 : 0);
		raw_set16(hello, 8, how ? 9 : 0);
		raw_fill(hello, 0xee, 99);
		return REFUSED_SAID;
	case 2: /* the range is upside down */
		raw_set16(hello, 6, 2);
		return REFUSED;
	case 3: /* later versions as well: one in common is enough */
		raw_set16(hello, 8, 7);
		raw_set16(hello, 10, 3);
		return CONNECTED;
	default: /* all features that there are, and that there are not */
		memset(hello->b + 16, 0xff, 8);
		return CONNECTED;
	}
}

static void odd_section(struct raw_bytes *hello, uint16_t type, uint8_t byte, uint32_t count)
{
	uint32_t at = raw_section(hello, type);

	raw_fill(hello, byte, count);
	raw_section_end(hello, at);
}

/* ...and sections. */
static enum fate odd_sections(unsigned how, struct raw_bytes *hello)
{
	uint32_t at;

	switch (how) {
	case 0: /* LIMITS twice */
		raw_section_limits(hello, &raw_usual);
		return REFUSED;
	case 1: /* of a later version, and an empty one */
		odd_section(hello, 77, 0xff, 500);
		odd_section(hello, 65535, 0, 0);
		return CONNECTED;
	case 2: /* a service name with a NUL, and one that is too long */
		odd_section(hello, RAW_SERVICE, 0, 3);
		return REFUSED;
	case 3:
		odd_section(hello, RAW_SERVICE, 'x', 65);
		return REFUSED;
	case 4: /* text that a terminal would obey */
		at = raw_section(hello, RAW_SERVICE);
		raw_copy(hello, "\033[2J\n\xff", 6);
		raw_section_end(hello, at);
		return CONNECTED;
	case 5: /* too much to authenticate with */
		odd_section(hello, RAW_AUTH, 1, 257);
		return REFUSED;
	case 6: /* as large as can be, and one byte larger */
		odd_section(hello, 99, 1, 2048 - 4 - hello->n);
		return CONNECTED;
	case 7:
		odd_section(hello, 99, 1, 2049 - 4 - hello->n);
		return REFUSED;
	default: /* not for a CONNECT: it means nothing there */
		odd_section(hello, RAW_TRANSPORT, 1, 100);
		return CONNECTED;
	}
}

#define ODD_VERSIONS 5u
#define ODD_SECTIONS 9u

static void odd_connects(void)
{
	static struct raw_bytes hello;

	for (unsigned how = 0; how < ODD_VERSIONS + ODD_SECTIONS; how++) {
		enum fate wanted;
		begin(STAGE_CONNECT, &hello);
		wanted = how < ODD_VERSIONS ? odd_version(how, &hello) : odd_sections(how - ODD_VERSIONS, &hello);
		raw_seal(&hello);
		link_send_hello(&l, &hello);
		if (wanted == CONNECTED) {
			/* It is the ACCEPT that says so: READY is left out here. */
			CHECK(link_recv_hello(&l, &hello));
			CHECK_EQ(hello.b[4], RAW_ACCEPT);
			CHECK_EQ(raw_get16(hello.b + 8), 1);
			CHECK_EQ(raw_get32(hello.b + 16) & ~3u, 0);
			wanted = REFUSED;
		}
		end(STAGE_CONNECT, "an odd message", how, wanted);
	}
}

/* Connect messages when they are not due, frames before they flow, things that are none. */
static void out_of_order(void)
{
	static struct raw_bytes hello, frame;

	for (unsigned stage = 0; stage < STAGES; stage++)
		for (unsigned how = 0; how < 6; how++) {
			begin((enum stage)stage, &hello);
			switch (how) {
			case 0:
				raw_connect(&hello, &raw_usual);
				if (stage == STAGE_CONNECT)
					link_send_hello(&l, &hello); /* twice */
				break;
			case 1:
				raw_accept(&hello, &raw_usual, NULL, 0);
				if (stage == STAGE_ACCEPT)
					raw_set16(&hello, 6, 0); /* no version chosen */
				raw_set16(&hello, 8, 2);
				break;
			case 2:
				raw_ready(&hello, NULL, 0);
				if (stage == STAGE_READY)
					raw_set16(&hello, 6, 2); /* of another version */
				raw_set16(&hello, 8, 2);
				break;
			case 3:
				raw_hello(&hello, RAW_REFUSE, 0);
				raw_section_end(&hello, raw_section(&hello, RAW_REASON)); /* without a reason */
				break;
			case 4:
				raw_hello(&hello, 5, 0);
				break;
			default:
				hello.n = 0;
				raw_ping(&frame, 0);
				raw_wrap(&hello, &frame, false);
			}
			if (how < 5)
				raw_seal(&hello);
			link_send_hello(&l, &hello);
			end((enum stage)stage, "out of order", how, REFUSED);
		}
}

/* --- */

static void summary(const char *what)
{
	printf("%s, %s: %u messages, %u refused, %u connected all the same\n", kind == LINK_TCP ? "tcp" : "shm", what,
	       attacks, refused, connected);
	attacks = refused = connected = 0;
}

static void run(enum link_kind k)
{
	kind = k;
	target_start(&target, kind == LINK_TCP ? "tcp" : "shm");
	for (int stage = 0; stage < STAGES; stage++) {
		flip_bits((enum stage)stage);
		truncate((enum stage)stage);
		truncate_sealed((enum stage)stage);
		flip_sealed((enum stage)stage);
		/* Bits that mean nothing yet: a test in which nothing ever connects would prove nothing. */
		CHECK(stage == STAGE_CONNECT || connected > 0);
		summary(stage_names[stage]);
	}
	set_limits(STAGE_CONNECT);
	set_limits(STAGE_ACCEPT);
	summary("limits");
	odd_connects();
	out_of_order();
	summary("odd and out of order");
	target_stop(&target);
}

static void test_tcp(void)
{
	run(LINK_TCP);
}

static void test_shm(void)
{
	run(LINK_SHM);
}

CHECK_MAIN(TEST(test_tcp), TEST(test_shm))
