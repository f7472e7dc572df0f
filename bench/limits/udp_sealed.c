/* What the machine allows for sealed datagrams over loopback: AES-256-GCM per datagram, by two processes.
 *
 *   cc -O2 -o udp_sealed udp_sealed.c -ldl && ./udp_sealed libcrypto.so.3 1400 2 flow
 *
 * Arguments: the libcrypto that netchan uses (netchan doctor names it), bytes of a datagram, seconds, flow or ping, and
 * the CPUs of receiver and sender (none or -1: the kernel's choice).
 *
 * flow: one way, sent with UDP_SEGMENT, received with UDP_GRO. Flow control is the simplest there is: the receiver says
 * every 256 datagrams how many it has, and the sender keeps 1 024 on their way. Prints "bytes per second of payload,
 * datagrams sent, received, CPU seconds of the sender, of the receiver".
 *
 * ping: one datagram there and back; each side looks for 20 us before it sleeps. Prints "p50, p99 in us, round trips, CPU
 * seconds of the sender, of the receiver".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 45, TAG = 16, IV = 12, WINDOW = 1024, TRIPS = 1 << 20 };
static const double LOOK_S = 20e-6;

typedef void *(*fn_new)(void);
typedef const void *(*fn_cipher)(void);
typedef int (*fn_init)(void *, const void *, void *, const uint8_t *, const uint8_t *);
typedef int (*fn_update)(void *, uint8_t *, int *, const uint8_t *, int);
typedef int (*fn_final)(void *, uint8_t *, int *);
typedef int (*fn_ctrl)(void *, int, int, void *);

static struct {
    fn_new ctx;
    fn_cipher gcm;
    fn_init seal, open;
    fn_update seal_update, open_update;
    fn_final seal_final, open_final;
    fn_ctrl ctrl;
} c;

static void load(const char *name) {
    void *h = dlopen(name, RTLD_NOW);
    if (!h) { fprintf(stderr, "%s\n", dlerror()); exit(2); }
    c.ctx = (fn_new)dlsym(h, "EVP_CIPHER_CTX_new");
    c.gcm = (fn_cipher)dlsym(h, "EVP_aes_256_gcm");
    c.seal = (fn_init)dlsym(h, "EVP_EncryptInit_ex");
    c.open = (fn_init)dlsym(h, "EVP_DecryptInit_ex");
    c.seal_update = (fn_update)dlsym(h, "EVP_EncryptUpdate");
    c.open_update = (fn_update)dlsym(h, "EVP_DecryptUpdate");
    c.seal_final = (fn_final)dlsym(h, "EVP_EncryptFinal_ex");
    c.open_final = (fn_final)dlsym(h, "EVP_DecryptFinal_ex");
    c.ctrl = (fn_ctrl)dlsym(h, "EVP_CIPHER_CTX_ctrl");
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static int bound(struct sockaddr_in *a) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), size = 4 << 20, on = 1;
    socklen_t n = sizeof(*a);
    memset(a, 0, sizeof(*a));
    a->sin_family = AF_INET;
    a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)a, n) || getsockname(fd, (struct sockaddr *)a, &n)) exit(2);
    return fd;
}

static void nonce(uint8_t *iv, uint64_t number) {
    memset(iv, 0, IV);
    memcpy(iv, &number, 8);
}

static double cpu(int who) {
    struct rusage u;
    getrusage(who, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + 1e-6 * (u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void pin(int number) {
    cpu_set_t set;
    if (number < 0) return;
    CPU_ZERO(&set);
    CPU_SET(number, &set);
    if (sched_setaffinity(0, sizeof(set), &set)) exit(2);
}

static void *keyed(fn_init init) {
    const uint8_t key[32] = {0};
    void *ctx = c.ctx();
    init(ctx, c.gcm(), NULL, key, NULL);
    return ctx;
}

/* A datagram is 8 bytes of its number, which are authenticated, the payload, and the tag. */
static void seal(void *ctx, uint8_t *p, const uint8_t *plain, int size, uint64_t number) {
    uint8_t iv[IV];
    int n;
    nonce(iv, number);
    memcpy(p, &number, 8);
    c.seal(ctx, NULL, NULL, NULL, iv);
    c.seal_update(ctx, NULL, &n, p, 8);
    c.seal_update(ctx, p + 8, &n, plain, size - 8 - TAG);
    c.seal_final(ctx, p + 8 + n, &n);
    c.ctrl(ctx, 0x10, TAG, p + size - TAG);
}

static int opens(void *ctx, uint8_t *p, uint8_t *plain, int size) {
    uint8_t iv[IV];
    uint64_t number;
    int n;
    memcpy(&number, p, 8);
    nonce(iv, number);
    c.open(ctx, NULL, NULL, NULL, iv);
    c.open_update(ctx, NULL, &n, p, 8);
    c.open_update(ctx, plain, &n, p + 8, size - 8 - TAG);
    c.ctrl(ctx, 0x11, TAG, p + size - TAG);
    return c.open_final(ctx, plain + n, &n) > 0;
}

static void receive(int fd, int size, int report) {
    static uint8_t buf[65536], plain[65536];
    uint64_t got = 0, bad = 0, told = 0;
    void *ctx = keyed(c.open);
    for (;;) {
        long k = recv(fd, buf, sizeof(buf), 0);
        if (k <= 1) break;
        for (uint8_t *p = buf; k >= size; p += size, k -= size) {
            bad += !opens(ctx, p, plain, size);
            got++;
        }
        if (got - told >= 256) {
            told = got;
            if (write(report, &got, 8) != 8) break;
        }
    }
    if (bad) fprintf(stderr, "%llu did not open\n", (unsigned long long)bad);
    if (write(report, &got, 8) != 8) exit(2);
    _exit(bad != 0);
}

static int flow(int from, int size, double seconds, int report) {
    static uint8_t buf[65536], plain[65536];
    uint64_t sent = 0, got = 0;
    void *ctx = keyed(c.seal);
    double begun = now();
    int i;
    while (now() - begun < seconds) {
        while (sent - got >= WINDOW) {
            fd_set set;
            struct timeval wait = {0, 20000};
            FD_ZERO(&set);
            FD_SET(report, &set);
            if (select(report + 1, &set, NULL, NULL, &wait) <= 0) { got = sent; break; }   /* some were lost */
            if (read(report, &got, 8) != 8) return 2;
        }
        for (i = 0; i < BATCH; i++, sent++) seal(ctx, buf + i * size, plain, size, sent);
        char room[CMSG_SPACE(2)] = {0};
        struct iovec v = {buf, (size_t)BATCH * size};
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        uint16_t seg = (uint16_t)size;
        h->cmsg_level = SOL_UDP;
        h->cmsg_type = UDP_SEGMENT;
        h->cmsg_len = CMSG_LEN(2);
        memcpy(CMSG_DATA(h), &seg, 2);
        if (sendmsg(from, &m, 0) < 0) { perror("sendmsg"); return 2; }
    }
    double took = now() - begun;
    usleep(100000);
    for (i = 0; i < 5; i++) if (send(from, "", 1, 0) != 1) break;
    while (wait(NULL) > 0) continue;
    while (read(report, &got, 8) == 8) continue;
    printf("%.0f %llu %llu ", got * (double)(size - 8 - TAG) / took, (unsigned long long)sent, (unsigned long long)got);
    return 0;
}

static long look(int fd, uint8_t *buf) {
    double until = now() + LOOK_S;
    do {
        long k = recv(fd, buf, 65536, MSG_DONTWAIT);
        if (k >= 0) return k;
        sched_yield();
    } while (now() < until);
    return recv(fd, buf, 65536, 0);
}

static void echo(int fd, int size) {
    static uint8_t buf[65536], plain[65536];
    void *in = keyed(c.open), *out = keyed(c.seal);
    uint64_t sent = 0;
    while (look(fd, buf) == size) {
        if (!opens(in, buf, plain, size)) _exit(2);
        seal(out, buf, plain, size, sent++);
        if (send(fd, buf, size, 0) != size) _exit(2);
    }
    _exit(0);
}

static int later(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int ping(int fd, int size, double seconds) {
    static uint8_t buf[65536], plain[65536];
    static double trips[TRIPS];
    void *in = keyed(c.open), *out = keyed(c.seal);
    double begun = now();
    int n = 0, status;
    while (n < TRIPS && now() - begun < seconds) {
        double start = now();
        seal(out, buf, plain, size, n);
        if (send(fd, buf, size, 0) != size || look(fd, buf) != size || !opens(in, buf, plain, size)) return 2;
        trips[n++] = now() - start;
    }
    if (send(fd, "", 1, 0) != 1 || wait(&status) < 0 || status) return 2;
    qsort(trips, n, sizeof(*trips), later);
    printf("%.2f %.2f %d ", trips[n / 2] * 1e6, trips[(int)(n * 0.99)] * 1e6, n);
    return 0;
}

int main(int argc, char **argv) {
    struct sockaddr_in a, b;
    int size = argc > 2 ? atoi(argv[2]) : 1400, pipes[2], trips, failed;
    double seconds = argc > 3 ? atof(argv[3]) : 2;
    trips = argc > 4 && !strcmp(argv[4], "ping");
    if (argc < 2 || size < 64 || size > 1452 || pipe(pipes)) {
        fprintf(stderr, "usage: udp_sealed LIBCRYPTO [SIZE [SECONDS [flow|ping [CPU CPU]]]]\n");
        return 2;
    }
    load(argv[1]);
    int to = bound(&a), from = bound(&b);
    if (connect(from, (struct sockaddr *)&a, sizeof(a)) || connect(to, (struct sockaddr *)&b, sizeof(b))) return 2;
    if (fork() == 0) {
        pin(argc > 5 ? atoi(argv[5]) : -1);
        if (trips) echo(to, size);
        receive(to, size, pipes[1]);
    }
    close(pipes[1]);
    pin(argc > 6 ? atoi(argv[6]) : -1);
    failed = trips ? ping(from, size, seconds) : flow(from, size, seconds, pipes[0]);
    if (!failed) printf("%.4f %.4f\n", cpu(RUSAGE_SELF), cpu(RUSAGE_CHILDREN));
    return failed;
}
