/* SPDX-License-Identifier: MIT */
/* Budgets inside the library: what two of them have in common, and the memory layout that follows. Pure. */
#ifndef XI_CORE_BUDGET_H
#define XI_CORE_BUDGET_H

#include <stdbool.h>

#include <xenidc/transport.h>

/* The same budget as the other side sees it: out and in change places. */
struct xenidc_budget xi_budget_mirror(const struct xenidc_budget *budget);

/*
 * What holds on a channel whose ends want `ours` and `theirs` (mirrored, so that both speak from our side). For slots,
 * those of the lender hold, each as long as the holder has a place left that is at least as large. Both completed.
 */
struct xenidc_budget xi_budget_meet(const struct xenidc_budget *ours, const struct xenidc_budget *theirs);

/* Equal in all that counts? */
bool xi_budget_equal(const struct xenidc_budget *a, const struct xenidc_budget *b);

/* Slots in a set of classes. */
uint32_t xi_classes_slots(const struct xenidc_slot_class classes[XENIDC_CLASSES_MAX]);

/* Our tx layout under this negotiated budget; that of the peer (our rx) is the one of the mirrored budget. */
void xi_layout_make(const struct xenidc_budget *budget, struct xi_layout *ret);

#endif
