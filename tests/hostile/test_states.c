/* SPDX-License-Identifier: MIT */
/*
 * Good frames at the wrong time: replies that nobody asked for, credit that is not there, what is lent already, frames
 * in every state of a connection's life. And floods of what is allowed.
 */
#include <stdio.h>
#include <string.h>

#include "model.h"
#include "shm_side.h"
#include "tests/lib/check.h"

static struct target target;
static struct link l;
static enum link_kind kind;
static struct raw_bytes frame;
static unsigned cases;

static void send_frame(void)
{
	link_send_frame(&l, &frame);
}

static void request(uint16_t index, uint16_t generation, uint32_t sequence)
{
	raw_request(&frame, RAW_ID(index, generation), sequence, NULL, 0, 4);
	send_frame();
}

static void message(void)
{
	raw_message(&frame, 4);
	send_frame();
}

static void disconnect(void)
{
	raw_disconnect(&frame, 0, XENIDC_REASON_CLOSED, "");
	send_frame();
}

static void reply(uint32_t valid)
{
	raw_reply(&frame, l.request_id, &valid, 1, 0);
	send_frame();
}

static void begin(void)
{
	link_open(&l, kind, &target, cases & 1);
	link_up(&l);
	model_prepare(&l);
}

/* A case has to end the connection with PROTOCOL... */
static void refused(const char *what)
{
	static struct raw_bytes last;

	/* If nothing was noticed, this is what it ends by. */
	disconnect();
	target_over(&target);
	if (target.why.by_peer || target.why.reason != XENIDC_REASON_PROTOCOL)
		check_failed(__FILE__, __LINE__, "%s: %s", what, target.why.text);
	link_drain(&l, &last);
	CHECK_EQ(last.b[0], RAW_DISCONNECT);
	link_close(&l);
	target_good(&target);
	target_clean(&target);
	cases++;
}

/* ...or must not. */
static void fine(const char *what)
{
	disconnect();
	target_over(&target);
	if (!target.why.by_peer || target.why.reason != XENIDC_REASON_CLOSED)
		check_failed(__FILE__, __LINE__, "%s: %s", what, target.why.text);
	link_close(&l);
	target_clean(&target);
	cases++;
}

static void turns(unsigned n)
{
	while (n--)
		target_turn(&target);
}

/* --- Requests and replies */

static void requests(void)
{
	static const struct raw_ref twice[2] = { { 1, 0, 8 }, { 1, 8, 8 } };
	static const struct raw_ref lent = { 0, 0, 8 }, lent_in = { RAW_IN | 0, 0, 8 };

	begin();
	request(0, 2, 2);
	refused("an index in flight");
	begin();
	request(RAW_REQUESTS, 1, 2);
	refused("one request more than its credit");
	begin();
	for (uint16_t i = 1; i < RAW_REQUESTS; i++)
		request(i, 1, 1u + i);
	fine("as many as its credit");
	begin();
	request(1, 1, 1);
	refused("a sequence that was used");
	begin();
	request(1, 1, 0);
	refused("a sequence that is over");
	begin();
	request(1, 1, 0x80000002);
	refused("a sequence half a turn ahead");
	begin();
	request(1, 1, 0x80000000);
	fine("a sequence just less than half a turn ahead");
	begin();
	request(1, 0x8000, 2);
	refused("a generation half a turn ahead");
	begin();
	raw_request(&frame, RAW_ID(1, 1), 2, twice, 2, 0);
	send_frame();
	refused("a slot twice in a request");
	begin();
	raw_request(&frame, RAW_ID(1, 1), 2, &lent, 1, 0);
	send_frame();
	refused("an OUT slot that is lent");
	begin();
	raw_request(&frame, RAW_ID(1, 1), 2, &lent_in, 1, 0);
	send_frame();
	refused("an IN slot that is lent");
}

/* After its reply an index, and what was lent, are free again: with a later generation only. */
static void requests_again(void)
{
	static const struct raw_ref again = { 0, 0, 0 };

	for (int how = 0; how < 3; how++) {
		begin();
		target_answer(&target);
		turns(2);
		if (how == 0)
			raw_request(&frame, RAW_ID(0, 2), 2, &again, 1, 0);
		else
			raw_request(&frame, RAW_ID(0, how == 1 ? 1 : 0), 2, &again, 1, 0);
		send_frame();
		if (how == 0)
			fine("an index again");
		else
			refused("a generation that was used");
	}
	begin();
	target_answer(&target);
	turns(2);
	raw_cancel(&frame, RAW_ID(0, 1));
	send_frame();
	fine("a cancel that crosses the reply");
	begin();
	raw_cancel(&frame, RAW_ID(0, 2));
	send_frame();
	refused("a cancel of what was never asked");
}

static void replies(void)
{
	begin();
	reply(0);
	fine("a reply");
	begin();
	reply(0);
	reply(0);
	refused("a second reply");
	begin();
	l.request_id += 0x10000;
	reply(0);
	refused("a reply to a later generation");
	begin();
	l.request_id -= 0x10000;
	reply(0);
	refused("a reply to an earlier generation");
	begin();
	l.request_id += 1;
	reply(0);
	refused("a reply to an index that is free");
	begin();
	l.request_id += RAW_REQUESTS;
	reply(0);
	refused("a reply to an index that does not exist");
	begin();
	reply(101);
	refused("a reply with more data than were asked for");
	begin();
	raw_reply(&frame, l.request_id, NULL, 0, 0);
	send_frame();
	refused("a reply that is silent about data");
	begin();
	raw_reply(&frame, l.request_id, (uint32_t[]){ 0, 0 }, 2, 0);
	send_frame();
	refused("a reply with data for OUT");
	begin();
	raw_not_executed(&frame, l.request_id);
	send_frame();
	reply(0);
	refused("a reply after a refusal");
}

/* The target gave up its request: its slots wait for the reply, which ends it. */
static void replies_to_orphans(void)
{
	for (int how = 0; how < 3; how++) {
		xenidc_request_id id = (uint64_t)1 << 32 | l.request_id;
		struct xenidc_stats stats = { .size = sizeof(stats) };
		begin();
		xenidc_channel_stats(target.channel, &stats);
		id = (uint64_t)stats.incarnation << 32 | l.request_id;
		CHECK_EQ(xenidc_cancel(target.channel, id, 0), 0);
		while (!target.ended[XENIDC_UNKNOWN])
			target_turn(&target);
		if (how < 2)
			reply(0);
		else
			raw_not_executed(&frame, l.request_id), send_frame();
		turns(2);
		xenidc_channel_stats(target.channel, &stats);
		CHECK_EQ(stats.orphans, 0);
		CHECK_EQ(stats.in_flight_out, 0);
		if (how == 1)
			reply(0);
		if (how == 1)
			refused("a second reply to an orphan");
		else
			fine("a reply to an orphan");
	}
}

/* --- Messages, credit, receipts */

static void credit(void)
{
	begin();
	raw_credit(&frame, 1);
	send_frame();
	raw_credit(&frame, 0);
	send_frame();
	refused("credit that goes back");
	begin();
	raw_credit(&frame, 2);
	send_frame();
	refused("credit for what was never sent");
	begin();
	for (int i = 0; i < 100; i++) {
		message();
		turns(1);
		/* Credit is used by who has read it; in a ring that is said with each frame. */
		while (l.shm && shm_take_frame(&l, &frame))
			;
	}
	fine("messages that are consumed at once");
	for (unsigned n = RAW_MESSAGES; n <= RAW_MESSAGES + 1; n++) {
		begin();
		for (unsigned i = 0; i < n; i++)
			message();
		if (n == RAW_MESSAGES)
			fine("messages on credit");
		else
			refused("one more than the credit that was told, though they are consumed at once");
	}
	begin();
	raw_ping(&frame, 3);
	send_frame();
	refused("a receipt for what was never sent");
}

/* Messages wait behind a request whose data do not come: streams only. */
static void messages_without_credit(void)
{
	static const struct raw_ref out = { 1, 0, 8 };

	for (unsigned n = RAW_MESSAGES; n <= RAW_MESSAGES + 1; n++) {
		begin();
		raw_request(&frame, RAW_ID(1, 1), 2, &out, 1, 0);
		send_frame();
		for (unsigned i = 0; i < n; i++)
			message();
		turns(2);
		CHECK_EQ(target.messages, 0);
		if (n == RAW_MESSAGES)
			fine("as many messages as there is credit");
		else
			refused("one message more");
	}
}

/* --- The states at the end */

static void after_the_end(void)
{
	begin();
	disconnect();
	message();
	request(0, 1, 1); /* nobody looks at what is wrong here any more */
	target_over(&target);
	CHECK(target.why.by_peer);
	CHECK_EQ(target.messages, 0);
	link_close(&l);
	cases++;

	/* It has said goodbye: whatever we send in good form is read and dropped; our DISCONNECT ends it. */
	begin();
	CHECK_EQ(xenidc_channel_close(target.channel, 0), 0);
	turns(2);
	CHECK(target.disconnected && !target.idle);
	request(1, 1, 2);
	message();
	raw_cancel(&frame, RAW_ID(0, 1));
	send_frame();
	turns(2);
	CHECK_EQ(target.requests, 1);
	CHECK_EQ(target.messages, 0);
	CHECK(!target.idle);
	disconnect();
	target_ended(&target, XENIDC_REASON_CLOSED);
	link_close(&l);
	cases++;
	target_clean(&target);
}

/* Closed with time to linger: what is on its way is delivered, what is new is refused. */
static void while_draining(void)
{
	begin();
	CHECK_EQ(xenidc_channel_close(target.channel, 1000000000), 0);
	turns(2);
	CHECK(target.disconnected && !target.idle);
	request(1, 1, 2);
	do {
		CHECK(link_recv_frame(&l, &frame));
	} while (frame.b[0] != RAW_REPLY);
	CHECK_EQ(raw_get32(frame.b + 4), RAW_ID(1, 1));
	CHECK_EQ(frame.b[1], RAW_NOT_EXECUTED);
	CHECK_EQ(target.requests, 1);
	reply(0);
	turns(2);
	CHECK_EQ(target.ended[XENIDC_REPLIED], 1);
	target_answer(&target);
	do {
		CHECK(link_recv_frame(&l, &frame));
	} while (frame.b[0] != RAW_DISCONNECT);
	disconnect();
	target_ended(&target, XENIDC_REASON_CLOSED);
	link_close(&l);
	cases++;
	target_clean(&target);
}

/* Somebody who never answers the goodbye, and goes on sending: T_close. */
static void never_ends(void)
{
	uint64_t start, took;

	begin();
	CHECK_EQ(xenidc_channel_close(target.channel, 0), 0);
	start = check_now();
	while (!target.idle) {
		raw_ping(&frame, 1);
		/* In a ring there is room for so many before it laps itself; more would be another attack. */
		if (kind == LINK_TCP || l.shm_frames++ < 8)
			send_frame();
		target_turn(&target);
		CHECK(check_now() < start + 2000000000u * (uint64_t)check_factor());
	}
	took = check_now() - start;
	CHECK_OP(took, >=, TARGET_CLOSE_NS * 9 / 10);
	target_ended(&target, XENIDC_REASON_CLOSED);
	CHECK_OP(took, <, TARGET_CLOSE_NS + 200000000u * (uint64_t)check_factor());
	link_close(&l);
	cases++;
	target_clean(&target);
}

/* --- Floods of what is allowed: no more is done, or kept, than for one */

static void floods(void)
{
	begin();
	for (int i = 0; i < 20000; i++) {
		raw_ping(&frame, 2);
		send_frame();
		if (i % 16 == 15)
			turns(1);
	}
	target_good(&target);
	for (int i = 0; i < 20000; i++) {
		raw_cancel(&frame, RAW_ID(0, 1));
		send_frame();
		if (i % 16 == 15)
			turns(1);
	}
	target_good(&target);
	fine("floods");
}

static void run(enum link_kind k)
{
	kind = k;
	cases = 0;
	target_start(&target, kind == LINK_TCP ? "tcp" : "shm");
	requests();
	requests_again();
	replies();
	replies_to_orphans();
	credit();
	if (kind == LINK_TCP)
		messages_without_credit();
	after_the_end();
	while_draining();
	never_ends();
	floods();
	target_stop(&target);
	printf("%s: %u cases\n", kind == LINK_TCP ? "tcp" : "shm", cases);
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
