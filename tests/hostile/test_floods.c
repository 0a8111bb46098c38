/* SPDX-License-Identifier: MIT */
/*
 * Many peers who do little: connects that say nothing, that say it slowly, that come by the thousand, that stop
 * half-way, that never read. They cost a bounded number of objects for a bounded time, and the good channel goes on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "link.h"
#include "shm_side.h"
#include "tests/lib/check.h"

#define MANY 100u
#define HALF_OPEN 64u /* of a listener, by default */

static struct target target;
static struct link links[MANY];
static struct link l;
static enum link_kind kind;
static struct raw_bytes bytes;

static unsigned still_open(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < MANY; i++) {
		char byte;
		if (links[i].fd >= 0 && recv(links[i].fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0)
			n++;
	}
	return n;
}

static void close_all(void)
{
	for (unsigned i = 0; i < MANY; i++)
		link_close(&links[i]);
}

static void turn_for(uint64_t ns)
{
	uint64_t end = check_now() + ns;

	while (check_now() < end)
		xenidc_loop_step(target.loop, 1000000);
}

/* Connections that say nothing: no more of them than half-open ones are allowed, and not for long. */
static void silent(void)
{
	uint64_t start = check_now();

	for (unsigned i = 0; i < MANY; i++) {
		link_open(&links[i], kind, &target, false);
		target_turn(&target);
	}
	turn_for(20000000);
	/* Those beyond the limit are dropped at once. */
	CHECK_OP(still_open(), <=, HALF_OPEN);
	CHECK_OP(xi_alive(XI_OBJECT_CONN), <=, target.objects[XI_OBJECT_CONN] + HALF_OPEN);
	CHECK_EQ(target.accepted, 0);
	target_good(&target);
	while (still_open()) {
		CHECK(check_now() < start + 3000000000u * (uint64_t)check_factor());
		xenidc_loop_step(target.loop, 1000000);
	}
	CHECK_OP(check_now() - start, <, TARGET_CONNECT_NS + 300000000u * (uint64_t)check_factor());
	close_all();
	target_clean(&target);
}

/* A byte now and then is no sign of life: the connect has its time, and no more. On shm a packet is a message. */
static void slow(void)
{
	uint64_t start = check_now();
	uint32_t at = 0;

	link_open(&links[0], kind, &target, false);
	raw_connect(&bytes, &raw_usual);
	while (!still_open())
		target_turn(&target);
	for (unsigned i = 1; i < MANY; i++)
		links[i].fd = links[i].listen_fd = -1, links[i].kind = LINK_TCP;
	while (still_open()) {
		CHECK(check_now() < start + 3000000000u * (uint64_t)check_factor());
		if (at < 60)
			link_send_bytes(&links[0], bytes.b + at++, 1);
		turn_for(10000000);
	}
	CHECK_OP(check_now() - start, >=, TARGET_CONNECT_NS * 9 / 10);
	link_close(&links[0]);
	target_clean(&target);
}

/* Until none of them is left, nor a channel that one of them was given. */
static void gather(void)
{
	uint64_t limit = check_now() + 3000000000u * (uint64_t)check_factor();

	/* Some may still wait to be accepted: until nothing has moved for a while. */
	for (unsigned quiet = 0; quiet < 20; quiet++) {
		CHECK(check_now() < limit);
		if (target.channel)
			target_over(&target);
		if (xenidc_loop_step(target.loop, 1000000) ||
		    xi_alive(XI_OBJECT_CONN) != target.objects[XI_OBJECT_CONN])
			quiet = 0;
	}
	target_clean(&target);
}

/* Thousands that come and go: before they say anything, after a piece of it, after a whole CONNECT. */
static void storm(void)
{
	for (unsigned i = 0; i < 3000; i++) {
		link_open(&l, kind, &target, false);
		raw_connect(&bytes, &raw_usual);
		if (i % 3 == 1)
			bytes.n = 40;
		if (i % 3)
			link_send_hello(&l, &bytes);
		if (i & 8)
			target_turn(&target);
		link_close(&l);
		if (i % 32 == 31)
			target_turn(&target);
		if (target.channel && target.idle)
			target_over(&target);
		if (i % 500 == 499)
			target_good(&target);
	}
	gather();
}

/* CONNECT, and then nothing: each has its memory reserved, so they are bounded as well, and given up in time. */
static void half_way(void)
{
	uint64_t start = check_now();

	target.hoards = true;
	for (unsigned i = 0; i < MANY; i++) {
		link_open(&links[i], kind, &target, false);
		raw_connect(&bytes, &raw_usual);
		link_send_hello(&links[i], &bytes);
		target_turn(&target);
	}
	turn_for(20000000);
	target_good(&target);
	CHECK_OP(xi_alive(XI_OBJECT_CONN), ==, target.objects[XI_OBJECT_CONN] + HALF_OPEN);
	CHECK(target.channel);
	target_over(&target);
	CHECK(!target.connected);
	close_all();
	gather();
	target.hoards = false;
	CHECK_OP(check_now() - start, <, TARGET_CONNECT_NS + 500000000u * (uint64_t)check_factor());
}

/* --- Peers that never read: what waits for them is bounded, so that they cannot go on for ever. What they can only
 * know by reading, they cannot answer before it has left: streams. In a ring there is nothing that could pile up. */

/* Say something again and again, until the target has had enough or `rounds` are over. How often it was said. */
static unsigned say_without_reading(void (*say)(unsigned round), unsigned rounds)
{
	unsigned round = 1;

	link_little_room = true; /* so that it does not take long */
	link_open(&l, kind, &target, false);
	link_little_room = false;
	link_up(&l);
	for (; round <= rounds && !target.disconnected; round++) {
		say(round);
		link_send_frame(&l, &bytes);
		target_turn(&target);
	}
	target_good(&target);
	if (!target.disconnected)
		CHECK_EQ(xenidc_channel_close(target.channel, 0), 0);
	target_over(&target);
	if (kind == LINK_TCP && target.why.reason != XENIDC_REASON_PROTOCOL)
		check_failed(__FILE__, __LINE__, "after %u rounds: %s", round, target.why.text);
	link_close(&l);
	target_clean(&target);
	return round;
}

/* Requests: each answer waits for a peer that does not read it, and the index is used again all the same. */
static void ask(unsigned round)
{
	raw_request(&bytes, RAW_ID(round % RAW_REQUESTS, 1 + round / RAW_REQUESTS), round, NULL, 0, RAW_PAYLOAD);
}

/* Answers to requests that the target makes, one after the other: their ids can be guessed. */
static void answer(unsigned round)
{
	raw_reply(&bytes, RAW_ID(0, round), NULL, 0, 0);
}

/* Credit for the messages that the target has made, whether they have left or not. */
static void confirm(unsigned round)
{
	struct xenidc_stats stats = { .size = sizeof(stats) };

	(void)round;
	xenidc_channel_stats(target.channel, &stats);
	raw_credit(&bytes, (uint16_t)stats.messages_out);
}

static void never_reads(void)
{
	unsigned rounds = kind == LINK_TCP ? 400000 : 2000;

	target.busy = false;
	target.empty = true;
	printf("%s: asked %u times", kind == LINK_TCP ? "tcp" : "shm", say_without_reading(ask, rounds));
	target.eager = EAGER_REQUESTS;
	printf(", answered %u times", say_without_reading(answer, rounds));
	target.eager = EAGER_MESSAGES;
	printf(", confirmed %u times without reading\n", say_without_reading(confirm, rounds));
	target.eager = EAGER_NOT;
	target.busy = true;
	target.empty = false;
}

static void run(enum link_kind k)
{
	kind = k;
	target_start(&target, kind == LINK_TCP ? "tcp" : "shm");
	silent();
	if (kind == LINK_TCP)
		slow();
	storm();
	half_way();
	never_reads();
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
