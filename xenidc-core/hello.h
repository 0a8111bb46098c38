/* SPDX-License-Identifier: MIT */
/*
 * Connect messages ("hellos"): CONNECT -> ACCEPT or REFUSE -> READY. The same bytes over every transport.
 *
 *     0  "XIDC"        4  u8 kind, u8 zero     6  u16 major_min   8  u16 major_max   10 u16 minor (of major_max)
 *     12 u32 length of the whole message       16 u64 features    24 u32 CRC32C of the whole, this field as zero
 *     28 u32 zero      32 sections: u16 type, u16 length, bytes; unknown types are skipped
 *
 * ACCEPT and READY carry the version chosen: major_min = major_max, and the smaller minor.
 */
#ifndef XI_CORE_HELLO_H
#define XI_CORE_HELLO_H

#include <stdbool.h>
#include <stdint.h>

#include <xenidc/xenidc.h>

#include "base/limits.h"

#define XI_PROTOCOL_MAJOR_MIN 1
#define XI_PROTOCOL_MAJOR 1
#define XI_PROTOCOL_MINOR 0

#define XI_HELLO_HEAD 32u

enum xi_hello_kind { XI_HELLO_CONNECT = 1, XI_HELLO_ACCEPT = 2, XI_HELLO_REFUSE = 3, XI_HELLO_READY = 4 };

enum xi_hello_section {
	XI_SECTION_LIMITS = 1,    /* CONNECT, ACCEPT: a budget as its sender sees it; hello.c has the bytes */
	XI_SECTION_SESSION = 2,   /* CONNECT, ACCEPT */
	XI_SECTION_SERVICE = 3,   /* CONNECT: text */
	XI_SECTION_AUTH = 4,      /* CONNECT: bytes */
	XI_SECTION_TRANSPORT = 5, /* ACCEPT, READY: what export_region() wrote */
	XI_SECTION_REASON = 6,    /* REFUSE: u16 reason, text */
};

/* Feature bits: asked for in CONNECT, granted in ACCEPT. */
#define XI_FEATURE_MAP 1ull
#define XI_FEATURE_DIGEST 2ull

/* Carried from the first version on, so that resuming a session breaks nothing later. All zero: a new session. */
struct xi_session {
	uint64_t id, secret;
	uint32_t last_received; /* sequence of the last request received from the other side */
	uint32_t last_consumed; /* sequence of the last request whose reply was consumed */
};

struct xi_hello {
	uint8_t kind;
	uint16_t major_min, major_max, minor;
	uint64_t features;
	struct xenidc_budget budget; /* completed; sizes, counts and limits are within base/limits.h */
	struct xi_session session;
	uint32_t incarnation;
	char service[XENIDC_SERVICE_MAX + 1]; /* as received: not made printable */
	uint8_t auth[XI_AUTH_MAX];
	uint32_t auth_len;
	const uint8_t *transport; /* leads into the message that was parsed */
	uint32_t transport_len;
	uint16_t reason;
	char text[XI_REASON_TEXT_MAX + 1];
};

/*
 * Length of the message that starts with these bytes: 0 if more than `have` are needed to tell, -EPROTO if it is none.
 * At most XI_HELLO_MAX.
 */
int xi_hello_length(const uint8_t *bytes, size_t have);

/* Take a message apart. 0, or -EPROTO and a constant text. */
int xi_hello_parse(const uint8_t *bytes, uint32_t length, struct xi_hello *ret, const char **ret_why);

/* Write a message; `to` has XI_HELLO_MAX bytes. Returns its length. */
uint32_t xi_hello_put(uint8_t *to, const struct xi_hello *hello);

/* Set the length and CRC of a message at `to` whose bytes were changed; for tests as well. */
void xi_hello_seal(uint8_t *to, uint32_t length);

#endif
