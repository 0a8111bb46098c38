/* SPDX-License-Identifier: MIT */
/* Assertions on our own invariants. Never on anything that a peer can influence. */
#ifndef XI_BASE_ASSERT_H
#define XI_BASE_ASSERT_H

/* Prints the condition and its place to stderr, then aborts. */
_Noreturn void xi_assert_failed(const char *condition, const char *file, int line);

/* Always on: cheap, and worth stopping for. Counting branches that are taken, the failing side of an assertion is
 * none. */
#ifdef XI_COVERAGE
#define XI_ASSERT(condition) ((void)sizeof(condition))
#else
#define XI_ASSERT(condition) ((condition) ? (void)0 : xi_assert_failed(#condition, __FILE__, __LINE__))
#endif

/* Debug and test builds only: on hot paths. */
#ifdef XI_DEBUG
#define XI_DASSERT(condition) XI_ASSERT(condition)
#else
#define XI_DASSERT(condition) ((void)sizeof(condition))
#endif

#define XI_STATIC_ASSERT(condition, text) _Static_assert(condition, text)

#endif
