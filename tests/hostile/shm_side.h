/* SPDX-License-Identifier: MIT */
/* The hostile end of a connection over shared memory: its own region, and the peer's. Used by link.c. */
#ifndef HOSTILE_SHM_SIDE_H
#define HOSTILE_SHM_SIDE_H

#include "link.h"

struct shm_side {
	struct raw_layout tx, rx;
	int memfd;
	uint8_t *own;        /* writable */
	const uint8_t *peer; /* NULL: not mapped */
	uint64_t put, taken; /* frames */
	int fds[8];          /* received with the last connect message */
	unsigned nfds;
};

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

#endif
