/* SPDX-License-Identifier: MIT */
/*
 * What only shared memory has: words that the peer may change at any moment, descriptors that it hands over, a
 * doorbell.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "model.h"
#include "shm_side.h"
#include "tests/lib/check.h"

#ifndef MFD_HUGETLB
#define MFD_HUGETLB 4u
#endif
#define EVENT_WORD 64
#define RING 4096
#define WRITES_LEAST 100000u

static struct target target;
static struct link l;
static struct raw_bytes frame;
static unsigned cases;

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	CHECK(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void begin(void)
{
	link_open(&l, LINK_SHM, &target, cases & 1);
	link_up(&l);
	model_prepare(&l);
}

static void store64(uint32_t at, uint64_t value)
{
	__atomic_store_n((uint64_t *)(void *)(l.shm->own + at), value, __ATOMIC_SEQ_CST);
}

static void disconnect(void)
{
	raw_disconnect(&frame, 0, XENIDC_REASON_CLOSED, "");
	link_send_frame(&l, &frame);
}

/* How it ended; nothing is left of it. */
static void over(const char *what, uint32_t detail, bool refused)
{
	target_over(&target);
	if (refused ? target.why.by_peer || target.why.reason != XENIDC_REASON_PROTOCOL : !target.why.by_peer)
		check_failed(__FILE__, __LINE__, "%s %#x: %s", what, detail, target.why.text);
	link_close(&l);
	cases++;
	if (cases % 16 == 0) {
		target_good(&target);
		target_clean(&target);
	}
}

static void turns(unsigned n)
{
	while (n--)
		target_turn(&target);
}

/* --- Words of the ring */

/* Every bit of the count, in the first lap and in later ones. */
static void counts(void)
{
	for (unsigned lap = 0; lap < 3; lap++)
		for (unsigned bit = 0; bit < 32; bit++) {
			uint32_t next, stale, wrong;
			begin();
			while (l.shm->put < lap * l.shm->tx.frames + lap) {
				raw_ping(&frame, 1);
				link_send_frame(&l, &frame);
				turns(1);
			}
			next = shm_next_count(&l);
			stale = next - 1;
			wrong = next ^ 1u << bit;
			raw_ping(&frame, 1);
			memcpy(shm_next_slot(&l) + 8, frame.b, frame.n);
			shm_publish(&l, wrong);
			turns(2);
			/* It may just be the word that means that nothing is there yet. */
			if (wrong == stale) {
				l.shm->put--;
				disconnect();
			}
			over("count", wrong, wrong != stale);
		}
}

/* Back to what was read already; and so far ahead that the ring has lapped itself. */
static void sequences_that_move(void)
{
	uint32_t old;

	begin();
	/* The slot that was read first: it comes again only after a lap. */
	raw_ping(&frame, 1);
	memcpy(l.shm->own + RING + 8, frame.b, frame.n);
	old = 7;
	memcpy(l.shm->own + RING, &old, 4);
	turns(2);
	CHECK(!target.disconnected);
	disconnect();
	over("a slot that was read", old, false);
	begin();
	for (unsigned i = 0; i < l.shm->tx.frames + 1; i++) {
		raw_ping(&frame, 1);
		memcpy(shm_next_slot(&l) + 8, frame.b, frame.n);
		store64(RING + (uint32_t)(l.shm->put % l.shm->tx.frames * l.shm->tx.stride),
			shm_next_count(&l) | (l.shm->put + 1) % l.shm->tx.frames << 32);
		l.shm->put++;
	}
	turns(2);
	over("a ring that lapped itself", 0, true);
}

/* How we want to be told: every mode, event indices of all kinds. The target answers a request, and so looks there. */
static void event_words(void)
{
	static const uint32_t indices[] = { 0, 1, 3, 4, 5, 100, 0x7fffffff, 0x80000000, 0xffffffff };

	for (uint64_t mode = 0; mode < 40; mode++)
		for (unsigned i = 0; i < sizeof(indices) / sizeof(indices[0]); i++) {
			uint64_t m = mode < 8 ? mode : (uint64_t)1 << (mode - 8);
			begin();
			store64(EVENT_WORD, m << 32 | indices[i]);
			target_answer(&target);
			turns(2);
			/* Mode 3 says that we have ended; but we go on, which is our own affair. */
			if (m <= 3)
				disconnect();
			over("event word", (uint32_t)m, m > 3);
		}
}

/* A doorbell that is rung again and again, and never heard: the target does not wait, nor keep anything. */
static void doorbell_that_nobody_hears(void)
{
	begin();
	for (unsigned i = 0; i < 3000; i++) {
		store64(EVENT_WORD, (uint64_t)2 << 32 | (uint32_t)(l.shm->taken + 1));
		raw_request(&frame, RAW_ID(1, i + 1), i + 2, NULL, 0, 0);
		link_send_frame(&l, &frame);
		turns(1);
		target_answer(&target);
		while (shm_take_frame(&l, &frame))
			;
	}
	target_good(&target);
	disconnect();
	over("a doorbell that nobody hears", 0, false);
}

/* What was looked at when the connection was made is not looked at again. */
static void magic_that_changes(void)
{
	begin();
	memset(l.shm->own, 0xff, 64);
	raw_ping(&frame, 1);
	link_send_frame(&l, &frame);
	turns(2);
	CHECK(!target.disconnected);
	disconnect();
	over("a magic number that changes later", 0, false);
}

static void test_words(void)
{
	cases = 0;
	target_start(&target, "shm");
	counts();
	sequences_that_move();
	event_words();
	doorbell_that_nobody_hears();
	magic_that_changes();
	target_stop(&target);
	printf("words: %u cases\n", cases);
}

/* --- Packets when frames flow */

static void packet(const char *what, const void *bytes, uint32_t length, unsigned nfds)
{
	int fds[SHM_FDS_MAX];
	unsigned before = count_fds();

	begin();
	for (unsigned i = 0; i < nfds; i++)
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	/* Nothing is under way that could have asked for a doorbell. */
	turns(3);
	shm_send_packet(&l, bytes, length, fds, nfds);
	for (unsigned i = 0; i < nfds; i++)
		close(fds[i]);
	/* It looks there only now and then while it is busy with memory. */
	for (int i = 0; i < 100 && !target.idle; i++)
		xenidc_loop_step(target.loop, 1000000);
	over(what, length, true);
	target_clean(&target);
	if (count_fds() != before)
		check_failed(__FILE__, __LINE__, "%s: %u descriptors, %u before", what, count_fds(), before);
}

static void test_packets(void)
{
	static struct raw_bytes hello;
	static uint8_t bytes[8192];

	cases = 0;
	target_start(&target, "shm");
	packet("an empty packet", bytes, 0, 0);
	packet("two bytes", bytes, 2, 0);
	packet("a packet of 2049 bytes", bytes, 2049, 0);
	packet("a packet of 8192 bytes", bytes, 8192, 0);
	packet("a descriptor with a doorbell", bytes, 1, 1);
	packet("descriptors with a doorbell", bytes, 1, 8);
	packet("a descriptor with nothing", bytes, 0, 1);
	raw_connect(&hello, &raw_usual);
	packet("a connect message", hello.b, hello.n, 0);
	raw_ready(&hello, NULL, 0);
	packet("READY again", hello.b, hello.n, 1);
	target_stop(&target);
	printf("packets: %u cases\n", cases);
}

/* More doorbells than were ever asked for. */
static void test_doorbells(void)
{
	unsigned n;

	cases = 0;
	target_start(&target, "shm");
	begin();
	for (n = 0; n < 100000 && !target.disconnected; n++) {
		shm_send_packet(&l, "", 1, NULL, 0);
		turns(1);
	}
	CHECK(target.disconnected);
	over("a storm of doorbells", n, true);
	target_stop(&target);
	printf("doorbells: refused after %u\n", n);
}

/* --- What is handed over as memory */

struct handed {
	const char *what;
	int fds[SHM_FDS_MAX];
	unsigned n;
	bool good;
};

static int file_of(const char *path, uint32_t bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	unlink(path);
	CHECK_EQ(ftruncate(fd, bytes), 0);
	return fd;
}

/* A memfd like a good one, but for its seals. */
static int sealed(unsigned seals)
{
	return shm_new_memfd(l.shm->tx.bytes, seals);
}

static int huge(uint32_t bytes)
{
	int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);

	/* Where there is none, an ordinary one of the wrong size. */
	if (fd < 0)
		return shm_new_memfd(bytes + 4096, SHM_SEALS);
	if (ftruncate(fd, 2u << 20) == 0)
		(void)fcntl(fd, F_ADD_SEALS, SHM_SEALS);
	return fd;
}

static int pipe_end(void)
{
	int ends[2];

	CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
	close(ends[1]);
	return ends[0];
}

static int secret(uint32_t bytes)
{
	int fd = (int)syscall(SYS_memfd_secret, 0);

	if (fd < 0) /* not on this kernel */
		return sealed(0);
	CHECK_EQ(ftruncate(fd, bytes), 0);
	return fd;
}

static int without_magic(void)
{
	int fd = sealed(0);

	CHECK_EQ(pwrite(fd, "XIDS", 4, 0), 4);
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, SHM_SEALS), 0);
	return fd;
}

/* What is no memfd. */
static const char *some_file(unsigned k, int *fd, uint32_t bytes)
{
	switch (k) {
	case 0:
		*fd = pipe_end();
		return "a pipe";
	case 1:
		*fd = file_of("/tmp/xenidc-hostile-file", bytes);
		return "a file";
	case 2:
		*fd = file_of("/dev/shm/xenidc-hostile-file", bytes);
		return "a file on a tmpfs";
	case 3:
		*fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
		return "a device";
	case 4:
		*fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return "a folder";
	default:
		*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		return "a socket";
	}
}
#define FILES 6u

/* What is one, but not as it has to be. */
static const char *some_memfd(unsigned k, int *fd, uint32_t bytes)
{
	switch (k) {
	case 0:
		*fd = shm_new_memfd(bytes - 4096, SHM_SEALS);
		return "a memfd that is too small by a page";
	case 1:
		*fd = shm_new_memfd(bytes + 4096, SHM_SEALS);
		return "a memfd that is too large by a page";
	case 2:
		*fd = shm_new_memfd(0, SHM_SEALS);
		return "an empty memfd";
	case 3:
		*fd = without_magic();
		return "a memfd without a magic number";
	case 4:
		*fd = huge(bytes);
		return "a memfd of huge pages";
	case 5:
		*fd = secret(bytes);
		return "a secret memfd";
	default: /* every set of seals but the whole */
		if (k - 6 >= SHM_SEALS)
			return NULL;
		*fd = sealed((k - 6) & SHM_SEALS);
		return "a memfd with too few seals";
	}
}

/* The k-th thing to hand over. False: there is none. */
static bool thing(unsigned k, struct handed *h)
{
	static const struct {
		const char *what;
		unsigned copies; /* of the descriptor of a good region */
	} numbers[] = {
		{ "nothing", 0 }, { "a good region", 1 }, { "a good region twice", 2 }, { "eight descriptors", 8 }
	};
	const unsigned n = sizeof(numbers) / sizeof(numbers[0]);

	*h = (struct handed){ .n = 1 };
	if (k < n) {
		h->what = numbers[k].what;
		h->n = numbers[k].copies;
		h->good = h->n == 1;
		for (unsigned i = 0; i < h->n; i++)
			h->fds[i] = dup(l.shm->memfd);
		return true;
	}
	if (k < n + FILES)
		h->what = some_file(k - n, &h->fds[0], l.shm->tx.bytes);
	else
		h->what = some_memfd(k - n - FILES, &h->fds[0], l.shm->tx.bytes);
	return h->what != NULL;
}

/* Where our region is due, hand over something else. */
static void hand_over(const struct handed *h, unsigned k, bool accepts)
{
	static struct raw_bytes hello;
	uint64_t limit = check_now() + 3000000000u * (uint64_t)check_factor();
	uint8_t region[512];

	if (accepts)
		raw_accept(&hello, &raw_usual, region, shm_export(&l, region));
	else
		raw_ready(&hello, region, shm_export(&l, region));
	shm_send_packet(&l, hello.b, hello.n, h->fds, h->n);
	for (unsigned i = 0; i < h->n; i++)
		close(h->fds[i]);
	while (!target.idle && !(h->good && target.connected)) {
		CHECK(check_now() < limit);
		target_turn(&target);
	}
	if (h->good == !target.connected)
		check_failed(__FILE__, __LINE__, "%s (%u): connected: %d, %s", h->what, k, target.connected,
			     target.why.text);
	if (!h->good)
		CHECK(target.why.reason == XENIDC_REASON_PROTOCOL || target.why.reason == XENIDC_REASON_RESOURCE);
	if (target.connected) {
		l.up = true;
		disconnect();
	}
	target_over(&target);
}

static void things(bool accepts)
{
	static struct raw_bytes hello;
	struct handed h;

	for (unsigned k = 0;; k++) {
		unsigned before = count_fds();
		link_open(&l, LINK_SHM, &target, accepts);
		shm_make_region(&l);
		if (accepts) {
			CHECK(link_recv_hello(&l, &hello));
		} else {
			raw_connect(&hello, &raw_usual);
			link_send_hello(&l, &hello);
			CHECK(link_recv_hello(&l, &hello));
		}
		if (!thing(k, &h)) {
			link_close(&l);
			target_over(&target);
			break;
		}
		hand_over(&h, k, accepts);
		link_close(&l);
		target_clean(&target);
		if (count_fds() != before)
			check_failed(__FILE__, __LINE__, "%s: %u descriptors, %u before", h.what, count_fds(), before);
		cases++;
	}
	target_good(&target);
}

static void test_memory_handed_over(void)
{
	cases = 0;
	target_start(&target, "shm");
	things(false);
	things(true);
	target_stop(&target);
	printf("memory handed over: %u cases\n", cases);
}

/* --- Memory taken away again: the kernel refuses, and if it did not, nothing would fault */

static void test_memory_taken_away(void)
{
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	char path[64];
	int again;

	cases = 0;
	target_start(&target, "shm");
	begin();
	CHECK(ftruncate(l.shm->memfd, 4096) < 0 && errno == EPERM);
	CHECK(ftruncate(l.shm->memfd, 0) < 0 && errno == EPERM);
	CHECK(ftruncate(l.shm->memfd, l.shm->tx.bytes * 2) < 0 && errno == EPERM);
	(void)!fallocate(l.shm->memfd, punch, 4096, l.shm->tx.bytes - 4096);
	(void)madvise(l.shm->own + 4096, l.shm->tx.bytes - 4096, MADV_REMOVE);
	/* By another way to the same file. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", l.shm->memfd);
	again = open(path, O_RDWR | O_TRUNC | O_CLOEXEC);
	if (again >= 0) {
		CHECK(ftruncate(again, 0) < 0);
		(void)!fallocate(again, punch, 4096, l.shm->tx.bytes - 4096);
		close(again);
	}
	turns(3);
	if (!target.disconnected)
		disconnect();
	target_over(&target);
	link_close(&l);
	target_good(&target);
	target_clean(&target);
	target_stop(&target);
}

/* --- Peers who do not let go: what they may still see counts for the listener, until it accepts no more */

static void test_peers_that_do_not_let_go(void)
{
	static struct link links[16];
	static struct raw_bytes hello;
	uint32_t reason_length, length;
	const uint8_t *reason;
	uint8_t region[512];
	unsigned n = 0;

	target_start_bounded(&target, "shm", 10 * raw_layout(&raw_usual).bytes);
	for (;; n++) {
		CHECK_OP(n, <, 16);
		link_open(&links[n], LINK_SHM, &target, false);
		raw_connect(&hello, &raw_usual);
		link_send_hello(&links[n], &hello);
		CHECK(link_recv_hello(&links[n], &hello));
		if (hello.b[4] == RAW_REFUSE)
			break;
		shm_import(&links[n], &hello);
		length = shm_export(&links[n], region);
		raw_ready(&hello, region, length);
		link_send_hello(&links[n], &hello);
		target_up(&target);
		CHECK_EQ(xenidc_channel_close(target.channel, 0), 0);
		target_over(&target);
		CHECK_EQ(xi_alive(XI_OBJECT_QUARANTINE), n + 1);
		target_good(&target);
	}
	reason = raw_find(hello.b, hello.n, RAW_REASON, &reason_length);
	CHECK(reason && reason_length > 2);
	CHECK_EQ(raw_get16(reason), XENIDC_REASON_LIMIT);
	CHECK_OP(n, >=, 3);
	for (unsigned i = 0; i <= n; i++)
		link_close(&links[i]);
	target_clean(&target);
	/* There is room again. */
	begin();
	disconnect();
	over("after the others have let go", 0, false);
	target_stop(&target);
	printf("peers that do not let go: %u, then no more\n", n);
}

/* --- Changes while it is read: a thread that never stops */

static struct {
	_Atomic bool stop;
	_Atomic(uint8_t *) region; /* NULL: rest */
	_Atomic bool resting;
	_Atomic uint64_t writes;
	uint32_t bytes, stride, frames;
} mutator;

static void *mutate(void *arg)
{
	uint64_t state = 88172645463325252u, writes = 0;

	(void)arg;
	while (!mutator.stop) {
		uint8_t *region = mutator.region;
		mutator.resting = !region;
		if (!region)
			continue;
		for (int i = 0; i < 64; i++) {
			uint32_t at, value;
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
			/* Bodies of frames and data, now and then a header or a word that matters. */
			at = RING + (uint32_t)(state % mutator.frames) * mutator.stride;
			at += 4 + (uint32_t)(state >> 20) % (state >> 60 ? 12 : mutator.stride - 8);
			if (state >> 58 == 7)
				at = (uint32_t)(state >> 20) % (mutator.bytes - 4);
			value = (uint32_t)(state >> 30);
			if (state & 0x10000)
				value &= 3;
			if (state >> 50 != 5 && at < RING)
				continue;
			__atomic_store_n((uint8_t *)(region + at), (uint8_t)value, __ATOMIC_RELAXED);
			writes++;
		}
		mutator.writes = writes;
	}
	return NULL;
}

static void rest(void)
{
	mutator.region = NULL;
	while (!mutator.resting)
		;
}

/* Good frames with good sequence words, whose contents change while they are read. */
static void play(uint32_t seed)
{
	static const struct raw_ref refs[2] = { { 1, 8, 4000 }, { RAW_IN | 1, 0, 50 } };
	uint32_t sequence = 1;

	target.busy = seed & 1;
	link_open(&l, LINK_SHM, &target, cases & 1);
	link_up(&l);
	mutator.bytes = l.shm->tx.bytes;
	mutator.stride = l.shm->tx.stride;
	mutator.frames = l.shm->tx.frames;
	mutator.resting = false;
	mutator.region = l.shm->own;
	for (uint32_t i = 0; i < 200 && !target.disconnected; i++) {
		if (i % 3 == 0)
			raw_request(&frame, RAW_ID(i / 3 % RAW_REQUESTS, 1 + i / 3 / RAW_REQUESTS), ++sequence, refs, 2,
				    16);
		else if (i % 3 == 1)
			raw_message(&frame, 32);
		else
			raw_ping(&frame, 1);
		link_send_frame(&l, &frame);
		turns(2);
		target_answer(&target);
	}
	rest();
	if (!target.disconnected)
		disconnect();
	(void)xenidc_channel_close(target.channel, 0);
	target_over(&target);
	link_close(&l);
	target.busy = true;
	cases++;
}

static void test_changes_while_it_is_read(void)
{
	uint64_t end = check_now() + 3000000000u;
	pthread_t thread;

	cases = 0;
	target_start(&target, "shm");
	mutator.stop = false;
	CHECK_EQ(pthread_create(&thread, NULL, mutate, NULL), 0);
	/* A busy machine may not let the thread run for a while. */
	for (uint32_t i = 0; check_now() < end || mutator.writes <= WRITES_LEAST; i++) {
		play(i);
		if (i % 64 == 0) {
			target_good(&target);
			target_clean(&target);
		}
	}
	mutator.stop = true;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	target_stop(&target);
	printf("changes while it is read: %u connections, %llu writes\n", cases, (unsigned long long)mutator.writes);
}

CHECK_MAIN(TEST(test_words), TEST(test_packets), TEST(test_doorbells), TEST(test_memory_handed_over),
	   TEST(test_memory_taken_away), TEST(test_peers_that_do_not_let_go), TEST(test_changes_while_it_is_read))
