/* SPDX-License-Identifier: MIT */
#include "model.h"

#include <string.h>

#include "tests/lib/check.h"

#define TARGET_LENGTH 100u /* of the references of the target's request */
#define TARGET_FRAMES 2u   /* its request and its message */
#define TARGET_MESSAGES 1u

const char *verdict_name(enum verdict verdict)
{
	static const char *const names[] = { "legal", "an orderly end", "a protocol error", "damage" };

	return names[verdict];
}

void model_prepare(struct link *l)
{
	static const struct raw_ref refs[2] = { { 0, 0, 64 }, { RAW_IN | 0, 0, 64 } };
	uint64_t end = check_now() + (uint64_t)3000000000u * check_factor();
	static struct raw_bytes frame;

	raw_request(&frame, RAW_ID(0, 1), 1, refs, 2, 8);
	link_send_frame(l, &frame);
	if (l->kind == LINK_TCP) {
		raw_data(&frame, RAW_ID(0, 1), 0, 0, 64);
		link_send_frame(l, &frame);
	}
	while (l->target->nheld < 1) {
		if (check_now() > end)
			check_failed(__FILE__, __LINE__, "the target does not get a good request; %s",
				     l->target->why.text);
		target_turn(l->target);
	}
}

bool model_base(const struct link *l, unsigned i, struct raw_bytes *frame, const char **ret_name)
{
	static const struct raw_ref refs[2] = { { 1, 8, 40 }, { RAW_IN | 1, 0, 50 } };
	static const uint32_t valid = TARGET_LENGTH;
	static const char *const names[] = { "REQUEST", "REPLY",  "NOT_EXECUTED", "MESSAGE",
					     "CANCEL",  "CREDIT", "PING",         "DISCONNECT" };

	if (i >= sizeof(names) / sizeof(names[0]))
		return false;
	*ret_name = names[i];
	switch (i) {
	case 0:
		raw_request(frame, RAW_ID(1, 1), 2, refs, 2, 16);
		break;
	case 1:
		raw_reply(frame, l->request_id, &valid, 1, 5);
		break;
	case 2:
		raw_not_executed(frame, l->request_id);
		break;
	case 3:
		raw_message(frame, 9);
		break;
	case 4:
		raw_cancel(frame, RAW_ID(0, 1));
		break;
	case 5:
		raw_credit(frame, TARGET_MESSAGES);
		break;
	case 6:
		raw_ping(frame, TARGET_FRAMES);
		break;
	default:
		raw_disconnect(frame, 0, 1, "bye");
	}
	return true;
}

/* References of a REQUEST: slots that exist, once each, not lent, and not beyond their end. */
static bool good_refs(const uint8_t *at, unsigned n)
{
	bool lent[2][RAW_SLOTS] = { { true, false }, { true, false } };

	for (unsigned i = 0; i < n; i++, at += 12) {
		uint16_t slot = raw_get16(at);
		unsigned in = slot >> 15, k = slot & 0x7fff;
		uint64_t end = (uint64_t)raw_get32(at + 4) + raw_get32(at + 8);
		if (k >= RAW_SLOTS || lent[in][k] || end > RAW_SLOT)
			return false;
		lent[in][k] = true;
	}
	return true;
}

static enum verdict judge_request(const struct raw_bytes *f)
{
	uint16_t index = raw_get16(f->b + 4);
	int16_t generation = (int16_t)raw_get16(f->b + 6);
	uint32_t nrefs = f->b[10], front = 4 + 12 * nrefs, body = f->n - RAW_HEADER;

	if (f->b[1] || nrefs > RAW_REFS || body < front || body - front > RAW_PAYLOAD)
		return PROTOCOL;
	/* Index 0 is in flight; of the others none was used yet. */
	if (index == 0 || index >= RAW_REQUESTS || generation <= 0)
		return PROTOCOL;
	if ((int32_t)(raw_get32(f->b + RAW_HEADER) - 1) <= 0)
		return PROTOCOL;
	return good_refs(f->b + RAW_HEADER + 4, nrefs) ? LEGAL : PROTOCOL;
}

static enum verdict judge_reply(const struct link *l, const struct raw_bytes *f)
{
	uint32_t nrefs = f->b[10], body = f->n - RAW_HEADER;

	if (f->b[1] & ~RAW_NOT_EXECUTED || raw_get32(f->b + 4) != l->request_id)
		return PROTOCOL;
	if (f->b[1])
		return nrefs == 0 && body == 4 && raw_get32(f->b + RAW_HEADER) == 0 ? LEGAL : PROTOCOL;
	if (nrefs != 1 || body < 8 || body - 8 > RAW_PAYLOAD || raw_get32(f->b + RAW_HEADER + 4) > TARGET_LENGTH)
		return PROTOCOL;
	return LEGAL;
}

static enum verdict judge_cancel(const struct raw_bytes *f)
{
	uint16_t index = raw_get16(f->b + 4), generation = raw_get16(f->b + 6);

	if (f->b[1] || f->b[10] || f->n != RAW_HEADER || index >= RAW_REQUESTS)
		return PROTOCOL;
	return generation == (index == 0 ? 1 : 0) ? LEGAL : PROTOCOL;
}

static enum verdict judge_disconnect(const struct raw_bytes *f)
{
	uint32_t body = f->n - RAW_HEADER;

	if (body < 8 || body - 8 > 160 || raw_get16(f->b + RAW_HEADER + 6) != body - 8)
		return PROTOCOL;
	return ENDS;
}

enum verdict model_judge(const struct link *l, const struct raw_bytes *f)
{
	uint32_t body = f->n - RAW_HEADER;

	if (f->n < RAW_HEADER || f->n > raw_layout(&l->limits).frame_max || raw_get16(f->b + 2) != body || f->b[11])
		return PROTOCOL;
	if (raw_get16(f->b + 8) > TARGET_MESSAGES)
		return PROTOCOL;
	switch (f->b[0]) {
	case RAW_REQUEST:
		return judge_request(f);
	case RAW_REPLY:
		return judge_reply(l, f);
	case RAW_CANCEL:
		return judge_cancel(f);
	default:
		break;
	}
	if (f->b[1] || raw_get32(f->b + 4) || f->b[10])
		return PROTOCOL;
	switch (f->b[0]) {
	case RAW_MESSAGE:
		return body <= RAW_PAYLOAD ? LEGAL : PROTOCOL;
	case RAW_CREDIT:
		return body == 0 ? LEGAL : PROTOCOL;
	case RAW_PING:
		if (body != 4 || (int32_t)(raw_get32(f->b + RAW_HEADER) - TARGET_FRAMES) > 0)
			return PROTOCOL;
		return LEGAL;
	case RAW_DISCONNECT:
		return judge_disconnect(f);
	default:
		return PROTOCOL;
	}
}
