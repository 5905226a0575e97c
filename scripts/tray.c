/* tray open|close|lock|unlock|status DEVICE: the door of a CD-ROM drive, for guests' shells. status prints 1 no disc, 2 tray open, 3 not ready, 4 disc. */
#include <fcntl.h>
#include <limits.h>
#include <linux/cdrom.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

int main(int count, char **words)
{
    if (count != 3)
        return 2;
    int fd = open(words[2], O_RDONLY | O_NONBLOCK), result = -1;
    if (!strcmp(words[1], "open"))
        result = ioctl(fd, CDROMEJECT);
    else if (!strcmp(words[1], "close"))
        result = ioctl(fd, CDROMCLOSETRAY);
    else if (!strcmp(words[1], "lock"))
        result = ioctl(fd, CDROM_LOCKDOOR, 1);
    else if (!strcmp(words[1], "unlock"))
        result = ioctl(fd, CDROM_LOCKDOOR, 0);
    else if (!strcmp(words[1], "status"))
        printf("%d\n", result = ioctl(fd, CDROM_DRIVE_STATUS, CDSL_CURRENT));
    if (result < 0)
        perror(words[1]);
    return result < 0;
}
