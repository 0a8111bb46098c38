/* SPDX-License-Identifier: MIT */
#include "tools/bench/work.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/bench/pattern.h"
#include "tools/bench/wire.h"
#include "tools/common/clock.h"

static void fail(struct xi_work *w, int e, const char *what)
{
	if (w->error)
		return;
	w->error = e;
	if (!w->why.text[0])
		(void)snprintf(w->why.text, sizeof(w->why.text), "%s: %s", what, strerror(-e));
}

static int take_buffers(struct xi_work *w, enum xenidc_direction direction)
{
	const struct xi_bench *b = w->bench;

	for (unsigned i = 0; i < w->nplaces; i++) {
		struct xenidc_buffer *buffer = &w->buffers[direction][i];
		int e = xenidc_buffer_get(w->channel, direction, (uint32_t)b->size, buffer);
		if (e) {
			(void)snprintf(w->why.text, sizeof(w->why.text),
				       "only %u %s buffers of %zu bytes were negotiated, %u are needed; give both "
				       "sides the same --size, --slots and --refs",
				       i, direction == XENIDC_OUT ? "OUT" : "IN", b->size, w->nplaces);
			return e;
		}
	}
	return 0;
}

int xi_work_prepare(struct xi_work *w, const struct xi_bench *b, xenidc_channel *channel)
{
	int e = 0;

	memset(w, 0, sizeof(*w));
	w->bench = b;
	w->channel = channel;
	w->loop = xenidc_channel_loop(channel);
	w->nplaces = b->inline_data ? b->depth : b->slots;
	if (!b->inline_data && b->out)
		e = take_buffers(w, XENIDC_OUT);
	if (!e && !b->inline_data && b->in)
		e = take_buffers(w, XENIDC_IN);
	for (unsigned i = 0; !e && i < w->nplaces; i++) {
		struct xi_place *p = &w->places[i];
		p->work = w;
		if (!b->inline_data && b->out) {
			p->out = &w->buffers[XENIDC_OUT][i];
			p->refs[p->nrefs++] = (struct xenidc_ref){ *p->out, 0, (uint32_t)b->size };
		}
		if (!b->inline_data && b->in) {
			p->in = &w->buffers[XENIDC_IN][i];
			p->refs[p->nrefs++] = (struct xenidc_ref){ *p->in, 0, (uint32_t)b->size };
		}
		w->free[w->free_count++] = (uint16_t)i;
	}
	return e;
}

static void on_done(xenidc_channel *channel, const struct xenidc_result *result);

static void submit(struct xi_work *w, uint64_t now)
{
	const struct xi_bench *b = w->bench;
	struct xi_bench_head head = { .op = b->inline_data ? XI_BENCH_ECHO : XI_BENCH_DATA,
				      .verify = (uint8_t)b->verify };
	struct xenidc_request request = { .payload = w->payload, .done = on_done };
	struct xi_place *p = &w->places[w->free[w->free_head]];
	int e;

	p->start = now;
	p->number = ++w->number;
	head.number = htole32(p->number);
	memcpy(w->payload, &head, sizeof(head));
	request.payload_len = sizeof(head);
	if (b->inline_data) {
		request.payload_len = (uint32_t)b->size;
		if (b->size > sizeof(head))
			xi_pattern_fill(w->payload + sizeof(head), b->size - sizeof(head), p->number, b->verify);
	} else if (p->out) {
		xi_pattern_fill(p->out->data, b->size, xi_bench_number(p->number, 0), b->verify);
	}
	request.refs = p->refs;
	request.ref_count = p->nrefs;
	request.user = p;
	e = xenidc_submit(w->channel, &request, NULL);
	if (e) {
		fail(w, e, "a request could not be submitted");
		return;
	}
	w->free_head = (w->free_head + 1) % w->nplaces;
	w->free_count--;
	w->in_flight++;
	w->submitted++;
}

static bool more(const struct xi_work *w, uint64_t now)
{
	return !w->error && (!w->limit || w->submitted < w->limit) && (!w->deadline || now < w->deadline);
}

/* Is the reply what it has to be? */
static bool matches(struct xi_work *w, const struct xi_place *p, const struct xenidc_result *r)
{
	const struct xi_bench *b = w->bench;
	struct xi_bench_head head;

	if (r->status != XI_BENCH_OK || r->payload_len != (b->inline_data ? b->size : sizeof(head)))
		return false;
	memcpy(&head, r->payload, sizeof(head));
	if (le32toh(head.number) != p->number)
		return false;
	if (b->inline_data)
		return b->size <= sizeof(head) || xi_pattern_check((const uint8_t *)r->payload + sizeof(head),
								   b->size - sizeof(head), p->number, b->verify);
	if (!p->in)
		return true;
	return r->valid[p->nrefs - 1] == b->size &&
	       xi_pattern_check(p->in->data, b->size, xi_bench_number(p->number, 1), b->verify);
}

static void record(struct xi_work *w, const struct xi_place *p, uint64_t now)
{
	double ns;

	xi_hist_add(w->hist, now - p->start);
	w->window_ops++;
	ns = (double)(now - w->window_start) * xi_ns_per_tick;
	if (ns < XI_BENCH_WINDOW_NS)
		return;
	xi_hist_add(w->rate, (uint64_t)((double)w->window_ops * 1e9 / ns));
	w->window_start = now;
	w->window_ops = 0;
}

static void on_done(xenidc_channel *channel, const struct xenidc_result *result)
{
	struct xi_place *p = result->user;
	struct xi_work *w = p->work;
	uint64_t now;

	(void)channel;
	w->in_flight--;
	w->free[(w->free_head + w->free_count++) % w->nplaces] = (uint16_t)(p - w->places);
	if (result->end != XENIDC_REPLIED)
		fail(w, -ECONNRESET, xenidc_reason_text(result->reason));
	else if (!matches(w, p, result))
		w->mismatches++;
	now = xi_ticks();
	if (w->hist)
		record(w, p, now);
	w->completed++;
	if (more(w, now))
		submit(w, now);
	else if (!w->in_flight)
		xenidc_loop_stop(w->loop);
}

void xi_work_start(struct xi_work *w, uint64_t limit, double seconds)
{
	uint64_t now = xi_ticks();

	w->submitted = w->completed = 0;
	w->window_start = now;
	w->window_ops = 0;
	w->limit = limit;
	w->deadline = seconds > 0 ? now + (uint64_t)(seconds * 1e9 / xi_ns_per_tick) : 0;
	while (w->in_flight < w->bench->depth && more(w, now))
		submit(w, xi_ticks());
}

int xi_work_run(struct xi_work *w, uint64_t limit, double seconds)
{
	xi_work_start(w, limit, seconds);
	if (w->in_flight)
		(void)xenidc_loop_run(w->loop);
	return w->error;
}
