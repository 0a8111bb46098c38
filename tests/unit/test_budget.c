/* SPDX-License-Identifier: MIT */
/* Budgets: defaults, sums, what two have in common, and the layout that both ends compute from it. */
#include <errno.h>
#include <string.h>

#include "tests/lib/check.h"
#include "xenidc-core/base/limits.h"
#include "xenidc-core/budget.h"

static struct xenidc_budget completed(struct xenidc_budget b)
{
	struct xenidc_error err = { 0 };

	if (xenidc_budget_complete(&b, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	return b;
}

static void test_defaults(void)
{
	struct xenidc_budget b = completed((struct xenidc_budget){ 0 });

	CHECK_EQ(b.requests_out, 32);
	CHECK_EQ(b.payload, 256);
	CHECK_EQ(b.refs, 4);
	CHECK(b.out[0].size == 4096 && b.out[0].count == 16 && b.out[1].size == 65536 && b.out[1].count == 8);
	CHECK_EQ(b.out[2].count, 0);
	CHECK_OP(xenidc_budget_bytes(&b), <, 4u << 20); /* the promise of the design */
	b = completed((struct xenidc_budget){ .no_slots = true });
	CHECK_EQ(xi_classes_slots(b.out), 0);
}

static void test_normalised(void)
{
	struct xenidc_budget b =
		completed((struct xenidc_budget){ .out = { { 8192, 1 }, { 1, 2 }, { 4096, 3 }, { 8191, 4 } } });

	CHECK(b.out[0].size == 4096 && b.out[0].count == 5);
	CHECK(b.out[1].size == 8192 && b.out[1].count == 5);
	CHECK_EQ(b.out[2].size, 0);
}

static void expect_too_big(struct xenidc_budget b, const char *word)
{
	struct xenidc_budget before = b;
	struct xenidc_error err = { 0 };

	CHECK_EQ(xenidc_budget_complete(&b, &err), -E2BIG);
	CHECK_EQ(err.reason, XENIDC_REASON_LIMIT);
	CHECK_HAS(err.text, word);
	CHECK_MEM(&b, &before, sizeof(b));
}

static void test_limits(void)
{
	struct xenidc_error err = { 0 };
	struct xenidc_budget b = { .size = 3 };

	expect_too_big((struct xenidc_budget){ .requests_out = XI_REQUESTS_MAX + 1 }, "requests_out");
	expect_too_big((struct xenidc_budget){ .messages_in = 0xffffffff }, "messages_in");
	expect_too_big((struct xenidc_budget){ .payload = XI_PAYLOAD_MAX + 1 }, "payload");
	expect_too_big((struct xenidc_budget){ .refs = XI_REFS_MAX + 1 }, "refs");
	expect_too_big((struct xenidc_budget){ .in = { { XI_SLOT_SIZE_MAX + 1, 1 } } }, "in");
	expect_too_big((struct xenidc_budget){ .peer_out = { { 4096, XI_SLOTS_MAX + 1 } } }, "peer_out");
	expect_too_big((struct xenidc_budget){ .out = { { XI_SLOT_SIZE_MAX, 65 } } }, "bytes");
	CHECK_EQ(xenidc_budget_complete(&b, &err), -EINVAL);
}

static void test_add(void)
{
	struct xenidc_budget a = completed((struct xenidc_budget){ .requests_out = 10, .payload = 100 });
	struct xenidc_budget b = completed(
		(struct xenidc_budget){ .requests_out = 5, .payload = 300, .out = { { 4096, 4 }, { 8192, 2 } } });
	struct xenidc_budget many =
		completed((struct xenidc_budget){ .out = { { 16384, 1 }, { 20480, 1 }, { 24576, 1 }, { 28672, 1 } } });

	CHECK_EQ(xenidc_budget_add(&a, &b, NULL), 0);
	CHECK_EQ(a.requests_out, 15);
	CHECK_EQ(a.payload, 300);
	CHECK(a.out[0].size == 4096 && a.out[0].count == 20);
	CHECK(a.out[1].size == 8192 && a.out[1].count == 2);
	CHECK(a.out[2].size == 65536 && a.out[2].count == 8);
	CHECK_EQ(xenidc_budget_add(&a, &many, NULL), -E2BIG);
	CHECK_EQ(a.requests_out, 15);
}

static void test_meet(void)
{
	struct xenidc_budget ours = completed((struct xenidc_budget){
		.requests_out = 8, .payload = 128, .out = { { 4096, 10 }, { 65536, 4 } }, .peer_in = { { 4096, 2 } } });
	struct xenidc_budget peer = completed((struct xenidc_budget){
		.requests_in = 4, .payload = 512, .peer_out = { { 4096, 3 }, { 131072, 5 } }, .in = { { 8192, 1 } } });
	struct xenidc_budget theirs = xi_budget_mirror(&peer);
	struct xenidc_budget met = xi_budget_meet(&ours, &theirs);
	struct xenidc_budget again = xi_budget_meet(&ours, &met);
	struct xenidc_budget mirrored = xi_budget_mirror(&met);
	struct xenidc_budget as_peer = xi_budget_mirror(&ours);
	struct xenidc_budget from_peer = xi_budget_meet(&peer, &as_peer);

	CHECK_EQ(met.requests_out, 4);
	CHECK_EQ(met.payload, 128);
	/* 3 + 5 places for our 4 KiB slots; then nothing is left for the large ones. */
	CHECK(met.out[0].size == 4096 && met.out[0].count == 8 && met.out[1].count == 0);
	CHECK_EQ(met.peer_in[0].count, 0); /* 8 KiB do not fit into 4 */
	CHECK(xi_budget_equal(&met, &again));
	CHECK(xi_budget_equal(&mirrored, &from_peer)); /* both ends come to the same */
}

static void test_layout(void)
{
	struct xenidc_budget b =
		completed((struct xenidc_budget){ .out = { { 4096, 3 }, { 65536, 2 } }, .peer_in = { { 8192, 4 } } });
	struct xi_layout l;
	uint64_t end;

	xi_layout_make(&b, &l);
	CHECK_EQ(l.frames & (l.frames - 1), 0);
	CHECK_OP(l.frames, >=, 3 * b.requests_out + b.requests_in + b.messages_out);
	CHECK_OP(l.frame_stride, >=, 4 + l.frame_max);
	CHECK_EQ(l.frame_stride % XI_LINE, 0);
	CHECK_EQ(l.slots, 9);
	end = l.slots_offset;
	for (uint32_t i = 0; i < l.slots; i++) {
		uint32_t size;
		uint64_t at = xi_layout_slot(&l, i, &size);
		CHECK_EQ(at, end); /* none overlaps, no hole */
		CHECK_EQ(at % XI_PAGE, 0);
		CHECK_EQ(size, i < 3 ? 4096 : i < 5 ? 65536 : 8192);
		end = at + size;
	}
	CHECK_EQ(l.bytes, end);
}

CHECK_MAIN(TEST(test_defaults), TEST(test_normalised), TEST(test_limits), TEST(test_add), TEST(test_meet),
	   TEST(test_layout))
