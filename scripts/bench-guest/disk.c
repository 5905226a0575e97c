// The disk rows of scripts/bench-vm inside the guest: PID 1 of an initramfs that loads the drivers in /mod. For each row of the environment's
// `rows` it says "@begin ROW", waits for a line on the console, works, says "@end ROW CHECKSUM", waits again, and powers off in the end.
// Rows are BUS-WORK: virtio, ide or scsi; read, write (1 MiB requests, in order), rread, rwrite (4 KiB requests, anywhere, from four threads).
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SIZE = 256 << 20, BIG = 1 << 20, SMALL = 4096, REQUESTS = 2048, THREADS = 4 };

static int disk, writes;

static void fail(const char *what)
{
    printf("@failed %s\n", what);
    fflush(stdout);
    reboot(RB_POWER_OFF);
}

static uint64_t mix(const uint64_t *data, size_t bytes)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < bytes / 8; i += 64)
        sum = sum * 31 + data[i];
    return sum;
}

static uint64_t sequential(void)
{
    uint64_t *buffer = aligned_alloc(4096, BIG), sum = 0;
    memset(buffer, 0x5A, BIG);
    for (int64_t at = 0; at < SIZE; at += BIG) {
        if ((writes ? pwrite(disk, buffer, BIG, at) : pread(disk, buffer, BIG, at)) != BIG)
            fail("a sequential request");
        if (!writes)
            sum += mix(buffer, BIG);
    }
    free(buffer);
    return sum;
}

static void *worker(void *seed)
{
    uint64_t *buffer = aligned_alloc(4096, SMALL), sum = 0, x = (uintptr_t)seed * 0x9E3779B97F4A7C15u;
    memset(buffer, 0xA5, SMALL);
    for (int i = 0; i < REQUESTS; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        int64_t at = (int64_t)(x % (SIZE / SMALL)) * SMALL;
        if ((writes ? pwrite(disk, buffer, SMALL, at) : pread(disk, buffer, SMALL, at)) != SMALL)
            fail("a random request");
        if (!writes)
            sum += mix(buffer, SMALL);
    }
    free(buffer);
    return (void *)sum;
}

static uint64_t scattered(void)
{
    pthread_t threads[THREADS];
    uint64_t sum = 0;
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, worker, (void *)(i + 1));
    for (int i = 0; i < THREADS; i++) {
        void *part;
        pthread_join(threads[i], &part);
        sum += (uint64_t)part;
    }
    return sum;
}

static void load_drivers(void)
{
    // Each goes in once those that it needs are there.
    for (int pass = 0; pass < 6; pass++) {
        DIR *all = opendir("/mod");
        for (struct dirent *entry; (entry = readdir(all));) {
            int file = openat(dirfd(all), entry->d_name, O_RDONLY);
            syscall(SYS_finit_module, file, "", 0);
            close(file);
        }
        closedir(all);
    }
}

int main(void)
{
    char *rows = getenv("rows"), line[80];
    mount("dev", "/dev", "devtmpfs", 0, "");
    load_drivers();
    sleep(1);
    for (char *row = strtok(rows ? rows : "", ","); row; row = strtok(NULL, ",")) {
        writes = strstr(row, "write") != NULL;
        disk = open(strncmp(row, "virtio", 6) ? "/dev/sda" : "/dev/vda", (writes ? O_WRONLY : O_RDONLY) | O_DIRECT);
        if (disk < 0)
            fail(row);
        printf("@begin %s\n", row);
        fflush(stdout);
        fgets(line, sizeof line, stdin);
        uint64_t sum = strstr(row, "-r") && strcmp(strchr(row, '-'), "-read") ? scattered() : sequential();
        if (writes)
            fsync(disk);
        printf("@end %s %016llx\n", row, (unsigned long long)sum);
        fflush(stdout);
        fgets(line, sizeof line, stdin);
        close(disk);
    }
    reboot(RB_POWER_OFF);
}
