/* SPDX-License-Identifier: MIT */
/*
 * sim-window: queue pairs as network cards have them, in the small.
 *
 * Work is posted to a bounded queue and completes when the other card has done it. A frame needs a buffer that was
 * posted before it arrives. Slots are reached by reading them from afar, through a window: a key for the slot pieces of
 * one frame. The window of a request is closed by its reply, which carries one invalidation; a reader who comes later
 * breaks the connection, as does an invalidation of what is no window. The cards do all this, while their processes do
 * whatever they do: window_arrived() is the card.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include "sim.h"
#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/cursor.h"
#include "xenidc-core/base/limits.h"
#include "xenidc-core/base/log.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/frame.h"

#define SCHEME "sim-window"
#define MAGIC 0x57444e57u
#define HELLOS 3
#define CLOSE_MAX (2 * SIM_MS)
/* A process that died without a word is noticed when work for it does not complete. */
#define SILENCE_MAX (3000 * SIM_MS)

enum kind { OP_HELLO = 1, OP_SEND, OP_READ, OP_READ_DONE };

/* What travels; the segments and the bytes of a frame, or the bytes of a hello, follow. */
struct op {
	uint32_t length; /* all of it */
	uint32_t kind, id;
	uint32_t key, invalidate;
	uint32_t slot, offset, bytes, nsegs;
};

struct key_window {
	uint32_t key; /* 0: closed */
	bool answer;  /* made by a reply: closed when one of its slots is announced again */
	uint32_t nsegs;
	struct xi_seg segs[XI_REFS_MAX];
};

struct out_frame {
	uint64_t position;
	uint32_t buffer, length, key, invalidate, nsegs;
	struct xi_seg segs[XI_REFS_MAX];
};

struct in_frame {
	uint32_t length, key, nsegs;
	struct xi_seg segs[XI_REFS_MAX];
};

enum read_state { READ_NONE = 0, READ_WAITS, READ_POSTED, READ_DONE };
struct far_read {
	enum read_state state;
	uint32_t id, offset, length, key;
};

struct window_conn {
	struct xi_conn *conn;
	struct sim_end *end;
	struct xenidc_watch watch;
	struct xenidc_timer closing;
	bool told, over, closed, flowing;
	bool card_busy; /* what arrives meanwhile is done by the one that is */
	uint8_t hellos[HELLOS][XI_HELLO_MAX];
	uint32_t hello_length[HELLOS], hello_count, hello_read;

	struct xi_layout tx, rx;
	uint8_t *memory; /* all that follows */
	size_t memory_bytes;
	uint8_t *tx_base, *rx_base;
	uint32_t depth, in_flight;
	uint64_t position;

	uint8_t *buffers; /* frames to send: tx.frames + 1 */
	uint32_t *free_buffers, free_count, begun;
	struct out_frame *queue; /* not posted yet, oldest first */
	uint32_t queue_count;
	uint32_t *sent; /* buffers of posted frames, oldest first */
	uint32_t sent_count;

	struct key_window *windows;
	uint32_t window_count, next_key;

	uint8_t *arrived; /* frames received: rx.frames */
	struct in_frame *in;
	uint32_t in_first, in_count;
	uint32_t *slot_keys; /* of rx slots */
	uint32_t *in_keys;   /* of the peer's requests, by index */
	struct far_read *reads;
	uint32_t reads_waiting, reads_done, next_read;
};

struct window_listener {
	struct xi_listener *listener;
	struct sim_name *name;
	struct xenidc_watch watch;
};

/* --- Windows */
static struct key_window *find_window(struct window_conn *c, uint32_t key)
{
	for (uint32_t i = 0; key && i < c->window_count; i++)
		if (c->windows[i].key == key)
			return &c->windows[i];
	return NULL;
}

static bool has_slot(const struct key_window *w, uint32_t slot)
{
	for (uint32_t i = 0; i < w->nsegs; i++)
		if (w->segs[i].slot == slot)
			return true;
	return false;
}

static uint32_t open_window(struct window_conn *c, const struct xi_seg *segs, uint32_t nsegs, bool answer)
{
	struct key_window *free = NULL;

	for (uint32_t i = 0; i < c->window_count; i++) {
		struct key_window *w = &c->windows[i];
		for (uint32_t k = 0; k < nsegs && w->key; k++) {
			/* Slots of a request that is not answered are not announced again. */
			bool again = has_slot(w, segs[k].slot);
			XI_ASSERT(!again || w->answer);
			if (again)
				w->key = 0;
		}
		if (!w->key)
			free = w;
	}
	XI_ASSERT(free && nsegs <= XI_REFS_MAX);
	free->key = ++c->next_key;
	free->answer = answer;
	free->nsegs = nsegs;
	memcpy(free->segs, segs, nsegs * sizeof(*segs));
	return free->key;
}

static bool covers(const struct key_window *w, uint32_t slot, uint32_t offset, uint32_t length)
{
	for (uint32_t i = 0; i < w->nsegs; i++) {
		const struct xi_seg *s = &w->segs[i];
		if (s->slot == slot && offset >= s->offset && offset - s->offset <= s->length &&
		    length <= s->length - (offset - s->offset))
			return true;
	}
	return false;
}

/* --- The card */
static void post(struct window_conn *c, struct op *op, const struct xi_seg *segs, const void *bytes, uint32_t length)
{
	op->length = (uint32_t)(sizeof(*op) + op->nsegs * sizeof(*segs)) + length;
	if (sim_end_other(c->end)->closed || c->end->link->broken)
		return;
	if (sim_end_room(c->end) < op->length) /* only close() posts more than the queue holds */
		return;
	sim_end_put(c->end, op, sizeof(*op));
	if (op->nsegs)
		sim_end_put(c->end, segs, (uint32_t)(op->nsegs * sizeof(*segs)));
	if (length)
		sim_end_put(c->end, bytes, length);
}

static void refresh(struct sim_end *end)
{
	const struct window_conn *c = end->user;
	bool news;

	if (!c || c->closed)
		return;
	if (!c->told)
		news = end->link->refused || end->link->connected;
	else
		news = c->hello_count > c->hello_read || (c->flowing && (c->in_count || c->reads_done)) ||
		       (c->reads_waiting && c->in_flight < c->depth) || (c->queue_count && c->in_flight < c->depth) ||
		       sim_end_over(end);
	sim_fd_set(end->fd, EPOLLIN, news && !c->over);
}

static void break_for(struct sim_end *end, const char *why)
{
	sim_trace("window of %s: %s", end->process->name, why);
	sim_link_break(end->link);
}

/* Something of the other side's is done. */
static void complete(struct sim_end *end)
{
	struct window_conn *c = end->user;

	if (!c)
		return;
	XI_ASSERT(c->in_flight > 0);
	c->in_flight--;
	refresh(end);
}

static void card_send(struct sim_end *end, const struct op *op)
{
	struct window_conn *c = end->user, *sender = sim_end_other(end)->user;
	uint32_t at = (uint32_t)sizeof(*op), bytes;

	/* The core bounds what is outstanding, so that there is a buffer for whatever arrives. */
	XI_ASSERT(c->arrived && c->in_count < c->rx.frames);
	uint32_t i = (c->in_first + c->in_count++) % c->rx.frames;
	struct in_frame *in = &c->in[i];
	XI_ASSERT(op->nsegs <= XI_REFS_MAX);
	sim_end_peek(end, at, in->segs, (uint32_t)(op->nsegs * sizeof(in->segs[0])));
	at += (uint32_t)(op->nsegs * sizeof(in->segs[0]));
	bytes = op->length - at;
	XI_ASSERT(bytes <= c->rx.frame_max);
	sim_end_peek(end, at, c->arrived + (size_t)i * c->rx.frame_max, bytes);
	in->length = bytes;
	in->key = op->key;
	in->nsegs = op->nsegs;
	if (sender) {
		XI_ASSERT(sender->sent_count > 0);
		sender->free_buffers[sender->free_count++] = sender->sent[0];
		memmove(sender->sent, sender->sent + 1, --sender->sent_count * sizeof(sender->sent[0]));
		complete(sim_end_other(end));
	}
	if (!op->invalidate)
		return;
	struct key_window *w = find_window(c, op->invalidate);
	if (w)
		w->key = 0;
	else
		break_for(end, "an invalidation of what is no window");
}

static void card_read(struct sim_end *end, const struct op *op)
{
	struct window_conn *c = end->user, *reader = sim_end_other(end)->user;
	struct key_window *w = find_window(c, op->key);
	struct op done = { .kind = OP_READ_DONE, .id = op->id, .slot = op->slot };
	uint32_t size;

	if (!w || !covers(w, op->slot, op->offset, op->bytes)) {
		break_for(end, "a read through a window that is not open");
		return;
	}
	if (reader && reader->rx_base)
		memcpy(reader->rx_base + xi_layout_slot(&reader->rx, op->slot, &size) + op->offset,
		       c->tx_base + xi_layout_slot(&c->tx, op->slot, &size) + op->offset, op->bytes);
	post(c, &done, NULL, NULL, 0);
}

static void card_read_done(struct sim_end *end, const struct op *op)
{
	struct window_conn *c = end->user;
	struct far_read *r = &c->reads[op->slot];

	complete(end);
	if (r->state != READ_POSTED || r->id != op->id)
		return; /* forgotten */
	r->state = READ_DONE;
	c->reads_done++;
}

static void card_hello(struct sim_end *end, const struct op *op)
{
	struct window_conn *c = end->user;
	uint32_t bytes = op->length - (uint32_t)sizeof(*op);

	XI_ASSERT(c->hello_count < HELLOS && bytes <= XI_HELLO_MAX);
	sim_end_peek(end, (uint32_t)sizeof(*op), c->hellos[c->hello_count], bytes);
	c->hello_length[c->hello_count++] = bytes;
}

static void window_arrived(struct sim_end *end)
{
	static void (*const work[])(struct sim_end *, const struct op *) = {
		[OP_HELLO] = card_hello,
		[OP_SEND] = card_send,
		[OP_READ] = card_read,
		[OP_READ_DONE] = card_read_done,
	};
	struct op op;

	struct window_conn *c = end->user;
	if (!c || c->card_busy)
		return; /* not accepted by the process yet: it waits */
	c->card_busy = true;
	while (end->in.visible >= sizeof(op) && !end->link->broken) {
		sim_end_peek(end, 0, &op, sizeof(op));
		if (end->in.visible < op.length)
			break;
		work[op.kind](end, &op);
		if (end->link->broken)
			break;
		sim_end_take(end, op.length);
	}
	c->card_busy = false;
	if (end->link->broken)
		end->in.used = end->in.visible = 0;
	refresh(end);
}

static void silence_over(struct sim_event *event)
{
	struct sim_end *end = XI_CONTAINER(event, struct sim_end, work);

	break_for(end, "work does not complete");
}

static void window_closing(struct sim_end *end)
{
	struct sim_end *other = sim_end_other(end);

	if (!end->dead || other->closed || !other->process || !sim_chance(2))
		return;
	end->link->silent = true;
	sim_event_start(&other->work, sim_now() + sim_between(0, SILENCE_MAX), silence_over);
}

/* --- Posting */
static void post_frame(struct window_conn *c)
{
	struct out_frame *f = &c->queue[0];
	struct op op = { .kind = OP_SEND, .key = f->key, .invalidate = f->invalidate, .nsegs = f->nsegs };

	c->sent[c->sent_count++] = f->buffer;
	c->in_flight++;
	post(c, &op, f->segs, c->buffers + (size_t)f->buffer * c->tx.frame_max, f->length);
	if (c->end->link->broken)
		return;
	memmove(c->queue, c->queue + 1, --c->queue_count * sizeof(*f));
}

static void post_read(struct window_conn *c)
{
	for (uint32_t i = 0; i < c->rx.slots; i++) {
		struct far_read *r = &c->reads[i];
		if (r->state != READ_WAITS)
			continue;
		struct op op = {
			.kind = OP_READ, .id = r->id, .key = r->key, .slot = i, .offset = r->offset, .bytes = r->length
		};
		r->state = READ_POSTED;
		c->reads_waiting--;
		c->in_flight++;
		post(c, &op, NULL, NULL, 0);
		return;
	}
	XI_ASSERT(!"a read waits");
}

static void pump(struct window_conn *c)
{
	if (!c->flowing || c->closed)
		return;
	while (c->in_flight < c->depth && !c->end->link->broken) {
		/* Reads first: the reply that ends their window must not overtake them. */
		if (c->reads_waiting)
			post_read(c);
		else if (c->queue_count)
			post_frame(c);
		else
			break;
	}
	refresh(c->end);
}

/* --- Ops */
static uint8_t *carve(uint8_t *base, size_t *at, size_t bytes)
{
	uint8_t *p = base ? base + *at : NULL;

	*at += (bytes + XI_PAGE - 1) / XI_PAGE * XI_PAGE;
	return p;
}

static size_t carve_all(struct window_conn *c, uint8_t *base)
{
	uint32_t frames = c->tx.frames;
	size_t at = 0;

	c->tx_base = carve(base, &at, c->tx.bytes);
	c->rx_base = carve(base, &at, c->rx.bytes);
	c->buffers = carve(base, &at, (size_t)(frames + 1) * c->tx.frame_max);
	c->free_buffers = (void *)carve(base, &at, (frames + 1) * sizeof(uint32_t));
	c->queue = (void *)carve(base, &at, (frames + 1) * sizeof(*c->queue));
	c->sent = (void *)carve(base, &at, (frames + 1) * sizeof(uint32_t));
	c->window_count = frames + c->tx.slots + 1;
	c->windows = (void *)carve(base, &at, c->window_count * sizeof(*c->windows));
	c->arrived = carve(base, &at, (size_t)c->rx.frames * c->rx.frame_max);
	c->in = (void *)carve(base, &at, c->rx.frames * sizeof(*c->in));
	c->slot_keys = (void *)carve(base, &at, (c->rx.slots + 1) * sizeof(uint32_t));
	c->in_keys = (void *)carve(base, &at, c->rx.frames * sizeof(uint32_t));
	c->reads = (void *)carve(base, &at, (c->rx.slots + 1) * sizeof(*c->reads));
	return at;
}

static int window_reserve(struct xi_conn *conn, const struct xi_layout *tx, const struct xi_layout *rx, uint32_t flags,
			  uint8_t **tx_base, uint8_t **rx_base, struct xenidc_error *err)
{
	struct window_conn *c = xi_conn_priv(conn);
	int error;

	XI_ASSERT(!c->memory && !flags);
	c->tx = *tx;
	c->rx = *rx;
	c->memory_bytes = carve_all(c, NULL);
	c->memory =
		xi_os->mmap(NULL, c->memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &error);
	if (!c->memory)
		return xi_error(err, error, XENIDC_REASON_RESOURCE, "out of memory; lower the budget");
	carve_all(c, c->memory);
	for (uint32_t i = 0; i <= tx->frames; i++)
		c->free_buffers[i] = tx->frames - i;
	c->free_count = tx->frames + 1;
	c->depth = sim_options()->queue_depth;
	*tx_base = c->tx_base;
	*rx_base = c->rx_base;
	return 0;
}

static void window_export_region(struct xi_conn *conn, struct xi_writer *w)
{
	(void)conn;
	xi_put_u32(w, MAGIC);
}

static int window_import_region(struct xi_conn *conn, struct xi_reader *r, uint8_t **rx_base, struct xenidc_error *err)
{
	struct window_conn *c = xi_conn_priv(conn);

	(void)rx_base;
	if (xi_get_u32(r) != MAGIC || r->bad || xi_reader_left(r))
		return xi_error(err, -EPROTO, XENIDC_REASON_PROTOCOL, "the peer's memory is not described right");
	c->flowing = true;
	return 0;
}

static uint8_t *window_tx_begin(struct xi_conn *conn)
{
	struct window_conn *c = xi_conn_priv(conn);

	XI_ASSERT(c->free_count > 0);
	c->begun = c->free_buffers[c->free_count - 1];
	return c->buffers + (size_t)c->begun * c->tx.frame_max;
}

/* A card has to know which frame ends a loan: the kind is the first byte of a frame, its id the second word. */
static uint16_t frame_index(const uint8_t *frame)
{
	uint16_t index;

	memcpy(&index, frame + 4, sizeof(index));
	return index;
}

static uint64_t window_tx_commit(struct xi_conn *conn, uint32_t length, const struct xi_seg *segs, uint32_t nsegs,
				 uint32_t tag)
{
	struct window_conn *c = xi_conn_priv(conn);
	struct out_frame *f = &c->queue[c->queue_count];
	const uint8_t *bytes = c->buffers + (size_t)c->begun * c->tx.frame_max;
	bool reply = bytes[0] == XI_FRAME_REPLY;

	(void)tag;
	XI_ASSERT(c->free_count > 0 && c->queue_count < c->tx.frames && c->free_buffers[c->free_count - 1] == c->begun);
	c->free_count--;
	c->queue_count++;
	*f = (struct out_frame){ .position = ++c->position, .buffer = c->begun, .length = length };
	f->nsegs = nsegs;
	if (nsegs)
		memcpy(f->segs, segs, nsegs * sizeof(*segs));
	if (nsegs)
		f->key = open_window(c, segs, nsegs, reply);
	if (reply) {
		f->invalidate = c->in_keys[frame_index(bytes) % c->rx.frames];
		c->in_keys[frame_index(bytes) % c->rx.frames] = 0;
	}
	return f->position;
}

static void window_flush(struct xi_conn *conn)
{
	pump(xi_conn_priv(conn));
}

static uint64_t window_tx_unsent(struct xi_conn *conn)
{
	const struct window_conn *c = xi_conn_priv(conn);

	return c->queue_count ? c->queue[0].position : c->position + 1;
}

static bool window_retract(struct xi_conn *conn, uint64_t position)
{
	struct window_conn *c = xi_conn_priv(conn);

	for (uint32_t i = 0; i < c->queue_count; i++) {
		struct out_frame *f = &c->queue[i];
		if (f->position != position)
			continue;
		struct key_window *w = find_window(c, f->key);
		if (w)
			w->key = 0;
		c->free_buffers[c->free_count++] = f->buffer;
		memmove(f, f + 1, (--c->queue_count - i) * sizeof(*f));
		return true;
	}
	return false;
}

static int window_fetch(struct xi_conn *conn, uint32_t slot, uint32_t offset, uint32_t length)
{
	struct window_conn *c = xi_conn_priv(conn);
	struct far_read *r = &c->reads[slot];

	XI_ASSERT(slot < c->rx.slots && length && (r->state == READ_NONE || r->state == READ_POSTED));
	*r = (struct far_read){
		.state = READ_WAITS, .id = ++c->next_read, .offset = offset, .length = length, .key = c->slot_keys[slot]
	};
	c->reads_waiting++;
	return XI_PENDING;
}

static void window_forget(struct xi_conn *conn, uint32_t slot)
{
	struct window_conn *c = xi_conn_priv(conn);
	struct far_read *r = &c->reads[slot];

	XI_ASSERT(slot < c->rx.slots && r->state != READ_NONE);
	c->reads_waiting -= r->state == READ_WAITS;
	c->reads_done -= r->state == READ_DONE;
	r->state = READ_NONE;
}

static bool hand_up_frame(struct window_conn *c)
{
	struct in_frame *in = &c->in[c->in_first];
	const uint8_t *bytes = c->arrived + (size_t)c->in_first * c->rx.frame_max;
	uint32_t length = in->length;

	memcpy(xi_conn_rx_buffer(c->conn), bytes, length);
	for (uint32_t i = 0; i < in->nsegs; i++)
		if (in->segs[i].slot < c->rx.slots)
			c->slot_keys[in->segs[i].slot] = in->key;
	if (bytes[0] == XI_FRAME_REQUEST)
		c->in_keys[frame_index(bytes) % c->rx.frames] = in->key;
	c->in_first = (c->in_first + 1) % c->rx.frames;
	c->in_count--;
	return xi_conn_frame(c->conn, length);
}

static bool hand_up_reads(struct window_conn *c)
{
	for (uint32_t i = 0; c->reads_done && i < c->rx.slots; i++) {
		if (c->reads[i].state != READ_DONE)
			continue;
		c->reads[i].state = READ_NONE;
		c->reads_done--;
		if (!xi_conn_fetched(c->conn, i))
			return false;
	}
	return true;
}

static unsigned end_of(struct window_conn *c)
{
	struct sim_link *link = c->end->link;

	c->over = true;
	if (link->refused)
		xi_conn_lost(c->conn, XENIDC_REASON_UNREACHABLE, -ECONNREFUSED,
			     "cannot connect to %s:%s: nobody listens there; start the other side", SCHEME, link->name);
	else
		xi_conn_lost(c->conn, XENIDC_REASON_LOST, -ECONNRESET,
			     "the simulated queue pair failed; connect again");
	return 1;
}

static unsigned begin(struct window_conn *c)
{
	struct sim_link *link = c->end->link;

	if (!link->refused && !link->connected)
		return 0;
	c->told = true;
	if (link->refused)
		return end_of(c);
	xi_conn_dialled(c->conn);
	return 1;
}

static unsigned window_process(struct xi_conn *conn, unsigned budget)
{
	struct window_conn *c = xi_conn_priv(conn);
	unsigned n = 0;

	if (!c->end || c->over || c->closed)
		return 0;
	if (!c->told) {
		n = begin(c);
		refresh(c->end);
		return n;
	}
	if (c->hello_read < c->hello_count) {
		uint32_t i = c->hello_read++;
		xi_conn_hello(conn, c->hellos[i], c->hello_length[i]);
		n++;
	}
	for (; c->flowing && c->in_count && n < budget; n++)
		if (!hand_up_frame(c)) {
			c->over = true;
			return n + 1;
		}
	n += c->reads_done;
	if (c->flowing && !hand_up_reads(c)) {
		c->over = true;
		return n;
	}
	pump(c);
	if (!c->in_count && c->hello_read == c->hello_count && sim_end_over(c->end))
		n += end_of(c);
	refresh(c->end);
	return n;
}

static int window_arm(struct xi_conn *conn, bool futex_ok, struct xi_wait *wait)
{
	const struct window_conn *c = xi_conn_priv(conn);

	(void)futex_ok;
	wait->futex = NULL;
	if (!c->end || c->over || c->closed)
		return 0;
	refresh(c->end);
	return sim_fd_ready(c->end->fd) & EPOLLIN ? XI_BUSY : 0;
}

static void window_disarm(struct xi_conn *conn)
{
	(void)conn;
}

static void watch_fired(struct xenidc_watch *watch, uint32_t events)
{
	(void)watch; /* process() does it all */
	(void)events;
}

static void own_end(struct xi_conn *conn, struct sim_end *end)
{
	struct window_conn *c = xi_conn_priv(conn);

	c->conn = conn;
	c->end = end;
	end->user = c;
	int r = xenidc_watch_start(xi_conn_loop(conn), &c->watch, end->fd, EPOLLIN, watch_fired);
	XI_ASSERT(r == 0);
}

static int window_dial(struct xi_conn *conn, const char *rest, struct xenidc_error *err)
{
	uint32_t bytes = 65536 + sim_options()->queue_depth * (XI_FRAME_MAX + 1024);
	struct sim_link *link = sim_link_dial(SCHEME, rest, xi_conn_loop(conn), bytes);

	(void)err;
	link->arrived = window_arrived;
	link->closing = window_closing;
	own_end(conn, &link->end[0]);
	return 0;
}

static void window_adopt(struct xi_conn *conn, void *arg)
{
	struct sim_link *link = arg;
	struct window_conn *c = xi_conn_priv(conn);

	own_end(conn, &link->end[1]);
	c->told = true;
	window_arrived(c->end); /* what came before */
}

static void window_identify(struct xi_conn *conn, struct xenidc_peer *peer)
{
	const struct window_conn *c = xi_conn_priv(conn);

	snprintf(peer->transport, sizeof(peer->transport), SCHEME);
	snprintf(peer->address, sizeof(peer->address), SCHEME ":%s", c->end->link->name);
}

static void window_hello(struct xi_conn *conn, const void *bytes, uint32_t length)
{
	struct window_conn *c = xi_conn_priv(conn);
	struct op op = { .kind = OP_HELLO };

	if (c->end)
		post(c, &op, NULL, bytes, length);
}

static void closing_over(struct xenidc_timer *timer)
{
	struct window_conn *c = XI_CONTAINER(timer, struct window_conn, closing);

	xi_conn_closed(c->conn);
}

static int window_close(struct xi_conn *conn)
{
	struct window_conn *c = xi_conn_priv(conn);

	if (!c->end || c->closed)
		return 0;
	while (c->flowing && c->queue_count && !c->end->link->broken)
		post_frame(c);
	c->closed = true;
	xenidc_watch_stop(&c->watch);
	sim_end_close(c->end);
	c->end = NULL;
	if (!c->memory)
		return 0;
	/* What was posted has to be flushed before the memory is free. */
	if (xenidc_timer_start(xi_conn_loop(conn), &c->closing, sim_between(0, CLOSE_MAX), closing_over))
		return 0;
	return XI_PENDING;
}

static void window_fini(struct xi_conn *conn)
{
	struct window_conn *c = xi_conn_priv(conn);

	XI_ASSERT(!c->end);
	xenidc_timer_stop(&c->closing);
	if (c->memory)
		xi_os->munmap(c->memory, c->memory_bytes);
}

/* --- Listening */
static void somebody_came(struct xenidc_watch *watch, uint32_t events)
{
	struct window_listener *l = XI_CONTAINER(watch, struct window_listener, watch);
	struct sim_link *link = sim_name_accept(l->name);

	(void)events;
	if (link && !xi_listener_incoming(l->listener, link))
		sim_end_close(&link->end[1]);
}

static int window_listen(struct xi_listener *listener, const char *rest, char *name, struct xenidc_error *err)
{
	struct window_listener *l = xi_listener_priv(listener);

	l->listener = listener;
	l->name = sim_name_new(SCHEME, rest, xi_listener_loop(listener));
	if (!l->name)
		return xi_error(err, -EADDRINUSE, XENIDC_REASON_ADDRESS,
				"cannot listen at %s:%.60s: somebody does already; choose another name", SCHEME, rest);
	int r = xenidc_watch_start(xi_listener_loop(listener), &l->watch, sim_name_fd(l->name), EPOLLIN, somebody_came);
	XI_ASSERT(r == 0);
	snprintf(name, XENIDC_ADDRESS_MAX, SCHEME ":%s", rest);
	return 0;
}

static void window_unlisten(struct xi_listener *listener)
{
	struct window_listener *l = xi_listener_priv(listener);

	if (!l->name)
		return;
	xenidc_watch_stop(&l->watch);
	sim_name_free(l->name);
	l->name = NULL;
}

static void window_diagnose(xenidc_diagnose_line *line, void *user)
{
	line(user, SCHEME, 0, "simulated", NULL);
}

const struct xi_transport sim_transport_window = {
	.version = XI_TRANSPORT_VERSION,
	.scheme = SCHEME,
	.caps = 0,
	.conn_size = sizeof(struct window_conn),
	.listener_size = sizeof(struct window_listener),
	.check = sim_name_check,
	.listen = window_listen,
	.unlisten = window_unlisten,
	.dial = window_dial,
	.adopt = window_adopt,
	.identify = window_identify,
	.hello = window_hello,
	.reserve = window_reserve,
	.export_region = window_export_region,
	.import_region = window_import_region,
	.tx_begin = window_tx_begin,
	.tx_commit = window_tx_commit,
	.flush = window_flush,
	.tx_unsent = window_tx_unsent,
	.retract = window_retract,
	.fetch = window_fetch,
	.forget = window_forget,
	.process = window_process,
	.arm = window_arm,
	.disarm = window_disarm,
	.close = window_close,
	.fini = window_fini,
	.diagnose = window_diagnose,
};
