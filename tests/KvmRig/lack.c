// Preloaded: KVM_CHECK_EXTENSION answers 0 for the capability whose number is in the environment as LACK; with LACK_SSE3, KVM_GET_SUPPORTED_CPUID
// does not list SSE3.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdlib.h>

int ioctl(int fd, unsigned long request, ...)
{
    static int (*next)(int, unsigned long, ...);
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    if (!next)
        next = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
    const char *lack = getenv("LACK");
    if (request == KVM_CHECK_EXTENSION && lack && (long)argument == atol(lack))
        return 0;
    int result = next(fd, request, argument);
    if (request == KVM_GET_SUPPORTED_CPUID && result == 0 && getenv("LACK_SSE3")) {
        struct kvm_cpuid2 *list = argument;
        for (unsigned i = 0; i < list->nent; i++)
            if (list->entries[i].function == 1)
                list->entries[i].ecx &= ~1u;
    }
    return result;
}
