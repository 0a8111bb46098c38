/* SPDX-License-Identifier: MIT */
#include "budget.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "frame.h"

static const struct xenidc_slot_class default_classes[XENIDC_CLASSES_MAX] = { { 4096, 16 }, { 65536, 8 } };

/* The four sets of classes of a budget, with the words for an error. */
static const struct {
	size_t at;
	const char *name;
} sets[] = {
	{ offsetof(struct xenidc_budget, out), "out" },
	{ offsetof(struct xenidc_budget, in), "in" },
	{ offsetof(struct xenidc_budget, peer_out), "peer_out" },
	{ offsetof(struct xenidc_budget, peer_in), "peer_in" },
};
#define SETS (sizeof(sets) / sizeof(sets[0]))

static struct xenidc_slot_class *set_of(struct xenidc_budget *b, size_t i)
{
	XI_ASSERT(b && SETS == 4);
	XI_ASSERT(i < SETS);
	return (struct xenidc_slot_class *)(void *)((char *)b + sets[i].at);
}

uint32_t xi_classes_slots(const struct xenidc_slot_class classes[XENIDC_CLASSES_MAX])
{
	uint32_t n = 0;

	for (int i = 0; i < XENIDC_CLASSES_MAX; i++)
		n += classes[i].count;
	return n;
}

static bool classes_empty(const struct xenidc_slot_class *c)
{
	for (int i = 0; i < XENIDC_CLASSES_MAX; i++)
		if (c[i].size || c[i].count)
			return false;
	return true;
}

/* Whole pages, ascending, one class a size, empty ones last. Returns false if a size or count is beyond its limit. */
static bool classes_normalise(struct xenidc_slot_class *c)
{
	struct xenidc_slot_class sorted[XENIDC_CLASSES_MAX] = { { 0, 0 } };
	int n = 0;

	XI_ASSERT(c);
	for (int i = 0; i < XENIDC_CLASSES_MAX; i++) {
		int at = 0;
		if (!c[i].size || !c[i].count)
			continue;
		if (c[i].size > XI_SLOT_SIZE_MAX || c[i].count > XI_SLOTS_MAX)
			return false;
		c[i].size = (c[i].size + XI_PAGE - 1) / XI_PAGE * XI_PAGE;
		while (at < n && sorted[at].size < c[i].size)
			at++;
		if (at < n && sorted[at].size == c[i].size) {
			sorted[at].count += c[i].count;
			continue;
		}
		memmove(&sorted[at + 1], &sorted[at], (size_t)(n - at) * sizeof(sorted[0]));
		sorted[at] = c[i];
		n++;
	}
	memcpy(c, sorted, sizeof(sorted));
	return xi_classes_slots(c) <= XI_SLOTS_MAX;
}

static int check_count(const char *name, uint32_t value, uint32_t max, struct xenidc_error *err)
{
	XI_ASSERT(name && max > 0);
	if (value <= max)
		return 0;
	return xi_error(err, -E2BIG, XENIDC_REASON_LIMIT,
			"the budget asks for %s = %u, at most %u are possible; ask for less, or for several channels",
			name, value, max);
}

static int check_counts(const struct xenidc_budget *b, struct xenidc_error *err)
{
	int e = check_count("requests_out", b->requests_out, XI_REQUESTS_MAX, err);

	if (!e)
		e = check_count("requests_in", b->requests_in, XI_REQUESTS_MAX, err);
	if (!e)
		e = check_count("messages_out", b->messages_out, XI_MESSAGES_MAX, err);
	if (!e)
		e = check_count("messages_in", b->messages_in, XI_MESSAGES_MAX, err);
	if (!e)
		e = check_count("payload", b->payload, XI_PAYLOAD_MAX, err);
	if (!e)
		e = check_count("refs", b->refs, XI_REFS_MAX, err);
	return e;
}

static int check_region(const struct xenidc_budget *b, struct xenidc_error *err)
{
	struct xi_layout layout;

	XI_ASSERT(b->size == sizeof(*b) && b->refs <= XI_REFS_MAX);
	xi_layout_make(b, &layout);
	if (layout.bytes > XI_REGION_MAX || layout.slots > XI_SLOTS_MAX)
		return xi_error(
			err, -E2BIG, XENIDC_REASON_LIMIT,
			"the budget needs %llu bytes and %u slots in one direction, at most %llu bytes and %u slots "
			"are possible; lower the counts of its slot classes",
			(unsigned long long)layout.bytes, layout.slots, (unsigned long long)XI_REGION_MAX,
			XI_SLOTS_MAX);
	return 0;
}

int xenidc_budget_complete(struct xenidc_budget *budget, struct xenidc_error *err)
{
	struct xenidc_budget mirror;
	struct xenidc_budget b = *budget;
	uint32_t *counts[] = { &b.requests_out, &b.requests_in, &b.messages_out, &b.messages_in };
	int e;

	XI_ASSERT(budget && SETS == 4);
	if (b.size != 0 && b.size != sizeof(b))
		return xi_error(
			err, -EINVAL, XENIDC_REASON_UNSUPPORTED,
			"the budget says it has %zu bytes, this library knows %zu; build the program against the "
			"header of the library that it runs with",
			b.size, sizeof(b));
	b.size = sizeof(b);
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		if (!*counts[i])
			*counts[i] = 32;
	if (!b.payload)
		b.payload = 256;
	if (!b.refs)
		b.refs = 4;
	e = check_counts(&b, err);
	if (e)
		return e;
	for (size_t i = 0; i < SETS; i++) {
		struct xenidc_slot_class *c = set_of(&b, i);
		if (!b.no_slots && classes_empty(c))
			memcpy(c, default_classes, sizeof(default_classes));
		if (!classes_normalise(c))
			return xi_error(
				err, -E2BIG, XENIDC_REASON_LIMIT,
				"the budget's slot classes `%s` go beyond %u bytes a slot or %u slots; lower them",
				sets[i].name, XI_SLOT_SIZE_MAX, XI_SLOTS_MAX);
	}
	mirror = xi_budget_mirror(&b);
	e = check_region(&b, err);
	if (!e)
		e = check_region(&mirror, err);
	if (!e)
		*budget = b;
	return e;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Add the classes `more` to `to`, by size. False: more sizes than there are classes. */
static bool classes_add(struct xenidc_slot_class *to, const struct xenidc_slot_class *more)
{
	XI_ASSERT(to != more && to[0].count <= XI_SLOTS_MAX);
	for (int i = 0; i < XENIDC_CLASSES_MAX && more[i].count; i++) {
		int at = 0;
		while (at < XENIDC_CLASSES_MAX && to[at].count && to[at].size != more[i].size)
			at++;
		if (at == XENIDC_CLASSES_MAX)
			return false;
		to[at].size = more[i].size;
		to[at].count += more[i].count;
	}
	return true;
}

int xenidc_budget_add(struct xenidc_budget *to, const struct xenidc_budget *more, struct xenidc_error *err)
{
	struct xenidc_budget sum = *to;
	int e;

	XI_ASSERT(to->size == sizeof(*to) && more->size == sizeof(*more));
	sum.requests_out += more->requests_out;
	sum.requests_in += more->requests_in;
	sum.messages_out += more->messages_out;
	sum.messages_in += more->messages_in;
	sum.payload = larger(to->payload, more->payload);
	sum.refs = larger(to->refs, more->refs);
	sum.no_slots = true; /* both are complete: what is empty stays so */
	for (size_t i = 0; i < SETS; i++) {
		struct xenidc_budget copy = *more;
		if (!classes_add(set_of(&sum, i), set_of(&copy, i)))
			return xi_error(
				err, -E2BIG, XENIDC_REASON_LIMIT,
				"the budgets together have more than %d sizes of `%s` slots; let the layers agree on "
				"common sizes",
				XENIDC_CLASSES_MAX, sets[i].name);
	}
	e = xenidc_budget_complete(&sum, err);
	if (e)
		return e;
	sum.no_slots = to->no_slots && more->no_slots;
	*to = sum;
	return 0;
}

struct xenidc_budget xi_budget_mirror(const struct xenidc_budget *b)
{
	struct xenidc_budget m = *b;

	XI_ASSERT(b);
	m.requests_out = b->requests_in;
	m.requests_in = b->requests_out;
	m.messages_out = b->messages_in;
	m.messages_in = b->messages_out;
	memcpy(m.out, b->peer_out, sizeof(m.out));
	memcpy(m.in, b->peer_in, sizeof(m.in));
	memcpy(m.peer_out, b->out, sizeof(m.peer_out));
	memcpy(m.peer_in, b->in, sizeof(m.peer_in));
	return m;
}

/* Give each of the lender's slots, smallest class first, a place of the holder's that is large enough. */
static void meet_classes(struct xenidc_slot_class *ret, const struct xenidc_slot_class *lender,
			 const struct xenidc_slot_class *holder)
{
	struct xenidc_slot_class left[XENIDC_CLASSES_MAX];
	int n = 0;

	XI_ASSERT(ret != lender && ret != holder);
	memcpy(left, holder, sizeof(left));
	memset(ret, 0, sizeof(*ret) * XENIDC_CLASSES_MAX);
	for (int i = 0; i < XENIDC_CLASSES_MAX && lender[i].count; i++) {
		uint32_t got = 0;
		for (int k = 0; k < XENIDC_CLASSES_MAX && got < lender[i].count; k++) {
			uint32_t take = smaller(lender[i].count - got, left[k].count);
			if (left[k].size < lender[i].size)
				continue;
			left[k].count -= take;
			got += take;
		}
		if (got)
			ret[n++] = (struct xenidc_slot_class){ lender[i].size, got };
	}
}

struct xenidc_budget xi_budget_meet(const struct xenidc_budget *ours, const struct xenidc_budget *theirs)
{
	struct xenidc_budget m = { .size = sizeof(m), .no_slots = true };

	XI_ASSERT(ours->size == sizeof(*ours) && theirs->size == sizeof(*theirs));
	m.requests_out = smaller(ours->requests_out, theirs->requests_out);
	m.requests_in = smaller(ours->requests_in, theirs->requests_in);
	m.messages_out = smaller(ours->messages_out, theirs->messages_out);
	m.messages_in = smaller(ours->messages_in, theirs->messages_in);
	m.payload = smaller(ours->payload, theirs->payload);
	m.refs = smaller(ours->refs, theirs->refs);
	meet_classes(m.out, ours->out, theirs->out);
	meet_classes(m.in, ours->in, theirs->in);
	meet_classes(m.peer_out, theirs->peer_out, ours->peer_out);
	meet_classes(m.peer_in, theirs->peer_in, ours->peer_in);
	return m;
}

bool xi_budget_equal(const struct xenidc_budget *a, const struct xenidc_budget *b)
{
	XI_ASSERT(a != b && a->size == sizeof(*a) && b->size == sizeof(*b));
	return a->requests_out == b->requests_out && a->requests_in == b->requests_in &&
	       a->messages_out == b->messages_out && a->messages_in == b->messages_in && a->payload == b->payload &&
	       a->refs == b->refs && !memcmp(a->out, b->out, sizeof(a->out)) && !memcmp(a->in, b->in, sizeof(a->in)) &&
	       !memcmp(a->peer_out, b->peer_out, sizeof(a->peer_out)) &&
	       !memcmp(a->peer_in, b->peer_in, sizeof(a->peer_in));
}

uint64_t xenidc_budget_bytes(const struct xenidc_budget *budget)
{
	struct xenidc_budget mirror = xi_budget_mirror(budget);
	struct xi_layout tx, rx;

	XI_ASSERT(budget->size == sizeof(*budget));
	xi_layout_make(budget, &tx);
	xi_layout_make(&mirror, &rx);
	return tx.bytes + rx.bytes - rx.slots_offset;
}
