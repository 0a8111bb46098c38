/* SPDX-License-Identifier: MIT */
/*
 * What PROTOCOL.md says about one frame that arrives in one known state of a connection: the state that
 * model_prepare() brings about. Shares nothing with the library.
 */
#ifndef HOSTILE_MODEL_H
#define HOSTILE_MODEL_H

#include "link.h"

enum verdict {
	LEGAL,    /* the connection goes on */
	ENDS,     /* a DISCONNECT in order */
	PROTOCOL, /* a violation */
	DAMAGED,  /* streams: a checksum does not match */
};
const char *verdict_name(enum verdict verdict);

/*
 * The connection is up, the target has made one request (an OUT and an IN reference of 100 bytes) and sent one message.
 * We have made one request, index 0, which its handler holds: OUT slot 0 and IN slot 0 are lent.
 */
void model_prepare(struct link *l);
/* The frames to start from, one of each kind, all legal in that state. False: there is no i-th. */
bool model_base(const struct link *l, unsigned i, struct raw_bytes *frame, const char **ret_name);
/* What has to come of this frame. */
enum verdict model_judge(const struct link *l, const struct raw_bytes *frame);

#endif
