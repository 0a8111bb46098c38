/* SPDX-License-Identifier: MIT */
/*
 * A second implementation of the protocol, written from docs/PROTOCOL.md and sharing no code with the library but the
 * checksum: it sends whatever a test wants to see refused.
 */
#ifndef HOSTILE_RAW_H
#define HOSTILE_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- Bytes under construction */
#define RAW_BYTES 131072u
struct raw_bytes {
	uint32_t n;
	uint8_t b[RAW_BYTES];
};
void raw_8(struct raw_bytes *to, uint8_t v);
void raw_16(struct raw_bytes *to, uint16_t v);
void raw_32(struct raw_bytes *to, uint32_t v);
void raw_64(struct raw_bytes *to, uint64_t v);
void raw_fill(struct raw_bytes *to, uint8_t v, uint32_t count);
void raw_copy(struct raw_bytes *to, const void *from, uint32_t count);
void raw_set16(struct raw_bytes *to, uint32_t at, uint16_t v);
void raw_set32(struct raw_bytes *to, uint32_t at, uint32_t v);
uint16_t raw_get16(const uint8_t *at);
uint32_t raw_get32(const uint8_t *at);

/* --- Connect messages */
enum { RAW_CONNECT = 1, RAW_ACCEPT = 2, RAW_REFUSE = 3, RAW_READY = 4 };
enum { RAW_LIMITS = 1, RAW_SESSION, RAW_SERVICE, RAW_AUTH, RAW_TRANSPORT, RAW_REASON };

/* What a side wants, or what holds: the LIMITS section as its sender sees it. */
struct raw_limits {
	uint32_t requests_out, requests_in, messages_out, messages_in, payload, refs;
	uint32_t classes[4][4][2]; /* out, in, peer_out, peer_in; four of {size, count} */
};
/* The budget of every test here, the same in both directions. */
#define RAW_REQUESTS 4u
#define RAW_MESSAGES 4u
#define RAW_PAYLOAD 64u
#define RAW_REFS 2u
#define RAW_SLOT 4096u
#define RAW_SLOTS 2u /* of each direction and side */
extern const struct raw_limits raw_usual;

/* Head of a connect message; sections follow; raw_seal() sets length and checksum. */
void raw_hello(struct raw_bytes *to, uint8_t kind, uint64_t features);
/* Start a section; raw_section_end() with what it returned sets its length. */
uint32_t raw_section(struct raw_bytes *to, uint16_t type);
void raw_section_end(struct raw_bytes *to, uint32_t at);
void raw_section_limits(struct raw_bytes *to, const struct raw_limits *limits);
void raw_section_session(struct raw_bytes *to);
void raw_seal(struct raw_bytes *to);
/* Complete messages. `region`: of the TRANSPORT section. */
void raw_connect(struct raw_bytes *to, const struct raw_limits *limits);
void raw_accept(struct raw_bytes *to, const struct raw_limits *limits, const void *region, uint32_t length);
void raw_ready(struct raw_bytes *to, const void *region, uint32_t length);
/* The section of this type in a message: its bytes, NULL if there is none. */
const uint8_t *raw_find(const uint8_t *hello, uint32_t length, uint16_t type, uint32_t *ret_length);

/* --- Frames */
enum { RAW_REQUEST = 1, RAW_REPLY, RAW_MESSAGE, RAW_CANCEL, RAW_CREDIT, RAW_PING, RAW_DISCONNECT, RAW_DATA };
#define RAW_HEADER 12u
#define RAW_NOT_EXECUTED 1u
#define RAW_ID(index, generation) ((uint32_t)(index) | (uint32_t)(generation) << 16)
#define RAW_IN 0x8000u

struct raw_ref {
	uint16_t slot; /* with RAW_IN */
	uint32_t offset, length;
};
/* Each makes `to` hold one frame. */
void raw_request(struct raw_bytes *to, uint32_t id, uint32_t sequence, const struct raw_ref *refs, uint8_t nrefs,
		 uint32_t payload);
void raw_reply(struct raw_bytes *to, uint32_t id, const uint32_t *valid, uint8_t nvalid, uint32_t payload);
void raw_not_executed(struct raw_bytes *to, uint32_t id);
void raw_message(struct raw_bytes *to, uint32_t payload);
void raw_cancel(struct raw_bytes *to, uint32_t id);
void raw_credit(struct raw_bytes *to, uint16_t credit);
void raw_ping(struct raw_bytes *to, uint32_t received);
void raw_disconnect(struct raw_bytes *to, uint32_t last, uint16_t reason, const char *text);
/* The data ascend by 7 from byte to byte. */
void raw_data(struct raw_bytes *to, uint32_t id, uint32_t slot, uint32_t offset, uint32_t length);

/* Set `len` of a frame's header to what follows it. */
void raw_set_len(struct raw_bytes *frame);

/* --- Byte streams: `to` gets prefix and frame. `digest`: the data of DATA frames are protected. */
#define RAW_PREFIX 12u
#define RAW_DATA_HEAD 20u
void raw_wrap(struct raw_bytes *to, const struct raw_bytes *frame, bool digest);
/* Set the checksum of the wrapped frame at `at` again, after its bytes were changed. */
void raw_wrap_seal(struct raw_bytes *to, uint32_t at);

/* --- The layout of a region, PROTOCOL.md section 4 */
struct raw_layout {
	uint32_t frame_max, stride, frames;
	uint32_t slots, slots_at, bytes;
};
/* With `limits` as the region's owner sees them; one class a set only. */
struct raw_layout raw_layout(const struct raw_limits *limits);

#endif
