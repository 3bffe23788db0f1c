/* What both programs of the benchmark need of HTTP/1.1, of sockets and of the clock.
 *
 * Everything is `static inline`, so each program is still one file to compile. Nothing but `wait_until` blocks, nothing
 * keeps state of its own. 64-bit Linux only.
 */
#ifndef BENCH_HTTP_H
#define BENCH_HTTP_H

#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)
#define MAX_HEAD 65536 /* bytes of a request's or an answer's head */

static inline _Noreturn void die(const char *what)
{
    perror(what);
    exit(1);
}

static inline int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

/* Bytes that grow at the end; the memory stays for the next use. */
struct held {
    char *data;
    size_t size, room;
};

static inline void make_room(struct held *held, size_t more)
{
    if (held->room - held->size >= more)
        return;
    size_t room = held->room ? held->room : 512;
    while (room < held->size + more)
        room *= 2;
    held->data = realloc(held->data, room);
    if (!held->data)
        die("memory");
    held->room = room;
}

static inline void hold(struct held *held, const char *data, size_t size)
{
    if (size == 0)
        return;
    make_room(held, size);
    memcpy(held->data + held->size, data, size);
    held->size += size;
}

static inline void add(struct held *held, const char *text)
{
    hold(held, text, strlen(text));
}

static inline void let_go(struct held *held)
{
    free(held->data);
    *held = (struct held){0};
}

/* Reads digits and the character that must follow them; gives what stands behind it, NULL if it is not so. */
static inline const char *read_number(const char *at, const char *end, char behind, int64_t *value)
{
    const char *digits = at;
    for (*value = 0; at < end && isdigit((unsigned char)*at) && at - digits < 18; at++)
        *value = *value * 10 + (*at - '0');
    return at > digits && at < end && *at == behind ? at + 1 : NULL;
}

/* The value of a header in a head that ends with an empty line; NULL if there is none. */
static inline const char *header(const char *head, size_t size, const char *name, size_t *length)
{
    size_t wanted = strlen(name);
    const char *end = head + size, *line = memchr(head, '\n', size);
    while (line && (size_t)(end - ++line) > wanted) {
        const char *next = memchr(line, '\n', end - line);
        if (line[wanted] == ':' && strncasecmp(line, name, wanted) == 0) {
            const char *value = line + wanted + 1;
            while (*value == ' ' || *value == '\t')
                value++;
            *length = next > value ? next - value : 0;
            return value;
        }
        line = next;
    }
    return NULL;
}

static inline bool header_says(const char *head, size_t size, const char *name, const char *word)
{
    size_t length, wanted = strlen(word);
    const char *value = header(head, size, name, &length);
    for (; value && length >= wanted; value++, length--)
        if (strncasecmp(value, word, wanted) == 0)
            return true;
    return false;
}

/* How far a body has been read, by its length or in chunks; wherever the reads cut it. */
struct body {
    enum { BODY_LENGTH, CHUNK_SIZE, CHUNK_EXTENSION, CHUNK, CHUNK_END, TRAILER, BODY_DONE, BODY_BAD } state;
    uint64_t left; /* of the body or of the chunk; while the chunk's size is read: the size so far */
    bool begun;    /* there is a digit of the size, or a character in the trailer's line */
};

/* Says whether the head tells where its body ends. */
static inline bool body_start(struct body *body, const char *head, size_t size)
{
    size_t length;
    *body = (struct body){.state = CHUNK_SIZE};
    if (header_says(head, size, "transfer-encoding", "chunked"))
        return true;
    const char *value = header(head, size, "content-length", &length);
    if (!value)
        return false;
    body->left = isdigit((unsigned char)*value) ? strtoull(value, NULL, 10) : UINT64_MAX;
    body->state = body->left > UINT64_C(1) << 40 ? BODY_BAD : body->left ? BODY_LENGTH : BODY_DONE;
    return true;
}

static inline void body_step(struct body *body, unsigned char byte)
{
    switch (body->state) {
    case CHUNK_SIZE:
        if (isxdigit(byte) && body->left < UINT64_C(1) << 40) {
            body->left = body->left * 16 + (byte <= '9' ? byte - '0' : (byte | 32) - 'a' + 10);
            body->begun = true;
            return;
        }
        if (!body->begun || !strchr("\r\n; \t", byte) || !byte) {
            body->state = BODY_BAD;
            return;
        }
        body->state = CHUNK_EXTENSION; /* fall through */
    case CHUNK_EXTENSION:
        if (byte == '\n')
            *body = (struct body){.state = body->left ? CHUNK : TRAILER, .left = body->left};
        return;
    case CHUNK_END:
        if (byte == '\n')
            *body = (struct body){.state = CHUNK_SIZE};
        else if (byte != '\r')
            body->state = BODY_BAD;
        return;
    case TRAILER:
        if (byte == '\n' && !body->begun)
            body->state = BODY_DONE;
        else if (byte != '\r')
            body->begun = byte != '\n';
        return;
    default:
        return;
    }
}

/* Takes of `size` raw bytes what stands before the next piece of the body, and that piece. Gives the bytes taken. */
static inline size_t body_take(struct body *body, const char *data, size_t size, const char **piece, size_t *piece_size)
{
    size_t at = 0;
    *piece_size = 0;
    while (at < size && body->state < BODY_DONE) {
        if (body->state != BODY_LENGTH && body->state != CHUNK) {
            body_step(body, data[at++]);
            continue;
        }
        *piece = data + at;
        *piece_size = size - at < body->left ? size - at : body->left;
        body->left -= *piece_size;
        if (body->left == 0)
            body->state = body->state == CHUNK ? CHUNK_END : BODY_DONE;
        return at + *piece_size;
    }
    return at;
}

/* A request that is coming: its head, its body as far as it is decoded, and behind `raw` what is not yet. */
struct request {
    struct held in;
    size_t head, body_end, raw;
    struct body body;
};

/* Goes on with what has come; gives 0 if more must come, 200 for a whole request, or the status to refuse it with. */
static inline int request_read(struct request *request, size_t max_body)
{
    struct held *in = &request->in;
    struct body *body = &request->body;
    if (!request->head) {
        const char *end = in->size ? memmem(in->data, in->size, "\r\n\r\n", 4) : NULL;
        if (!end)
            return in->size < MAX_HEAD ? 0 : 431;
        request->head = request->body_end = request->raw = (size_t)(end + 4 - in->data);
        if (!memmem(in->data, request->head, " HTTP/1.1\r\n", 11))
            return 505;
        if (!body_start(body, in->data, request->head))
            body->state = BODY_DONE;
    }
    while (request->raw < in->size && body->state < BODY_DONE) {
        const char *piece;
        size_t size;
        request->raw += body_take(body, in->data + request->raw, in->size - request->raw, &piece, &size);
        if (size)
            memmove(in->data + request->body_end, piece, size);
        request->body_end += size;
    }
    if (request->body_end - request->head + (body->state == BODY_LENGTH ? body->left : 0) > max_body)
        return 413;
    return body->state == BODY_DONE ? 200 : body->state == BODY_BAD ? 400 : 0;
}

/* Forgets the request; what came behind it stays. A large buffer goes. */
static inline void request_done(struct request *request)
{
    struct held *in = &request->in;
    memmove(in->data, in->data + request->raw, in->size -= request->raw);
    request->head = request->raw = 0;
    if (!in->size && in->room > MAX_HEAD)
        let_go(in);
}

static inline int new_socket(void)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted sockets take it over */
    return fd;
}

static inline struct sockaddr_in loopback(long port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* As many sockets as the machine lets us have, and a clock that wakes us on time (the default is up to 50 µs late). */
static inline void prepare_process(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
}

/* Changes what epoll watches only if it is something else: a call for each change would cost more than the rest. */
static inline void watch(int poll, int fd, uint32_t *watched, uint32_t wanted, void *of)
{
    struct epoll_event event = {.events = wanted, .data.ptr = of};
    if (*watched == wanted)
        return;
    if (epoll_ctl(poll, *watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
    *watched = wanted;
}

/* Waits for events, no longer than to `until`; for ever if that is INT64_MAX. Old kernels only wake on milliseconds. */
static inline int wait_until(int poll, struct epoll_event *events, int room, int64_t until)
{
    int64_t left = until == INT64_MAX ? -1 : until - now_ns();
    if (until != INT64_MAX && left < 0)
        left = 0;
#ifdef SYS_epoll_pwait2
    struct timespec time = {.tv_sec = left / SECOND, .tv_nsec = left % SECOND};
    int count = syscall(SYS_epoll_pwait2, poll, events, room, left < 0 ? NULL : &time, NULL, 0UL);
#else
    int count = -1;
    errno = ENOSYS;
#endif
    if (count < 0 && errno == ENOSYS) {
        int64_t milliseconds = left < 0 ? -1 : (left + 999999) / 1000000;
        count = epoll_wait(poll, events, room, milliseconds > INT32_MAX ? INT32_MAX : (int)milliseconds);
    }
    if (count < 0 && errno != EINTR)
        die("epoll_wait");
    return count < 0 ? 0 : count;
}

#endif
