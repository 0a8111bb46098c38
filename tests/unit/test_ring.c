/* SPDX-License-Identifier: MIT */
/* The rings in shared memory: frames, impossible values, and every interleaving of publishing and going to sleep. */
#define _GNU_SOURCE
#include "transport-local/ring.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/check.h"
#include "xenidc-core/base/limits.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"

#define HEADER 12u

/* Two regions, and both ends' views of them. */
struct pair {
	struct xi_layout layout;
	uint8_t *memory[2];
	struct xi_ring ring[2];
	void *tables[2];
	uint8_t *frame, *buffer;
};

static void pair_init(struct pair *p, uint32_t frames, uint32_t frame_max)
{
	*p = (struct pair){ .layout = { .frames = frames, .frame_max = frame_max, .ring_offset = XI_PAGE } };
	p->layout.frame_stride = (8 + frame_max + XI_LINE - 1) / XI_LINE * XI_LINE;
	p->layout.slots_offset = p->layout.bytes =
		XI_PAGE + (uint64_t)(frames * p->layout.frame_stride + XI_PAGE - 1) / XI_PAGE * XI_PAGE;
	for (int i = 0; i < 2; i++) {
		p->memory[i] = aligned_alloc(XI_PAGE, p->layout.bytes);
		CHECK(p->memory[i]);
		memset(p->memory[i], 0, p->layout.bytes);
		p->tables[i] = calloc(1, xi_ring_tx_bytes(&p->layout) + xi_ring_rx_bytes(&p->layout));
		CHECK(p->tables[i]);
		xi_ring_open_tx(&p->ring[i], p->memory[i], &p->layout, p->tables[i]);
	}
	for (int i = 0; i < 2; i++)
		CHECK(xi_ring_open_rx(&p->ring[i], p->memory[!i], &p->layout,
				      (uint8_t *)p->tables[i] + xi_ring_tx_bytes(&p->layout)));
	/* Exactly as large as promised, so that a sanitizer sees what goes beyond. */
	p->frame = calloc(1, p->layout.frame_stride);
	p->buffer = calloc(1, (frame_max + 63) / 64 * 64);
	CHECK(p->frame && p->buffer);
}

static void pair_fini(struct pair *p)
{
	for (int i = 0; i < 2; i++) {
		free(p->memory[i]);
		free(p->tables[i]);
	}
	free(p->frame);
	free(p->buffer);
}

/* A frame of `length` bytes whose content follows from `seed`. */
static void make_frame(uint8_t *frame, uint32_t length, uint32_t seed)
{
	uint16_t body = (uint16_t)(length - HEADER);

	for (uint32_t i = 0; i < length; i++)
		frame[i] = (uint8_t)(seed * 31 + i * 7);
	memcpy(frame + 2, &body, sizeof(body));
}

static void put(struct pair *p, int from, uint32_t length, uint32_t seed)
{
	uint64_t position = p->ring[from].tx_position;

	make_frame(xi_ring_begin(&p->ring[from]), length, seed);
	CHECK_EQ(xi_ring_put(&p->ring[from], length), position + 1);
}

static void get(struct pair *p, int to, uint32_t length, uint32_t seed)
{
	CHECK_EQ(xi_ring_get(&p->ring[to], p->buffer), length);
	make_frame(p->frame, length, seed);
	CHECK_MEM(p->buffer, p->frame, length);
}

/* A frame the other way, which carries the receipt for what was read. */
static void receipt(struct pair *p, int from)
{
	put(p, from, HEADER, 0);
	get(p, !from, HEADER, 0);
}

static uint64_t *slot_word(struct pair *p, int of, uint32_t slot)
{
	return (uint64_t *)(void *)(p->memory[of] + XI_PAGE + (size_t)slot * p->layout.frame_stride);
}

static uint64_t *event_word(struct pair *p, int of)
{
	return (uint64_t *)(void *)(p->memory[of] + 64);
}

static uint64_t word_of(uint32_t count, uint32_t next, uint32_t read)
{
	return count | (uint64_t)next << 32 | (uint64_t)(uint16_t)read << 48;
}

static void test_every_length(void)
{
	static const uint32_t maxima[] = { 12, 13, 55, 56, 57, 120, 200 };

	for (unsigned m = 0; m < sizeof(maxima) / sizeof(maxima[0]); m++) {
		struct pair p;
		pair_init(&p, 4, maxima[m]);
		for (uint32_t length = HEADER; length <= maxima[m]; length++) {
			put(&p, 0, length, length);
			put(&p, 1, length, ~length);
			get(&p, 1, length, length);
			get(&p, 0, length, ~length);
		}
		pair_fini(&p);
	}
}

/* One slot less than there are can be outstanding, whatever was used before. */
static void test_full_and_empty(void)
{
	struct pair p;

	pair_init(&p, 8, 100);
	for (uint32_t lap = 0; lap < 50; lap++) {
		CHECK_EQ(xi_ring_get(&p.ring[1], p.buffer), 0);
		CHECK(!xi_ring_ready(&p.ring[1]));
		for (uint32_t i = 0; i < 7; i++)
			put(&p, 0, HEADER + i, lap * 8 + i);
		CHECK(xi_ring_ready(&p.ring[1]));
		for (uint32_t i = 0; i < 7; i++) {
			get(&p, 1, HEADER + i, lap * 8 + i);
			if (i == lap % 7)
				receipt(&p, 1);
		}
		receipt(&p, 1);
		CHECK_EQ(p.ring[0].tx_free_count, 7);
	}
	pair_fini(&p);
}

/* Two that take turns use two slots each. */
static void test_few_slots(void)
{
	struct pair p;
	unsigned used = 0;

	pair_init(&p, 64, 100);
	for (uint32_t i = 0; i < 100; i++) {
		put(&p, 0, 20, i);
		get(&p, 1, 20, i);
		receipt(&p, 1);
	}
	for (uint32_t slot = 0; slot < 64; slot++)
		used += *slot_word(&p, 0, slot) != 0;
	CHECK_EQ(used, 2);
	pair_fini(&p);
}

/* Counts, positions and receipts at the ends of their ranges. */
static void test_numbers_wrap(void)
{
	const uint64_t before = UINT32_MAX - 9;
	struct pair p;
	uint32_t *word = NULL;

	pair_init(&p, 4, 60);
	for (int i = 0; i < 2; i++) {
		struct xi_ring *from = &p.ring[i], *to = &p.ring[!i];
		from->tx_position = from->tx_receipts = from->tx_told = to->rx_position = before;
		for (uint32_t slot = 0; slot < 4; slot++) {
			from->tx_counts[slot] = to->rx_counts[slot] = UINT32_MAX - 2;
			*slot_word(&p, i, slot) = word_of(UINT32_MAX - 2, 0, 0);
		}
	}
	for (uint32_t i = 0; i < 20; i++) {
		struct xi_wait wait;
		CHECK(xi_ring_arm(&p.ring[1], XI_RING_FUTEX, &wait));
		CHECK_EQ(*wait.futex, wait.value);
		put(&p, 0, 20, i);
		CHECK(*wait.futex != wait.value);
		CHECK_EQ(xi_ring_flush(&p.ring[0], &word), XI_RING_WAKE);
		CHECK(word == wait.futex);
		CHECK_EQ(xi_ring_flush(&p.ring[0], &word), XI_RING_NOTHING);
		get(&p, 1, 20, i);
		CHECK_EQ(xi_ring_get(&p.ring[1], p.buffer), 0);
		receipt(&p, 1);
	}
	CHECK_EQ(p.ring[0].wakes, 20);
	CHECK_EQ(p.ring[0].suppressed, 0);
	pair_fini(&p);
}

/* Has it become an error, and does it stay one, also when the word is mended? */
static void check_broken(struct pair *p, uint32_t slot, uint64_t good)
{
	CHECK(xi_ring_ready(&p->ring[1]));
	CHECK_EQ(xi_ring_get(&p->ring[1], p->buffer), -EPROTO);
	CHECK(p->ring[1].broken);
	*slot_word(p, 0, slot) = good;
	CHECK_EQ(xi_ring_get(&p->ring[1], p->buffer), -EPROTO);
}

/* Whatever stands in a count: only two values mean something. In each slot of rings of all small sizes, in several
 * laps. */
static void test_impossible_counts(void)
{
	for (uint32_t frames = 2; frames <= 16; frames *= 2) {
		for (uint32_t sent = 0; sent < 3 * frames; sent++) {
			for (uint32_t more = 0; more < 8; more++) {
				struct pair p;
				uint32_t slot, count;
				pair_init(&p, frames, 56);
				for (uint32_t i = 0; i < sent; i++) {
					put(&p, 0, 20, i);
					get(&p, 1, 20, i);
					receipt(&p, 1);
				}
				slot = p.ring[1].rx_slot;
				count = p.ring[1].rx_counts[slot] + more - 3;
				make_frame(xi_ring_begin(&p.ring[0]), 20, 1);
				*slot_word(&p, 0, slot) = word_of(count, !slot, sent);
				if (more == 3)
					CHECK_EQ(xi_ring_get(&p.ring[1], p.buffer), 0);
				else if (more == 4)
					CHECK_EQ(xi_ring_get(&p.ring[1], p.buffer), 20);
				else
					check_broken(&p, slot, word_of(count - more + 4, !slot, sent));
				pair_fini(&p);
			}
		}
	}
}

static void test_impossible_chains(void)
{
	for (uint32_t next = 0; next <= UINT16_MAX; next += next < 20 ? 1 : 97) {
		struct pair p;
		pair_init(&p, 8, 56);
		make_frame(xi_ring_begin(&p.ring[0]), 20, 1);
		*slot_word(&p, 0, 0) = word_of(1, next, 0);
		if (next > 0 && next < 8)
			CHECK_EQ(xi_ring_get(&p.ring[1], p.buffer), 20);
		else
			check_broken(&p, 0, word_of(1, 1, 0));
		pair_fini(&p);
	}
}

static void test_impossible_receipts(void)
{
	for (uint32_t sent = 0; sent < 8; sent++) {
		for (uint32_t read = 0; read <= UINT16_MAX; read += read < 20 || read > UINT16_MAX - 9 ? 1 : 97) {
			struct pair p;
			pair_init(&p, 8, 56);
			for (uint32_t i = 0; i < sent; i++)
				put(&p, 1, 20, i);
			make_frame(xi_ring_begin(&p.ring[0]), 20, 1);
			*slot_word(&p, 0, 0) = word_of(1, 1, read);
			if (read <= sent) {
				CHECK_EQ(xi_ring_get(&p.ring[1], p.buffer), 20);
				CHECK_EQ(p.ring[1].tx_free_count, 7 - sent + read);
			} else {
				check_broken(&p, 0, word_of(1, 1, 0));
			}
			pair_fini(&p);
		}
	}
}

/* The other side answers, and so has read, but does not say so: nothing is overwritten for its sake. */
static void test_no_receipts(void)
{
	struct pair p;
	uint32_t *word;

	pair_init(&p, 8, 60);
	for (uint32_t i = 0; i < 7; i++)
		put(&p, 0, 20, i);
	CHECK_EQ(xi_ring_flush(&p.ring[0], &word), XI_RING_NOTHING);
	make_frame(xi_ring_begin(&p.ring[0]), 20, 99);
	CHECK_EQ(xi_ring_put(&p.ring[0], 20), 7);
	CHECK_EQ(xi_ring_flush(&p.ring[0], &word), XI_RING_BROKEN);
	for (uint32_t i = 0; i < 7; i++)
		get(&p, 1, 20, i);
	CHECK_EQ(xi_ring_get(&p.ring[1], p.buffer), 0);
	pair_fini(&p);
}

static void test_impossible_length(void)
{
	for (uint32_t body = 0; body <= UINT16_MAX; body += body < 300 ? 1 : 257) {
		struct pair p;
		uint16_t lie = (uint16_t)body;
		pair_init(&p, 2, 200);
		put(&p, 0, 50, 3);
		memcpy(p.memory[0] + XI_PAGE + 8 + 2, &lie, sizeof(lie));
		CHECK_EQ(xi_ring_get(&p.ring[1], p.buffer), body <= 188 ? (int)body + 12 : -EPROTO);
		pair_fini(&p);
	}
}

static void test_wrong_region(void)
{
	struct pair p;
	struct xi_ring ring = { 0 };

	pair_init(&p, 2, 60);
	p.memory[0][4]++; /* another format */
	CHECK(!xi_ring_open_rx(&ring, p.memory[0], &p.layout, p.tables[1]));
	memset(p.memory[0], 0, XI_PAGE);
	CHECK(!xi_ring_open_rx(&ring, p.memory[0], &p.layout, p.tables[1]));
	CHECK(!ring.peer);
	pair_fini(&p);
}

static void whom_to_notify(uint32_t batch, uint32_t index, uint32_t mode)
{
	const uint32_t before = UINT32_MAX - 1; /* wraps in the batch */
	enum xi_ring_notify want = XI_RING_NOTHING;
	uint32_t *word = NULL, slots[4];
	struct pair p;
	uint32_t at = index - before - 1; /* in the batch */

	pair_init(&p, 8, 60);
	p.ring[0].tx_position = p.ring[0].tx_receipts = p.ring[0].tx_told = before;
	for (uint32_t i = 0; i < batch; i++) {
		slots[i] = p.ring[0].tx_slot;
		put(&p, 0, 20, i);
	}
	*event_word(&p, 1) = (uint64_t)mode << 32 | index;
	if (batch && mode > XI_RING_CLOSED)
		want = XI_RING_BROKEN;
	else if (at < batch && mode == XI_RING_FUTEX)
		want = XI_RING_WAKE;
	else if (at < batch && mode == XI_RING_DOORBELL)
		want = XI_RING_RING;
	CHECK_EQ(xi_ring_flush(&p.ring[0], &word), want);
	if (want == XI_RING_WAKE)
		CHECK(word == (uint32_t *)(void *)slot_word(&p, 0, slots[at]));
	CHECK_EQ(p.ring[0].wakes, want == XI_RING_WAKE || want == XI_RING_RING);
	CHECK_EQ(xi_ring_flush(&p.ring[0], &word), want == XI_RING_BROKEN ? want : XI_RING_NOTHING);
	pair_fini(&p);
}

/* Event index and mode decide; everything in a window of 32 around the positions, for batches of 0 to 4. */
static void test_whom_to_notify(void)
{
	for (uint32_t batch = 0; batch <= 4; batch++)
		for (uint32_t index = UINT32_MAX - 15; index != 16; index++)
			for (uint32_t mode = 0; mode < 6; mode++)
				whom_to_notify(batch, index, mode);
}

static void test_arming(void)
{
	struct pair p;
	struct xi_wait wait = { 0 };
	uint32_t *word;

	pair_init(&p, 4, 60);
	CHECK(xi_ring_arm(&p.ring[1], XI_RING_DOORBELL, &wait));
	CHECK(!wait.futex);
	put(&p, 0, 20, 1);
	CHECK_EQ(xi_ring_flush(&p.ring[0], &word), XI_RING_RING);
	xi_ring_disarm(&p.ring[1]);
	put(&p, 0, 20, 2);
	CHECK_EQ(xi_ring_flush(&p.ring[0], &word), XI_RING_NOTHING);
	CHECK(!xi_ring_arm(&p.ring[1], XI_RING_FUTEX, &wait)); /* something is there */
	put(&p, 0, 20, 3);
	CHECK_EQ(xi_ring_flush(&p.ring[0], &word), XI_RING_NOTHING);
	CHECK_EQ(p.ring[0].suppressed, 2);
	pair_fini(&p);
}

static void test_words_about_ourselves(void)
{
	struct pair p;
	uint32_t *word;

	pair_init(&p, 4, 60);
	CHECK_EQ(xi_ring_peer_dispatch(&p.ring[0]), 0);
	xi_ring_publish_dispatch(&p.ring[1], 77);
	CHECK_EQ(xi_ring_peer_dispatch(&p.ring[0]), 77);
	CHECK(!xi_ring_peer_closed(&p.ring[0]));
	xi_ring_mark_closed(&p.ring[1]);
	CHECK(xi_ring_peer_closed(&p.ring[0]));
	put(&p, 0, 20, 1);
	CHECK_EQ(xi_ring_flush(&p.ring[0], &word), XI_RING_NOTHING);
	xi_ring_close_rx(&p.ring[0]);
	memset(p.memory[1], 0, p.layout.bytes);
	CHECK_EQ(xi_ring_peer_dispatch(&p.ring[0]), 77);
	CHECK(!xi_ring_ready(&p.ring[0]));
	put(&p, 0, 20, 2);
	CHECK_EQ(xi_ring_flush(&p.ring[0], &word), XI_RING_NOTHING);
	pair_fini(&p);
}

/*
 * Interleavings: a publisher (put, flush) and a sleeper (arm, then the kernel's own comparison) in two threads, of
 * which one runs at a time; at each access to shared memory the baton is passed as the schedule says. All schedules
 * are tried.
 */
#define STEPS 16
struct race {
	struct pair pair;
	pthread_mutex_t mutex;
	pthread_cond_t turn;
	int running; /* 0, 1; 2: nobody yet */
	bool finished[2];
	uint32_t schedule; /* bit k: who makes step k */
	unsigned step;
	enum xi_ring_mode mode;
	unsigned frames;
	enum xi_ring_notify notify;
	uint32_t *word;
	bool armed, slept;
	struct xi_wait wait;
};
static struct race *race;
static _Thread_local int self = -1;

/* With the mutex: whose step is next? */
static int next_runner(void)
{
	int who = race->step < STEPS ? (int)(race->schedule >> race->step++ & 1) : 0;

	return race->finished[who] ? !who : who;
}

static void wait_for_turn(void)
{
	while (race->running != self)
		pthread_cond_wait(&race->turn, &race->mutex);
}

static void sched_point(void)
{
	if (self < 0)
		return;
	pthread_mutex_lock(&race->mutex);
	race->running = next_runner();
	pthread_cond_broadcast(&race->turn);
	wait_for_turn();
	pthread_mutex_unlock(&race->mutex);
}

static void begin(int who)
{
	self = who;
	pthread_mutex_lock(&race->mutex);
	wait_for_turn();
	pthread_mutex_unlock(&race->mutex);
}

static void end(void)
{
	pthread_mutex_lock(&race->mutex);
	race->finished[self] = true;
	race->running = !self;
	pthread_cond_broadcast(&race->turn);
	pthread_mutex_unlock(&race->mutex);
}

static void *publisher(void *arg)
{
	(void)arg;
	begin(0);
	for (unsigned i = 0; i < race->frames; i++) {
		make_frame(xi_ring_begin(&race->pair.ring[0]), 20, 1);
		xi_ring_put(&race->pair.ring[0], 20);
	}
	race->notify = xi_ring_flush(&race->pair.ring[0], &race->word);
	end();
	return NULL;
}

static void *sleeper(void *arg)
{
	(void)arg;
	begin(1);
	race->armed = xi_ring_arm(&race->pair.ring[1], race->mode, &race->wait);
	sched_point();
	if (race->armed && race->mode == XI_RING_FUTEX)
		race->slept = __atomic_load_n(race->wait.futex, __ATOMIC_ACQUIRE) == race->wait.value;
	else
		race->slept = race->armed;
	end();
	return NULL;
}

static void run_schedule(enum xi_ring_mode mode, unsigned frames, uint32_t schedule)
{
	struct race r = { .mode = mode, .frames = frames, .schedule = schedule };
	enum xi_ring_notify wanted = mode == XI_RING_FUTEX ? XI_RING_WAKE : XI_RING_RING;
	pthread_t threads[2];

	pthread_mutex_init(&r.mutex, NULL);
	pthread_cond_init(&r.turn, NULL);
	pair_init(&r.pair, 4, 60);
	race = &r;
	r.running = 2;
	xi_sched_point = sched_point;
	CHECK_EQ(pthread_create(&threads[0], NULL, publisher, NULL), 0);
	CHECK_EQ(pthread_create(&threads[1], NULL, sleeper, NULL), 0);
	pthread_mutex_lock(&r.mutex);
	r.running = next_runner();
	pthread_cond_broadcast(&r.turn);
	pthread_mutex_unlock(&r.mutex);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	xi_sched_point = NULL;
	/* Who sleeps is notified; who is notified for a futex is notified at the right word. */
	if (r.slept && r.notify != wanted)
		check_failed(__FILE__, __LINE__, "lost wake-up: mode %d, %u frames, schedule %#x", mode, frames,
			     schedule);
	CHECK(r.notify == XI_RING_NOTHING || r.notify == wanted);
	if (r.notify == XI_RING_WAKE && r.slept)
		CHECK(r.word == r.wait.futex);
	CHECK_EQ(r.pair.ring[0].wakes + r.pair.ring[0].suppressed, 1);
	pair_fini(&r.pair);
	pthread_mutex_destroy(&r.mutex);
	pthread_cond_destroy(&r.turn);
}

/* Schedules with as many steps of the sleeper's as it makes, and those nearby; the rest only repeats these. */
static void test_interleavings(void)
{
	for (unsigned frames = 1; frames <= 2; frames++) {
		unsigned steps = frames + 8; /* more than both make together */
		for (uint32_t schedule = 0; schedule < 1u << steps; schedule++) {
			int ones = __builtin_popcount(schedule);
			if (ones < 4 || ones > 5)
				continue;
			run_schedule(XI_RING_FUTEX, frames, schedule);
			if (schedule % 4 == 0)
				run_schedule(XI_RING_DOORBELL, frames, schedule);
		}
	}
}

/*
 * The same on two processors, where stores wait in buffers. Both begin a round at the same moment, one publishes, the
 * other arms. Stores to memory that no cache has are made before, so that the next ones have to wait: without the
 * fences it happens within some thousand rounds that neither sees what the other did.
 */
#define ROUNDS 100000
#define COLD (32u << 20)
struct duel {
	struct pair pair;
	enum xi_ring_notify notify;
	uint8_t *cold[2];
	char space_before[XI_LINE];
	uint32_t round[2];
	char space_after[XI_LINE];
};

static void meet(struct duel *d, int who, uint32_t round)
{
	__atomic_store_n(&d->round[who], round, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; __atomic_load_n(&d->round[!who], __ATOMIC_ACQUIRE) < round; i++)
		if (i % 1024 == 1023)
			sched_yield();
}

/* On one processor nothing would be seen here: this thread runs on the first that it may use, or on the last. */
static void stay_on(bool first)
{
	cpu_set_t may, one;
	int chosen = -1;

	CHECK_EQ(sched_getaffinity(0, sizeof(may), &may), 0);
	for (int cpu = 0; cpu < CPU_SETSIZE && (chosen < 0 || !first); cpu++)
		if (CPU_ISSET(cpu, &may))
			chosen = cpu;
	CPU_ZERO(&one);
	CPU_SET(chosen, &one);
	CHECK_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
}

static void store_slowly(uint8_t *cold, uint32_t round)
{
	for (uint32_t i = 0; i < 4; i++)
		cold[(round * 4 + i) * 40503 * XI_LINE % COLD] = 1;
}

static void *duel_publisher(void *arg)
{
	struct duel *d = arg;
	uint32_t *word;

	stay_on(true);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		make_frame(xi_ring_begin(&d->pair.ring[0]), HEADER, 0);
		meet(d, 0, 3 * i + 1);
		store_slowly(d->cold[0], i);
		xi_ring_put(&d->pair.ring[0], HEADER);
		d->notify = xi_ring_flush(&d->pair.ring[0], &word);
		meet(d, 0, 3 * i + 2);
		meet(d, 0, 3 * i + 3);
		CHECK_EQ(xi_ring_get(&d->pair.ring[0], d->pair.frame), HEADER);
	}
	return NULL;
}

static void test_stores_in_buffers(void)
{
	struct duel d = { .notify = XI_RING_NOTHING };
	pthread_t thread;
	cpu_set_t before;

	pair_init(&d.pair, 8, 60);
	d.cold[0] = calloc(1, COLD);
	d.cold[1] = calloc(1, COLD);
	CHECK(d.cold[0] && d.cold[1]);
	CHECK_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
	CHECK_EQ(pthread_create(&thread, NULL, duel_publisher, &d), 0);
	stay_on(false);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		struct xi_wait wait;
		bool armed;
		meet(&d, 1, 3 * i + 1);
		for (volatile uint32_t wobble = i % 64; wobble; wobble--)
			;
		store_slowly(d.cold[1], i);
		armed = xi_ring_arm(&d.pair.ring[1], XI_RING_DOORBELL, &wait);
		meet(&d, 1, 3 * i + 2);
		if (armed && d.notify == XI_RING_NOTHING)
			check_failed(__FILE__, __LINE__, "lost wake-up in round %u", i);
		CHECK_EQ(xi_ring_get(&d.pair.ring[1], d.pair.buffer), HEADER);
		xi_ring_disarm(&d.pair.ring[1]);
		put(&d.pair, 1, HEADER, 0);
		meet(&d, 1, 3 * i + 3);
	}
	pthread_join(thread, NULL);
	CHECK_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
	free(d.cold[0]);
	free(d.cold[1]);
	pair_fini(&d.pair);
}

/* To and fro with futex sleeps, and every byte is the one that was meant. */
#define TURNS 30000
static void *answer(void *arg)
{
	struct pair *p = arg;
	uint8_t frame[64], buffer[64];
	uint32_t *word;

	for (uint32_t i = 0; i < TURNS; i++) {
		while (xi_ring_get(&p->ring[1], buffer) == 0)
			;
		make_frame(frame, 60, i);
		CHECK_MEM(buffer, frame, 60);
		memcpy(xi_ring_begin(&p->ring[1]), frame, 60);
		xi_ring_put(&p->ring[1], 60);
		if (xi_ring_flush(&p->ring[1], &word) == XI_RING_WAKE)
			xi_os->futex_wake(word, 1);
	}
	return NULL;
}

static void test_to_and_fro(void)
{
	struct pair p;
	pthread_t thread;
	struct xi_wait wait;
	uint32_t *word;

	pair_init(&p, 8, 60);
	CHECK_EQ(pthread_create(&thread, NULL, answer, &p), 0);
	for (uint32_t i = 0; i < TURNS; i++) {
		put(&p, 0, 60, i);
		xi_ring_flush(&p.ring[0], &word);
		while (xi_ring_arm(&p.ring[0], XI_RING_FUTEX, &wait)) {
			struct xi_futex_wait one = { .word = wait.futex, .value = wait.value };
			int e = xi_os->futex_wait(&one, 1, (int64_t)(XI_SECOND * check_factor()));
			CHECK(e == 0 || e == -EAGAIN || e == -EINTR);
		}
		get(&p, 0, 60, i);
	}
	pthread_join(thread, NULL);
	pair_fini(&p);
}

CHECK_MAIN(TEST(test_every_length), TEST(test_full_and_empty), TEST(test_few_slots), TEST(test_numbers_wrap),
	   TEST(test_impossible_counts), TEST(test_impossible_chains), TEST(test_impossible_receipts),
	   TEST(test_no_receipts), TEST(test_impossible_length), TEST(test_wrong_region), TEST(test_whom_to_notify),
	   TEST(test_arming), TEST(test_words_about_ourselves), TEST(test_interleavings), TEST(test_stores_in_buffers),
	   TEST(test_to_and_fro))
