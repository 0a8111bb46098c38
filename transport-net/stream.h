/* SPDX-License-Identifier: MIT */
/*
 * The byte-stream engine: everything that a transport over a stream of bytes has to do, but moving the bytes.
 *
 *	core  <-- transport.h -->  stream engine  <-- struct xi_pipe -->  provider (tcp, the simulator)
 *
 * A provider has a private state whose FIRST member is a struct xi_stream, so that xi_conn_priv() gives both, and puts
 * the functions below straight into its struct xi_transport where their signatures match. It dials, listens, adopts and
 * identifies by itself; once bytes can flow it calls xi_stream_start(). Its close() calls xi_stream_close() and its
 * fini() calls xi_stream_fini(), each before it lets go of the pipe.
 *
 * On the wire: connect messages travel bare, until import_region() was called on that side; then come frames, each
 * behind a prefix of 12 bytes {u32 length of the frame, u32 crc, u32 digest}, little endian:
 *   - crc is CRC32C over length, digest and the whole frame; of a DATA frame only over the first 20 bytes of it.
 *   - A DATA frame is a common header with kind 8, len 8, id = tag, then {u32 slot, u32 offset}, then 1..XI_BULK_MAX
 *     bytes of data, so that length is 20 + bytes of data. digest is the CRC32C of the data if digests were
 *     negotiated, else 0.
 *   - All others: length = 12 + len of the common header, at most frame_max; digest is 0.
 *
 * Sending: frames go in the order of their commits; the data that a frame announced follow it in DATA frames, round
 * robin over frames with data left; whatever frame waits goes before the next DATA frame (but after XI_BULK_MAX bytes
 * of frames one DATA frame has its turn). Nothing is given to the pipe more than once; what it does not take stays
 * here, where it can be retracted, dropped or overtaken.
 *
 * Receiving: frames are parsed in a staging buffer; bulk is received into its landing slot directly, but for the first
 * bytes that came along with its header. Where DATA frames of one slot follow each other, some are received with one
 * call, on the guess that this goes on. A connect message is read to its end and no byte further.
 */
#ifndef XI_NET_STREAM_H
#define XI_NET_STREAM_H

#include <sys/uio.h>

#include <xenidc/transport.h>

#include "xenidc-core/base/limits.h"

struct xi_stream;

/* What a provider gives to the engine. No op may block, allocate, or call back into the engine or the core. */
struct xi_pipe {
	/*
	 * Take some bytes from the front of the gather; n >= 1, not empty in sum. Returns how many were taken, at least
	 * one; less than all means that it takes no more now, as -EAGAIN does: xi_stream_writable() is to be called
	 * when that may have changed (see wait()). -ENOBUFS: short of memory; the engine tries again by itself, by
	 * timer. Any other negative errno: the way out is broken for good; it is not called again.
	 */
	ssize_t (*send)(struct xi_stream *s, const struct iovec *iov, unsigned n);
	/*
	 * Bring some bytes into the scatter; n >= 1, not empty in sum. Returns how many, at least one; 0: the end of
	 * the stream; -EAGAIN: nothing is there now; any other negative errno: broken for good. Fewer bytes than asked
	 * for means that probably nothing more is there now (the engine then does not ask again in this process()).
	 */
	ssize_t (*recv)(struct xi_stream *s, const struct iovec *iov, unsigned n);
	/* The engine waits (true) for room to send, or no longer does (false). Called only when it changes. */
	void (*wait)(struct xi_stream *s, bool for_room);
	/*
	 * The stream is over: `error` is what recv() or send() gave, 0 for an end in order. Called once, from
	 * process(), after everything that was received has been handed up. The provider calls xi_conn_lost() with LOST
	 * and its own words: it knows who the peer was.
	 */
	void (*over)(struct xi_stream *s, int error);
};

#define XI_STREAM_PREFIX 12u
#define XI_STREAM_HEADER 12u                   /* the common header of frames */
#define XI_STREAM_DATA (XI_STREAM_HEADER + 8u) /* of a DATA frame, before the data */
/* DATA frames prepared at a time: many make a send() cheaper (measured: 4 cost 4 % more, 16 save 4 %), few let the turn
 * of a newcomer come sooner. */
#define XI_STREAM_CHUNKS 8u
#define XI_STREAM_HELLOS 3u /* connect messages sent by one side of a connection */
/* DATA frames that may be received ahead of the parsing of their heads. */
#define XI_STREAM_GUESSES 3u
/* Pieces of one receive: bulk under way, heads and data guessed, staging. */
#define XI_STREAM_SCATTER (2u + 2u * XI_STREAM_GUESSES)

/* A DATA frame that is ready to go. */
struct xi_stream_chunk {
	uint8_t head[XI_STREAM_PREFIX + XI_STREAM_DATA];
	uint32_t length; /* of the data */
	uint32_t tag;
	uint64_t position; /* of the frame that announced the data */
	const uint8_t *data;
};

struct xi_stream_entry; /* a committed frame */
struct xi_stream_flow;  /* what is left of one tx slot's data */

/* All members are the engine's. Zeroed by the core. */
struct xi_stream {
	/* What tells whether there is anything to do, in one cache line: a loop may ask hundreds of streams. */
	struct xi_conn *conn;
	const struct xi_pipe *pipe; /* NULL: not started */
	bool framed;                /* import_region() was called */
	bool closed;                /* close() was called */
	bool over;                  /* nothing is received any more: it ended, or an upcall said so */
	bool digest;
	bool waiting;      /* for room to send */
	bool waiting_told; /* what pipe->wait() was told */
	bool starved;      /* the kernel had no memory: the timer runs */
	bool more;         /* process() left something behind that is at hand */
	int tx_error;      /* send() failed for good */
	uint32_t hello_sent, hello_end;
	uint32_t entry_count;           /* frames committed and not gone */
	uint32_t chunk_count;           /* DATA frames prepared */
	uint32_t turn_first, turn_last; /* flows whose turn comes: slot + 1; 0: none */
	uint64_t sends;                 /* calls of send() that took something */

	/* Frames to send: buffers of `stride` bytes, a stack of those that are free, and a queue of the committed. */
	uint8_t *buffers;
	uint32_t stride;
	uint32_t *free_buffers, free_count;
	uint32_t begun;                  /* the buffer that tx_begin() gave out, + 1 */
	struct xi_stream_entry *entries; /* a ring of layout.frames */
	uint32_t entry_first;
	uint32_t entry_sent; /* bytes of the first entry that have left */
	uint64_t position;   /* of the last commit */
	uint64_t announced;  /* of the last frame of which a byte has left */
	uint32_t frame_run;  /* bytes of frames since the last DATA frame */

	/* Received bytes not parsed yet: staging[at..end). `ahead`: how much to ask for. */
	uint8_t *staging;
	uint32_t at, end, ahead;
	/* Bulk under way: `bulk_left` of `bulk_length` bytes are still to come, to `landing`. */
	uint8_t *landing;
	uint32_t bulk_left, bulk_length, bulk_slot, bulk_offset, bulk_digest;
	bool bulk_more; /* its slot expects more behind it */
	/* Guesses: that the next DATA frames continue the slot, as many as did lately. Their heads are received here,
	 * their data where they belong if the guess is right, and what follows to staging[tail]. */
	uint32_t streak, guesses, tail;
	uint32_t guessed[XI_STREAM_GUESSES]; /* bytes of data */
	uint8_t heads[XI_STREAM_GUESSES][XI_STREAM_PREFIX + XI_STREAM_DATA];

	/* Data to send. Flows are indexed by slot; those of frames that were gathered wait for their turn in a ring. */
	struct xi_stream_flow *flows;
	struct xi_stream_chunk chunks[XI_STREAM_CHUNKS];
	uint32_t chunk_first;
	uint32_t chunk_sent; /* bytes of the first chunk that have left, head included */
	struct xenidc_timer retry;

	/* Memory: three mappings, made by reserve(). */
	uint8_t *tx_map, *rx_map, *work;
	size_t work_bytes;
	struct xi_layout tx, rx;

	/* Connect messages. */
	uint8_t hello_in[XI_HELLO_MAX];
	uint32_t hello_have;
	uint8_t hello_out[XI_STREAM_HELLOS * XI_HELLO_MAX];
};

/* Bytes can flow from now on. Once. Connect messages given to hello() before are sent by the next process(). */
void xi_stream_start(struct xi_stream *s, struct xi_conn *conn, const struct xi_pipe *pipe);
/* Room to send may be there again. Makes no upcall. */
void xi_stream_writable(struct xi_stream *s);
/*
 * For a provider that serves many streams with one call: what recv() and send() will be asked next, if nothing else
 * happens to the stream before. The provider makes the calls, keeps the results, and gives them when it is asked.
 * xi_stream_want(): pieces of the scatter; 0: nothing can be received so now. xi_stream_offer(): pieces of
 * the gather; 0: nothing to send, or more pieces than `most`.
 */
unsigned xi_stream_want(struct xi_stream *s, struct iovec iov[XI_STREAM_SCATTER]);
unsigned xi_stream_offer(struct xi_stream *s, struct iovec *iov, unsigned most);
/* Is there something to do that does not depend on what arrives? Then process() is to be called. */
bool xi_stream_busy(const struct xi_stream *s);
/*
 * Stop: frames that wait are offered to the pipe once more (after the rest of a DATA frame that had begun; no new one),
 * then nothing is sent or received any more and no upcall is made. True: all frames were taken.
 */
bool xi_stream_close(struct xi_stream *s);
/* Free what reserve() reserved. Safe in every state. */
void xi_stream_fini(struct xi_stream *s);

/* Ops of struct xi_transport, ready to use. Memory from tx_begin() is not aligned to anything. */
void xi_stream_hello(struct xi_conn *conn, const void *bytes, uint32_t length);
int xi_stream_reserve(struct xi_conn *conn, const struct xi_layout *tx, const struct xi_layout *rx, uint32_t flags,
		      uint8_t **tx_base, uint8_t **rx_base, struct xenidc_error *err);
void xi_stream_export_region(struct xi_conn *conn, struct xi_writer *w);
int xi_stream_import_region(struct xi_conn *conn, struct xi_reader *r, uint8_t **rx_base, struct xenidc_error *err);
uint8_t *xi_stream_tx_begin(struct xi_conn *conn);
uint64_t xi_stream_tx_commit(struct xi_conn *conn, uint32_t length, const struct xi_seg *segs, uint32_t nsegs,
			     uint32_t tag);
void xi_stream_flush(struct xi_conn *conn);
uint64_t xi_stream_tx_unsent(struct xi_conn *conn);
bool xi_stream_retract(struct xi_conn *conn, uint64_t position);
void xi_stream_drop_segs(struct xi_conn *conn, uint32_t tag);
unsigned xi_stream_process(struct xi_conn *conn, unsigned budget);
int xi_stream_arm(struct xi_conn *conn, bool futex_ok, struct xi_wait *wait);
void xi_stream_disarm(struct xi_conn *conn);
void xi_stream_stats(struct xi_conn *conn, struct xenidc_stats *stats);

#endif
