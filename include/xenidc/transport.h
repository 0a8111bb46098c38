/* SPDX-License-Identifier: MIT */
/*
 * transport.h - the contract between the core and a transport, for whoever writes one.
 *
 * A transport moves two things between two channels: frames (small, in order) and slots (bulk). What is in a frame is
 * the core's affair; how it travels is the transport's. docs/TRANSPORT-PORTING.md walks every op below through memory
 * rings, grant tables, a byte stream and queue pairs.
 *
 * THE MODEL
 *   Each side has a *tx side*: frame buffers and tx slots, which it alone writes; and an *rx side*: landing slots.
 *   Tx slot k of one side lands in rx slot k of the other, always: there is a place for everything that may arrive.
 *   Tx slots are, in this order: the OUT slots that this side lends, then one answer slot for each IN slot of the
 *   peer's. So an IN buffer of ours is an rx slot of ours, which the peer's answer slot of the same number fills.
 *   Both sides compute the same struct xi_layout from the negotiated budget.
 *
 * RULES FOR ALL OPS
 *   - Thread: the loop's. None may block (looking up a name in dial() and listen() is the exception). None may call
 *     back into the core synchronously, except process() and the handlers of the transport's own watches and timers,
 *     which make the upcalls below. xi_conn_lost() only marks: every op may call it.
 *   - After reserve() succeeded no op allocates until close().
 *   - Errors: negative errno. Fatal trouble of a connection is reported with xi_conn_lost(), once, and by nothing else.
 *   - Peer input: copy once, check, then use; xi_conn_lost(PROTOCOL) on the first impossible value.
 *   - The core allocates the private state (`conn_size`, `listener_size`, zeroed) and hands it to each op by
 *     xi_conn_priv() and xi_listener_priv().
 *   - process(), arm() and disarm() are called from dial() or adopt() on, in every state until close(): before the
 *     regions are exchanged there may be nothing to do, and arm() then leaves the waking to a watched descriptor.
 *   - In a child of fork() (xi_loop_forked()) only close(), fini() and unlisten() are called, to free what was
 *     inherited: nothing that the peer, or the parent, would notice (no shutdown, no doorbell, no unlink, nothing done
 *     to an epoll or a queue pair that both have).
 *   - close() is safe in every state, also after a failed dial() or reserve(); fini() follows it exactly once.
 */
#ifndef XENIDC_TRANSPORT_H
#define XENIDC_TRANSPORT_H

#include <xenidc/xenidc.h>

#define XI_TRANSPORT_VERSION 1

struct xi_conn;     /* the core's half of a connection: one channel incarnation, or a half-open one of a listener */
struct xi_listener; /* the core's half of a listener */
struct xi_writer;   /* bounded cursors, xenidc-core/base/cursor.h */
struct xi_reader;

/* Memory of one direction, the same on both sides. All offsets are from the start of the region. */
#define XI_LAYOUT_CLASSES (2 * XENIDC_CLASSES_MAX)
struct xi_layout_class {
	uint32_t first, count; /* slots first .. first+count-1 */
	uint32_t size, stride; /* bytes usable, bytes apart (whole pages) */
	uint64_t offset;       /* of slot `first` */
};
struct xi_layout {
	uint32_t frames;       /* frame buffers: a power of two > the capacity of DESIGN: nothing ever waits for one */
	uint32_t frame_max;    /* bytes of the largest frame: common header and body */
	uint32_t frame_stride; /* bytes apart in a ring of frames: 8 + frame_max, rounded up to 64 */
	uint64_t ring_offset;  /* where such a ring starts: one page is kept free before it for control words */
	uint32_t classes;
	struct xi_layout_class cls[XI_LAYOUT_CLASSES];
	uint32_t slots;        /* in all classes */
	uint64_t slots_offset; /* where slot 0 starts */
	uint64_t bytes;        /* whole region, whole pages */
};
/* Offset and usable size of a slot. `slot` < layout->slots (asserted). */
uint64_t xi_layout_slot(const struct xi_layout *layout, uint32_t slot, uint32_t *ret_size);

/* A piece of a tx slot that a frame announces: it has to reach the same place of the peer's rx slot. */
struct xi_seg {
	uint32_t slot, offset, length;
};

/* Capabilities. */
enum {
	XI_CAP_MAP = 1u << 0,        /* map() exists: rx slots can be the peer's own memory */
	XI_CAP_PEER_DEATH = 1u << 1, /* the kernel reports the peer's death; peer_dispatched() is final then */
	XI_CAP_IDENTITY = 1u << 2,   /* uid or domid of the peer comes from a kernel or hypervisor */
	XI_CAP_STREAM = 1u << 3,     /* bytes that may be cut and joined anyhow */
	XI_CAP_DIGEST = 1u << 4,     /* can protect payloads with CRC32C */
	XI_CAP_LAZY = 1u << 5,       /* fetch() is never pending: OUT data are fetched when a client looks at them */
};

/* How to sleep on a connection; filled in by arm(). */
struct xi_wait {
	const uint32_t *futex; /* not NULL: sleep while *futex == value (in memory shared with the peer) */
	uint32_t value;        /* else: a descriptor that is watched (xenidc_watch_start()) will wake the loop */
};

#define XI_RESERVE_MAP 1u    /* MAP was negotiated: rx slots are the peer's own memory, no landing */
#define XI_RESERVE_DIGEST 2u /* digests were negotiated */

#define XI_PENDING 1 /* returned by fetch() and close(): an upcall follows */
#define XI_BUSY 1    /* returned by arm(): something is there already, do not sleep */

struct xi_transport {
	uint32_t version; /* XI_TRANSPORT_VERSION */
	const char *scheme;
	uint32_t caps;
	size_t conn_size, listener_size;

	/* Check the part of an address after "scheme:". `service`, XENIDC_SERVICE_MAX + 1 bytes, gets its /SERVICE or
	 * "". Mandatory. Pure. -EINVAL, -ENAMETOOLONG, with `err` saying what is wrong where. */
	int (*check)(const char *rest, char *service, struct xenidc_error *err);

	/* --- listening. Mandatory both. listen(): bind and start to watch; `name` gets the address to hand out
	 * (XENIDC_ADDRESS_MAX bytes, with scheme). For each peer that arrives: xi_listener_incoming(). */
	int (*listen)(struct xi_listener *listener, const char *rest, char *name, struct xenidc_error *err);
	void (*unlisten)(struct xi_listener *listener);

	/* --- connecting. dial(): start; xi_conn_dialled() or xi_conn_lost() follows. A failure that is known at once
	 * is returned, with `err` filled in. Mandatory. */
	int (*dial)(struct xi_conn *conn, const char *rest, struct xenidc_error *err);
	/* Take over what xi_listener_incoming() brought (its `arg`) into a fresh conn. Cannot fail: the arg is owned by
	 * the conn from here on. Hellos are reported from the next wake-up on. Mandatory. */
	void (*adopt)(struct xi_conn *conn, void *arg);
	/* Who is there. Called after dialled or adopt. Mandatory; fills in what it knows. */
	void (*identify)(struct xi_conn *conn, struct xenidc_peer *peer);
	/*
	 * Send one connect message (docs/PROTOCOL.md; at most XI_HELLO_MAX bytes, copied). With ACCEPT and READY travel
	 * the attachments of the region that export() described (descriptors). At most three are sent a connection.
	 * Trouble is reported with xi_conn_lost(). Mandatory. The peer's transport calls xi_conn_hello().
	 */
	void (*hello)(struct xi_conn *conn, const void *bytes, uint32_t length);
	/*
	 * Reserve everything for the connection: tx region, landing memory, frame buffers; pinned and populated. After
	 * it *tx_base and *rx_base (layout offsets apply; with MAP rx_base may still be NULL until import()) are valid
	 * until close(). `flags`: XI_RESERVE_*. `err` names the limit, its value and the fix. -ENOMEM, -EAGAIN,
	 * -EMFILE. Mandatory.
	 */
	int (*reserve)(struct xi_conn *conn, const struct xi_layout *tx, const struct xi_layout *rx, uint32_t flags,
		       uint8_t **tx_base, uint8_t **rx_base, struct xenidc_error *err);
	/* Write what the peer needs to reach our region (empty on streams). Mandatory. */
	void (*export_region)(struct xi_conn *conn, struct xi_writer *w);
	/* Read what the peer's export wrote; check everything (size, seals, rights). With MAP, *rx_base is set to the
	 * peer's region. After it frames flow. -EPROTO, -EACCES, -ENOMEM, with `err`. Mandatory. */
	int (*import_region)(struct xi_conn *conn, struct xi_reader *r, uint8_t **rx_base, struct xenidc_error *err);

	/* --- frames. The core never has more frames outstanding than layout.frames: tx_begin() cannot fail.
	 * tx_begin(): a place for one frame of up to frame_max bytes, to be filled and then committed or dropped by
	 * calling tx_begin() again. The memory may be visible to the peer while it is filled. Mandatory. */
	uint8_t *(*tx_begin)(struct xi_conn *conn);
	/*
	 * Send the frame that stands there; `segs` (copied) are the slot pieces that it announces; the slots stay
	 * untouched by this side until the request of `tag` (the id of a REQUEST of ours; else 0) ends. Frames may
	 * overtake segs, never frames. Returns a position that grows by one a frame, from 1. Mandatory.
	 */
	uint64_t (*tx_commit)(struct xi_conn *conn, uint32_t length, const struct xi_seg *segs, uint32_t nsegs,
			      uint32_t tag);
	/* Publish and notify: called once after a batch of commits. Mandatory. */
	void (*flush)(struct xi_conn *conn);
	/* The first position of which no byte has left this process yet. Local: always all have left. Mandatory. */
	uint64_t (*tx_unsent)(struct xi_conn *conn);
	/* Take back a committed frame of which no byte has left. True: it never will. Optional (default: false). */
	bool (*retract)(struct xi_conn *conn, uint64_t position);
	/* Forget the unsent segs of `tag` (its request was cancelled; the CANCEL frame tells the peer). Pieces already
	 * begun are finished. Optional (default: nothing). */
	void (*drop_segs)(struct xi_conn *conn, uint32_t tag);

	/* --- slots, on the receiving side.
	 * fetch(): bring bytes [offset, offset+length) of rx slot `slot` into landing memory. 0: there; XI_PENDING:
	 * xi_conn_fetched() follows once for this slot; negative: as xi_conn_lost(), which was called. Not called
	 * with MAP, nor on streams (their data come by themselves, see xi_conn_bulk()). Mandatory but on streams. */
	int (*fetch)(struct xi_conn *conn, uint32_t slot, uint32_t offset, uint32_t length);
	/* Copy straight from the peer's tx slot to `to`, in one copy. Optional (default: fetch, then memcpy). */
	int (*read)(struct xi_conn *conn, uint32_t slot, uint32_t offset, void *to, uint32_t length);
	/* The peer gave up sending to this rx slot (CANCEL): no fetch of it is pending any more. Optional. */
	void (*forget)(struct xi_conn *conn, uint32_t slot);

	/* --- progress.
	 * process(): receive at most `budget` frames and make the upcalls for them; also push out what waits. Returns
	 * the number of frames. Cheap when there is nothing. Called whenever the loop spins or wakes. Mandatory. */
	unsigned (*process)(struct xi_conn *conn, unsigned budget);
	/* Before the loop sleeps: make the peer notify us from now on; XI_BUSY if something is there already.
	 * `futex_ok`: the loop can sleep on a futex word; otherwise the transport has to use its watched descriptor.
	 * Mandatory. */
	int (*arm)(struct xi_conn *conn, bool futex_ok, struct xi_wait *wait);
	/* After the sleep: notifications are not needed now. Mandatory. */
	void (*disarm)(struct xi_conn *conn);

	/* --- the end.
	 * publish_dispatch(): store our dispatch index where the peer can read it after our death. Before each request
	 * handler. Optional. peer_dispatched(): the peer's; true if it is known and final (PEER_DEATH). Optional. */
	void (*publish_dispatch)(struct xi_conn *conn, uint32_t sequence);
	bool (*peer_dispatched)(struct xi_conn *conn, uint32_t *ret_sequence);
	/*
	 * Take everything back, now: peer memory mapped here is replaced in place by zero pages (tx_base and rx_base
	 * stay readable until fini()), nothing more is received, notified or called back. Frames committed before may
	 * still be delivered if that needs nothing of us. 0, or XI_PENDING: xi_conn_closed() follows, soon and without
	 * the peer's help (after T_close the core goes on without it, to fini()). Mandatory.
	 */
	int (*close)(struct xi_conn *conn);
	/* Free all; also right after a close() that was pending (xi_conn_closed() then never follows). The region goes,
	 * or becomes a quarantine of the transport's own. Mandatory. */
	void (*fini)(struct xi_conn *conn);
	/* Bytes and regions that earlier connections of `owner` still have in quarantine. Optional (default 0). `owner`
	 * is the channel's key, xi_conn_owner(). */
	void (*quarantine)(const void *owner, uint64_t *bytes, uint32_t *regions);

	/* Wake-ups for statistics. Optional. */
	void (*stats)(struct xi_conn *conn, struct xenidc_stats *stats);
	/* See xenidc_diagnose(). Mandatory. */
	void (*diagnose)(xenidc_diagnose_line *line, void *user);
};

/* The one table of transports (xenidc-core/transports.c). NULL: no such scheme. */
const struct xi_transport *xi_transport_find(const char *scheme, size_t length);

/* ------------------------------------------------------------------------------------------------------------------
 * Upcalls: what a transport tells the core
 */
void *xi_conn_priv(struct xi_conn *conn);
xenidc_loop *xi_conn_loop(struct xi_conn *conn);
const void *xi_conn_owner(struct xi_conn *conn);
/* The times in force, none of them zero: when to call a dial hopeless, and a silent peer dead. */
const struct xenidc_times *xi_conn_times(struct xi_conn *conn);
void *xi_listener_priv(struct xi_listener *listener);
xenidc_loop *xi_listener_loop(struct xi_listener *listener);

/* A peer has arrived. The core makes a half-open conn and calls adopt(conn, arg), or returns false when a limit is
 * reached (the transport then drops the arg). */
bool xi_listener_incoming(struct xi_listener *listener, void *arg);

/* The dial went through: hellos can be sent. */
void xi_conn_dialled(struct xi_conn *conn);
/* A connect message has arrived. */
void xi_conn_hello(struct xi_conn *conn, const void *bytes, uint32_t length);

/* A buffer for the next frame: frame_max bytes, rounded up to a multiple of 64; private, never NULL after reserve().
 * Valid until xi_conn_frame(). */
uint8_t *xi_conn_rx_buffer(struct xi_conn *conn);
/*
 * A frame of `length` bytes stands in the buffer of xi_conn_rx_buffer(). False: the connection has ended by this call
 * (stop processing; do not touch the conn's frames again).
 */
bool xi_conn_frame(struct xi_conn *conn, uint32_t length);
/*
 * Streams: bulk for rx slot `slot` starts. Where to put it: NULL if that slot does not expect exactly these bytes next
 * (a protocol error, already reported: stop). The transport writes `length` bytes there and then calls
 * xi_conn_bulk_done().
 */
uint8_t *xi_conn_bulk(struct xi_conn *conn, uint32_t slot, uint32_t offset, uint32_t length);
bool xi_conn_bulk_done(struct xi_conn *conn, uint32_t slot, uint32_t length);
/* How many bytes that slot still expects, those of the bulk under way (its first) included. They may be written to as
 * the transport likes until they are done: a receiver may guess that what comes next continues the slot. */
uint32_t xi_conn_bulk_expected(struct xi_conn *conn, uint32_t slot);
/* A pending fetch is through. */
bool xi_conn_fetched(struct xi_conn *conn, uint32_t slot);

/*
 * The connection is over. `reason` PROTOCOL, PEER_DIED (kernel's word), LOST, UNREACHABLE, ...; `text` as in struct
 * xenidc_error. Only the first call counts. close() follows, never inside this call.
 */
void xi_conn_lost(struct xi_conn *conn, enum xenidc_reason reason, int code, const char *text, ...)
	__attribute__((format(printf, 4, 5)));
/* close() that returned XI_PENDING is through. */
void xi_conn_closed(struct xi_conn *conn);

#endif
