// The work of scripts/bench-cpu inside the guest: PID 1 of an initramfs. For each row of the environment's `rows` it says
// "@begin ROW", waits for a line on the console, works, says "@end ROW CHECKSUM", waits again, and powers off in the end. The host
// reads the hypervisor's CPU time while the guest waits, so that neither boot nor console count. As any other process it does the same on
// the host itself.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))
#define SCALAR __attribute__((noinline, optimize("no-tree-vectorize", "no-tree-loop-distribute-patterns")))

static SCALAR uint64_t integer(uint64_t n)
{
    uint64_t x = 88172645463325252u, sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        sum += x * 0x9E3779B97F4A7C15u + (i ^ sum >> 3);
    }
    return sum;
}

// Greatest common divisors, lengths of Collatz sequences, a CRC bit by bit: short loops whose branches depend on data.
static SCALAR uint64_t branches(uint64_t n)
{
    uint64_t sum = 0;
    uint32_t crc = 0xFFFFFFFF;
    for (uint64_t i = 1; i <= n; i++) {
        uint64_t a = i * 0x9E3779B1u & 0xFFFFFF | 1, b = i | 1;
        while (a != b) {
            if (a > b)
                for (a -= b; !(a & 1);)
                    a >>= 1;
            else
                for (b -= a; !(b & 1);)
                    b >>= 1;
        }
        sum += a;
        for (uint64_t c = i; c != 1; sum++)
            c = c & 1 ? 3 * c + 1 : c >> 1;
        crc ^= (uint32_t)sum;
        for (int k = 0; k < 32; k++) {
            if (crc & 1)
                crc = crc >> 1 ^ 0xEDB88320;
            else
                crc >>= 1;
        }
    }
    return sum << 32 | crc;
}

static uint64_t words[1 << 16], others[1 << 16];

static SCALAR uint64_t sum(uint64_t n)
{
    uint64_t s = 0;
    for (uint64_t k = 0; k < n; k++) {
        for (int i = 0; i < 1 << 14; i++)
            s += words[i];
        asm volatile("" ::: "memory");
    }
    return s;
}

static SCALAR uint64_t copy(uint64_t n)
{
    for (uint64_t k = 0; k < n; k++) {
        for (int i = 0; i < 1 << 14; i++)
            others[i] = words[i];
        asm volatile("" ::: "memory");
    }
    return others[n & 0x3FFF];
}

static SCALAR uint64_t copybytes(uint64_t n)
{
    char *to = (char *)others, *from = (char *)words;
    for (uint64_t k = 0; k < n; k++) {
        for (int i = 0; i < 1 << 14; i++)
            to[i] = from[i];
        asm volatile("" ::: "memory");
    }
    return others[n & 0x7FF];
}

static uint64_t library_copy(uint64_t n)
{
    for (uint64_t k = 0; k < n; k++) {
        memcpy(others, words, sizeof words);
        asm volatile("" ::: "memory");
    }
    return others[n & 0x7FF];
}

static NOINLINE uint64_t fib(uint64_t n)
{
    asm volatile("");
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

typedef uint64_t step(uint64_t);
static NOINLINE uint64_t step0(uint64_t x) { return x + 3; }
static NOINLINE uint64_t step1(uint64_t x) { return x * 5; }
static NOINLINE uint64_t step2(uint64_t x) { return x ^ x >> 9; }
static NOINLINE uint64_t step3(uint64_t x) { return x - 11; }
static step *volatile steps[4] = { step0, step1, step2, step3 };

static SCALAR uint64_t indirect(uint64_t n)
{
    uint64_t x = 1;
    for (uint64_t i = 0; i < n; i++)
        x = steps[x >> 5 & 3](x);
    return x;
}

static SCALAR uint64_t sieve(uint64_t n)
{
    static unsigned char composite[1 << 20];
    uint64_t count = 0;
    for (uint64_t k = 0; k < n; k++) {
        memset(composite, 0, sizeof composite);
        count = 0;
        for (int i = 2; i < 1 << 20; i++) {
            if (composite[i])
                continue;
            count++;
            for (int j = i + i; j < 1 << 20; j += i)
                composite[j] = 1;
        }
    }
    return count;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint64_t sort(uint64_t n)
{
    static uint32_t items[1 << 16];
    uint64_t check = 0;
    for (uint64_t k = 0; k < n; k++) {
        uint32_t x = 2463534242u;
        for (int i = 0; i < 1 << 16; i++) {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            items[i] = x;
        }
        qsort(items, 1 << 16, 4, compare);
        check += items[1 << 10];
    }
    return check;
}

static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))

static SCALAR void sha256_block(uint32_t h[8], const unsigned char *p)
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[i * 4] << 24 | p[i * 4 + 1] << 16 | p[i * 4 + 2] << 8 | p[i * 4 + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + (ROR(w[i - 15], 7) ^ ROR(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
            (ROR(w[i - 2], 17) ^ ROR(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(s, h, 32);
    for (int i = 0; i < 64; i++) {
        uint32_t t1 = s[7] + (ROR(s[4], 6) ^ ROR(s[4], 11) ^ ROR(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + round_constants[i] + w[i];
        uint32_t t2 = (ROR(s[0], 2) ^ ROR(s[0], 13) ^ ROR(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        s[7] = s[6], s[6] = s[5], s[5] = s[4], s[4] = s[3] + t1, s[3] = s[2], s[2] = s[1], s[1] = s[0], s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        h[i] += s[i];
}

static uint64_t sha256(uint64_t n)
{
    uint32_t h[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    for (uint64_t k = 0; k < n; k++)
        sha256_block(h, (unsigned char *)words + (k * 64 & 0x3FFC0));
    return h[0];
}

static SCALAR uint64_t x87(uint64_t n)
{
    long double a = 1, b = 0.5L;
    for (uint64_t i = 1; i <= n; i++) {
        a = a * 0.999999L + b / (long double)i;
        b = b + a * 1e-9L;
    }
    return (uint64_t)(a * 1e15L);
}

static SCALAR uint64_t sse(uint64_t n)
{
    double a = 1, b = 0.5, c = 0.25;
    for (uint64_t i = 1; i <= n; i++) {
        a = a * 0.999999 + b * c;
        b = b + a * 1e-9;
        c = c * 0.5 + (double)i * 1e-12;
    }
    return (uint64_t)(a * 1e12);
}

typedef float v8 __attribute__((vector_size(32)));
typedef int64_t i4 __attribute__((vector_size(32)));

static __attribute__((noinline, target("avx2,fma"))) uint64_t avx(uint64_t n)
{
    static v8 data[256] __attribute__((aligned(32)));
    v8 a = { 1, 2, 3, 4, 5, 6, 7, 8 }, b = a * 0.001f;
    i4 s = { 1, 2, 3, 4 };
    for (uint64_t k = 0; k < n; k++) {
        for (int i = 0; i < 256; i++) {
            a = a * 0.5f + b;
            data[i] = data[i] * 0.25f + a;
            s = s + (s << 3) - (i4)data[i ^ 1];
        }
    }
    return (uint64_t)(int64_t)(a[3] * 1000) + (uint64_t)s[1];
}

static uint64_t system_calls(uint64_t n)
{
    uint64_t s = 0;
    for (uint64_t i = 0; i < n; i++)
        s += (uint64_t)syscall(SYS_getppid);
    return s;
}

static uint64_t page_faults(uint64_t n)
{
    for (uint64_t k = 0; k < n; k++) {
        char *p = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (int i = 0; i < 4 << 20; i += 4096)
            p[i] = 1;
        munmap(p, 4 << 20);
    }
    return n;
}

static uint64_t run(char *const argv[])
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 1);
        dup2(null, 2);
        execv(argv[0], argv);
        _exit(127);
    }
    waitpid(child, &status, 0);
    return (uint64_t)status;
}

static uint64_t gzip(uint64_t n)
{
    uint64_t status = 0;
    for (uint64_t k = 0; k < n; k++)
        status |= run((char *const[]){ "/bin/busybox", "gzip", "-c", "/bin/busybox", NULL });
    return status;
}

static uint64_t compile(uint64_t n)
{
    uint64_t status = 0;
    for (uint64_t k = 0; k < n; k++)
        status |= run((char *const[]){ "/bin/cc1", "-quiet", "-O1", "/work.i", "-o", "/dev/null", NULL });
    return status;
}

static uint64_t spawn(uint64_t n)
{
    uint64_t status = 0;
    for (uint64_t k = 0; k < n; k++)
        status |= run((char *const[]){ "/bin/busybox", "true", NULL });
    return status;
}

static const struct {
    const char *name;
    uint64_t (*work)(uint64_t);
    uint64_t times;
} rows[] = {
    { "integer", integer, 400000000 }, { "sum", sum, 24000 }, { "copy", copy, 12000 }, { "copybytes", copybytes, 8000 },
    { "memcpy", library_copy, 3000 }, { "calls", fib, 35 }, { "indirect", indirect, 60000000 }, { "sieve", sieve, 100 },
    { "sort", sort, 20 }, { "sha256", sha256, 500000 }, { "gzip", gzip, 1 }, { "compile", compile, 1 }, { "x87", x87, 8000000 },
    { "sse", sse, 15000000 }, { "avx", avx, 20000 }, { "syscalls", system_calls, 1500000 }, { "faults", page_faults, 200 },
    { "spawn", spawn, 200 }, { "branches", branches, 400000 },
};

static void wait_for_host(void)
{
    char c;
    while (read(0, &c, 1) == 1 && c != '\n') {
    }
}

int main(void)
{
    int guest = getpid() == 1;
    if (guest) {
        mkdir("/dev", 0755);
        mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    }
    for (int i = 0; i < 1 << 16; i++)
        words[i] = i * 0x9E3779B97F4A7C15u ^ (uint64_t)i << 40;
    const char *wanted = getenv("rows");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (wanted && *wanted) {
            size_t length = strlen(rows[i].name);
            const char *at = wanted;
            while ((at = strstr(at, rows[i].name)) && !((at == wanted || at[-1] == ',') && (at[length] == ',' || !at[length])))
                at++;
            if (!at)
                continue;
        }
        rows[i].work(i == 5 ? 20 : 1);
        printf("@begin %s\n", rows[i].name);
        fflush(stdout);
        wait_for_host();
        uint64_t check = rows[i].work(rows[i].times);
        printf("@end %s %llx\n", rows[i].name, (unsigned long long)check);
        fflush(stdout);
        wait_for_host();
    }
    if (guest) {
        sync();
        reboot(RB_POWER_OFF);
    }
    return 0;
}
