// nobody PROGRAM ARGUMENT...: runs a program as a user without rights.
#include <grp.h>
#include <unistd.h>

int main(int count, char **arguments)
{
    if (count < 2 || setgroups(0, 0) || setgid(65534) || setuid(65534))
        return 126;
    execv(arguments[1], arguments + 1);
    return 127;
}
