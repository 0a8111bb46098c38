/* SPDX-License-Identifier: MIT */
/* What the two halves of the stream engine, stream.c and stream_send.c, share. */
#ifndef XI_NET_STREAM_PARTS_H
#define XI_NET_STREAM_PARTS_H

#include "stream.h"

/* Where a frame starts in its buffer: behind the prefix, on a multiple of 16. */
#define XI_STREAM_FRAME_AT 16u

struct xi_stream_entry {
	uint64_t position;
	uint32_t buffer;
	uint32_t length; /* prefix and frame */
	uint32_t flow;   /* the first of its flows, slot + 1; 0: none */
	uint32_t tag;
	bool gathered; /* its flows stand in the ring of turns */
};

struct xi_stream_flow {
	uint64_t position; /* of the frame that announced it */
	uint32_t offset, left;
	uint32_t tag;
	uint32_t next; /* of the same frame, slot + 1; 0: none */
	uint32_t turn; /* next in the ring of turns, slot + 1; 0: none */
};

/* The checksum in a prefix. `covered`: bytes at `frame` that it covers besides. */
uint32_t xi_stream_crc(uint32_t length, uint32_t digest, const uint8_t *frame, uint32_t covered);

/* Frame buffers all free; after reserve(). */
void xi_stream_send_init(struct xi_stream *s);
/* Is something waiting that could be sent now? */
bool xi_stream_sendable(const struct xi_stream *s);
/* Send as much as the pipe takes, within a bound. */
void xi_stream_push(struct xi_stream *s);
/* The last push: what has begun, and frames. True: all of it has left. */
bool xi_stream_push_last(struct xi_stream *s);

#endif
