/* The load of the benchmark: many clients in one thread, and what they saw as one JSON object on stdout.
 *
 *     cc -O2 -Wall -Wextra -Werror -std=gnu11 -o load load.c && ./load --port 8001 --clients 32 --seconds 5
 *
 * Each client keeps one connection and asks again as soon as it has its answer; with `--open 1` all start at once and
 * each asks one time. What they ask for is an order to `upstream.c`, which stands behind whatever is measured. Streams
 * that it paces carry the time at which each frame left, so this knows each frame's delay and whether one is missing.
 *
 * It must cost much less than any gateway: an answer is looked at by lines, where `memchr` finds them, and parsed only
 * for the stamps of paced streams. `null` stands for what was not measured.
 */
#define _GNU_SOURCE
#include "http.h"
#include "question.h"
#include "samples.h"
#include "timers.h"

#define MAX_LINE (4UL << 20)
#define SHOWN 200           /* bytes of the first bad answer */
#define PAUSE (SECOND / 50) /* before a client whose connection failed tries again */
#ifndef READ_SIZE
#define READ_SIZE 131072 /* 1: a test of every cut */
#endif

struct client {
    int fd; /* -1: no connection */
    uint32_t watched;
    size_t written;          /* bytes of the request */
    struct held held;        /* a head or a line that has not come to its end */
    bool reused;             /* the connection has given an answer before */
    bool keep, in_body, first_seen, done;
    int status;
    struct body body;
    int64_t began, asked;    /* the request's first and last byte written */
    int64_t arrived, next;   /* when the last stamp came, and the number that must come */
    char start[SHOWN];       /* of the answer */
    size_t start_size, timer;
};

struct load {
    struct options options;
    struct held request;
    int poll;
    struct timers pauses;
    struct client *clients;
    int64_t now, from, end; /* what arrives from `from` to `end` counts */
    int64_t left;           /* clients that still have something to do */
    int64_t requests, errors, reconnects, events, lost, bytes;
    bool shown;
    struct samples latency, first, delay, gap;
};

static bool counts(const struct load *load)
{
    return load->now >= load->from && load->now < load->end;
}

static void sample(const struct load *load, struct samples *samples, int64_t nanoseconds)
{
    if (counts(load))
        add_sample(samples, nanoseconds);
}

/* Ends the measured time if as many answers were wanted as there are now. */
static void count_answers(struct load *load)
{
    if (load->options.requests && load->requests + load->errors >= load->options.requests)
        load->end = load->now < load->end ? load->now : load->end;
}

static void connect_and_ask(struct load *load, struct client *client);

static void drop_connection(struct client *client)
{
    close(client->fd);
    client->fd = -1;
    client->watched = 0;
}

/* Counts the answer as an error; says of the first one why. */
static void fail(struct load *load, const struct client *client, const char *why)
{
    load->errors += counts(load);
    count_answers(load);
    if (load->shown)
        return;
    load->shown = true;
    fprintf(stderr, "an answer was an error: %s; it began:\n%.*s\n", why, (int)client->start_size, client->start);
}

/* An error of the connection. The client pauses, or a server that is down would make this a busy loop. */
static void fail_connection(struct load *load, struct client *client, const char *why)
{
    fail(load, client, why);
    drop_connection(client);
    if (load->options.open)
        load->left--;
    else
        set_timer(&load->pauses, (struct timer){load->now + PAUSE, &client->timer, client});
}

/* The connection is over in the middle. A server may close one that it keeps alive, at the moment we ask: no error. */
static void lost_connection(struct load *load, struct client *client, const char *why)
{
    if (!client->reused || client->start_size) {
        fail_connection(load, client, why);
        return;
    }
    drop_connection(client);
    load->reconnects += counts(load);
    connect_and_ask(load, client);
}

/* Writes what is left of the request. */
static void write_request(struct load *load, struct client *client)
{
    const struct held *request = &load->request;
    ssize_t sent = send(client->fd, request->data + client->written, request->size - client->written, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR && errno != ENOTCONN) {
        lost_connection(load, client, strerror(errno));
        return;
    }
    client->written += sent > 0 ? (size_t)sent : 0;
    if (client->written == request->size)
        client->asked = now_ns();
    watch(load->poll, client->fd, &client->watched, EPOLLIN | (client->written < request->size ? EPOLLOUT : 0), client);
}

static void begin_question(struct load *load, struct client *client)
{
    client->written = client->held.size = client->start_size = 0;
    client->in_body = client->done = client->first_seen = false;
    client->body = (struct body){0};
    client->arrived = client->next = 0;
    write_request(load, client);
}

static void connect_and_ask(struct load *load, struct client *client)
{
    struct sockaddr_in address = loopback((long)load->options.port);
    client->reused = false;
    client->start_size = 0;
    client->fd = new_socket();
    if (connect(client->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        fail_connection(load, client, strerror(errno));
    else
        begin_question(load, client);
}

static void next_question(struct load *load, struct client *client)
{
    client->began = load->now;
    if (load->options.open || load->now >= load->end) {
        drop_connection(client);
        load->left--;
    } else if (client->keep && client->written == load->request.size) {
        client->reused = true;
        begin_question(load, client);
    } else {
        drop_connection(client);
        load->reconnects += counts(load);
        connect_and_ask(load, client);
    }
}

static void end_answer(struct load *load, struct client *client)
{
    const struct options *options = &load->options;
    char why[64];
    if (client->status != 200) {
        snprintf(why, sizeof why, "status %d", client->status);
        fail(load, client, why);
    } else if (options->stream && !client->done) {
        fail(load, client, "a stream without [DONE]");
    } else {
        if (options->stream && options->interval && counts(load))
            load->lost += options->events - client->next;
        load->requests += counts(load);
        sample(load, &load->latency, load->now - client->began);
        count_answers(load);
    }
    next_question(load, client);
}

/* The stamps of an event. A gateway may give the same text as two fields: the repetition tells nothing. */
static void read_stamps(struct load *load, struct client *client, const char *at, const char *end)
{
    int64_t before = client->next, count, left;
    while ((at = memchr(at, '#', (size_t)(end - at)))) {
        const char *stamp = read_number(++at, end, '@', &count);
        if (!stamp || !read_number(stamp, end, '.', &left))
            continue;
        if (count < client->next || count >= load->options.events) {
            load->lost += counts(load) && (count < before || count >= load->options.events);
            continue;
        }
        load->lost += counts(load) ? count - client->next : 0;
        client->next = count + 1;
        if (count == 0)
            sample(load, &load->first, load->now - client->asked);
        sample(load, &load->delay, load->now - left);
        if (client->arrived)
            sample(load, &load->gap, load->now - client->arrived);
        client->arrived = load->now;
    }
}

/* Says whether a field of an event has text of the answer. */
static bool holds_text(const char *at, size_t size, const char *field)
{
    const char *end = at + size;
    size_t length = strlen(field);
    while ((at = memmem(at, (size_t)(end - at), field, length))) {
        at += length;
        at += at < end && *at == ' ';
        if (end - at > 1 && at[0] == '"' && at[1] != '"')
            return true;
    }
    return false;
}

static void read_line(struct load *load, struct client *client, const char *line, size_t size)
{
    if (size < 5 || memcmp(line, "data:", 5) != 0)
        return;
    load->events += counts(load);
    const char *data = line + 5 + (size > 5 && line[5] == ' '), *end = line + size;
    if (end - data >= 6 && memcmp(data, "[DONE]", 6) == 0) {
        client->done = true;
    } else if (load->options.interval) {
        read_stamps(load, client, data, end);
    } else if (!client->first_seen) {
        client->first_seen = holds_text(data, (size_t)(end - data), "content\":") ||
                             holds_text(data, (size_t)(end - data), "\"reasoning\":");
        if (client->first_seen)
            sample(load, &load->first, load->now - client->asked);
    }
}

/* A piece of a stream, cut anywhere. Says whether its lines are of a sensible length. */
static bool read_piece(struct load *load, struct client *client, const char *piece, size_t size)
{
    struct held *held = &client->held;
    const char *end = piece + size, *newline;
    while ((newline = memchr(piece, '\n', (size_t)(end - piece)))) {
        if (held->size) {
            hold(held, piece, (size_t)(newline - piece));
            read_line(load, client, held->data, held->size);
            held->size = 0;
        } else {
            read_line(load, client, piece, (size_t)(newline - piece));
        }
        piece = newline + 1;
    }
    hold(held, piece, (size_t)(end - piece));
    return held->size <= MAX_LINE;
}

/* Reads a head that is whole; says why not if it cannot be. */
static const char *read_head(struct client *client, const char *head, size_t size)
{
    if (size < 16 || memcmp(head, "HTTP/1.", 7) != 0)
        return "no HTTP";
    client->status = atoi(head + 9);
    client->keep = head[7] == '1' && !header_says(head, size, "connection", "close");
    client->in_body = true;
    return body_start(&client->body, head, size) ? NULL : "a body of unknown length";
}

/* The head, as it comes. Gives how many of the bytes belong to it; it may be that all do, and it still is not whole. */
static size_t take_head(struct client *client, const char *data, size_t size, const char **why)
{
    struct held *held = &client->held;
    const char *end = held->size ? NULL : memmem(data, size, "\r\n\r\n", 4);
    size_t before = held->size, head_size;
    if (end) {
        *why = read_head(client, data, (size_t)(end + 4 - data));
        return (size_t)(end + 4 - data);
    }
    hold(held, data, size);
    end = memmem(held->data, held->size, "\r\n\r\n", 4);
    if (!end) {
        *why = held->size > MAX_HEAD ? "an endless head" : NULL;
        return size;
    }
    head_size = (size_t)(end + 4 - held->data);
    *why = read_head(client, held->data, head_size);
    held->size = 0;
    return head_size - before;
}

/* Takes the answer's bytes as they arrive. */
static void take(struct load *load, struct client *client, const char *data, size_t size)
{
    const char *piece, *why = NULL, *end = data + size;
    size_t piece_size;
    if (!client->in_body)
        data += take_head(client, data, size, &why);
    while (!why && data < end && client->body.state < BODY_DONE) {
        data += body_take(&client->body, data, (size_t)(end - data), &piece, &piece_size);
        if (piece_size && load->options.stream && !read_piece(load, client, piece, piece_size))
            why = "an endless line";
    }
    if (!why && client->body.state == BODY_BAD)
        why = "bad chunks";
    if (!why && client->body.state == BODY_DONE && data < end)
        why = "bytes behind the answer";
    if (why)
        fail_connection(load, client, why);
    else if (client->body.state == BODY_DONE)
        end_answer(load, client);
}

static void receive(struct load *load, struct client *client)
{
    static char bytes[READ_SIZE];
    ssize_t size = recv(client->fd, bytes, sizeof bytes, 0);
    load->now = now_ns();
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        lost_connection(load, client, size < 0 ? strerror(errno) : "the connection was closed");
        return;
    }
    load->bytes += counts(load) ? size : 0;
    size_t shown = SHOWN - client->start_size < (size_t)size ? SHOWN - client->start_size : (size_t)size;
    memcpy(client->start + client->start_size, bytes, shown);
    client->start_size += shown;
    take(load, client, bytes, (size_t)size);
}

static void run(struct load *load)
{
    struct epoll_event events[512];
    const struct options *options = &load->options;
    load->now = now_ns();
    load->from = load->now + (int64_t)(options->warmup * 1e9);
    load->end = load->from + (int64_t)(options->seconds * 1e9);
    for (int64_t place = 0; place < options->clients; place++) {
        load->clients[place].began = load->now = now_ns();
        connect_and_ask(load, &load->clients[place]);
    }
    while (load->left && load->now < load->end) {
        int64_t pause_ends = next_timer(&load->pauses);
        int count = wait_until(load->poll, events, 512, pause_ends < load->end ? pause_ends : load->end);
        load->now = now_ns();
        for (int place = 0; place < count; place++) {
            struct client *client = events[place].data.ptr;
            if (events[place].events & ~(uint32_t)EPOLLOUT)
                receive(load, client);
            else
                write_request(load, client);
        }
        while (next_timer(&load->pauses) <= load->now) {
            struct client *client = load->pauses.heap[1].owner;
            end_timer(&load->pauses, &client->timer);
            client->began = load->now;
            load->reconnects += counts(load);
            connect_and_ask(load, client);
        }
    }
    load->end = load->now < load->end ? load->now : load->end;
    if (options->open && load->left) {
        fprintf(stderr, "%lld clients have no answer yet\n", (long long)load->left);
        load->errors += load->left;
    }
}

static void print_load(struct load *load)
{
    int64_t measured = load->end > load->from ? load->end - load->from : 0;
    printf("{\"clients\":%lld,\"seconds\":%.6f,\"requests\":%lld,\"errors\":%lld,\"reconnects\":%lld,"
           "\"events\":%lld,\"lost\":%lld,\"bytes\":%lld",
           (long long)load->options.clients, (double)measured / 1e9, (long long)load->requests, (long long)load->errors,
           (long long)load->reconnects, (long long)load->events, (long long)load->lost, (long long)load->bytes);
    print_samples("latency_ms", &load->latency);
    print_samples("first_ms", &load->first);
    print_samples("delay_ms", &load->delay);
    print_samples("gap_ms", &load->gap);
    printf("}\n");
}

int main(int count, char **words)
{
    struct load load = {.options = read_options(count, words), .poll = epoll_create1(EPOLL_CLOEXEC)};
    prepare_process();
    load.request = build_request(&load.options);
    load.left = load.options.clients;
    load.clients = calloc((size_t)load.left, sizeof *load.clients);
    if (!load.clients)
        die("memory");
    run(&load);
    print_load(&load);
    for (int64_t place = 0; place < load.options.clients; place++)
        let_go(&load.clients[place].held);
    free(load.clients);
    free(load.pauses.heap);
    let_go(&load.request);
    return 0;
}
