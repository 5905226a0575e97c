"""What scripts/bench-* share: runs a hypervisor whose guest announces its work, and measures what the hypervisor spends on it.

The guest says "@begin ROW" on its serial port, waits for a line, works, says "@end ROW RESULT", and waits again; the hypervisor's CPU time (user and
system, all threads) and the clock are read while it waits, so that neither boot nor console count.
"""
import glob, re, subprocess, sys, time


def cpu_seconds(pid):
    """CPU seconds of the threads of a process; a hypervisor's end with it, so none is forgotten."""
    total = 0
    for path in glob.glob(f'/proc/{pid}/task/*/schedstat'):
        try:
            with open(path) as f:
                total += int(f.read().split()[0])
        except OSError:
            pass
    return total / 1e9


def memory_beyond(pid, guest_mib):
    """MiB of a process that are resident, but for the mapping that is the guest's memory."""
    total, size = 0, 0
    with open(f'/proc/{pid}/smaps') as f:
        for line in f:
            if head := re.match(r'([0-9a-f]+)-([0-9a-f]+) ', line):
                size = (int(head[2], 16) - int(head[1], 16)) >> 20
            elif line.startswith('Rss:') and not guest_mib <= size <= guest_mib + 4:
                total += int(line.split()[1])
    return total / 1024


class Run:
    """One run: per row the CPU seconds, the wall seconds and the guest's result; "boot" is everything before the first row."""

    def __init__(self, command, guest_mib=None, limit=900):
        self.cpu, self.wall, self.results, self.beyond = {}, {}, {}, None
        log, start = [], time.monotonic()
        begin = (0, start)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace') as vm:
            for line in vm.stdout:
                log.append(line)
                if time.monotonic() - start > limit:
                    vm.kill()
                word = line.split()
                if not word or word[0] not in ('@begin', '@end'):
                    continue
                now = (cpu_seconds(vm.pid), time.monotonic())
                if word[0] == '@begin' and self.cpu:
                    begin = now
                else:
                    row = word[1] if word[0] == '@end' else 'boot'
                    self.cpu[row], self.wall[row] = now[0] - begin[0], now[1] - begin[1]
                    self.results[row] = ' '.join(word[2:]) if word[0] == '@end' else ''
                    begin = now
                if guest_mib:
                    self.beyond = memory_beyond(vm.pid, guest_mib)
                try:
                    vm.stdin.write('\n')
                    vm.stdin.flush()
                except BrokenPipeError:
                    break
        if len(self.cpu) < 2:
            sys.exit('%s gave no result:\n%s' % (command[0], ''.join(log[-20:])))
