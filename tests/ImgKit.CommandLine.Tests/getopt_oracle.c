/* Answers how the C library's getopt_long reads arguments. On standard input, records of NUL-terminated strings: the
   number of arguments, a "+" or "-" (stop at the first operand, or permute), the arguments. On standard output, for
   each record: a line "id value" an option ("id" alone without a value), the errors on standard output, too, and
   "operands: ..." at the end. */
#define _GNU_SOURCE
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct option longs[] = {
    {"format", required_argument, 0, 'f'},     {"force", no_argument, 0, 300},
    {"force-share", no_argument, 0, 'U'},      {"quiet", no_argument, 0, 'q'},
    {"output", required_argument, 0, 301},     {"options", required_argument, 0, 'o'},
    {"repair", optional_argument, 0, 'r'},     {"colour", optional_argument, 0, 302},
    {"color", optional_argument, 0, 302},      {"x-format", required_argument, 0, 'f'},
    {0, 0, 0, 0}};

static char *next(void)
{
    static char text[4096];
    int n = 0, c;
    while ((c = getchar()) != 0) {
        if (c == EOF)
            return NULL;
        text[n++] = c;
    }
    text[n] = 0;
    return strdup(text);
}

int main(void)
{
    char *count, line[256];
    setvbuf(stdout, NULL, _IOLBF, 0);
    dup2(1, 2);
    while ((count = next()) != NULL) {
        int argc = atoi(count) + 1, c;
        const char *letters = next()[0] == '+' ? "+f:qo:r::Uc" : "f:qo:r::Uc";
        char **argv = calloc(argc + 1, sizeof *argv);
        argv[0] = "prog";
        for (int i = 1; i < argc; i++)
            argv[i] = next();
        optind = 0;
        while ((c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
            snprintf(line, sizeof line, "%d", c);
            printf(optarg ? "%s %s\n" : "%s\n", line, optarg);
        }
        printf("operands:");
        for (int i = optind; i < argc; i++)
            printf(" %s", argv[i]);
        printf("\n");
    }
    return 0;
}
