/* Timers for many at once: a binary heap, in which each owner knows its place, so that it can be moved or taken out. */
#ifndef BENCH_TIMERS_H
#define BENCH_TIMERS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct timer {
    int64_t due;
    size_t *place; /* the owner's: from 1, 0 if it has no timer */
    void *owner;
};

struct timers {
    struct timer *heap; /* [1] is due first */
    size_t count, room;
};

static inline void put_timer(struct timers *timers, size_t place, struct timer timer)
{
    timers->heap[place] = timer;
    *timer.place = place;
}

/* Puts a timer where it belongs, beginning at a place that is free. */
static inline void sift_timer(struct timers *timers, size_t place, struct timer timer)
{
    struct timer *heap = timers->heap;
    for (; place > 1 && heap[place / 2].due > timer.due; place /= 2)
        put_timer(timers, place, heap[place / 2]);
    for (size_t child; (child = place * 2) <= timers->count; place = child) {
        if (child < timers->count && heap[child + 1].due < heap[child].due)
            child++;
        if (heap[child].due >= timer.due)
            break;
        put_timer(timers, place, heap[child]);
    }
    put_timer(timers, place, timer);
}

/* Sets the owner's timer, or sets it anew. */
static inline void set_timer(struct timers *timers, struct timer timer)
{
    if (!*timer.place && ++timers->count >= timers->room) {
        timers->room = timers->room ? timers->room * 2 : 64;
        timers->heap = realloc(timers->heap, timers->room * sizeof *timers->heap);
        if (!timers->heap) {
            perror("memory");
            exit(1);
        }
    }
    sift_timer(timers, *timer.place ? *timer.place : timers->count, timer);
}

static inline void end_timer(struct timers *timers, size_t *place)
{
    size_t free_place = *place;
    if (!free_place)
        return;
    struct timer last = timers->heap[timers->count--];
    *place = 0;
    if (last.place != place)
        sift_timer(timers, free_place, last);
}

/* When the first is due; INT64_MAX if there is none. */
static inline int64_t next_timer(const struct timers *timers)
{
    return timers->count ? timers->heap[1].due : INT64_MAX;
}

#endif
