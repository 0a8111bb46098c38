/* SPDX-License-Identifier: MIT */
/* Rings in shared memory. Every access to it stands here, behind shared_*(); each word is read once for each use. */
#include "ring.h"

#include <errno.h>
#include <string.h>

#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/limits.h"

#define EVENT_OFFSET 64
#define DISPATCH_OFFSET 128
/* Of a slot: what stands in its first line beside the sequence word. */
#define FIRST (XI_LINE - 4)
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
	XI_ASSERT(layout->frames && !(layout->frames & (layout->frames - 1)));
	XI_ASSERT(layout->frame_stride % XI_LINE == 0 && layout->frame_stride >= layout->frame_max + 4);
	XI_ASSERT(layout->frame_max >= HEADER && layout->ring_offset >= XI_RING_CONTROL);
	XI_ASSERT(layout->ring_offset + (uint64_t)layout->frames * layout->frame_stride <= layout->bytes);
}

void xi_ring_open_tx(struct xi_ring *ring, uint8_t *base, const struct xi_layout *layout)
{
	const uint32_t head[2] = { XI_RING_MAGIC, XI_RING_FORMAT };

	XI_ASSERT(!ring->own && base && (uintptr_t)base % XI_LINE == 0);
	check_layout(layout);
	ring->own = base;
	ring->tx = base + layout->ring_offset;
	ring->tx_stride = layout->frame_stride;
	ring->tx_mask = layout->frames - 1;
	shared_write(base, head, sizeof(head));
	shared_store64(base + EVENT_OFFSET, (uint64_t)XI_RING_AWAKE << 32);
}

bool xi_ring_open_rx(struct xi_ring *ring, const uint8_t *base, const struct xi_layout *layout)
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
	ring->rx_mask = layout->frames - 1;
	ring->rx_frame_max = layout->frame_max;
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

uint64_t xi_ring_put(struct xi_ring *ring, const uint8_t *frame, uint32_t length)
{
	uint8_t *slot = ring->tx + (size_t)((uint32_t)ring->tx_position & ring->tx_mask) * ring->tx_stride;

	XI_DASSERT(ring->tx && length >= HEADER && length + 4 <= ring->tx_stride);
	/*
	 * The consumer looks at the first line all the time and so takes it away from us again and again; it is
	 * therefore written last and at one go, all of it: a copy of fixed length takes a few instructions.
	 */
	if (length > FIRST)
		shared_write(slot + XI_LINE, frame + FIRST, length - FIRST);
	shared_write(slot + 4, frame, FIRST);
	shared_store32(slot, (uint32_t)++ring->tx_position);
	return ring->tx_position;
}

enum xi_ring_notify xi_ring_flush(struct xi_ring *ring, uint32_t **ret_word)
{
	uint32_t now = (uint32_t)ring->tx_position, before = (uint32_t)ring->tx_told;
	uint32_t event, mode;
	uint64_t word;

	/* May be more than a lap: a peer that is awake reads what was published before it is told. */
	XI_DASSERT(ring->tx_position - ring->tx_told < UINT32_MAX / 2);
	if (now == before || !ring->peer)
		return XI_RING_NOTHING;
	ring->tx_told = ring->tx_position;
	shared_fence();
	word = shared_load64(ring->peer + EVENT_OFFSET);
	event = (uint32_t)word;
	mode = (uint32_t)(word >> 32);
	if (mode > XI_RING_CLOSED)
		return XI_RING_BROKEN;
	/* Is the event index among before + 1 ... now? */
	if ((mode != XI_RING_FUTEX && mode != XI_RING_DOORBELL) || now - event >= now - before) {
		ring->suppressed++;
		return XI_RING_NOTHING;
	}
	ring->wakes++;
	if (mode == XI_RING_DOORBELL)
		return XI_RING_RING;
	*ret_word = (uint32_t *)(void *)(ring->tx + (size_t)((event - 1) & ring->tx_mask) * ring->tx_stride);
	return XI_RING_WAKE;
}

/* --- Consumer */

static inline const uint8_t *next_slot(const struct xi_ring *ring)
{
	return ring->rx + (size_t)((uint32_t)ring->rx_position & ring->rx_mask) * ring->rx_stride;
}

/* What stands in the sequence word of the next slot until its frame is there. */
static inline uint32_t stale(const struct xi_ring *ring)
{
	return ring->rx_position > ring->rx_mask ? (uint32_t)ring->rx_position - ring->rx_mask : 0;
}

static int broken(struct xi_ring *ring, const char *why, const char **ret_why)
{
	ring->rx_broken = true;
	*ret_why = why;
	return -EPROTO;
}

int xi_ring_get(struct xi_ring *ring, uint8_t *to, const char **ret_why)
{
	const uint8_t *slot = next_slot(ring);
	uint32_t sequence = shared_load32(slot), length;
	uint16_t body;

	if (sequence != (uint32_t)ring->rx_position + 1) {
		if (sequence == stale(ring) && !ring->rx_broken)
			return 0;
		return broken(ring, "an impossible sequence number in its ring", ret_why);
	}
	if (ring->rx_broken)
		return broken(ring, "something impossible before", ret_why);
	shared_read(to, slot + 4, FIRST);
	memcpy(&body, to + HEADER_LEN, sizeof(body));
	length = HEADER + body;
	if (length > ring->rx_frame_max)
		return broken(ring, "a frame longer than agreed on", ret_why);
	if (length > FIRST)
		shared_read(to + FIRST, slot + XI_LINE, length - FIRST);
	ring->rx_position++;
	return (int)length;
}

bool xi_ring_ready(const struct xi_ring *ring)
{
	return ring->rx && shared_load32(next_slot(ring)) != stale(ring);
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
		wait->futex = (const uint32_t *)(const void *)next_slot(ring);
		wait->value = stale(ring);
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
