/* SPDX-License-Identifier: MIT */
/* Where everything stands in one direction's region; both ends compute the same. */
#include "base/assert.h"
#include "base/limits.h"
#include "budget.h"
#include "frame.h"

/*
 * Frames of control that may be under way at once: two CREDIT (one for each half of the messages), four PING (more are
 * held back until the peer has shown that it reads), one DISCONNECT, one to spare.
 */
#define CONTROL_FRAMES 8

/*
 * Frames of a side that the other may not have read yet. Three a request: the CANCEL of the index's last request, whose
 * reply crossed it, the new REQUEST, and its CANCEL; the next reply proves that all of them were read.
 */
static uint32_t frames_outstanding(const struct xenidc_budget *b)
{
	XI_ASSERT(b->requests_out <= XI_REQUESTS_MAX && b->requests_in <= XI_REQUESTS_MAX &&
		  b->messages_out <= XI_MESSAGES_MAX);
	return 3 * b->requests_out + b->requests_in + b->messages_out + CONTROL_FRAMES;
}

static uint32_t power_of_two(uint32_t n)
{
	uint32_t p = 1;

	XI_ASSERT(n > 0 && n <= 1u << 31);
	while (p < n)
		p <<= 1;
	return p;
}

static uint64_t whole_pages(uint64_t n)
{
	XI_DASSERT(n <= UINT64_MAX - XI_PAGE);
	return (n + XI_PAGE - 1) / XI_PAGE * XI_PAGE;
}

static void add_classes(struct xi_layout *l, const struct xenidc_slot_class *c)
{
	XI_ASSERT(l->bytes % XI_PAGE == 0 && l->bytes >= l->slots_offset);
	for (int i = 0; i < XENIDC_CLASSES_MAX && c[i].count; i++) {
		XI_ASSERT(l->classes < XI_LAYOUT_CLASSES);
		l->cls[l->classes++] = (struct xi_layout_class){
			.first = l->slots,
			.count = c[i].count,
			.size = c[i].size,
			.stride = (uint32_t)whole_pages(c[i].size),
			.offset = l->bytes,
		};
		l->slots += c[i].count;
		l->bytes += (uint64_t)c[i].count * whole_pages(c[i].size);
	}
}

void xi_layout_make(const struct xenidc_budget *budget, struct xi_layout *ret)
{
	struct xi_frame_limits limits = { .payload = budget->payload, .refs = budget->refs };
	struct xi_layout l = { .ring_offset = XI_PAGE };

	XI_ASSERT(budget->size == sizeof(*budget));
	l.frames = power_of_two(frames_outstanding(budget) + 1);
	l.frame_max = xi_frame_max(&limits);
	l.frame_stride = (8 + l.frame_max + XI_LINE - 1) / XI_LINE * XI_LINE;
	l.slots_offset = whole_pages(l.ring_offset + (uint64_t)l.frames * l.frame_stride);
	l.bytes = l.slots_offset;
	add_classes(&l, budget->out);
	add_classes(&l, budget->peer_in);
	XI_ASSERT(l.frame_max <= XI_FRAME_MAX);
	*ret = l;
}

uint64_t xi_layout_slot(const struct xi_layout *layout, uint32_t slot, uint32_t *ret_size)
{
	const struct xi_layout_class *c = layout->cls;

	XI_DASSERT(ret_size && layout->classes > 0);
	XI_ASSERT(slot < layout->slots);
	while (slot >= c->first + c->count)
		c++;
	*ret_size = c->size;
	return c->offset + (uint64_t)(slot - c->first) * c->stride;
}
