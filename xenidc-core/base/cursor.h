/* SPDX-License-Identifier: MIT */
/*
 * Bounded cursors: the only way in which bytes from or for a peer are read and written outside the codec's fixed
 * headers. Little endian. An access beyond the end sets `bad`, reads as zero and writes nothing; callers check `bad`
 * once at the end.
 */
#ifndef XI_BASE_CURSOR_H
#define XI_BASE_CURSOR_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct xi_reader {
	const uint8_t *at, *end;
	bool bad;
};

struct xi_writer {
	uint8_t *start, *at, *end;
	bool bad;
};

static inline struct xi_reader xi_reader(const void *bytes, size_t length)
{
	const uint8_t *start = bytes;
	return (struct xi_reader){ .at = start, .end = length ? start + length : start }; /* NULL is fine if empty */
}

static inline struct xi_writer xi_writer(void *bytes, size_t length)
{
	uint8_t *start = bytes;
	return (struct xi_writer){ .start = start, .at = start, .end = start + length };
}

static inline size_t xi_reader_left(const struct xi_reader *r)
{
	return (size_t)(r->end - r->at);
}

static inline size_t xi_writer_used(const struct xi_writer *w)
{
	return (size_t)(w->at - w->start);
}

/* `length` bytes in place, or NULL (and bad). */
static inline const uint8_t *xi_get_bytes(struct xi_reader *r, size_t length)
{
	const uint8_t *p = r->at;
	if (r->bad || xi_reader_left(r) < length) {
		r->bad = true;
		return NULL;
	}
	r->at += length;
	return p;
}

static inline void xi_put_bytes(struct xi_writer *w, const void *bytes, size_t length)
{
	if (w->bad || (size_t)(w->end - w->at) < length) {
		w->bad = true;
		return;
	}
	if (length)
		memcpy(w->at, bytes, length);
	w->at += length;
}

#define XI_CURSOR_INTEGER(name, type)                                                                                  \
	static inline type xi_get_##name(struct xi_reader *r)                                                          \
	{                                                                                                              \
		const uint8_t *p = xi_get_bytes(r, sizeof(type));                                                      \
		type v = 0;                                                                                            \
		if (p)                                                                                                 \
			memcpy(&v, p, sizeof(v));                                                                      \
		return v;                                                                                              \
	}                                                                                                              \
	static inline void xi_put_##name(struct xi_writer *w, type v)                                                  \
	{                                                                                                              \
		xi_put_bytes(w, &v, sizeof(v));                                                                        \
	}
/* The hosts that this is built for are little endian (checked in cursor.c); so is the wire. */
XI_CURSOR_INTEGER(u8, uint8_t)
XI_CURSOR_INTEGER(u16, uint16_t)
XI_CURSOR_INTEGER(u32, uint32_t)
XI_CURSOR_INTEGER(u64, uint64_t)

/* u16 length and bytes. Writing: what is longer than `max` is cut. Reading: copies to `to` (max + 1 bytes) with a
 * closing NUL; what is longer than `max`, or holds a NUL, is bad and reads as "". */
void xi_put_text(struct xi_writer *w, const char *text, size_t max);
void xi_get_text(struct xi_reader *r, char *to, size_t max);

/* Make untrusted text fit to print: everything but printable ASCII becomes '?'. In place. */
void xi_text_printable(char *text);

#endif
