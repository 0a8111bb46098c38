/* SPDX-License-Identifier: MIT */
/* Transports over shared memory: what all domains have in common. */
#include <errno.h>
#include <sys/mman.h>

#include "domain.h"
#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/cursor.h"
#include "xenidc-core/base/failpoint.h"
#include "xenidc-core/base/limits.h"
#include "xenidc-core/base/list.h"
#include "xenidc-core/base/log.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"
#include "xenidc-core/loop.h"

/*
 * Rings that may be outstanding. One is asked for with each sleep, and heard when it ends; a loop that finds something
 * each time it is about to sleep looks at its descriptors only now and then, so some hundreds can gather.
 */
#define RINGS_MAX 4096

void xi_local_start(struct xi_local *l, struct xi_conn *conn, const struct xi_domain *domain)
{
	XI_ASSERT(conn && !l->domain && (void *)l == xi_conn_priv(conn));
	XI_ASSERT(domain->region_make && domain->region_export && domain->region_import && domain->region_zero);
	XI_ASSERT(domain->ring && domain->hang_up && domain->over && domain->fini);
	l->conn = conn;
	l->domain = domain;
}

/* A peer that did something impossible. */
static void protocol(struct xi_local *l, const char *what)
{
	l->over = true;
	xi_conn_lost(
		l->conn, XENIDC_REASON_PROTOCOL, -EPROTO,
		"the peer's memory had %s; the connection was ended; if both sides run current versions, report this",
		what);
}

/* --- Memory */

static int reserve_landing(struct xi_local *l, struct xenidc_error *err)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, e;

	/* Never empty, so that the core has an address to hold. */
	l->landing_bytes = l->rx.bytes - l->rx.slots_offset ? (size_t)(l->rx.bytes - l->rx.slots_offset) : XI_PAGE;
	l->landing = xi_os->mmap(NULL, l->landing_bytes, PROT_READ | PROT_WRITE, flags, -1, 0, &e);
	if (!l->landing)
		return xi_error(
			err, e, XENIDC_REASON_RESOURCE,
			"reserving %zu kB to receive the peer's buffers: %s; ask for fewer or smaller buffers, or "
			"raise the memory limit of this process (ulimit -v, cgroup memory.max)",
			l->landing_bytes >> 10, e == -ENOMEM ? "out of memory" : "refused by the kernel");
	xi_created(XI_OBJECT_MAPPING);
	return 0;
}

int xi_local_reserve(struct xi_conn *conn, const struct xi_layout *tx, const struct xi_layout *rx, uint32_t flags,
		     uint8_t **tx_base, uint8_t **rx_base, struct xenidc_error *err)
{
	struct xi_local *l = xi_conn_priv(conn);
	uint8_t *base;
	int e;

	XI_ASSERT(l->domain && !l->tables && !l->closed);
	l->tx = *tx;
	l->rx = *rx;
	l->tables = xi_os->alloc(xi_ring_tx_bytes(tx) + xi_ring_rx_bytes(rx));
	if (!l->tables)
		return xi_error(err, -ENOMEM, XENIDC_REASON_RESOURCE,
				"reserving tables for %u frames: out of memory; ask for fewer requests or messages",
				tx->frames);
	e = l->domain->region_make(l, tx->bytes, &base, err);
	if (e)
		return e;
	XI_FAILPOINT(local_region_made);
	xi_ring_open_tx(&l->ring, base, tx, l->tables);
	*tx_base = base;
	*rx_base = NULL;
	if (flags & XI_RESERVE_MAP)
		return 0;
	e = reserve_landing(l, err);
	if (!e)
		*rx_base = l->landing - rx->slots_offset;
	return e;
}

void xi_local_export_region(struct xi_conn *conn, struct xi_writer *w)
{
	struct xi_local *l = xi_conn_priv(conn);

	XI_ASSERT(l->ring.own);
	l->domain->region_export(l, w);
}

int xi_local_import_region(struct xi_conn *conn, struct xi_reader *r, uint8_t **rx_base, struct xenidc_error *err)
{
	struct xi_local *l = xi_conn_priv(conn);
	int e;

	XI_ASSERT(l->ring.own && !l->imported);
	e = l->domain->region_import(l, r, l->rx.bytes, &l->peer, err);
	if (e)
		return e;
	l->imported = true;
	XI_FAILPOINT(local_region_imported);
	if (!xi_ring_open_rx(&l->ring, l->peer, &l->rx, (uint8_t *)l->tables + xi_ring_tx_bytes(&l->tx)))
		return xi_error(err, -EPROTO, XENIDC_REASON_PROTOCOL,
				"the peer's memory does not begin as a region of this version does");
	l->flowing = true;
	/* MAP: the mapping itself is read-only; the type is what COPY needs. */
	if (!l->landing)
		*rx_base = (uint8_t *)(uintptr_t)l->peer;
	return 0;
}

int xi_local_fetch(struct xi_conn *conn, uint32_t slot, uint32_t offset, uint32_t length)
{
	struct xi_local *l = xi_conn_priv(conn);
	uint32_t size;
	uint64_t at = xi_layout_slot(&l->rx, slot, &size) + offset;

	XI_ASSERT(l->landing && offset <= size && length <= size - offset);
	if (!l->flowing)
		return -ENOTCONN;
	xi_ring_copy(l->landing + (at - l->rx.slots_offset), l->peer + at, length);
	return 0;
}

int xi_local_read(struct xi_conn *conn, uint32_t slot, uint32_t offset, void *to, uint32_t length)
{
	struct xi_local *l = xi_conn_priv(conn);
	uint32_t size;
	uint64_t at = xi_layout_slot(&l->rx, slot, &size) + offset;

	XI_ASSERT(offset <= size && length <= size - offset);
	if (!l->flowing)
		return -ENOTCONN;
	xi_ring_copy(to, l->peer + at, length);
	return 0;
}

/* --- Frames */

uint8_t *xi_local_tx_begin(struct xi_conn *conn)
{
	struct xi_local *l = xi_conn_priv(conn);

	return xi_ring_begin(&l->ring);
}

uint64_t xi_local_tx_commit(struct xi_conn *conn, uint32_t length, const struct xi_seg *segs, uint32_t nsegs,
			    uint32_t tag)
{
	struct xi_local *l = xi_conn_priv(conn);
	uint64_t position;

	/* The data lie in our region already, where the peer fetches them. */
	(void)segs;
	(void)nsegs;
	(void)tag;
	XI_DASSERT(length <= l->tx.frame_max);
	XI_FAILPOINT(local_before_publish);
	position = xi_ring_put(&l->ring, length);
	XI_FAILPOINT(local_published);
	return position;
}

void xi_local_flush(struct xi_conn *conn)
{
	struct xi_local *l = xi_conn_priv(conn);
	enum xi_ring_notify notify;
	uint32_t *word;

	if (!l->flowing)
		return;
	notify = xi_ring_flush(&l->ring, &word);
	if (notify == XI_RING_NOTHING)
		return;
	XI_FAILPOINT(local_before_notify);
	if (notify == XI_RING_RING)
		l->domain->ring(l);
	else if (notify == XI_RING_WAKE && l->domain->wake)
		l->domain->wake(l, word);
	else if (!l->over)
		protocol(l, l->ring.broken ? l->ring.broken : "an impossible event word");
}

uint64_t xi_local_tx_unsent(struct xi_conn *conn)
{
	const struct xi_local *l = xi_conn_priv(conn);

	return l->ring.tx_position + 1;
}

/* Everything that the gone peer published was handed up. Is it time to say so? */
static bool time_to_tell(const struct xi_local *l)
{
	return l->end == XI_LOCAL_DIED || l->grace_over || !l->flowing || xi_ring_peer_closed(&l->ring);
}

static void tell_end(struct xi_local *l)
{
	if (l->over || !time_to_tell(l))
		return;
	l->over = true;
	l->final = l->end == XI_LOCAL_DIED || xi_ring_peer_closed(&l->ring);
	xenidc_timer_stop(&l->grace);
	l->domain->over(l, l->end);
}

static unsigned receive(struct xi_local *l, unsigned budget)
{
	unsigned n = 0;

	while (n < budget && xi_ring_ready(&l->ring)) {
		int length = xi_ring_get(&l->ring, xi_conn_rx_buffer(l->conn));
		if (length < 0)
			protocol(l, l->ring.broken);
		if (length <= 0)
			break;
		n++;
		if (!xi_conn_frame(l->conn, (uint32_t)length)) {
			l->over = true;
			break;
		}
	}
	return n;
}

unsigned xi_local_process(struct xi_conn *conn, unsigned budget)
{
	struct xi_local *l = xi_conn_priv(conn);
	unsigned n = 0;

	if (!l->flowing || l->over)
		return 0;
	if (l->end == XI_LOCAL_HERE)
		return receive(l, budget);
	/* No more than it can have published: a peer that hung up, but goes on publishing, is not listened to. */
	n = receive(l, budget < l->drain ? budget : l->drain);
	l->drain -= n;
	if (!l->over && (!xi_ring_ready(&l->ring) || !l->drain))
		tell_end(l);
	return n;
}

/* --- Sleeping */

int xi_local_arm(struct xi_conn *conn, bool futex_ok, struct xi_wait *wait)
{
	struct xi_local *l = xi_conn_priv(conn);
	enum xi_ring_mode mode = futex_ok && l->domain->wake ? XI_RING_FUTEX : XI_RING_DOORBELL;
	uint32_t index = (uint32_t)l->ring.rx_position + 1;

	if (!l->flowing || l->over)
		return 0;
	if (l->end != XI_LOCAL_HERE && time_to_tell(l))
		return XI_BUSY;
	/* A peer rings at most once for each event index, however often it was asked to. */
	if (mode == XI_RING_DOORBELL && l->rings_asked != index && l->rings < RINGS_MAX) {
		l->rings_asked = index;
		l->rings++;
	}
	XI_FAILPOINT(local_before_arm);
	if (!xi_ring_arm(&l->ring, mode, wait))
		return XI_BUSY;
	XI_FAILPOINT(local_armed);
	return 0;
}

void xi_local_disarm(struct xi_conn *conn)
{
	struct xi_local *l = xi_conn_priv(conn);

	if (l->flowing)
		xi_ring_disarm(&l->ring);
}

void xi_local_rang(struct xi_local *l)
{
	if (l->over || l->closed)
		return;
	if (!l->rings) {
		protocol(l, "nothing new for a doorbell that nobody asked for");
		return;
	}
	l->rings--;
}

/* --- The end */

static void grace_fired(struct xenidc_timer *timer)
{
	struct xi_local *l = XI_CONTAINER(timer, struct xi_local, grace);

	XI_ASSERT(!l->closed);
	l->grace_over = true; /* process() tells */
}

void xi_local_gone(struct xi_local *l, enum xi_local_end how)
{
	bool first = l->end == XI_LOCAL_HERE;

	XI_ASSERT(how != XI_LOCAL_HERE);
	if (l->closed || how <= l->end)
		return;
	l->end = how;
	if (!l->flowing) {
		tell_end(l);
		return;
	}
	if (first)
		l->drain = l->rx.frames;
	if (!time_to_tell(l) && xenidc_timer_start(xi_conn_loop(l->conn), &l->grace, XI_DEATH_GRACE, grace_fired))
		l->grace_over = true;
}

void xi_local_publish_dispatch(struct xi_conn *conn, uint32_t sequence)
{
	struct xi_local *l = xi_conn_priv(conn);

	xi_ring_publish_dispatch(&l->ring, sequence);
}

bool xi_local_peer_dispatched(struct xi_conn *conn, uint32_t *ret_sequence)
{
	const struct xi_local *l = xi_conn_priv(conn);

	if (!l->final || !l->imported)
		return false;
	*ret_sequence = xi_ring_peer_dispatch(&l->ring);
	return true;
}

int xi_local_close(struct xi_conn *conn)
{
	struct xi_local *l = xi_conn_priv(conn);
	bool forked = xi_loop_forked(xi_conn_loop(conn));

	if (!l->domain || l->closed)
		return 0;
	l->closed = true;
	l->flowing = false;
	xenidc_timer_stop(&l->grace);
	XI_FAILPOINT(local_closing);
	/* In a forked child the region is the parent's as well. */
	if (!forked)
		xi_ring_mark_closed(&l->ring);
	xi_ring_close_rx(&l->ring);
	if (l->imported)
		l->domain->region_zero(l);
	XI_FAILPOINT(local_zeroed);
	if (!forked)
		l->domain->hang_up(l);
	XI_FAILPOINT(local_hung_up);
	return 0;
}

void xi_local_fini(struct xi_conn *conn)
{
	struct xi_local *l = xi_conn_priv(conn);

	if (!l->domain)
		return;
	XI_ASSERT(l->closed);
	if (l->landing) {
		xi_os->munmap(l->landing, l->landing_bytes);
		xi_destroyed(XI_OBJECT_MAPPING);
	}
	xi_os->free(l->tables);
	l->domain->fini(l);
	XI_FAILPOINT(local_freed);
}

void xi_local_stats(struct xi_conn *conn, struct xenidc_stats *stats)
{
	const struct xi_local *l = xi_conn_priv(conn);

	stats->wakeups_sent = l->ring.wakes;
	stats->wakeups_suppressed = l->ring.suppressed;
}
