/* SPDX-License-Identifier: MIT */
/* The parser of frames. What it accepts lies within the bytes and the limits, and is written again as it was. */
#include <stdlib.h>

#include "fuzz.h"
#include "tests/lib/check.h"
#include "xenidc-core/base/limits.h"
#include "xenidc-core/frame.h"

static uint32_t put_again(uint8_t *to, const struct xi_frame *f)
{
	struct xi_wire_ref refs[XI_REFS_MAX];
	uint32_t valid[XI_REFS_MAX];
	char text[XI_REASON_TEXT_MAX + 1] = "";

	switch (f->kind) {
	case XI_FRAME_REQUEST:
		for (unsigned i = 0; i < f->nrefs; i++)
			refs[i] = xi_frame_ref(f, i);
		return xi_frame_put_request(to, f->id, f->credit, f->number, refs, f->nrefs, f->payload,
					    f->payload_len);
	case XI_FRAME_REPLY:
		if (f->flags & XI_FRAME_NOT_EXECUTED)
			return xi_frame_put_not_executed(to, f->id, f->credit);
		for (unsigned i = 0; i < f->nrefs; i++)
			valid[i] = xi_frame_valid(f, i);
		return xi_frame_put_reply(to, f->id, f->credit, f->status, valid, f->nrefs, f->payload, f->payload_len);
	case XI_FRAME_MESSAGE:
		return xi_frame_put_message(to, f->credit, f->payload, f->payload_len);
	case XI_FRAME_CANCEL:
		return xi_frame_put_cancel(to, f->id, f->credit);
	case XI_FRAME_CREDIT:
		return xi_frame_put_credit(to, f->credit);
	case XI_FRAME_PING:
		return xi_frame_put_ping(to, f->credit, f->number);
	default:
		CHECK_EQ(f->kind, XI_FRAME_DISCONNECT);
		for (unsigned i = 0; i < f->payload_len; i++)
			text[i] = (char)f->payload[i];
		return xi_frame_put_disconnect(to, f->credit, f->number, (enum xenidc_reason)f->reason, text);
	}
}

static bool has_nul(const struct xi_frame *f)
{
	for (unsigned i = 0; i < f->payload_len; i++)
		if (!f->payload[i])
			return true;
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t again[XI_FRAME_MAX];
	struct input in = input(data, size);
	struct xi_frame_limits limits = { .refs = input_8(&in) % (XI_REFS_MAX + 1) };
	struct xi_frame frame;
	const char *why = NULL;
	size_t length;
	uint8_t *bytes;

	limits.payload = input_16(&in) % (XI_PAYLOAD_MAX + 1);
	bytes = input_bytes(&in, XI_FRAME_MAX, &length);
	if (xi_frame_parse(bytes, (uint32_t)length, &limits, &frame, &why)) {
		CHECK(why);
	} else {
		CHECK(!why && length <= xi_frame_max(&limits));
		CHECK(frame.payload >= bytes && frame.payload + frame.payload_len == bytes + length);
		CHECK(frame.nrefs <= limits.refs);
		/* A text that holds a NUL is cut there. */
		if (frame.kind != XI_FRAME_DISCONNECT || !has_nul(&frame)) {
			CHECK_EQ(put_again(again, &frame), length);
			CHECK_MEM(again, bytes, length);
		}
	}
	free(bytes);
	return 0;
}
