/* SPDX-License-Identifier: MIT */
/*
 * Every limit on something that a peer, or a client's mistake, can make grow; each with its reason.
 */
#ifndef XI_BASE_LIMITS_H
#define XI_BASE_LIMITS_H

/* An id is index + generation in 16 bits each; 4096 leaves the ring of frames (a few for each) below 16,384 slots. */
#define XI_REQUESTS_MAX 4096
#define XI_MESSAGES_MAX 4096
/* Inline payload is copied; what is larger belongs into a buffer. 16 KiB keeps a frame in L1 and below a u16 length. */
#define XI_PAYLOAD_MAX 16384
/* A frame's references are parsed and checked one by one, in bounded time. */
#define XI_REFS_MAX 64
/* One slot: isochronous and bulk URBs of the USB client reach 4 MiB on SuperSpeed bursts; 16 MiB leaves room. */
#define XI_SLOT_SIZE_MAX (16u << 20)
/* Slot numbers are 15 bits on the wire, the 16th says IN. */
#define XI_SLOTS_MAX 16384
/* One direction of one channel; beyond this a typing error is more likely than a need. */
#define XI_REGION_MAX (1ull << 30)
/* A frame: header, request sequence, references, payload (XI_PAYLOAD_MAX + 64 * 12 + 16 < 20480). */
#define XI_FRAME_MAX 20480
/* A connect message: fixed head, four sections of bounded size. Fits one xenstore value (4096 bytes less a header). */
#define XI_HELLO_MAX 2048
/* Authentication blob, and the transport's own section of a connect message. */
#define XI_AUTH_MAX 256
#define XI_EXPORT_MAX 512
/* Reason text in REFUSE and DISCONNECT. */
#define XI_REASON_TEXT_MAX 160
/* Bulk on byte streams is cut into frames of at most this, so that control waits behind at most one of them. */
#define XI_BULK_MAX 65536
/* Default of a listener: channels, half-open ones, bytes. */
#define XI_LISTENER_CHANNELS 256
#define XI_LISTENER_HALF_OPEN 64
#define XI_LISTENER_BYTES (1ull << 30)
/* Regions that one channel may have in quarantine before a reconnect is refused (LIMIT). */
#define XI_QUARANTINE_MAX 2
/* Frames handled for one channel before the next one's turn. */
#define XI_PROCESS_BUDGET 64
/* Timers a loop: two a channel, some for clients. A fixed heap: starting one never allocates. */
#define XI_TIMERS_MAX 4096
/* Log lines a second and process; the rest is counted. */
#define XI_LOG_RATE 10
/* Page size of the layout on the wire, whatever the host's. */
#define XI_PAGE 4096u
/* A cache line, and so the slot of a one-line message. */
#define XI_LINE 64u

#endif
