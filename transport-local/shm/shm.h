/* SPDX-License-Identifier: MIT */
/*
 * shm - two processes of one machine. They meet at a socket (SOCK_SEQPACKET) in a directory that only its owner can
 * enter. On it travel the connect messages, a packet each, and with ACCEPT and READY one descriptor, a sealed memfd
 * with the sender's region; later it is the doorbell (packets of one byte), and its end is the news that the other side
 * hung up. The death of the other process comes by a pidfd.
 *
 *     shm.c     the transport and its listener       place.c   where the socket stands, and whose it is
 *     link.c    what connects two processes          region.c  memfds: ours and the peer's
 */
#ifndef XI_LOCAL_SHM_H
#define XI_LOCAL_SHM_H

#include <sys/types.h>
#include <sys/un.h>

#include "transport-local/domain.h"
#include "xenidc-core/base/list.h"
#include "xenidc-core/loop.h"

#define XI_SHM_NAME_MAX 64

struct xi_shm;

/*
 * The link of a connection. It outlives it while the peer may still see our region: then `shm` is NULL and the link
 * is the record of the quarantine. Descriptors are stored plus one, so that zero means none.
 */
struct xi_shm_link {
	struct xi_shm *shm;
	xenidc_loop *loop;
	int socket, process;              /* rendezvous socket; pidfd of the peer */
	struct xenidc_watch heard, ended; /* of these two */
	struct xenidc_timer timer;        /* dialling */
	struct sockaddr_un at;            /* dialling: where to */
	int32_t pid;
	uint32_t uid, gid;
	bool known;    /* the three above come from the kernel */
	bool accepted; /* or dialled */
	bool reset;    /* the socket said so, which it does once before what is left in it */
	bool told;     /* the end was reported */
	bool let_go;   /* the peer has let go of our region: it hung up, or died */
	int error;     /* adopt() failed with this */

	/* Our region. */
	uint8_t *base;
	uint64_t bytes;
	int memfd;
	bool attach; /* it has to go with the next connect message */
	bool lent;   /* it was sent */
	/* The peer's. */
	const uint8_t *peer_base;
	uint64_t peer_bytes;
	int peer_memfd; /* received, not mapped yet */

	/* Quarantine. */
	const void *owner;
	struct xi_list quarantined;
	struct xi_member member;
};

struct xi_shm {
	struct xi_local local; /* first */
	struct xi_shm_link *link;
	char name[XI_SHM_NAME_MAX + 1]; /* dialled: its name */
};

#ifdef XI_TESTING
/* For a test's domain that is shm but in some points. */
extern const struct xi_domain *const xi_shm_domain;
#endif

/* --- place.c */
/* "NAME": well formed? */
int xi_shm_check_name(const char *name, struct xenidc_error *err);
/* Where the socket of a name stands. The directory is verified; `create`: and made if it is missing. -EACCES,
 * -EADDRNOTAVAIL, -ENAMETOOLONG. */
int xi_shm_place(const char *name, bool create, struct sockaddr_un *ret, struct xenidc_error *err);

/* A socket file of ours, guarded by a lock: whoever holds that may replace the file. */
struct xi_shm_seat {
	struct sockaddr_un at;
	int lock; /* plus one */
	bool bound;
	dev_t device;
	ino_t inode;
};
/* Bind `socket` to the place of `name`. -EADDRINUSE: somebody lives there. On failure nothing is left. */
int xi_shm_seat_take(struct xi_shm_seat *seat, const char *name, int socket, struct xenidc_error *err);
/* Remove the file if it is still ours (not in a forked child, whose parent goes on), and let go. */
void xi_shm_seat_leave(struct xi_shm_seat *seat, bool forked);

/* --- sweep.c */
/* Remove what processes that were killed left beside this place: socket files, and their locks. */
void xi_shm_sweep(const struct sockaddr_un *at);

/* --- link.c */
struct xi_shm_link *xi_shm_link_new(xenidc_loop *loop, int socket,
				    bool accepted); /* NULL; the socket stays the caller's */
void xi_shm_link_free(struct xi_shm_link *link);
/* Start to connect, and then to listen to the peer; the upcalls follow. -ENOSPC. */
int xi_shm_link_dial(struct xi_shm_link *link);
void xi_shm_link_adopt(struct xi_shm_link *link);
void xi_shm_link_hello(struct xi_shm_link *link, const void *bytes, uint32_t length);
void xi_shm_link_ring(struct xi_shm_link *link);
void xi_shm_link_hang_up(struct xi_shm_link *link);
/* No connection has it any more: free it, or keep it as a record while the peer may see our region. */
void xi_shm_link_leave(struct xi_shm_link *link);
void xi_shm_quarantine(const void *owner, uint64_t *bytes, uint32_t *regions);

/* --- region.c */
int xi_shm_region_make(struct xi_shm_link *link, uint64_t bytes, struct xenidc_error *err);
int xi_shm_region_import(struct xi_shm_link *link, uint64_t bytes, struct xenidc_error *err);
void xi_shm_region_zero(struct xi_shm_link *link);
/* Unmap and close both. */
void xi_shm_region_drop(struct xi_shm_link *link);

#endif
