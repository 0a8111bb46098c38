/* SPDX-License-Identifier: MIT */
/*
 * ring.h - two one-way rings of frames and the words beside them, in memory shared by two sides that do not trust each
 * other. ring.c is the only file that touches shared memory. Pure: no call leaves it.
 *
 * A region, as its owner lays it out (all little endian; the peer only reads):
 *     0    u32 XI_RING_MAGIC, u32 XI_RING_FORMAT
 *     64   u64 event word: mode (enum xi_ring_mode) << 32 | event index; how its owner, as consumer, wants to be told
 *     128  u32 dispatch index
 *     layout.ring_offset   layout.frames slots, layout.frame_stride apart: u32 sequence, then the frame
 *     layout.slots_offset  data
 *
 * The frame at position p (from 0) stands in slot p mod frames; its sequence is p + 1 mod 2^32, stored last. Until then
 * the word has what the lap before left: p + 1 - frames, or 0 in the first lap. Nothing else is possible there.
 *
 * The producer never looks whether there is room: credit bounds what is outstanding. After a batch it fences and reads
 * the consumer's event word: if the consumer sleeps, and its event index is among the sequences just published, it is
 * notified, once. The consumer arms (event word, fence, one more look at the ring) and then sleeps on the sequence
 * word that it waits for, or on its doorbell: whoever comes second sees what the other did.
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
	XI_RING_FUTEX = 1,    /* sleeps on the sequence word of its event index */
	XI_RING_DOORBELL = 2, /* wants its doorbell rung */
	XI_RING_CLOSED = 3,   /* has ended, in order: looks at nothing and dispatches nothing any more */
};

/* What to do after publishing. */
enum xi_ring_notify { XI_RING_NOTHING = 0, XI_RING_WAKE, XI_RING_RING, XI_RING_BROKEN };

/* One side's view of both rings. All members are ring.c's; zeroed before use. */
struct xi_ring {
	/* Producer: our region. */
	uint8_t *tx; /* slots */
	uint8_t *own;
	uint32_t tx_stride, tx_mask;
	uint64_t tx_position; /* committed */
	uint64_t tx_told;     /* up to which the peer was notified or need not be */
	/* Consumer: the peer's region. NULL: not there (yet, or any more). */
	const uint8_t *rx;
	const uint8_t *peer;
	uint32_t rx_stride, rx_mask, rx_frame_max;
	uint64_t rx_position; /* consumed */
	bool rx_broken;
	uint32_t dispatched; /* the peer's index, as of the end */
	uint64_t wakes, suppressed;
};

/* Our region, zeroed before, becomes a region. */
void xi_ring_open_tx(struct xi_ring *ring, uint8_t *base, const struct xi_layout *layout);
/* The peer's. False: it is none. */
bool xi_ring_open_rx(struct xi_ring *ring, const uint8_t *base, const struct xi_layout *layout);
/* Before the peer's memory goes: keeps what is wanted of it, and looks at it no more. */
void xi_ring_close_rx(struct xi_ring *ring);

/* Publish a frame (4-byte aligned; the bytes up to the next multiple of 64 less 4 are readable). Its position, from
 * 1. */
uint64_t xi_ring_put(struct xi_ring *ring, const uint8_t *frame, uint32_t length);
/* After a batch of xi_ring_put(): how to notify the peer. WAKE: *ret_word is the word of ours that it sleeps on. */
enum xi_ring_notify xi_ring_flush(struct xi_ring *ring, uint32_t **ret_word);
/* Take the next frame: copied once to `to` (frame_max bytes, rounded up to 64), its length returned. 0: there is none;
 * -EPROTO: the peer did something impossible (`*ret_why`, constant), now and ever after. */
int xi_ring_get(struct xi_ring *ring, uint8_t *to, const char **ret_why);
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
