/* SPDX-License-Identifier: MIT */
/* The hostile end of a connection over shared memory: the rendezvous, its own region, and the peer's. */
#ifndef HOSTILE_SHM_SIDE_H
#define HOSTILE_SHM_SIDE_H

#include "link.h"

#define SHM_FDS_MAX 8
/* F_SEAL_SEAL, SHRINK, GROW, FUTURE_WRITE */
#define SHM_SEALS 0x17u

struct shm_side {
	struct raw_layout tx, rx;
	int memfd;
	uint8_t *own;         /* writable */
	const uint8_t *peer;  /* NULL: not mapped */
	uint64_t put, taken;  /* frames */
	uint32_t taken_slot;  /* of the next frame */
	uint32_t *seen;       /* counts of the peer's slots */
	int fds[SHM_FDS_MAX]; /* received with the last connect message */
	unsigned nfds;
};

/* What link.c needs. */
void shm_open_link(struct link *l);
void shm_close_link(struct link *l);
void shm_send_hello(struct link *l, const struct raw_bytes *hello);
bool shm_recv_hello(struct link *l, struct raw_bytes *hello);
/* Make our region; what the TRANSPORT section has to say about it, to `region` (512 bytes). Returns its length. */
uint32_t shm_export(struct link *l, uint8_t *region);
/* Map the peer's, as described by its connect message. */
void shm_import(struct link *l, const struct raw_bytes *hello);
void shm_send_frame(struct link *l, const struct raw_bytes *frame);
bool shm_recv_frame(struct link *l, struct raw_bytes *frame);
/* The next frame, if it is there already. */
bool shm_take_frame(struct link *l, struct raw_bytes *frame);

/* What attacks need besides. */
void shm_send_packet(struct link *l, const void *bytes, uint32_t length, const int *fds, unsigned nfds);
/* A memfd that begins as a region does. */
int shm_new_memfd(uint32_t bytes, unsigned seals);
void shm_make_region(struct link *l);
/* The slot of the next frame: 8 bytes of its own, then the frame. Our slots are used one after the other. */
uint8_t *shm_next_slot(struct link *l);
/* How often it will have been used with the next frame. */
uint32_t shm_next_count(struct link *l);
/* Store the count of its word, and the rest as it should be, and go on to the next slot. */
void shm_publish(struct link *l, uint32_t count);

#endif
