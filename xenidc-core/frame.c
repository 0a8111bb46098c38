/* SPDX-License-Identifier: MIT */
#include "frame.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/cursor.h"
#include "base/limits.h"
#include "base/log.h"

/* What a kind may look like; the one place that says so. */
struct kind_rule {
	const char *name;
	uint8_t flags;  /* that may be set */
	bool id, refs;  /* carries them */
	uint32_t fixed; /* bytes of the body before references and payload */
	uint32_t each;  /* bytes a reference */
	bool payload;   /* may follow */
};

static const struct kind_rule rules[XI_FRAME_KINDS] = {
	[XI_FRAME_REQUEST] = { "REQUEST", 0, true, true, 4, XI_REF_BYTES, true },
	[XI_FRAME_REPLY] = { "REPLY", XI_FRAME_NOT_EXECUTED, true, true, 4, 4, true },
	[XI_FRAME_MESSAGE] = { "MESSAGE", 0, false, false, 0, 0, true },
	[XI_FRAME_CANCEL] = { "CANCEL", 0, true, false, 0, 0, false },
	[XI_FRAME_CREDIT] = { "CREDIT", 0, false, false, 0, 0, false },
	[XI_FRAME_PING] = { "PING", 0, false, false, 4, 0, false },
	[XI_FRAME_DISCONNECT] = { "DISCONNECT", 0, false, false, 8, 0, true },
};

const char *xi_frame_name(uint8_t kind)
{
	if (kind == XI_FRAME_DATA)
		return "DATA";
	return kind < XI_FRAME_KINDS && rules[kind].name ? rules[kind].name : "?";
}

uint32_t xi_frame_max(const struct xi_frame_limits *limits)
{
	uint32_t request = 4 + limits->refs * XI_REF_BYTES + limits->payload;
	uint32_t disconnect = 8 + XI_REASON_TEXT_MAX;

	XI_ASSERT(limits->payload <= XI_PAYLOAD_MAX && limits->refs <= XI_REFS_MAX);
	return XI_FRAME_HEADER + (request > disconnect ? request : disconnect);
}

static uint16_t load16(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

static uint32_t load32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

/* The part before the references, by kind. The bytes are there: the caller has compared them with `fixed`. */
static const char *parse_fixed(struct xi_frame *f, const uint8_t *body)
{
	switch (f->kind) {
	case XI_FRAME_REQUEST:
	case XI_FRAME_PING:
		f->number = load32(body);
		break;
	case XI_FRAME_REPLY:
		f->status = (int32_t)load32(body);
		if (f->flags & XI_FRAME_NOT_EXECUTED && (f->status || f->nrefs || f->payload_len))
			return "a refusal that carries a result";
		break;
	case XI_FRAME_DISCONNECT:
		f->number = load32(body);
		f->reason = load16(body + 4);
		if (load16(body + 6) != f->payload_len)
			return "a text whose length is not what it says";
		break;
	default:
		break;
	}
	return NULL;
}

static const char *parse(const uint8_t *bytes, uint32_t length, const struct xi_frame_limits *limits,
			 struct xi_frame *f)
{
	const struct kind_rule *rule;
	uint32_t body, front, payload_max;
	const char *why;

	if (length < XI_FRAME_HEADER)
		return "shorter than a header";
	f->kind = bytes[0];
	f->flags = bytes[1];
	body = load16(bytes + 2);
	f->id = load32(bytes + 4);
	f->credit = load16(bytes + 8);
	f->nrefs = bytes[10];
	if (f->kind == 0 || f->kind >= XI_FRAME_KINDS || !rules[f->kind].name)
		return "an unknown kind";
	rule = &rules[f->kind];
	if (f->flags & ~rule->flags || bytes[11])
		return "flags that this kind does not have";
	if (body != length - XI_FRAME_HEADER)
		return "a length that is not the frame's";
	if (!rule->id && f->id)
		return "an id where none belongs";
	if (f->nrefs && (!rule->refs || f->nrefs > limits->refs))
		return "more references than negotiated";
	front = rule->fixed + f->nrefs * rule->each;
	if (body < front)
		return "a body that is cut short";
	f->payload_len = body - front;
	payload_max = f->kind == XI_FRAME_DISCONNECT ? XI_REASON_TEXT_MAX : limits->payload;
	if (f->payload_len && (!rule->payload || f->payload_len > payload_max))
		return "more payload than negotiated";
	why = parse_fixed(f, bytes + XI_FRAME_HEADER);
	f->refs = bytes + XI_FRAME_HEADER + rule->fixed;
	f->payload = bytes + XI_FRAME_HEADER + front;
	return why;
}

int xi_frame_parse(const uint8_t *bytes, uint32_t length, const struct xi_frame_limits *limits, struct xi_frame *ret,
		   const char **ret_why)
{
	const char *why = parse(bytes, length, limits, ret);

	XI_DASSERT(bytes && ret && ret_why && limits->payload <= XI_PAYLOAD_MAX);
	XI_DASSERT(limits->refs <= XI_REFS_MAX);
	if (!why)
		return 0;
	*ret_why = why;
	return -EPROTO;
}

struct xi_wire_ref xi_frame_ref(const struct xi_frame *frame, unsigned i)
{
	const uint8_t *p = frame->refs + (size_t)i * XI_REF_BYTES;
	uint16_t slot = load16(p);

	XI_ASSERT(frame->kind == XI_FRAME_REQUEST && i < frame->nrefs);
	return (struct xi_wire_ref){
		.slot = slot & 0x7fff,
		.in = slot & 0x8000,
		.generation = load16(p + 2),
		.offset = load32(p + 4),
		.length = load32(p + 8),
	};
}

uint32_t xi_frame_valid(const struct xi_frame *frame, unsigned i)
{
	XI_ASSERT(frame->kind == XI_FRAME_REPLY && i < frame->nrefs);
	return load32(frame->refs + (size_t)i * 4);
}

static uint8_t *put16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, sizeof(v));
	return p + sizeof(v);
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
	return p + sizeof(v);
}

/* Write the header, now that the end of the body is known. Returns the frame's length. */
static uint32_t put_header(uint8_t *to, const uint8_t *end, uint8_t kind, uint8_t flags, uint32_t id, uint16_t credit,
			   uint8_t nrefs)
{
	uint32_t length = (uint32_t)(end - to);

	XI_DASSERT(length >= XI_FRAME_HEADER && length - XI_FRAME_HEADER <= UINT16_MAX);
	to[0] = kind;
	to[1] = flags;
	put16(to + 2, (uint16_t)(length - XI_FRAME_HEADER));
	put32(to + 4, id);
	put16(to + 8, credit);
	to[10] = nrefs;
	to[11] = 0;
	return length;
}

static uint8_t *put_payload(uint8_t *p, const void *payload, uint32_t length)
{
	XI_DASSERT(p && (payload || !length) && length <= XI_PAYLOAD_MAX);
	if (length)
		memcpy(p, payload, length);
	return p + length;
}

uint32_t xi_frame_put_request(uint8_t *to, uint32_t id, uint16_t credit, uint32_t sequence,
			      const struct xi_wire_ref *refs, unsigned nrefs, const void *payload, uint32_t payload_len)
{
	uint8_t *p = put32(to + XI_FRAME_HEADER, sequence);

	XI_DASSERT(to && payload_len <= XI_PAYLOAD_MAX && (refs || !nrefs));
	XI_DASSERT(nrefs <= XI_REFS_MAX);
	for (unsigned i = 0; i < nrefs; i++) {
		p = put16(p, (uint16_t)(refs[i].slot | (refs[i].in ? 0x8000 : 0)));
		p = put16(p, refs[i].generation);
		p = put32(p, refs[i].offset);
		p = put32(p, refs[i].length);
	}
	p = put_payload(p, payload, payload_len);
	return put_header(to, p, XI_FRAME_REQUEST, 0, id, credit, (uint8_t)nrefs);
}

uint32_t xi_frame_put_reply(uint8_t *to, uint32_t id, uint16_t credit, int32_t status, const uint32_t *valid,
			    unsigned nvalid, const void *payload, uint32_t payload_len)
{
	uint8_t *p = put32(to + XI_FRAME_HEADER, (uint32_t)status);

	XI_DASSERT(to && payload_len <= XI_PAYLOAD_MAX && (valid || !nvalid));
	XI_DASSERT(nvalid <= XI_REFS_MAX);
	for (unsigned i = 0; i < nvalid; i++)
		p = put32(p, valid[i]);
	p = put_payload(p, payload, payload_len);
	return put_header(to, p, XI_FRAME_REPLY, 0, id, credit, (uint8_t)nvalid);
}

uint32_t xi_frame_put_not_executed(uint8_t *to, uint32_t id, uint16_t credit)
{
	XI_DASSERT(to);
	uint8_t *p = put32(to + XI_FRAME_HEADER, 0);
	return put_header(to, p, XI_FRAME_REPLY, XI_FRAME_NOT_EXECUTED, id, credit, 0);
}

uint32_t xi_frame_put_message(uint8_t *to, uint16_t credit, const void *payload, uint32_t payload_len)
{
	XI_DASSERT(to && payload_len <= XI_PAYLOAD_MAX);
	uint8_t *p = put_payload(to + XI_FRAME_HEADER, payload, payload_len);
	return put_header(to, p, XI_FRAME_MESSAGE, 0, 0, credit, 0);
}

uint32_t xi_frame_put_cancel(uint8_t *to, uint32_t id, uint16_t credit)
{
	return put_header(to, to + XI_FRAME_HEADER, XI_FRAME_CANCEL, 0, id, credit, 0);
}

uint32_t xi_frame_put_credit(uint8_t *to, uint16_t credit)
{
	return put_header(to, to + XI_FRAME_HEADER, XI_FRAME_CREDIT, 0, 0, credit, 0);
}

uint32_t xi_frame_put_ping(uint8_t *to, uint16_t credit, uint32_t received)
{
	XI_DASSERT(to);
	uint8_t *p = put32(to + XI_FRAME_HEADER, received);
	return put_header(to, p, XI_FRAME_PING, 0, 0, credit, 0);
}

uint32_t xi_frame_put_disconnect(uint8_t *to, uint16_t credit, uint32_t last_dispatched, enum xenidc_reason reason,
				 const char *text)
{
	uint8_t *p = put32(to + XI_FRAME_HEADER, last_dispatched);
	size_t length = strnlen(text, XI_REASON_TEXT_MAX);

	XI_ASSERT(to && text && length <= XI_REASON_TEXT_MAX);
	p = put16(p, (uint16_t)reason);
	p = put16(p, (uint16_t)length);
	p = put_payload(p, text, (uint32_t)length);
	return put_header(to, p, XI_FRAME_DISCONNECT, 0, 0, credit, 0);
}

void xi_frame_trace(const char *who, const char *arrow, const uint8_t *bytes, uint32_t length)
{
	char hex[3 * 32 + 1] = "";
	uint32_t shown = length > XI_FRAME_HEADER ? length - XI_FRAME_HEADER : 0;

	XI_ASSERT(who && arrow && bytes);
	if (length < XI_FRAME_HEADER)
		return;
	if (shown > 32)
		shown = 32;
	for (uint32_t i = 0; i < shown; i++) {
		hex[3 * i] = ' ';
		hex[3 * i + 1] = "0123456789abcdef"[bytes[XI_FRAME_HEADER + i] >> 4];
		hex[3 * i + 2] = "0123456789abcdef"[bytes[XI_FRAME_HEADER + i] & 15];
	}
	hex[3 * shown] = '\0';
	xi_trace("%s %s %s flags=%u len=%u id=%u/%u credit=%u nrefs=%u%s%s", who, arrow, xi_frame_name(bytes[0]),
		 bytes[1], load16(bytes + 2), load16(bytes + 4), load16(bytes + 6), load16(bytes + 8), bytes[10], hex,
		 length - XI_FRAME_HEADER > shown ? " ..." : "");
}
