/* SPDX-License-Identifier: MIT */
/* Numbers that have words. */
#include <xenidc/xenidc.h>

#include "base/assert.h"

#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)

const char *xenidc_version(void)
{
	return TEXT(XENIDC_VERSION_MAJOR) "." TEXT(XENIDC_VERSION_MINOR) "." TEXT(XENIDC_VERSION_PATCH);
}

const char *xenidc_reason_name(enum xenidc_reason reason)
{
	switch (reason) {
#define NAME(name, number, text)                                                                                       \
	case XENIDC_REASON_##name:                                                                                     \
		return #name;
		XENIDC_REASONS(NAME)
#undef NAME
	}
	return "unknown"; /* a later version's */
}

const char *xenidc_reason_text(enum xenidc_reason reason)
{
	switch (reason) {
#define LINE(name, number, text)                                                                                       \
	case XENIDC_REASON_##name:                                                                                     \
		return text;
		XENIDC_REASONS(LINE)
#undef LINE
	}
	return "a reason that this version does not know";
}

const char *xenidc_state_name(enum xenidc_state state)
{
	static const char *const names[] = { "idle", "connecting", "connected", "disconnecting", "closed" };

	XI_ASSERT(state <= XENIDC_CLOSED);
	return names[state];
}
