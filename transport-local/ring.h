/* SPDX-License-Identifier: MIT */
/*
 * ring.h - two one-way rings of frames and the words beside them, in memory shared by two sides that do not trust each
 * other. ring.c is the only file that touches shared memory. Pure: no call leaves it.
 *
 * A region, as its owner lays it out (all little endian; the peer only reads):
 *     0    u32 XI_RING_MAGIC, u32 XI_RING_FORMAT
 *     64   u64 event word: mode (enum xi_ring_mode) << 32 | event index; how its owner, as consumer, wants to be told
 *     128  u32 dispatch index
 *     layout.ring_offset   layout.frames slots, layout.frame_stride apart:
 *                          u32 count, u16 next, u16 receipt, then the frame
 *     layout.slots_offset  data
 *
 * Frames stand in slots in a chain: the first in slot 0, the one after a frame in slot `next` of that. `count` is how
 * often the slot was used, stored last, together with the rest of its word; until then it is one less, and nothing else
 * is possible there. `receipt` says how many frames (mod 2^16) the sender of this one has taken out of the other ring:
 * only those slots are used again, the latest first. So two sides that take turns use two slots each, which stay in the
 * nearest cache: measured, that halves a round trip against slots in a fixed order.
 *
 * The producer never looks whether there is room: credit bounds what is outstanding to one frame less than there are
 * slots. After a batch it fences and reads the consumer's event word: if the consumer sleeps, and its event index (the
 * number of the frame that it waits for, from 1, mod 2^32) is among those just published, it is notified, once. The
 * consumer arms (event word, fence, one more look at the ring) and then sleeps on the count that it waits for, or on
 * its doorbell: whoever comes second sees what the other did.
 */
#ifndef XI_LOCAL_RING_H
#define XI_LOCAL_RING_H

#include <stdbool.h>
#include <stdint.h>

#include <xenidc/transport.h>

#define XI_RING_MAGIC 0x52444958u /* "XIDR" */
#define XI_RING_FORMAT 1u
#define XI_RING_CONTROL 192u /* bytes of the control words */

enum xi_ring_mode {
	XI_RING_AWAKE = 0,
	XI_RING_FUTEX = 1,    /* sleeps on the count of the slot where the frame of its event index will stand */
	XI_RING_DOORBELL = 2, /* wants its doorbell rung */
	XI_RING_CLOSED = 3,   /* has ended, in order: looks at nothing and dispatches nothing any more */
};

/* What to do after publishing. */
enum xi_ring_notify { XI_RING_NOTHING = 0, XI_RING_WAKE, XI_RING_RING, XI_RING_BROKEN };

#define XI_RING_SLOT_HEAD 8u /* bytes of a slot before its frame */

/* One side's view of both rings. All members are ring.c's; zeroed before use. */
struct xi_ring {
	/* Consumer: the peer's region. NULL: not there (yet, or any more). */
	const uint8_t *rx; /* slots */
	const uint8_t *peer;
	uint32_t rx_stride, rx_frames, rx_frame_max;
	uint32_t rx_slot;     /* of the next frame */
	uint32_t *rx_counts;  /* of each slot, as last seen */
	uint64_t rx_position; /* consumed */
	/* Producer: our region. */
	uint8_t *tx; /* slots */
	uint8_t *own;
	uint32_t tx_stride, tx_mask;
	uint32_t tx_slot;    /* of the next frame */
	uint32_t *tx_counts; /* of each slot */
	uint16_t *tx_order;  /* slots of the frames without a receipt, by position */
	uint16_t *tx_free;   /* a stack */
	uint32_t tx_free_count;
	uint64_t tx_position; /* committed */
	uint64_t tx_receipts; /* of them consumed, by the peer's word */
	uint64_t tx_told;     /* up to which the peer was notified or need not be */
	const char *broken;   /* what the peer did; NULL: nothing wrong */
	uint32_t dispatched;  /* the peer's index, as of the end */
	uint64_t wakes, suppressed;
};

/* Bytes of private memory (8-byte aligned, zeroed) that the two below need. */
size_t xi_ring_tx_bytes(const struct xi_layout *layout);
size_t xi_ring_rx_bytes(const struct xi_layout *layout);
/* Our region, zeroed before, becomes a region. */
void xi_ring_open_tx(struct xi_ring *ring, uint8_t *base, const struct xi_layout *layout, void *memory);
/* The peer's. False: it is none. */
bool xi_ring_open_rx(struct xi_ring *ring, const uint8_t *base, const struct xi_layout *layout, void *memory);
/* Before the peer's memory goes: keeps what is wanted of it, and looks at it no more. */
void xi_ring_close_rx(struct xi_ring *ring);

/* Where the next frame has to be written: in the ring itself. 8-byte aligned. */
uint8_t *xi_ring_begin(struct xi_ring *ring);
/* Publish the frame that stands there. Its position, from 1. */
uint64_t xi_ring_put(struct xi_ring *ring, uint32_t length);
/* After a batch of xi_ring_put(): how to notify the peer. WAKE: *ret_word is the word of ours that it sleeps on.
 * BROKEN: see xi_ring_get(). */
enum xi_ring_notify xi_ring_flush(struct xi_ring *ring, uint32_t **ret_word);
/* Take the next frame: copied once to `to` (frame_max bytes, rounded up to 64), its length returned. 0: there is none;
 * -EPROTO: the peer did something impossible (ring->broken), now and ever after. */
int xi_ring_get(struct xi_ring *ring, uint8_t *to);
/* Is something to be had from xi_ring_get()? */
bool xi_ring_ready(const struct xi_ring *ring);

/* Ask to be told: `mode` FUTEX or DOORBELL. False: something is there already, and nothing was asked. FUTEX: where to
 * sleep, and on which value. */
bool xi_ring_arm(struct xi_ring *ring, enum xi_ring_mode mode, struct xi_wait *wait);
void xi_ring_disarm(struct xi_ring *ring);
/* Say that we have ended. */
void xi_ring_mark_closed(struct xi_ring *ring);
bool xi_ring_peer_closed(const struct xi_ring *ring);

void xi_ring_publish_dispatch(struct xi_ring *ring, uint32_t sequence);
uint32_t xi_ring_peer_dispatch(const struct xi_ring *ring);

/* One copy out of a slot of the peer's, whose bytes may change meanwhile. */
void xi_ring_copy(void *to, const uint8_t *from, uint32_t length);

#ifdef XI_TESTING
/* Called before every access to shared memory, so that a test can let the other side run there. NULL: nothing. */
extern void (*xi_sched_point)(void);
#endif

#endif
