/* SPDX-License-Identifier: MIT */
/*
 * A channel of the library under the hands of a fuzzer: the input is a program of what its peer does, over a transport
 * that exists in memory only (stream_world.c, ring_world.c). After each program nothing may be left of it.
 */
#ifndef FUZZ_WORLD_H
#define FUZZ_WORLD_H

#include <xenidc/transport.h>
#include <xenidc/xenidc.h>

#include "fuzz.h"
#include "tests/hostile/raw.h"

#define WORLD_HELD 8
#define WORLD_REQUESTS 4

struct world {
	const struct world_peer *peer;
	xenidc_loop *loop;
	xenidc_listener *listener;
	struct xi_listener *listening; /* the transport's */
	xenidc_channel *channel;
	bool connected, disconnected, idle;
	struct input *in; /* the program */
	/* What the peer knows. */
	struct raw_limits limits;
	uint16_t generation[RAW_REQUESTS];
	uint32_t sequence;
	uint32_t asked[WORLD_REQUESTS]; /* ids of the target's requests */
	unsigned nasked;
	uint16_t credit; /* messages of the target's */
	/* What the target's handlers hold. */
	xenidc_incoming held[WORLD_HELD];
	unsigned nheld, submitted;
	int64_t objects;
};
extern struct world world;

/* What a transport of this kind has to offer to the program. */
struct world_peer {
	const struct xi_transport *transport;
	bool stream;
	/* Fresh; the next connection of the target's belongs to this program. */
	void (*reset)(void);
	/* A peer arrives at the listener. */
	void (*arrive)(void);
	/* The peer says this: a connect message, a frame (of any content; on streams it gets a prefix), bytes as they
	 * are (streams: into the stream, rings: into the region). */
	void (*hello)(const struct raw_bytes *bytes);
	void (*frame)(const struct raw_bytes *bytes);
	void (*bytes)(const uint8_t *bytes, uint32_t length);
	/* It is gone. */
	void (*end)(void);
	/* What the target's region or stream brought: connect messages (by kind; NULL: none yet), and frames, told to
	 * world_heard(). */
	bool (*heard_hello)(uint8_t kind);
	void (*listen)(void);
};

/* Once. */
void world_start(const struct world_peer *peer);
/* Run a program: all of the input. */
void world_run(const uint8_t *data, size_t size);
/* A frame of the target's. */
void world_heard(const uint8_t *frame);

#endif
