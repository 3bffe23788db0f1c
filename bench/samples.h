/* Milliseconds as they are measured, and their percentiles.
 *
 * Exact up to 4 million samples; beyond that they stand for a random choice of as many (a reservoir). The maximum is
 * always the true one.
 */
#ifndef BENCH_SAMPLES_H
#define BENCH_SAMPLES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_SAMPLES (4UL << 20)

struct samples {
    float *values, most;
    size_t count, room;
    uint64_t seen, random;
};

static inline void add_sample(struct samples *samples, int64_t nanoseconds)
{
    float value = (float)((double)nanoseconds / 1e6);
    if (samples->seen++ == 0 || value > samples->most)
        samples->most = value;
    if (samples->count == samples->room && samples->room < MAX_SAMPLES) {
        samples->room = samples->room ? samples->room * 2 : 4096;
        samples->values = realloc(samples->values, samples->room * sizeof *samples->values);
        if (!samples->values) {
            perror("memory");
            exit(1);
        }
    }
    if (samples->count < samples->room) {
        samples->values[samples->count++] = value;
        return;
    }
    if (samples->random == 0)
        samples->random = UINT64_C(0x9e3779b97f4a7c15);
    samples->random ^= samples->random << 13; /* xorshift */
    samples->random ^= samples->random >> 7;
    samples->random ^= samples->random << 17;
    uint64_t place = samples->random % samples->seen;
    if (place < samples->count)
        samples->values[place] = value;
}

static inline int compare_samples(const void *one, const void *other)
{
    float a = *(const float *)one, b = *(const float *)other;
    return (a > b) - (a < b);
}

/* The nearest rank: a value that was measured, below or at which the share of all values lies. */
static inline double percentile(const struct samples *samples, size_t percent)
{
    return (double)samples->values[(samples->count * percent + 99) / 100 - 1];
}

/* Prints them as a member of a JSON object, and gives them up; `null` if nothing was measured. */
static inline void print_samples(const char *name, struct samples *samples)
{
    printf(",\n\"%s\":", name);
    if (samples->count == 0) {
        printf("null");
        return;
    }
    qsort(samples->values, samples->count, sizeof *samples->values, compare_samples);
    printf("{\"p50\":%.4f,\"p90\":%.4f,\"p99\":%.4f,\"max\":%.4f}", percentile(samples, 50), percentile(samples, 90),
           percentile(samples, 99), (double)samples->most);
    free(samples->values);
    *samples = (struct samples){0};
}

#endif
