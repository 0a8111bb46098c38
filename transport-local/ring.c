/* SPDX-License-Identifier: MIT */
/* Rings in shared memory. Every access to it stands here, behind shared_*(); each word is read once for each use. */
#include "ring.h"

#include <errno.h>
#include <string.h>

#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/limits.h"

#define EVENT_OFFSET 64
#define DISPATCH_OFFSET 128
/* Of a frame: what stands in the first line of its slot. */
#define FIRST (XI_LINE - XI_RING_SLOT_HEAD)
/* Of a frame: its common header, and where in it the number of bytes after it stands. */
#define HEADER 12u
#define HEADER_LEN 2

#ifdef XI_TESTING
void (*xi_sched_point)(void);
#define SHARED_ACCESS() (xi_sched_point ? xi_sched_point() : (void)0)
#else
#define SHARED_ACCESS() ((void)0)
#endif

static inline uint32_t shared_load32(const uint8_t *at)
{
	SHARED_ACCESS();
	return __atomic_load_n((const uint32_t *)(const void *)at, __ATOMIC_ACQUIRE);
}

static inline void shared_store32(uint8_t *at, uint32_t value)
{
	SHARED_ACCESS();
	__atomic_store_n((uint32_t *)(void *)at, value, __ATOMIC_RELEASE);
}

static inline uint64_t shared_load64(const uint8_t *at)
{
	SHARED_ACCESS();
	return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_ACQUIRE);
}

static inline void shared_store64(uint8_t *at, uint64_t value)
{
	SHARED_ACCESS();
	__atomic_store_n((uint64_t *)(void *)at, value, __ATOMIC_RELEASE);
}

/* The barrier keeps the compiler from looking at the source again where the copy is used. */
static inline void shared_read(void *to, const uint8_t *from, size_t length)
{
	SHARED_ACCESS();
	memcpy(to, from, length);
	__asm__ volatile("" ::: "memory");
}

static inline void shared_write(uint8_t *to, const void *from, size_t length)
{
	SHARED_ACCESS();
	memcpy(to, from, length);
}

/* Between what we published and the other side's word about itself, on both sides. */
static inline void shared_fence(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* --- Opening and closing */

static void check_layout(const struct xi_layout *layout)
{
	XI_ASSERT(layout->frames > 1 && !(layout->frames & (layout->frames - 1)) && layout->frames <= 1u << 15);
	XI_ASSERT(layout->frame_stride % XI_LINE == 0 && layout->frame_stride >= layout->frame_max + XI_RING_SLOT_HEAD);
	XI_ASSERT(layout->frame_max >= HEADER && layout->ring_offset >= XI_RING_CONTROL);
	XI_ASSERT(layout->ring_offset + (uint64_t)layout->frames * layout->frame_stride <= layout->bytes);
}

size_t xi_ring_tx_bytes(const struct xi_layout *layout)
{
	return layout->frames * (sizeof(uint32_t) + 2 * sizeof(uint16_t));
}

size_t xi_ring_rx_bytes(const struct xi_layout *layout)
{
	return layout->frames * sizeof(uint32_t);
}

void xi_ring_open_tx(struct xi_ring *ring, uint8_t *base, const struct xi_layout *layout, void *memory)
{
	const uint32_t head[2] = { XI_RING_MAGIC, XI_RING_FORMAT };

	XI_ASSERT(!ring->own && base && (uintptr_t)base % XI_LINE == 0);
	check_layout(layout);
	ring->own = base;
	ring->tx = base + layout->ring_offset;
	ring->tx_stride = layout->frame_stride;
	ring->tx_mask = layout->frames - 1;
	ring->tx_counts = memory;
	ring->tx_order = (uint16_t *)(ring->tx_counts + layout->frames);
	ring->tx_free = ring->tx_order + layout->frames;
	for (uint32_t slot = layout->frames - 1; slot > 0; slot--)
		ring->tx_free[ring->tx_free_count++] = (uint16_t)slot;
	shared_write(base, head, sizeof(head));
	shared_store64(base + EVENT_OFFSET, (uint64_t)XI_RING_AWAKE << 32);
}

bool xi_ring_open_rx(struct xi_ring *ring, const uint8_t *base, const struct xi_layout *layout, void *memory)
{
	uint32_t head[2];

	XI_ASSERT(!ring->peer && base && (uintptr_t)base % XI_LINE == 0);
	check_layout(layout);
	shared_read(head, base, sizeof(head));
	if (head[0] != XI_RING_MAGIC || head[1] != XI_RING_FORMAT)
		return false;
	ring->peer = base;
	ring->rx = base + layout->ring_offset;
	ring->rx_stride = layout->frame_stride;
	ring->rx_frames = layout->frames;
	ring->rx_frame_max = layout->frame_max;
	ring->rx_counts = memory;
	return true;
}

void xi_ring_close_rx(struct xi_ring *ring)
{
	if (!ring->peer)
		return;
	ring->dispatched = xi_ring_peer_dispatch(ring);
	ring->peer = ring->rx = NULL;
}

/* --- Producer */

static inline uint8_t *tx_slot(const struct xi_ring *ring, uint32_t slot)
{
	return ring->tx + (size_t)slot * ring->tx_stride;
}

uint8_t *xi_ring_begin(struct xi_ring *ring)
{
	XI_DASSERT(ring->tx && ring->tx_slot <= ring->tx_mask);
	return tx_slot(ring, ring->tx_slot) + XI_RING_SLOT_HEAD;
}

uint64_t xi_ring_put(struct xi_ring *ring, uint32_t length)
{
	uint32_t slot = ring->tx_slot, next;

	XI_DASSERT(length >= HEADER && length + XI_RING_SLOT_HEAD <= ring->tx_stride);
	(void)length;
	if (ring->tx_free_count == 0) { /* and so it stays unpublished */
		ring->broken = "no receipts for frames that were answered";
		return ring->tx_position;
	}
	next = ring->tx_free[--ring->tx_free_count];
	ring->tx_order[(uint32_t)ring->tx_position++ & ring->tx_mask] = (uint16_t)slot;
	ring->tx_slot = next;
	shared_store64(tx_slot(ring, slot),
		       ++ring->tx_counts[slot] | (uint64_t)next << 32 | (uint64_t)(uint16_t)ring->rx_position << 48);
	return ring->tx_position;
}

/* The peer has read so many of our frames (mod 2^16): their slots are free, and the latest is the first to be used. */
static inline bool take_receipt(struct xi_ring *ring, uint16_t receipt)
{
	uint32_t more = (uint16_t)(receipt - (uint16_t)ring->tx_receipts);

	if (more > ring->tx_position - ring->tx_receipts)
		return false;
	for (; more; more--)
		ring->tx_free[ring->tx_free_count++] = ring->tx_order[(uint32_t)ring->tx_receipts++ & ring->tx_mask];
	XI_DASSERT(ring->tx_free_count <= ring->tx_mask);
	return true;
}

enum xi_ring_notify xi_ring_flush(struct xi_ring *ring, uint32_t **ret_word)
{
	uint32_t now = (uint32_t)ring->tx_position, before = (uint32_t)ring->tx_told;
	uint32_t event, mode;
	uint64_t word;

	/* May be more than there are slots: a peer that is awake reads what was published before it is told. */
	XI_DASSERT(ring->tx_position - ring->tx_told < UINT32_MAX / 2);
	if (ring->broken)
		return XI_RING_BROKEN;
	if (now == before || !ring->peer)
		return XI_RING_NOTHING;
	ring->tx_told = ring->tx_position;
	shared_fence();
	word = shared_load64(ring->peer + EVENT_OFFSET);
	event = (uint32_t)word;
	mode = (uint32_t)(word >> 32);
	if (mode > XI_RING_CLOSED) {
		ring->broken = "an impossible event word";
		return XI_RING_BROKEN;
	}
	/* Is the event index among before + 1 ... now? */
	if ((mode != XI_RING_FUTEX && mode != XI_RING_DOORBELL) || now - event >= now - before) {
		ring->suppressed++;
		return XI_RING_NOTHING;
	}
	ring->wakes++;
	if (mode == XI_RING_DOORBELL)
		return XI_RING_RING;
	*ret_word = (uint32_t *)(void *)tx_slot(ring, ring->tx_order[(event - 1) & ring->tx_mask]);
	return XI_RING_WAKE;
}

/* --- Consumer */

static inline const uint8_t *rx_slot(const struct xi_ring *ring)
{
	return ring->rx + (size_t)ring->rx_slot * ring->rx_stride;
}

static int broken(struct xi_ring *ring, const char *why)
{
	if (!ring->broken)
		ring->broken = why;
	return -EPROTO;
}

int xi_ring_get(struct xi_ring *ring, uint8_t *to)
{
	const uint8_t *slot = rx_slot(ring);
	uint32_t *seen = &ring->rx_counts[ring->rx_slot];
	uint64_t word = shared_load64(slot);
	uint32_t next = (uint16_t)(word >> 32), length;
	uint16_t body;

	if (ring->broken)
		return -EPROTO;
	if ((uint32_t)word == *seen)
		return 0;
	if ((uint32_t)word != *seen + 1)
		return broken(ring, "an impossible count in its ring");
	/* The first line as a whole: a copy of fixed length takes a few instructions. */
	shared_read(to, slot + XI_RING_SLOT_HEAD, FIRST);
	memcpy(&body, to + HEADER_LEN, sizeof(body));
	length = HEADER + body;
	if (length > ring->rx_frame_max)
		return broken(ring, "a frame longer than agreed on");
	if (length > FIRST)
		shared_read(to + FIRST, slot + XI_LINE, length - FIRST);
	if (next >= ring->rx_frames || next == ring->rx_slot)
		return broken(ring, "a chain of frames that leads nowhere");
	if (!take_receipt(ring, (uint16_t)(word >> 48)))
		return broken(ring, "a receipt for frames that were never sent");
	*seen = (uint32_t)word;
	ring->rx_slot = next;
	ring->rx_position++;
	return (int)length;
}

bool xi_ring_ready(const struct xi_ring *ring)
{
	return ring->rx && shared_load32(rx_slot(ring)) != ring->rx_counts[ring->rx_slot];
}

bool xi_ring_arm(struct xi_ring *ring, enum xi_ring_mode mode, struct xi_wait *wait)
{
	XI_ASSERT(ring->rx && (mode == XI_RING_FUTEX || mode == XI_RING_DOORBELL));
	shared_store64(ring->own + EVENT_OFFSET, (uint64_t)mode << 32 | ((uint32_t)ring->rx_position + 1));
	shared_fence();
	if (xi_ring_ready(ring)) {
		xi_ring_disarm(ring);
		return false;
	}
	if (mode == XI_RING_FUTEX) {
		wait->futex = (const uint32_t *)(const void *)rx_slot(ring);
		wait->value = ring->rx_counts[ring->rx_slot];
	}
	return true;
}

void xi_ring_disarm(struct xi_ring *ring)
{
	XI_DASSERT(ring->own);
	shared_store64(ring->own + EVENT_OFFSET, (uint64_t)XI_RING_AWAKE << 32);
}

/* --- Words about ourselves */

void xi_ring_mark_closed(struct xi_ring *ring)
{
	if (ring->own)
		shared_store64(ring->own + EVENT_OFFSET, (uint64_t)XI_RING_CLOSED << 32);
}

bool xi_ring_peer_closed(const struct xi_ring *ring)
{
	return ring->peer && shared_load64(ring->peer + EVENT_OFFSET) >> 32 == XI_RING_CLOSED;
}

void xi_ring_publish_dispatch(struct xi_ring *ring, uint32_t sequence)
{
	XI_DASSERT(ring->own);
	shared_store32(ring->own + DISPATCH_OFFSET, sequence);
}

uint32_t xi_ring_peer_dispatch(const struct xi_ring *ring)
{
	return ring->peer ? shared_load32(ring->peer + DISPATCH_OFFSET) : ring->dispatched;
}

void xi_ring_copy(void *to, const uint8_t *from, uint32_t length)
{
	XI_DASSERT(to && from);
	shared_read(to, from, length);
}
