/* SPDX-License-Identifier: MIT */
/*
 * sim-mapped: a domain for transport-local. Shared memory is memory that is mapped twice here, so that it can be lost
 * by one side alone; futex and doorbell are the world's, and may come late.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim.h"
#include "transport-local/domain.h"
#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/cursor.h"
#include "xenidc-core/base/limits.h"
#include "xenidc-core/base/log.h"

#define SCHEME "sim-mapped"
#define PIPE (4 * (XI_HELLO_MAX + 4))
#define COOKIE 0x6d617070u
/* The news of a death travels another way than the end of the link. */
#define DEATH_NEWS_MAX (20 * SIM_MS)
#define RING_DELAY_MAX (2 * SIM_MS)

struct mapped_conn;

/* A region outlives its owner's connection while the peer may still see it. */
struct region {
	struct xi_list list;
	uint32_t number;
	int fd;
	uint64_t bytes, slots_offset;
	struct sim_process *owner, *importer;
	struct sim_end *peer;     /* who may see it; NULL: nobody any more, or `peer_lost` */
	bool peer_lost;           /* it cannot be heard: only its death tells */
	struct sim_process *lost; /* who that was */
	uint8_t *base;            /* the owner's; NULL: it is gone */
	uint8_t *there;           /* the importer's */
	bool zeroed;              /* the importer's has been replaced */
	bool quarantined;
	const void *key;
	struct xi_member member; /* of the owner's loop, while quarantined */
};

struct mapped_conn {
	struct xi_local local; /* first */
	struct sim_end *end;
	struct xenidc_watch watch;
	struct region *own, *peer;
	bool started, told_hung_up, told_died;
	bool peer_died; /* the news has come */
};

struct mapped_listener {
	struct xi_listener *listener;
	struct sim_name *name;
	struct xenidc_watch watch;
};

static struct {
	bool ready;
	struct xi_list regions;
	uint32_t number;
} mapped;

static struct xi_list *regions(void)
{
	if (!mapped.ready)
		xi_list_init(&mapped.regions);
	mapped.ready = true;
	return &mapped.regions;
}

/* --- Regions */
static void unmap(uint8_t **at, uint64_t bytes)
{
	if (*at && munmap(*at, bytes))
		XI_ASSERT(!"a mapping can be removed");
	*at = NULL;
}

static void region_free_if_unused(struct region *r)
{
	if (r->base || r->there || r->quarantined)
		return;
	close(r->fd);
	xi_list_remove(&r->list);
	free(r);
}

static int region_make(struct xi_local *local, uint64_t bytes, uint8_t **ret_base, struct xenidc_error *err)
{
	struct mapped_conn *c = (struct mapped_conn *)local;
	struct region *r;

	if (sim_no_memory())
		return xi_error(err, -ENOMEM, XENIDC_REASON_RESOURCE, "out of memory; lower the budget");
	r = calloc(1, sizeof(*r));
	XI_ASSERT(r && !c->own);
	r->fd = memfd_create("simulated", MFD_CLOEXEC);
	XI_ASSERT(r->fd >= 0 && ftruncate(r->fd, (off_t)bytes) == 0);
	r->base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, 0);
	XI_ASSERT(r->base != MAP_FAILED);
	r->bytes = bytes;
	r->slots_offset = local->tx.slots_offset;
	r->number = ++mapped.number;
	r->owner = c->end->process;
	r->peer = sim_end_other(c->end);
	r->key = xi_conn_owner(local->conn);
	if (r->peer->closed)
		r->peer = NULL;
	xi_list_append(regions(), &r->list);
	xi_created(XI_OBJECT_REGION);
	c->own = r;
	*ret_base = r->base;
	return 0;
}

static void region_export(struct xi_local *local, struct xi_writer *w)
{
	const struct mapped_conn *c = (const struct mapped_conn *)local;

	xi_put_u32(w, COOKIE);
	xi_put_u32(w, c->own->number);
}

static struct region *find_region(uint32_t number, const struct sim_end *peer)
{
	for (struct xi_list *l = regions()->next; l != regions(); l = l->next) {
		struct region *r = XI_CONTAINER(l, struct region, list);
		if (r->number == number && r->peer == peer && r->base)
			return r;
	}
	return NULL;
}

static int region_import(struct xi_local *local, struct xi_reader *reader, uint64_t bytes, const uint8_t **ret_base,
			 struct xenidc_error *err)
{
	struct mapped_conn *c = (struct mapped_conn *)local;
	uint32_t cookie = xi_get_u32(reader), number = xi_get_u32(reader);
	struct region *r = find_region(number, c->end);

	if (reader->bad || xi_reader_left(reader) || cookie != COOKIE)
		return xi_error(err, -EPROTO, XENIDC_REASON_PROTOCOL, "the peer's region is not described right");
	if (!r)
		return xi_error(err, -EACCES, XENIDC_REASON_LOST, "the peer's region is gone; connect again");
	if (r->bytes != bytes)
		return xi_error(err, -EPROTO, XENIDC_REASON_PROTOCOL, "the peer's region has another size");
	XI_ASSERT(!r->there);
	r->there = mmap(NULL, bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, r->fd, 0);
	XI_ASSERT(r->there != MAP_FAILED);
	r->importer = c->end->process;
	xi_created(XI_OBJECT_MAPPING);
	c->peer = r;
	*ret_base = r->there;
	xi_loop_watch_lazy(&c->watch, true);
	return 0;
}

static void region_zero(struct xi_local *local)
{
	struct mapped_conn *c = (struct mapped_conn *)local;
	struct region *r = c->peer;

	if (!r || r->zeroed)
		return;
	void *p = mmap(r->there, r->bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	XI_ASSERT(p == r->there);
	r->zeroed = true;
}

/* --- Notification */
/* Is there something for the watch of this end? */
static bool news(const struct sim_end *end)
{
	const struct mapped_conn *c = end->user;

	if (!c->started)
		return end->link->refused || end->link->connected;
	if (end->rings || end->in.visible || (c->peer_died && !c->told_died))
		return true;
	return sim_end_over(end) && !c->told_hung_up;
}

static void refresh(struct sim_end *end)
{
	if (end->user)
		sim_fd_set(end->fd, EPOLLIN, news(end));
}

static void wake(struct xi_local *local, uint32_t *word)
{
	const struct mapped_conn *c = (const struct mapped_conn *)local;
	const struct region *r = c->own;

	if (r->there && !r->zeroed && r->importer->alive)
		sim_waiter_wake_word(r->importer,
				     (const uint32_t *)(const void *)(r->there + ((uint8_t *)word - r->base)));
}

static void bell(struct sim_event *event)
{
	struct sim_end *end = XI_CONTAINER(event, struct sim_end, bell);

	end->rings++;
	refresh(end);
}

/* Who does not listen yet, or still has one under way, misses nothing by losing another. */
static void ring(struct xi_local *local)
{
	struct mapped_conn *c = (struct mapped_conn *)local;
	struct sim_end *other = c->end ? sim_end_other(c->end) : NULL;

	if (!other || other->closed || c->end->link->broken || other->bell.place)
		return;
	if (sim_options()->delay_ns && sim_chance(4))
		sim_event_start(&other->bell, sim_now() + sim_between(1, RING_DELAY_MAX), bell);
	else
		bell(&other->bell);
}

/* --- The end */
static void hang_up(struct xi_local *local)
{
	struct mapped_conn *c = (struct mapped_conn *)local;

	if (!c->end)
		return;
	xenidc_watch_stop(&c->watch);
	sim_end_close(c->end);
	c->end = NULL;
}

static void over(struct xi_local *local, enum xi_local_end how)
{
	if (how == XI_LOCAL_DIED)
		xi_conn_lost(local->conn, XENIDC_REASON_PEER_DIED, -ECONNRESET,
			     "the peer process ended; start it again");
	else
		xi_conn_lost(local->conn, XENIDC_REASON_LOST, -ECONNRESET, "the peer hung up; connect again");
}

static void release(struct region *r)
{
	struct sim_process *was = sim_as(r->owner);

	XI_ASSERT(r->quarantined);
	r->quarantined = false;
	xi_destroyed(XI_OBJECT_QUARANTINE);
	xi_loop_member_remove(&r->member);
	sim_as(was);
	region_free_if_unused(r);
}

static void loop_freed(struct xi_member *member, bool forked)
{
	struct region *r = XI_CONTAINER(member, struct region, member);

	XI_ASSERT(!forked && r->quarantined);
	r->quarantined = false;
	xi_destroyed(XI_OBJECT_QUARANTINE);
	region_free_if_unused(r);
}

static void fini(struct xi_local *local)
{
	struct mapped_conn *c = (struct mapped_conn *)local;
	struct region *r = c->own;

	XI_ASSERT(!c->end);
	if (c->peer) {
		unmap(&c->peer->there, c->peer->bytes);
		xi_destroyed(XI_OBJECT_MAPPING);
		region_free_if_unused(c->peer);
	}
	if (!r)
		return;
	unmap(&r->base, r->bytes);
	xi_destroyed(XI_OBJECT_REGION);
	if (r->peer || r->peer_lost) {
		r->quarantined = true;
		r->member.destroy = loop_freed;
		xi_created(XI_OBJECT_QUARANTINE);
		xi_loop_member_add(xi_conn_loop(local->conn), &r->member);
	}
	region_free_if_unused(r);
}

/* An end closes: what it could see of the other's it has let go of, if the other can hear that. */
static void closing(struct sim_end *end)
{
	for (struct xi_list *l = regions()->next, *next; l != regions(); l = next) {
		struct region *r = XI_CONTAINER(l, struct region, list);
		next = l->next;
		if (r->peer != end)
			continue;
		r->peer = NULL;
		r->peer_lost = end->link->broken && !end->dead;
		r->lost = end->process;
		if (r->quarantined && !r->peer_lost)
			release(r);
	}
}

static void death_news(struct sim_event *event)
{
	struct sim_end *end = XI_CONTAINER(event, struct sim_end, work);
	struct mapped_conn *c = end->user;

	if (!c)
		return;
	c->peer_died = true;
	refresh(end);
}

/* All that the kernel does when a process ends, but closing its links, which was done before. */
void sim_mapped_died(struct sim_process *process)
{
	for (struct xi_list *l = regions()->next, *next; l != regions(); l = next) {
		struct region *r = XI_CONTAINER(l, struct region, list);
		next = l->next;
		if (r->owner == process) {
			unmap(&r->base, r->bytes);
			r->quarantined = false;
		}
		if (r->importer == process)
			unmap(&r->there, r->bytes);
		if (r->lost == process && r->peer_lost) {
			r->peer_lost = false;
			if (r->quarantined) {
				release(r);
				continue;
			}
		}
		region_free_if_unused(r);
	}
	for (struct sim_link *link = sim_link_next(NULL); link; link = sim_link_next(link))
		for (int i = 0; i < 2; i++)
			if (!strcmp(link->scheme, SCHEME) && !link->end[i].closed && link->end[!i].process == process)
				sim_event_start(&link->end[i].work, sim_now() + sim_between(0, DEATH_NEWS_MAX),
						death_news);
}

void sim_mapped_end(void)
{
	XI_ASSERT(xi_list_empty(regions()));
}

/* Also after its library has let go of it: it may have kept a mapping of its own. */
unsigned sim_mapped_scribble(struct sim_process *process)
{
	uint8_t bytes[4096];
	unsigned n = 0;

	memset(bytes, (int)(sim_below(255) + 1), sizeof(bytes));
	for (struct xi_list *l = regions()->next; l != regions(); l = l->next) {
		struct region *r = XI_CONTAINER(l, struct region, list);
		if (r->owner != process || !r->owner->alive || !r->there || r->peer || r->peer_lost)
			continue;
		for (uint64_t at = r->slots_offset; at < r->bytes; at += sizeof(bytes))
			if (pwrite(r->fd, bytes, sizeof(bytes), (off_t)at) != sizeof(bytes))
				XI_ASSERT(!"a region can be written to");
		n++;
	}
	return n;
}

static void quarantine(const void *owner, uint64_t *bytes, uint32_t *count)
{
	*bytes = 0;
	*count = 0;
	for (struct xi_list *l = regions()->next; l != regions(); l = l->next) {
		struct region *r = XI_CONTAINER(l, struct region, list);
		if (!r->quarantined || r->key != owner)
			continue;
		*bytes += r->bytes;
		++*count;
	}
}

static const struct xi_domain mapped_domain = {
	.region_make = region_make,
	.region_export = region_export,
	.region_import = region_import,
	.region_zero = region_zero,
	.wake = wake,
	.ring = ring,
	.hang_up = hang_up,
	.over = over,
	.fini = fini,
};

/* --- Connecting */
static void receive_hello(struct mapped_conn *c)
{
	uint8_t bytes[XI_HELLO_MAX];
	struct sim_end *end = c->end;
	uint32_t length;

	if (end->in.visible < sizeof(length))
		return;
	sim_end_peek(end, 0, &length, sizeof(length));
	XI_ASSERT(length <= sizeof(bytes));
	if (end->in.visible < sizeof(length) + length)
		return;
	sim_end_peek(end, sizeof(length), bytes, length);
	sim_end_take(end, (uint32_t)sizeof(length) + length);
	xi_conn_hello(c->local.conn, bytes, length);
}

static void dial_over(struct mapped_conn *c)
{
	struct sim_link *link = c->end->link;

	c->started = true;
	if (!link->refused) {
		xi_conn_dialled(c->local.conn);
		return;
	}
	c->told_hung_up = true;
	xi_conn_lost(c->local.conn, XENIDC_REASON_UNREACHABLE, -ECONNREFUSED,
		     "cannot connect to %s:%s: nobody listens there; start the other side", SCHEME, link->name);
}

static void watch_fired(struct xenidc_watch *watch, uint32_t events)
{
	struct mapped_conn *c = XI_CONTAINER(watch, struct mapped_conn, watch);
	struct sim_end *end = c->end;

	(void)events;
	if (!c->started) {
		if (end->link->refused || end->link->connected)
			dial_over(c);
	} else {
		receive_hello(c);
	}
	for (; c->end && end->rings; end->rings--)
		xi_local_rang(&c->local);
	if (c->end && c->peer_died && !c->told_died) {
		c->told_died = c->told_hung_up = true;
		xi_local_gone(&c->local, XI_LOCAL_DIED);
	} else if (c->end && c->started && sim_end_over(end) && !c->told_hung_up) {
		c->told_hung_up = true;
		xi_local_gone(&c->local, XI_LOCAL_HUNG_UP);
	}
	if (c->end)
		refresh(end);
}

static void own_end(struct xi_conn *conn, struct sim_end *end)
{
	struct mapped_conn *c = xi_conn_priv(conn);

	xi_local_start(&c->local, conn, &mapped_domain);
	c->end = end;
	end->user = c;
	int r = xenidc_watch_start(xi_conn_loop(conn), &c->watch, end->fd, EPOLLIN, watch_fired);
	XI_ASSERT(r == 0);
	refresh(end);
}

static int mapped_dial(struct xi_conn *conn, const char *rest, struct xenidc_error *err)
{
	struct sim_link *link = sim_link_dial(SCHEME, rest, xi_conn_loop(conn), PIPE);
	(void)err;
	link->arrived = refresh;
	link->closing = closing;
	own_end(conn, &link->end[0]);
	return 0;
}

static void mapped_adopt(struct xi_conn *conn, void *arg)
{
	struct sim_link *link = arg;

	own_end(conn, &link->end[1]);
	((struct mapped_conn *)xi_conn_priv(conn))->started = true;
}

static void mapped_identify(struct xi_conn *conn, struct xenidc_peer *peer)
{
	const struct mapped_conn *c = xi_conn_priv(conn);
	const struct sim_process *other = sim_end_other(c->end)->process;

	snprintf(peer->transport, sizeof(peer->transport), SCHEME);
	snprintf(peer->address, sizeof(peer->address), SCHEME ":%s", c->end->link->name);
	peer->has_uid = true;
	peer->uid = peer->gid = 1000;
	peer->pid = other ? (int32_t)other->index + 100 : 0;
}

static void mapped_hello(struct xi_conn *conn, const void *bytes, uint32_t length)
{
	struct mapped_conn *c = xi_conn_priv(conn);

	if (!c->end || sim_end_other(c->end)->closed || c->end->link->broken)
		return;
	XI_ASSERT(length <= XI_HELLO_MAX && sim_end_room(c->end) >= length + sizeof(length));
	sim_end_put(c->end, &length, sizeof(length));
	sim_end_put(c->end, bytes, length);
}

/* --- Listening */
static void somebody_came(struct xenidc_watch *watch, uint32_t events)
{
	struct mapped_listener *l = XI_CONTAINER(watch, struct mapped_listener, watch);
	struct sim_link *link = sim_name_accept(l->name);

	(void)events;
	if (link && !xi_listener_incoming(l->listener, link))
		sim_end_close(&link->end[1]);
}

static int mapped_listen(struct xi_listener *listener, const char *rest, char *name, struct xenidc_error *err)
{
	struct mapped_listener *l = xi_listener_priv(listener);

	l->listener = listener;
	l->name = sim_name_new(SCHEME, rest, xi_listener_loop(listener));
	if (!l->name)
		return xi_error(err, -EADDRINUSE, XENIDC_REASON_ADDRESS,
				"cannot listen at %s:%.60s: somebody does already; choose another name", SCHEME, rest);
	int r = xenidc_watch_start(xi_listener_loop(listener), &l->watch, sim_name_fd(l->name), EPOLLIN, somebody_came);
	XI_ASSERT(r == 0);
	xi_loop_watch_lazy(&l->watch, true);
	snprintf(name, XENIDC_ADDRESS_MAX, SCHEME ":%s", rest);
	return 0;
}

static void mapped_unlisten(struct xi_listener *listener)
{
	struct mapped_listener *l = xi_listener_priv(listener);

	if (!l->name)
		return;
	xenidc_watch_stop(&l->watch);
	sim_name_free(l->name);
	l->name = NULL;
}

static void mapped_diagnose(xenidc_diagnose_line *line, void *user)
{
	line(user, SCHEME, 0, "simulated", NULL);
}

const struct xi_transport sim_transport_mapped = {
	.version = XI_TRANSPORT_VERSION,
	.scheme = SCHEME,
	.caps = XI_LOCAL_CAPS | XI_CAP_PEER_DEATH | XI_CAP_IDENTITY,
	.conn_size = sizeof(struct mapped_conn),
	.listener_size = sizeof(struct mapped_listener),
	.check = sim_name_check,
	.listen = mapped_listen,
	.unlisten = mapped_unlisten,
	.dial = mapped_dial,
	.adopt = mapped_adopt,
	.identify = mapped_identify,
	.hello = mapped_hello,
	XI_LOCAL_OPS,
	.quarantine = quarantine,
	.diagnose = mapped_diagnose,
};
