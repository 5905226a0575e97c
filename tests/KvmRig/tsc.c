// tsc: kHz of this host's time-stamp counter, measured over a tenth of a second.
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_RAW, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

// Clock and counter at one moment: of several readings the one that nothing came between.
static void moment(long long *time, unsigned long long *tsc)
{
    long long best = 1LL << 62;
    for (int i = 0; i < 100; i++) {
        long long before = now();
        unsigned long long t = __rdtsc();
        long long after = now();
        if (after - before < best) {
            best = after - before;
            *time = before + (after - before) / 2;
            *tsc = t;
        }
    }
}

int main(void)
{
    long long from, to;
    unsigned long long first, last;
    moment(&from, &first);
    usleep(100000);
    moment(&to, &last);
    printf("%.0f\n", (last - first) * 1e6 / (to - from));
    return 0;
}
