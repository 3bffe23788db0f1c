/* What the load asks for, and how long: its options, and the one request that all its clients send. */
#ifndef BENCH_QUESTION_H
#define BENCH_QUESTION_H

#include "http.h"

#define MAX_FILE (16UL << 20)

struct options {
    int64_t port, clients, requests, open, stream, events, interval, bytes, prompt_bytes;
    double seconds, warmup; /* no longer than `seconds`, even if a number of requests is said */
    const char *path, *key, *extra, *model;
};

static inline _Noreturn void complain(const char *what, const char *of)
{
    fprintf(stderr, "load: %s %s\n", what, of);
    exit(2);
}

static inline struct options read_options(int count, char **words)
{
    struct options options = {.port = -1, .clients = 1, .events = 4, .bytes = 6, .seconds = -1};
    options.path = "/v1/chat/completions";
    options.model = "MBZUAI-IFM/K2-Think";
    const struct {
        const char *name;
        int64_t *whole, most;
        double *part;
        const char **text;
    } rows[] = {
        {.name = "--port", .whole = &options.port, .most = 65535},
        {.name = "--clients", .whole = &options.clients, .most = 1000000},
        {.name = "--requests", .whole = &options.requests, .most = INT64_MAX},
        {.name = "--open", .whole = &options.open, .most = 1},
        {.name = "--stream", .whole = &options.stream, .most = 1},
        {.name = "--events", .whole = &options.events, .most = 100000},
        {.name = "--interval", .whole = &options.interval, .most = 999999999},
        {.name = "--bytes", .whole = &options.bytes, .most = 65536},
        {.name = "--prompt-bytes", .whole = &options.prompt_bytes, .most = 15 << 20},
        {.name = "--seconds", .part = &options.seconds},
        {.name = "--warmup", .part = &options.warmup},
        {.name = "--path", .text = &options.path},
        {.name = "--key", .text = &options.key},
        {.name = "--extra", .text = &options.extra},
        {.name = "--model", .text = &options.model},
    };
    size_t known = sizeof rows / sizeof *rows, row;
    for (int at = 1; at < count; at += 2) {
        for (row = 0; row < known && strcmp(words[at], rows[row].name) != 0; row++)
            ;
        if (row < known && rows[row].whole == &options.open && (at + 1 == count || words[at + 1][0] == '-')) {
            options.open = 1; /* the one that is clear without its value */
            at--;
            continue;
        }
        if (row == known || at + 1 == count)
            complain(row == known ? "there is no option" : "no value for", words[at]);
        char *value = words[at + 1], *end = value + strlen(value);
        if (rows[row].text)
            *rows[row].text = value;
        else if (rows[row].part)
            *rows[row].part = strtod(value, &end);
        else
            *rows[row].whole = strtoll(value, &end, 10);
        if (*end || end == value || (rows[row].part && !(*rows[row].part >= 0 && *rows[row].part <= 1e6)) ||
            (rows[row].whole && (*rows[row].whole < 0 || *rows[row].whole > rows[row].most)))
            complain("a bad value for", words[at]);
    }
    if (options.port < 1 || options.clients < 1)
        complain("needed:", "--port, and at least one client");
    if (options.seconds < 0)
        options.seconds = options.requests || options.open ? 3600 : 5;
    return options;
}

/* Adds what a file holds, without the white space around it. */
static inline void add_file(struct held *held, const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        die(path);
    struct held text = {0};
    make_room(&text, MAX_FILE);
    text.size = fread(text.data, 1, MAX_FILE, file);
    fclose(file);
    size_t from = 0;
    while (text.size && isspace((unsigned char)text.data[text.size - 1]))
        text.size--;
    while (from < text.size && isspace((unsigned char)text.data[from]))
        from++;
    hold(held, text.data + from, text.size - from);
    let_go(&text);
}

/* The key stands in a file because everybody on the machine can read a process's arguments. */
static inline struct held build_request(const struct options *options)
{
    static const char filler[] = "plain words that say nothing ";
    struct held body = {0}, request = {0};
    char part[512];
    add(&body, "{\"model\":\"");
    add(&body, options->model);
    add(&body, options->stream ? "\",\"stream\":true," : "\",\"stream\":false,");
    if (options->extra) {
        add_file(&body, options->extra);
        add(&body, ",");
    }
    snprintf(part, sizeof part, "\"messages\":[{\"role\":\"user\",\"content\":\"Say something. bench:%lld:%lld:%lld ",
             (long long)options->events, (long long)options->interval, (long long)options->bytes);
    add(&body, part);
    for (int64_t at = 0; at < options->prompt_bytes; at++)
        hold(&body, &filler[(size_t)at % (sizeof filler - 1)], 1);
    add(&body, "\"}]}");
    add(&request, "POST ");
    add(&request, options->path);
    add(&request, " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n");
    snprintf(part, sizeof part, "Content-Length: %zu\r\n", body.size);
    add(&request, part);
    if (options->key) {
        add(&request, "Authorization: Bearer ");
        add_file(&request, options->key);
        add(&request, "\r\n");
    }
    add(&request, "\r\n");
    hold(&request, body.data, body.size);
    let_go(&body);
    return request;
}

#endif
