/* SPDX-License-Identifier: MIT */
/* The byte-stream engine: order, chunking, budgets, retracting, dropping, the end. */
#include "stream_pair.h"

#include "tests/lib/fault_os.h"

static uint32_t make_hello(uint8_t *to, uint32_t incarnation)
{
	struct xi_hello hello = { .kind = XI_HELLO_CONNECT, .major_min = 1, .major_max = 1 };

	hello.incarnation = incarnation;
	hello.budget.size = sizeof(hello.budget);
	CHECK_EQ(xenidc_budget_complete(&hello.budget, NULL), 0);
	return xi_hello_put(to, &hello);
}

static void one_handshake(size_t cut)
{
	uint8_t hello[XI_HELLO_MAX];
	uint32_t length = make_hello(hello, 7);

	open_pipe(&ab, cut);
	open_pipe(&ba, cut);
	a = open_side(&conn_a, &ab, &ba);
	b = open_side(&conn_b, &ba, &ab);
	xi_stream_hello(&conn_a, hello, length); /* before the start: kept */
	xi_stream_start(&a->stream, &conn_a, &pipe_ops);
	xi_stream_start(&b->stream, &conn_b, &pipe_ops);
	reserve_side(a, 0);
	reserve_side(b, 0);
	run();
	CHECK_EQ(b->hellos, 1);
	CHECK_MEM(b->hello, hello, length);
	/* The second one, and frames right behind it in the same breath. */
	import_side(a);
	b->import_at_hello = true;
	length = make_hello(hello, 8);
	xi_stream_hello(&conn_a, hello, length);
	for (uint32_t i = 0; i < 5; i++)
		commit_plain(a, XI_FRAME_MESSAGE, i);
	xi_stream_flush(&conn_a);
	run();
	CHECK_EQ(b->hellos, 2);
	CHECK_MEM(b->hello, hello, length);
	CHECK_EQ(frames_logged(b), 5);
	CHECK_EQ(a->lost + b->lost, 0);
	close_pair();
}

static void test_hello_and_frames(void)
{
	one_handshake(1);
	one_handshake(0);
	one_handshake(PIPE_BYTES);
}

static void test_hello_of_somebody_else(void)
{
	static const char *const texts[] = { "SSH-2.0-x\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n", "XIDX", "" };

	for (unsigned i = 0; i < 4; i++) {
		open_pipe(&ab, 0);
		open_pipe(&ba, 0);
		b = open_side(&conn_b, &ba, &ab);
		xi_stream_start(&b->stream, &conn_b, &pipe_ops);
		memcpy(ab.bytes, texts[i], strlen(texts[i]));
		ab.in = strlen(texts[i]);
		ab.shut = true;
		run();
		CHECK_EQ(b->lost, 1);
		CHECK_EQ(b->reason, texts[i][0] ? XENIDC_REASON_PROTOCOL : XENIDC_REASON_LOST);
		CHECK_EQ(b->hellos, 0);
		CHECK_EQ(b->overs, texts[i][0] ? 0 : 1);
		close_side(&b);
	}
}

/* Frames with and without data, in both directions, over a pipe that has little room. */
static void random_traffic(size_t cut, uint32_t flags, unsigned rounds)
{
	open_pair(cut, flags);
	ab.room = ba.room = 100000;
	for (unsigned round = 0; round < rounds; round++) {
		unsigned before = frames_logged(b), data = 0, frames = 1 + rnd(20);
		uint32_t used = 0;
		struct xi_seg all[SLOTS];
		for (unsigned f = 0; f < frames; f++) {
			struct xi_seg segs[3];
			uint32_t n = 0;
			for (uint32_t slot = rnd(SLOTS); n < 3 && rnd(3) == 0; slot = (slot + 1) % SLOTS) {
				uint32_t size;
				(void)xi_layout_slot(&a->tx_layout, slot, &size);
				if (used & 1u << slot)
					continue;
				used |= 1u << slot;
				segs[n].slot = slot;
				segs[n].offset = rnd(size);
				segs[n].length = rnd(size - segs[n].offset + 1);
				if (cut == 1)
					segs[n].length %= 5000;
				all[data++] = segs[n++];
			}
			commit(a, XI_FRAME_REQUEST, round * 100 + f, segs, n, rnd(1000));
			if (rnd(4) == 0)
				xi_stream_flush(&conn_a);
			if (rnd(2))
				commit_plain(b, XI_FRAME_REPLY, f);
		}
		xi_stream_flush(&conn_a);
		xi_stream_flush(&conn_b);
		run();
		CHECK_EQ(a->lost + b->lost, 0);
		CHECK_EQ(frames_logged(b) - before, frames);
		for (unsigned i = 0; i < data; i++) {
			check_landed(b, all[i].slot, all[i].offset, all[i].length);
			CHECK_EQ(b->expect_next[all[i].slot], b->expect_end[all[i].slot]);
		}
		CHECK_EQ(xi_stream_tx_unsent(&conn_a), a->stream.position + 1);
		a->logged = b->logged = 0;
		ab.in = ab.out = ba.in = ba.out = 0;
	}
	close_pair();
}

static void test_any_chunking(void)
{
	random_traffic(1, 0, 20);
	random_traffic(0, 0, 100);
	random_traffic(0, XI_RESERVE_DIGEST, 100);
	random_traffic(PIPE_BYTES, XI_RESERVE_DIGEST, 100);
	random_traffic(65536, 0, 50);
}

static void test_many_frames_in_one_read(void)
{
	unsigned sent = 0;

	open_pair(PIPE_BYTES, 0);
	for (int batch = 0; batch < 16; batch++) {
		for (uint32_t i = 0; i < a->tx_layout.frames; i++)
			commit_plain(a, XI_FRAME_MESSAGE, sent++);
		xi_stream_flush(&conn_a);
		CHECK_EQ(xi_stream_tx_unsent(&conn_a), a->stream.position + 1);
	}
	CHECK(sent > 3 * XI_PROCESS_BUDGET);
	CHECK_EQ(ab.out, 0);
	run();
	CHECK_EQ(b->logged, sent);
	for (uint32_t i = 0; i < sent; i++)
		CHECK_EQ(b->log[i].id, i);
	close_pair();
}

static void test_budget(void)
{
	struct xi_wait wait;

	open_pair(PIPE_BYTES, 0);
	for (uint32_t i = 0; i < 10; i++)
		commit_plain(a, XI_FRAME_MESSAGE, i);
	CHECK_EQ(xi_stream_arm(&conn_a, false, &wait), XI_BUSY);
	xi_stream_flush(&conn_a);
	CHECK_EQ(xi_stream_arm(&conn_a, false, &wait), 0);
	CHECK(!wait.futex);
	CHECK_EQ(xi_stream_process(&conn_b, 3), 3);
	CHECK_EQ(xi_stream_arm(&conn_b, true, &wait), XI_BUSY);
	CHECK_EQ(xi_stream_process(&conn_b, 6), 6);
	CHECK_EQ(xi_stream_arm(&conn_b, true, &wait), XI_BUSY);
	CHECK_EQ(xi_stream_process(&conn_b, 6), 1);
	CHECK_EQ(xi_stream_arm(&conn_b, true, &wait), 0);
	CHECK_EQ(xi_stream_process(&conn_b, 6), 0);
	close_pair();
}

static void test_the_end_inside_a_frame(void)
{
	open_pair(PIPE_BYTES, 0);
	for (uint32_t i = 0; i < 10; i++)
		commit_plain(a, XI_FRAME_MESSAGE, i);
	xi_stream_flush(&conn_a);
	b->stop_after = 4;
	CHECK_EQ(xi_stream_process(&conn_b, 64), 4);
	CHECK_EQ(b->logged, 4);
	close_pair();
}

/* Behind 2 MiB of data of two requests, a CANCEL waits for no more than what was under way. */
static void test_frames_overtake_data(void)
{
	struct xi_seg one = { .slot = 4, .length = 1u << 20 }, two = { .slot = 5, .length = 1u << 20 };
	unsigned i, data = 0;

	open_pair(PIPE_BYTES, 0);
	ab.room = 150000;
	commit(a, XI_FRAME_REQUEST, 1, &one, 1, 0);
	commit(a, XI_FRAME_REQUEST, 2, &two, 1, 0);
	xi_stream_flush(&conn_a);
	CHECK(a->waiting);
	commit_plain(a, XI_FRAME_CANCEL, 3);
	xi_stream_flush(&conn_a);
	run();
	CHECK_EQ(b->lost, 0);
	check_landed(b, 4, 0, 1u << 20);
	check_landed(b, 5, 0, 1u << 20);
	for (i = 0; b->log[i].what != LOG_FRAME || b->log[i].id != 3; i++)
		data += b->log[i].what == LOG_DATA;
	CHECK_OP(data, <=, 3);
	/* In turn, each at most XI_BULK_MAX. */
	for (i = 2; i + 1 < b->logged; i++) {
		CHECK_OP(b->log[i].length, <=, XI_BULK_MAX);
		if (b->log[i].what == LOG_DATA && b->log[i + 1].what == LOG_DATA)
			CHECK(b->log[i].slot != b->log[i + 1].slot);
	}
	close_pair();
}

/* DATA frames that follow each other are received several at a time, and a frame between them does no harm. */
static void test_guesses(void)
{
	struct xi_seg seg = { .slot = 4, .length = 1u << 20 }, other = { .slot = 5, .length = 1u << 20 };
	unsigned reads;

	open_pair(PIPE_BYTES, XI_RESERVE_DIGEST);
	for (uint32_t i = 0; i < 4; i++) {
		commit(a, XI_FRAME_REQUEST, 10 + i, &seg, 1, 0);
		xi_stream_flush(&conn_a);
		memset(b->rx + b->rx_layout.slots_offset, 0, 2u << 20);
		reads = ab.reads;
		run();
		check_landed(b, 4, 0, 1u << 20);
		reads = ab.reads - reads;
		if (i) /* sixteen pieces */
			CHECK_OP(reads, <=, 8);
	}
	/* Frames in between: some guesses are wrong. */
	ab.room = 200000;
	commit(a, XI_FRAME_REQUEST, 20, &seg, 1, 0);
	xi_stream_flush(&conn_a);
	for (uint32_t i = 0; i < 12; i++) {
		commit(a, XI_FRAME_MESSAGE, 21 + i, NULL, 0, 1 + 150 * i);
		xi_stream_writable(&a->stream);
		(void)xi_stream_process(&conn_b, 64);
	}
	run();
	check_landed(b, 4, 0, 1u << 20);
	/* The next one is for another slot, at the very offset that was guessed. */
	ab.room = PIPE_BYTES;
	ab.in = ab.out = 0;
	commit(a, XI_FRAME_REQUEST, 35, &seg, 1, 0);
	xi_stream_flush(&conn_a);
	run();
	CHECK_OP(b->stream.streak, >, 0);
	other.offset = other.length = XI_BULK_MAX;
	commit(a, XI_FRAME_REQUEST, 36, &seg, 1, 0);
	commit(a, XI_FRAME_REQUEST, 37, &other, 1, 0);
	run();
	check_landed(b, 4, 0, 1u << 20);
	check_landed(b, 5, XI_BULK_MAX, XI_BULK_MAX);
	other.offset = 0;
	other.length = 1u << 20;
	/* Two in turn: nothing continues. */
	ab.room = PIPE_BYTES;
	commit(a, XI_FRAME_REQUEST, 40, &seg, 1, 0);
	commit(a, XI_FRAME_REQUEST, 41, &other, 1, 0);
	run();
	check_landed(b, 4, 0, 1u << 20);
	check_landed(b, 5, 0, 1u << 20);
	CHECK_EQ(b->stream.streak, 0);
	CHECK_EQ(b->lost, 0);
	close_pair();
}

/* Data whose turn has come do not go before their own frame. */
static void test_data_wait_for_their_frame(void)
{
	struct xi_seg seg = { .slot = 0, .length = 4096 };
	const uint32_t length = XI_STREAM_PREFIX + XI_FRAME_HEADER + 1500;

	open_pair(PIPE_BYTES, 0);
	for (uint32_t i = 0; i < 50; i++)
		commit(a, XI_FRAME_MESSAGE, i, NULL, 0, 1500);
	xi_stream_flush(&conn_a);
	run();
	ab.in = ab.out = 0;
	ab.room = length; /* one frame, to the byte */
	commit(a, XI_FRAME_MESSAGE, 50, NULL, 0, 1500);
	commit(a, XI_FRAME_REQUEST, 51, &seg, 1, 0);
	xi_stream_flush(&conn_a);
	CHECK_EQ(ab.in, length);
	CHECK_OP(a->stream.frame_run, >, XI_BULK_MAX);
	run();
	CHECK_EQ(b->lost, 0);
	check_landed(b, 0, 0, 4096);
	close_pair();
}

/* However many frames come, data go on. */
static void test_data_do_not_starve(void)
{
	struct xi_seg seg = { .slot = 4, .length = 1u << 20 };
	uint32_t id = 2;

	open_pair(PIPE_BYTES, 0);
	ab.room = 20000;
	commit(a, XI_FRAME_REQUEST, 1, &seg, 1, 0);
	for (int round = 0; b->expect_next[4] == 0 || b->expect_next[4] < b->expect_end[4]; round++) {
		CHECK(round < 3000);
		while (a->stream.entry_count < 30)
			commit(a, XI_FRAME_MESSAGE, id++, NULL, 0, 1500);
		xi_stream_writable(&a->stream);
		(void)xi_stream_process(&conn_b, 64);
		b->logged = 0;
		if (ab.in == ab.out)
			ab.in = ab.out = 0;
	}
	check_landed(b, 4, 0, 1u << 20);
	run();
	CHECK_EQ(b->lost, 0);
	close_pair();
}

static void test_retract(void)
{
	struct xi_seg seg = { .slot = 4, .length = 200000 };
	uint64_t p[5];

	open_pair(PIPE_BYTES, 0);
	ab.room = 10;
	for (int round = 0; round < 400; round++) { /* more often than there are frame buffers */
		p[0] = commit_plain(a, XI_FRAME_MESSAGE, 1);
		p[1] = commit(a, XI_FRAME_REQUEST, 2, &seg, 1, 0);
		p[2] = commit_plain(a, XI_FRAME_MESSAGE, 3);
		p[3] = commit(a, XI_FRAME_REQUEST, 4, &seg, 1, 0); /* the slot again: retracting 2 frees it */
		xi_stream_flush(&conn_a);
		CHECK_EQ(p[3], p[0] + 3);
		CHECK_EQ(xi_stream_tx_unsent(&conn_a), p[1]); /* ten bytes of the first have left */
		CHECK(!xi_stream_retract(&conn_a, p[0]));
		CHECK(xi_stream_retract(&conn_a, p[1]));
		CHECK(!xi_stream_retract(&conn_a, p[1]));
		CHECK_EQ(xi_stream_tx_unsent(&conn_a), p[2]);
		CHECK(xi_stream_retract(&conn_a, p[3]));
		p[4] = commit(a, XI_FRAME_REQUEST, 5, &seg, 1, 0);
		CHECK_EQ(p[4], p[3] + 1);
		if (round % 2)
			CHECK(xi_stream_retract(&conn_a, p[4]));
		ab.room = PIPE_BYTES;
		run();
		CHECK_EQ(b->lost, 0);
		CHECK_EQ(frames_logged(b), round % 2 ? 2 : 3);
		CHECK_EQ(b->log[0].id, 1);
		CHECK_EQ(b->log[1].id, 3);
		if (round % 2 == 0)
			check_landed(b, 4, 0, seg.length);
		else
			CHECK_EQ(b->logged, 2);
		CHECK(!xi_stream_retract(&conn_a, p[2]));
		b->logged = 0;
		ab.in = ab.out = 0;
		ab.room = 10;
		if (a->waiting)
			xi_stream_writable(&a->stream);
	}
	close_pair();
}

static void test_drop_segs(void)
{
	struct xi_seg one[2] = { { .slot = 4, .length = 1u << 20 }, { .slot = 0, .length = 4096 } };
	struct xi_seg two = { .slot = 5, .length = 1u << 20 }, three = { .slot = 1, .length = 4096 };
	unsigned pieces = 0;

	open_pair(PIPE_BYTES, XI_RESERVE_DIGEST);
	ab.room = 30000; /* the first piece of slot 4 has begun */
	commit(a, XI_FRAME_REQUEST, 1, one, 2, 0);
	commit(a, XI_FRAME_REQUEST, 2, &two, 1, 0);
	xi_stream_flush(&conn_a);
	commit(a, XI_FRAME_REQUEST, 3, &three, 1, 0); /* not gathered yet */
	xi_stream_drop_segs(&conn_a, 1);
	xi_stream_drop_segs(&conn_a, 3);
	commit_plain(a, XI_FRAME_CANCEL, 1);
	ab.room = PIPE_BYTES;
	run();
	CHECK_EQ(b->lost, 0);
	CHECK_EQ(frames_logged(b), 4);
	for (unsigned i = 0; i < b->logged; i++)
		if (b->log[i].what == LOG_DATA && b->log[i].slot != 5) {
			CHECK_EQ(b->log[i].slot, 4);
			pieces++;
		}
	CHECK_EQ(pieces, 1);
	check_landed(b, 4, 0, XI_BULK_MAX);
	check_landed(b, 5, 0, 1u << 20);
	CHECK_EQ(b->expect_next[1], 0);
	close_pair();
}

/* A slot whose data were under way is announced again: only a peer that ended the request early makes that happen. */
static void test_slot_announced_again(void)
{
	struct xi_seg seg = { .slot = 4, .length = 1u << 20 };

	open_pair(PIPE_BYTES, 0);
	ab.room = 100;
	commit(a, XI_FRAME_REQUEST, 1, &seg, 1, 0);
	commit(a, XI_FRAME_REQUEST, 2, &seg, 1, 0);
	xi_stream_flush(&conn_a);
	commit(a, XI_FRAME_REQUEST, 3, &seg, 1, 0);
	/* Of the data before only the piece is left that has begun; the new ones wait with their frame. */
	CHECK_EQ(a->stream.turn_first, 0);
	CHECK_EQ(a->stream.chunk_count, 1);
	CHECK_OP(a->stream.chunk_sent, >, 0);
	CHECK_EQ(a->stream.entry_count, 1);
	close_pair();
}

static void test_pipe_errors(void)
{
	struct xi_wait wait;

	/* The way out breaks; what had come in is handed up first. */
	open_pair(PIPE_BYTES, 0);
	commit_plain(b, XI_FRAME_REPLY, 1);
	xi_stream_flush(&conn_b);
	ab.send_error = -EPIPE;
	commit_plain(a, XI_FRAME_MESSAGE, 2);
	xi_stream_flush(&conn_a);
	CHECK_EQ(a->lost, 0);
	CHECK_EQ(xi_stream_arm(&conn_a, false, &wait), XI_BUSY);
	run();
	CHECK_EQ(a->logged, 1);
	CHECK_EQ(a->overs, 1);
	CHECK_EQ(a->code, -EPIPE);
	CHECK_EQ(xi_stream_arm(&conn_a, false, &wait), 0);
	close_pair();

	/* The end of the stream comes behind frames, and in the middle of one. */
	open_pair(PIPE_BYTES, 0);
	commit_plain(b, XI_FRAME_REPLY, 1);
	commit_plain(b, XI_FRAME_REPLY, 2);
	xi_stream_flush(&conn_b);
	ba.in -= 1;
	ba.shut = true;
	run();
	CHECK_EQ(a->logged, 1);
	CHECK_EQ(a->overs, 1);
	CHECK_EQ(a->code, 0);
	close_pair();
}

static void test_out_of_memory_in_the_kernel(void)
{
	struct xi_wait wait;

	open_pair(PIPE_BYTES, 0);
	ab.send_error = -ENOBUFS;
	commit_plain(a, XI_FRAME_MESSAGE, 1);
	xi_stream_flush(&conn_a);
	CHECK_EQ(xi_stream_arm(&conn_a, false, &wait), 0); /* the timer will see to it */
	CHECK(!a->waiting);
	CHECK_EQ(xenidc_loop_step(loop, -1), 1);
	CHECK_EQ(ab.in, 0);
	ab.send_error = 0;
	CHECK_EQ(xenidc_loop_step(loop, -1), 1);
	CHECK(ab.in > 0);
	ab.send_error = -ENOBUFS; /* the end while the timer runs */
	commit_plain(a, XI_FRAME_MESSAGE, 2);
	xi_stream_flush(&conn_a);
	CHECK(!xi_stream_close(&a->stream));
	close_pair();
	CHECK_EQ(xenidc_loop_step(loop, 10000000), 0);
}

/* The end sends what has begun and all frames, and no new data. */
static void test_close_sends_frames(void)
{
	struct xi_seg seg = { .slot = 4, .length = 1u << 20 };

	open_pair(PIPE_BYTES, 0);
	ab.room = 30000;
	commit(a, XI_FRAME_REQUEST, 1, &seg, 1, 0);
	xi_stream_flush(&conn_a);
	commit_plain(a, XI_FRAME_DISCONNECT, 0);
	ab.room = PIPE_BYTES;
	CHECK(xi_stream_close(&a->stream));
	CHECK(!a->waiting);
	CHECK_EQ(xi_stream_process(&conn_a, 64), 0);
	run();
	CHECK_EQ(frames_logged(b), 2);
	CHECK_EQ(b->logged, 3);
	CHECK_EQ(b->log[2].what, LOG_FRAME);
	close_pair();

	open_pair(PIPE_BYTES, 0);
	ab.room = 30;
	commit_plain(a, XI_FRAME_DISCONNECT, 0);
	commit_plain(a, XI_FRAME_DISCONNECT, 0);
	CHECK(!xi_stream_close(&a->stream));
	close_pair();
}

/* No memory at each step of reserve(): an error that says so, and nothing is left behind. */
static void test_no_memory(void)
{
	for (unsigned k = 0;; k++) {
		struct xenidc_error err = { 0 };
		int r;
		fault_os_install();
		open_pipe(&ab, 0);
		open_pipe(&ba, 0);
		a = open_side(&conn_a, &ab, &ba);
		struct xenidc_budget budget = { .size = sizeof(budget) };
		CHECK_EQ(xenidc_budget_complete(&budget, NULL), 0);
		xi_layout_make(&budget, &a->tx_layout);
		fault_os_set((struct fault){ .call = "mmap", .countdown = k, .repeat = 1 });
		r = xi_stream_reserve(&conn_a, &a->tx_layout, &a->tx_layout, 0, &a->tx, &a->rx, &err);
		unsigned fired = fault_os_fired();
		fault_os_clear();
		CHECK_EQ(r, fired ? -ENOMEM : 0);
		if (fired)
			CHECK_HAS(err.text, "cannot reserve");
		close_side(&a);
		fault_os_remove();
		if (!fired)
			break;
		CHECK_OP(k, <, 20);
	}
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		TEST(test_hello_and_frames),
		TEST(test_hello_of_somebody_else),
		TEST(test_any_chunking),
		TEST(test_many_frames_in_one_read),
		TEST(test_budget),
		TEST(test_the_end_inside_a_frame),
		TEST(test_frames_overtake_data),
		TEST(test_guesses),
		TEST(test_data_wait_for_their_frame),
		TEST(test_data_do_not_starve),
		TEST(test_retract),
		TEST(test_drop_segs),
		TEST(test_slot_announced_again),
		TEST(test_pipe_errors),
		TEST(test_out_of_memory_in_the_kernel),
		TEST(test_close_sends_frames),
		TEST(test_no_memory),
	};

	return stream_pair_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
