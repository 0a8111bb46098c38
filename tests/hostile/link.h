/* SPDX-License-Identifier: MIT */
/* The hostile end of a connection to the target, over a byte stream or over shared memory. */
#ifndef HOSTILE_LINK_H
#define HOSTILE_LINK_H

#include "raw.h"
#include "target.h"

enum link_kind { LINK_TCP, LINK_SHM };

/* What the hostile end knows of a connection that is up. */
struct link {
	enum link_kind kind;
	struct target *target;
	bool accepts;  /* the target dialled */
	int listen_fd; /* if so */
	int fd;
	bool up, eof;
	struct raw_limits limits; /* that hold */
	/* What the target sent while it got up (it is "busy"): */
	uint32_t request_id;  /* of its request */
	uint32_t answer_slot; /* our tx slot for the answer to it */
	/* What was sent on it. */
	uint32_t frames_received;
	uint64_t position; /* frames put */
	struct raw_bytes in;
	uint32_t in_at;
	struct shm_side *shm; /* LINK_SHM */
	unsigned shm_frames;  /* counted by whoever has to */
};

/* Links opened from now on have little room for what they do not read (tcp). */
extern bool link_little_room;
/* Get connected below the protocol: nothing is said yet. */
void link_open(struct link *l, enum link_kind kind, struct target *target, bool accepts);
/* Connect messages. recv: false when the other side closed instead. */
void link_send_hello(struct link *l, const struct raw_bytes *hello);
bool link_recv_hello(struct link *l, struct raw_bytes *hello);
/* All of the handshake, until the target is up and has made its request and its message. */
void link_up(struct link *l);
/* One good frame of any kind: wrapped on streams, put into the ring in shared memory. */
void link_send_frame(struct link *l, const struct raw_bytes *frame);
/* The next frame of the target's (on streams DATA as well); false: it has closed. */
bool link_recv_frame(struct link *l, struct raw_bytes *frame);
/* Bytes on a stream, as they are. */
void link_send_bytes(struct link *l, const void *bytes, uint32_t length);
/* Read and drop until the other side has closed. The last DISCONNECT among it, if any, is left in `last`. */
void link_drain(struct link *l, struct raw_bytes *last);
void link_close(struct link *l);

#endif
