/* SPDX-License-Identifier: MIT */
/* Doubly linked intrusive list with a sentinel. */
#ifndef XI_BASE_LIST_H
#define XI_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct xi_list {
	struct xi_list *prev, *next;
};

#define XI_CONTAINER(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static inline void xi_list_init(struct xi_list *l)
{
	l->prev = l->next = l;
}

static inline bool xi_list_empty(const struct xi_list *l)
{
	return l->next == l;
}

static inline void xi_list_append(struct xi_list *head, struct xi_list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

/* Safe on a node that was initialised and is in no list. */
static inline void xi_list_remove(struct xi_list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	xi_list_init(node);
}

#endif
