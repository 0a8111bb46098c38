/* SPDX-License-Identifier: MIT */
/* The byte-stream engine: memory, connect messages, receiving. Sending is in stream_send.c. */
#include "stream_parts.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/crc32c.h"
#include "xenidc-core/base/cursor.h"
#include "xenidc-core/base/failpoint.h"
#include "xenidc-core/base/log.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/frame.h"
#include "xenidc-core/hello.h"

/*
 * How much to ask for at a time. Few bytes where bulk is expected, since what comes along in the staging buffer has to
 * be copied once more (below this a copy costs less than another system call); more and more while frames fill it.
 */
#define AHEAD_MIN (8u << 10)
#define AHEAD_MAX (256u << 10)
/* Behind a DATA frame: the head of the next, or some frames between. */
#define AHEAD_BULK 512u
/* Bytes received before another connection has its turn. */
#define RECEIVE_MAX (1u << 20)

enum parsed { PARSED_MORE_NEEDED, PARSED_BUDGET, PARSED_ENDED };

static size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

void xi_stream_start(struct xi_stream *s, struct xi_conn *conn, const struct xi_pipe *pipe)
{
	XI_ASSERT(!s->pipe && pipe->send && pipe->recv && pipe->wait && pipe->over);
	s->conn = conn;
	s->pipe = pipe;
}

/* ------------------------------------------------------------------------------------------------------------------
 * Memory
 */
static void unmap(uint8_t **map, size_t bytes)
{
	if (!*map)
		return;
	int r = xi_os->munmap(*map, bytes);
	XI_ASSERT(r == 0);
	xi_destroyed(XI_OBJECT_MAPPING);
	*map = NULL;
}

static int map(size_t bytes, int prot, int flags, uint8_t **ret)
{
	int error = 0;
	uint8_t *p = xi_os->mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0, &error);

	if (!p)
		return error;
	xi_created(XI_OBJECT_MAPPING);
	*ret = p;
	return 0;
}

/* Slots at their offsets in the layout. What stands before them there, rings of frames, takes no memory here. */
static int map_slots(const struct xi_layout *l, uint8_t **ret)
{
	size_t slots = l->bytes - l->slots_offset;
	int error = map(l->bytes, PROT_NONE, MAP_NORESERVE, ret);

	if (error || !slots)
		return error;
	if (xi_os->mmap(*ret + l->slots_offset, slots, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_POPULATE, -1, 0, &error))
		return 0;
	unmap(ret, l->bytes);
	return error;
}

/* Everything else, in one mapping: queue, flows, buffers, staging. */
static int map_work(struct xi_stream *s)
{
	size_t buffers, entries, flows, stack, staging;
	int error;

	s->stride = (uint32_t)round_up(XI_STREAM_FRAME_AT + s->tx.frame_max, XI_LINE);
	buffers = (size_t)(s->tx.frames + 1) * s->stride;
	entries = round_up(s->tx.frames * sizeof(*s->entries), XI_LINE);
	flows = round_up(s->tx.slots * sizeof(*s->flows), XI_LINE);
	stack = round_up((s->tx.frames + 1) * sizeof(*s->free_buffers), XI_LINE);
	/* A frame that is not whole yet stands before what is received next. */
	staging = XI_STREAM_PREFIX + XI_FRAME_MAX + AHEAD_MAX;
	s->work_bytes = round_up(buffers + entries + flows + stack + staging, XI_PAGE);
	error = map(s->work_bytes, PROT_READ | PROT_WRITE, MAP_POPULATE, &s->work);
	if (error)
		return error;
	s->buffers = s->work;
	s->entries = (void *)(s->buffers + buffers);
	s->flows = (void *)((uint8_t *)s->entries + entries);
	s->free_buffers = (void *)((uint8_t *)s->flows + flows);
	s->staging = (uint8_t *)s->free_buffers + stack;
	return 0;
}

int xi_stream_reserve(struct xi_conn *conn, const struct xi_layout *tx, const struct xi_layout *rx, uint32_t flags,
		      uint8_t **tx_base, uint8_t **rx_base, struct xenidc_error *err)
{
	struct xi_stream *s = xi_conn_priv(conn);
	int error;

	XI_ASSERT(!s->work && !(flags & XI_RESERVE_MAP) && rx->frame_max <= XI_FRAME_MAX);
	s->tx = *tx;
	s->rx = *rx;
	s->digest = flags & XI_RESERVE_DIGEST;
	s->ahead = AHEAD_MIN;
	error = map_slots(&s->tx, &s->tx_map);
	if (!error)
		error = map_slots(&s->rx, &s->rx_map);
	if (!error)
		error = map_work(s);
	if (error) {
		xi_stream_fini(s);
		return xi_error(err, error, XENIDC_REASON_RESOURCE,
				"cannot reserve %llu kB of memory for a channel (%s); lower its budget, or allow this "
				"process more memory (`ulimit -v`, a memory limit of its control group)",
				(unsigned long long)((tx->bytes + rx->bytes) >> 10),
				error == -ENOMEM ? "out of memory" : "refused by the kernel");
	}
	xi_stream_send_init(s);
	*tx_base = s->tx_map;
	*rx_base = s->rx_map;
	return 0;
}

void xi_stream_fini(struct xi_stream *s)
{
	xenidc_timer_stop(&s->retry);
	unmap(&s->tx_map, s->tx.bytes);
	unmap(&s->rx_map, s->rx.bytes);
	unmap(&s->work, s->work_bytes);
}

/* Nothing of our memory is reached by the peer, so there is nothing to say about it. */
void xi_stream_export_region(struct xi_conn *conn, struct xi_writer *w)
{
	(void)conn;
	(void)w;
}

int xi_stream_import_region(struct xi_conn *conn, struct xi_reader *r, uint8_t **rx_base, struct xenidc_error *err)
{
	struct xi_stream *s = xi_conn_priv(conn);

	XI_ASSERT(s->work && !s->framed);
	if (xi_reader_left(r))
		return xi_error(err, -EPROTO, XENIDC_REASON_PROTOCOL,
				"the peer describes memory, but a stream of bytes shares none; one of the two sides is "
				"not built right");
	s->framed = true;
	*rx_base = s->rx_map;
	return 0;
}

bool xi_stream_close(struct xi_stream *s)
{
	XI_ASSERT(!s->closed);
	s->closed = true;
	return xi_stream_push_last(s);
}

/* ------------------------------------------------------------------------------------------------------------------
 * Receiving
 */
static enum parsed lost(struct xi_stream *s, enum xenidc_reason reason, const char *text, uint32_t a, uint32_t b)
{
	s->over = true;
	xi_conn_lost(s->conn, reason, reason == XENIDC_REASON_LOST ? -EBADMSG : -EPROTO, "%s (%u, %u)", text, a, b);
	return PARSED_ENDED;
}

/* The first `n` bytes that wait in the staging buffer; NULL if there are fewer. */
static const uint8_t *staged(const struct xi_stream *s, uint32_t n)
{
	return s->end - s->at >= n ? s->staging + s->at : NULL;
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static bool damaged(const uint8_t *p, uint32_t length, uint32_t covered)
{
	return xi_stream_crc(length, get32(p + 8), p + XI_STREAM_PREFIX, covered) != get32(p + 4);
}

/* All bytes of a DATA frame have come. */
static enum parsed finish_bulk(struct xi_stream *s)
{
	const uint8_t *start = s->landing - s->bulk_length;

	XI_DASSERT(!s->bulk_left);
	s->landing = NULL;
	if (s->digest && xi_crc32c(0, start, s->bulk_length) != s->bulk_digest)
		return lost(s, XENIDC_REASON_LOST,
			    "data were damaged on the way: their checksum is wrong; connect again, and if it happens "
			    "often, suspect the network's hardware (slot, length)",
			    s->bulk_slot, s->bulk_length);
	if (!xi_conn_bulk_done(s->conn, s->bulk_slot, s->bulk_length))
		return PARSED_ENDED;
	return PARSED_MORE_NEEDED;
}

/* `n` bytes of the bulk under way have been written. */
static enum parsed landed(struct xi_stream *s, uint32_t n)
{
	XI_DASSERT(n <= s->bulk_left);
	s->landing += n;
	s->bulk_left -= n;
	if (!s->bulk_left)
		return finish_bulk(s);
	XI_FAILPOINT(stream_bulk_cut);
	return PARSED_MORE_NEEDED;
}

/* Bytes of bulk that came along in the staging buffer. */
static enum parsed land_staged(struct xi_stream *s)
{
	uint32_t n = s->end - s->at;

	n = n < s->bulk_left ? n : s->bulk_left;
	memcpy(s->landing, s->staging + s->at, n);
	s->at += n;
	if (n > AHEAD_BULK)
		s->ahead = AHEAD_MIN;
	return landed(s, n);
}

/* Does this DATA frame continue what the one before left open? How often lately, is how far we guess. */
static void judge_guess(struct xi_stream *s, uint32_t slot, uint32_t offset)
{
	if (!s->bulk_more)
		return;
	if (slot != s->bulk_slot || offset != s->bulk_offset + s->bulk_length)
		s->streak = 0;
	else if (s->streak < XI_STREAM_GUESSES)
		s->streak++;
}

/* `p`: a whole head, prefix included, whose length fits. */
static enum parsed parse_data(struct xi_stream *s, const uint8_t *p)
{
	uint32_t length = get32(p), data = length - XI_STREAM_DATA, slot, offset;

	if (damaged(p, length, XI_STREAM_DATA))
		return lost(s, XENIDC_REASON_LOST,
			    "a frame was damaged on the way: its checksum is wrong; connect again, and if it happens "
			    "often, suspect the network's hardware (kind, length)",
			    p[XI_STREAM_PREFIX], length);
	slot = get32(p + XI_STREAM_PREFIX + XI_STREAM_HEADER);
	offset = get32(p + XI_STREAM_PREFIX + XI_STREAM_HEADER + 4);
	if (slot >= s->rx.slots)
		return lost(s, XENIDC_REASON_PROTOCOL, "data for a slot that does not exist (slot, slots)", slot,
			    s->rx.slots);
	if (p[XI_STREAM_PREFIX + 1])
		return lost(s, XENIDC_REASON_PROTOCOL, "a DATA frame with flags that do not exist (slot, flags)", slot,
			    p[XI_STREAM_PREFIX + 1]);
	if (!s->digest && get32(p + 8))
		return lost(s, XENIDC_REASON_PROTOCOL, "a digest, but none was agreed on (slot, digest)", slot,
			    get32(p + 8));
	s->bulk_digest = get32(p + 8);
	s->landing = xi_conn_bulk(s->conn, slot, offset, data);
	if (!s->landing)
		return PARSED_ENDED;
	judge_guess(s, slot, offset);
	s->bulk_slot = slot;
	s->bulk_offset = offset;
	s->bulk_left = s->bulk_length = data;
	s->bulk_more = xi_conn_bulk_expected(s->conn, slot) > data;
	return PARSED_MORE_NEEDED;
}

static enum parsed parse_frame(struct xi_stream *s, uint32_t length)
{
	const uint8_t *p = staged(s, XI_STREAM_PREFIX + length);

	if (!p)
		return PARSED_MORE_NEEDED;
	if (damaged(p, length, length))
		return lost(s, XENIDC_REASON_LOST,
			    "a frame was damaged on the way: its checksum is wrong; connect again, and if it happens "
			    "often, suspect the network's hardware (kind, length)",
			    p[XI_STREAM_PREFIX], length);
	if (get32(p + 8))
		return lost(s, XENIDC_REASON_PROTOCOL, "a digest on a frame without data (kind, digest)",
			    p[XI_STREAM_PREFIX], get32(p + 8));
	memcpy(xi_conn_rx_buffer(s->conn), p + XI_STREAM_PREFIX, length);
	s->at += XI_STREAM_PREFIX + length;
	return xi_conn_frame(s->conn, length) ? PARSED_MORE_NEEDED : PARSED_ENDED;
}

/* Take one frame, or the start of bulk, off the staging buffer. MORE_NEEDED also when one was taken. */
static enum parsed parse_one(struct xi_stream *s)
{
	const uint8_t *p = staged(s, 4);
	uint32_t length, body;
	bool data;

	if (!p)
		return PARSED_MORE_NEEDED;
	length = get32(p);
	if (length < XI_STREAM_HEADER || length > XI_STREAM_DATA + XI_BULK_MAX)
		return lost(s, XENIDC_REASON_PROTOCOL, "a frame of an impossible length (length, most)", length,
			    XI_STREAM_DATA + XI_BULK_MAX);
	p = staged(s, XI_STREAM_PREFIX + XI_STREAM_HEADER);
	if (!p)
		return PARSED_MORE_NEEDED;
	data = p[XI_STREAM_PREFIX] == XI_FRAME_DATA;
	body = (uint32_t)p[XI_STREAM_PREFIX + 2] | (uint32_t)p[XI_STREAM_PREFIX + 3] << 8;
	if (data ? body != XI_STREAM_DATA - XI_STREAM_HEADER || length <= XI_STREAM_DATA
		 : length != XI_STREAM_HEADER + body || length > s->rx.frame_max)
		return lost(s, XENIDC_REASON_PROTOCOL, "a frame whose length does not fit its kind (kind, length)",
			    p[XI_STREAM_PREFIX], length);
	if (!data)
		return parse_frame(s, length);
	p = staged(s, XI_STREAM_PREFIX + XI_STREAM_DATA);
	if (!p)
		return PARSED_MORE_NEEDED;
	s->at += XI_STREAM_PREFIX + XI_STREAM_DATA;
	return parse_data(s, p);
}

/* Hand up what stands in the staging buffer. */
static enum parsed parse(struct xi_stream *s, unsigned *events, unsigned budget)
{
	for (;;) {
		uint32_t at = s->at;
		enum parsed r;

		if (s->at == s->end)
			return PARSED_MORE_NEEDED;
		if (*events >= budget)
			return PARSED_BUDGET;
		r = s->landing ? land_staged(s) : parse_one(s);
		if (r == PARSED_ENDED) {
			++*events;
			return r;
		}
		if (s->at == at)
			return PARSED_MORE_NEEDED;
		if (!s->landing)
			++*events;
	}
}

/* Places for DATA frames that continue the slot of the bulk under way, if the guess is right. */
static unsigned scatter_guesses(struct xi_stream *s, struct iovec *iov)
{
	uint8_t *to = s->landing + s->bulk_left;
	uint32_t more = s->streak ? xi_conn_bulk_expected(s->conn, s->bulk_slot) : 0;
	unsigned n = 0;

	more = more > s->bulk_length ? more - s->bulk_length : 0;
	for (s->guesses = 0; s->guesses < s->streak && more; s->guesses++) {
		uint32_t length = more < XI_BULK_MAX ? more : XI_BULK_MAX;
		iov[n++] = (struct iovec){ .iov_base = s->heads[s->guesses], .iov_len = sizeof(s->heads[0]) };
		iov[n++] = (struct iovec){ .iov_base = to, .iov_len = length };
		s->guessed[s->guesses] = length;
		to += length;
		more -= length;
	}
	s->tail = s->guesses * (sizeof(s->heads[0]) + XI_BULK_MAX);
	return n;
}

/* Where to receive to: straight to the landing slot while bulk is under way, the rest to the staging buffer. */
static unsigned scatter(struct xi_stream *s, struct iovec *iov)
{
	uint32_t kept = s->end - s->at;
	unsigned n = 0;

	if (s->at && kept)
		memmove(s->staging, s->staging + s->at, kept);
	s->at = 0;
	s->end = kept;
	XI_DASSERT(kept < XI_STREAM_PREFIX + XI_FRAME_MAX && !(s->landing && kept));
	if (!s->landing) {
		iov[n++] = (struct iovec){ .iov_base = s->staging + kept, .iov_len = s->ahead };
		return n;
	}
	iov[n++] = (struct iovec){ .iov_base = s->landing, .iov_len = s->bulk_left };
	n += scatter_guesses(s, iov + n);
	iov[n++] = (struct iovec){ .iov_base = s->staging + s->tail, .iov_len = AHEAD_BULK };
	return n;
}

unsigned xi_stream_want(struct xi_stream *s, struct iovec iov[XI_STREAM_SCATTER])
{
	/* What stands in the staging buffer first: a frame may be whole, or bulk may begin in it. */
	if (!s->pipe || !s->framed || s->over || s->closed || s->more)
		return 0;
	return scatter(s, iov);
}

/* Receive once. Returns as pipe->recv(); `*ret_drained` says that nothing more is there now. */
static ssize_t fill(struct xi_stream *s, bool *ret_drained)
{
	struct iovec iov[XI_STREAM_SCATTER];
	unsigned n = scatter(s, iov);
	size_t asked = 0;
	ssize_t r;

	for (unsigned i = 0; i < n; i++)
		asked += iov[i].iov_len;
	r = s->pipe->recv(s, iov, n);
	if (r <= 0)
		return r;
	XI_ASSERT((size_t)r <= asked);
	*ret_drained = (size_t)r < asked;
	if (!s->landing && !*ret_drained && s->ahead < AHEAD_MAX)
		s->ahead *= 2;
	return r;
}

/* Is this the head that was guessed? Whether it is valid besides is seen when it is parsed. */
static bool guess_is_right(const struct xi_stream *s, unsigned guess)
{
	const uint8_t *p = s->heads[guess], *frame = p + XI_STREAM_PREFIX;

	return get32(p) == XI_STREAM_DATA + s->guessed[guess] && frame[0] == XI_FRAME_DATA &&
	       frame[2] == XI_STREAM_DATA - XI_STREAM_HEADER && frame[3] == 0 &&
	       get32(frame + XI_STREAM_HEADER) == s->bulk_slot &&
	       get32(frame + XI_STREAM_HEADER + 4) == s->bulk_offset + s->bulk_length;
}

/* A guess was wrong, or its head is not whole: the `n` bytes from there on go to the staging buffer, in their order. */
static void gather_staged(struct xi_stream *s, unsigned guess, const uint8_t *data, uint32_t n)
{
	uint32_t to = 0;

	if (guess < s->guesses && n >= sizeof(s->heads[0]))
		s->streak = 0;
	for (; guess < s->guesses && n; guess++) {
		uint32_t head = n < sizeof(s->heads[0]) ? n : sizeof(s->heads[0]);
		memcpy(s->staging + to, s->heads[guess], head);
		to += head;
		n -= head;
		uint32_t length = n < s->guessed[guess] ? n : s->guessed[guess];
		memcpy(s->staging + to, data, length);
		data += length;
		to += length;
		n -= length;
	}
	XI_ASSERT(to <= s->tail && n <= AHEAD_BULK);
	memmove(s->staging + to, s->staging + s->tail, n);
	s->at = 0;
	s->end = to + n;
}

/* `n` bytes were received while bulk was under way: the rest of it, guesses, then what stands in staging[tail]. */
static enum parsed take_bulk(struct xi_stream *s, uint32_t n, unsigned *events)
{
	const uint8_t *data = s->landing + s->bulk_left;
	unsigned guess = 0;

	for (;;) {
		uint32_t part = n < s->bulk_left ? n : s->bulk_left;
		++*events;
		if (part && landed(s, part) == PARSED_ENDED)
			return PARSED_ENDED;
		n -= part;
		if (!n)
			return PARSED_MORE_NEEDED;
		if (guess == s->guesses || n < sizeof(s->heads[0]) || !guess_is_right(s, guess))
			break;
		if (parse_data(s, s->heads[guess]) == PARSED_ENDED)
			return PARSED_ENDED;
		XI_ASSERT(s->landing == data); /* the slot is the same */
		n -= sizeof(s->heads[0]);
		data += s->guessed[guess++];
	}
	gather_staged(s, guess, data, n);
	return PARSED_MORE_NEEDED;
}

/* The pipe has no more for us; has it ended? */
static void check_over(struct xi_stream *s, ssize_t r)
{
	XI_DASSERT(r <= 0);
	if (r == -EAGAIN)
		r = s->tx_error;
	else if (r == 0)
		r = 1; /* an end in order; only for the test below */
	if (!r)
		return;
	s->over = true;
	s->pipe->over(s, r == 1 ? 0 : (int)r);
}

static unsigned receive(struct xi_stream *s, unsigned budget)
{
	unsigned events = 0;
	size_t received = 0;
	bool drained = false;

	for (;;) {
		enum parsed parsed = parse(s, &events, budget);
		if (parsed == PARSED_ENDED) {
			s->over = true;
			return events;
		}
		s->more = parsed == PARSED_BUDGET;
		if (s->more || drained || received >= RECEIVE_MAX)
			return events;
		ssize_t r = fill(s, &drained);
		if (r <= 0) {
			check_over(s, r);
			return events;
		}
		received += (size_t)r;
		if (!s->landing) {
			s->end += (uint32_t)r;
			continue;
		}
		if (take_bulk(s, (uint32_t)r, &events) == PARSED_ENDED) {
			s->over = true;
			return events;
		}
	}
}

/* Read the connect message that is due, and no byte of what follows it. True: one was handed up. */
static bool receive_hello(struct xi_stream *s)
{
	for (;;) {
		int length = xi_hello_length(s->hello_in, s->hello_have);
		if (length < 0) {
			s->over = true;
			xi_conn_lost(s->conn, XENIDC_REASON_PROTOCOL, -EPROTO,
				     "who answers there does not speak xenidc; check host and port of the address");
			return false;
		}
		if (length > 0 && s->hello_have == (uint32_t)length) {
			s->hello_have = 0;
			xi_conn_hello(s->conn, s->hello_in, (uint32_t)length);
			return true;
		}
		uint32_t wanted = length > 0 ? (uint32_t)length : XI_HELLO_HEAD;
		struct iovec iov = { .iov_base = s->hello_in + s->hello_have, .iov_len = wanted - s->hello_have };
		ssize_t r = s->pipe->recv(s, &iov, 1);
		if (r <= 0) {
			check_over(s, r);
			return false;
		}
		s->hello_have += (uint32_t)r;
		XI_FAILPOINT(stream_hello_cut);
	}
}

unsigned xi_stream_process(struct xi_conn *conn, unsigned budget)
{
	struct xi_stream *s = xi_conn_priv(conn);
	unsigned events = 0;

	XI_ASSERT(budget > 0);
	if (!s->pipe || s->over || s->closed)
		return 0;
	s->more = false;
	xi_stream_push(s);
	while (!s->framed) {
		if (!receive_hello(s))
			return events;
		events++;
		if (s->over || s->closed)
			return events;
	}
	return events + receive(s, budget);
}

bool xi_stream_busy(const struct xi_stream *s)
{
	return !s->over && !s->closed && (s->more || s->tx_error || xi_stream_sendable(s));
}

int xi_stream_arm(struct xi_conn *conn, bool futex_ok, struct xi_wait *wait)
{
	(void)futex_ok;
	if (xi_stream_busy(xi_conn_priv(conn)))
		return XI_BUSY;
	wait->futex = NULL;
	return 0;
}

void xi_stream_disarm(struct xi_conn *conn)
{
	(void)conn;
}
