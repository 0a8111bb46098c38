/* SPDX-License-Identifier: MIT */
#include "hello.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/cursor.h"

static const uint8_t magic[4] = { 'X', 'I', 'D', 'C' };

#define LENGTH_AT 12
#define CRC_AT 24

int xi_hello_length(const uint8_t *bytes, size_t have)
{
	uint32_t length;

	if (memcmp(bytes, magic, have < sizeof(magic) ? have : sizeof(magic)) != 0)
		return -EPROTO;
	if (have < LENGTH_AT + 4)
		return 0;
	memcpy(&length, bytes + LENGTH_AT, sizeof(length));
	return length < XI_HELLO_HEAD || length > XI_HELLO_MAX ? -EPROTO : (int)length;
}

static uint32_t hello_crc(const uint8_t *bytes, uint32_t length)
{
	static const uint8_t zero[4];
	uint32_t crc = xi_crc32c(0, bytes, CRC_AT);

	XI_ASSERT(length <= XI_HELLO_MAX && CRC_AT + 4 <= XI_HELLO_HEAD);
	XI_ASSERT(length >= XI_HELLO_HEAD);
	crc = xi_crc32c(crc, zero, sizeof(zero));
	return xi_crc32c(crc, bytes + CRC_AT + 4, length - CRC_AT - 4);
}

void xi_hello_seal(uint8_t *to, uint32_t length)
{
	uint32_t crc;

	XI_ASSERT(length >= XI_HELLO_HEAD && length <= XI_HELLO_MAX);
	memcpy(to + LENGTH_AT, &length, sizeof(length));
	crc = hello_crc(to, length);
	memcpy(to + CRC_AT, &crc, sizeof(crc));
}

/* --- LIMITS: six u32 of counts, u32 page size, u32 incarnation, then out, in, peer_out, peer_in: four {size, count} */

static void put_classes(struct xi_writer *w, const struct xenidc_slot_class *c)
{
	for (int i = 0; i < XENIDC_CLASSES_MAX; i++) {
		xi_put_u32(w, c[i].size);
		xi_put_u32(w, c[i].count);
	}
}

static void put_limits(struct xi_writer *w, const struct xi_hello *h)
{
	const struct xenidc_budget *b = &h->budget;

	xi_put_u32(w, b->requests_out);
	xi_put_u32(w, b->requests_in);
	xi_put_u32(w, b->messages_out);
	xi_put_u32(w, b->messages_in);
	xi_put_u32(w, b->payload);
	xi_put_u32(w, b->refs);
	xi_put_u32(w, XI_PAGE);
	xi_put_u32(w, h->incarnation);
	put_classes(w, b->out);
	put_classes(w, b->in);
	put_classes(w, b->peer_out);
	put_classes(w, b->peer_in);
}

/* Classes must ascend in size, be whole pages, and be followed by none but empty ones. */
static bool get_classes(struct xi_reader *r, struct xenidc_slot_class *c)
{
	uint32_t before = 0;
	bool ended = false;

	for (int i = 0; i < XENIDC_CLASSES_MAX; i++) {
		c[i].size = xi_get_u32(r);
		c[i].count = xi_get_u32(r);
		if (c[i].count == 0) {
			if (c[i].size)
				return false;
			ended = true;
			continue;
		}
		if (ended || c[i].size <= before || c[i].size > XI_SLOT_SIZE_MAX || c[i].size % XI_PAGE ||
		    c[i].count > XI_SLOTS_MAX)
			return false;
		before = c[i].size;
	}
	return true;
}

static const char *get_limits(struct xi_reader r, struct xi_hello *h)
{
	struct xenidc_budget *b = &h->budget;
	uint32_t page;
	bool fine;

	b->size = sizeof(*b);
	b->requests_out = xi_get_u32(&r);
	b->requests_in = xi_get_u32(&r);
	b->messages_out = xi_get_u32(&r);
	b->messages_in = xi_get_u32(&r);
	b->payload = xi_get_u32(&r);
	b->refs = xi_get_u32(&r);
	page = xi_get_u32(&r);
	h->incarnation = xi_get_u32(&r);
	fine = get_classes(&r, b->out);
	fine = get_classes(&r, b->in) && fine;
	fine = get_classes(&r, b->peer_out) && fine;
	fine = get_classes(&r, b->peer_in) && fine;
	b->no_slots = true; /* nothing is to be defaulted: what stands here is complete */
	if (r.bad)
		return "limits that are cut short";
	if (page != XI_PAGE)
		return "slots in pages of another size";
	if (!fine)
		return "impossible slot classes";
	if (b->requests_out > XI_REQUESTS_MAX || b->requests_in > XI_REQUESTS_MAX ||
	    b->messages_out > XI_MESSAGES_MAX || b->messages_in > XI_MESSAGES_MAX || b->payload > XI_PAYLOAD_MAX ||
	    b->refs > XI_REFS_MAX)
		return "limits beyond what the protocol allows";
	return NULL;
}

/* --- The sections */

static void put_section(struct xi_writer *w, uint16_t type, const void *bytes, size_t length)
{
	XI_ASSERT(length <= UINT16_MAX && (bytes || !length));
	xi_put_u16(w, type);
	xi_put_u16(w, (uint16_t)length);
	xi_put_bytes(w, bytes, length);
}

static void put_session(struct xi_writer *w, const struct xi_session *s)
{
	xi_put_u64(w, s->id);
	xi_put_u64(w, s->secret);
	xi_put_u32(w, s->last_received);
	xi_put_u32(w, s->last_consumed);
}

static void get_session(struct xi_reader *r, struct xi_session *s)
{
	s->id = xi_get_u64(r);
	s->secret = xi_get_u64(r);
	s->last_received = xi_get_u32(r);
	s->last_consumed = xi_get_u32(r);
}

/* A text section: the bytes up to `max`, no NUL inside. */
static const char *get_section_text(const uint8_t *bytes, uint32_t length, char *to, uint32_t max)
{
	if (length > max || memchr(bytes, 0, length))
		return "a text that is none";
	memcpy(to, bytes, length);
	to[length] = '\0';
	return NULL;
}

static const char *get_section(struct xi_hello *h, uint16_t type, const uint8_t *bytes, uint16_t length)
{
	struct xi_reader r = xi_reader(bytes, length);

	switch (type) {
	case XI_SECTION_LIMITS:
		return get_limits(r, h);
	case XI_SECTION_SESSION:
		get_session(&r, &h->session);
		return r.bad ? "a session that is cut short" : NULL;
	case XI_SECTION_SERVICE:
		return get_section_text(bytes, length, h->service, XENIDC_SERVICE_MAX);
	case XI_SECTION_AUTH:
		if (length > XI_AUTH_MAX)
			return "more authentication data than allowed";
		memcpy(h->auth, bytes, length);
		h->auth_len = length;
		return NULL;
	case XI_SECTION_TRANSPORT:
		if (length > XI_EXPORT_MAX)
			return "more transport data than allowed";
		h->transport = bytes;
		h->transport_len = length;
		return NULL;
	case XI_SECTION_REASON:
		h->reason = xi_get_u16(&r);
		return r.bad ? "a reason that is cut short"
			     : get_section_text(bytes + 2, length - 2u, h->text, XI_REASON_TEXT_MAX);
	default:
		return NULL; /* of a later minor version */
	}
}

/* Which sections a kind must have, and that none comes twice. */
static const char *check_sections(uint8_t kind, uint32_t seen)
{
	static const uint32_t needed[] = {
		[XI_HELLO_CONNECT] = 1u << XI_SECTION_LIMITS | 1u << XI_SECTION_SESSION,
		[XI_HELLO_ACCEPT] = 1u << XI_SECTION_LIMITS | 1u << XI_SECTION_SESSION | 1u << XI_SECTION_TRANSPORT,
		[XI_HELLO_REFUSE] = 1u << XI_SECTION_REASON,
		[XI_HELLO_READY] = 1u << XI_SECTION_TRANSPORT,
	};

	XI_ASSERT(kind >= XI_HELLO_CONNECT && kind <= XI_HELLO_READY);
	return (seen & needed[kind]) == needed[kind] ? NULL : "a section that it needs is missing";
}

static const char *get_sections(struct xi_reader *r, struct xi_hello *h)
{
	uint32_t seen = 0;

	while (xi_reader_left(r)) {
		uint16_t type = xi_get_u16(r);
		uint16_t length = xi_get_u16(r);
		const uint8_t *bytes = xi_get_bytes(r, length);
		const char *why;

		if (!bytes)
			return "a section that is cut short";
		if (type < 32) {
			if (seen & 1u << type)
				return "a section that comes twice";
			seen |= 1u << type;
		}
		why = get_section(h, type, bytes, length);
		if (why)
			return why;
	}
	return check_sections(h->kind, seen);
}

static const char *parse(const uint8_t *bytes, uint32_t length, struct xi_hello *h)
{
	struct xi_reader r = xi_reader(bytes, length);
	uint32_t crc;
	uint8_t zero;

	if (length < XI_HELLO_HEAD || xi_hello_length(bytes, length) != (int)length)
		return "no connect message, or its length is wrong";
	xi_get_bytes(&r, sizeof(magic));
	h->kind = xi_get_u8(&r);
	zero = xi_get_u8(&r);
	h->major_min = xi_get_u16(&r);
	h->major_max = xi_get_u16(&r);
	h->minor = xi_get_u16(&r);
	(void)xi_get_u32(&r);
	h->features = xi_get_u64(&r);
	crc = xi_get_u32(&r);
	if (crc != hello_crc(bytes, length))
		return "a checksum that does not match";
	if (h->kind < XI_HELLO_CONNECT || h->kind > XI_HELLO_READY || zero || xi_get_u32(&r))
		return "an unknown kind of connect message";
	if (h->major_min > h->major_max)
		return "an impossible range of versions";
	/* What another major version says after its head is not for us to judge; the version is refused later. */
	if (h->major_max < XI_PROTOCOL_MAJOR_MIN || h->major_min > XI_PROTOCOL_MAJOR)
		return NULL;
	return get_sections(&r, h);
}

int xi_hello_parse(const uint8_t *bytes, uint32_t length, struct xi_hello *ret, const char **ret_why)
{
	const char *why;

	XI_ASSERT(bytes && ret_why);
	memset(ret, 0, sizeof(*ret));
	why = parse(bytes, length, ret);
	if (!why)
		return 0;
	*ret_why = why;
	return -EPROTO;
}

static void put_body(struct xi_writer *w, const struct xi_hello *h)
{
	uint8_t bytes[512];
	struct xi_writer s = xi_writer(bytes, sizeof(bytes));

	XI_ASSERT(h->kind >= XI_HELLO_CONNECT && h->kind <= XI_HELLO_READY);
	if (h->kind == XI_HELLO_REFUSE) {
		xi_put_u16(&s, h->reason);
		xi_put_bytes(&s, h->text, strnlen(h->text, XI_REASON_TEXT_MAX));
		put_section(w, XI_SECTION_REASON, bytes, xi_writer_used(&s));
		return;
	}
	if (h->kind != XI_HELLO_READY) {
		put_limits(&s, h);
		put_section(w, XI_SECTION_LIMITS, bytes, xi_writer_used(&s));
		s = xi_writer(bytes, sizeof(bytes));
		put_session(&s, &h->session);
		put_section(w, XI_SECTION_SESSION, bytes, xi_writer_used(&s));
	}
	if (h->kind == XI_HELLO_CONNECT) {
		put_section(w, XI_SECTION_SERVICE, h->service, strlen(h->service));
		put_section(w, XI_SECTION_AUTH, h->auth, h->auth_len);
		return;
	}
	put_section(w, XI_SECTION_TRANSPORT, h->transport, h->transport_len);
}

uint32_t xi_hello_put(uint8_t *to, const struct xi_hello *h)
{
	struct xi_writer w = xi_writer(to, XI_HELLO_MAX);

	XI_ASSERT(h->auth_len <= XI_AUTH_MAX && h->transport_len <= XI_EXPORT_MAX);
	xi_put_bytes(&w, magic, sizeof(magic));
	xi_put_u8(&w, h->kind);
	xi_put_u8(&w, 0);
	xi_put_u16(&w, h->major_min);
	xi_put_u16(&w, h->major_max);
	xi_put_u16(&w, h->minor);
	xi_put_u32(&w, 0);
	xi_put_u64(&w, h->features);
	xi_put_u32(&w, 0);
	xi_put_u32(&w, 0);
	put_body(&w, h);
	XI_ASSERT(!w.bad);
	xi_hello_seal(to, (uint32_t)xi_writer_used(&w));
	return (uint32_t)xi_writer_used(&w);
}
