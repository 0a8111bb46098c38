/* SPDX-License-Identifier: MIT */
/* The sending half of the stream engine: queue of frames, rounds of DATA frames, one gather for each send(). */
#include "stream_parts.h"

#include <errno.h>
#include <string.h>

#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/crc32c.h"
#include "xenidc-core/base/failpoint.h"
#include "xenidc-core/base/list.h"
#include "xenidc-core/base/times.h"
#include "xenidc-core/frame.h"

/* One gather: many frames, few chunks. More pieces cost more stack, and the kernel allows 1024. */
#define IOV_MAX_PUSH 256u
/* Bytes sent before receiving has its turn again. */
#define PUSH_MAX (1u << 20)
/* The kernel was out of memory (ENOBUFS): when to try again. */
#define RETRY_NS (2 * XI_MS)

struct gather {
	struct iovec iov[IOV_MAX_PUSH];
	unsigned n;
	unsigned frames; /* entries in it */
	size_t bytes;
	bool chunk_before; /* the first chunk stands before the frames */
};

uint32_t xi_stream_crc(uint32_t length, uint32_t digest, const uint8_t *frame, uint32_t covered)
{
	uint32_t fields[2] = { length, digest };

	return xi_crc32c(xi_crc32c(0, fields, sizeof(fields)), frame, covered);
}

/* `covered`: bytes of the frame behind the prefix that the checksum covers. */
static void put_prefix(uint8_t *to, uint32_t length, uint32_t digest, uint32_t covered)
{
	uint32_t crc = xi_stream_crc(length, digest, to + XI_STREAM_PREFIX, covered);

	memcpy(to, &length, 4);
	memcpy(to + 4, &crc, 4);
	memcpy(to + 8, &digest, 4);
}

static uint8_t *buffer_at(const struct xi_stream *s, uint32_t buffer)
{
	XI_DASSERT(buffer <= s->tx.frames);
	return s->buffers + (size_t)buffer * s->stride;
}

static struct xi_stream_entry *entry_at(const struct xi_stream *s, uint32_t i)
{
	XI_DASSERT(i < s->tx.frames);
	return &s->entries[(s->entry_first + i) & (s->tx.frames - 1)];
}

static struct xi_stream_flow *flow_at(const struct xi_stream *s, uint32_t link)
{
	XI_DASSERT(link > 0 && link <= s->tx.slots);
	return &s->flows[link - 1];
}

static struct xi_stream_chunk *chunk_at(struct xi_stream *s, uint32_t i)
{
	return &s->chunks[(s->chunk_first + i) % XI_STREAM_CHUNKS];
}

void xi_stream_send_init(struct xi_stream *s)
{
	XI_ASSERT(s->tx.frames && (s->tx.frames & (s->tx.frames - 1)) == 0);
	for (uint32_t i = 0; i <= s->tx.frames; i++)
		s->free_buffers[i] = s->tx.frames - i;
	s->free_count = s->tx.frames + 1;
}

/* ------------------------------------------------------------------------------------------------------------------
 * Data: a flow for each slot piece, chunks made of those whose turn it is
 */
static void turn_append(struct xi_stream *s, uint32_t link)
{
	XI_DASSERT(flow_at(s, link)->left > 0);
	flow_at(s, link)->turn = 0;
	if (s->turn_last)
		flow_at(s, s->turn_last)->turn = link;
	else
		s->turn_first = link;
	s->turn_last = link;
}

static uint32_t turn_take(struct xi_stream *s)
{
	uint32_t link = s->turn_first;

	XI_DASSERT(link);
	s->turn_first = flow_at(s, link)->turn;
	if (!s->turn_first)
		s->turn_last = 0;
	return link;
}

/* Make the next chunk of the flow whose turn it is; its frame's next flow, or the flow itself, goes to the end. */
static void prepare_chunk(struct xi_stream *s)
{
	struct xi_stream_chunk *c = chunk_at(s, s->chunk_count);
	uint32_t link = turn_take(s);
	struct xi_stream_flow *f = flow_at(s, link);
	uint32_t slot = link - 1, size, digest;
	uint16_t body = XI_STREAM_DATA - XI_STREAM_HEADER;

	XI_DASSERT(s->chunk_count < XI_STREAM_CHUNKS && f->left > 0);
	*c = (struct xi_stream_chunk){ .length = f->left < XI_BULK_MAX ? f->left : XI_BULK_MAX,
				       .tag = f->tag,
				       .position = f->position,
				       .data = s->tx_map + xi_layout_slot(&s->tx, slot, &size) + f->offset };
	uint8_t *frame = c->head + XI_STREAM_PREFIX;
	frame[0] = XI_FRAME_DATA;
	memcpy(frame + 2, &body, 2);
	memcpy(frame + 4, &f->tag, 4);
	memcpy(frame + XI_STREAM_HEADER, &slot, 4);
	memcpy(frame + XI_STREAM_HEADER + 4, &f->offset, 4);
	digest = s->digest ? xi_crc32c(0, c->data, c->length) : 0;
	put_prefix(c->head, XI_STREAM_DATA + c->length, digest, XI_STREAM_DATA);
	s->chunk_count++;
	f->offset += c->length;
	f->left -= c->length;
	if (!f->left)
		link = f->next;
	if (link)
		turn_append(s, link);
}

static void clear_flows(struct xi_stream *s, uint32_t link)
{
	while (link) {
		struct xi_stream_flow *f = flow_at(s, link);
		link = f->next;
		f->left = 0;
		f->next = 0;
	}
}

static bool matches(uint64_t position, uint32_t tag, uint64_t want_position, uint32_t want_tag)
{
	return want_position ? position == want_position : tag == want_tag;
}

/* Forget the data of one frame, or (position 0) of one tag, but for a chunk that has begun. */
static void drop(struct xi_stream *s, uint64_t position, uint32_t tag)
{
	uint32_t link = s->turn_first, kept = 0;

	for (uint32_t i = 0; i < s->chunk_count; i++) {
		struct xi_stream_chunk *c = chunk_at(s, i);
		if ((i == 0 && s->chunk_sent) || !matches(c->position, c->tag, position, tag))
			*chunk_at(s, kept++) = *c;
	}
	s->chunk_count = kept;
	s->turn_first = s->turn_last = 0;
	while (link) {
		struct xi_stream_flow *f = flow_at(s, link);
		uint32_t turn = f->turn;
		if (matches(f->position, f->tag, position, tag))
			clear_flows(s, link);
		else
			turn_append(s, link);
		link = turn;
	}
	for (uint32_t i = 0; i < s->entry_count; i++) {
		struct xi_stream_entry *e = entry_at(s, i);
		if (e->gathered || !matches(e->position, e->tag, position, tag))
			continue;
		clear_flows(s, e->flow);
		e->flow = 0;
	}
}

/*
 * A slot is announced again. Only a peer that ended a request before it had all its data makes that possible; what is
 * left of the earlier data goes nowhere then.
 */
static void forget_slot(struct xi_stream *s, const struct xi_stream_flow *f)
{
	bool busy = f->left > 0;

	for (uint32_t i = 0; i < s->chunk_count; i++)
		busy = busy || chunk_at(s, i)->position == f->position;
	if (busy)
		drop(s, f->position, 0);
}

static uint32_t add_flows(struct xi_stream *s, const struct xi_seg *segs, uint32_t nsegs, uint32_t tag)
{
	uint32_t first = 0;

	for (uint32_t i = nsegs; i-- > 0;) {
		uint32_t size;
		XI_ASSERT(segs[i].slot < s->tx.slots);
		(void)xi_layout_slot(&s->tx, segs[i].slot, &size);
		XI_ASSERT(segs[i].length <= size && segs[i].offset <= size - segs[i].length);
		if (!segs[i].length)
			continue;
		struct xi_stream_flow *f = &s->flows[segs[i].slot];
		if (f->position)
			forget_slot(s, f);
		*f = (struct xi_stream_flow){ .position = s->position,
					      .offset = segs[i].offset,
					      .left = segs[i].length,
					      .tag = tag,
					      .next = first };
		first = segs[i].slot + 1;
	}
	return first;
}

/* ------------------------------------------------------------------------------------------------------------------
 * Frames
 */
uint8_t *xi_stream_tx_begin(struct xi_conn *conn)
{
	struct xi_stream *s = xi_conn_priv(conn);

	if (!s->begun) {
		XI_ASSERT(s->free_count > 0);
		s->begun = s->free_buffers[--s->free_count] + 1;
	}
	return buffer_at(s, s->begun - 1) + XI_STREAM_FRAME_AT;
}

uint64_t xi_stream_tx_commit(struct xi_conn *conn, uint32_t length, const struct xi_seg *segs, uint32_t nsegs,
			     uint32_t tag)
{
	struct xi_stream *s = xi_conn_priv(conn);
	struct xi_stream_entry *e;

	XI_ASSERT(s->begun && s->entry_count < s->tx.frames);
	XI_ASSERT(length >= XI_STREAM_HEADER && length <= s->tx.frame_max);
	put_prefix(buffer_at(s, s->begun - 1) + XI_STREAM_FRAME_AT - XI_STREAM_PREFIX, length, 0, length);
	s->position++;
	e = entry_at(s, s->entry_count);
	*e = (struct xi_stream_entry){ .position = s->position,
				       .buffer = s->begun - 1,
				       .length = XI_STREAM_PREFIX + length,
				       .flow = add_flows(s, segs, nsegs, tag),
				       .tag = tag };
	s->entry_count++;
	s->begun = 0;
	return s->position;
}

uint64_t xi_stream_tx_unsent(struct xi_conn *conn)
{
	const struct xi_stream *s = xi_conn_priv(conn);
	uint32_t begun = s->entry_sent ? 1 : 0;

	return s->entry_count > begun ? entry_at(s, begun)->position : s->position + 1;
}

bool xi_stream_retract(struct xi_conn *conn, uint64_t position)
{
	struct xi_stream *s = xi_conn_priv(conn);
	uint32_t i = s->entry_count;

	XI_ASSERT(position > 0 && position <= s->position);
	while (i > 0 && entry_at(s, i - 1)->position > position)
		i--;
	if (i == 0 || entry_at(s, i - 1)->position != position || (i == 1 && s->entry_sent))
		return false;
	drop(s, position, 0);
	s->free_buffers[s->free_count++] = entry_at(s, i - 1)->buffer;
	for (; i < s->entry_count; i++)
		*entry_at(s, i - 1) = *entry_at(s, i);
	s->entry_count--;
	return true;
}

void xi_stream_drop_segs(struct xi_conn *conn, uint32_t tag)
{
	struct xi_stream *s = xi_conn_priv(conn);

	XI_ASSERT(tag);
	drop(s, 0, tag);
}

/* ------------------------------------------------------------------------------------------------------------------
 * Sending
 */
static bool something(const struct xi_stream *s)
{
	return s->hello_sent < s->hello_end || s->entry_count || s->chunk_count || s->turn_first;
}

bool xi_stream_sendable(const struct xi_stream *s)
{
	return s->pipe && !s->tx_error && !s->waiting && !s->starved && !s->closed && something(s);
}

static void add(struct gather *g, const void *bytes, size_t length)
{
	XI_DASSERT(g->n < IOV_MAX_PUSH && length > 0);
	g->iov[g->n++] = (struct iovec){ .iov_base = (void *)(uintptr_t)bytes, .iov_len = length };
	g->bytes += length;
}

static void add_chunk(struct gather *g, const struct xi_stream_chunk *c, uint32_t sent)
{
	uint32_t head = sizeof(c->head);

	if (sent < head)
		add(g, c->head + sent, head - sent);
	sent = sent < head ? 0 : sent - head;
	add(g, c->data + sent, c->length - sent);
}

/* Data must not starve behind frames: does the first chunk go before the frames that wait? */
static bool chunk_is_due(struct xi_stream *s)
{
	if (s->chunk_sent)
		return true;
	if (s->frame_run <= XI_BULK_MAX || s->entry_sent || s->closed)
		return false;
	if (!s->chunk_count && s->turn_first)
		prepare_chunk(s);
	return s->chunk_count && chunk_at(s, 0)->position <= s->announced;
}

static void add_frames(struct xi_stream *s, struct gather *g)
{
	while (g->frames < s->entry_count && g->n < IOV_MAX_PUSH - 2 * XI_STREAM_CHUNKS) {
		struct xi_stream_entry *e = entry_at(s, g->frames);
		uint32_t sent = g->frames ? 0 : s->entry_sent;
		add(g, buffer_at(s, e->buffer) + XI_STREAM_FRAME_AT - XI_STREAM_PREFIX + sent, e->length - sent);
		if (!e->gathered && e->flow)
			turn_append(s, e->flow);
		e->gathered = true;
		g->frames++;
	}
}

static void gather(struct xi_stream *s, struct gather *g)
{
	uint32_t i = 0;

	g->n = g->frames = 0;
	g->bytes = 0;
	if (s->hello_sent < s->hello_end)
		add(g, s->hello_out + s->hello_sent, s->hello_end - s->hello_sent);
	g->chunk_before = chunk_is_due(s);
	if (g->chunk_before)
		add_chunk(g, chunk_at(s, i++), s->chunk_sent);
	add_frames(s, g);
	if (g->frames < s->entry_count || s->closed)
		return;
	while (s->chunk_count < XI_STREAM_CHUNKS && s->turn_first)
		prepare_chunk(s);
	while (i < s->chunk_count)
		add_chunk(g, chunk_at(s, i++), 0);
}

/* Each takes up to `n` bytes off its queue and returns how many. */
static size_t take_hello(struct xi_stream *s, size_t n)
{
	size_t left = s->hello_end - s->hello_sent;

	n = n < left ? n : left;
	s->hello_sent += (uint32_t)n;
	return n;
}

static size_t take_frame(struct xi_stream *s, size_t n)
{
	struct xi_stream_entry *e = entry_at(s, 0);
	size_t left = e->length - s->entry_sent;

	XI_DASSERT(n > 0 && s->entry_count > 0);
	s->announced = e->position;
	if (n < left) {
		s->entry_sent += (uint32_t)n;
		XI_FAILPOINT(stream_frame_cut);
		return n;
	}
	s->free_buffers[s->free_count++] = e->buffer;
	s->frame_run += e->length;
	s->entry_sent = 0;
	s->entry_first = (s->entry_first + 1) & (s->tx.frames - 1);
	s->entry_count--;
	return left;
}

static size_t take_chunk(struct xi_stream *s, size_t n)
{
	struct xi_stream_chunk *c = chunk_at(s, 0);
	size_t left = sizeof(c->head) + c->length - s->chunk_sent;

	XI_DASSERT(n > 0 && s->chunk_count > 0);
	s->frame_run = 0;
	if (n < left) {
		s->chunk_sent += (uint32_t)n;
		XI_FAILPOINT(stream_chunk_cut);
		return n;
	}
	s->chunk_sent = 0;
	s->chunk_first = (s->chunk_first + 1) % XI_STREAM_CHUNKS;
	s->chunk_count--;
	return left;
}

static void advance(struct xi_stream *s, const struct gather *g, size_t n)
{
	unsigned frames = g->frames;

	XI_ASSERT(n <= g->bytes);
	n -= take_hello(s, n);
	if (n && g->chunk_before)
		n -= take_chunk(s, n);
	for (; n && frames; frames--)
		n -= take_frame(s, n);
	while (n)
		n -= take_chunk(s, n);
}

static void retry(struct xenidc_timer *timer)
{
	struct xi_stream *s = XI_CONTAINER(timer, struct xi_stream, retry);

	s->starved = false;
	xi_stream_push(s);
}

/* True: all of the gather was taken. */
static bool push_once(struct xi_stream *s, const struct gather *g)
{
	XI_FAILPOINT(stream_sending);
	ssize_t r = s->pipe->send(s, g->iov, g->n);
	XI_FAILPOINT(stream_sent);
	if (r > 0) {
		s->sends++;
		advance(s, g, (size_t)r);
		s->waiting = (size_t)r < g->bytes;
		return !s->waiting;
	}
	XI_ASSERT(r != 0);
	if (r == -EAGAIN)
		s->waiting = true;
	else if (r == -ENOBUFS) /* without a timer the next look tries again */
		s->starved = xenidc_timer_start(xi_conn_loop(s->conn), &s->retry, RETRY_NS, retry) == 0;
	else
		s->tx_error = (int)r;
	return false;
}

static void tell_waiting(struct xi_stream *s)
{
	if (s->waiting == s->waiting_told)
		return;
	s->waiting_told = s->waiting;
	s->pipe->wait(s, s->waiting);
}

void xi_stream_push(struct xi_stream *s)
{
	struct gather g;
	size_t sent = 0;

	while (sent < PUSH_MAX && xi_stream_sendable(s)) {
		gather(s, &g);
		if (!push_once(s, &g))
			break;
		sent += g.bytes;
	}
	if (s->pipe)
		tell_waiting(s);
}

unsigned xi_stream_offer(struct xi_stream *s, struct iovec *iov, unsigned most)
{
	struct gather g;

	if (!xi_stream_sendable(s))
		return 0;
	gather(s, &g);
	if (g.n > most)
		return 0;
	memcpy(iov, g.iov, g.n * sizeof(*iov));
	return g.n;
}

void xi_stream_writable(struct xi_stream *s)
{
	s->waiting = false;
	xi_stream_push(s);
}

bool xi_stream_push_last(struct xi_stream *s)
{
	struct gather g;

	XI_ASSERT(s->closed);
	xenidc_timer_stop(&s->retry);
	if (!s->pipe)
		return true;
	for (g.bytes = 1; g.bytes && !s->tx_error;) {
		gather(s, &g);
		if (g.bytes && !push_once(s, &g))
			break;
	}
	xenidc_timer_stop(&s->retry);
	s->starved = s->waiting = false;
	tell_waiting(s);
	return s->hello_sent == s->hello_end && !s->entry_count && !s->chunk_sent;
}

void xi_stream_flush(struct xi_conn *conn)
{
	xi_stream_push(xi_conn_priv(conn));
}

void xi_stream_hello(struct xi_conn *conn, const void *bytes, uint32_t length)
{
	struct xi_stream *s = xi_conn_priv(conn);

	XI_ASSERT(length > 0 && length <= sizeof(s->hello_out) - s->hello_end);
	memcpy(s->hello_out + s->hello_end, bytes, length);
	s->hello_end += length;
	xi_stream_push(s);
}

void xi_stream_stats(struct xi_conn *conn, struct xenidc_stats *stats)
{
	const struct xi_stream *s = xi_conn_priv(conn);

	stats->wakeups_sent = s->sends;
}
