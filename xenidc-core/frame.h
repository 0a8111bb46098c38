/* SPDX-License-Identifier: MIT */
/*
 * Frames: what travels on a connection once it is made. Each kind's reader and writer stand together in frame.c.
 * Bytes of every kind: docs/PROTOCOL.md. Everything is little endian.
 *
 *     0  u8  kind      1  u8 flags   2  u16 len: bytes of the body    4  u32 id: index | generation << 16
 *     8  u16 credit: messages of the receiver's consumed so far       10 u8  nrefs   11 u8  zero
 */
#ifndef XI_CORE_FRAME_H
#define XI_CORE_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#include <xenidc/xenidc.h>

#define XI_FRAME_HEADER 12u
#define XI_REF_BYTES 12u

enum xi_frame_kind {
	XI_FRAME_REQUEST = 1,    /* u32 sequence, nrefs references of 12 bytes, payload */
	XI_FRAME_REPLY = 2,      /* i32 status, nrefs u32 valid lengths (one for each IN reference), payload */
	XI_FRAME_MESSAGE = 3,    /* payload; id 0 */
	XI_FRAME_CANCEL = 4,     /* nothing; id names the request */
	XI_FRAME_CREDIT = 5,     /* nothing: the header's credit is the news; id 0 */
	XI_FRAME_PING = 6,       /* u32 frames received so far; id 0 */
	XI_FRAME_DISCONNECT = 7, /* u32 last sequence dispatched, u16 reason, u16 text length, text; id 0 */
	XI_FRAME_DATA = 8,       /* byte streams only, made and read by the stream engine */
	XI_FRAME_KINDS
};

/* REPLY: the handler has not seen the request and never will; status 0, no valid lengths, no payload. */
#define XI_FRAME_NOT_EXECUTED 1u

/* A reference as it travels: u16 slot (top bit: IN), u16 generation, u32 offset, u32 length. */
struct xi_wire_ref {
	uint16_t slot, generation;
	bool in;
	uint32_t offset, length;
};

/* A parsed frame. Pointers lead into the bytes that were parsed. */
struct xi_frame {
	uint8_t kind, flags, nrefs;
	uint16_t credit;
	uint32_t id;
	uint32_t number; /* REQUEST: sequence. PING: frames received. DISCONNECT: last sequence dispatched */
	int32_t status;
	const uint8_t *refs;    /* REQUEST: nrefs * XI_REF_BYTES. REPLY: nrefs * 4 */
	const uint8_t *payload; /* DISCONNECT: the text */
	uint32_t payload_len;
	uint16_t reason;
};

/* What was negotiated, as far as it bounds a frame. */
struct xi_frame_limits {
	uint32_t payload, refs;
};

/* Bytes of the largest frame within these limits. */
uint32_t xi_frame_max(const struct xi_frame_limits *limits);

/* Check and take apart `length` bytes. 0, or -EPROTO and `*ret_why`, a constant text that says what is impossible. */
int xi_frame_parse(const uint8_t *bytes, uint32_t length, const struct xi_frame_limits *limits, struct xi_frame *ret,
		   const char **ret_why);
/* The i-th reference of a parsed REQUEST, the i-th valid length of a parsed REPLY. `i` < nrefs (asserted). */
struct xi_wire_ref xi_frame_ref(const struct xi_frame *frame, unsigned i);
uint32_t xi_frame_valid(const struct xi_frame *frame, unsigned i);

/*
 * Write a frame to `to`, which has room for xi_frame_max() bytes; the caller has checked its arguments against the
 * limits. Returns its length.
 */
uint32_t xi_frame_put_request(uint8_t *to, uint32_t id, uint16_t credit, uint32_t sequence,
			      const struct xi_wire_ref *refs, unsigned nrefs, const void *payload,
			      uint32_t payload_len);
uint32_t xi_frame_put_reply(uint8_t *to, uint32_t id, uint16_t credit, int32_t status, const uint32_t *valid,
			    unsigned nvalid, const void *payload, uint32_t payload_len);
uint32_t xi_frame_put_not_executed(uint8_t *to, uint32_t id, uint16_t credit);
uint32_t xi_frame_put_message(uint8_t *to, uint16_t credit, const void *payload, uint32_t payload_len);
uint32_t xi_frame_put_cancel(uint8_t *to, uint32_t id, uint16_t credit);
uint32_t xi_frame_put_credit(uint8_t *to, uint16_t credit);
uint32_t xi_frame_put_ping(uint8_t *to, uint16_t credit, uint32_t received);
uint32_t xi_frame_put_disconnect(uint8_t *to, uint16_t credit, uint32_t last_dispatched, enum xenidc_reason reason,
				 const char *text);

/* "REQUEST"; "?" for what is none. */
const char *xi_frame_name(uint8_t kind);
/* One line to the trace: `arrow` is "->" or "<-". */
void xi_frame_trace(const char *who, const char *arrow, const uint8_t *bytes, uint32_t length);

#endif
