/* A fast imitation of K2-Think's web service, and of any server that speaks OpenAI's chat completions.
 *
 *     cc -O2 -Wall -Wextra -Werror -std=gnu11 -o upstream upstream.c && ./upstream PORT      (0: any port)
 *
 * A benchmark of gateways must not measure what stands behind them, so this costs next to nothing: one thread, epoll,
 * answers prepared once. Prints `listening PORT`, serves 127.0.0.1 until it is ended.
 *
 *     GET  …/models             one model
 *     POST …/chat/completions   an answer as the prompt orders it: `bench:EVENTS:INTERVAL_US:BYTES` in the body
 *
 * EVENTS deltas of BYTES bytes of text, the first half of them thinking. INTERVAL_US 0: all at once, as fast as the
 * socket takes it. Otherwise delta N leaves (N + 1) intervals after the request and says so: ` #N@NANOSECONDS.`, by
 * CLOCK_MONOTONIC, which all processes of the machine share. So whoever reads it knows what the way cost, and what is
 * missing. A request with `"stream":true` gets a stream, any other the same text at once.
 */
#define _GNU_SOURCE
#include "http.h"
#include "timers.h"

#define MAX_BODY (16UL << 20)
#define MAX_EVENTS 100000
#define MAX_BYTES 65536            /* of one delta's text */
#define MAX_PREPARED (128UL << 20) /* of all answers that are kept */
#define KEPT 64
#define MAX_QUEUED (4UL << 20) /* of an answer that its client does not take; then it counts as gone */
#define TIMERS_A_ROUND 256     /* so that a crowd of paced streams does not keep requests waiting */
#define LISTEN_BACKLOG 4096
#define READ_ROOM 16384
#ifndef READ_SIZE
#define READ_SIZE MAX_BODY /* bytes at once; 1: a test of every cut */
#endif
#ifndef BURST_CHUNK
#define BURST_CHUNK 16384 /* bytes that make an HTTP chunk full, as behind a reverse proxy; 1: a chunk for each frame */
#endif

#define OK "HTTP/1.1 200 OK\r\n"
#define JSON_HEAD "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n"
#define STREAM_HEAD OK "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
#define ID "\"id\":\"chatcmpl-0c1d2e3f405162738495a6b7c8d9eafb\",\"object\":\"chat.completion"
#define MODEL ",\"created\":1,\"model\":\"MBZUAI-IFM/K2-Think\",\"choices\":["
#define FRAME "data: {" ID ".chunk\"" MODEL
#define DELTA FRAME "{\"index\":0,\"delta\":{\"content\":\""
#define DELTA_END "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"
#define STOP FRAME "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n"
#define USAGE "\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":%ld,\"total_tokens\":%ld}}"
#define MODELS "{\"data\":[{\"id\":\"MBZUAI-IFM/K2-Think\",\"object\":\"model\"}]}"

struct order {
    long events, interval, bytes;
    bool stream;
};

struct prepared {
    struct order order;
    struct held bytes;
};

struct client {
    int fd;
    uint32_t watched;
    bool gone, last; /* gone: nothing more to do with it; last: to be closed after this answer */
    struct request request;
    const struct prepared *burst;
    struct held out; /* what the socket did not take of any other answer */
    size_t sent;     /* bytes of the burst, or of `out` */
    struct order order;
    long step; /* of the paced answer, the next one */
    int64_t began;
    size_t timer;
};

struct server {
    int poll, listener;
    struct timers timers;
    struct prepared kept[KEPT]; /* never given up: they are few, and connections may be sending them */
    size_t prepared, prepared_bytes;
    struct held frames, out; /* of the paced answer that is being written */
};

/* Gives how much of it the socket took. */
static size_t push(struct client *client, const char *data, size_t size)
{
    ssize_t sent = send(client->fd, data, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR)
        client->gone = true;
    return sent < 0 ? 0 : (size_t)sent;
}

static void write_out(struct client *client, const char *data, size_t size)
{
    struct held *out = &client->out;
    size_t taken = out->size ? 0 : push(client, data, size);
    if (client->gone || taken == size)
        return;
    if (client->sent > out->size / 2) { /* seldom enough that the moves cost no more than the writes */
        memmove(out->data, out->data + client->sent, out->size -= client->sent);
        client->sent = 0;
    }
    client->gone = out->size - client->sent + size - taken > MAX_QUEUED;
    if (!client->gone)
        hold(out, data + taken, size - taken);
}

/* Sends on what waits for the socket. */
static void flush(struct client *client)
{
    const struct held *from = client->burst ? &client->burst->bytes : &client->out;
    client->sent += push(client, from->data + client->sent, from->size - client->sent);
    if (client->sent < from->size)
        return;
    client->burst = NULL;
    client->sent = client->out.size = 0;
}

/* Gives the list of models or, with any status but 200, an error, after which the connection closes. */
static void say(struct client *client, int status)
{
    char text[512];
    bool ok = status == 200;
    const char *json = ok ? MODELS : "{\"error\":{\"message\":\"The imitation does not take this.\"}}";
    client->last = client->last || !ok;
    int size = snprintf(text, sizeof text, "HTTP/1.1 %d %s\r\n%s" JSON_HEAD "%s", status, ok ? "OK" : "Refused",
                        client->last ? "Connection: close\r\n" : "", strlen(json), json);
    write_out(client, text, (size_t)size);
}

/* What stands behind words in a text, as JSON writes it: what a reader of Markdown and tags must look at. */
static const char *const MARKS[16] = {"", ",", "", ".", "", "\\n\\n", "", " \\\"so\\\"",
                                      "", ":", "", " `x`", "", " f\xc3\xbcr", "", " \xe2\x80\x93"};

/* Text of a delta: a blank, letters, and the stamp if the answer is paced, else perhaps a mark. */
static void add_words(struct held *out, const struct order *order, long number)
{
    char stamp[64] = "";
    long size = 1;
    if (order->interval)
        size += snprintf(stamp, sizeof stamp, "#%ld@%lld.", number, (long long)now_ns());
    add(out, " ");
    make_room(out, MAX_BYTES);
    for (; size < order->bytes; size++)
        out->data[out->size++] = (char)('a' + size % 26);
    add(out, order->interval ? stamp : MARKS[number % 16]);
}

/* Step 0 opens, step N is delta N - 1, and the one behind the last ends. Tags are deltas of their own. */
static void add_step(struct held *frames, const struct order *order, long step)
{
    char end[1024];
    if (step == order->events / 2 + 1)
        add(frames, DELTA "</think>" DELTA_END DELTA "<answer>" DELTA_END);
    if (step == 0) {
        add(frames, DELTA "<think>" DELTA_END);
    } else if (step <= order->events) {
        add(frames, DELTA);
        add_words(frames, order, step - 1);
        add(frames, DELTA_END);
    } else {
        snprintf(end, sizeof end, DELTA "</answer>" DELTA_END STOP FRAME "]," USAGE "\n\ndata: [DONE]\n\n",
                 order->events, order->events + 9);
        add(frames, end);
    }
}

/* Adds the frames as one HTTP chunk, and forgets them. */
static void add_chunk(struct held *out, struct held *frames)
{
    char size[32];
    snprintf(size, sizeof size, "%zx\r\n", frames->size);
    add(out, size);
    hold(out, frames->data, frames->size);
    add(out, "\r\n");
    frames->size = 0;
}

static void prepare_stream(struct held *out, const struct order *order)
{
    struct held frames = {0};
    add(out, STREAM_HEAD);
    for (long step = 0; step <= order->events + 1; step++) {
        add_step(&frames, order, step);
        if (frames.size >= BURST_CHUNK || step == order->events + 1)
            add_chunk(out, &frames);
    }
    add(out, "0\r\n\r\n");
    let_go(&frames);
}

static void prepare_whole(struct held *out, const struct order *order)
{
    char part[256];
    struct held json = {0};
    add(&json, "{" ID "\"" MODEL "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"<think>");
    for (long number = 0; number <= order->events; number++) {
        if (number == order->events / 2)
            add(&json, "</think><answer>");
        if (number < order->events)
            add_words(&json, order, number);
    }
    snprintf(part, sizeof part, "</answer>\"},\"logprobs\":null,\"finish_reason\":\"stop\"}]," USAGE, order->events,
             order->events + 9);
    add(&json, part);
    snprintf(part, sizeof part, OK JSON_HEAD, json.size);
    add(out, part);
    hold(out, json.data, json.size);
    let_go(&json);
}

/* The answer to an order without an interval; NULL if it would be too much to keep. */
static const struct prepared *prepared_for(struct server *server, const struct order *order)
{
    size_t frame = sizeof DELTA + sizeof DELTA_END + (size_t)order->bytes;
    for (size_t place = 0; place < server->prepared; place++) {
        const struct order *kept = &server->kept[place].order;
        if (kept->events == order->events && kept->bytes == order->bytes && kept->stream == order->stream)
            return &server->kept[place];
    }
    if (server->prepared == KEPT || server->prepared_bytes + (size_t)order->events * frame > MAX_PREPARED)
        return NULL;
    struct prepared *fresh = &server->kept[server->prepared++];
    fresh->order = *order;
    (order->stream ? prepare_stream : prepare_whole)(&fresh->bytes, order);
    server->prepared_bytes += fresh->bytes.size;
    return fresh;
}

static void write_step(struct server *server, struct client *client)
{
    if (client->step == 0)
        add(&server->out, STREAM_HEAD);
    add_step(&server->frames, &client->order, client->step);
    add_chunk(&server->out, &server->frames);
    if (client->step++ > client->order.events)
        add(&server->out, "0\r\n\r\n");
    write_out(client, server->out.data, server->out.size);
    server->out.size = 0;
}

/* Writes what is due, sets the timer for the next delta; the end comes right behind the last. */
static void tick(struct server *server, struct client *client)
{
    write_step(server, client);
    if (!client->gone && client->step <= client->order.events) {
        int64_t due = client->began + client->step * client->order.interval * 1000;
        set_timer(&server->timers, (struct timer){due, &client->timer, client});
        return;
    }
    end_timer(&server->timers, &client->timer);
    if (!client->gone)
        write_step(server, client);
}

static struct order order_of(const char *body, size_t size)
{
    struct order order = {.events = 4, .bytes = 6};
    const char *end = body + size, *at = body;
    order.stream = memmem(body, size, "\"stream\":true", 13) || memmem(body, size, "\"stream\": true", 14);
    for (; (at = memmem(at, (size_t)(end - at), "bench:", 6)); at += 6) {
        char words[64] = "";
        long events, interval, bytes;
        memcpy(words, at, (size_t)(end - at) < sizeof words ? (size_t)(end - at) : sizeof words - 1);
        if (sscanf(words, "bench:%9ld:%9ld:%9ld", &events, &interval, &bytes) == 3 && events >= 0 && interval >= 0) {
            order.events = events < MAX_EVENTS ? events : MAX_EVENTS;
            order.interval = order.stream ? interval : 0;
            order.bytes = bytes < 2 ? 2 : bytes < MAX_BYTES ? bytes : MAX_BYTES;
            break;
        }
    }
    return order;
}

static bool asks(const char *request, const char *method, const char *path)
{
    size_t method_size = strlen(method), length = strcspn(request + method_size, "? \r"), size = strlen(path);
    return strncmp(request, method, method_size) == 0 && length >= size &&
           strncmp(request + method_size + length - size, path, size) == 0;
}

static void answer(struct server *server, struct client *client)
{
    const struct request *request = &client->request;
    const char *head = request->in.data;
    client->last = header_says(head, request->head, "connection", "close");
    client->order = order_of(head + request->head, request->body_end - request->head);
    if (asks(head, "GET ", "/models")) {
        say(client, 200);
    } else if (!asks(head, "POST ", "/chat/completions")) {
        say(client, 404);
    } else if (client->order.interval) {
        client->step = 0;
        client->began = now_ns();
        tick(server, client);
    } else if ((client->burst = prepared_for(server, &client->order))) {
        flush(client);
    } else {
        say(client, 400);
    }
}

static bool busy(const struct client *client)
{
    return client->burst || client->out.size || client->timer;
}

/* Answers the requests that are whole, as far as the socket takes it; then waits for what is missing, or lets go. */
static void settle(struct server *server, struct client *client)
{
    int status;
    while (!client->gone && !busy(client) && !client->last && (status = request_read(&client->request, MAX_BODY))) {
        if (status == 200)
            answer(server, client);
        else
            say(client, status);
        request_done(&client->request);
    }
    if (!client->gone && (busy(client) || !client->last)) {
        uint32_t sending = client->burst || client->out.size ? EPOLLOUT : 0, wanted = busy(client) ? sending : EPOLLIN;
        watch(server->poll, client->fd, &client->watched, EPOLLRDHUP | wanted, client);
        return;
    }
    end_timer(&server->timers, &client->timer);
    close(client->fd);
    let_go(&client->request.in);
    let_go(&client->out);
    free(client);
}

static void receive(struct client *client)
{
    struct held *in = &client->request.in;
    make_room(in, READ_ROOM);
    size_t room = in->room - in->size;
    ssize_t size = recv(client->fd, in->data + in->size, room < READ_SIZE ? room : READ_SIZE, 0);
    if (size > 0)
        in->size += (size_t)size;
    else
        client->gone = size == 0 || (errno != EAGAIN && errno != EINTR);
}

static void accept_all(struct server *server)
{
    int fd;
    while ((fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct client *client = calloc(1, sizeof *client);
        if (!client)
            die("memory");
        client->fd = fd;
        settle(server, client);
    }
    if (errno == EMFILE || errno == ENFILE)
        die("more connections than RLIMIT_NOFILE allows");
}

static _Noreturn void serve(struct server *server)
{
    struct epoll_event events[512];
    for (;;) {
        int count = wait_until(server->poll, events, 512, next_timer(&server->timers));
        for (int place = 0; place < count; place++) {
            struct client *client = events[place].data.ptr;
            if (!client) {
                accept_all(server);
                continue;
            }
            client->gone = events[place].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
            if (!client->gone && events[place].events & EPOLLOUT)
                flush(client);
            else if (!client->gone)
                receive(client);
            settle(server, client);
        }
        int64_t now = now_ns();
        for (int left = TIMERS_A_ROUND; left && next_timer(&server->timers) <= now; left--) {
            struct client *client = server->timers.heap[1].owner;
            tick(server, client);
            settle(server, client);
        }
    }
}

int main(int count, char **words)
{
    struct server server = {.poll = epoll_create1(EPOLL_CLOEXEC), .listener = new_socket()};
    struct sockaddr_in address = loopback(count == 2 ? atol(words[1]) : -1);
    socklen_t size = sizeof address;
    uint32_t watched = 0;
    int on = 1;
    if (count != 2 || atol(words[1]) < 0 || atol(words[1]) > 65535) {
        fprintf(stderr, "usage: upstream PORT\n");
        return 2;
    }
    prepare_process();
    setsockopt(server.listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server.listener, (struct sockaddr *)&address, size) < 0 || listen(server.listener, LISTEN_BACKLOG) < 0)
        die("listen");
    if (getsockname(server.listener, (struct sockaddr *)&address, &size) < 0)
        die("getsockname");
    watch(server.poll, server.listener, &watched, EPOLLIN, NULL);
    printf("listening %d\n", ntohs(address.sin_port));
    fflush(stdout);
    serve(&server);
}
