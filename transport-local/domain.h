/* SPDX-License-Identifier: MIT */
/*
 * domain.h - what transport-local asks of a domain: the primitives for two sides that share memory.
 *
 *	core  <-- transport.h -->  local.c, ring.c  <-- struct xi_domain -->  domain (shm/, Xen, the simulator)
 *
 * local.c knows rings, slots, when to sleep and when to notify; a domain knows how memory comes to be shared, how to
 * wake the other side, and how its death is noticed. No domain looks into shared memory, and local.c enters the kernel
 * only for private memory.
 *
 * A DOMAIN IS
 *   - a struct xi_transport of its own, with XI_LOCAL_OPS for what local.c does, and its own check, listen, unlisten,
 *     dial, adopt, identify, hello, quarantine and diagnose, to the contract of transport.h;
 *   - a private state whose FIRST member is a struct xi_local, so that xi_conn_priv() gives both;
 *   - a const struct xi_domain with the primitives below, given to xi_local_start() in its dial() and adopt().
 *
 * LIFE OF A CONNECTION
 *     dial or adopt: xi_local_start()                   identify, hello as the core likes
 *     reserve:       region_make()
 *     export:        region_export(); what cannot be written into a connect message (descriptors) travels with the
 *                    next hello() that the core calls, which is the one that has what region_export() wrote
 *     import:        region_import(). From here on frames flow: wake(), ring(), xi_local_rang()
 *     close:         region_zero(), hang_up()           from here on no upcall
 *     fini:          fini()
 *   close and fini come in every state; export may come before import or after it, and only once each.
 *
 * RULES: those for ops at the top of transport.h hold for every op here. No op calls back into local.c; the domain's
 * own watches and timers do, with the functions at the end. In a forked child only region_zero() and fini() are called.
 */
#ifndef XI_LOCAL_DOMAIN_H
#define XI_LOCAL_DOMAIN_H

#include <xenidc/transport.h>

#include "ring.h"

struct xi_local;

/* How a domain noticed that the other side is no longer there. */
enum xi_local_end {
	XI_LOCAL_HERE = 0,
	/* It hung up, or can no longer be heard: whether it lives is not known (yet; DIED may follow). */
	XI_LOCAL_HUNG_UP,
	/* The kernel, or the hypervisor, says that it has ended: nothing of it runs any more. */
	XI_LOCAL_DIED,
};

struct xi_domain {
	/*
	 * --- Memory. Mandatory.
	 * region_make(): our region: `bytes` (whole pages, not 0), zeroed, populated, page-aligned, writable for us and
	 * never for the peer, at *ret_base until fini(). Fresh memory: never something that another peer, or this one
	 * in an earlier incarnation, may still see. Everything that later ops need is reserved here as well.
	 * -ENOMEM, -EAGAIN, -EMFILE, with `err` naming the limit, its value and the fix. Once a connection.
	 */
	int (*region_make)(struct xi_local *local, uint64_t bytes, uint8_t **ret_base, struct xenidc_error *err);
	/* Write what the peer's region_import() reads; at most XI_EXPORT_MAX bytes. */
	void (*region_export)(struct xi_local *local, struct xi_writer *w);
	/*
	 * Check and map the peer's region: `bytes` of it, page-aligned, readable and not writable for us, populated,
	 * such that no later act of the peer can make an access to it fault. It stays at *ret_base until fini().
	 * Whatever does not hold is refused: -EPROTO, -EACCES, -ENOMEM, with `err` saying which of them. On failure
	 * nothing is left. It is the last op of a connect: the domain may take the connect messages as through.
	 */
	int (*region_import)(struct xi_local *local, struct xi_reader *r, uint64_t bytes, const uint8_t **ret_base,
			     struct xenidc_error *err);
	/*
	 * Replace the mapping of the peer's region in place by pages of zeros that are ours (readable until fini()):
	 * from the return on we do not see the peer's memory, nor hold it. Without a successful region_import():
	 * nothing to do. Cannot fail.
	 */
	void (*region_zero)(struct xi_local *local);

	/*
	 * --- Notification. Both are called only after publishing, with a full fence in between, when the peer's event
	 * word asks for it. Neither may wait; one that cannot be delivered because the peer has enough of them waiting
	 * may be dropped.
	 * wake(): wake whoever sleeps on `word`, which lies in our region (the peer sleeps on the same word of its
	 * read-only mapping, as long as it has the value that it last saw). NULL: the domain cannot, and the peer,
	 * being of the same domain, never asks; arm() then always uses the doorbell.
	 * ring(): ring the peer's doorbell; the peer's domain calls xi_local_rang(). Mandatory.
	 */
	void (*wake)(struct xi_local *local, uint32_t *word);
	void (*ring)(struct xi_local *local);

	/*
	 * --- The end. Mandatory.
	 * hang_up(): let the peer's domain notice, at once, that we are no longer there (it reports XI_LOCAL_HUNG_UP);
	 * stop all watches and timers of this connection. Called in close(), after region_zero(): for the peer it is
	 * also the sign that we let go of its memory.
	 */
	void (*hang_up)(struct xi_local *local);
	/* Report the end by xi_conn_lost(), with PEER_DIED or LOST and the domain's own words: it knows who the peer
	 * was. Called once, after everything that the peer published has been handed up: from process(), or from
	 * xi_local_gone() before frames flow. */
	void (*over)(struct xi_local *local, enum xi_local_end how);
	/*
	 * Free everything. If the peer provably let go of our region (it hung up after we did, or before; or died), the
	 * region is gone now. Else a record of it remains, charged to xi_conn_owner() as it was in region_make(),
	 * counted as XI_OBJECT_QUARANTINE and told by the transport's quarantine(), until the peer lets go or the loop
	 * is freed; it must not need an allocation. In a forked child only this process's share is freed, and no record
	 * is made.
	 */
	void (*fini)(struct xi_local *local);
};

/* Of one connection. First member of the domain's private state. All members are local.c's; zeroed by the core. */
struct xi_local {
	struct xi_conn *conn;
	const struct xi_domain *domain;
	struct xi_ring ring;
	const uint8_t *peer; /* the peer's region, while it is mapped */
	bool flowing;        /* import_region() is through, and close() was not called */
	bool over;           /* over() or xi_conn_lost() was called: nothing is received any more */
	bool grace_over;
	enum xi_local_end end; /* what the domain noticed */
	uint32_t drain;        /* after the end: frames that may still be handed up */
	uint32_t rings;        /* that the peer may still be heard to ring */
	uint32_t rings_asked;  /* event index of the last time that it was asked to */
	bool final;            /* the peer's dispatch index changes no more */
	bool imported, closed;
	struct xi_layout tx, rx;
	void *tables;     /* of the ring */
	uint8_t *landing; /* private memory for the peer's slots; NULL with MAP */
	size_t landing_bytes;
	struct xenidc_timer grace;
};

/* In dial() and adopt(), before anything else. */
void xi_local_start(struct xi_local *local, struct xi_conn *conn, const struct xi_domain *domain);
/* The doorbell was heard, once (the domain has silenced it). A peer may ring once each time it is asked to. */
void xi_local_rang(struct xi_local *local);
/* The other side is gone. Whatever it published before is handed up first. May be called several times; DIED outranks
 * HUNG_UP. After HUNG_UP alone the end is reported as soon as the peer has marked its region as closed, and otherwise
 * after XI_DEATH_GRACE, so that the news of its death, which travels another way, can arrive. */
void xi_local_gone(struct xi_local *local, enum xi_local_end how);

/* The ops of struct xi_transport that local.c carries out. */
#define XI_LOCAL_OPS                                                                                                   \
	.reserve = xi_local_reserve, .export_region = xi_local_export_region, .import_region = xi_local_import_region, \
	.tx_begin = xi_local_tx_begin, .tx_commit = xi_local_tx_commit, .flush = xi_local_flush,                       \
	.tx_unsent = xi_local_tx_unsent, .fetch = xi_local_fetch, .read = xi_local_read, .process = xi_local_process,  \
	.arm = xi_local_arm, .disarm = xi_local_disarm, .publish_dispatch = xi_local_publish_dispatch,                 \
	.peer_dispatched = xi_local_peer_dispatched, .close = xi_local_close, .fini = xi_local_fini,                   \
	.stats = xi_local_stats
/* The capabilities that come with them; PEER_DEATH and IDENTITY are the domain's to add. */
#define XI_LOCAL_CAPS (XI_CAP_MAP | XI_CAP_LAZY)

int xi_local_reserve(struct xi_conn *conn, const struct xi_layout *tx, const struct xi_layout *rx, uint32_t flags,
		     uint8_t **tx_base, uint8_t **rx_base, struct xenidc_error *err);
void xi_local_export_region(struct xi_conn *conn, struct xi_writer *w);
int xi_local_import_region(struct xi_conn *conn, struct xi_reader *r, uint8_t **rx_base, struct xenidc_error *err);
uint8_t *xi_local_tx_begin(struct xi_conn *conn);
uint64_t xi_local_tx_commit(struct xi_conn *conn, uint32_t length, const struct xi_seg *segs, uint32_t nsegs,
			    uint32_t tag);
void xi_local_flush(struct xi_conn *conn);
uint64_t xi_local_tx_unsent(struct xi_conn *conn);
int xi_local_fetch(struct xi_conn *conn, uint32_t slot, uint32_t offset, uint32_t length);
int xi_local_read(struct xi_conn *conn, uint32_t slot, uint32_t offset, void *to, uint32_t length);
unsigned xi_local_process(struct xi_conn *conn, unsigned budget);
int xi_local_arm(struct xi_conn *conn, bool futex_ok, struct xi_wait *wait);
void xi_local_disarm(struct xi_conn *conn);
void xi_local_publish_dispatch(struct xi_conn *conn, uint32_t sequence);
bool xi_local_peer_dispatched(struct xi_conn *conn, uint32_t *ret_sequence);
int xi_local_close(struct xi_conn *conn);
void xi_local_fini(struct xi_conn *conn);
void xi_local_stats(struct xi_conn *conn, struct xenidc_stats *stats);

#endif
