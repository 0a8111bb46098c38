/* SPDX-License-Identifier: MIT */
/* The parts of the cursors that are not worth inlining. */
#include "cursor.h"

#include "assert.h"

XI_STATIC_ASSERT(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little endian, and cursor.h copies as is");

void xi_put_text(struct xi_writer *w, const char *text, size_t max)
{
	XI_ASSERT(max <= UINT16_MAX);
	size_t length = strnlen(text, max);
	xi_put_u16(w, (uint16_t)length);
	xi_put_bytes(w, text, length);
}

void xi_get_text(struct xi_reader *r, char *to, size_t max)
{
	XI_ASSERT(max <= UINT16_MAX);
	size_t length = xi_get_u16(r);
	const uint8_t *p = NULL;
	if (length > max)
		r->bad = true;
	else
		p = xi_get_bytes(r, length);
	if (p && memchr(p, 0, length))
		r->bad = true;
	if (r->bad || !p)
		length = 0;
	else if (length)
		memcpy(to, p, length);
	to[length] = 0;
}

void xi_text_printable(char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}
