/* SPDX-License-Identifier: MIT */
/* What happens when one of our own invariants does not hold. */
#include "assert.h"

#include <stdio.h>
#include <stdlib.h>

void xi_assert_failed(const char *condition, const char *file, int line)
{
	fprintf(stderr, "xenidc: internal error, please report it: '%s' does not hold (%s:%d)\n", condition, file,
		line);
	abort();
}
