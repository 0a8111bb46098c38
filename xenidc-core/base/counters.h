/* SPDX-License-Identifier: MIT */
/* Objects created and destroyed, by kind: equal at the end of every test. Not thread-safe: counted with atomics. */
#ifndef XI_BASE_COUNTERS_H
#define XI_BASE_COUNTERS_H

#include <stdint.h>

#define XI_OBJECTS(X) X(LOOP) X(CHANNEL) X(LISTENER) X(CONN) X(REGION) X(MAPPING) X(FD) X(QUARANTINE)

enum xi_object {
#define XI_OBJECT_ENUM(name) XI_OBJECT_##name,
	XI_OBJECTS(XI_OBJECT_ENUM)
#undef XI_OBJECT_ENUM
		XI_OBJECT_KINDS
};

void xi_created(enum xi_object kind);
void xi_destroyed(enum xi_object kind);
/* Objects alive now. */
int64_t xi_alive(enum xi_object kind);
const char *xi_object_name(enum xi_object kind);

#endif
